"""The queue before a store's writer: one thread a process, which takes whatever waits as one batch."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

from farthing.errors import StoreError
from farthing.world.batches import ALONE, Gathered, Queue, Waiting
from farthing.world.pending import Pending, settle_all

R = TypeVar("R")

# Of one transaction: enough that the flush is shared, few enough that the store's lock is given back within some ms.
BATCH_LIMIT: Final = 512
# Operations that wait: at some 5,000 a second, more than this would wait longer than a caller's time-out.
QUEUE_LIMIT: Final = 20_000
# A closing process waits this long for the batches that are queued.
CLOSE_TIMEOUT_SECONDS: Final = 30.0


class Writer:
    """Gathers operations into batches and has `commit` answer each batch: a list as long, of `(answer,)` or an error.

    The thread begins with the first operation. After a fork the child makes a `Writer` of its own.
    """

    def __init__(
        self, place: str, commit: Callable[[list[Waiting]], list[tuple[Any] | BaseException]], *, queue_limit: int
    ) -> None:
        """Write for the store that messages call `place`."""
        self._place = place
        self._commit = commit
        self._queue_limit = queue_limit
        self._lock = threading.Lock()
        self._queue = Queue()
        self._thread: threading.Thread | None = None
        self._local = threading.local()
        self.closed = False

    def submit(self, operation: Callable[..., R], *, awaited: bool) -> Pending[R]:
        """Have a single operation committed. Raises `StoreError` at once where it is not taken."""
        pending: Pending[R] = Pending()
        self._put([Waiting(operation, ALONE, pending, awaited)])
        return pending

    def join(self, joint: Callable[..., list[R]], item: Any, *, awaited: bool) -> Pending[R]:
        """Have a joint operation do `item`; what one turn of an event loop asks for is handed over at its end."""
        loop = asyncio._get_running_loop()  # noqa: SLF001 - its public twin raises where there is none
        if loop is None:
            pending: Pending[R] = Pending()
            self._put([Waiting(joint, item, pending, awaited)])
            return pending
        gathered: Gathered | None = getattr(self._local, "gathered", None)
        if gathered is None or gathered.loop is not loop:
            gathered = self._local.gathered = Gathered(loop, self._put)
        pending = Pending(gathered.hand_over)
        gathered.add(Waiting(joint, item, pending, awaited))
        return pending

    def close(self) -> bool:
        """Have what waits committed, and take no more; False where the thread hangs, and holds its connection.

        Closing twice is harmless.
        """
        gathered: Gathered | None = getattr(self._local, "gathered", None)
        if gathered is not None:
            gathered.hand_over()
        with self._lock:
            thread = self._thread
            if not self.closed:
                self.closed = True
                self._queue.end()
        if thread is None:
            return True
        thread.join(CLOSE_TIMEOUT_SECONDS)
        return not thread.is_alive()

    def check_open(self) -> None:
        """Raise `StoreError` where the store is closed."""
        if self.closed:
            raise StoreError(f"The store {self._place} is closed.")

    def _put(self, waiting: list[Waiting]) -> None:
        with self._lock:
            self.check_open()
            if len(self._queue) >= self._queue_limit:
                raise StoreError(
                    f"{self._queue_limit} writes wait for the store {self._place} already: it is slower than its load. "
                    "Nothing was written; try again later."
                )
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="farthing-store", daemon=True)
                self._thread.start()
            self._queue.put(waiting)

    def _run(self) -> None:
        ended = False
        while not ended:
            batch, ended = self._queue.take(BATCH_LIMIT)
            if batch:
                self._settle(batch)
            del batch  # an idle writer keeps nobody's operation alive

    def _settle(self, batch: list[Waiting]) -> None:
        """Commit `batch` and answer its callers, whatever happens."""
        try:
            answers = self._commit(batch)
        except BaseException as error:  # noqa: BLE001 - a caller waits for each answer: the thread must not die
            answers = [error] * len(batch)
        settle_all(zip([waiting.pending for waiting in batch], answers, strict=True))
