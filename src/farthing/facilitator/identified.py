"""`payment-identifier` at the facilitator: one id of a client's is one payment, whoever carries it here.

A client that signs anew for one purchase under its id is not charged twice, also where its seller keeps no record: the
second payment is refused while the first may be settled. The same payment again is answered as it always is. Success
is not told again by an id (F1): clients choose ids, and sellers without a record rely on the second call to fail.

Its scope is the caller and the payer. Nothing unverified is bound, and nothing unverified is told what is.
"""

from __future__ import annotations

import hashlib
from typing import Final

from farthing.errors import RemoteProtocolError
from farthing.facilitator.desk import Desk
from farthing.facilitator.store import FindIdentified
from farthing.facilitator.verify import INVALID_PAYLOAD, examine, refused
from farthing.flow import Flow
from farthing.mechanisms.interface import Refusal, SignedPayment, Verification
from farthing.protocol.messages import PaymentPayload, PaymentRequirements
from farthing.protocol.payment_identifier import CONFLICT, identifier_of

_MESSAGE: Final = (
    "This payment-identifier came with another payment, which was settled or may be. Send that payment again, or take "
    "another id for another purchase."
)


def scope_of(payment: PaymentPayload, signed: SignedPayment, *, caller: str) -> str:
    """Give the key under which the store knows the payment's id; empty where it has none.

    Raises `RemoteProtocolError` for an id that is none.
    """
    identifier = identifier_of(payment.extensions)
    if identifier == "":
        return ""
    return hashlib.sha256(f"{caller}\n{signed.payer.lower()}\n{identifier}".encode()).hexdigest()


def examine_for(
    desk: Desk, caller: str, payment: PaymentPayload, requirements: PaymentRequirements
) -> Flow[Verification]:
    """Judge a payment, and refuse a good one whose id another payment has. Raises `NodeUnavailable`."""
    verification = yield from examine(desk, payment, requirements)
    signed = verification.signed
    if not verification.response.is_valid or signed is None:
        return verification
    try:
        scope = scope_of(payment, signed, caller=caller)
    except RemoteProtocolError as error:
        return Verification(refused(Refusal(INVALID_PAYLOAD, str(error))), signed)
    if scope:
        found = yield from FindIdentified(scope)
        if found is not None and found != signed.payment_id:
            return Verification(refused(conflict()), signed)
    return verification


def conflict() -> Refusal:
    """Refuse a payment whose id another payment has; which one, or what it bought, is nobody's to ask by an id."""
    return Refusal(CONFLICT, _MESSAGE)
