"""The performer: one table of handlers, and two faces for the drivers of `farthing.flow`.

    performer = Performer({**system_handlers(), **store.handlers()})
    drive(flow, performer.blocking)
    await drive_async(flow, performer.awaiting)

A handler takes the effect and returns its answer at once, or a `concurrent.futures.Future` of it (a store's writer
thread), or a coroutine (a socket). Which one it is decides nothing but the manner of waiting.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from types import CoroutineType
from typing import Any, TypeAlias, TypeVar, cast

from farthing.flow import Effect
from farthing.world.clock import system_handlers
from farthing.world.crash import with_crashes
from farthing.world.loop import run_blocking

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

    def blocking(self, effect: Effect[R]) -> R:
        """Perform and wait in this thread. Not for a thread that runs an event loop others depend on."""
        handler = self._handlers.get(type(effect))
        if handler is None:
            raise _no_handler(effect)
        answer = handler(effect)
        waiting: object = answer  # narrowed apart, since what a handler promises is between it and its effect
        if isinstance(waiting, CoroutineType):
            return cast("R", run_blocking(answer))
        if isinstance(waiting, Future):
            return cast("R", answer.result())
        return cast("R", answer)

    async def awaiting(self, effect: Effect[R]) -> R:
        """Perform and await on the running loop."""
        handler = self._handlers.get(type(effect))
        if handler is None:
            raise _no_handler(effect)
        answer = handler(effect)
        waiting: object = answer  # narrowed apart, since what a handler promises is between it and its effect
        if isinstance(waiting, CoroutineType):
            return cast("R", await answer)
        if isinstance(waiting, Future):
            return cast("R", answer.result() if answer.done() else await _bridged(answer))
        return cast("R", answer)


class _Waker:
    """Wakes those who wait on one loop for futures of other threads: once for all that are resolved together.

    A group commit resolves dozens of futures in a row, and waking a loop from another thread is a system call.
    """

    __slots__ = ("_asked", "_resolved", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._resolved: deque[asyncio.Future[None]] = deque()
        self._asked = False

    def wake(self, waiter: asyncio.Future[None]) -> None:
        """Have `waiter` go on. Called in any thread."""
        self._resolved.append(waiter)
        # Looked at after the append: where it is True still, the wake-up that was asked for will find the waiter.
        if not self._asked:
            self._asked = True
            try:
                self.loop.call_soon_threadsafe(self._wake_all)
            except RuntimeError:
                if not self.loop.is_closed():  # else nobody waits there any more
                    raise

    def _wake_all(self) -> None:
        self._asked = False
        while self._resolved:
            waiter = self._resolved.popleft()
            if not waiter.done():
                waiter.set_result(None)


_wakers = threading.local()


async def _bridged(answer: Future[R]) -> R:
    """Await a future of another thread: what `asyncio.wrap_future` does, at a third of its price."""
    loop = asyncio.get_running_loop()
    waker: _Waker | None = getattr(_wakers, "waker", None)
    if waker is None or waker.loop is not loop:
        waker = _wakers.waker = _Waker(loop)
    waiter: asyncio.Future[None] = loop.create_future()
    wake = waker.wake
    answer.add_done_callback(lambda _: wake(waiter))
    try:
        await waiter
    except asyncio.CancelledError:
        answer.cancel()
        raise
    if answer.cancelled():
        raise asyncio.CancelledError
    return answer.result()


def _no_handler(effect: Effect[Any]) -> LookupError:
    return LookupError(f"No handler for {type(effect).__name__}: give one to Performer, or to with_().")
