"""The demo, from the first block to the last reconciled line."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import httpx2
import requests
from rich.console import Console

from farthing.buyer import Policy
from farthing.buyer.events import Event, Offered, Paying, Signing
from farthing.clients.buyer import Buyer
from farthing.clients.httpx import PayingTransport
from farthing.clients.requests import PayingAdapter
from farthing.demo import parts
from farthing.demo.reconcile import balance, reconcile, show_address, transfers
from farthing.demo.shop import Opened, Opening, networks_with
from farthing.demo.shown import ShownAdapter, ShownTransport, Wire
from farthing.demo.story import Story
from farthing.errors import ConfigError
from farthing.money import show_atomic
from farthing.protocol.codec import decode_settlement
from farthing.services.devnet import Devnet, NodeName, start_devnet
from farthing.world.keys import LocalSigner

NODES: Final[tuple[NodeName, ...]] = ("py-evm", "anvil")
_DECIMALS = 6
# What the buyer is given; the purchases cost a third of a tenth of it.
_PURSE = "1"
_REQUEST_TIMEOUT_SECONDS = 60.0
# What of a line of the facilitator's log is worth showing here.
_LOG_SHOWN = ("valid", "reason", "payer", "block_number")
# Environment of the children: what Python and the system need, and nothing that could be a secret of the user's.
ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT", "VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME")


def run_demo(*, node: str = "py-evm", as_json: bool = False) -> int:
    """Run the whole demo; give 0 where journal, ledger and chain agree, else 1. Raises `ConfigError`."""
    chosen = node_of(node)
    story = Story(Console(soft_wrap=True))
    begun = time.monotonic()
    with interruptible():
        result = _run(chosen, story, begun)
    if as_json:
        print(json.dumps(result), flush=True)
    return 0 if result["reconciled"] else 1


def node_of(name: str) -> NodeName:
    """Read the name of a program that runs the chain. Raises `ConfigError`."""
    for each in NODES:
        if each == name:
            return each
    message = f"--node {name}: there are {' and '.join(NODES)}."
    raise ConfigError(message)


def _run(node: NodeName, story: Story, begun: float) -> dict[str, Any]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="farthing-demo-")))
        environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
        story.stage(f"starting a chain ({node}), a facilitator and a shop, on free loopback ports")
        # The shop's imports take the longest: it starts first and is told the rest when it is known.
        open_shop = stack.enter_context(parts.shop(environment))
        devnet = stack.enter_context(start_devnet(node))
        story.ready("chain", devnet.url, f"{devnet.network}, USDC at {devnet.usdc}")
        wallet, wallet_key = devnet.accounts[1]
        wait_facilitator = stack.enter_context(
            parts.facilitator(
                folder=folder,
                network=devnet.network,
                rpc_url=devnet.url,
                usdc=devnet.usdc,
                wallet_key=wallet_key,
                environment=environment,
            )
        )
        signer = LocalSigner(secrets.token_bytes(32))
        seller = devnet.accounts[2][0]
        devnet.faucet(signer.address, usdc=_PURSE)
        facilitator_url, store, log = wait_facilitator()
        story.ready("facilitator", facilitator_url, f"hot wallet {wallet}")
        opened = open_shop(Opening(facilitator_url, devnet.network, devnet.usdc, seller, str(folder)))
        story.ready("shop", opened.asgi_url, "FastAPI (ASGI)")
        story.ready("", opened.wsgi_url, "Flask (WSGI)")
        story.ready("buyer", signer.address, f"holds {_PURSE} USDC, may spend 0.02 a request and 0.10 in all")

        accounts = {"buyer": signer.address, "seller": seller}
        before = {name: balance(devnet, address) for name, address in accounts.items()}
        settlement = _SettlementShown(devnet, story, log)
        buyer = stack.enter_context(_buyer(signer, devnet, folder, story, settlement))
        _buy_everything(buyer, opened, story, settlement)
        after = {name: balance(devnet, address) for name, address in accounts.items()}
        story.balances(before, after)

        lines = reconcile(devnet, buyer.journal, store, signer.address)
        settled = [line for line in lines if line.agrees]
        spent = sum(line.chain or 0 for line in lines)
        moved = before["buyer"] - after["buyer"] == spent == after["seller"] - before["seller"]
        agree = len(settled) == len(lines) == len(_PURCHASES) and moved
        story.reconciliation(lines, agree=agree)
    return {
        "payments": len(lines),
        "settled": len(settled),
        "spent": show_atomic(spent, _DECIMALS),
        "asset": "USDC",
        "reconciled": agree,
        "seconds": parts.seconds_since(begun),
    }


@contextmanager
def _buyer(
    signer: LocalSigner, devnet: Devnet, folder: Path, story: Story, settlement: _SettlementShown
) -> Generator[Buyer]:
    def watch(event: Event) -> None:
        if isinstance(event, Offered):
            story.offers(event.received)
        elif isinstance(event, Signing):
            story.signing(event.typed)
        elif isinstance(event, Paying):
            settlement.payment_id = event.paid.payment_id

    policy = Policy(networks=[devnet.network], hosts=["127.0.0.1"], per_request="$0.02", total="$0.10")
    networks = networks_with(devnet.network, devnet.usdc)
    journal = folder / "journal.sqlite"
    with Buyer(signer=signer, policy=policy, journal=journal, networks=networks, watch=watch) as buyer:
        yield buyer


class _SettlementShown:
    """Shows what the facilitator did for a payment, by its own log, and the transaction, as the chain has it."""

    def __init__(self, devnet: Devnet, story: Story, log: parts.FacilitatorLog) -> None:
        self._devnet = devnet
        self._story = story
        self._log = log
        self.payment_id = ""

    def __call__(self, header: str) -> None:
        response = decode_settlement(header)
        for line in self._log.until("settled", self.payment_id):
            details = ", ".join(f"{name} {line[name]}" for name in _LOG_SHOWN if line.get(name))
            self._story.facilitator(f"{line['event']} {self.payment_id[:16]}…  {details}".rstrip())
        if response.success:
            receipt = self._devnet.rpc("eth_getTransactionReceipt", response.transaction)
            moved = [(show_address(each.from_), show_address(each.to), each.value) for each in transfers(receipt)]
            self._story.settled(receipt, moved)


def _httpx2(transport: PayingTransport, url: str) -> str:
    with httpx2.Client(transport=transport, timeout=_REQUEST_TIMEOUT_SECONDS) as client:
        return client.get(url).raise_for_status().text


def _httpx2_async(transport: PayingTransport, url: str) -> str:
    async def get() -> str:
        async with httpx2.AsyncClient(transport=transport, timeout=_REQUEST_TIMEOUT_SECONDS) as client:
            response = await client.get(url)
            return response.raise_for_status().text

    return asyncio.run(get())


def _httpx2_stream(transport: PayingTransport, url: str) -> str:
    with (
        httpx2.Client(transport=transport, timeout=_REQUEST_TIMEOUT_SECONDS) as client,
        client.stream("GET", url) as response,
    ):
        response.raise_for_status()
        return "".join(response.iter_text())


Get = Callable[[PayingTransport, str], str]
_PURCHASES: tuple[tuple[str, str, Get | None], ...] = (
    ("/weather/lisbon", "FastAPI, by decorator · httpx2", _httpx2),
    ("/forecast/5", "FastAPI, a callable price · httpx2, asynchronous", _httpx2_async),
    ("/report", "FastAPI, settles before the work and streams · httpx2", _httpx2_stream),
    ("/quote", "Flask, synchronous (WSGI) · requests", None),
)


def _buy_everything(buyer: Buyer, opened: Opened, story: Story, settled: _SettlementShown) -> None:
    wire = Wire(story, settled)
    for number, (path, note, get) in enumerate(_PURCHASES, 1):
        story.purchase(number, f"GET {path}", note)
        if get is None:
            with requests.Session() as session:
                session.mount("http://", PayingAdapter(buyer, inner=ShownAdapter(wire)))
                answer = session.get(opened.wsgi_url + path, timeout=_REQUEST_TIMEOUT_SECONDS)
                answer.raise_for_status()
                body = answer.text
        else:
            body = get(PayingTransport(buyer, inner=ShownTransport(wire)), opened.asgi_url + path)
        story.body(body)


@contextmanager
def interruptible() -> Generator[None]:
    """Have SIGTERM end the demo as Ctrl-C does: with every part ended and every file removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
