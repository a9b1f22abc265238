"""What a store's writer commits together: single operations, and joint ones, which do many items in one call."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from farthing.errors import StoreError
from farthing.world.connection import Connection
from farthing.world.pending import Pending

# In the place of an item, where an operation is a single one.
ALONE: Final = object()


class Waiting(NamedTuple):
    """One operation that waits for its batch; `item` is `ALONE` where it is not a joint one."""

    operation: Callable[..., Any]
    item: Any
    pending: Pending[Any]
    awaited: bool


class Gathered:
    """What is asked for in one turn of one event loop, until it is handed to the writer."""

    __slots__ = ("_put", "_waiting", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, put: Callable[[list[Waiting]], None]) -> None:
        """Gather for `loop`, and hand over to `put`."""
        self.loop = loop
        self._put = put
        self._waiting: list[Waiting] = []

    def add(self, waiting: Waiting) -> None:
        """Add one; the first asks for the turn's end."""
        if not self._waiting:
            self.loop.call_soon(self.hand_over)
        self._waiting.append(waiting)

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
