"""Runs the command `farthing` until standard input ends: a child that no death of its parent leaves behind.

python -m farthing.demo.child facilitator --config farthing.toml
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading

# Nothing is written there; what is gets dropped.
_READ_BYTES = 4_096


def end_with_stdin() -> None:
    """Have this process end, as by a polite kill, when its parent closes the pipe or dies."""
    descriptor = sys.stdin.fileno()

    def wait() -> None:
        # Not through `sys.stdin`, whose lock this thread would hold while the interpreter ends.
        while os.read(descriptor, _READ_BYTES):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="end-with-stdin", daemon=True).start()


if __name__ == "__main__":
    end_with_stdin()
    # As a person would start it: the command stands above this floor and is run, not imported.
    runpy.run_module("farthing", run_name="__main__", alter_sys=True)
