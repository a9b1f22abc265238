"""The soak's processes: a chain, one facilitator, one seller with two workers; and what their memory is."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from bench.soak_shop import Opening
from farthing.evm.signatures import PrivateKey

if TYPE_CHECKING:
    from collections.abc import Generator

    from farthing.services.devnet import Devnet

WORKERS = 2
_BACKLOG = 1024
_END_SECONDS = 30
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_CONFIG = """
store = {store}
[wallet]
key_env = "SOAK_WALLET_KEY"
[server]
port = 0
[[network]]
id = "{network}"
rpc_urls = ["{url}"]
[[network.token]]
address = "{usdc}"
symbol = "USDC"
decimals = 6
eip712_name = "USDC"
eip712_version = "2"
"""


class SoakTown(msgspec.Struct, frozen=True):
    """Where the seller is, whom it pays, and the processes whose memory counts, by name."""

    devnet: Any
    host: str
    port: int
    pay_to: str
    processes: dict[str, int]

    def memory_bytes(self) -> dict[str, int]:
        """The resident set of each process."""
        return {name: resident_bytes(pid) for name, pid in self.processes.items()}


def resident_bytes(pid: int) -> int:
    """What a process has in memory, as Linux counts it."""
    return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * _PAGE_BYTES


@contextlib.contextmanager
def open_town(devnet: Devnet, folder: Path, *, workers: int = WORKERS) -> Generator[SoakTown]:
    """Start facilitator and workers on `devnet`; all end with the block of code."""
    with contextlib.ExitStack() as stack:
        facilitator, facilitator_url = _start_facilitator(devnet, folder, stack)
        pay_to = PrivateKey(secrets.token_bytes(32)).address
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG))
        host, port = listening.getsockname()[:2]
        opening = Opening(
            facilitator_url=facilitator_url,
            network=devnet.network,
            usdc=devnet.usdc,
            pay_to=pay_to,
            base_url=f"http://{host}:{port}",
            store=str(folder / "seller.sqlite"),
        )
        processes = {"facilitator": facilitator.pid}
        for number in range(workers):
            processes[f"worker {number + 1}"] = _start_worker(opening, listening.fileno(), stack).pid
        yield SoakTown(devnet, host, port, pay_to, processes)


def _start_facilitator(devnet: Devnet, folder: Path, stack: contextlib.ExitStack) -> tuple[Any, str]:
    key = secrets.token_bytes(32)
    devnet.faucet(PrivateKey(key).address, eth=1_000)
    config = folder / "farthing.toml"
    store = json.dumps(str(folder / "facilitator.sqlite"))
    config.write_text(_CONFIG.format(store=store, network=devnet.network, url=devnet.url, usdc=devnet.usdc), "utf-8")
    log = stack.enter_context((folder / "facilitator.log").open("w", encoding="utf-8"))
    process = subprocess.Popen(
        [sys.executable, "-m", "farthing", "facilitator", "--config", str(config), "--json", "--log-level", "warning"],
        env={**os.environ, "SOAK_WALLET_KEY": "0x" + key.hex()},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )
    stack.callback(_end, process)
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        message = f"The facilitator did not start: {(folder / 'facilitator.log').read_text('utf-8')}"
        raise RuntimeError(message)
    return process, str(json.loads(line)["url"])


def _start_worker(opening: Opening, descriptor: int, stack: contextlib.ExitStack) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.soak_shop", str(descriptor)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=(descriptor,),
    )
    stack.callback(_end, process)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(msgspec.json.encode(opening) + b"\n")
    process.stdin.flush()
    if process.stdout.readline() != b"ready\n":
        message = "A worker of the seller did not start; its error is above."
        raise RuntimeError(message)
    return process


def _end(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
