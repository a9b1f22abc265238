"""Verification: is a payment good, by its mechanism, by this facilitator's desk, and by the chain. Commits nothing."""

from __future__ import annotations

from typing import Final

from farthing.errors import RemoteProtocolError
from farthing.facilitator.desk import Desk
from farthing.flow import Flow
from farthing.mechanisms.interface import FacilitatorMechanism, Refusal, Verification
from farthing.protocol.messages import PaymentPayload, PaymentRequirements, VerifyResponse

# Codes of the specification, section 9.
INVALID_NETWORK: Final = "invalid_network"
INVALID_PAYLOAD: Final = "invalid_payload"
INVALID_PAYMENT_REQUIREMENTS: Final = "invalid_payment_requirements"
INVALID_TRANSACTION_STATE: Final = "invalid_transaction_state"
UNSUPPORTED_SCHEME: Final = "unsupported_scheme"


def examine(
    desk: Desk, payment: PaymentPayload, requirements: PaymentRequirements, *, settling: bool = False
) -> Flow[Verification]:
    """Judge a payment, and hold its gas to the cap where it was asked for; `settling` asks for it in the same batch.

    Raises `NodeUnavailable`.
    """
    face = find_face(desk, requirements)
    if isinstance(face, Refusal):
        return Verification(refused(face))
    try:
        verification = yield from face.verify(payment, requirements, settling=settling)
    except RemoteProtocolError as error:
        return Verification(refused(Refusal(INVALID_PAYLOAD, str(error))))
    cap = desk.limits.wallet_gas_limit_max if verification.alone else desk.limits.gas_limit_max
    if verification.response.is_valid and verification.gas_limit > cap:
        what = f"The settlement would take {verification.gas_limit} gas; the cap is {cap}."
        return Verification(refused(Refusal(INVALID_TRANSACTION_STATE, what)), verification.signed)
    return verification


def find_face(desk: Desk, requirements: PaymentRequirements) -> FacilitatorMechanism | Refusal:
    """Find the mechanism for what is required, or say why nothing of the kind is settled here."""
    face = desk.mechanisms.find(requirements.scheme, requirements.network)
    if face is None and all(each.scheme != requirements.scheme for each in desk.mechanisms.all()):
        what = f"This facilitator does not settle the scheme {requirements.scheme!r}; see /supported."
        return Refusal(UNSUPPORTED_SCHEME, what)
    if face is None or requirements.network not in desk.networks:
        what = f"This facilitator does not settle on {requirements.network!r}; see /supported."
        return Refusal(INVALID_NETWORK, what)
    if (requirements.network, requirements.asset.lower()) not in desk.assets:
        what = f"This facilitator does not settle the asset {requirements.asset} on {requirements.network}."
        return Refusal(INVALID_PAYMENT_REQUIREMENTS, what)
    return face


def refused(refusal: Refusal) -> VerifyResponse:
    """Write a refusal as the wire has it."""
    return VerifyResponse(is_valid=False, invalid_reason=refusal.reason, invalid_message=refusal.message)
