"""Flows that nobody can cut: whoever is cancelled leaves them running, and what follows takes their answer (S9)."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from farthing.errors import FacilitatorUnavailable
from farthing.flow import Effect, Flow
from farthing.protocol.facilitator import Settle
from farthing.servers.uncut import uncut
from farthing.servers.verifying import Verifying
from farthing.world.pending import Pending
from farthing.world.performers import Performer

tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="")


class Ask(Effect[int], frozen=True):
    number: int


def asking(*numbers: int) -> Flow[list[int]]:
    answers = []
    for number in numbers:
        try:
            answers.append((yield from Ask(number)))
        except ValueError as error:
            answers.append(-int(str(error)))
    return answers


async def later(number: int) -> int:
    await asyncio.sleep(0)
    if number % 5 == 0:
        raise ValueError(str(number))
    assert tenant.get() == "mine"
    return number


def in_a_thread(number: int) -> Pending[int]:
    pending: Pending[int] = Pending()

    def answer() -> None:
        if number % 5:
            pending.resolve(number)
        else:
            pending.fail(ValueError(str(number)))

    threading.Thread(target=answer).start()
    return pending


@pytest.mark.parametrize("handler", [in_a_thread, later])
def test_answers_and_errors_of_every_kind_reach_the_flow(handler: Any) -> None:
    async def run() -> list[int]:
        tenant.set("mine")
        return await uncut(asking(1, 5, 7), Performer({Ask: lambda effect: handler(effect.number)}))

    assert asyncio.run(run()) == [1, -5, 7]


def test_what_a_flow_raises_is_raised_to_who_waits() -> None:
    def failing() -> Flow[None]:
        yield from Ask(1)
        raise KeyError("no")

    for handler in (lambda _: 1, lambda _: in_a_thread(1)):
        with pytest.raises(KeyError):
            asyncio.run(uncut(failing(), Performer({Ask: handler})))


@pytest.mark.parametrize("by_coroutine", [True, False])
def test_S9_a_request_that_is_cancelled_leaves_its_flow_running(*, by_coroutine: bool) -> None:
    async def run() -> list[str]:
        seen: list[str] = []
        pending: Pending[int] = Pending()
        asked: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        over = asyncio.Event()

        async def ask() -> int:
            return await asked

        def flow() -> Flow[str]:
            number = yield from Ask(1)
            seen.append(f"went on with {number}")
            return "answer"

        def follow(answer: str) -> Flow[None]:
            seen.append(f"{answer} taken over")
            over.set()
            return (yield from ())

        performer = Performer({Ask: lambda _: ask() if by_coroutine else pending})
        request = asyncio.ensure_future(uncut(flow(), performer, follow))
        await asyncio.sleep(0)
        request.cancel()
        await asyncio.wait({request})
        assert request.cancelled()
        assert seen == []
        asked.set_result(7)
        pending.resolve(7)
        await asyncio.wait_for(over.wait(), 10)
        return seen

    assert asyncio.run(run()) == ["went on with 7", "answer taken over"]


class Waits:
    """Says that it answers at once, and does not."""

    answers_at_once = True

    async def supported(self) -> Any:
        raise FacilitatorUnavailable("nothing to say")

    async def verify(self, *_: Any) -> Any:
        await asyncio.sleep(0)

    async def settle(self, *_: Any, **__: Any) -> Any:
        await asyncio.sleep(0)


def test_S2_a_facilitator_that_breaks_its_word_to_answer_at_once_is_not_believed() -> None:
    settle = Verifying(cast("Any", Waits()), set).handlers()[Settle]
    effect: Any = SimpleNamespace(payment=None, requirements=None, idempotency_key="key")
    with pytest.raises(RuntimeError, match="answers_at_once"):
        settle(effect)
