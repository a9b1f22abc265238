"""An answer that another thread will give, once: what a store's `submit` returns.

A `concurrent.futures.Future` that can't be cancelled, without a lock of its own: it is made and resolved several times
for every payment, and a lock with a condition was half of what a write cost its caller.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar, cast

R = TypeVar("R")

__all__ = ["Pending", "after_the_batch", "settle_all"]

_this_thread = threading.local()


class Pending(Generic[R]):
    """An answer, or an error, that is not known yet. Safe in threads."""

    __slots__ = ("_answer", "_callbacks", "_done", "_error", "_nudge")

    def __init__(self, nudge: Callable[[], None] | None = None) -> None:
        """Await an answer; who blocks for it calls `nudge` first, where what it waits for may not have begun."""
        self._answer: R | None = None
        self._error: BaseException | None = None
        self._done = False
        self._callbacks: list[Callable[[Pending[Any]], object]] = []
        self._nudge = nudge

    def done(self) -> bool:
        """Tell whether it is known."""
        return self._done

    def result(self, timeout: float | None = None) -> R:
        """Wait for the answer, `timeout` seconds at most, or for ever. Raises `TimeoutError`, or what went wrong."""
        self._wait(timeout)
        if self._error is not None:
            raise self._error
        return cast("R", self._answer)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait likewise, and give what went wrong, or None."""
        self._wait(timeout)
        return self._error

    def add_done_callback(self, callback: Callable[[Pending[Any]], object]) -> None:
        """Call `callback` with this when it is known: in the thread that resolves it, or at once in this one.

        A callback must not raise.
        """
        self._callbacks.append(callback)
        # Looked at after the append: whoever resolves sets it before it empties the list, so that one of the two sees
        # the callback, and taking it off the list makes it the one alone.
        if self._done:
            self._tell()

    def resolve(self, answer: R) -> None:
        """Give the answer."""
        self._answer = answer
        self._done = True
        self._tell()

    def fail(self, error: BaseException) -> None:
        """Say what went wrong instead."""
        self._error = error
        self._done = True
        self._tell()

    def _tell(self) -> None:
        callbacks = self._callbacks
        while callbacks:
            try:
                callback = callbacks.pop(0)
            except IndexError:  # another thread was quicker
                return
            callback(self)

    def _wait(self, timeout: float | None) -> None:
        if self._done:
            return
        if self._nudge is not None:
            self._nudge()
        known = threading.Event()
        self.add_done_callback(lambda _: known.set())
        if not known.wait(timeout):
            message = f"no answer in {timeout} seconds; what was asked for may still happen"
            raise TimeoutError(message)


def settle_all(answers: Iterable[tuple[Pending[Any], tuple[Any] | BaseException]]) -> None:
    """Give the answers of one batch, `(answer,)` or what went wrong, and then make the calls that were put off."""
    put_off: dict[Callable[[], object], None] = {}
    _this_thread.put_off = put_off
    try:
        for pending, answer in answers:
            if isinstance(answer, BaseException):
                pending.fail(answer)
            else:
                pending.resolve(answer[0])
    finally:
        _this_thread.put_off = None
        for call in put_off:
            call()


def after_the_batch(call: Callable[[], object]) -> None:
    """Make `call` once all answers of the batch are given that this thread is giving; at once where it gives none.

    Who is woken by the first of them would else go on before the others are known, and be woken for each again.
    """
    put_off: dict[Callable[[], object], None] | None = getattr(_this_thread, "put_off", None)
    if put_off is None:
        call()
    else:
        put_off[call] = None
