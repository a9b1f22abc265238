"""A seller on a real socket that checks real signatures, and misbehaves on request. Its settlements are canned: what
was "transferred" is what `Shop.transfers` holds, once for each nonce, as a chain would.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec

from farthing.buyer import Policy
from farthing.clients import Buyer
from farthing.mechanisms.exact_evm import ExactEvmSeller
from farthing.mechanisms.interface import SignedPayment
from farthing.networks import KNOWN
from farthing.protocol.codec import decode_payment, pack_header
from farthing.protocol.messages import (
    PaymentPayload,
    PaymentRequired,
    PaymentRequirements,
    ResourceInfo,
    SettlementResponse,
)
from farthing.world.keys import LocalSigner

NETWORK = "eip155:84532"
USDC = "0x036CbD53842c5426634e7929541eC2318f3dCF7e"
PAYEE = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"
SIGNER = LocalSigner(b"\x01" * 32)
SELLER = ExactEvmSeller(KNOWN)

# What a shop does with a paid request: writes the answer, by the handler, for the payment.
Behaviour = Callable[["Handler", SignedPayment], None]


def offer(amount: int = 10_000, **changes: Any) -> PaymentRequirements:
    """One way to pay, as the seller's face completes it."""
    facts: dict[str, Any] = {
        "scheme": "exact", "network": NETWORK, "amount": str(amount), "asset": USDC, "pay_to": PAYEE,
        "max_timeout_seconds": 60, "extra": {"name": "USDC", "version": "2"},
    }  # fmt: skip
    return PaymentRequirements(**facts | changes)


def required(*offers: PaymentRequirements, error: str = "", **more: Any) -> str:
    """The PAYMENT-REQUIRED header of these offers."""
    resource = ResourceInfo("https://shop.example/thing")
    return pack_header(PaymentRequired(resource, offers, error=error or None, **more))


def response(*, success: bool = True, transaction: str = "0x" + "ab" * 32, network: str = NETWORK, **more: Any) -> str:
    """A PAYMENT-RESPONSE header."""
    return pack_header(SettlementResponse(success=success, transaction=transaction, network=network, **more))


class Seen(msgspec.Struct):
    """One request as the shop saw it."""

    method: str
    path: str
    payment: str | None
    body: bytes
    connection: int


class Handler(BaseHTTPRequestHandler):
    """Serves one connection."""

    protocol_version = "HTTP/1.1"
    payment_header = "PAYMENT-SIGNATURE"
    shop: Shop

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Keep quiet."""

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Write a whole answer; `payment_response="…"` is the header PAYMENT-RESPONSE."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def serve(self) -> None:
        """Serve a request: free, 402, or paid."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "chunked" in (self.headers.get("Transfer-Encoding") or ""):
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        payment = self.headers.get(self.payment_header)
        path = self.path.partition("?")[0]
        with self.shop.lock:
            self.shop.seen.append(Seen(self.command, self.path, payment, body, self.client_address[1]))
        if path in self.shop.plain:
            status, headers, content = self.shop.plain[path]
            self.answer(status, content, **headers)
        elif payment is None:
            self.demand(path)
        else:
            self._paid(path, payment)

    def demand(self, path: str) -> None:
        """Offer."""
        headers = {"PAYMENT_REQUIRED": required(*self.shop.offers.get(path, (offer(),)))}
        self.answer(402, b"{}", **headers)

    def decode(self, path: str, payment: str) -> PaymentPayload:
        """Read a payment, which must accept an offer of ours."""
        decoded = decode_payment(payment)
        assert decoded.accepted in self.shop.offers.get(path, (offer(),))
        return decoded

    def _paid(self, path: str, payment: str) -> None:
        decoded = self.decode(path, payment)
        signed = SELLER.read(decoded)
        refusal = SELLER.check(signed, decoded.accepted, now_seconds=int(time.time()))
        if refusal is not None:
            self.answer(402, b"{}", PAYMENT_REQUIRED=required(offer(), error=refusal.reason))
            return
        self.shop.behaviours.get(path, settle)(self, signed)

    do_GET = do_POST = do_HEAD = do_PUT = serve  # noqa: N815 - the base class's names


class Shop(ThreadingHTTPServer):
    """The server, its offers and behaviours by path, and what it saw and was paid."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, handler: type[Handler] = Handler) -> None:
        """Listen on a free port."""
        super().__init__(("127.0.0.1", 0), type("BoundHandler", (handler,), {"shop": self}))
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.offers: dict[str, tuple[PaymentRequirements, ...]] = {}
        self.behaviours: dict[str, Behaviour] = {}
        self.plain: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.seen: list[Seen] = []
        self.transfers: dict[str, int] = {}
        self.network = NETWORK
        # Behaviours that hang wait for it.
        self.stopped = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""

    def transfer(self, signed: SignedPayment) -> None:
        """Move the money, once for each nonce."""
        with self.lock:
            self.transfers[signed.payment_id] = signed.amount

    def paid(self) -> list[str]:
        """The payment headers that came, in their order."""
        return [each.payment for each in self.seen if each.payment]


def settle(handler: Handler, signed: SignedPayment) -> None:
    """Take the money and serve."""
    handler.shop.transfer(signed)
    handler.answer(200, b"the goods", PAYMENT_RESPONSE=response(payer=signed.payer, network=handler.shop.network))


def cut(handler: Handler, signed: SignedPayment) -> None:
    """Take the money, and cut the connection."""
    handler.shop.transfer(signed)
    handler.close_connection = True
    handler.connection.shutdown(2)


def answering(status: int, body: bytes = b"", **headers: str) -> Behaviour:
    """Answer this, whatever was paid; no money moves."""
    return lambda handler, _signed: handler.answer(status, body, **headers)


@contextlib.contextmanager
def open_shop(handler: type[Handler] = Handler) -> Iterator[Shop]:
    """Run a shop in a thread."""
    shop = Shop(handler)
    thread = threading.Thread(target=shop.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield shop
    finally:
        shop.stopped.set()
        shop.shutdown()
        shop.server_close()


def make_buyer(path: Path, **policy: Any) -> Buyer:
    """A buyer with a journal under `path`, whose policy is generous unless told otherwise."""
    limits: dict[str, Any] = {"networks": [NETWORK], "per_request": "$1", "total": "$100"}
    return Buyer(signer=SIGNER, policy=Policy(**limits | policy), journal=path / "journal.sqlite")
