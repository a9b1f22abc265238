"""The harness: contenders measured in interleaved rounds, medians told.

Each contender does the same work. One round asks each of them in turn, so that a machine that gets slower gets slower
for all; the figure is the median over the rounds. Times are CPU times of the contender's own process, since a machine
with neighbours has no steady wall clock.
"""

from __future__ import annotations

import gc
import statistics
import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# Fewer rounds than this have no median worth the name.
ROUNDS_MIN = 5
ROUNDS = 9
# Long enough that the clock's resolution and the interpreter's own habits vanish, short enough for many rounds.
ROUND_SECONDS = 0.15


class Contender(Protocol):
    """Something that does the work `count` times and tells the CPU seconds that it took."""

    def run(self, count: int) -> float:
        """Do it `count` times; the CPU seconds of all."""
        ...


class Local:
    """A contender in this process: a function that does the work for one item, over a pool of items in turn."""

    def __init__(self, work: Callable[[int], object]) -> None:
        """Take `work`, called with 0, 1, 2 …"""
        self._work = work
        self._next = 0

    def run(self, count: int) -> float:
        """Do it `count` times; the CPU seconds of all."""
        work, first = self._work, self._next
        self._next += count
        # A collection in the middle of one contender's turn would be charged to it alone.
        gc.collect()
        gc.disable()
        try:
            before = time.process_time()
            for index in range(first, first + count):
                work(index)
            return time.process_time() - before
        finally:
            gc.enable()


def measure(contenders: Mapping[str, Contender], *, rounds: int = ROUNDS) -> dict[str, float]:
    """Measure each contender: microseconds of CPU time a call, the median over interleaved rounds."""
    counts = {name: _calibrate(contender) for name, contender in contenders.items()}
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(max(rounds, ROUNDS_MIN)):
        for name, contender in contenders.items():
            times[name].append(contender.run(counts[name]) / counts[name] * 1e6)
    return {name: _median(values) for name, values in times.items()}


def _calibrate(contender: Contender) -> int:
    """Warm up, and find how many calls fill a round."""
    count = 1
    while True:
        seconds = contender.run(count)
        if seconds >= ROUND_SECONDS / 4:
            return max(1, round(count * ROUND_SECONDS / seconds))
        count *= 4


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)
