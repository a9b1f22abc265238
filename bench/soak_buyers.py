"""The soak's buyers: hundreds at once, each on a connection of its own, paying again and again, and counting.

They do what a buyer must: one authorisation a purchase, and the same one again where nobody says yet what became of it.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from typing import TYPE_CHECKING

import msgspec

from bench.load import request_bytes
from bench.soak_shop import PATH
from farthing.evm.addresses import parse_address
from farthing.evm.signatures import PrivateKey
from farthing.evm.typed_data import Domain, TransferWithAuthorization
from farthing.mechanisms.exact_evm.payload import ExactDetail, write_payload
from farthing.protocol.codec import decode_payment_required, decode_settlement, encode_payment, pack_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.soak_town import SoakTown
    from farthing.protocol.codec import ReceivedOffers

# What is waited for one answer: a settlement's time-out at the seller is 60 s.
ANSWER_SECONDS = 90.0
# How often one payment is presented before it counts as an error.
PRESENTED_MAX = 30
_WINDOW_SECONDS = 300
_HEADER = re.compile(rb"\r\n([A-Za-z-]+): *([^\r\n]*)")
_ASK_AGAIN = frozenset({402, 409, 503})
_ERRORS_SHOWN = 5


class Counted(msgspec.Struct):
    """What the buyers did: seconds of each purchase, nonces by what became of them, and errors in words."""

    seconds: list[float] = msgspec.field(default_factory=list)
    settled: dict[bytes, str] = msgspec.field(default_factory=dict)
    unsettled: set[bytes] = msgspec.field(default_factory=set)
    requests: int = 0
    presented_again: int = 0
    errors: list[str] = msgspec.field(default_factory=list)

    def percentile_seconds(self, share: float) -> float:
        """The time that this share of the purchases took at most."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


class _Answer(msgspec.Struct, frozen=True):
    status: int
    headers: dict[str, str]
    body: bytes


class _Connection:
    """A keep-alive connection that is opened again where the server closed it."""

    def __init__(self, host: str, port: int) -> None:
        self._at = host, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> _Answer:
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._at)
        reader, writer = self._streams
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        headers = {name.decode().lower(): value.decode() for name, value in _HEADER.findall(head)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        return _Answer(int(head[9:12]), headers, body)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


class _Buyer:
    """One account that pays: signs, presents, and keeps the books of it."""

    def __init__(self, town: SoakTown, key: PrivateKey, received: ReceivedOffers, counted: Counted) -> None:
        self._connection = _Connection(town.host, town.port)
        self._key = key
        self._received = received
        self._counted = counted
        offer = received.offers[0]
        self._offer = offer.requirements
        self._token = parse_address(self._offer.asset)
        self._chain_id = int(self._offer.network.partition(":")[2])
        self._domain = Domain("USDC", "2", self._chain_id, self._token)

    def _sign(self, nonce: bytes) -> bytes:
        message = TransferWithAuthorization(
            parse_address(self._key.address),
            parse_address(self._offer.pay_to),
            self._offer.atomic,
            0,
            int(time.time()) + _WINDOW_SECONDS,
            nonce,
        )
        signature = self._key.sign_digest(message.digest(self._domain))
        payload = write_payload(ExactDetail(self._chain_id, self._token, message, signature))
        payment = encode_payment(
            accepted=self._received.offers[0].raw,
            payload=payload,
            resource=self._received.resource_raw,
            extensions=None,
        )
        return request_bytes(PATH, pack_json(payment))

    async def buy(self) -> None:
        """Buy once, and count it."""
        nonce = secrets.token_bytes(32)
        request = self._sign(nonce)
        begun = time.perf_counter()
        for _ in range(PRESENTED_MAX):
            self._counted.requests += 1
            try:
                answer = await asyncio.wait_for(self._connection.ask(request), ANSWER_SECONDS)
            except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
                self._connection.close()
                self._failed(nonce, type(error).__name__)
                return
            if answer.status == 200:
                settlement = decode_settlement(answer.headers["payment-response"])
                if not settlement.success or b"sky" not in answer.body:
                    self._failed(nonce, f"200 without goods or settlement: {settlement}")
                    return
                self._counted.seconds.append(time.perf_counter() - begun)
                self._counted.settled[nonce] = settlement.transaction
                return
            if answer.status not in _ASK_AGAIN or "payment-required" in answer.headers:
                self._failed(nonce, f"{answer.status} {answer.body[:200]!r}")
                return
            self._counted.presented_again += 1
            # A server closes connections that are idle for some seconds, as it may.
            self._connection.close()
            await asyncio.sleep(float(answer.headers.get("retry-after", "1")))
        self._failed(nonce, f"not settled after it was presented {PRESENTED_MAX} times")

    def _failed(self, nonce: bytes, why: str) -> None:
        self._counted.unsettled.add(nonce)
        self._counted.errors.append(why)

    def close(self) -> None:
        self._connection.close()


async def read_offer(town: SoakTown) -> ReceivedOffers:
    """Ask for the offer, as everybody does once."""
    connection = _Connection(town.host, town.port)
    try:
        answer = await connection.ask(request_bytes(PATH))
        return decode_payment_required(answer.headers["payment-required"])
    finally:
        connection.close()


async def buy_for(
    town: SoakTown, keys: list[PrivateKey], *, seconds: float, sample: Callable[[int], object], sample_seconds: float
) -> Counted:
    """Let every key buy again and again for so long; `sample` is told the purchases so far, from time to time."""
    counted = Counted()
    received = await read_offer(town)
    end = time.monotonic() + seconds

    async def live(key: PrivateKey) -> None:
        buyer = _Buyer(town, key, received, counted)
        try:
            while time.monotonic() < end:
                await buyer.buy()
        finally:
            buyer.close()

    async def watch() -> None:
        while True:
            await asyncio.sleep(sample_seconds)
            sample(counted.requests)

    watching = asyncio.create_task(watch())
    try:
        await asyncio.gather(*(live(key) for key in keys))
    finally:
        watching.cancel()
    return counted
