"""The store's floor: group commits, each operation on its own, what is full, locked or of another schema."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.errors import ConfigError, MaybeWritten, StoreError
from farthing.flow import Effect
from farthing.world import sqlite as module
from farthing.world import writer
from farthing.world.filelock import FileLock
from farthing.world.migrations import split_statements
from farthing.world.pending import Pending
from farthing.world.performers import Performer
from farthing.world.sqlite import Database, Migration, Operation

ROWS = Migration(1, "rows", "CREATE TABLE rows (id TEXT PRIMARY KEY, value TEXT NOT NULL);", "test")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "store.db", migrations=(ROWS,))
    yield opened
    opened.close()


def insert(name: str, value: str = "") -> Operation[int]:
    return lambda at: at.execute("INSERT INTO rows VALUES (?, ?) ON CONFLICT DO NOTHING", (name, value)).rowcount


class Insert(Effect[int], frozen=True):
    pass


def fail(_: sqlite3.Connection) -> int:
    raise ValueError("this one alone")


def names(at: sqlite3.Connection) -> list[str]:
    return [name for (name,) in at.execute("SELECT id FROM rows ORDER BY id")]


class Held:
    """Keeps the writer busy, so that what is submitted meanwhile becomes one batch."""

    def __init__(self, database: Database) -> None:
        self.entered = threading.Event()
        self.leave = threading.Event()
        self.future: Pending[None] = database.submit(self.wait)
        assert self.entered.wait(10)

    def wait(self, _: sqlite3.Connection) -> None:
        self.entered.set()
        assert self.leave.wait(10)


def commits(database: Database) -> list[str]:
    """Record what the writer executes from now on."""
    statements: list[str] = []
    database.submit(lambda at: at.set_trace_callback(statements.append)).result()
    return statements


# Batches


def test_whatever_waits_is_one_commit(database: Database) -> None:
    statements = commits(database)
    held = Held(database)
    futures = [database.submit(insert(str(number))) for number in range(100)]
    statements.clear()
    held.leave.set()
    assert [future.result() for future in futures] == [1] * 100
    assert statements.count("COMMIT") <= 2  # the batch that was held, and this one


def test_a_batch_has_a_limit(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "BATCH_LIMIT", 10)
    statements = commits(database)
    held = Held(database)
    futures = [database.submit(insert(str(number))) for number in range(100)]
    held.leave.set()
    assert sum(future.result() for future in futures) == 100
    assert statements.count("COMMIT") >= 10


def test_an_operation_that_raises_fails_alone(database: Database) -> None:
    held = Held(database)
    futures = [database.submit(fail if number == 3 else insert(str(number))) for number in range(8)]
    held.leave.set()
    assert isinstance(futures[3].exception(), ValueError)
    assert [future.result() for number, future in enumerate(futures) if number != 3] == [1] * 7
    assert database.read(names) == [str(number) for number in range(8) if number != 3]


def test_what_an_operation_did_before_it_raised_is_undone(database: Database) -> None:
    def half(at: sqlite3.Connection) -> None:
        insert("half")(at)
        raise ValueError

    held = Held(database)
    first, second = database.submit(half), database.submit(insert("whole"))
    held.leave.set()
    assert isinstance(first.exception(), ValueError)
    assert second.result() == 1
    assert database.read(names) == ["whole"]


def test_an_operation_that_ends_the_transaction_is_told_so(database: Database) -> None:
    with pytest.raises(RuntimeError, match="ended the transaction"):
        database.submit(lambda at: at.execute("COMMIT")).result()
    assert database.submit(insert("a")).result() == 1


def test_errors_of_the_program_are_not_the_stores(database: Database) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        database.submit(lambda at: at.execute("INSERT INTO rows VALUES ('a', NULL)")).result()
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        database.submit(lambda at: at.execute("SELECT * FROM nowhere")).result()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=12))
def test_a_batch_is_as_if_one_came_after_the_other(
    tmp_path_factory: pytest.TempPathFactory, plan: list[tuple[str, bool]]
) -> None:
    database = Database(tmp_path_factory.mktemp("store") / "s.db", migrations=(ROWS,))
    held = Held(database)
    futures: list[Pending[int]] = []
    expected: list[object] = []
    there: set[str] = set()
    for name, raises in plan:
        futures.append(database.submit(fail if raises else insert(name)))
        expected.append("raised" if raises else int(name not in there))
        there |= set() if raises else {name}
    held.leave.set()
    assert [future.result() if future.exception() is None else "raised" for future in futures] == expected
    assert database.read(names) == sorted(there)
    database.close()


# Durability


def test_a_future_resolves_when_another_connection_sees_the_row(database: Database, tmp_path: Path) -> None:
    seen: list[int] = []

    def look(_: Pending[int]) -> None:
        other = sqlite3.connect(tmp_path / "store.db")
        seen.append(other.execute("SELECT count(*) FROM rows").fetchone()[0])
        other.close()

    held = Held(database)
    future = database.submit(insert("a"))
    future.add_done_callback(look)
    assert seen == []
    held.leave.set()
    future.result()
    database.close()  # the callbacks have run
    assert seen == [1]


def test_a_commit_waits_for_the_disk(database: Database) -> None:
    ask = database.submit(
        lambda at: [at.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    )
    assert ask.result() == ["wal", 2]  # 2 is FULL: the log is synced at each commit


def test_a_submitted_write_is_not_called_back(database: Database) -> None:
    async def scene() -> None:
        held = Held(database)
        future = database.submit(insert("a"))
        waiting = asyncio.ensure_future(Performer({Insert: lambda _: future}).awaiting(Insert()))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting})
        assert waiting.cancelled()
        assert not future.done()
        held.leave.set()
        assert await asyncio.to_thread(future.result) == 1

    asyncio.run(scene())
    assert database.read(names) == ["a"]


def test_closing_commits_what_waits(database: Database) -> None:
    held = Held(database)
    futures = [database.submit(insert(str(number))) for number in range(10)]
    threading.Timer(0.01, held.leave.set).start()
    database.close()
    assert all(future.done() for future in futures)
    assert sum(future.result() for future in futures) == 10
    with pytest.raises(StoreError, match="closed"):
        database.submit(insert("late"))
    with pytest.raises(StoreError, match="closed"):
        database.read(names)
    database.close()


# Bounds and trouble


def test_A1_a_full_queue_is_said_at_once(tmp_path: Path) -> None:
    database = Database(tmp_path / "store.db", migrations=(ROWS,), queue_limit=5)
    held = Held(database)
    futures = [database.submit(insert(str(number))) for number in range(5)]
    with pytest.raises(StoreError, match="5 writes wait"):
        database.submit(insert("too many"))
    held.leave.set()
    assert [future.result() for future in futures] == [1] * 5
    assert database.submit(insert("again")).result() == 1
    assert "too many" not in database.read(names)
    database.close()


def test_a_full_disk_fails_what_does_not_fit_and_says_so(database: Database) -> None:
    pages = database.submit(lambda at: at.execute("PRAGMA page_count").fetchone()[0]).result()
    database.submit(lambda at: at.execute(f"PRAGMA max_page_count={pages + 2}").fetchall()).result()
    held = Held(database)
    small, large, after = (
        database.submit(insert("small")),
        database.submit(insert("large", "x" * 100_000)),
        database.submit(insert("after")),
    )
    held.leave.set()
    with pytest.raises(StoreError, match="full"):
        large.result()
    assert (small.result(), after.result()) == (1, 1)
    database.submit(lambda at: at.execute("PRAGMA max_page_count=100000").fetchall()).result()
    assert database.submit(insert("large", "x" * 100_000)).result() == 1
    assert database.read(names) == ["after", "large", "small"]


def test_a_lock_that_is_held_too_long_is_said_and_survived(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOCK_TIMEOUT_SECONDS", 0.05)
    other = FileLock(tmp_path / "store.db.lock")
    assert other.acquire(1)
    with pytest.raises(StoreError, match="Another process has held"):
        database.submit(insert("a")).result()
    with pytest.raises(StoreError, match="nothing was written"):
        database.submit(insert("b")).result()
    other.release()
    monkeypatch.setattr(module, "LOCK_TIMEOUT_SECONDS", 10)
    assert database.submit(insert("c")).result() == 1
    assert database.read(names) == ["c"]
    other.close()


def test_a_program_that_ignores_the_lock_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUSY_TIMEOUT_SECONDS", 0.05)
    database = Database(tmp_path / "store.db", migrations=(ROWS,))
    shell = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    shell.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="another program"):
        database.submit(insert("a")).result()
    shell.execute("ROLLBACK")
    shell.close()
    assert database.submit(insert("b")).result() == 1
    database.close()


def test_C4_a_disk_that_failed_may_have_written(database: Database) -> None:
    """Any other trouble of a file says that nothing was written."""

    def fail(_at: object) -> int:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
        raise error

    with pytest.raises(MaybeWritten, match="unknown"):
        database.submit(fail).result()
    assert database.submit(insert("a")).result() == 1


@pytest.mark.parametrize("path", [":memory:", "", "file:x?mode=memory", "no/such/folder/store.db"])
def test_a_path_that_is_no_file_is_refused(path: str) -> None:
    with pytest.raises(StoreError):
        Database(path, migrations=(ROWS,))


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("This is prose, and rather a lot of it. " * 50)
    with pytest.raises(StoreError, match="no database"):
        Database(tmp_path / "x.db", migrations=(ROWS,))


@pytest.mark.skipif(sys.platform == "win32", reason="modes")
def test_the_file_is_its_owners_alone(database: Database) -> None:
    database.submit(insert("a")).result()
    for file in database.path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


# Reading


def test_a_read_sees_one_snapshot_and_what_was_committed_before(database: Database) -> None:
    database.submit(insert("a")).result()

    def twice(at: sqlite3.Connection) -> tuple[list[str], list[str]]:
        before = names(at)
        database.submit(insert("b")).result()
        return before, names(at)

    assert database.read(twice) == (["a"], ["a"])
    assert database.read(names) == ["a", "b"]


def test_a_read_cannot_write(database: Database) -> None:
    with pytest.raises(StoreError):
        database.read(insert("a"))
    assert database.read(names) == []


def test_threads_read_on_connections_of_their_own(database: Database) -> None:
    found: set[int] = set()
    kept: list[sqlite3.Connection] = []

    def note(at: sqlite3.Connection) -> None:
        found.add(id(at))
        kept.append(at)

    threads = [threading.Thread(target=database.read, args=(note,)) for _ in range(3)]
    for thread in threads:
        thread.start()
        thread.join()
    assert len(found) == 3


# Migrations


def open_and_close(path: Path, *migrations: Migration) -> None:
    Database(path, migrations=migrations).close()


MORE = Migration(2, "more", "CREATE TABLE more (id TEXT); INSERT INTO more VALUES ('one;two');", "test")


def test_migrations_are_applied_once(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    open_and_close(path, ROWS)
    open_and_close(path, ROWS, MORE)
    database = Database(path, migrations=(ROWS, MORE))
    assert database.read(lambda at: at.execute("SELECT * FROM more").fetchall()) == [("one;two",)]
    database.close()


def test_a_newer_schema_is_refused_with_what_to_do(tmp_path: Path) -> None:
    open_and_close(tmp_path / "store.db", ROWS, MORE)
    with pytest.raises(StoreError, match=r"test 0002 \(more\).*up to 0001.*upgrade Farthing"):
        Database(tmp_path / "store.db", migrations=(ROWS,))


def test_another_line_of_migrations_is_refused(tmp_path: Path) -> None:
    open_and_close(tmp_path / "store.db", ROWS)
    with pytest.raises(StoreError, match="another line"):
        Database(tmp_path / "store.db", migrations=(Migration(1, "other", "CREATE TABLE other (id);", "test"),))


def test_parties_share_a_file_without_minding_each_other(tmp_path: Path) -> None:
    open_and_close(tmp_path / "store.db", ROWS, MORE)
    open_and_close(tmp_path / "store.db", Migration(1, "first", "CREATE TABLE other (id);", "other"))
    open_and_close(tmp_path / "store.db", ROWS, MORE)


def test_a_migration_that_fails_leaves_nothing(tmp_path: Path) -> None:
    broken = Migration(2, "broken", "CREATE TABLE half (id); INSERT INTO nowhere VALUES (1);", "test")
    with pytest.raises(sqlite3.OperationalError):
        Database(tmp_path / "store.db", migrations=(ROWS, broken))
    connection = sqlite3.connect(tmp_path / "store.db")
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == []
    connection.close()


def test_statements_are_split_as_sqlite_sees_them() -> None:
    script = """
    -- a comment; with a semicolon
    CREATE TABLE a (b TEXT DEFAULT 'x;y');
    CREATE TRIGGER t AFTER INSERT ON a BEGIN
        DELETE FROM a; DELETE FROM a;
    END;
    -- the end
    """
    first, second = split_statements(script)
    assert first.endswith("'x;y');")
    assert second.endswith("END;")
    with pytest.raises(ConfigError, match="no end"):
        split_statements("CREATE TABLE a (b)")
