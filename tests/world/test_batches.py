"""The queue before a writer: handed over by lists, taken by batches, counted by operations."""

from __future__ import annotations

import asyncio
from typing import Any

from farthing.world.batches import HAND_OVER_MAX, Gathered, Queue, Waiting
from farthing.world.pending import Pending


def waiting(*names: str, awaited: bool = True) -> list[Waiting]:
    return [Waiting(waiting, name, Pending(), awaited) for name in names]


def names(batch: list[Waiting]) -> list[str]:
    return [each.item for each in batch]


def test_lists_are_one_batch_up_to_its_limit_and_the_rest_comes_next_in_its_order() -> None:
    queue = Queue()
    for some in ("ab", "cdefg", "h"):
        queue.put(waiting(*some))
    assert len(queue) == 8
    assert names(queue.take(4)[0]) == list("abcd")
    assert len(queue) == 4
    assert names(queue.take(2)[0]) == list("ef")
    queue.end()
    batch, ended = queue.take(100)
    assert (names(batch), ended) == (["g", "h"], True)
    assert len(queue) == 0


def test_a_full_last_batch_is_not_the_end() -> None:
    queue = Queue()
    queue.put(waiting(*"abc"))
    queue.end()
    assert [queue.take(2)[1], queue.take(1)[1]] == [False, False]
    assert queue.take(2) == ([], True)


def test_a_note_that_nobody_awaits_goes_with_the_next_batch_or_soon_by_itself() -> None:
    queue = Queue()
    queue.put(waiting("note", awaited=False))
    queue.put(waiting("row"))
    queue.put(waiting("other"))
    assert names(queue.take(100)[0]) == ["note", "row", "other"]
    queue.put(waiting("alone", awaited=False))
    assert names(queue.take(100)[0]) == ["alone"]


def test_a_long_turn_of_a_loop_hands_over_before_its_end() -> None:
    handed: list[list[Any]] = []

    async def ask() -> None:
        gathered = Gathered(asyncio.get_running_loop(), handed.append)
        for each in waiting(*map(str, range(HAND_OVER_MAX + 3))):
            gathered.add(each)
        assert [len(some) for some in handed] == [HAND_OVER_MAX]
        await asyncio.sleep(0)

    asyncio.run(ask())
    assert [len(some) for some in handed] == [HAND_OVER_MAX, 3]
    assert [name for some in handed for name in names(some)] == [str(number) for number in range(HAND_OVER_MAX + 3)]
