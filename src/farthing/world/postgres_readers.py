"""Connections for reading from PostgreSQL: a bounded pool, since a server counts its connections over all processes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator
from typing import Any, Final, TypeVar

import psycopg

from farthing.errors import StoreError
from farthing.world.connection import Operation
from farthing.world.postgres_connection import PostgresConnection, PostgresPlace
from farthing.world.postgres_errors import ends_connection, translate

R = TypeVar("R")

# Of one process: a server takes a hundred by default, and a read holds one for a millisecond.
READERS_MAX: Final = 8
# A read that finds all of them busy for this long stands behind a server that does not answer.
WAIT_SECONDS: Final = 10.0

_BEGIN: Final = b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"


class Readers:
    """The pool. A query within a query runs on the connection that its thread has already."""

    def __init__(self, place: PostgresPlace) -> None:
        """Open connections to `place` as they are needed."""
        self._place = place
        self._lock = threading.Lock()
        self._free = threading.Semaphore(READERS_MAX)
        self._idle: list[PostgresConnection] = []
        self._busy: set[PostgresConnection] = set()
        self._local = threading.local()
        self._closed = False

    def read(self, query: Operation[R]) -> R:
        """Run `query` over one snapshot. Raises `StoreError`, or what the query raised."""
        current: PostgresConnection | None = getattr(self._local, "connection", None)
        if current is not None:
            return query(current)
        try:
            with self._borrowed(_BEGIN) as connection:
                self._local.connection = connection
                try:
                    return query(connection)
                finally:
                    self._local.connection = None
        except psycopg.Error as error:
            raise translate(error, self._place.shown) from error

    def fetch(self, sql: str, parameters: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        """Run one statement by itself."""
        current: PostgresConnection | None = getattr(self._local, "connection", None)
        if current is not None:
            return current.execute(sql, parameters).fetchall()
        try:
            for last in (False, True):
                with self._borrowed(b"") as connection:
                    try:
                        return connection.execute(sql, parameters).fetchall()
                    except psycopg.Error as error:
                        # It may have died in the pool, when the server was started anew; reading twice is harmless.
                        if last or not ends_connection(error):
                            raise
                        self._drop_idle()
        except psycopg.Error as error:
            raise translate(error, self._place.shown) from error
        raise AssertionError  # pragma: no cover

    def all_connections(self) -> list[PostgresConnection]:
        """Those that are open, idle or busy."""
        return [*self._idle, *self._busy]

    def close(self) -> None:
        """Close those that are idle now, and the others when they are given back."""
        with self._lock:
            self._closed = True
        self._drop_idle()

    @contextlib.contextmanager
    def _borrowed(self, begin: bytes) -> Generator[PostgresConnection]:
        if not self._free.acquire(timeout=WAIT_SECONDS):
            raise StoreError(
                f"{READERS_MAX} reads of the store {self._place.shown} have not ended for {WAIT_SECONDS:g} seconds. "
                "See whether the server and the network answer."
            )
        try:
            connection = self._take(begin)
            try:
                yield connection
            finally:
                self._give_back(connection)
        finally:
            self._free.release()

    def _take(self, begin: bytes) -> PostgresConnection:
        with self._lock:
            connection = self._idle.pop() if self._idle else None
            if connection is not None:
                self._busy.add(connection)
        if connection is not None:
            try:
                if begin:
                    connection.raw.execute(begin, prepare=False)
            except psycopg.Error as error:
                # It died in the pool, when the server was started anew: so have the others, most likely.
                self._give_back(connection)
                if not ends_connection(error):
                    raise
                self._drop_idle()
            else:
                return connection
        return self._open(begin)

    def _open(self, begin: bytes) -> PostgresConnection:
        connection = self._place.connect()
        try:
            connection.raw.execute(b"SET default_transaction_read_only = on", prepare=False)
            if begin:
                connection.raw.execute(begin, prepare=False)
        except BaseException:
            connection.close()
            raise
        with self._lock:
            self._busy.add(connection)
        return connection

    def _give_back(self, connection: PostgresConnection) -> None:
        if connection.in_transaction:
            with contextlib.suppress(psycopg.Error):
                connection.raw.execute(b"ROLLBACK", prepare=False)
        with self._lock:
            self._busy.discard(connection)
            if not self._closed and not connection.raw.closed:
                self._idle.append(connection)
                return
        connection.close()

    def _drop_idle(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
