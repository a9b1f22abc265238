"""Trouble with a server of PostgreSQL that lasts as long as a block does: full, read-only, or locked by somebody."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TypeAlias

import psycopg

# Takes the store's URL and a table that is written for every payment.
Trouble: TypeAlias = Callable[[str, str], AbstractContextManager[None]]

_NO_ROOM = """
CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$;
CREATE TRIGGER no_room BEFORE INSERT OR UPDATE ON {} FOR EACH ROW EXECUTE FUNCTION no_room();
"""


@contextlib.contextmanager
def full(url: str, table: str) -> Iterator[None]:
    """Have no room for another row, as the server says it of its disk."""
    with psycopg.connect(url, autocommit=True) as at:
        at.execute(_NO_ROOM.format(table).encode())
        yield
        at.execute("DROP FUNCTION no_room() CASCADE")


@contextlib.contextmanager
def read_only(url: str, _table: str) -> Iterator[None]:
    """Take reads alone, as a standby does after a failover to it that nobody finished."""
    with psycopg.connect(url, autocommit=True) as at:
        name = at.info.dbname
        at.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on".encode())
        at.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'farthing'")
        yield
        at.execute("SET default_transaction_read_only = off")
        at.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only".encode())


@contextlib.contextmanager
def locked(url: str, table: str) -> Iterator[None]:
    """Hold a lock on the table, as somebody at a prompt does, or a program that stands still."""
    with psycopg.connect(url) as at:
        at.execute(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE".encode())
        yield
        at.rollback()


ALL: tuple[Trouble, ...] = (full, read_only, locked)
