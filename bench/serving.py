"""A server in a process of its own, pinned to one core: `python -m bench.serving MODULE FUNCTION FOLDER`.

`FUNCTION(folder)` of `MODULE` gives the ASGI application; uvicorn serves it with uvloop and httptools. The parent asks
for the CPU seconds that the process has used by writing a line.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import TracebackType

# Who listens for so many connections at once loses none of a round's.
_BACKLOG = 512


def cores() -> tuple[int, int]:
    """The core for servers, and the one for the load; the same where there is one."""
    here = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    return here[0], here[-1]


@contextlib.contextmanager
def on_core(core: int) -> Generator[None]:
    """Keep this process on one core, where the system can."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Server:
    """`with Server("bench.apps", "bare", folder) as server:`: a listening server, and its CPU time."""

    def __init__(self, module: str, function: str, folder: Path, environment: dict[str, str] | None = None) -> None:
        """Start the process and wait until it listens."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.serving", module, function, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | (environment or {}),
        )
        self.port = int(self._read("ready"))

    def cpu_seconds(self) -> float:
        """The CPU time of the process until now."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._read("cpu"))

    def _read(self, label: str) -> str:
        assert self._process.stdout is not None
        # What a package itself prints is passed over.
        for line in self._process.stdout:
            found, _, value = line.strip().partition(" ")
            if found == label:
                return value
        message = f"The server ended before it said {label!r}; its error is above."
        raise RuntimeError(message)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def _main(module: str, function: str, folder: str) -> None:
    import uvicorn  # noqa: PLC0415 - the parent has no use for it

    core = cores()[0]
    app: Any = getattr(importlib.import_module(module), function)(Path(folder))
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(_BACKLOG)
    server = uvicorn.Server(
        uvicorn.Config(app, loop="uvloop", http="httptools", log_level="warning", access_log=False, lifespan="auto")
    )

    def answer() -> None:
        while not server.started:
            time.sleep(0.005)
        # What was imported is there for good: a collection need not walk through it.
        gc.collect()
        gc.freeze()
        print("ready", listening.getsockname()[1], flush=True)
        for _ in sys.stdin:
            print("cpu", time.process_time(), flush=True)
        server.should_exit = True

    threading.Thread(target=answer, daemon=True).start()
    with on_core(core):
        server.run(sockets=[listening])


if __name__ == "__main__":
    _main(*sys.argv[1:])
