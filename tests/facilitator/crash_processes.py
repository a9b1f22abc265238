"""Processes that are killed, and what a campaign of killing them came to."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Self

from facilitator_world import Payment, World

SCRIPT = Path(__file__).with_name("crashing_process.py")
KEY = "one-key"


class Report(NamedTuple):
    """What a campaign came to."""

    points: int = 0
    killed: int = 0
    in_flight: int = 0
    settled: int = 0
    lost: int = 0
    doubled: int = 0
    troubles: tuple[str, ...] = ()

    def __add__(self, other: Any) -> Report:
        return Report(*(mine + its for mine, its in zip(self, other, strict=True)))

    def __str__(self) -> str:
        text = (
            f"crash points tried: {self.points}, processes killed: {self.killed}, payments in flight: "
            f"{self.in_flight}, settled: {self.settled}, lost: {self.lost}, doubled: {self.doubled}"
        )
        return "\n".join((text, *self.troubles))


class Processes:
    """Processes that settle and are killed: see `crashing_process`."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, str(SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pids: dict[str, int] = {}
        self.statuses: dict[str, int] = {}
        self.said: dict[str, list[list[str]]] = {}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_error: object) -> None:
        for name, pid in self.pids.items():
            if name not in self.statuses:
                os.kill(pid, signal.SIGKILL)
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(30)

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            said = json.loads(line)
            if "pid" in said:
                self.pids[said["name"]] = said["pid"]
            elif "status" in said:
                self.statuses[said["name"]] = said["status"]
            else:
                self.said.setdefault(said["name"], []).append(said["outcomes"])

    def start(self, name: str, world: World, waves: list[list[Payment]], *, crash_at: str = "", **changes: Any) -> None:
        # What is known of another by its name would be taken for this one's.
        assert name not in self.pids, f"{name} was started before"
        order = {
            "name": name,
            "config": world.config_text,
            "environment": {"WALLET_KEY": world.wallet.secret, "FARTHING_CRASH_AT": crash_at},
            "key": KEY,
            "limits": {},
            # A lease of a second, so that nobody waits long for a dead process's to be over.
            "pace": {"lease_seconds": 1, "idle_seconds": 0.05, "work_seconds": 0.05},
            "lingers": False,
            **changes,
            "waves": [[each.body.decode() for each in wave] for wave in waves],
        }
        assert self._process.stdin
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        wait_until(lambda: name in self.pids, f"{name} starts")

    def kill(self, name: str) -> None:
        if name not in self.statuses:
            with contextlib.suppress(ProcessLookupError):  # it ended by itself a moment ago
                os.kill(self.pids[name], signal.SIGKILL)
        self.ended(name)

    def ended(self, name: str) -> int:
        wait_until(lambda: name in self.statuses, f"{name} ends")
        return self.statuses[name]


def wait_until(condition: Callable[[], Any], what: str, *, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not in {seconds:g} s"
        time.sleep(0.01)
