"""Migrations on PostgreSQL: the numbered SQL files, or their `.postgres.sql` twins where the words differ."""

from __future__ import annotations

import time
from typing import Final

from farthing.world.migrations import (
    CREATE_SCHEMA,
    INSERT_APPLIED,
    SELECT_APPLIED,
    Migration,
    check_known,
)
from farthing.world.postgres_connection import PostgresConnection

# Processes that start together migrate one after the other. The transaction that holds this is as long as the longest
# migration: neither a statement nor the wait for the lock has the limits of the daily work.
_BEGIN: Final = """
BEGIN ISOLATION LEVEL READ COMMITTED;
SET LOCAL lock_timeout = 0;
SET LOCAL statement_timeout = 0;
SELECT pg_advisory_xact_lock(hashtextextended('farthing:' || coalesce(current_schema(), '') || ':schema', 0))
"""
_HAS_SCHEMA: Final = "SELECT to_regclass('farthing_schema') IS NOT NULL"


def migrate(connection: PostgresConnection, migrations: tuple[Migration, ...]) -> None:
    """Apply what is missing, all of it in one transaction or none. `connection` is in no transaction.

    Where nothing is missing nothing but SELECT is asked of the user's rights. Raises `StoreError` when the store was
    written by a newer version or by another line of migrations; `psycopg.Error` when a migration fails.
    """
    if not missing(connection, migrations):
        return
    connection.script(_BEGIN)
    try:
        if not _has_schema(connection):
            connection.execute(CREATE_SCHEMA)
        for migration in missing(connection, migrations):
            apply(connection, migration)
        connection.script("COMMIT")
    finally:
        if connection.in_transaction:
            connection.script("ROLLBACK")


def missing(connection: PostgresConnection, migrations: tuple[Migration, ...]) -> tuple[Migration, ...]:
    """Which of the migrations are not applied yet. Raises `StoreError` when others are that are not known here."""
    rows = connection.execute(SELECT_APPLIED).fetchall() if _has_schema(connection) else []
    applied = {(family, number): name for family, number, name in rows}
    check_known(applied, migrations)
    return tuple(each for each in migrations if (each.family, each.number) not in applied)


def apply(connection: PostgresConnection, migration: Migration) -> None:
    """Run one migration and put it on record, in the transaction that is open."""
    connection.script(migration.postgres_sql or migration.sql)
    row = (migration.family, migration.number, migration.name, int(time.time()))
    connection.execute(INSERT_APPLIED, row)


def _has_schema(connection: PostgresConnection) -> bool:
    row = connection.execute(_HAS_SCHEMA).fetchone()
    return row is not None and bool(row[0])
