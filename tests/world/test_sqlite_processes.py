"""The store's floor over processes: two that hammer one file, one that is killed, one that forks."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from farthing.world.sqlite import Database, Migration

ROWS = Migration(1, "rows", "CREATE TABLE rows (id TEXT PRIMARY KEY);", "test")

PREAMBLE = """
import json, os, sys, threading, time
from farthing.world.sqlite import Database, Migration
rows = Migration(1, "rows", "CREATE TABLE rows (id TEXT PRIMARY KEY);", "test")
def insert(name):
    return lambda at: at.execute("INSERT INTO rows VALUES (?)", (name,)).rowcount
"""

# Eight threads, each waiting for its row before it writes the next: a batch is what eight callers make.
HAMMER = """
path, who, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
database = Database(path, migrations=(rows,))
waits, troubles = [], []
def work(thread):
    for number in range(count):
        start = time.perf_counter()
        try:
            database.submit(insert(f"{who}-{thread}-{number}")).result()
        except Exception as error:
            troubles.append(repr(error))
        waits.append(time.perf_counter() - start)
threads = [threading.Thread(target=work, args=(thread,)) for thread in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(json.dumps({"troubles": troubles, "slowest": max(waits)}))
"""

ACKNOWLEDGE = """
database = Database(sys.argv[1], migrations=(rows,))
out = threading.Lock()
def work(thread):
    for number in range(100000):
        name = f"{sys.argv[2]}-{thread}-{number}"
        database.submit(insert(name)).result()
        with out:
            os.write(1, name.encode() + b"\\n")
for thread in range(16): threading.Thread(target=work, args=(thread,), daemon=True).start()
time.sleep(60)
"""

FORK = """
database = Database(sys.argv[1], migrations=(rows,))
database.submit(insert("before")).result()
count = lambda at: at.execute("SELECT count(*) FROM rows").fetchone()[0]
assert database.read(count) == 1
stop = threading.Event()
def busy():
    number = 0
    while not stop.is_set():
        database.submit(insert(f"busy-{number}")).result(); database.read(count); number += 1
thread = threading.Thread(target=busy); thread.start()
children = []
for child in range(4):
    pid = os.fork()
    if pid == 0:
        if os.path.isdir("/proc/self/fd"):  # nothing of the parent's came along
            opened = [os.readlink(entry.path) for entry in os.scandir("/proc/self/fd") if os.path.islink(entry.path)]
            assert not [name for name in opened if sys.argv[1] in name], opened
        for number in range(20):
            database.submit(insert(f"child-{child}-{number}")).result()
        assert database.read(count) >= 21
        database.close()
        os._exit(0)
    children.append(pid)
for pid in children:
    assert os.waitpid(pid, 0)[1] == 0
stop.set(); thread.join()
database.submit(insert("after")).result()
names = {name for (name,) in database.read(lambda at: at.execute("SELECT id FROM rows").fetchall())}
assert {f"child-{child}-{number}" for child in range(4) for number in range(20)} <= names, len(names)
assert {"before", "after", "busy-0"} <= names
assert database.read(lambda at: at.execute("PRAGMA integrity_check").fetchone()) == ("ok",)
"""

LEAVE = """
database = Database(sys.argv[1], migrations=(rows,))
for number in range(500): database.submit(insert(str(number)))
"""


def start(program: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PREAMBLE + program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def rows_of(path: Path) -> set[str]:
    database = Database(path, migrations=(ROWS,))
    try:
        return {name for (name,) in database.read(lambda at: at.execute("SELECT id FROM rows").fetchall())}
    finally:
        database.close()


def test_two_processes_on_one_file_lose_nothing_and_starve_nobody(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    processes = [start(HAMMER, str(path), who, "60") for who in "ab"]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    reports = []
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        reports.append(json.loads(out))
    assert [report["troubles"] for report in reports] == [[], []]
    assert rows_of(path) == {f"{who}-{thread}-{number}" for who in "ab" for thread in range(8) for number in range(60)}
    assert max(report["slowest"] for report in reports) < 5


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_what_was_acknowledged_is_there_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    acknowledged: set[str] = set()
    for round_number in range(3):
        process = start(ACKNOWLEDGE, str(path), str(round_number))
        assert process.stdout is not None
        for _ in range(100 + 37 * round_number):
            acknowledged.add(process.stdout.readline().strip())
        process.send_signal(signal.SIGKILL)
        out, _ = process.communicate(timeout=30)
        acknowledged |= {line.strip() for line in out.splitlines(keepends=True) if line.endswith("\n")}
        assert acknowledged <= rows_of(path)
    assert len(acknowledged) > 300


@pytest.mark.skipif(sys.platform == "win32", reason="fork")
def test_a_fork_in_the_middle_of_the_work_is_survived_by_both_sides(tmp_path: Path) -> None:
    process = start(FORK, str(tmp_path / "store.db"))
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err


def test_a_process_that_ends_commits_what_it_queued(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    process = start(LEAVE, str(path))
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert rows_of(path) == {str(number) for number in range(500)}
