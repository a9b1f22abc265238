"""Servers measured in interleaved rounds: requests a second on one core, and the CPU time of a request."""

from __future__ import annotations

import gc
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bench.harness import ROUNDS_MIN
from bench.load import CONNECTIONS, request_bytes, send_all
from bench.purchases import purchases
from bench.serving import cores, on_core
from farthing.protocol.codec import pack_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bench.serving import Server

ROUNDS = 7
# Long enough for some hundreds of requests to the slowest, short enough for all rounds of all within a minute.
ROUND_SECONDS = 0.5
_PILOT = 64
_FSYNCS = 101
_PAGE_BYTES = 4096


class Speed(msgspec.Struct, frozen=True):
    """Medians over the rounds: requests a second, and microseconds of the server's CPU time a request."""

    per_second: float
    cpu_microseconds: float


class Contender(msgspec.Struct, frozen=True):
    """A server, what it is sent, and the status that every answer must have."""

    server: Server
    requests: Callable[[int], list[bytes]]
    status: int
    connections: int = CONNECTIONS


def measure(contenders: Mapping[str, Contender], *, rounds: int = ROUNDS) -> dict[str, Speed]:
    """Send to each contender in turn, round by round, and tell the medians."""
    with on_core(cores()[1]):
        counts = {name: _calibrate(contender) for name, contender in contenders.items()}
        seen: dict[str, list[Speed]] = {name: [] for name in contenders}
        for _ in range(max(rounds, ROUNDS_MIN)):
            for name, contender in contenders.items():
                seen[name].append(_once(contender, counts[name]))
    return {
        name: Speed(
            statistics.median(each.per_second for each in speeds),
            statistics.median(each.cpu_microseconds for each in speeds),
        )
        for name, speeds in seen.items()
    }


def _once(contender: Contender, count: int) -> Speed:
    requests = contender.requests(count)
    gc.collect()
    gc.disable()
    try:
        before = contender.server.cpu_seconds()
        seconds = send_all(contender.server.port, requests, status=contender.status, connections=contender.connections)
        used = contender.server.cpu_seconds() - before
    finally:
        gc.enable()
    return Speed(count / seconds, used / count * 1e6)


def _calibrate(contender: Contender) -> int:
    """Warm up, and find how many requests fill a round."""
    _once(contender, _PILOT)
    speed = _once(contender, 4 * _PILOT)
    return max(_PILOT, 2 * contender.connections, round(speed.per_second * ROUND_SECONDS))


def same(path: str) -> Callable[[int], list[bytes]]:
    """One request without a payment, again and again."""
    request = request_bytes(path)
    return lambda count: [request] * count


class Paid:
    """Requests with a payment each, signed when they are asked for, and never the same twice."""

    def __init__(self, path: str) -> None:
        """Buy what is at `path`."""
        self._path = path
        self._made = 0

    def __call__(self, count: int) -> list[bytes]:
        """Sign `count` payments."""
        made = purchases(count, int(time.time()), first=self._made)
        self._made += count
        return [request_bytes(self._path, pack_json(each.payment_json)) for each in made]


def fsync_microseconds() -> float:
    """The median time of an fsync after a page was written, where the stores lie."""
    with tempfile.TemporaryDirectory(prefix="farthing-bench-") as folder, (Path(folder) / "page").open("wb") as file:
        times: list[float] = []
        for _ in range(_FSYNCS):
            file.write(bytes(_PAGE_BYTES))
            file.flush()
            before = time.perf_counter()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - before)
    return statistics.median(times) * 1e6


def to_note(found: Mapping[str, Speed], against: str) -> str:
    """Tell all of them in one line, each also as a ratio to `against`."""
    limit = found[against].per_second
    told = (
        f"{name} {speed.per_second:.0f}/s ({speed.per_second / limit:.2f}x), {speed.cpu_microseconds:.0f} µs CPU"
        for name, speed in found.items()
    )
    return "; ".join(told)
