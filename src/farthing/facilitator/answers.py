"""What a caller of `/settle` and `/payments` is told, from what is on record."""

from __future__ import annotations

from farthing.facilitator.store import PaymentRecord
from farthing.protocol.facilitator import (
    DUPLICATE_SETTLEMENT,
    SETTLEMENT_PENDING,
    Outcome,
    PaymentStatus,
    Refused,
    Settled,
    Unknown,
    digest_of_key,
)
from farthing.protocol.messages import SettlementResponse


def settled(record: PaymentRecord) -> SettlementResponse:
    """Tell of success, with the transaction that is the evidence."""
    return SettlementResponse(
        success=True,
        transaction=record.transaction,
        network=record.network,
        payer=record.payer,
        amount=str(record.amount),
    )


def pending(record: PaymentRecord) -> SettlementResponse:
    """Tell that it is on its way; the transaction is named where one is signed."""
    return SettlementResponse(
        success=False,
        transaction=record.transaction,
        network=record.network,
        error_reason=SETTLEMENT_PENDING,
        error_message=f"The payment is on record ({record.state}) and not confirmed yet. Ask again here, or at "
        f"/payments/{record.payment_id}.",
        payer=record.payer,
    )


def duplicate(record: PaymentRecord) -> SettlementResponse:
    """Refuse a repeat: success is told to another caller, or was."""
    return SettlementResponse(
        success=False,
        transaction=record.transaction,
        network=record.network,
        error_reason=DUPLICATE_SETTLEMENT,
        error_message="This payment was brought here before; success is told once. What became of it stands at "
        f"/payments/{record.payment_id}.",
        payer=record.payer,
    )


def not_the_same(record: PaymentRecord) -> SettlementResponse:
    """Refuse another payment under a known identity: it is never given the first one's result."""
    return SettlementResponse(
        success=False,
        transaction="",
        network=record.network,
        error_reason=DUPLICATE_SETTLEMENT,
        error_message="Another payment with this nonce, or this payment for other requirements, is on record as "
        f"{record.payment_id}; one right is spent once.",
        payer=record.payer,
    )


def refusal(
    reason: str, message: str, *, network: str, transaction: str = "", payer: str | None = None
) -> SettlementResponse:
    """Refuse with the protocol's reason code."""
    return SettlementResponse(
        success=False,
        transaction=transaction,
        network=network,
        error_reason=reason,
        error_message=message or None,
        payer=payer,
    )


def outcome_of(response: SettlementResponse) -> Outcome:
    """Read an answer as an outcome, for callers in the process."""
    if response.success:
        return Settled(response)
    reason, message = response.error_reason or "", response.error_message or ""
    if reason == SETTLEMENT_PENDING:
        return Unknown(reason, message, response.transaction)
    return Refused(reason, message, response.transaction, response.payer or "")


def status_of(record: PaymentRecord, *, head_number: int | None = None) -> PaymentStatus:
    """Give the answer of `/payments/{id}`; confirmations count the block itself and need the chain's head."""
    confirmations = None
    if record.block_number is not None and head_number is not None:
        confirmations = max(1, head_number - record.block_number + 1)
    return PaymentStatus(
        payment_id=record.payment_id,
        state=record.state,
        network=record.network,
        asset=record.asset,
        payer=record.payer,
        pay_to=record.pay_to,
        amount=str(record.amount),
        transaction=record.transaction,
        block_number=record.block_number,
        confirmations=confirmations,
        gas_used=record.gas_used,
        reason=record.reason,
        created_at=record.created_at,
        idempotency_key_digest=digest_of_key(record.idempotency_key) if record.idempotency_key else "",
    )
