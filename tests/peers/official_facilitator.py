"""A facilitator made from PyPI `x402`, the way to it that loses an answer when told, and payments made for it."""

from __future__ import annotations

import asyncio
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Literal

import httpx
import msgspec
import peers
from fastapi import FastAPI
from x402 import x402Facilitator
from x402.http.utils import decode_payment_required_header, encode_payment_signature_header
from x402.mechanisms.evm import FacilitatorWeb3Signer
from x402.mechanisms.evm.exact import register_exact_evm_facilitator
from x402.schemas import PaymentRequirements, parse_payment_payload

if TYPE_CHECKING:
    from tests.local_services import LocalServices, Wallet
    from tests.peers.peers import Shop

HOST = "127.0.0.1"
FUNDS = "invalid_exact_evm_insufficient_balance"
SIGNATURE = "invalid_exact_evm_payload_signature"
EXPIRED = "invalid_exact_evm_payload_authorization_valid_before"


class Official(msgspec.Struct):
    """The official facilitator on a socket: where it is, and what it said, as endpoint and reason."""

    url: str = ""
    said: list[tuple[str, str]] = msgspec.field(default_factory=list)


def serve_official(local: LocalServices) -> Official:
    """Serve the official facilitator, with a signer on the devnet, as its own example does."""
    official = Official()
    facilitator = x402Facilitator()
    signer = FacilitatorWeb3Signer(private_key=local.wallet(eth="10").key, rpc_url=local.devnet.url)
    register_exact_evm_facilitator(facilitator, signer, networks=local.devnet.network)
    app = FastAPI()

    @app.post("/verify")
    async def verify(body: dict[str, Any]) -> dict[str, Any]:
        requirements = PaymentRequirements.model_validate(body["paymentRequirements"])
        answer = await facilitator.verify(parse_payment_payload(body["paymentPayload"]), requirements)
        official.said.append(("/verify", answer.invalid_reason or ""))
        return answer.model_dump(by_alias=True, exclude_none=True)

    @app.post("/settle")
    async def settle(body: dict[str, Any]) -> dict[str, Any]:
        requirements = PaymentRequirements.model_validate(body["paymentRequirements"])
        answer = await facilitator.settle(parse_payment_payload(body["paymentPayload"]), requirements)
        official.said.append(("/settle", answer.error_reason or ""))
        return answer.model_dump(by_alias=True, exclude_none=True)

    @app.get("/supported")
    async def supported() -> dict[str, Any]:
        return facilitator.get_supported().model_dump(by_alias=True, exclude_none=True)

    official.url = local.serve(lambda _url: app)
    return official


def shop_of(local: LocalServices, name: str, facilitator_url: str) -> Shop:
    """Our seller with that facilitator behind it."""
    flow = "upfront" if "upfront" in name else "authorization"
    shop: Shop = peers.our_shop(local, wsgi="WSGI" in name, payment_flow=flow, facilitator_url=facilitator_url)
    return shop


def signed(shop: Shop, wallet: Wallet, *, window_seconds: int | None = None, spoilt: bool = False) -> str:
    """A payment for the shop's offer as its header, signed by the official client; with another window, or spoilt."""

    async def story() -> str:
        async with httpx.AsyncClient() as http:
            required = decode_payment_required_header((await http.get(shop.report)).headers["payment-required"])
        (offer,) = required.accepts
        lifetime_seconds = offer.max_timeout_seconds
        offer.max_timeout_seconds = lifetime_seconds if window_seconds is None else window_seconds
        payload = await peers.official_client(wallet).create_payment_payload(required)
        payload.accepted.max_timeout_seconds = lifetime_seconds
        if spoilt:
            signature = payload.payload["signature"]
            payload.payload["signature"] = signature[:20] + ("1" if signature[20] == "0" else "0") + signature[21:]
        return str(encode_payment_signature_header(payload))

    return asyncio.run(story())


class Way(msgspec.Struct):
    """The way to the official facilitator, which loses one answer to `/settle` when it is told to."""

    url: str = ""
    settlements: int = 0
    lose: Literal["", "the whole answer", "half of the answer"] = ""


def way_to(local: LocalServices, official: Official) -> Way:
    """Open a way to the facilitator: it passes everything on, and counts what is to be settled."""
    way = Way()

    class Passing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._pass(httpx.get(official.url + self.path))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            kind = {"Content-Type": "application/json"}
            answer = httpx.post(official.url + self.path, content=body, headers=kind, timeout=peers.TIMEOUT_SECONDS)
            losing = ""
            if self.path == "/settle":
                way.settlements += 1
                losing, way.lose = way.lose, ""
            self._pass(answer, losing)

        def _pass(self, answer: httpx.Response, losing: str = "") -> None:
            self.close_connection = True
            if losing != "the whole answer":
                self.send_response(answer.status_code)
                self.send_header("Content-Type", answer.headers["content-type"])
                self.send_header("Content-Length", str(len(answer.content)))
                self.end_headers()
                self.wfile.write(answer.content[: len(answer.content) // (2 if losing else 1)])
            if losing:
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)

        def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002 - its name there

    server = ThreadingHTTPServer((HOST, 0), Passing)
    local.at_end(server.server_close)
    local.at_end(server.shutdown)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    way.url = f"http://{HOST}:{server.server_address[1]}"
    return way
