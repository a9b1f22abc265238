"""One background event loop a process, so that synchronous doors can reach asynchronous input and output.

It starts on first use, in a daemon thread; a forked worker (gunicorn, uWSGI) gets one of its own; at exit it is
stopped as `asyncio.run` stops: tasks are cancelled, and asynchronous generators closed, which is how what lives on the
loop puts itself away.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

R = TypeVar("R")

# A process that ends waits no longer than this for connections to be put away: nothing durable hangs on them.
CLOSE_TIMEOUT_SECONDS = 2.0


class _Background:
    """The loop and its thread. Replaced as a whole in a forked child, where the thread does not exist."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.thread: threading.Thread | None = None

    def start(self) -> asyncio.AbstractEventLoop:
        with self.lock:
            if self.loop is None:
                loop = asyncio.new_event_loop()
                started = threading.Event()
                loop.call_soon(started.set)
                self.thread = threading.Thread(target=_serve, args=(loop,), name="farthing-loop", daemon=True)
                self.thread.start()
                started.wait()
                self.loop = loop
            return self.loop


_background = _Background()


def background_loop() -> asyncio.AbstractEventLoop:
    """The background loop of this process, started if need be."""
    return _background.loop or _background.start()


def run_blocking(coroutine: Coroutine[Any, Any, R]) -> R:
    """Run `coroutine` on the background loop and wait for it. What interrupts the caller cancels the coroutine."""
    loop = background_loop()
    if threading.current_thread() is _background.thread:
        coroutine.close()
        raise RuntimeError("A blocking call on the background loop would wait for itself: await it instead.")
    future = asyncio.run_coroutine_threadsafe(coroutine, loop)
    try:
        return future.result()
    except BaseException:
        future.cancel()  # without effect where the coroutine itself raised
        raise


def close_background_loop() -> None:
    """Stop and close the background loop; a later use starts another. Called at exit; harmless when there is none."""
    with _background.lock:
        loop, thread = _background.loop, _background.thread
        _background.loop = _background.thread = None
    if loop is None or thread is None or not thread.is_alive():
        return
    loop.call_soon_threadsafe(loop.stop)
    thread.join(CLOSE_TIMEOUT_SECONDS + 1)


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        with contextlib.suppress(Exception):  # the process is ending: there is nobody left to tell
            loop.run_until_complete(_put_away(loop))
        loop.close()


async def _put_away(loop: asyncio.AbstractEventLoop) -> None:
    tasks = [task for task in asyncio.all_tasks(loop) if task is not asyncio.current_task(loop)]
    for task in tasks:
        task.cancel()
    async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
        await asyncio.gather(*tasks, return_exceptions=True)
        await loop.shutdown_asyncgens()


def _forget_after_fork() -> None:
    global _background  # noqa: PLW0603 - the process is another one, and so is its loop
    _background = _Background()


atexit.register(close_background_loop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
