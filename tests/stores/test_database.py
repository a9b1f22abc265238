"""The floor of every store, over both engines: group commits, operations on their own, processes, forks, migrations."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from farthing.errors import StoreError
from farthing.world import postgres, sqlite
from farthing.world.connection import Connection, Database, Operation
from farthing.world.database import open_database
from farthing.world.migrations import Migration
from farthing.world.pending import Pending

ROWS = Migration(1, "rows", "CREATE TABLE rows (id TEXT NOT NULL PRIMARY KEY, value BIGINT NOT NULL);", "test")
MORE = Migration(2, "more", "CREATE TABLE more (id TEXT); INSERT INTO more VALUES ('one;two');", "test")


def open_rows(url: str, *migrations: Migration) -> Database:
    return open_database(url, family="test", migrations=migrations or (ROWS,))


@pytest.fixture
def database(store_url: str) -> Iterator[Database]:
    opened = open_rows(store_url)
    yield opened
    opened.close()


def insert(name: str, value: int = 0) -> Operation[int]:
    return lambda at: at.execute("INSERT INTO rows VALUES (?, ?) ON CONFLICT DO NOTHING", (name, value)).rowcount


def add(name: str) -> Operation[int]:
    """Read, then write: right only where no other operation comes between."""

    def operation(at: Connection) -> int:
        (value,) = at.execute("SELECT value FROM rows WHERE id = ?", (name,)).fetchone()
        at.execute("UPDATE rows SET value = ? WHERE id = ?", (value + 1, name))
        return int(value) + 1

    return operation


def names(at: Connection) -> list[str]:
    return [name for (name,) in at.execute("SELECT id FROM rows ORDER BY id")]


def fail(_: Connection) -> int:
    raise ValueError("this one alone")


@dataclass
class Held:
    """Keeps the writer busy, so that what is submitted meanwhile becomes one batch."""

    database: Database

    def __post_init__(self) -> None:
        self.entered, self.leave = threading.Event(), threading.Event()
        self.future: Pending[None] = self.database.submit(self.wait)
        assert self.entered.wait(10)

    def wait(self, _: Connection) -> None:
        self.entered.set()
        assert self.leave.wait(10)


# One process


def test_an_operation_that_raises_fails_alone(database: Database) -> None:
    held = Held(database)
    futures = [database.submit(fail if number == 3 else insert(str(number))) for number in range(8)]
    held.leave.set()
    assert isinstance(futures[3].exception(), ValueError)
    assert [future.result() for number, future in enumerate(futures) if number != 3] == [1] * 7
    assert database.read(names) == [str(number) for number in range(8) if number != 3]


def test_a_statement_that_fails_fails_its_operation_alone(database: Database) -> None:
    held = Held(database)
    first, broken, last = (
        database.submit(insert("a")),
        database.submit(lambda at: at.execute("INSERT INTO rows VALUES ('b', NULL)").rowcount),
        database.submit(insert("c")),
    )
    held.leave.set()
    assert "not" in str(broken.exception()).lower()
    assert (first.result(), last.result()) == (1, 1)
    assert database.read(names) == ["a", "c"]


def test_an_operation_that_raises_a_store_error_fails_alone(database: Database) -> None:
    """Operations have such errors of their own: they say nothing of the database."""

    def refuse(_: Connection) -> int:
        raise StoreError("there is no such payment")

    held = Held(database)
    first, refused, last = database.submit(insert("a")), database.submit(refuse), database.submit(insert("b"))
    held.leave.set()
    assert (first.result(), last.result()) == (1, 1)
    assert str(refused.exception()) == "there is no such payment"


def test_what_an_operation_did_before_it_raised_is_undone(database: Database) -> None:
    def half(at: Connection) -> None:
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


def test_operations_that_read_before_they_write_follow_one_another(database: Database) -> None:
    database.submit(insert("n")).result()
    futures = [database.submit(add("n")) for _ in range(200)]
    assert sorted(future.result() for future in futures) == list(range(1, 201))


def test_closing_commits_what_waits(database: Database) -> None:
    held = Held(database)
    futures = [database.submit(insert(str(number))) for number in range(10)]
    threading.Timer(0.01, held.leave.set).start()
    database.close()
    assert sum(future.result(10) for future in futures) == 10
    with pytest.raises(StoreError, match="closed"):
        database.submit(insert("late"))
    with pytest.raises(StoreError, match="closed"):
        database.read(names)
    with pytest.raises(StoreError, match="closed"):
        database.fetch("SELECT 1")
    database.close()


def test_A1_a_full_queue_is_said_at_once(store_url: str) -> None:
    kind = postgres.Database if store_url.startswith("postgresql:") else sqlite.Database
    database: Database = kind(store_url, migrations=(ROWS,), queue_limit=5)
    held = Held(database)
    futures = [database.submit(insert(str(number))) for number in range(5)]
    with pytest.raises(StoreError, match="5 writes wait"):
        database.submit(insert("too many"))
    held.leave.set()
    assert [future.result() for future in futures] == [1] * 5
    assert database.submit(insert("again")).result() == 1
    database.close()


def test_a_read_sees_one_snapshot_and_what_was_committed_before(database: Database) -> None:
    database.submit(insert("a")).result()

    def twice(at: Connection) -> tuple[list[str], list[str]]:
        before = names(at)
        database.submit(insert("b")).result()
        assert database.read(names) == before  # a query within a query
        return before, names(at)

    assert database.read(twice) == (["a"], ["a"])
    assert database.read(names) == ["a", "b"]


def test_a_read_cannot_write(database: Database) -> None:
    with pytest.raises(StoreError):
        database.read(insert("a"))
    assert database.read(names) == []


def test_what_a_statement_may_hold_is_the_same(database: Database) -> None:
    """Marks in strings and comments, percent signs, integers of 64 bits, bytes, texts with anything but NUL in them."""
    row = ("50 % of '?'", 2**62)
    database.submit(lambda at: at.execute("INSERT INTO rows (id, value) VALUES (?, ?) -- why?", row)).result()
    found = database.fetch("SELECT id, value, '?%' FROM rows WHERE id LIKE '50 %' AND value > ?", (2**31,))
    assert found == [(*row, "?%")]
    many = [(f"é\n\U0001f600{number}", -number) for number in range(700)]
    touched = database.submit(lambda at: at.executemany("INSERT INTO rows VALUES (?, ?)", many).rowcount)
    assert touched.result() == 700
    assert database.fetch("SELECT count(*), min(value) FROM rows") == [(701, -699)]
    ((total,),) = database.fetch("SELECT sum(value) FROM rows WHERE value < 0")
    assert (total, type(total)) == (-350 * 699, int)


# Migrations


def test_migrations_are_applied_once(store_url: str) -> None:
    open_rows(store_url).close()
    for _ in range(2):
        open_rows(store_url, ROWS, MORE).close()
    database = open_rows(store_url, ROWS, MORE)
    assert database.fetch("SELECT * FROM more") == [("one;two",)]
    database.close()


def test_a_newer_schema_is_refused_with_what_to_do(store_url: str) -> None:
    open_rows(store_url, ROWS, MORE).close()
    with pytest.raises(StoreError, match=r"test 0002 \(more\).*up to 0001.*upgrade Farthing"):
        open_rows(store_url)


def test_another_line_of_migrations_is_refused(store_url: str) -> None:
    open_rows(store_url).close()
    with pytest.raises(StoreError, match="another line"):
        open_rows(store_url, Migration(1, "other", "CREATE TABLE other (id TEXT);", "test"))


def test_a_migration_that_fails_leaves_nothing(store_url: str) -> None:
    broken = Migration(2, "broken", "CREATE TABLE half (id TEXT); CREATE TABLE rows (id TEXT);", "test")
    with pytest.raises(Exception, match="already exists"):
        open_rows(store_url, ROWS, broken)
    database = open_rows(store_url, ROWS, MORE)
    assert database.fetch("SELECT count(*) FROM rows") == [(0,)]
    with pytest.raises(Exception, match="half"):
        database.fetch("SELECT * FROM half")
    database.close()


# Processes


PREAMBLE = """
import json, os, sys, threading
sys.path[:0] = [sys.argv[1]]
from test_database import *
url = sys.argv[2]
"""
HAMMER = """
print("ready", flush=True)
sys.stdin.readline()
database = open_rows(url)
troubles, added = [], []
def work(thread):
    for number in range(40):
        try:
            assert database.submit(insert(f"{sys.argv[3]}-{thread}-{number}")).result() == 1
            added.append(database.submit(add("n")).result())
        except Exception as error:
            troubles.append(repr(error))
threads = [threading.Thread(target=work, args=(thread,)) for thread in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(json.dumps({"troubles": troubles, "added": added}))
"""
ACKNOWLEDGE = """
database = open_rows(url)
out = threading.Lock()
def work(thread):
    for number in range(100000):
        name = f"{sys.argv[3]}-{thread}-{number}"
        database.submit(insert(name)).result()
        with out:
            os.write(1, name.encode() + b"\\n")
for thread in range(16): threading.Thread(target=work, args=(thread,), daemon=True).start()
sys.stdin.readline()
"""
FORK = """
database = open_rows(url)
database.submit(insert("before")).result()
assert database.read(names) == ["before"]
stop = threading.Event()
def busy():
    number = 0
    while not stop.is_set():
        database.submit(insert(f"busy-{number}")).result(); database.read(names); number += 1
thread = threading.Thread(target=busy, daemon=True); thread.start()
children = []
for child in range(4):
    pid = os.fork()
    if pid == 0:
        try:
            if os.path.isdir("/proc/self/fd"):  # nothing of the parent's came along
                links = [entry.path for entry in os.scandir("/proc/self/fd") if os.path.islink(entry.path)]
                opened = [os.readlink(link) for link in links if os.path.lexists(link)]
                assert not [name for name in opened if url in name or name.startswith("socket:")], opened
            for number in range(20):
                database.submit(insert(f"child-{child}-{number}")).result()
            assert len(database.read(names)) >= 21
            database.close()
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    children.append(pid)
for pid in children:
    assert os.waitpid(pid, 0)[1] == 0
stop.set(); thread.join()
database.submit(insert("after")).result()
found = set(database.read(names))
assert {f"child-{child}-{number}" for child in range(4) for number in range(20)} <= found, len(found)
assert {"before", "after", "busy-0"} <= found
"""
LEAVE = """
database = open_rows(url)
for number in range(500): database.submit(insert(str(number)))
"""


def start(program: str, url: str, *arguments: str) -> subprocess.Popen[str]:
    folder = __file__.rpartition("/")[0]
    return subprocess.Popen(
        [sys.executable, "-c", PREAMBLE + program, folder, url, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def rows_of(url: str) -> set[str]:
    database = open_rows(url)
    try:
        return set(database.read(names))
    finally:
        database.close()


def test_two_processes_lose_nothing_and_read_nothing_that_is_stale(database: Database, store_url: str) -> None:
    database.submit(insert("n")).result()
    processes = [start(HAMMER, store_url, who) for who in "ab"]
    reports = []
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        reports.append(json.loads(out))
    assert [report["troubles"] for report in reports] == [[], []]
    assert sorted(each for report in reports for each in report["added"]) == list(range(1, 2 * 8 * 40 + 1))
    assert len(rows_of(store_url)) == 1 + 2 * 8 * 40


def test_what_was_acknowledged_is_there_after_a_kill(store_url: str) -> None:
    acknowledged: set[str] = set()
    for round_number in range(2):
        process = start(ACKNOWLEDGE, store_url, str(round_number))
        assert process.stdout
        for _ in range(100 + 37 * round_number):
            acknowledged.add(process.stdout.readline().strip())
        process.send_signal(signal.SIGKILL)
        out, _ = process.communicate(timeout=30)
        acknowledged |= {line.strip() for line in out.splitlines(keepends=True) if line.endswith("\n")}
        assert acknowledged <= rows_of(store_url)
    assert len(acknowledged) > 200


def test_a_fork_in_the_middle_of_the_work_is_survived_by_both_sides(store_url: str) -> None:
    _, err = start(FORK, store_url).communicate(timeout=60)
    assert err == ""


def test_a_process_that_ends_commits_what_it_queued(store_url: str) -> None:
    process = start(LEAVE, store_url)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert len(rows_of(store_url)) == 500
