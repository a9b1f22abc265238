"""The work of the CPU benches: one offer, many payments by different payers, and a node's canned answers."""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import msgspec

from farthing.evm.node import AskNode
from farthing.evm.signatures import PrivateKey
from farthing.evm.signing import SignTypedData
from farthing.flow import Effect, Now, RandomBytes, drive
from farthing.mechanisms.exact_evm import ExactEvmBuyer
from farthing.protocol.codec import encode_json, encode_payment, pack_payment_required
from farthing.protocol.messages import PaymentRequired, PaymentRequirements, ResourceInfo

# More than any cache of signatures remembers: no payment is ever met again, as in life.
PAYERS = 4096

OFFER = PaymentRequirements(
    scheme="exact",
    network="eip155:84532",
    amount="10000",
    asset="0x036CbD53842c5426634e7929541eC2318f3dCF7e",
    pay_to="0x209693Bc6afc0C5328bA36FaF03C514EF312287C",
    max_timeout_seconds=60,
    extra={"name": "USDC", "version": "2"},
)
RESOURCE = ResourceInfo(
    url="https://api.example.com/premium-data",
    description="Access to premium market data",
    mime_type="application/json",
)
CHAIN_ID = 84532


class Purchase(NamedTuple):
    """A payment as it stands on the wire, and the digest and signature in it."""

    payment_json: bytes
    digest: bytes
    signature: bytes


def key(index: int) -> PrivateKey:
    """The key of payer `index`: worth nothing, and the same in every run."""
    return PrivateKey(hashlib.sha256(f"farthing bench {index}".encode()).digest())


def offer_header() -> str:
    """The header of the 402."""
    return pack_payment_required(PaymentRequired(resource=RESOURCE, accepts=(OFFER,)))


def purchases(
    count: int, now_seconds: int, *, first: int = 0, offer: PaymentRequirements = OFFER, payers: int | None = None
) -> list[Purchase]:
    """Make `count` payments of `offer`, signed at `now_seconds`; `first` is the number of the first one.

    Each is by another payer, or by one of `payers` in turn.
    """
    accepted, resource = msgspec.Raw(encode_json(offer)), msgspec.Raw(encode_json(RESOURCE))
    buyer = ExactEvmBuyer()
    made: list[Purchase] = []
    for index in range(first, first + count):
        signer = key(index if payers is None else index % payers)
        nonce = hashlib.sha256(f"nonce {index}".encode()).digest()
        signed: list[bytes] = []

        def perform(effect: Effect[Any], signer: PrivateKey = signer, signed: list[bytes] = signed) -> Any:
            if isinstance(effect, Now):
                return now_seconds
            assert isinstance(effect, SignTypedData)
            digest = effect.message.digest()
            signed.extend((digest, signer.sign_digest(digest)))
            return signed[1]

        prepared = drive(buyer.pay(offer, payer=signer.address, nonce=nonce), perform)
        text = encode_payment(accepted=accepted, payload=prepared.payload, resource=resource, extensions=None)
        made.append(Purchase(text, signed[0], signed[1]))
    return made


def node_answers(now_seconds: int) -> tuple[Any, ...]:
    """What a node answers to the verification of a good payment: the JSON results, in the order of the calls."""
    word = "0x" + (10**9).to_bytes(32, "big").hex()
    return (
        hex(CHAIN_ID),
        "0x",
        word,
        "0x" + bytes(32).hex(),
        "0x",
        {"number": "0x1406f40", "timestamp": hex(now_seconds - 1), "baseFeePerGas": "0x4c4b40"},
    )


__all__ = [
    "CHAIN_ID",
    "OFFER",
    "PAYERS",
    "RESOURCE",
    "AskNode",
    "Purchase",
    "RandomBytes",
    "key",
    "node_answers",
    "offer_header",
    "purchases",
]
