"""Looks into a facilitator's store from beside it, whatever engine keeps it and whether or not it is there yet."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import psycopg

from farthing.world.store_url import is_postgres


class StoreReading:
    """Reads what is committed. Where there is no store yet, or its server is away, there is nothing."""

    def __init__(self, store: str) -> None:
        self.store = store
        self._connection: psycopg.Connection[Any] | None = None

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        if is_postgres(self.store):
            return self._of_postgres(sql)
        try:
            with closing(sqlite3.connect(f"file:{self.store}?mode=ro", uri=True)) as at:
                return at.execute(sql).fetchall()
        except sqlite3.OperationalError:
            return []

    def _of_postgres(self, sql: str) -> list[tuple[Any, ...]]:
        try:
            if self._connection is None or self._connection.closed:
                self._connection = psycopg.connect(self.store, autocommit=True)
            return self._connection.execute(sql.encode()).fetchall()
        except (psycopg.errors.UndefinedTable, psycopg.OperationalError):
            return []

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
