"""The background loop: one a process, forks, exits without noise, and never waits for itself."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from farthing.world.loop import background_loop, run_blocking


async def where() -> int:
    await asyncio.sleep(0)
    return threading.get_ident()


def test_many_threads_share_one_loop() -> None:
    found: set[int] = set()
    threads = [threading.Thread(target=lambda: found.add(run_blocking(where()))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 1
    assert found != {threading.get_ident()}


def test_a_blocking_call_on_the_loop_itself_is_refused() -> None:
    async def nested() -> int:
        return run_blocking(where())

    with pytest.raises(RuntimeError, match="wait for itself"):
        run_blocking(nested())


def test_an_error_comes_back() -> None:
    async def fails() -> None:
        raise ValueError("as it was")

    with pytest.raises(ValueError, match="as it was"):
        run_blocking(fails())


PROGRAM = """
import asyncio, os, sys
from farthing.world.loop import background_loop, run_blocking

async def pid():
    await asyncio.sleep(0)
    return os.getpid()

async def stays():
    try:
        await asyncio.sleep(3600)
    finally:
        print("put away", flush=True)

assert run_blocking(pid()) == os.getpid()
parent = background_loop()
child = os.fork()
if child == 0:
    assert background_loop() is not parent
    assert run_blocking(pid()) == os.getpid()
    sys.exit(0)
_, status = os.waitpid(child, 0)
assert status == 0, status
assert run_blocking(pid()) == os.getpid()
asyncio.run_coroutine_threadsafe(stays(), background_loop())
run_blocking(pid())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_a_fork_gets_its_own_loop_and_the_exit_is_silent() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", PROGRAM], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if "fork() may lead to deadlocks" not in line]
    assert [line for line in lines if "os.fork()" not in line] == []
    assert done.stdout == "put away\n"


def test_the_loop_stays_the_same() -> None:
    assert background_loop() is background_loop()
