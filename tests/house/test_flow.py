"""Flows and their drivers: one story, told blocking and awaiting; whatever ends an effect reaches the flow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.flow import Effect, Flow, Now, RandomBytes, Sleep, drive, drive_async

T = TypeVar("T")
Perform = Callable[[Effect[Any]], Any]


class Say(Effect[str], frozen=True):
    text: str


def blocking(flow: Flow[T], perform: Perform) -> T:
    return drive(flow, perform)


def awaiting(flow: Flow[T], perform: Perform) -> T:
    async def performing(effect: Effect[Any]) -> Any:
        await asyncio.sleep(0)
        return perform(effect)

    return asyncio.run(drive_async(flow, performing))


@pytest.fixture(params=[blocking, awaiting])
def run(request: pytest.FixtureRequest) -> Callable[..., Any]:
    driver: Callable[..., Any] = request.param
    return driver


def upper(effect: Effect[Any]) -> Any:
    assert isinstance(effect, Say)
    return effect.text.upper()


def test_answers_come_back_in_order_and_the_return_value_comes_out(run: Callable[..., Any]) -> None:
    def flow() -> Flow[list[str]]:
        first = yield from Say("a")
        second = yield from Say(first + "b")
        return [first, second]

    assert run(flow(), upper) == ["A", "AB"]


def test_a_flow_without_effects_just_returns(run: Callable[..., Any]) -> None:
    def flow() -> Flow[int]:
        return 7
        yield

    assert run(flow(), upper) == 7


def test_a_flow_may_run_another(run: Callable[..., Any]) -> None:
    def inner(text: str) -> Flow[str]:
        return (yield from Say(text))

    def flow() -> Flow[str]:
        return (yield from inner("a")) + (yield from inner("b"))

    assert run(flow(), upper) == "AB"


class Cut(BaseException):
    """What no `except Exception` catches, like a cancellation."""


@pytest.mark.parametrize("error", [ValueError("no"), Cut(), KeyboardInterrupt(), SystemExit(1), GeneratorExit()])
def test_whatever_ends_an_effect_is_thrown_into_the_flow(run: Callable[..., Any], error: BaseException) -> None:
    seen: list[BaseException] = []

    def flow() -> Flow[None]:
        try:
            yield from Say("a")
        except BaseException as caught:
            seen.append(caught)
            raise

    def fail(_effect: Effect[Any]) -> Any:
        raise error

    running = flow()
    with pytest.raises(type(error)):
        run(running, fail)
    assert seen == [error]
    assert running.gi_frame is None  # type: ignore[attr-defined]  # closed


def test_a_flow_may_survive_an_error_and_go_on(run: Callable[..., Any]) -> None:
    def flow() -> Flow[str]:
        try:
            yield from Say("bad")
        except ValueError as error:
            return (yield from Say(str(error)))
        return "never"

    def perform(effect: Effect[Any]) -> Any:
        if effect == Say("bad"):
            raise ValueError("because")
        return upper(effect)

    assert run(flow(), perform) == "BECAUSE"


def test_an_error_of_the_flow_comes_out_as_it_is(run: Callable[..., Any]) -> None:
    def flow() -> Flow[None]:
        yield from Say("a")
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        run(flow(), upper)


def test_a_cancellation_reaches_the_flow_and_stays_one() -> None:
    seen: list[str] = []

    def flow() -> Flow[None]:
        try:
            yield from Say("a")
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        finally:
            seen.append("closed")

    async def story() -> None:
        waiting = asyncio.Event()

        async def perform(_effect: Effect[Any]) -> None:
            waiting.set()
            await asyncio.Event().wait()

        task = asyncio.ensure_future(drive_async(flow(), perform))
        await waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(story())
    assert seen == ["cancelled", "closed"]


@given(st.lists(st.text(max_size=3), max_size=6), st.integers(0, 6), st.booleans())
def test_both_drivers_tell_one_story(texts: list[str], cut_at: int, survives: bool) -> None:  # noqa: FBT001 - drawn
    """Cut at any effect, by an error that the flow survives or not: performed, seen and returned are the same."""

    def story(run: Callable[..., Any]) -> tuple[Any, list[str], list[str]]:
        performed: list[str] = []
        seen: list[str] = []

        def flow() -> Flow[int]:
            for text in texts:
                try:
                    seen.append((yield from Say(text)))
                except Cut:
                    seen.append("cut")
                    if not survives:
                        raise
            return len(seen)

        def perform(effect: Effect[Any]) -> Any:
            performed.append(effect.text)  # type: ignore[attr-defined]
            if len(performed) == cut_at:
                raise Cut
            return upper(effect)

        try:
            result: Any = run(flow(), perform)
        except Cut:
            result = "cut"
        return result, performed, seen

    assert story(blocking) == story(awaiting)


@pytest.mark.parametrize("effect", [Now(), RandomBytes(32), Sleep(0.5), Say("a")])
def test_an_effect_is_a_frozen_value(effect: Effect[Any]) -> None:
    assert effect == msgspec.structs.replace(effect)
    assert hash(effect) == hash(msgspec.structs.replace(effect))
    for field in effect.__struct_fields__:
        with pytest.raises(AttributeError):
            setattr(effect, field, None)
