"""Commitments at the ASGI door: the work's answer is held until its head tells what it is, and goes out on record.

A body that comes whole is under the receipt with its digest; one that streams is on record before its first byte.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

from farthing.errors import RemoteProtocolError
from farthing.flow import Flow
from farthing.protocol.codec import HEADER_MAX_BYTES, decode_payment
from farthing.protocol.messages import PaymentPayload
from farthing.protocol.versions import CURRENT, RESPONSE_HEADERS
from farthing.seller.answers import Answer
from farthing.seller.conclude import succeeded
from farthing.seller.credit import (
    CreditTicket,
    CreditVerdict,
    OnCredit,
    admit_commitment,
    conclude_commitment,
    give_back,
    note_of,
)
from farthing.seller.headers import paid_headers
from farthing.seller.payment import Payment
from farthing.seller.repeats import Repeated, repeated
from farthing.seller.request import Request
from farthing.servers.asgi_wire import (
    HEADS_MAX,
    HeaderList,
    Message,
    RawHeaders,
    Replayed,
    Send,
    decoded,
    encoded,
    raw,
    send_answer,
)
from farthing.servers.edge import CREDIT_PREFIX
from farthing.signatures.keys import MessageSigner
from farthing.signatures.messages import HttpRequest, gather_fields, normal_authority

if TYPE_CHECKING:
    from farthing.servers.asgi import PaymentMiddleware
    from farthing.servers.edge import Edge
    from farthing.servers.seller import Seller


# Ours to say: a handler's would break the receipt, or another digest than the body's.
_OURS: Final = RESPONSE_HEADERS | {"signature", "signature-input", "content-digest"}


def commitment_in(request: Request) -> PaymentPayload | None:
    """Give the payment of a request if it is on credit; None where it is to be judged as all others."""
    if request.wire is not CURRENT or len(request.payments) != 1:
        return None
    # Of what Python calls space a signature base leaves out these two alone: with another, no reader of the line could.
    header = request.payments[0].strip(" \t")
    if len(header) > HEADER_MAX_BYTES:
        return None  # refused as any payment
    try:
        payment = decode_payment(header)
    except RemoteProtocolError:
        return None  # likewise
    return payment if payment.accepted.network.startswith(CREDIT_PREFIX) else None


def admit_on_credit(
    seller: Seller,
    edge: Edge,
    request: Request,
    payment: PaymentPayload,
    *,
    raw_path: str,
    pairs: Collection[tuple[str, str]],
    body: bytes,
) -> Flow[CreditVerdict]:
    """The flow before the work. The request is the one that was signed, under the public base of the configuration.

    `raw_path` is the path as it was sent, before anything was decoded; names in `pairs` are lower case.
    """
    scheme, authority, prefix = _base(seller.base_url)
    fields: dict[str, tuple[str, ...]] = {name: (value,) for name, value in pairs}
    if len(fields) < len(pairs):
        fields = gather_fields(pairs)
    message = HttpRequest(
        request.method,
        authority,
        prefix + raw_path,
        f"?{request.query}" if request.query else "",
        fields,
        scheme,
    )
    return admit_commitment(request, message, payment, body=body, keys=edge.known, networks=seller.networks)


def raw_path_of(scope: Any) -> str:
    """Give the path of an ASGI scope as it was sent."""
    raw: bytes | None = scope.get("raw_path")
    return quote(scope["path"]) if raw is None else raw.decode("latin-1")


@lru_cache(maxsize=64)
def _base(base_url: str) -> tuple[str, str, str]:
    base = urlsplit(base_url)
    return base.scheme, normal_authority(base.netloc, base.scheme), base.path


def given_back(verdict: CreditVerdict) -> Flow[None] | None:
    """Give a commitment back whose request was cancelled before its work began."""
    return give_back(verdict) if isinstance(verdict, CreditTicket) else None


def payment_of(ticket: CreditTicket) -> Payment:
    """What a handler may know of the payment."""
    signed = ticket.commitment.signed
    return Payment(
        payment_id=signed.payment_id,
        payer=signed.payer,
        pay_to=signed.pay_to,
        network=signed.network,
        asset=signed.asset,
        amount=signed.amount,
        requirements=ticket.requirements,
    )


def credit_headers(headers: HeaderList, ticket: CreditTicket, concluded: OnCredit) -> HeaderList:
    """Make the headers of an answer on credit: the handler's, private, with PAYMENT-RESPONSE and the receipt."""
    return (*_kept_headers(headers, ticket.shared_cache), *_our_headers(concluded))


def _our_headers(concluded: OnCredit) -> HeaderList:
    return (CURRENT.settlement_header(concluded.settlement), *concluded.headers)


def _kept_headers(headers: HeaderList, shared_cache: bool) -> HeaderList:  # noqa: FBT001 - part of a key
    kept = tuple(each for each in headers if each[0].lower() not in _OURS)
    return paid_headers(kept, settlement="", shared_cache=shared_cache)


# On most routes the same but for the length, as the heads of other paid answers are.
@lru_cache(maxsize=HEADS_MAX)
def _kept_head(headers: RawHeaders, shared_cache: bool) -> RawHeaders:  # noqa: FBT001 - a key
    return tuple(encoded(_kept_headers(decoded(headers), shared_cache)))


async def send_instead(door: PaymentMiddleware, answer: Answer, receive: Replayed, send: Send) -> None:
    """Send what is answered where no work is done: a refusal; or an earlier answer, noted as sent as a first one is."""
    again = isinstance(answer, Repeated) and not await receive.client_has_gone()
    await send_answer(send, answer)
    if again and isinstance(answer, Repeated):
        await door.drive(repeated(answer))


class HeldHead:
    """`send` for work on credit: nothing of a 2xx leaves before its commitment is durable."""

    def __init__(
        self, door: PaymentMiddleware, signer: MessageSigner, ticket: CreditTicket, receive: Replayed, send: Send
    ) -> None:
        """Stand before `send`; `signer` signs receipts."""
        self._door, self._signer, self._ticket = door, signer, ticket
        self._receive, self._send = receive, send
        self._start: Message | None = None
        self._begun = False
        self._passing = False
        self._over = False

    async def __call__(self, message: Message) -> None:
        """Take a message of the application."""
        kind = message["type"]
        if self._passing:
            await self._send(message)
        elif kind == "http.response.start" and self._start is None and not self._over:
            self._start = message
            if not succeeded(message["status"]):
                self._over = self._passing = True
                await self._door.drive(give_back(self._ticket))
                kept = [
                    each for each in message.get("headers", ()) if bytes(each[0]).decode("latin-1").lower() not in _OURS
                ]
                await self._send({**message, "headers": kept})
        elif kind == "http.response.body" and self._start is not None and not self._over:
            await self._body(message)

    async def _body(self, message: Message) -> None:
        last = not message.get("more_body", False)
        if not self._begun:
            body = message.get("body", b"")
            if not last and not body:
                return  # nothing to send yet, and nothing said of whether it streams
            self._begun = True
            if not await self._begin(bytes(body) if last else None):
                return
        if not last:
            await self._send(message)
            return
        self._over = True
        gone = await self._receive.client_has_gone()
        await self._send(message)
        if not gone:
            self._door.seller.performer.begin(note_of(self._ticket))

    async def _begin(self, whole: bytes | None) -> bool:
        """Put the commitment on record, and send the head; False where another answer went out instead."""
        start = self._start or {}
        conclusion = await self._door.drive(
            conclude_commitment(self._ticket, status=start["status"], body=whole, signer=self._signer, head=self._head)
        )
        if isinstance(conclusion, Answer):
            self._over = True
            await send_answer(self._send, conclusion)
            return False
        kept = _kept_head(raw(start.get("headers", ())), self._ticket.shared_cache)
        headers = [*kept, *encoded(_our_headers(conclusion))]
        await self._send({**start, "headers": headers, "trailers": False})
        return True

    def _head(self, concluded: OnCredit) -> HeaderList:
        start = self._start or {}
        return credit_headers(decoded(start.get("headers", ())), self._ticket, concluded)

    async def fail(self) -> None:
        """Give the commitment back where the work ended without an answer; one on record stays."""
        if not self._over and not self._begun:
            self._over = True
            await self._door.drive(give_back(self._ticket))
