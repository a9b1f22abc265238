"""A purchase of `exact` on EVM for the tests of its faces: an offer, a signed payment, a node with canned answers."""

from __future__ import annotations

from typing import Any

import msgspec

from farthing.evm.node import AskNode
from farthing.evm.signatures import PrivateKey
from farthing.evm.signing import SignTypedData
from farthing.evm.typed_data import Domain
from farthing.flow import Effect, Now, RandomBytes, drive
from farthing.mechanisms.exact_evm import ExactEvmBuyer, ExactEvmFacilitator
from farthing.mechanisms.exact_evm.payload import ExactDetail, write_payload
from farthing.mechanisms.interface import PreparedPayment, SignedPayment, Verification
from farthing.protocol.codec import decode_payment_json, encode_json, encode_payment
from farthing.protocol.messages import PaymentPayload, PaymentRequirements

KEY = PrivateKey(b"\x21" * 32)
NOW = 1_800_000_000
NONCE = b"\x33" * 32
OFFER = PaymentRequirements(
    scheme="exact",
    network="eip155:84532",
    amount="10000",
    asset="0x036CbD53842c5426634e7929541eC2318f3dCF7e",
    pay_to="0x209693Bc6afc0C5328bA36FaF03C514EF312287C",
    max_timeout_seconds=60,
    extra={"name": "USDC", "version": "2"},
)


def word(number: int) -> str:
    return "0x" + number.to_bytes(32, "big").hex()


def block(**changes: Any) -> dict[str, Any]:
    return {"number": "0x10", "timestamp": hex(NOW - 1), "baseFeePerGas": "0x5"} | changes


class Node:
    """Canned answers to one verification, by what is asked; records what was asked."""

    def __init__(self, **answers: Any) -> None:
        self.answers: dict[str, Any] = {
            "chain_id": hex(84532),
            "code": "0x",
            "balance": word(10_000),
            "used": word(0),
            "simulation": "0x",
            "block": block(),
            "gas": hex(80_000),
            # Asked only where a deployment comes with the signature (ERC-6492).
            "rehearsal": "0x",
            "deploying_gas": hex(240_000),
        } | answers
        self.batches: list[AskNode] = []
        self.now = NOW

    def perform(self, effect: Effect[Any]) -> Any:
        if isinstance(effect, Now):
            return self.now
        if isinstance(effect, RandomBytes):
            return NONCE[: effect.size_bytes]
        if isinstance(effect, SignTypedData):
            return KEY.sign_typed_data(effect.message)
        assert isinstance(effect, AskNode)
        self.batches.append(effect)
        return tuple(self.answers.values())[: len(effect.calls)]


def prepare(offer: PaymentRequirements = OFFER) -> PreparedPayment:
    return drive(ExactEvmBuyer().pay(offer, payer=KEY.address, nonce=None), Node().perform)


def payload_of(payload: Any, accepted: PaymentRequirements = OFFER) -> PaymentPayload:
    raw = msgspec.Raw(encode_json(accepted))
    return decode_payment_json(encode_payment(accepted=raw, payload=payload, resource=None, extensions=None))


def resign(signed: SignedPayment, *, key: PrivateKey = KEY, **changes: Any) -> SignedPayment:
    """Sign changed members of the authorisation anew, so that only the change is at fault."""
    detail = signed.detail
    assert isinstance(detail, ExactDetail)
    message = msgspec.structs.replace(detail.message, **changes)
    domain = Domain("USDC", "2", detail.chain_id, detail.token)
    changed = msgspec.structs.replace(detail, message=message, signature=key.sign_typed_data(message.bind(domain)))
    return msgspec.structs.replace(signed, detail=changed)


def verify(
    payment: PaymentPayload,
    requirements: PaymentRequirements = OFFER,
    node: Node | None = None,
    *,
    settling: bool = False,
) -> Verification:
    return drive(ExactEvmFacilitator().verify(payment, requirements, settling=settling), (node or Node()).perform)


def verify_signed(signed: SignedPayment, node: Node | None = None) -> Verification:
    return verify(payload_of(write_payload(signed.detail)), OFFER, node)


def refusal(found: Verification) -> tuple[str, str]:
    assert not found.response.is_valid
    assert found.response.payer == KEY.address
    return found.response.invalid_reason or "", found.response.invalid_message or ""


GOOD = prepare()
PAYMENT = payload_of(GOOD.payload)
