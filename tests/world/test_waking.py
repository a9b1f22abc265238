"""Futures of another thread wake their waiters, many at once; notes that nobody awaits are written all the same."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from farthing.flow import Effect
from farthing.world.performers import Performer
from farthing.world.sqlite import Database, Migration

MANY = 500
TABLE = (Migration(1, "notes", "CREATE TABLE note (text TEXT NOT NULL);"),)


class Wait(Effect[int], frozen=True):
    number: int


def test_all_that_are_resolved_together_are_woken_and_get_their_own_answer() -> None:
    futures: list[Future[int]] = [Future() for _ in range(MANY)]
    performer = Performer({Wait: lambda effect: futures[effect.number]})

    def resolve() -> None:
        for number, future in enumerate(futures):
            if number % 7:
                future.set_result(number)
            else:
                future.set_exception(ValueError(str(number)))

    async def run() -> list[Any]:
        waiting = [asyncio.ensure_future(performer.awaiting(Wait(number))) for number in range(MANY)]
        await asyncio.sleep(0)
        threading.Thread(target=resolve).start()
        return await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 30)

    for loop in range(2):  # and on a second loop of this thread
        if loop:
            futures[:] = [Future() for _ in range(MANY)]
        for number, answer in enumerate(asyncio.run(run())):
            assert answer == number if number % 7 else str(answer) == str(number)


def test_a_future_that_was_cancelled_elsewhere_is_a_cancellation() -> None:
    future: Future[int] = Future()
    performer = Performer({Wait: lambda _: future})

    async def run() -> None:
        waiting = asyncio.ensure_future(performer.awaiting(Wait(0)))
        await asyncio.sleep(0)
        future.cancel()
        await waiting

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(run())


def note(text: str) -> Any:
    return lambda connection: connection.execute("INSERT INTO note VALUES (?)", (text,)).rowcount


def test_a_note_that_nobody_awaits_is_written_alone_or_with_the_next_batch(tmp_path: Path) -> None:
    database = Database(tmp_path / "notes.sqlite", migrations=TABLE)
    try:
        assert database.submit(note("alone"), awaited=False).result(30) == 1
        early = database.submit(note("early"), awaited=False)
        assert database.submit(note("late")).result(30) == 1
        assert early.done()
        assert database.fetch("SELECT text FROM note ORDER BY rowid") == [("alone",), ("early",), ("late",)]
        last = database.submit(note("last"), awaited=False)
    finally:
        database.close()
    assert last.result(30) == 1
    with sqlite3.connect(tmp_path / "notes.sqlite") as connection:
        assert connection.execute("SELECT count(*) FROM note").fetchone() == (4,)
