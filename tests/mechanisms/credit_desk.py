"""An agent that pays on credit, an offer, and the requests that it signs: shared by the tests of `batch_credit`."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from farthing.flow import Effect, Now, drive
from farthing.mechanisms.batch_credit import (
    Agent,
    BatchCreditBuyer,
    BatchCreditSeller,
    SignedCommitment,
    verify_commitment,
)
from farthing.mechanisms.interface import BoundPayment, RequestToBind
from farthing.protocol.codec import (
    decode_payment_required,
    encode_payment,
    pack_json,
    pack_payment_required,
)
from farthing.protocol.messages import PaymentRequired, PaymentRequirements, ResourceInfo
from farthing.signatures import HttpRequest, PublicKey, SignData, SigningKey, gather_fields

NOW = 1_800_000_000
NETWORK = "clearing:demo"
AGENT_KEY = SigningKey(b"\7" * 32)
SELLER_KEY = SigningKey(b"\10" * 32)
AGENT = Agent("https://crawler.example", AGENT_KEY.public_key.thumbprint)
BUYER = BatchCreditBuyer(AGENT)
URL = "https://publisher.example/articles/1?page=2"
OFFER = BatchCreditSeller(clearing_house="https://clearing.example").complete(
    PaymentRequirements("batch-settlement", NETWORK, "2000", "USD", "publisher-1", 300)
)


def perform(effect: Effect[Any]) -> Any:
    if isinstance(effect, Now):
        return NOW
    assert isinstance(effect, SignData)
    assert effect.key_id == AGENT_KEY.public_key.thumbprint
    return AGENT_KEY.sign(effect.data)


def keys(agent: str, key_id: str) -> PublicKey | None:
    known = {(AGENT.origin, AGENT.key_id): AGENT_KEY.public_key}
    return known.get((agent, key_id))


def payment_header(offer: PaymentRequirements = OFFER, *, url: str = URL, amount: str = "", asset: str = "") -> str:
    received = decode_payment_required(pack_payment_required(PaymentRequired(ResourceInfo(url), (offer,))))
    payload = drive(BUYER.pay(offer, payer="", nonce=bytes(32)), perform).payload
    if amount or asset:
        payload = msgspec.structs.replace(payload, amount=amount or offer.amount, asset=asset or offer.asset)
    return pack_json(
        encode_payment(
            accepted=received.offers[0].raw, payload=payload, resource=received.resource_raw, extensions=None
        )
    )


def commit(
    *,
    offer: PaymentRequirements = OFFER,
    method: str = "GET",
    url: str = URL,
    body: bytes = b"",
    nonce: bytes = bytes(32),
    header: str | None = None,
) -> tuple[HttpRequest, BoundPayment]:
    """Have a request signed as the buyer does: the request as the seller sees it, and what the buyer keeps."""
    prepared = drive(BUYER.pay(offer, payer="", nonce=nonce), perform)
    header = payment_header(offer, url=url) if header is None else header
    digest = hashlib.sha256(body).hexdigest() if body else ""
    bound = drive(BUYER.bind(prepared, offer, RequestToBind(method, url, digest), payment_header=header), perform)
    scheme, _, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    path, mark, query = (slash + path).partition("?")
    lines = [("PAYMENT-SIGNATURE", header), *bound.headers]
    return HttpRequest(method, authority, path, mark + query, gather_fields(lines), scheme), bound


def taken(**said: Any) -> tuple[HttpRequest, SignedCommitment]:
    """A commitment that the edge has verified."""
    request, _ = commit(**said)
    found = verify_commitment(request, offer=said.get("offer", OFFER), keys=keys, now_seconds=NOW)
    assert isinstance(found, SignedCommitment), found
    return request, found
