"""A process's lane: the numbers that it counts in, and its heart, by which the others know that it is alive.

A heart beats by one upsert every `BEAT_SECONDS`, which is good for `ALIVE_SECONDS` by the clock of the store's engine.
A payment whose owner's lane is over is free before its lease is (decision 023). The process itself goes by its own
clocks, and by a shorter time: where it can't be sure that nobody took it for dead, it asks before it does what no
statement in the store can hold back, which is to send bytes, or to settle what has been on record since the claim.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import logging
import os
import threading
import time
import weakref
from functools import partial
from typing import Final, NamedTuple

from farthing.errors import StoreError
from farthing.world import lane_rows as rows
from farthing.world.connection import Database
from farthing.world.pending import Pending

# Five may be missed.
BEAT_SECONDS: Final = 5.0
# After a beat that failed.
RETRY_SECONDS: Final = 1.0
# What one beat is good for, by the engine's clock.
ALIVE_SECONDS: Final = 30
# What a process takes its own last beat to be good for: the rest is for clocks that run apart, and for what a check
# was made for to be done.
SURE_SECONDS: Final = 20.0
# Whoever has just begun, or was silent itself, judges nobody yet: after an outage of the store all hearts begin anew.
JUDGE_SECONDS: Final = 2 * BEAT_SECONDS

log = logging.getLogger("farthing.seller")
_open: weakref.WeakSet[Lanes] = weakref.WeakSet()


class Instant(NamedTuple):
    """A moment by two clocks: one stands still while the machine is suspended, the other may be set back."""

    steady: float
    wall: float

    def to(self, later: Instant) -> float:
        """Seconds to a later moment: the longer of what the clocks say."""
        return max(later.steady - self.steady, later.wall - self.wall)


def instant() -> Instant:
    """Give the present moment."""
    return Instant(time.monotonic(), time.time())


class _Life:
    """What a process knows of its own lane. A fork begins another."""

    def __init__(self, lane: int, begun: Instant) -> None:
        self.process = os.getpid()
        self.lane = lane
        self.count = itertools.count(rows.first_number(lane))
        # No number under this one was drawn after the last silence.
        self.mark = next(self.count)
        self.end = rows.first_number(lane + 1)
        # When the last beat was sent that was answered, and the first one after the last silence.
        self.beaten = self.since = begun


class Lanes:
    """The lane of this process on one store.

    A lane is taken by the first number that is asked for, and a forked process takes one of its own. Numbers are those
    that no other process and no other claim or move has.
    """

    def __init__(self, database: Database, *, is_postgres: bool) -> None:
        """Nothing is taken yet."""
        self._database = database
        self._sql = rows.lane_sql(is_postgres=is_postgres)
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._life: _Life | None = None
        if not _open:
            # Registered when a database is open, so that it runs before that is closed.
            atexit.register(_end_all)
        _open.add(self)

    def next(self) -> int:
        """Give the next number. Raises `StoreError` where a lane must be taken and can't be."""
        life = self._life
        if life is None or life.process != os.getpid():
            life = self.start()
        return next(life.count)

    def start(self) -> _Life:
        """Take a lane for this process, if it has none, and let its heart beat. Raises `StoreError`."""
        with self._lock:
            life = self._life
            if life is None or life.process != os.getpid():
                begun = instant()
                take = partial(rows.take_lane, sql=self._sql, alive_seconds=ALIVE_SECONDS)
                life = _Life(self._database.submit(take).result(), begun)
                self._life = life
                threading.Thread(target=self._run, args=(life,), name="farthing-heart", daemon=True).start()
            return life

    def end(self) -> None:
        """Say that this process does no more: others need not wait until its last beat is over.

        It is on record when the store is closed.
        """
        self._closing.set()
        life = self._life
        if life is not None and life.process == os.getpid():
            with contextlib.suppress(StoreError):
                self._database.submit(partial(rows.end_lane, sql=self._sql, lane=life.lane))

    @property
    def ended(self) -> bool:
        """Whether this process said that it does no more."""
        return self._closing.is_set()

    def holds(self, number: int) -> bool:
        """Whether nobody can have taken this process for dead since it drew `number`, nor will in the next seconds."""
        life = self._life
        return (
            life is not None
            and life.mark <= number < life.end
            and not self._closing.is_set()
            and life.process == os.getpid()
            and life.beaten.to(instant()) < SURE_SECONDS
        )

    def beat(self) -> Pending[None]:
        """Have it known that this process is alive. Raises `StoreError`, or gives it, where that can't be written."""
        life, begun, known = self.start(), instant(), Pending[None]()
        if self._closing.is_set():
            raise StoreError("The seller's store is closed.")

        def finish(written: Pending[None]) -> None:
            error = written.exception()
            if error is not None:
                known.fail(error)
                return
            _beaten(life, begun)
            known.resolve(None)

        beat = partial(rows.beat, sql=self._sql, lane=life.lane, alive_seconds=ALIVE_SECONDS)
        self._database.submit(beat).add_done_callback(finish)
        return known

    def is_dead(self, number: int) -> bool:
        """Whether the process that drew `number` is taken for dead. Never where this process isn't sure of itself."""
        lane = rows.lane_of(number)
        life = self._life
        if life is None or lane == life.lane or not self._judges(life):
            return False
        return bool(self._database.fetch(self._sql.is_over, (lane,)))

    def judging(self) -> tuple[str, tuple[int, ...]]:
        """Give the condition under which the owner of a row is taken for dead, and its values. Raises `StoreError`."""
        life = self.start()
        return (self._sql.is_owned_by_the_dead, (life.lane,)) if self._judges(life) else ("FALSE", ())

    def _judges(self, life: _Life) -> bool:
        now = instant()
        return (
            life.process == os.getpid()
            and life.beaten.to(now) < SURE_SECONDS
            and min(now.steady - life.since.steady, now.wall - life.since.wall) >= JUDGE_SECONDS
        )

    def _run(self, life: _Life) -> None:
        pause, silent = BEAT_SECONDS, False
        while not self._closing.wait(pause) and self._life is life:
            try:
                self.beat().result()
                pause, silent = BEAT_SECONDS, False
            except Exception as error:  # noqa: BLE001 - a heart that stops would give away what its process works on
                if not silent and not self._closing.is_set():
                    log.warning("the store can't be told that this seller is alive: %s", error)
                pause, silent = RETRY_SECONDS, True


def _beaten(life: _Life, begun: Instant) -> None:
    now = instant()
    if life.beaten.to(now) >= SURE_SECONDS:
        # Between the two beats it may have been taken for dead: what was drawn before says nothing any more.
        life.mark, life.since = next(life.count), now
    life.beaten = begun


def _end_all() -> None:
    for lanes in list(_open):
        lanes.end()
