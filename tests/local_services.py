"""Real services on loopback for tests that need a whole town: chain, facilitator, wallets, sockets for sellers."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import uvicorn
from werkzeug.serving import WSGIRequestHandler, make_server

from farthing.evm.signatures import PrivateKey
from farthing.networks import KNOWN, Networks, Token
from farthing.services.devnet import Devnet

HOST = "127.0.0.1"
# Starting a Python with its imports takes seconds on a busy machine.
START_SECONDS = 60
# Ten copies of one payment come at once.
BACKLOG = 64


class Wallet(msgspec.Struct, frozen=True):
    """An account with a key, and money if it was asked for."""

    address: str
    key: str


class LocalServices:
    """What is started here ends with `close`, in the reverse order. Ports are free ones; files lie under `folder`."""

    def __init__(self, devnet: Devnet, folder: Path) -> None:
        self.devnet = devnet
        self.folder = folder
        self._facilitator_url = ""
        self._lock = threading.RLock()
        self._numbers = itertools.count(1)
        self._ends = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ends.close()

    def at_end(self, close: Callable[[], object]) -> None:
        """Have something closed when all this ends."""
        self._ends.callback(close)

    @property
    def networks(self) -> Networks:
        """The known networks, and the devnet's dollar."""
        return KNOWN.with_token(
            Token(
                network=self.devnet.network,
                address=self.devnet.usdc,
                symbol="USDC",
                decimals=6,
                eip712_name="USDC",
                eip712_version="2",
            )
        )

    @property
    def asset(self) -> dict[str, Any]:
        """The dollar as offers name it."""
        return {"asset": self.devnet.usdc, "extra": {"name": "USDC", "version": "2"}}

    @property
    def facilitator_url(self) -> str:
        """A facilitator that settles here: `farthing facilitator`, started when first asked for."""
        with self._lock:
            if not self._facilitator_url:
                self._facilitator_url = self.start_facilitator()
            return self._facilitator_url

    def path(self, name: str) -> Path:
        """A path for a file that nobody else uses."""
        folder = self.folder / f"{next(self._numbers)}"
        folder.mkdir(parents=True)
        return folder / name

    def wallet(self, *, usdc: str = "0", eth: str = "0") -> Wallet:
        """A fresh account with this much money."""
        key = secrets.token_bytes(32)
        address = PrivateKey(key).address
        if usdc != "0" or eth != "0":
            self.devnet.faucet(address, usdc=usdc, eth=eth)
        return Wallet(address, "0x" + key.hex())

    def facilitator_config(self, store: str = "") -> str:
        """A configuration, as `farthing facilitator` reads it. The key is in FACILITATOR_KEY."""
        return f"""
store = {json.dumps(store or str(self.path("facilitator.sqlite3")))}
[wallet]
key_env = "FACILITATOR_KEY"
[server]
port = 0
[[network]]
id = "{self.devnet.network}"
rpc_urls = ["{self.devnet.url}"]
[[network.token]]
address = "{self.devnet.usdc}"
symbol = "USDC"
decimals = 6
eip712_name = "USDC"
eip712_version = "2"
"""

    def start_facilitator(self) -> str:
        """Start another facilitator, and give its URL."""
        return self._ends.enter_context(self.facilitator())

    @contextlib.contextmanager
    def facilitator(self, store: str = "") -> Iterator[str]:
        """Another facilitator while the block runs, with a store of its own or this one; gives its URL."""
        config = self.path("farthing.toml")
        config.write_text(self.facilitator_config(store), "utf-8")
        command = [sys.executable, "-m", "farthing", "facilitator", "--config", str(config), "--json"]
        environment = {**os.environ, "FACILITATOR_KEY": self.wallet(eth="10").key}
        with config.with_name("log").open("w", encoding="utf-8") as log:
            process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True
            )
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                assert line, f"the facilitator did not start: {config.with_name('log').read_text('utf-8')}"
                yield str(json.loads(line)["url"])
            finally:
                _end(process)

    def serve(self, app: Callable[[str], Any], *, wsgi: bool = False) -> str:
        """Serve what `app` makes of its URL, from a thread; the answer is the URL."""
        listening = socket.create_server((HOST, 0), backlog=BACKLOG)
        self._ends.callback(listening.close)
        url = f"http://{HOST}:{listening.getsockname()[1]}"
        made = app(url)
        if wsgi:
            server = make_server(HOST, 0, made, threaded=True, request_handler=_Quiet, fd=listening.fileno())
            self._ends.callback(server.shutdown)
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        else:
            ready = threading.Event()
            asgi = _Asgi(uvicorn.Config(made, log_level="warning", lifespan="auto"), ready)
            thread = threading.Thread(target=asgi.run, args=([listening],), daemon=True)
            self._ends.callback(thread.join, START_SECONDS)
            self._ends.callback(setattr, asgi, "should_exit", True)  # noqa: FBT003 - the attribute's value
            thread.start()
            assert ready.wait(START_SECONDS)
        return url


class _Asgi(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: threading.Event) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready.set()


class _Quiet(WSGIRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None: ...


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(START_SECONDS)
    finally:
        process.kill()
        if process.stdout is not None:
            process.stdout.close()
