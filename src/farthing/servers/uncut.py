"""Running a flow so that nobody can cut it: by call-backs, in no task of its own.

What a request's task awaits here is only word of the flow's end: a request that is cancelled leaves the flow running
(SAFETY S9). What answers at once costs a call, what the store answers costs a call-back, and a task is made only for a
handler that is a coroutine.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable
from concurrent.futures import Future
from types import CoroutineType
from typing import Any, Final, Generic, TypeVar, cast

from farthing.flow import Effect, Flow
from farthing.world.pending import Pending
from farthing.world.performers import Performer, Waker, told, waker_of

T = TypeVar("T")

# What a handler returns where its answer comes later.
_LATER: Final = (Pending, Future, CoroutineType)

log = logging.getLogger("farthing.seller")


async def uncut(flow: Flow[T], performer: Performer, orphaned: Callable[[T], Flow[Any] | None] | None = None) -> T:
    """Run `flow` to its end, whether or not the caller waits for it.

    `orphaned` gives the flow that follows where the caller was cancelled and nobody waits for the answer, or None.
    """
    run: _Run[T] = _Run(flow, performer.begin, asyncio.get_running_loop())
    run.go_on(None, None)
    if not run.over:
        waiter = run.waiter = run.loop.create_future()
        try:
            await waiter
        except asyncio.CancelledError:
            run.leave(orphaned, performer)
            raise
    if run.error is not None:
        raise run.error
    return cast("T", run.answer)


class _Run(Generic[T]):
    """One flow on its way. Used in its loop's thread alone; `_known` is called in any."""

    __slots__ = (
        "_awaited",
        "_begin",
        "_context",
        "_flow",
        "_follow",
        "_waker",
        "answer",
        "error",
        "loop",
        "over",
        "waiter",
    )

    def __init__(self, flow: Flow[T], begin: Callable[[Effect[Any]], Any], loop: asyncio.AbstractEventLoop) -> None:
        self._flow = flow
        self._begin = begin
        self._context: contextvars.Context | None = None
        self._waker: Waker | None = None
        self._awaited: Any = None
        self._follow: Callable[[], None] | None = None
        self.loop = loop
        self.over = False
        self.answer: T | None = None
        self.error: BaseException | None = None
        self.waiter: asyncio.Future[None] | None = None

    def go_on(self, answer: Any, error: BaseException | None) -> None:
        """Go on with an answer, or with what went wrong, until the flow ends or something must be waited for."""
        flow, begin = self._flow, self._begin
        while True:
            try:
                effect = flow.send(answer) if error is None else flow.throw(error)
            except StopIteration as stop:
                self._end(stop.value, None)
                return
            except BaseException as raised:  # noqa: BLE001 - the caller is told, whatever it is
                self._end(None, raised)
                return
            answer = error = None
            try:
                answer = begin(effect)
                waiting: object = answer  # narrowed apart, as in `Performer`
                if not isinstance(waiting, _LATER):
                    continue
                if self._wait_for(answer):
                    return
                answer = told(answer)
            except BaseException as raised:  # noqa: BLE001 - every error, cancellation too, belongs to the flow
                error = raised

    def _wait_for(self, answer: Any) -> bool:
        """Have what comes later call back; False where it is known by now."""
        if self._context is None:
            # Of the request, in whose task this still is: what a coroutine does for it, it does in its context.
            self._context = contextvars.copy_context()
            self._waker = waker_of(self.loop)
        self._awaited = answer
        waiting: object = answer  # narrowed apart, as in `Performer`
        if isinstance(waiting, CoroutineType):
            self._awaited = self.loop.create_task(answer, context=self._context)
            self._awaited.add_done_callback(self._performed)
        elif answer.done():
            return False
        else:
            answer.add_done_callback(self._known)
        return True

    def _known(self, _: Any) -> None:
        if self._waker is not None:
            self._waker.wake(self._told)

    def _told(self) -> None:
        try:
            answer = told(self._awaited)
        except BaseException as raised:  # noqa: BLE001 - likewise
            self.go_on(None, raised)
        else:
            self.go_on(answer, None)

    def _performed(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            self.go_on(None, asyncio.CancelledError())
        elif (raised := task.exception()) is not None:
            self.go_on(None, raised)
        else:
            self.go_on(task.result(), None)

    def _end(self, answer: T | None, error: BaseException | None) -> None:
        self.over = True
        self.answer, self.error = answer, error
        self._awaited = None
        self._flow.close()
        if self._follow is not None:
            self._follow()
        elif self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    def leave(self, orphaned: Callable[[T], Flow[Any] | None] | None, performer: Performer) -> None:
        """Take note that nobody waits any more."""

        def follow() -> None:
            if self.error is not None:
                log.error("a payment's conclusion failed after its client had gone", exc_info=self.error)
                return
            following = None if orphaned is None else orphaned(cast("T", self.answer))
            if following is not None:
                run: _Run[Any] = _Run(following, performer.begin, self.loop)
                run.leave(None, performer)
                run.go_on(None, None)

        if self.over:
            follow()
        else:
            self._follow = follow
