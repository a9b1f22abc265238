"""A lock on a file, between processes and between objects of one process, with a limit on the wait.

SQLite's busy handler polls, and a process that commits without a pause starves a second one for up to a second;
a waiter of `flock` sleeps in the kernel and is woken at each release.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

# How often a lock is tried again where the system can't wait for one (Windows).
POLL_SECONDS = 0.002

if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        os.lseek(descriptor, 0, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _wait_lock(descriptor: int) -> None:
        while not _try_lock(descriptor):
            time.sleep(POLL_SECONDS)

    def _unlock(descriptor: int) -> None:
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    # flock, not lockf: a POSIX record lock belongs to the process, and is lost when any descriptor of the file closes.
    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _wait_lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX)

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


class FileLock:
    """An exclusive lock on the file `path`, created if need be and never deleted. Used by one thread at a time.

    A kernel wait can't be given a time-out, so a contended lock is waited for by a thread of its own; when the caller
    gives up, the wait goes on, and the next `acquire` takes it over.
    """

    def __init__(self, path: Path) -> None:
        """Open the lock's file, readable and writable by its owner alone. Raises `OSError`."""
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self._granted: threading.Event | None = None

    def acquire(self, timeout_seconds: float) -> bool:
        """Take the lock; False when another holder kept it for all of `timeout_seconds`."""
        if self._granted is None:
            if _try_lock(self._descriptor):
                return True
            self._granted = threading.Event()
            arguments = (self._descriptor, self._granted)
            threading.Thread(target=_wait, args=arguments, name="farthing-lock", daemon=True).start()
        if not self._granted.wait(timeout_seconds):
            return False
        self._granted = None
        return True

    def try_acquire(self) -> bool:
        """Take the lock if nobody has it, without waiting."""
        return self._granted is None and _try_lock(self._descriptor)

    def release(self) -> None:
        """Give the lock back."""
        _unlock(self._descriptor)

    def close(self) -> None:
        """Close the file; the lock goes with it. After a fork this leaves the parent's lock as it is.

        While a thread still waits for the lock the descriptor stays open, since its number would be given to
        another file; the process's end closes it.
        """
        if self._granted is None:
            os.close(self._descriptor)

    def close_after_fork(self) -> None:
        """Close the child's copy: no thread waits for it here, and a copy left open would keep a dead parent's lock."""
        os.close(self._descriptor)


def _wait(descriptor: int, granted: threading.Event) -> None:
    _wait_lock(descriptor)
    granted.set()
