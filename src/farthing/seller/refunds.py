"""Refunds as effects: what is owed, whose turn it is to pay it, and what was signed, on record before it is sent.

`farthing.world.seller_refunds` performs the store's part, `farthing.servers.refunds` that of the signers. Each is one
conditional step, and its answer says whether it was made.
"""

from __future__ import annotations

import msgspec

from farthing.evm.signing import TypedMessage
from farthing.flow import Effect
from farthing.seller.states import PaymentFlow


class RefundRecord(msgspec.Struct, frozen=True):
    """What is on record of a refund. `payment` is the signed payment as JSON; empty: nothing was signed yet.

    `signer` is the account that pays, `series` counts the nonces that were signed for, `turn_at` is when somebody may
    look again; times in Unix seconds. `note` says what went wrong last.
    """

    signer: str
    payment: bytes
    valid_before: int
    series: int
    turn_at: int
    note: str = ""


class RefundDue(msgspec.Struct, frozen=True):
    """A payment in REFUND_DUE: `amount` atomic units of `asset` go back to `payer`. It was booked at `settled_at`."""

    claim: int
    payment_id: str
    epoch: int
    flow: PaymentFlow
    network: str
    asset: str
    payer: str
    pay_to: str
    amount: int
    resource: str
    transaction: str
    settled_at: int
    record: RefundRecord | None = None


class FindRefundsDue(Effect["tuple[RefundDue, ...]"], frozen=True):
    """Find payments in REFUND_DUE that nobody has a turn at, by their claims' numbers: those over `after`.

    None of whose answer a part had left (`conclude.ANSWER_CUT`): of those a person judges.
    """

    now_seconds: int
    after: int
    limit: int


class TakeRefundTurn(Effect[bool], frozen=True):
    """Take the turn at a refund until `until`, if it still stands as it was `found` (None: no row). True: taken."""

    claim: int
    found: RefundRecord | None
    signer: str
    until: int


class RecordRefund(Effect[bool], frozen=True):
    """Put a signed refund on record in place of `over` (None: of none). False: another one was put there meanwhile.

    Nothing is sent that is not on record, so that what was signed and lost the race was signed for nobody.
    """

    claim: int
    over: RefundRecord | None
    record: RefundRecord


class PostponeRefund(Effect[bool], frozen=True):
    """Give the turn that lasts until `turn_at` back: the next one is at `until`. `note` says why."""

    claim: int
    turn_at: int
    until: int
    note: str


class FindRefundSigner(Effect["str | None"], frozen=True):
    """Find who refunds what was paid for a resource: the address of its route's signer, or of the seller's.

    None where there is none, or where the record doesn't say which of several.
    """

    resource: str
    flow: PaymentFlow
    network: str
    pay_to: str


class SignRefund(Effect[bytes], frozen=True):
    """Have `message` signed by the signer with this address. Raises `SignerError`."""

    address: str
    message: TypedMessage
