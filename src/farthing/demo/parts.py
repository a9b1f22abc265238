"""The demo's other processes: the facilitator and the shop, started, watched and ended.

Each child has its standard input as a leash: it ends when the pipe does, however this process dies.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import msgspec

from farthing.demo.shop import Opened, Opening
from farthing.errors import FarthingError

# What a loaded machine may take to import and start a service; usually a second or two.
_START_MAX_SECONDS = 60.0
# What a service may take to finish what it is writing before it is killed.
_END_MAX_SECONDS = 5.0
# How long the demo waits for a line of the log that belongs before the one it has.
_LOG_MAX_SECONDS = 2.0

_CONFIG = """\
store = {store}

[server]
port = 0

[wallet]
key_env = "FARTHING_DEMO_WALLET_KEY"

[[network]]
id = {network}
rpc_urls = [{rpc_url}]
tokens = [{usdc}]

[[network.token]]
address = {usdc}
symbol = "USDC"
decimals = 6
eip712_name = "USDC"
eip712_version = "2"
"""


class PartFailed(FarthingError):
    """A part of the demo did not start, or ended by itself."""


class Child:
    """A child process that says in one line of JSON when it is ready."""

    def __init__(self, name: str, module: str, *arguments: str, environment: dict[str, str], stderr: Any) -> None:
        """Start it; `ready` waits for it."""
        self.name = name
        self._process = subprocess.Popen(  # noqa: S603 - our own modules under our own interpreter
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=environment,
            # Ctrl-C in the terminal is ours to hear; children are ended in order.
            start_new_session=True,
        )

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process."""
        return self._process

    def tell(self, line: bytes) -> None:
        """Write a line to it."""
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(line + b"\n")
                self._process.stdin.flush()

    def ready(self) -> bytes:
        """Wait for its line. Raises `PartFailed`."""
        timer = threading.Timer(_START_MAX_SECONDS, self._process.kill)
        timer.start()
        try:
            line = self._process.stdout.readline() if self._process.stdout is not None else b""
        finally:
            timer.cancel()
        if not line:
            self.end()
            message = (
                f"The {self.name} did not start (exit status {self._process.returncode}); what it said stands above."
            )
            raise PartFailed(message)
        return line

    def end(self) -> None:
        """End it politely, and for good."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            self._process.wait(_END_MAX_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class FacilitatorLog:
    """Reads the facilitator's log as it is written, and gives the lines of one payment."""

    def __init__(self, child: Child) -> None:
        """Read in a thread of its own, until the child ends."""
        self._lines: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        self._stderr = child.process.stderr
        threading.Thread(target=self._read, name="facilitator-log", daemon=True).start()

    def until(self, event: str, payment_id: str) -> list[dict[str, Any]]:
        """Give the payment's lines up to `event`, waiting a moment for it."""

        def told() -> bool:
            return any(each["event"] == event and each.get("payment_id") == payment_id for each in self._lines)

        with self._changed:
            self._changed.wait_for(told, _LOG_MAX_SECONDS)
            return [each for each in self._lines if each.get("payment_id") == payment_id]

    def _read(self) -> None:
        if self._stderr is None:
            return
        for raw in self._stderr:
            try:
                line: Any = json.loads(raw)
            except ValueError:
                sys.stderr.write(raw.decode("utf-8", "replace"))
                continue
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()


@contextlib.contextmanager
def facilitator(
    *, folder: Path, network: str, rpc_url: str, usdc: str, wallet_key: str, environment: dict[str, str]
) -> Generator[Callable[[], tuple[str, Path, FacilitatorLog]]]:
    """Start `farthing facilitator`; the callable waits for it and gives its URL, its store and its log."""
    store = folder / "facilitator.sqlite"
    config = folder / "farthing.toml"
    quoted = {
        "store": json.dumps(str(store)),
        "network": json.dumps(network),
        "rpc_url": json.dumps(rpc_url),
        "usdc": json.dumps(usdc),
    }
    config.write_text(_CONFIG.format(**quoted), encoding="utf-8")
    child = Child(
        "facilitator",
        "farthing.demo.child",
        *("facilitator", "--config", str(config), "--json", "--log-level", "debug"),
        environment={**environment, "FARTHING_DEMO_WALLET_KEY": wallet_key},
        stderr=subprocess.PIPE,
    )
    log = FacilitatorLog(child)
    try:
        yield lambda: (json.loads(child.ready())["url"], store, log)
    finally:
        child.end()


@contextlib.contextmanager
def shop(environment: dict[str, str]) -> Generator[Callable[[Opening], Opened]]:
    """Start the shop; the callable tells it what to sell through, waits for it, and gives its addresses."""
    child = Child("shop", "farthing.demo.shop", environment=environment, stderr=None)

    def open_shop(opening: Opening) -> Opened:
        child.tell(msgspec.json.encode(opening))
        return msgspec.json.decode(child.ready(), type=Opened)

    try:
        yield open_shop
    finally:
        child.end()


def seconds_since(begun: float) -> float:
    """Seconds of the monotonic clock since `begun`, to a hundredth."""
    return round(time.monotonic() - begun, 2)
