"""What a store's writer commits together: single operations, and joint ones, which do many items in one call."""

from __future__ import annotations

import asyncio
import queue
import sqlite3
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from farthing.errors import StoreError
from farthing.world.connection import Connection
from farthing.world.pending import Pending

# Of a turn of a loop that asks for more, so much is handed over at once: it is written while the turn goes on.
HAND_OVER_MAX: Final = 32
# In the place of an item, where an operation is a single one.
ALONE: Final = object()
# A note that nobody awaits is written with the next batch, or after this: short of any lease by far.
IDLE_SECONDS: Final = 0.05


class Waiting(NamedTuple):
    """One operation that waits for its batch; `item` is `ALONE` where it is not a joint one."""

    operation: Callable[..., Any]
    item: Any
    pending: Pending[Any]
    awaited: bool


class Queue:
    """What waits for a writer, in its order. It is handed over by lists: a list wakes the writer once.

    Who puts holds a lock of its own, and one thread takes.
    """

    __slots__ = ("_left", "_lists", "_put", "_taken")

    def __init__(self) -> None:
        """Begin with nothing."""
        self._lists: queue.SimpleQueue[list[Waiting] | None] = queue.SimpleQueue()
        self._left: list[Waiting] = []
        self._put = self._taken = 0

    def __len__(self) -> int:
        """Count the operations that wait."""
        return self._put - self._taken

    def put(self, waiting: list[Waiting]) -> None:
        """Add what was asked for together; the list is the queue's from now on."""
        self._put += len(waiting)
        self._lists.put(waiting)

    def end(self) -> None:
        """Say that nothing will be added any more."""
        self._lists.put(None)

    def take(self, limit: int) -> tuple[list[Waiting], bool]:
        """Wait for a batch of at most `limit`; and say whether it is the last, which may be empty."""
        batch: list[Waiting] = []
        awaited = False
        some = self._left or self._lists.get()
        while some is not None:
            room = limit - len(batch)
            batch += some[:room]
            self._left = some[room:]
            if len(batch) >= limit:
                break
            awaited = awaited or any(each.awaited for each in some)
            try:
                # What nobody awaits is no reason for a commit of its own, for as long as others may come.
                some = self._lists.get_nowait() if awaited else self._lists.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                break
        self._taken += len(batch)
        return batch, some is None


class Gathered:
    """What is asked for in one turn of one event loop, until it is handed to the writer."""

    __slots__ = ("_put", "_waiting", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, put: Callable[[list[Waiting]], None]) -> None:
        """Gather for `loop`, and hand over to `put`."""
        self.loop = loop
        self._put = put
        self._waiting: list[Waiting] = []

    def add(self, waiting: Waiting) -> None:
        """Add one; the first asks for the turn's end, and a long turn hands over before it."""
        if not self._waiting:
            self.loop.call_soon(self.hand_over)
        self._waiting.append(waiting)
        if len(self._waiting) >= HAND_OVER_MAX:
            self.hand_over()

    def hand_over(self) -> None:
        """Hand over what there is. Called in the loop's thread, at the turn's end or by who blocks for an answer."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            try:
                self._put(waiting)
            except StoreError as error:
                for each in waiting:
                    each.pending.fail(error)


def perform(connection: Connection, batch: list[Waiting], is_open: Callable[[], bool]) -> list[tuple[Any]]:
    """Run `batch` in the transaction that is open. Answers are wrapped, since an answer may itself be an exception.

    The single operations come first, in their order. `is_open` tells whether the transaction still is, and is good.
    """
    answers: list[tuple[Any]] = [(None,)] * len(batch)
    joint: dict[Callable[..., Any], list[int]] = {}
    for place, waiting in enumerate(batch):
        if waiting.item is ALONE:
            answers[place] = (waiting.operation(connection),)
            _check(waiting.operation, is_open=is_open())
        else:
            joint.setdefault(waiting.operation, []).append(place)
    for operation, places in joint.items():
        told = operation(connection, [batch[place].item for place in places])
        _check(operation, is_open=is_open())
        for place, answer in zip(places, told, strict=True):
            answers[place] = (answer,)
    return answers


def run_together(connection: sqlite3.Connection, batch: list[Waiting]) -> list[tuple[Any]]:
    """Run and commit `batch` as one transaction of SQLite; answers as `perform` gives them."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        answers = perform(connection, batch, lambda: connection.in_transaction)
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    return answers


def _check(operation: Callable[..., Any], *, is_open: bool) -> None:
    if not is_open:
        raise RuntimeError(f"{operation!r} ended the transaction: an operation runs statements and no more.")
