"""Flows: logic written once, as a generator that yields what it wants done and is told the answer.

    def admit(request: Request) -> Flow[Verdict]:
        now_seconds = yield from Now()
        ...

A driver performs the effects, blocking (`drive`) or awaiting (`drive_async`), and decides nothing. An effect is a
frozen struct that knows the type of its answer, so that mypy and pyright follow `answer = yield from effect`.

Three rules that the drivers keep and a test enforces by cutting every flow at every effect:

- Whatever ends the performing of an effect, cancellation too, is thrown *into* the flow, and the flow is closed after.
- An unwinding flow yields nothing: no effect in an `except BaseException` or `finally` block.
- What can't be undone is on record before its effect is yielded.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any, Generic, TypeAlias, TypeVar, cast

import msgspec

R = TypeVar("R")
T = TypeVar("T")


class Effect(msgspec.Struct, Generic[R], frozen=True, gc=False):
    """Something that a flow wants done, whose answer is an `R`.

    An effect holds what it is about and nothing that could hold the effect, so that the collector need not look at it.
    """

    def __iter__(self) -> Generator[Effect[Any], Any, R]:
        """Let a flow say `answer = yield from effect`."""
        answer: R = yield self
        return answer


Flow: TypeAlias = Generator[Effect[Any], Any, T]


class Now(Effect[int], frozen=True):
    """The wall clock, in whole Unix seconds."""


class RandomBytes(Effect[bytes], frozen=True):
    """`size_bytes` bytes from the operating system's generator."""

    size_bytes: int


class Sleep(Effect[None], frozen=True):
    """Do nothing for a while."""

    seconds: float


def drive(flow: Flow[T], perform: Callable[[Effect[Any]], Any]) -> T:
    """Run `flow` to its end, performing each effect by a blocking call."""
    try:
        effect = next(flow)
        while True:
            try:
                answer = perform(effect)
            except BaseException as error:  # noqa: BLE001 - every error, cancellation too, belongs to the flow
                effect = flow.throw(error)
            else:
                effect = flow.send(answer)
    except StopIteration as stop:
        return cast("T", stop.value)
    finally:
        flow.close()


async def drive_async(flow: Flow[T], perform: Callable[[Effect[Any]], Awaitable[Any]]) -> T:
    """Run `flow` to its end, awaiting each effect."""
    try:
        effect = next(flow)
        while True:
            try:
                answer = await perform(effect)
            except BaseException as error:  # noqa: BLE001 - every error, cancellation too, belongs to the flow
                effect = flow.throw(error)
            else:
                effect = flow.send(answer)
    except StopIteration as stop:
        return cast("T", stop.value)
    finally:
        flow.close()
