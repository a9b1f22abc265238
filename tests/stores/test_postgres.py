"""What PostgreSQL alone can do to a store: the server is stopped, killed, away, frozen out; and what is said then."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psycopg
import pytest

from farthing.errors import ConfigError, MaybeWritten, StoreError
from farthing.world import postgres_connection
from farthing.world.connection import Connection, Operation
from farthing.world.database import open_database
from farthing.world.migrations import Migration
from farthing.world.postgres import Database
from farthing.world.postgres_connection import translate_marks
from farthing.world.postgres_readers import READERS_MAX

if TYPE_CHECKING:
    from tests.postgres_server import PostgresServer

ROWS = Migration(1, "rows", "CREATE TABLE rows (id TEXT NOT NULL PRIMARY KEY);", "test")


@pytest.fixture
def database(postgres_url: str) -> Iterator[Database]:
    opened = Database(postgres_url, migrations=(ROWS,))
    yield opened
    opened.close()


def insert(name: str) -> Operation[int]:
    return lambda at: at.execute("INSERT INTO rows VALUES (?)", (name,)).rowcount


def names(at: Connection) -> list[str]:
    return [name for (name,) in at.execute("SELECT id FROM rows ORDER BY id")]


def end_sessions(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'farthing'")


# The server goes away


def test_a_server_that_was_started_anew_is_not_noticed(database: Database, postgres_server: PostgresServer) -> None:
    database.submit(insert("before")).result()
    assert database.read(names) == ["before"]
    for how in (signal.SIGINT, signal.SIGQUIT):
        postgres_server.stop(how)
        postgres_server.start()
        assert database.submit(insert(how.name)).result() == 1
        assert database.fetch("SELECT count(*) FROM rows WHERE id = ?", (how.name,)) == [(1,)]
    assert database.read(names) == ["SIGINT", "SIGQUIT", "before"]


def test_while_the_server_is_away_each_caller_is_told_and_nothing_is_written_later(
    database: Database, postgres_server: PostgresServer
) -> None:
    postgres_server.stop()
    try:
        futures = [database.submit(insert(str(number))) for number in range(5)]
        for future in futures:
            with pytest.raises(StoreError, match="can't be reached"):
                future.result(30)
        with pytest.raises(StoreError, match="can't be reached"):
            database.read(names)
        with pytest.raises(StoreError, match="can't be reached"):
            database.fetch("SELECT 1")
    finally:
        postgres_server.start()
    assert database.submit(insert("after")).result() == 1
    assert database.read(names) == ["after"]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
def test_a_server_that_ends_in_the_middle_of_a_batch_leaves_nothing_half_done(
    database: Database, postgres_server: PostgresServer, how: signal.Signals
) -> None:
    reached = threading.Event()

    def half(at: Connection) -> int:
        at.execute("INSERT INTO rows VALUES ('first half')")
        reached.set()
        # Ends when the server does; the next statement finds out.
        while not at.raw.pgconn.socket < 0 and not gone.is_set():  # type: ignore[attr-defined]
            time.sleep(0.01)
        return at.execute("INSERT INTO rows VALUES ('second half')").rowcount

    gone = threading.Event()
    future = database.submit(half)
    others = [database.submit(insert(str(number))) for number in range(3)]
    assert reached.wait(10)
    postgres_server.stop(how)
    gone.set()
    try:
        with pytest.raises(StoreError):
            future.result(30)
        for other in others:
            with pytest.raises(StoreError):
                other.result(30)
    finally:
        postgres_server.start()
    assert database.read(names) == []
    assert database.submit(half).result() == 1  # `gone` is set: it runs through
    assert database.read(names) == ["first half", "second half"]


def test_a_connection_that_dies_before_the_commit_is_opened_anew(database: Database, postgres_url: str) -> None:
    """The operation is run again, and its first half was undone with the connection."""
    runs = []

    def twice(at: Connection) -> int:
        runs.append(at)
        touched = at.execute("INSERT INTO rows VALUES ('once')").rowcount
        if len(runs) == 1:
            end_sessions(postgres_url)
        return touched + len(at.execute("SELECT 1").fetchall())

    database.submit(insert("open")).result()
    assert database.submit(twice).result() == 2
    assert len(runs) == 2
    assert database.read(names) == ["once", "open"]


@pytest.mark.parametrize("happened", [True, False])
def test_a_connection_that_dies_during_the_commit_is_told_as_unknown(
    database: Database, monkeypatch: pytest.MonkeyPatch, *, happened: bool
) -> None:
    """It may have been committed: nobody runs it again, and nobody is told that it was not."""
    execute = psycopg.Connection.execute

    def cut(self: psycopg.Connection[tuple[object, ...]], query: object, *args: object, **named: object) -> object:
        if query != "COMMIT" or not cuts:
            return execute(self, query, *args, **named)  # type: ignore[call-overload]
        cuts.pop()
        if happened:
            execute(self, "COMMIT")
        self.close()
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    cuts = [1]
    monkeypatch.setattr(psycopg.Connection, "execute", cut)
    with pytest.raises(MaybeWritten, match="whether this was written is unknown"):
        database.submit(insert("x")).result()
    assert database.read(names) == (["x"] if happened else [])
    assert database.submit(insert("y")).result() == 1


# Locks


def test_a_process_that_stands_still_gives_the_lock_up(
    database: Database, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_connection, "IDLE_TRANSACTION_SECONDS", 1)
    still = Database(postgres_url, migrations=(ROWS,))
    entered, leave = threading.Event(), threading.Event()

    def frozen(at: Connection) -> int:
        touched = insert("frozen")(at)
        entered.set()
        assert leave.wait(30)
        return touched + insert("thawed")(at)

    future = still.submit(frozen)
    assert entered.wait(10)
    # Waits for the lock, and has it when the server has ended the other's session.
    assert database.submit(insert("moving")).result(20) == 1
    assert database.read(names) == ["moving"]
    leave.set()
    # What it had done is undone; it is run again, on a connection of its own.
    assert future.result(30) == 2
    assert database.read(names) == ["frozen", "moving", "thawed"]
    still.close()


def test_a_lock_that_is_held_too_long_is_said_and_survived(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_connection, "LOCK_TIMEOUT_SECONDS", 1)
    database = Database(postgres_url, migrations=(ROWS,))
    with psycopg.connect(postgres_url) as other:
        other.execute("SELECT pg_advisory_lock(hashtextextended('farthing:public:test', 0))")
        with pytest.raises(StoreError, match="another process has held the store's lock"):
            database.submit(insert("a")).result()
    assert database.submit(insert("b")).result() == 1
    assert database.read(names) == ["b"]
    database.close()


FROZEN = """
import sys
from farthing.world.postgres import Database
from farthing.world.migrations import Migration
database = Database(sys.argv[1], migrations=(Migration(1, "rows", "", "test"),))
def hold(at):
    at.execute("INSERT INTO rows VALUES ('held')")
    print("holding", flush=True)
    sys.stdin.readline()
database.submit(hold).result()
"""


def test_a_process_that_is_killed_in_a_batch_leaves_nothing_and_holds_nobody_up(
    database: Database, postgres_url: str
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", FROZEN, postgres_url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "holding\n"
    future = database.submit(insert("waits"))
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert future.result(10) == 1
    assert database.read(names) == ["waits"]


# What is said


def test_A4_no_password_is_ever_shown(postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGPASSWORD", raising=False)
    url = postgres_server.database()
    postgres_server.execute("CREATE ROLE guarded LOGIN PASSWORD 'open:sesame/%'")
    hba = postgres_server.data / "pg_hba.conf"
    before = hba.read_text("utf-8")
    hba.write_text("local all guarded scram-sha-256\n" + before, "utf-8")
    postgres_server.execute("SELECT pg_reload_conf()")
    name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
    try:
        assert isinstance(name, str)
        postgres_server.execute(f"ALTER DATABASE {name} OWNER TO guarded")
        database = Database(postgres_server.url(name, "guarded", "open:sesame/%"), migrations=(ROWS,))
        assert "sesame" not in repr(database)
        database.close()
        with pytest.raises(StoreError, match="refused the password") as caught:
            Database(postgres_server.url(name, "guarded", "wrong:sesame/%"), migrations=(ROWS,))
        texts = [str(caught.value)]
        with pytest.raises(StoreError, match="wants a password") as caught:
            Database(postgres_server.url(name, "guarded"), migrations=(ROWS,))
        for odd in ("se same", "sesame%zz", "[sesame"):
            with pytest.raises((StoreError, ConfigError)) as failed:
                Database(f"postgresql://guarded:{odd}@127.0.0.1:1/x", migrations=(ROWS,))
            texts.append(str(failed.value))
            assert failed.value.__cause__ is None
            assert failed.value.__suppress_context__
        assert [text for text in texts if "same" in text] == []
    finally:
        hba.write_text(before, "utf-8")
        postgres_server.execute("SELECT pg_reload_conf()")
        postgres_server.drop(url)
        postgres_server.execute("DROP ROLE guarded")


def test_what_is_missing_is_said_with_what_to_do(postgres_server: PostgresServer) -> None:
    with pytest.raises(StoreError, match="createdb"):
        Database(postgres_server.url("nowhere"), migrations=(ROWS,))
    with pytest.raises(StoreError, match="createuser"):
        Database(postgres_server.url("postgres", "nobody_at_all"), migrations=(ROWS,))
    with pytest.raises(StoreError, match="can't be reached"):
        Database("postgresql://somebody@127.0.0.1:1/x", migrations=(ROWS,))
    with pytest.raises(StoreError, match="none of them"):
        open_database("mysql://somebody@127.0.0.1/x", family="buyer")


def test_a_missing_psycopg_is_said_with_what_to_install() -> None:
    program = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from farthing.world.database import open_database\n"
        "open_database('postgresql://host/name', family='buyer')"
    )
    ran = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 1
    assert "pip install 'farthing[postgres]'" in ran.stderr


def test_a_standby_and_a_user_without_rights_are_named(database: Database, postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as other:
        name = other.info.dbname
        other.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on".encode())
    end_sessions(postgres_url)
    with pytest.raises(StoreError, match="read-only standby"):
        database.submit(insert("a")).result()
    with psycopg.connect(postgres_url, autocommit=True) as other:
        other.execute("SET default_transaction_read_only = off")
        other.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only".encode())
        other.execute("CREATE ROLE looker LOGIN")
        other.execute("GRANT SELECT ON rows, farthing_schema TO looker")
    looking = Database(postgres_url.replace("postgres@", "looker@"), migrations=(ROWS,))
    assert looking.read(names) == []  # whoever migrates nothing needs no right to
    with pytest.raises(StoreError, match="Grant it"):
        looking.submit(insert("a")).result()
    looking.close()
    assert database.submit(insert("b")).result() == 1
    with psycopg.connect(postgres_url, autocommit=True) as other:
        other.execute("DROP OWNED BY looker; DROP ROLE looker")


# What is kept


def test_a_commit_waits_for_the_disk(postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as other:
        other.execute(f"ALTER DATABASE {other.info.dbname} SET synchronous_commit = off".encode())
    database = Database(postgres_url, migrations=(ROWS,))
    asked = database.submit(lambda at: at.execute("SELECT current_setting('synchronous_commit')").fetchone())
    assert asked.result() == ("on",)
    database.close()


def test_a_text_with_nul_in_it_goes_on_record(database: Database) -> None:
    database.submit(insert("a\0b")).result()
    assert database.read(names) == ["a\ufffdb"]


def test_A1_readers_are_bounded(database: Database, postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as other:
        with ThreadPoolExecutor(40) as threads:
            for done in [threads.submit(database.fetch, "SELECT pg_sleep(0.02)") for _ in range(40)]:
                done.result(30)
        row = other.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'farthing' AND datname = current_database()"
        ).fetchone()
    assert row
    assert 2 <= row[0] <= 1 + READERS_MAX


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT ?, '?', ?", "SELECT %s, '?', %s"),
        ("SELECT 'it''s ?' WHERE a LIKE '5%' AND b = ?", "SELECT 'it''s ?' WHERE a LIKE '5%%' AND b = %s"),
        ('SELECT "a?" -- why? 5 %\n WHERE c = ?', 'SELECT "a?" -- why? 5 %%\n WHERE c = %s'),
        ("SELECT 5 % ?", "SELECT 5 %% %s"),
    ],
)
def test_marks_are_translated_outside_of_strings_alone(sql: str, expected: str) -> None:
    assert translate_marks(sql) == expected.encode()
