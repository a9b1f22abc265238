"""What the seller's crash tests share: sellers that may die, buyers that come again, and the count of all money."""

from __future__ import annotations

import asyncio
import base64
import collections
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from farthing.evm.addresses import parse_address
from farthing.evm.logs import AUTHORIZATION_USED_TOPIC
from farthing.evm.signatures import PrivateKey
from farthing.evm.signing import SignTypedData
from farthing.flow import Now, RandomBytes, drive
from farthing.mechanisms.exact_evm import ExactEvmBuyer
from farthing.protocol.codec import decode_payment_required, encode_payment
from farthing.protocol.extensions import echo
from farthing.protocol.payment_identifier import NAME
from farthing.seller.states import State
from farthing.world.seller_store import SellerStore
from farthing.world.store_url import is_postgres

SCRIPT = Path(__file__).with_name("crashing_seller.py")
AMOUNT = 10_000
BODY = b"what was paid for"
# How long payments may take until none of them moves by itself any more.
SETTLED_WITHIN_SECONDS = 60.0
# What a request may take before its client gives up: longer than a settlement on a busy machine.
CLIENT_SECONDS = 30.0


def method_of(path: str) -> str:
    """The method that a path of the town's sellers takes."""
    return "POST" if path in {"/job", "/lost"} else "GET"


class Running(NamedTuple):
    """A seller's process."""

    pid: int
    url: str

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def is_alive(self) -> bool:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, 0)
            return True
        return False

    async def ended(self) -> None:
        deadline = time.monotonic() + CLIENT_SECONDS
        while self.is_alive():
            assert time.monotonic() < deadline, "the process did not end at its place"
            await asyncio.sleep(0.02)


class Purchase:
    """One payment on its way to one answer."""

    def __init__(self, path: str, header: str, nonce: str) -> None:
        self.path, self.header, self.nonce = path, header, nonce
        self.answers: list[int] = []
        self.bodies: list[bytes] = []
        # What it came to: served, refund-due, payment-aborted, settlement-refused, offered-anew …
        self.end = ""

    @property
    def method(self) -> str:
        return method_of(self.path)

    @property
    def served(self) -> int:
        return self.bodies.count(BODY)


class Town:
    """A payer, a payee, a facilitator that lives, and sellers that don't."""

    def __init__(self, local: Any, folder: Path, **order: Any) -> None:
        self.local, self.folder = local, folder
        payer = local.wallet(usdc="100")
        self.key = PrivateKey(bytes.fromhex(payer.key[2:]))
        self.pay_to: str = local.wallet().address
        self.order = {
            "facilitator": local.facilitator_url,
            "pay_to": self.pay_to,
            "devnet": {"network": local.devnet.network, "usdc": local.devnet.usdc},
            **order,
        }
        self.first_block = int(local.devnet.rpc("eth_blockNumber"), 16)
        self._nursery = subprocess.Popen(
            [sys.executable, str(SCRIPT), str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._starting = asyncio.Lock()

    def close(self) -> None:
        """End all sellers."""
        assert self._nursery.stdin
        self._nursery.stdin.close()
        self._nursery.wait(CLIENT_SECONDS)
        assert self._nursery.stdout
        self._nursery.stdout.close()

    @property
    def store(self) -> str:
        """The sellers' one store."""
        return str(self.order.get("store") or self.folder / "seller.sqlite")

    @property
    def engine(self) -> str:
        """What keeps it."""
        return "postgres" if is_postgres(self.store) else "sqlite"

    async def start(self, **order: Any) -> Running:
        """Start a seller on the one store: as often as it takes, where the store's server is away."""
        deadline = time.monotonic() + CLIENT_SECONDS
        while True:
            said = await self._ask_for_one({**self.order, **order})
            if said["pid"]:
                return Running(said["pid"], said["url"])
            assert time.monotonic() < deadline, "the store can't be opened"
            await asyncio.sleep(0.05)

    async def _ask_for_one(self, order: dict[str, Any]) -> Any:
        nursery = self._nursery
        assert nursery.stdin
        assert nursery.stdout
        async with self._starting:
            nursery.stdin.write(json.dumps(order) + "\n")
            nursery.stdin.flush()
            return json.loads(await asyncio.to_thread(nursery.stdout.readline))

    async def offer(self, client: aiohttp.ClientSession, url: str, path: str, *, identified: bool = False) -> Purchase:
        """Ask what it costs, and sign for it; `identified` with a payment-identifier."""
        method = method_of(path)
        async with client.request(method, url + path) as answer:
            assert answer.status == 402, await answer.text()
            return self.sign(path, answer.headers["PAYMENT-REQUIRED"], identified=identified)

    def sign(self, path: str, required: str, *, identified: bool = False) -> Purchase:
        """Sign for an offer."""
        offers = decode_payment_required(required)
        nonce = secrets.token_bytes(32)

        def perform(effect: Any) -> Any:
            if isinstance(effect, Now):
                return int(time.time())
            assert not isinstance(effect, RandomBytes)
            assert isinstance(effect, SignTypedData)
            return self.key.sign_typed_data(effect.message)

        flow = ExactEvmBuyer(self.local.networks).pay(
            offers.offers[0].requirements, payer=self.key.address, nonce=nonce
        )
        payment = encode_payment(
            accepted=offers.offers[0].raw,
            payload=drive(flow, perform).payload,
            resource=offers.resource_raw,
            extensions=echo(offers.extensions, {NAME: {"id": secrets.token_hex(16)}}) if identified else None,
        )
        return Purchase(path, base64.b64encode(payment).decode(), "0x" + nonce.hex())

    async def send(self, client: aiohttp.ClientSession, url: str, purchase: Purchase) -> bool:
        """Send the payment once; True where it has come to an end."""
        headers = {"PAYMENT-SIGNATURE": purchase.header}
        try:
            async with client.request(purchase.method, url + purchase.path, headers=headers) as answer:
                purchase.answers.append(answer.status)
                body = await answer.read()
        except (TimeoutError, aiohttp.ClientError, ConnectionError):
            purchase.answers.append(0)
            return False
        if answer.status == 200:
            purchase.bodies.append(body)
            purchase.end = purchase.end or "served"
            return True
        if answer.status == 402 and "PAYMENT-REQUIRED" in answer.headers:
            purchase.end = "offered-anew"
            return True
        if answer.status in {402, 409} and "Retry-After" not in answer.headers:
            assert answer.content_type == "application/problem+json", (answer.status, body)
            said = json.loads(body)["type"].removeprefix("urn:farthing:problem:")
            if not (said == "payment-used" and purchase.end == "served"):
                purchase.end = said
            return True
        if purchase.path == "/lost" and answer.status == 500:
            return False
        assert answer.status in {402, 409, 503}, (answer.status, body)
        return False

    async def until_the_end(self, client: aiohttp.ClientSession, urls: list[str], purchases: list[Purchase]) -> None:
        """Send every payment again that has not come to an end, until no payment moves any more."""
        deadline = time.monotonic() + SETTLED_WITHIN_SECONDS

        async def one(index: int, purchase: Purchase) -> None:
            while not await self.send(client, urls[index % len(urls)], purchase):
                assert time.monotonic() < deadline, (purchase.path, purchase.answers)
                await asyncio.sleep(0.3)

        await asyncio.gather(*(one(index, each) for index, each in enumerate(purchases) if not each.end))

    def spent(self) -> collections.Counter[str]:
        """Give the nonces that the chain has spent of this payer, and how often."""
        logs = self.local.devnet.rpc(
            "eth_getLogs",
            {
                "fromBlock": hex(self.first_block),
                "toBlock": "latest",
                "address": self.local.devnet.usdc,
                "topics": [
                    "0x" + AUTHORIZATION_USED_TOPIC.hex(),
                    "0x" + parse_address(self.key.address).rjust(32, b"\0").hex(),
                ],
            },
        )
        return collections.Counter(log["topics"][2] for log in logs)

    def balance(self) -> int:
        """Give what the payee has, in atomic units."""
        return int(self.local.devnet.usdc_balance(self.pay_to))

    def count(self, purchases: list[Purchase]) -> Counted:
        """Compare what every buyer got with the chain, the seller's states and its ledger."""
        store = SellerStore(self.store)
        try:
            ledger = store.ledger()
            states = collections.Counter(row.state for row in store.payments())
            refunds = len(store.payments(State.REFUND_DUE))
        finally:
            store.close()
        spent = self.spent()
        counted = tally(purchases, spent)
        assert self.balance() == AMOUNT * sum(spent.values()) == sum(entry.amount for entry in ledger)
        assert len({entry.transaction for entry in ledger}) <= len(ledger) == counted.paid
        assert refunds == sum(each.end == "refund-due" for each in purchases)
        moving = states.keys() & {State.CLAIMED, State.SETTLING, State.UNKNOWN}
        assert not moving, states
        return counted


class Counted(NamedTuple):
    """What a test with crashes came to."""

    in_flight: int
    paid: int
    lost: int
    doubled: int
    free: int

    @property
    def bad(self) -> int:
        """How many payments were not what they should be."""
        return self.lost + self.doubled + self.free


def tally(purchases: list[Purchase], spent: Mapping[str, int]) -> Counted:
    """Compare what buyers got with what the chain spent."""
    paid = [each for each in purchases if spent.get(each.nonce)]
    lost = [each for each in paid if not each.served and each.end != "refund-due"]
    doubled = [each for each in purchases if spent.get(each.nonce, 0) > 1 or each.served > 1]
    free = [each for each in purchases if each.served and not spent.get(each.nonce)]
    return Counted(len(purchases), len(paid), len(lost), len(doubled), len(free))


@contextlib.contextmanager
def town(local: Any, folder: Path, **order: Any) -> Iterator[Town]:
    made = Town(local, folder, **order)
    try:
        yield made
    finally:
        made.close()


@contextlib.asynccontextmanager
async def http_client() -> AsyncIterator[aiohttp.ClientSession]:
    timeout = aiohttp.ClientTimeout(total=CLIENT_SECONDS)
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as client:
        yield client
