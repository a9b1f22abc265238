"""Who works on what, now: processes by a name that no later one has, and the purchases that this one is busy with.

An entry of a store names the process that wrote it. What a dead process, or nobody in this one, works on was cut.
"""

from __future__ import annotations

import os
import sys
import threading
from functools import lru_cache
from pathlib import Path

_busy_with: set[str] = set()
_lock = threading.Lock()


def begin(work: str) -> None:
    """Say that this process works on `work`."""
    with _lock:
        _busy_with.add(work)


def end(work: str) -> None:
    """Say that it does not any more, however it ended."""
    with _lock:
        _busy_with.discard(work)


def is_under_way(work: str, owner: str) -> bool:
    """Tell whether `work`, begun by the process called `owner`, may still be going on."""
    if owner != this_process():
        return is_alive(owner)
    with _lock:
        return work in _busy_with


def this_process() -> str:
    """The name of this process: its id, and when it started."""
    return _owner(os.getpid())


@lru_cache(maxsize=2)  # this process, and after a fork its parent
def _owner(pid: int) -> str:
    return f"{pid}:{_started(pid)}"


def is_alive(owner: str) -> bool:
    """Tell whether the process that wrote `owner` still runs.

    A process of another container can't be seen and counts as dead, as do all others on Windows, where asking would
    end them: then its payment is presented again, which can't pay twice.
    """
    if sys.platform == "win32":
        return False
    pid_text, _, started = owner.partition(":")
    pid = int(pid_text)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # another user's: it is there
    return _started(pid) == started


def _started(pid: int) -> str:
    # The start in clock ticks since boot: a process id that was given away again is another process. Linux only;
    # elsewhere the id alone must do.
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:
        return ""
    # The second field is the command's name in parentheses, which may hold anything; state is the 3rd, starttime the
    # 22nd (proc_pid_stat(5)). A zombie runs nothing any more.
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in {"Z", "X"} else f"{fields[19]}@{boot.strip()}"
