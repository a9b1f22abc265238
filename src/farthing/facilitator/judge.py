"""What the evidence on chain means for a payment: confirmed, refused, back to work, or not decided yet."""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

from farthing.facilitator.chain import Head, Receipt
from farthing.facilitator.store import Confirmed, PaymentRecord, Refused
from farthing.facilitator.verify import INVALID_TRANSACTION_STATE
from farthing.mechanisms.interface import Evidence, FacilitatorMechanism, SignedPayment, Spent, SpentOtherwise


class Release(msgspec.Struct, frozen=True):
    """The call failed, the right is unspent and its window open: back to work, alone next time."""

    payment_id: str


Verdict: TypeAlias = Confirmed | Refused | Release

UNSPENT: Final = INVALID_TRANSACTION_STATE


def judge_own(face: FacilitatorMechanism, signed: SignedPayment, payment_id: str, receipt: Receipt) -> Confirmed | None:
    """Judge a member by our own transaction's receipt. None: this transaction did not spend it as signed."""
    evidence = face.judge_receipt(signed, receipt.raw)
    if not isinstance(evidence, Spent):
        return None
    return Confirmed(payment_id, receipt.transaction, receipt.block_number, receipt.block_hash, evidence.log_index)


def judge_other(
    record: PaymentRecord,
    evidence: Evidence,
    *,
    head: Head,
    final: Head | None,
    depth: int,
    window_left_min_seconds: int,
) -> Verdict | None:
    """Judge a payment that our own transaction did not spend, by what else is on chain. None: not decided yet.

    Somebody else's transaction settles it where it spent the right as signed, in a block after the one that was seen
    when the payment was put on record here. Either way it counts at the network's depth alone: were its block lost, a
    transaction of ours could still settle what was refused.
    """
    if isinstance(evidence, (Spent, SpentOtherwise)) and evidence.block_number is not None:
        shallow = head.number - evidence.block_number + 1 < depth
        if shallow:
            return None
    if isinstance(evidence, Spent):
        return _judge_spent(record, evidence)
    if isinstance(evidence, SpentOtherwise):
        what = "The right was cancelled, or spent by another transfer than the one that was signed."
        return Refused(record.payment_id, evidence.reason, what, evidence.transaction)
    # Unspent. The chain's clock decides, since it is the token that compares it with the window.
    if head.time_seconds + window_left_min_seconds < record.valid_before:
        return Release(record.payment_id)
    if final is not None and final.time_seconds >= record.valid_before:
        what = f"Unspent in the finalised block {final.number}, which is past validBefore."
        return Refused(record.payment_id, UNSPENT, what, record.transaction)
    return None


def _judge_spent(record: PaymentRecord, spent: Spent) -> Verdict:
    if spent.block_number <= record.recorded_block:
        what = f"It was spent in block {spent.block_number}, before it was brought here."
        return Refused(record.payment_id, UNSPENT, what, spent.transaction)
    return Confirmed(record.payment_id, spent.transaction, spent.block_number, spent.block_hash, spent.log_index)
