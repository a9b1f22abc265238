"""Opens the database that a store's URL names: a file of SQLite, or a database of PostgreSQL."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

from farthing.errors import ConfigError
from farthing.world.connection import Database
from farthing.world.migrations import Migration, load_migrations
from farthing.world.pending import Pending
from farthing.world.sqlite import Database as SqliteDatabase
from farthing.world.store_url import is_postgres, sqlite_path

if TYPE_CHECKING:
    from farthing.world.postgres import Database as PostgresDatabase

E = TypeVar("E")
R = TypeVar("R")


def open_database(
    store: str | os.PathLike[str], *, family: str, migrations: tuple[Migration, ...] | None = None
) -> Database:
    """Open `store`: a path, `sqlite:///path`, or `postgresql://user@host/name`; and bring its schema up to date.

    `family` names the tables that are kept there, and `migrations` are theirs: by default those of the folder
    `farthing.world.migrations.<family>`. Raises `StoreError`, and `ConfigError` for a URL that can't be read or a
    missing extra.
    """
    migrations = load_migrations(family) if migrations is None else migrations
    if not is_postgres(store):
        return SqliteDatabase(sqlite_path(store), migrations=migrations)
    return _postgres()(os.fspath(store), migrations=migrations)


def is_remote(database: Database) -> bool:
    """Whether reading waits for a network: then an event loop does not do it itself."""
    return isinstance(database, _Remote)


def off_the_loop(database: Database, reading: Callable[[E], R]) -> Callable[[E], R | Pending[R]]:
    """Make a handler of effects from what reads: at once on a file, which answers in microseconds, else in a thread."""
    if isinstance(database, _Remote):
        return lambda effect: database.soon(partial(reading, effect))
    return reading


@runtime_checkable
class _Remote(Database, Protocol):
    def soon(self, reading: Callable[[], R]) -> Pending[R]: ...


def _postgres() -> type[PostgresDatabase]:
    try:
        from farthing.world.postgres import Database as Opened  # noqa: PLC0415 - psycopg only where it is used
    except ModuleNotFoundError as error:
        if error.name != "psycopg":
            raise
        raise ConfigError("A store on PostgreSQL needs psycopg: pip install 'farthing[postgres]'.") from None
    return Opened
