"""Schemas of stores as Alembic and SQLAlchemy see them: forward from any that has landed, compared with what is there.

The numbered SQL files are the source, and the table `farthing_schema` says which of them a store has. Here each file is
a revision of Alembic (`seller_0004`, one branch for each family of tables), so that a store that Alembic migrated and
one that its own process migrated are the same. The metadata of SQLAlchemy Core is read from a store that the files make
in memory: so a store on PostgreSQL is compared with what the files say for SQLite, too.

Needs the extra `store`. No service and no door imports it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
import types
from collections.abc import Callable, Generator, Iterator
from importlib import resources
from pathlib import Path
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import StaticPool

from farthing.errors import StoreError
from farthing.world import migrations as files
from farthing.world.filelock import FileLock
from farthing.world.migrations import Migration, load_migrations, split_statements
from farthing.world.store_url import is_postgres, shown, sqlite_path

FAMILIES: Final = ("buyer", "seller", "facilitator", "clearing", "edge")
# Other processes' batches take milliseconds, their migrations seconds.
LOCK_TIMEOUT_SECONDS: Final = 30.0

# Alembic's own table lives as long as the session: the record that stays is `farthing_schema`.
_VERSIONS: Final = "farthing_alembic_versions"
_LOCK_POSTGRES: Final = (
    "SET LOCAL lock_timeout = 0",
    "SET LOCAL statement_timeout = 0",
    "SELECT pg_advisory_xact_lock(hashtextextended('farthing:' || coalesce(current_schema(), '') || ':schema', 0))",
)
_GUARDED_SQLITE: Final = "SELECT DISTINCT tbl_name FROM sqlite_master WHERE type = 'trigger'"
_GUARDED_POSTGRES: Final = (
    "SELECT DISTINCT relname FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid "
    "WHERE NOT tgisinternal AND pg_table_is_visible(pg_class.oid)"
)
# What one engine calls so is another's other word: widths of integers and names of types.
_KINDS: Final = (("INT", "integer"), ("TEXT", "text"), ("CHAR", "text"), ("BYTEA", "bytes"), ("BLOB", "bytes"),
                 ("NUMERIC", "bytes"))  # fmt: skip


class FamilyReport(msgspec.Struct, frozen=True):
    """What a store holds of one family: `number` of `newest` migrations, and how its tables differ from the files."""

    family: str
    number: int
    newest: int
    trouble: str = ""
    differences: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """Whether this version of Farthing can open it as it is, and finds all that it wants."""
        return self.number == self.newest and not self.trouble and not self.differences


def check_store(store: str, families: tuple[str, ...] = ()) -> tuple[FamilyReport, ...]:
    """Look at a store without changing it: by default at every family that is there. Raises `StoreError`."""
    with _opened(store, writing=False) as connection:
        applied = _applied(connection)
        wanted = families or tuple(family for family in FAMILIES if any(found == family for found, _ in applied))
        return tuple(_look(connection, family, applied) for family in wanted)


def migrate_store(store: str, families: tuple[str, ...] = ()) -> tuple[tuple[FamilyReport, FamilyReport], ...]:
    """Bring a store forward, all of it or nothing; gives what was there before and what is there now.

    By default every family that is there. Raises `StoreError`, also where the store is of a newer version.
    """
    with _opened(store, writing=True) as connection:
        applied = _applied(connection)
        wanted = families or tuple(family for family in FAMILIES if any(found == family for found, _ in applied))
        if not wanted:
            raise StoreError(
                f"The store {shown(store)} holds no tables of Farthing: say whose they are to be (--role)."
            )
        before = tuple(_look(connection, family, applied) for family in wanted)
        for each in before:
            if each.trouble:
                raise StoreError(f"The store {shown(store)} can't be migrated: {each.trouble}")
        _upgrade(connection, wanted, applied)
        applied = _applied(connection)
        return tuple(zip(before, (_look(connection, family, applied) for family in wanted), strict=True))


def metadata_of(family: str, number: int | None = None) -> tuple[sa.MetaData, frozenset[str]]:
    """Describe the tables of a family after its migration `number` (the newest), and name those that refuse edits."""
    raw = sqlite3.connect(":memory:", isolation_level=None)
    for migration in load_migrations(family)[:number]:
        _run(raw, migration)
    engine = _engine("sqlite://", raw)
    metadata = sa.MetaData()
    try:
        with engine.connect() as connection:
            metadata.reflect(connection)
            guarded = frozenset(connection.exec_driver_sql(_GUARDED_SQLITE).scalars())
    finally:
        engine.dispose()
        raw.close()
    return metadata, guarded


def _look(connection: sa.Connection, family: str, applied: dict[tuple[str, int], str]) -> FamilyReport:
    migrations = load_migrations(family)
    numbers = [number for found, number in applied if found == family]
    report = FamilyReport(family, max(numbers, default=0), len(migrations))
    try:
        files.check_known(applied, migrations)
    except StoreError as error:
        return msgspec.structs.replace(report, trouble=str(error))
    return msgspec.structs.replace(report, differences=_differences(connection, family, report.number))


def _differences(connection: sa.Connection, family: str, number: int) -> tuple[str, ...]:
    if number == 0:
        return ()
    metadata, guarded = metadata_of(family, number)

    def is_ours(name: str | None, kind: str, _parents: Any) -> bool:
        return kind != "table" or name in metadata.tables

    context = MigrationContext.configure(
        connection, opts={"compare_type": _differs, "include_name": is_ours, "target_metadata": metadata}
    )
    found = [_said(each) for each in compare_metadata(context, metadata)]
    query = _GUARDED_SQLITE if connection.dialect.name == "sqlite" else _GUARDED_POSTGRES
    unguarded = guarded - set(connection.exec_driver_sql(query).scalars())
    found += [f"table {name} can be edited: its triggers are gone" for name in sorted(unguarded)]
    return tuple(found)


def _differs(_context: Any, _inspected: Any, _column: Any, inspected: sa.types.TypeEngine[Any], wanted: Any) -> bool:
    return _kind(inspected) != _kind(wanted)


def _kind(type_: sa.types.TypeEngine[Any]) -> str:
    name = type(type_).__name__.upper()
    return next((kind for part, kind in _KINDS if part in name), name)


def _said(difference: Any) -> str:
    """One difference as a person reads it; Alembic gives tuples, and lists of them for what changed in a column."""
    several: Any = difference
    if isinstance(difference, list):
        return "; ".join(_said(each) for each in several)
    verb, *rest = difference
    names = [getattr(each, "name", each) for each in rest if each is not None and not isinstance(each, dict)]
    words = {"add": "is missing", "remove": "is not expected", "modify": "differs"}
    action, _, what = str(verb).partition("_")
    return f"{what} {' '.join(str(name) for name in names if name)} {words.get(action, action)}"


# Alembic


class _Numbered(ScriptDirectory):
    """Revisions out of the numbered files: what Alembic would read from a folder of modules."""

    def __init__(self, connection: sa.Connection) -> None:
        super().__init__(str(resources.files(files)))
        self._connection = connection

    def _load_revisions(self) -> Iterator[Script]:
        for family in FAMILIES:
            if not resources.files(files).joinpath(family).is_dir():
                continue
            for migration in load_migrations(family):
                module = types.ModuleType(_revision(migration.family, migration.number), migration.name)
                below = _revision(family, migration.number - 1) if migration.number > 1 else None
                facts = {"revision": module.__name__, "down_revision": below, "upgrade": self._step(migration)}
                vars(module).update(facts | {"branch_labels": None, "depends_on": None})
                yield Script(module, module.__name__, f"{family}/{migration.number:04}_{migration.name}.sql")

    def steps_to(self, goals: tuple[str, ...]) -> Callable[[Any, Any], Any]:
        """Give what Alembic asks for the steps from where a store is to `goals`."""
        upgrade: Any = self._upgrade_revs  # what `alembic upgrade` itself calls; it has no public name
        return lambda heads, _: upgrade(goals, heads)

    def _step(self, migration: Migration) -> Callable[..., None]:
        def upgrade(**_: Any) -> None:
            _apply(self._connection, migration)

        return upgrade


def _upgrade(connection: sa.Connection, families: tuple[str, ...], applied: dict[tuple[str, int], str]) -> None:
    script = _Numbered(connection)
    if not sa.inspect(connection).has_table("farthing_schema"):
        connection.exec_driver_sql(files.CREATE_SCHEMA)
    connection.exec_driver_sql(f"CREATE TEMPORARY TABLE {_VERSIONS} (version_num VARCHAR(32) PRIMARY KEY)")
    newest: dict[str, int] = {}
    for family, number in applied:
        newest[family] = max(number, newest.get(family, 0))
    for family, number in newest.items():
        if family in FAMILIES:
            connection.exec_driver_sql(f"INSERT INTO {_VERSIONS} VALUES ('{_revision(family, number)}')")  # noqa: S608
    goals = tuple(_revision(family, len(load_migrations(family))) for family in families)
    opts: dict[str, Any] = {"fn": script.steps_to(goals), "version_table": _VERSIONS, "script": script}
    context = MigrationContext.configure(connection, opts=opts)
    context.run_migrations()
    connection.exec_driver_sql(f"DROP TABLE {_VERSIONS}")


def _revision(family: str, number: int) -> str:
    return f"{family}_{number:04}"


def _apply(connection: sa.Connection, migration: Migration) -> None:
    _run(connection.connection.dbapi_connection, migration)
    row = sa.text("INSERT INTO farthing_schema (family, number, name, applied_at) VALUES (:f, :n, :name, :at)")
    facts = {"f": migration.family, "n": migration.number, "name": migration.name, "at": int(time.time())}
    connection.execute(row, facts)


def _run(raw: Any, migration: Migration) -> None:
    if isinstance(raw, sqlite3.Connection):
        for statement in split_statements(migration.sql):
            raw.execute(statement)
    else:
        raw.execute((migration.postgres_sql or migration.sql).encode(), prepare=False)


def _applied(connection: sa.Connection) -> dict[tuple[str, int], str]:
    if not sa.inspect(connection).has_table("farthing_schema"):
        return {}
    return {(family, number): name for family, number, name in connection.exec_driver_sql(files.SELECT_APPLIED)}


# Connections


@contextlib.contextmanager
def _opened(store: str, *, writing: bool) -> Generator[sa.Connection]:
    """Open a store in one transaction, which is rolled back where something goes wrong, and always after looking."""
    with _postgres(store) if is_postgres(store) else _file(sqlite_path(store), writing=writing) as engine:
        try:
            with engine.connect() as connection, connection.begin() as transaction:
                yield connection
                if not writing:
                    transaction.rollback()
        except DBAPIError as error:
            raise StoreError(f"The store {shown(store)}: {str(error.orig).strip()}") from error
        finally:
            engine.dispose()


@contextlib.contextmanager
def _file(path: Path, *, writing: bool) -> Generator[sa.Engine]:
    if not writing and not path.is_file():
        raise StoreError(f"There is no store at {path}.")
    if not path.parent.is_dir():
        raise StoreError(f"The folder {path.parent} of the store does not exist: make it, or give another path.")
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    lock = FileLock(path.with_name(path.name + ".lock"))
    if not lock.acquire(LOCK_TIMEOUT_SECONDS):
        raise StoreError(f"Another process has held {path}.lock for {LOCK_TIMEOUT_SECONDS:g} seconds; try again.")
    raw = sqlite3.connect(path, isolation_level=None)
    try:
        yield _engine("sqlite://", raw, begin=("BEGIN IMMEDIATE",))
    finally:
        raw.close()
        lock.release()
        lock.close()


@contextlib.contextmanager
def _postgres(store: str) -> Generator[sa.Engine]:
    from farthing.world.postgres_connection import PostgresPlace  # noqa: PLC0415 - psycopg only where it is used

    connection = PostgresPlace(store).connect()
    connection.raw.autocommit = False
    try:
        yield _engine("postgresql+psycopg://", connection.raw, begin=_LOCK_POSTGRES)
    finally:
        connection.close()


def _engine(kind: str, raw: Any, begin: tuple[str, ...] = ()) -> sa.Engine:
    engine = sa.create_engine(kind, creator=lambda: raw, poolclass=StaticPool)

    def lock(connection: sa.Connection) -> None:
        for statement in begin:
            connection.exec_driver_sql(statement)

    event.listen(engine, "begin", lock)
    return engine
