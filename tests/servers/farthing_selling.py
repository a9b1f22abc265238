"""What the seller's tests share: a buyer that signs for real, a canned facilitator, and bare ASGI and WSGI clients."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

from farthing.evm.signatures import PrivateKey
from farthing.evm.signing import SignTypedData
from farthing.flow import Now, RandomBytes, drive
from farthing.mechanisms.exact_evm import ExactEvmBuyer, ExactEvmSeller
from farthing.mechanisms.interface import SignedPayment
from farthing.networks import KNOWN, Networks
from farthing.protocol.codec import decode_payment, decode_payment_required, encode_payment
from farthing.protocol.facilitator import Outcome, PaymentStatus, Settled
from farthing.protocol.messages import (
    PaymentPayload,
    PaymentRequirements,
    SettlementResponse,
    SupportedKind,
    SupportedResponse,
    VerifyResponse,
)
from farthing.seller.request import Request
from farthing.seller.states import PaymentFlow, State
from farthing.seller.store import Claim, MakeClaim
from farthing.servers.asgi import PaymentMiddleware
from farthing.servers.seller import Seller
from farthing.servers.wsgi import PaidWSGI

PAY_TO = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"
NETWORK = "eip155:84532"
BASE_URL = "https://api.example.com"
TRANSACTION = "0x" + "ab" * 32
KEY = PrivateKey(bytes.fromhex("11" * 32))


class CannedFacilitator:
    """Answers as it was told, and counts. `outcomes` are taken in turn; the last one stays."""

    def __init__(self) -> None:
        self.verdict: VerifyResponse | Exception = VerifyResponse(is_valid=True)
        self.outcomes: list[Outcome | Exception] = []
        self.found: PaymentStatus | Exception | None = None
        self.extensions: tuple[str, ...] = ()
        self.verified = 0
        self.settled: list[tuple[str, PaymentRequirements]] = []
        self.finds = 0
        self.on_settle: Callable[[], None] = lambda: None
        self.hold: asyncio.Event | None = None

    async def supported(self) -> SupportedResponse:
        return SupportedResponse(kinds=(SupportedKind("exact", NETWORK),), extensions=self.extensions)

    async def verify(self, payment: PaymentPayload, requirements: PaymentRequirements) -> VerifyResponse:
        self.verified += 1
        await asyncio.sleep(0)
        if isinstance(self.verdict, Exception):
            raise self.verdict
        return self.verdict

    async def settle(
        self, payment: PaymentPayload, requirements: PaymentRequirements, *, idempotency_key: str
    ) -> Outcome:
        self.settled.append((idempotency_key, requirements))
        self.on_settle()
        if self.hold is not None:
            await self.hold.wait()
        if not self.outcomes:
            return success(requirements)
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def find(self, payment_id: str) -> PaymentStatus | None:
        self.finds += 1
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


def success(requirements: PaymentRequirements | None = None, transaction: str = TRANSACTION) -> Settled:
    network = NETWORK if requirements is None else requirements.network
    return Settled(SettlementResponse(success=True, transaction=transaction, network=network))


def found(requirements: PaymentRequirements, state: str, transaction: str = TRANSACTION) -> PaymentStatus:
    return PaymentStatus(
        payment_id="",
        state=state,
        network=requirements.network,
        asset=requirements.asset,
        payer=KEY.address,
        pay_to=requirements.pay_to,
        amount=requirements.amount,
        transaction=transaction,
        reason="invalid_transaction_state" if state == "refused" else "",
    )


def make_seller(folder: Path, facilitator: Any, **options: Any) -> Seller:
    settings: dict[str, Any] = {"pay_to": PAY_TO, "network": NETWORK, "base_url": BASE_URL} | options
    store = settings.pop("store", folder / "seller.sqlite")
    return Seller(facilitator=facilitator, store=store, **settings)


def sign(
    required: str,
    *,
    index: int = 0,
    nonce: bytes | None = None,
    with_resource: bool = True,
    networks: Networks = KNOWN,
) -> str:
    """Pay the offer of a PAYMENT-REQUIRED header, for real; gives the value of PAYMENT-SIGNATURE."""
    offers = decode_payment_required(required)
    offer = offers.offers[index]

    def perform(effect: Any) -> Any:
        if isinstance(effect, Now):
            return int(time.time())
        if isinstance(effect, RandomBytes):
            return os.urandom(effect.size_bytes)
        assert isinstance(effect, SignTypedData)
        return KEY.sign_typed_data(effect.message)

    prepared = drive(ExactEvmBuyer(networks).pay(offer.requirements, payer=address(), nonce=nonce), perform)
    payment = encode_payment(
        accepted=offer.raw,
        payload=prepared.payload,
        resource=offers.resource_raw if with_resource else None,
        extensions=None,
    )
    return base64.b64encode(payment).decode()


def address() -> str:
    return KEY.address


def unpack(header: str) -> Any:
    return json.loads(base64.b64decode(header))


def pack(message: Any) -> str:
    return base64.b64encode(json.dumps(message).encode()).decode()


@dataclass
class Got:
    """An answer, as it went over the wire."""

    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    messages: list[dict[str, Any]] = field(default_factory=list)
    complete: bool = False

    def header(self, name: str) -> str:
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        return ", ".join(values)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Headers = Iterable[tuple[str, str]]


def scope_of(
    method: str, target: str, headers: Headers = (), *, root_path: str = "", body: bytes = b"", **more: Any
) -> dict[str, Any]:
    """Make the scope that uvicorn makes of a request line's target."""
    raw_path, _, query = target.partition("?")
    pairs = [("host", "elsewhere.example"), *headers]
    if body:
        pairs.append(("content-length", str(len(body))))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": root_path + unquote_to_bytes(raw_path).decode("utf-8", "replace"),
        "raw_path": (root_path + raw_path).encode("latin-1", "replace"),
        "query_string": query.encode("latin-1"),
        "root_path": root_path,
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in pairs],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        **more,
    }


async def acall(
    app: Any,
    method: str,
    target: str,
    headers: Headers = (),
    *,
    body: bytes = b"",
    root_path: str = "",
    gone: asyncio.Event | None = None,
    **more: Any,
) -> Got:
    """Send one request to an ASGI application."""
    got = Got()
    sent = False
    over = asyncio.Event()

    async def receive() -> dict[str, Any]:
        nonlocal sent
        if not sent:
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}
        await (gone or over).wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        got.messages.append(message)
        if message["type"] == "http.response.start":
            got.status = message["status"]
            got.headers = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in message["headers"]]
        elif message["type"] == "http.response.body":
            got.body += message.get("body", b"")
            if not message.get("more_body", False):
                got.complete = True
                over.set()

    await app(scope_of(method, target, headers, root_path=root_path, body=body, **more), receive, send)
    return got


def call(app: Any, method: str, target: str, headers: Headers = (), **options: Any) -> Got:
    return asyncio.run(acall(app, method, target, headers, **options))


def wcall(app: Any, method: str, target: str, headers: Headers = (), *, body: bytes = b"", root_path: str = "") -> Got:
    """Send one request to a WSGI application."""
    raw_path, _, query = target.partition("?")
    got = Got()
    written: list[bytes] = []
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": root_path,
        "PATH_INFO": unquote_to_bytes(raw_path).decode("latin-1"),
        "QUERY_STRING": query,
        "SERVER_NAME": "elsewhere.example",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "elsewhere.example",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    if body:
        environ["CONTENT_LENGTH"] = str(len(body))
    for name, value in headers:
        key = "HTTP_" + name.upper().replace("-", "_")
        environ[key] = f"{environ[key]},{value}" if key in environ else value

    def start_response(status: str, head: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], None]:
        got.status, got.headers = int(status[:3]), list(head)
        return written.append

    iterable = app(environ, start_response)
    try:
        for chunk in iterable:
            written.append(chunk)
            got.messages.append({"type": "http.response.body", "body": chunk})
        got.complete = True
    finally:
        close = getattr(iterable, "close", None)
        if close is not None:
            close()
    got.body = b"".join(written)
    return got


def buy(app: Any, method: str, target: str, *, caller: Any = call, **options: Any) -> Got:
    """Ask, pay what is asked, ask again."""
    offer = caller(app, method, target, **options)
    assert offer.status == 402, (offer.status, offer.body)
    got: Got = caller(app, method, target, [("PAYMENT-SIGNATURE", sign(offer.header("payment-required")))], **options)
    return got


class Work:
    """What an application answers, in either protocol; counts how often it ran and what it was paid with."""

    def __init__(self) -> None:
        self.ran = 0
        self.status = 200
        self.headers: list[tuple[str, str]] = [("content-type", "text/plain")]
        self.chunks: list[bytes] = [b"sun", b"ny"]
        self.error: BaseException | None = None
        self.error_after = -1
        self.payments: list[Any] = []
        self.bodies: list[bytes] = []
        self.on_run: Callable[[], None] = lambda: None

    async def asgi(self, scope: Any, receive: Any, send: Any) -> None:
        self.ran += 1
        self.payments.append(scope.get("farthing.payment"))
        self.bodies.append((await receive())["body"])
        self.on_run()
        if self.error is not None and self.error_after < 0:
            raise self.error
        headers = [(name.encode(), value.encode("latin-1")) for name, value in self.headers]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        for index, chunk in enumerate(self.chunks):
            if self.error is not None and index == self.error_after:
                raise self.error
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def wsgi(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        self.ran += 1
        self.payments.append(environ.get("farthing.payment"))
        self.bodies.append(environ["wsgi.input"].read())
        self.on_run()
        if self.error is not None and self.error_after < 0:
            raise self.error
        start_response(f"{self.status} Whatever", self.headers)
        for index, chunk in enumerate(self.chunks):
            if self.error is not None and index == self.error_after:
                raise self.error
            yield chunk


class Shop:
    """A seller behind one of the two doors."""

    def __init__(self, kind: str, seller: Any, facilitator: Any) -> None:
        self.kind, self.seller, self.facilitator, self.work = kind, seller, facilitator, Work()
        self.door: Any = (
            PaymentMiddleware(self.work.asgi, seller=seller) if kind == "asgi" else PaidWSGI(self.work.wsgi, seller)
        )

    def send(self, method: str, target: str, headers: Headers = (), **options: Any) -> Got:
        caller: Callable[..., Got] = call if self.kind == "asgi" else wcall
        got: Got = caller(self.door, method, target, headers, **options)
        return got

    def pay(self, method: str, target: str, **options: Any) -> list[tuple[str, str]]:
        """Sign for the offer, and give the header."""
        offer = self.send(method, target)
        assert offer.status == 402, (offer.status, offer.body)
        return [("PAYMENT-SIGNATURE", sign(offer.header("payment-required"), **options))]

    def buy(self, method: str, target: str, **options: Any) -> Got:
        return self.send(method, target, self.pay(method, target), **options)

    @property
    def states(self) -> list[str]:
        self.seller.store.flush()
        return [str(row.state) for row in self.seller.store.payments()]

    def expire_leases(self) -> None:
        """Do what time does."""
        self._write("UPDATE seller_state SET lease_until = 0")

    def expire_window(self) -> None:
        """Do what more time does."""
        self._write("UPDATE seller_claim SET valid_before = 0")

    def _write(self, sql: str) -> None:
        self.seller.store._database.submit(lambda connection: connection.execute(sql)).result()


def pack_raw(data: bytes) -> str:
    return base64.b64encode(data).decode()


def replaced(status: PaymentStatus, **changes: Any) -> PaymentStatus:
    return msgspec.structs.replace(status, **changes)


def read(header: str) -> SignedPayment:
    return ExactEvmSeller().read(decode_payment(header))


def claim_of(signed: SignedPayment, seller: Any, method: str, target: str) -> MakeClaim:
    """Claim as a process does that crashes in its handler right after."""
    request = Request(
        method=method,
        path=target,
        query="",
        url=BASE_URL + target,
        route=seller.routes.routes[0],
        params={},
        headers={},
    )
    return MakeClaim(
        Claim(
            payment_id=signed.payment_id,
            fingerprint=signed.fingerprint,
            request_print=request.print,
            state=State.CLAIMED,
            lease_until=2**40,
            valid_before=signed.valid_before,
            flow=PaymentFlow.AUTHORIZATION,
            idempotent=method == "GET",
            stores_response=True,
            network=signed.network,
            asset=signed.asset,
            payer=signed.payer,
            pay_to=signed.pay_to,
            amount=signed.amount,
            resource=request.url,
            claimed_at=0,
        )
    )


def payment_for(shop: Any) -> Any:
    return unpack(shop.pay("GET", "/weather/paris")[0][1])


def paths_of(payment: Any, prefix: str = "") -> Iterable[str]:
    for key, value in payment.items():
        yield prefix + key
        if isinstance(value, dict):
            yield from paths_of(value, prefix + key + ".")
