"""Looking on chain for a payment of which nobody tells the seller what became (SAFETY S3).

Where a facilitator takes idempotency keys, it alone knows whom it told of a success, and the chain can only show that
there was none. Where it takes none, and may have no `/payments` either, the transfer on chain is the evidence.
"""

from __future__ import annotations

from typing import Final

from farthing.flow import Effect, Flow
from farthing.mechanisms.interface import Traced
from farthing.protocol.facilitator import SETTLEMENT_PENDING, Outcome, Refused, Settled, Unknown
from farthing.protocol.messages import PaymentPayload, SettlementResponse
from farthing.seller.store import IsOurs, Known
from farthing.seller.ticket import Ticket

# The reason of a payment whose window ended before it was settled, by the protocol's name of it.
EXPIRED: Final = "invalid_exact_evm_payload_authorization_valid_before"
# The reason of one that was cancelled, or spent by another transfer than the one that was signed.
SPENT_OTHERWISE: Final = "invalid_exact_evm_nonce_already_used"


class LookOnChain(Effect[Traced | None], frozen=True):
    """Look for a payment on chain, by every node of its network that the seller has: what they agree on.

    None where there is no node, one does not answer, or two disagree. `recorded_at` (Unix seconds) is no later than the
    payment's claim.
    """

    payment: PaymentPayload
    recorded_at: int


def by_chain(ticket: Ticket, found: Known) -> Flow[Outcome]:
    """Say what the chain shows of an unknown payment: settled or refused in a finalised block, or nothing yet.

    It was verified before it was claimed, and unspent then: who spent it as signed spent it for this claim.
    """
    nothing = Unknown(SETTLEMENT_PENDING, "", found.transaction)
    if not ticket.awaited:
        # The payment itself is not there, and its nonce is on no record.
        return nothing
    # No window is longer than the offer's, so that the claim is no older than this.
    recorded_at = found.valid_before - ticket.payment.requirements.max_timeout_seconds
    traced = yield from LookOnChain(ticket.payload, recorded_at)
    if traced is None or traced.verdict == "open":
        return nothing
    payer = ticket.payment.payer
    if traced.verdict == "not_settled":
        reason = SPENT_OTHERWISE if traced.transaction else EXPIRED
        return Refused(reason, traced.says, traced.transaction, payer)
    if (yield from IsOurs(ticket.payment_id, "")) is not True:
        return Unknown(SETTLEMENT_PENDING, "", traced.transaction)
    return Settled(
        SettlementResponse(
            success=True, transaction=traced.transaction, network=ticket.payment.network, payer=payer or None
        )
    )
