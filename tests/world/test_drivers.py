"""Flows: the two drivers agree, and a flow cut at any effect is closed and does nothing more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.flow import Effect, Flow, Now, RandomBytes, Sleep, drive, drive_async
from farthing.world.performers import Performer, system_handlers


class Ask(Effect[int], frozen=True):
    number: int


class Blow(Effect[int], frozen=True):
    words: str


class Cut(BaseException):
    """Like a cancellation: no `except Exception` holds it."""


def blocking(flow: Flow[Any], performer: Performer) -> Any:
    return drive(flow, performer.blocking)


def awaiting(flow: Flow[Any], performer: Performer) -> Any:
    return asyncio.run(drive_async(flow, performer.awaiting))


DRIVERS = pytest.mark.parametrize("run", [blocking, awaiting])
pool = ThreadPoolExecutor(2)


def at_once(effect: Ask | Blow) -> int:
    if isinstance(effect, Ask):
        return effect.number * 2
    raise ValueError(effect.words)


async def by_coroutine(effect: Ask | Blow) -> int:
    await asyncio.sleep(0)
    return at_once(effect)


def by_future(effect: Ask | Blow) -> Future[int]:
    return pool.submit(at_once, effect)


PLANS = st.lists(st.one_of(st.integers(0, 99).map(Ask), st.sampled_from(["a", "b"]).map(Blow)), max_size=8)


def story(plan: list[Effect[int]], trace: list[object]) -> Flow[int]:
    total = 0
    for effect in plan:
        try:
            total += yield from effect
        except ValueError as error:
            trace.append(str(error))
            if error.args == ("b",):
                raise
        trace.append(total)
    return total


@settings(max_examples=60, deadline=None)
@given(PLANS)
def test_both_drivers_tell_the_same_story_whatever_performs(plan: list[Effect[int]]) -> None:
    told: list[object] = []
    for run in (blocking, awaiting):
        for handler in (at_once, by_coroutine, by_future):
            performer = Performer({Ask: handler, Blow: handler})
            trace: list[object] = []
            try:
                end: object = run(story(plan, trace), performer)
            except ValueError as error:
                end = str(error)
            told.append((end, trace))
    assert all(one == told[0] for one in told)


def five(trace: list[str]) -> Flow[str]:
    try:
        for number in range(5):
            try:
                yield from Ask(number)
            except ValueError:  # a flow may mind its own errors, never a cut
                trace.append("minded")
    finally:
        trace.append("unwound")
    return "end"


def cut_at(position: int, flow: Flow[Any], run: Callable[[Flow[Any], Performer], Any]) -> list[Effect[Any]]:
    """Cut `flow` at its effect number `position`; give the effects that were asked for."""
    asked: list[Effect[Any]] = []

    def perform(effect: Effect[Any]) -> int:
        asked.append(effect)
        if len(asked) > position:
            raise Cut
        return 0

    with pytest.raises(Cut):
        run(flow, Performer({Ask: perform}))
    return asked


@DRIVERS
@pytest.mark.parametrize("position", range(5))
def test_a_flow_cut_at_any_effect_is_closed_and_asks_for_nothing_more(
    run: Callable[[Flow[Any], Performer], Any], position: int
) -> None:
    trace: list[str] = []
    flow = five(trace)
    assert cut_at(position, flow, run) == [Ask(number) for number in range(position + 1)]
    assert trace == ["unwound"]
    assert flow.gi_frame is None  # type: ignore[attr-defined]


@DRIVERS
def test_a_flow_that_asks_while_it_unwinds_is_noticed(run: Callable[[Flow[Any], Performer], Any]) -> None:
    def bad() -> Flow[None]:
        try:
            yield from Ask(0)
        finally:
            yield from Ask(1)

    assert cut_at(0, bad(), run) == [Ask(0), Ask(1)], "the check itself must see the second effect"


def test_cancellation_is_thrown_into_the_flow() -> None:
    seen: list[str] = []

    def waits() -> Flow[None]:
        try:
            yield from Sleep(3600)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def scene() -> None:
        started = asyncio.Event()

        async def sleep(effect: Sleep) -> None:
            started.set()
            await asyncio.sleep(effect.seconds)

        flow = waits()
        task = asyncio.create_task(drive_async(flow, Performer({Sleep: sleep}).awaiting))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert flow.gi_frame is None  # type: ignore[attr-defined]

    asyncio.run(scene())
    assert seen == ["cancelled"]


def test_a_cancelled_caller_does_not_call_back_what_runs_and_cancels_what_has_not_begun() -> None:
    running: Future[int] = Future()
    running.set_running_or_notify_cancel()
    queued: Future[int] = Future()

    async def scene(future: Future[int]) -> None:
        task = asyncio.create_task(Performer({Ask: lambda _: future}).awaiting(Ask(0)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scene(running))
    assert not running.cancelled()
    running.set_result(1)
    asyncio.run(scene(queued))
    assert queued.cancelled()


@DRIVERS
def test_an_effect_without_a_handler_names_itself(run: Callable[[Flow[Any], Performer], Any]) -> None:
    with pytest.raises(LookupError, match="No handler for Ask"):
        run(five([]), Performer({}))


@DRIVERS
def test_the_system_answers(run: Callable[[Flow[Any], Performer], Any]) -> None:
    def asks() -> Flow[tuple[int, bytes]]:
        now = yield from Now()
        some = yield from RandomBytes(16)
        yield from Sleep(0)
        return now, some

    now, some = run(asks(), Performer(system_handlers()))
    assert now > 1_700_000_000
    assert len(some) == 16


def test_with_gives_a_copy_and_the_new_handler_counts() -> None:
    first = Performer({Ask: lambda _: 1})
    second = first.with_({Ask: lambda _: 2})
    assert (first.blocking(Ask(0)), second.blocking(Ask(0))) == (1, 2)


def test_a_coroutine_is_the_same_on_the_loop_of_the_caller() -> None:
    async def where(_: Ask) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    async def scene() -> None:
        found: Any = await Performer({Ask: where}).awaiting(Ask(0))
        assert found is asyncio.get_running_loop()

    asyncio.run(scene())
    coroutine: Callable[[Ask], Coroutine[Any, Any, Any]] = where
    assert Performer({Ask: coroutine}).blocking(Ask(0)) is not None
