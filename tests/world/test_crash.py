"""The switch that ends a process at a named effect: in every performer, and nowhere without the variable."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from farthing.errors import ConfigError
from farthing.flow import Now
from farthing.world.crash import CRASH_AT, with_crashes
from farthing.world.performers import Performer

# One effect a line, answered at once, by a coroutine, or by a future of another thread.
SCRIPT = """
import asyncio, sys
from concurrent.futures import ThreadPoolExecutor
from farthing.evm.node import AskNode, NodeCall
from farthing.flow import Effect, drive_async
from farthing.world.performers import Performer

class Store(Effect[None], frozen=True):
    number: int

pool = ThreadPoolExecutor(1)

def said(effect):
    print(effect.number, flush=True)

async def soon(effect):
    await asyncio.sleep(0)
    said(effect)

async def asked(effect):
    print(*(call.method for call in effect.calls), flush=True)
    return ()

store = {"once": said, "coroutine": soon, "future": lambda effect: pool.submit(said, effect)}[sys.argv[1]]
performer = Performer({Store: store}).with_({AskNode: asked})

def flow():
    for number in range(1, 4):
        yield from Store(number)
        yield from AskNode("eip155:1", (NodeCall("eth_call"), NodeCall("eth_send" + str(number))))

asyncio.run(drive_async(flow(), performer.awaiting))
"""
ALL = ["1", "eth_call eth_send1", "2", "eth_call eth_send2", "3", "eth_call eth_send3"]


def said_until_the_end(kind: str, place: str) -> tuple[int, list[str]]:
    environment = {"PYTHONPATH": ":".join(sys.path), CRASH_AT: place}
    command = [sys.executable, "-c", SCRIPT, kind]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=60)
    return done.returncode, done.stdout.splitlines()


@pytest.mark.parametrize(
    ("place", "lines"),
    [
        ("before:Store", 0),
        ("after:Store", 1),
        ("before:Store#3", 4),
        ("after:Store#2", 3),
        ("before:eth_send2", 3),
        ("after:eth_send2", 4),
        ("after:eth_call#3", 6),
    ],
)
def test_the_process_ends_at_its_place(place: str, lines: int) -> None:
    kind = ("once", "coroutine", "future")[lines % 3]
    assert said_until_the_end(kind, place) == (-signal.SIGKILL, ALL[:lines])


@pytest.mark.parametrize("place", ["", "before:Other", "after:Store#4"])
def test_a_place_that_is_not_reached_ends_nothing(place: str) -> None:
    assert said_until_the_end("future", place) == (0, ALL)


def test_without_the_variable_nothing_is_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CRASH_AT, raising=False)

    def now(_: Now) -> int:
        return 0

    assert with_crashes({Now: now})[Now] is now


@pytest.mark.parametrize("place", ["Store", "at:Store", "before:", "before:Store#0", "before:Store#x"])
def test_what_is_no_place_is_refused(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.setenv(CRASH_AT, place)
    with pytest.raises(ConfigError, match="before:Effect"):
        Performer({})
