"""The performer: one table of handlers, and two faces for the drivers of `farthing.flow`.

    performer = Performer({**system_handlers(), **store.handlers()})
    drive(flow, performer.blocking)
    await drive_async(flow, performer.awaiting)

A handler takes the effect and returns its answer at once, or a `Pending` or `concurrent.futures.Future` of it (a
store's writer thread), or a coroutine (a socket). Which one it is decides nothing but the manner of waiting.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from types import CoroutineType
from typing import Any, TypeAlias, TypeVar, cast

from farthing.flow import Effect
from farthing.world.clock import system_handlers
from farthing.world.crash import with_crashes
from farthing.world.loop import run_blocking
from farthing.world.pending import Pending, after_the_batch

R = TypeVar("R")

Handler: TypeAlias = Callable[[Any], Any]
Handlers: TypeAlias = Mapping[type[Effect[Any]], Handler]

__all__ = ["Handler", "Handlers", "Performer", "system_handlers"]


class Performer:
    """Performs effects by the handler of their exact type; for an effect without a handler it raises `LookupError`.

    Cancellation of a caller that awaits: a coroutine is cancelled with it, and so is a `Future` that has not begun.
    One that is running goes on, and a store's write counts as running from its submission: it is never called back,
    and whoever is cancelled while waiting for it knows no more than that it was asked for.
    """

    __slots__ = ("_handlers",)

    def __init__(self, handlers: Handlers) -> None:
        """Take the handlers by type of effect. The table is copied."""
        self._handlers: dict[type[Effect[Any]], Handler] = with_crashes(handlers)

    def with_(self, handlers: Handlers) -> Performer:
        """Give a copy with more handlers; of two for one effect the new one counts."""
        return Performer({**self._handlers, **handlers})

    def begin(self, effect: Effect[Any]) -> Any:
        """Begin to perform: gives what the handler returns, which may be a `Pending`, a `Future` or a coroutine."""
        handler = self._handlers.get(type(effect))
        if handler is None:
            raise _no_handler(effect)
        return handler(effect)

    def blocking(self, effect: Effect[R]) -> R:
        """Perform and wait in this thread. Not for a thread that runs an event loop others depend on."""
        answer = self.begin(effect)
        waiting: object = answer  # narrowed apart, since what a handler promises is between it and its effect
        if isinstance(waiting, CoroutineType):
            return cast("R", run_blocking(answer))
        if isinstance(waiting, (Pending, Future)):
            return cast("R", answer.result())
        return cast("R", answer)

    async def awaiting(self, effect: Effect[R]) -> R:
        """Perform and await on the running loop."""
        answer = self.begin(effect)
        waiting: object = answer  # narrowed apart, since what a handler promises is between it and its effect
        if isinstance(waiting, CoroutineType):
            return cast("R", await answer)
        if isinstance(waiting, (Pending, Future)):
            return cast("R", answer.result() if answer.done() else await _bridged(answer))
        return cast("R", answer)


class Waker:
    """Wakes those who wait on one loop for answers of other threads: once for all that are given together.

    A group commit answers dozens in a row, and waking a loop from another thread is a system call.
    """

    __slots__ = ("_asked", "_woken", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wake on `loop`."""
        self.loop = loop
        self._woken: deque[Callable[[], object]] = deque()
        self._asked = False

    def wake(self, go_on: Callable[[], object]) -> None:
        """Have `go_on` called on the loop. Called in any thread; `go_on` must not raise."""
        self._woken.append(go_on)
        # Looked at after the append: where it is True still, the wake-up that was asked for will find it.
        if not self._asked:
            self._asked = True
            after_the_batch(self._ask)

    def _ask(self) -> None:
        try:
            self.loop.call_soon_threadsafe(self._wake_all)
        except RuntimeError:
            if not self.loop.is_closed():  # else nobody waits there any more
                raise

    def _wake_all(self) -> None:
        self._asked = False
        while self._woken:
            self._woken.popleft()()


_wakers = threading.local()


def waker_of(loop: asyncio.AbstractEventLoop) -> Waker:
    """Give the waker of the loop that runs in this thread."""
    waker: Waker | None = getattr(_wakers, "waker", None)
    if waker is None or waker.loop is not loop:
        waker = _wakers.waker = Waker(loop)
    return waker


async def _bridged(answer: Future[R] | Pending[R]) -> R:
    """Await an answer of another thread: what `asyncio.wrap_future` does, at a third of its price."""
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()
    wake = waker_of(loop).wake
    answer.add_done_callback(lambda _: wake(partial(_go_on, waiter)))
    try:
        await waiter
    except asyncio.CancelledError:
        if isinstance(answer, Future):
            answer.cancel()
        raise
    return told(answer)


def told(answer: Future[R] | Pending[R]) -> R:
    """Give an answer that is known, or raise what went wrong."""
    if isinstance(answer, Future) and answer.cancelled():
        raise asyncio.CancelledError
    return answer.result()


def _go_on(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _no_handler(effect: Effect[Any]) -> LookupError:
    return LookupError(f"No handler for {type(effect).__name__}: give one to Performer, or to with_().")
