"""Runs a foreign program and ends it when standard input ends: `python -m farthing.services.devnet.guard anvil …`.

anvil doesn't notice that its parent is gone. The guard does, since the system closes the pipe between them however the
parent dies, and on Linux the kernel ends anvil should the guard itself be killed.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from typing import Final

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
# anvil ends at once on SIGTERM; after this it is killed.
_GRACE_SECONDS: Final = 5


def main(command: list[str]) -> int:
    """Run the command until it ends or standard input does; the answer is its exit status."""
    preparation = _die_with_parent if sys.platform == "linux" else None
    # The guard has one thread yet, so that nothing can hold a lock over the fork.
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=preparation)  # noqa: S603, PLW1509

    def end(*_: object) -> None:
        process.terminate()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    threading.Thread(target=_end_with_stdin, args=(process,), daemon=True).start()
    return process.wait()


def _end_with_stdin(process: subprocess.Popen[bytes]) -> None:
    try:
        while os.read(0, 4096):
            pass
    except OSError:
        pass
    process.terminate()
    try:
        process.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
