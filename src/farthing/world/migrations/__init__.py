"""Migrations as numbered SQL files, `<family>/0001_<name>.sql`, one folder for each party's tables.

Several families may live in one file of SQLite, or in one schema of PostgreSQL: each has its own numbers in the
table `farthing_schema`. Where PostgreSQL needs other words (triggers), `0001_<name>.postgres.sql` beside a file says
the same.
"""

from __future__ import annotations

import re
import sqlite3
import time
from importlib import resources

import msgspec

from farthing.errors import ConfigError, StoreError

_FILE_NAME = re.compile(r"(?P<number>[0-9]{4})_(?P<name>[a-z0-9_]+)\.sql")
_TWIN = ".postgres.sql"

CREATE_SCHEMA = """
CREATE TABLE IF NOT EXISTS farthing_schema (
    family TEXT NOT NULL,
    number INTEGER NOT NULL,
    name TEXT NOT NULL,
    applied_at INTEGER NOT NULL,
    PRIMARY KEY (family, number)
)
"""
SELECT_APPLIED = "SELECT family, number, name FROM farthing_schema"
INSERT_APPLIED = "INSERT INTO farthing_schema (family, number, name, applied_at) VALUES (?, ?, ?, ?)"


class Migration(msgspec.Struct, frozen=True):
    """One step of a schema. `number` counts from 1 within `family`; what was applied once is never edited.

    `postgres_sql` says the same for PostgreSQL; where it is empty `sql` holds words that both know.
    """

    number: int
    name: str
    sql: str
    family: str = "main"
    postgres_sql: str = ""


def load_migrations(family: str) -> tuple[Migration, ...]:
    """Read the migrations of `family` that come with this version, in order. Raises `ConfigError`."""
    folder = resources.files(__name__).joinpath(family)
    if not folder.is_dir():
        raise ConfigError(f"This version of Farthing has no migrations called {family!r}.")
    migrations: list[Migration] = []
    for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if not file.name.endswith(".sql") or file.name.endswith(_TWIN):
            continue
        matched = _FILE_NAME.fullmatch(file.name)
        if matched is None:
            raise ConfigError(f"{family}/{file.name}: a migration is called like 0001_what_it_does.sql.")
        number = int(matched["number"])
        if number != len(migrations) + 1:
            raise ConfigError(f"{family}/{file.name}: expected number {len(migrations) + 1:04}, found {number:04}.")
        twin = folder.joinpath(file.name.removesuffix(".sql") + _TWIN)
        other = twin.read_text(encoding="utf-8") if twin.is_file() else ""
        migrations.append(Migration(number, matched["name"], file.read_text(encoding="utf-8"), family, other))
    return tuple(migrations)


def migrate(connection: sqlite3.Connection, migrations: tuple[Migration, ...]) -> None:
    """Apply what is missing, all of it in one transaction or none. The caller holds the file's lock.

    `connection` is in autocommit mode. Raises `StoreError` when the file was written by a newer version or by
    another line of migrations; `sqlite3.Error` when a migration fails.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(CREATE_SCHEMA)
        rows = connection.execute(SELECT_APPLIED).fetchall()
        applied: dict[tuple[str, int], str] = {(family, number): name for family, number, name in rows}
        check_known(applied, migrations)
        for migration in migrations:
            if (migration.family, migration.number) in applied:
                continue
            for statement in split_statements(migration.sql):
                connection.execute(statement)
            row = (migration.family, migration.number, migration.name, int(time.time()))
            connection.execute(INSERT_APPLIED, row)
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def split_statements(sql: str) -> list[str]:
    """Split a script into its statements, as SQLite's own tokeniser sees them (a trigger's body stays whole)."""
    statements: list[str] = []
    pending = ""
    *pieces, rest = sql.split(";")
    for piece in pieces:
        pending += piece + ";"
        if sqlite3.complete_statement(pending):
            statements.append(pending.strip())
            pending = ""
    rest = (pending + rest).strip()
    if not all(line.strip() == "" or line.lstrip().startswith("--") for line in rest.splitlines()):
        raise ConfigError(f"The migration's last statement has no end: {rest[:80]!r}")
    return statements


def check_known(applied: dict[tuple[str, int], str], migrations: tuple[Migration, ...]) -> None:
    """Raise `StoreError` where the store holds a step that this version does not know, or knows by another name."""
    known = {(migration.family, migration.number): migration.name for migration in migrations}
    families = {migration.family for migration in migrations}
    for (family, number), name in applied.items():
        if family not in families:
            continue  # another party's tables in the same file
        ours = known.get((family, number))
        if ours is None:
            newest = max(number for other, number in known if other == family)
            raise StoreError(
                f"The store holds schema {family} {number:04} ({name}); this version of Farthing knows up to "
                f"{newest:04}. It was written by a newer version: upgrade Farthing, or use another file."
            )
        if ours != name:
            raise StoreError(
                f"The store holds schema {family} {number:04} ({name}); this version's {number:04} is {ours}."
                " It was written by another line of Farthing: use another file."
            )
