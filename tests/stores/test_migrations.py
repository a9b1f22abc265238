"""Every schema that has landed, with rows in it, comes forward: by its own process, and by `farthing store migrate`."""

# ruff: noqa: S608 - what is put into statements are names of our own tables and columns

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from farthing.errors import StoreError
from farthing.world.database import open_database
from farthing.world.migrations import Migration, load_migrations
from farthing.world.store_schema import FAMILIES, check_store, metadata_of, migrate_store
from farthing.world.store_url import is_postgres

LANDED = [(family, number) for family in FAMILIES for number in range(1, len(load_migrations(family)) + 1)]
# What a row may hold where not everything is allowed.
SPECIAL = {"side": "debit", "direction": "in", "role": "operator", "kind": "posted", "pending": "", "credit": "y"}


def make(url: str, family: str, number: int) -> None:
    open_database(url, family=family, migrations=load_migrations(family)[:number]).close()


def row_of(table: sa.Table) -> dict[str, Any]:
    """A row that any table takes: all keys are alike, so that what refers to another row finds it."""
    row: dict[str, Any] = {}
    for column in table.columns:
        kind = type(column.type).__name__.upper()
        if "INT" in kind:
            row[column.name] = 7
        elif "BLOB" in kind or "NUMERIC" in kind:  # what SQLite takes BYTEA for
            row[column.name] = b"\x00\xff"
        else:
            row[column.name] = SPECIAL.get(column.name, "x")
    return row


def fill(url: str, family: str, number: int) -> dict[str, dict[str, Any]]:
    tables = [table for table in metadata_of(family, number)[0].sorted_tables if table.name != "farthing_schema"]
    rows = {table.name: row_of(table) for table in tables}
    database = open_database(url, family=family, migrations=load_migrations(family)[:number])

    def write(at: Any) -> None:
        for name, row in rows.items():
            marks = ", ".join("?" * len(row))
            # Numbers that the database draws are given here, so that rows find one another.
            drawn = " OVERRIDING SYSTEM VALUE" if is_postgres(url) else ""
            at.execute(f"INSERT INTO {name} ({', '.join(row)}){drawn} VALUES ({marks})", tuple(row.values()))

    database.submit(write).result(20)
    database.close()
    return rows


def contents(url: str, family: str) -> dict[str, list[dict[str, Any]]]:
    database = open_database(url, family=family)
    found: dict[str, list[dict[str, Any]]] = {}
    for name, table in metadata_of(family)[0].tables.items():
        names = [column.name for column in table.columns]
        rows = database.fetch(f"SELECT {', '.join(names)} FROM {name}")
        found[name] = [dict(zip(names, row, strict=True)) for row in rows]
    database.close()
    return found


def definitions(url: str) -> Any:
    """All that the engine knows of the tables, for comparing two stores."""
    if is_postgres(url):
        with psycopg.connect(url) as at:
            columns = at.execute(
                "SELECT table_name, column_name, data_type, is_nullable, column_default "
                "FROM information_schema.columns "
                "WHERE table_schema = 'public' ORDER BY table_name, ordinal_position"
            ).fetchall()
            indexes = at.execute("SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1").fetchall()
            triggers = at.execute("SELECT tgname, tgrelid::regclass::text FROM pg_trigger ORDER BY 1, 2").fetchall()
            return columns, indexes, [row for row in triggers if not row[0].startswith("RI_")]
    with sqlite3.connect(url) as at:
        return at.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name").fetchall()


@pytest.mark.parametrize(("family", "number"), LANDED)
@pytest.mark.parametrize("by", ["itself", "alembic"])
def test_every_schema_that_has_landed_comes_forward_with_its_rows(
    store_url: str, family: str, number: int, by: str
) -> None:
    make(store_url, family, number)
    before = fill(store_url, family, number)
    newest = len(load_migrations(family))
    (report,) = check_store(store_url)
    assert (report.number, report.newest, report.differences) == (number, newest, ())
    assert report.good == (number == newest)
    if by == "alembic":
        ((was, report),) = migrate_store(store_url)
        assert was.number == number
        assert report.good, report
    after = contents(store_url, family)
    (report,) = check_store(store_url)
    assert report.good, report
    for name, row in before.items():
        if name not in after:
            continue  # its rows moved to other tables
        same = row.keys() & metadata_of(family)[0].tables[name].columns.keys()
        same -= {"claim"}  # a number that the migration draws
        wanted = {column: row[column] for column in same}
        assert wanted in [{column: each[column] for column in same} for each in after[name]], name


@pytest.mark.parametrize("family", FAMILIES)
def test_a_store_made_by_alembic_is_the_same_as_one_that_made_itself(
    store_url: str, family: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    with pytest.raises(StoreError, match="--role"):
        migrate_store(store_url)
    ((_, report),) = migrate_store(store_url, (family,))
    assert report.good, report
    made = definitions(store_url)
    if is_postgres(store_url):
        server = request.getfixturevalue("postgres_server")
        other = server.database()
    else:
        other = str(tmp_path / "other.sqlite3")
    open_database(other, family=family).close()
    assert definitions(other) == made


def test_several_roles_share_a_place(store_url: str) -> None:
    for family in ("buyer", "seller"):
        make(store_url, family, 1)
    assert [report.family for report in check_store(store_url)] == ["buyer", "seller"]
    assert [after.good for _, after in migrate_store(store_url)] == [True, True]


def test_what_differs_is_named(store_url: str) -> None:
    database = open_database(store_url, family="facilitator")

    def spoil(at: Any) -> None:
        at.execute("ALTER TABLE wallets DROP COLUMN stopped")
        at.execute("DROP INDEX ledger_entries_by_account")
        on = "" if not is_postgres(store_url) else " ON ledger_entries"
        for name in ["append_only"] if on else ["no_update", "no_delete"]:
            at.execute(f"DROP TRIGGER ledger_entries_{name}{on}")

    database.submit(spoil).result(20)
    database.close()
    (report,) = check_store(store_url)
    assert not report.good
    said = "\n".join(report.differences)
    for name in ("stopped", "ledger_entries_by_account", "ledger_entries can be edited"):
        assert name in said


def test_a_newer_store_is_left_alone(store_url: str) -> None:
    newer = Migration(99, "from_tomorrow", "CREATE TABLE tomorrow (id TEXT);", "buyer")
    open_database(store_url, family="buyer", migrations=(*load_migrations("buyer"), newer)).close()
    (report,) = check_store(store_url)
    assert not report.good
    assert "upgrade Farthing" in report.trouble
    with pytest.raises(StoreError, match="upgrade Farthing"):
        migrate_store(store_url)


def test_the_command_says_what_is_there_and_exits_accordingly(store_url: str) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "farthing", "store", *arguments, "--store", store_url]
        ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        return ran.returncode, ran.stdout + ran.stderr

    make(store_url, "facilitator", 1)
    code, said = run("check")
    assert code == 1
    assert "facilitator  0001 of" in said
    assert "behind; run: farthing store migrate" in said
    code, said = run("migrate")
    assert code == 0, said
    code, said = run("check", "--json")
    assert code == 0
    facts = json.loads(said)
    assert (facts["role"], facts["good"], facts["differences"]) == ("facilitator", True, [])
    code, said = run("check", "--role", "seller")
    assert code == 1
    assert "no tables" in said
