"""A contender in a process of its own: `python -m bench.worker MODULE FUNCTION`.

The official package chooses its elliptic curve by an environment variable when it is imported, so that each choice
needs its process. The parent writes a count on a line, the worker answers with the CPU seconds that they took.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Self

from bench.harness import Contender, Local

if TYPE_CHECKING:
    from types import TracebackType


class Worker:
    """Runs `FUNCTION()` of `MODULE`, which gives the work to do, in a process with `environment`."""

    def __init__(self, module: str, function: str, environment: dict[str, str] | None = None) -> None:
        """Start the process and wait until it is ready."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.worker", module, function],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | (environment or {}),
        )
        self._read("ready")

    def run(self, count: int) -> float:
        """Do it `count` times; the CPU seconds of all."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()
        return float(self._read("seconds"))

    def _read(self, label: str) -> str:
        assert self._process.stdout is not None
        # What the package itself prints is passed over.
        for line in self._process.stdout:
            found, _, value = line.strip().partition(" ")
            if found == label:
                return value
        message = f"The worker ended before it said {label!r}; its error is above."
        raise RuntimeError(message)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(timeout=10)


def _main(module: str, function: str) -> None:
    contender: Contender = Local(getattr(importlib.import_module(module), function)())
    print("ready", flush=True)
    for line in sys.stdin:
        print("seconds", contender.run(int(line)), flush=True)


if __name__ == "__main__":
    _main(*sys.argv[1:])
