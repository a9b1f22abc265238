"""A publisher that sells on credit: a real HTTP server on loopback, with its key directory, that can misbehave."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec

from farthing.mechanisms.batch_credit import (
    BatchCreditSeller,
    SignedCommitment,
    settlement_of,
    sign_receipt,
    verify_commitment,
)
from farthing.protocol.codec import pack_header, pack_payment_required
from farthing.protocol.messages import PaymentRequired, PaymentRequirements, ResourceInfo, SettlementResponse
from farthing.signatures import HttpRequest, PublicKey, SigningKey, content_digest, gather_fields
from farthing.world.directories import DirectoryServer

NETWORK = "clearing:demo"
AGENT_KEY = SigningKey(b"\7" * 32)
SELLER_KEY = SigningKey(b"\10" * 32)
OTHER_KEY = SigningKey(b"\11" * 32)
AGENT_ORIGIN = "https://crawler.example"
PAGE = b"<p>An article.</p>"


class Publisher:
    """What it sells, how it behaves, and what it saw. `mode` is how it answers what was paid for."""

    def __init__(self) -> None:
        self.amount = "2000"
        self.mode = "fine"
        self.served: list[SignedCommitment] = []
        self.seen: list[dict[str, tuple[str, ...]]] = []
        self.refused: list[object] = []
        self.unpaid = 0
        # Those of its offers.
        self.extensions: dict[str, Any] | None = None
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.authority = f"127.0.0.1:{self.server.server_port}"
        self.origin = f"http://{self.authority}"
        self.directory = DirectoryServer(self.authority, [SELLER_KEY])

    @property
    def offer(self) -> PaymentRequirements:
        offer = PaymentRequirements("batch-settlement", NETWORK, self.amount, "USD", "publisher-1", 60)
        return BatchCreditSeller().complete(offer)

    def required(self, url: str, error: str = "") -> str:
        resource, offers = ResourceInfo(url), (self.offer,)
        return pack_payment_required(PaymentRequired(resource, offers, error=error or None, extensions=self.extensions))


@contextlib.contextmanager
def publishing() -> Iterator[Publisher]:
    publisher = Publisher()
    thread = threading.Thread(target=publisher.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield publisher
    finally:
        publisher.server.shutdown()
        publisher.server.server_close()
        thread.join()


def keys(agent: str, key_id: str) -> PublicKey | None:
    ours = (agent, key_id) == (AGENT_ORIGIN, AGENT_KEY.public_key.thumbprint)
    return AGENT_KEY.public_key if ours else None


def _handler(publisher: Publisher) -> type[BaseHTTPRequestHandler]:  # noqa: C901 - one line a way to misbehave
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_args: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            self._serve(b"")

        def do_POST(self) -> None:
            self._serve(self.rfile.read(int(self.headers.get("Content-Length", "0"))))

        def _serve(self, body: bytes) -> None:
            directory = publisher.directory.answer("GET", self.path)
            if directory is not None:
                self._answer(directory[0], list(directory[1]), directory[2])
                return
            path, mark, query = self.path.partition("?")
            if path.startswith("/free/"):
                self._answer(200, [], PAGE)
                return
            fields = gather_fields(self.headers.items())
            request = HttpRequest(self.command, publisher.authority, path, mark + query, fields, "http")
            url = publisher.origin + self.path
            if "payment-signature" not in fields:
                publisher.unpaid += 1
                self._answer(402, [("PAYMENT-REQUIRED", publisher.required(url))], b"")
                return
            publisher.seen.append(fields)
            found = verify_commitment(
                request, offer=publisher.offer, keys=keys, now_seconds=int(time.time()), body=body
            )
            if not isinstance(found, SignedCommitment):
                publisher.refused.append(found)
                reason = getattr(found, "reason", "signature_agent_unknown")
                said = pack_header(
                    SettlementResponse(success=False, transaction="", network=NETWORK, error_reason=reason)
                )
                lines = [("PAYMENT-RESPONSE", said), ("PAYMENT-REQUIRED", publisher.required(url, reason))]
                self._answer(402, lines, b"")
                return
            publisher.served.append(found)
            self._paid(request, found)

        def _paid(self, request: HttpRequest, found: SignedCommitment) -> None:
            mode = publisher.mode
            if mode == "cut":
                self.connection.close()
                return
            if mode.startswith("http"):
                self._answer(302, [("Location", mode)], b"")
                return
            if mode == "fail":
                self._answer(500, [], b"")
                return
            settlement = settlement_of(found, now_seconds=int(time.time()))
            if mode == "other_id":
                settlement = msgspec.structs.replace(settlement, extra={"commitmentId": "sha256:" + "0" * 64})
            said = pack_header(settlement)
            lines, _ = sign_receipt(
                found,
                request,
                status=200,
                payment_response=said,
                signer=OTHER_KEY if mode == "other_key" else SELLER_KEY,
                now_seconds=int(time.time()) - (3600 if mode == "old" else 0),
                digest=content_digest(PAGE),
            )
            headers = [("PAYMENT-RESPONSE", said), ("Content-Digest", content_digest(PAGE)), *lines]
            if mode == "no_receipt":
                headers = headers[:2]
            if mode == "broken":
                label, value = headers[-1][1].split(":", 1)
                headers[-1] = ("Signature", f"{label}:{'B' if value[0] == 'A' else 'A'}{value[1:]}")
            self._answer(200, headers, PAGE)

        def _answer(self, status: int, lines: list[tuple[str, str]], body: bytes) -> None:
            self.send_response(status)
            for name, value in lines:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler
