"""The auditor's records in the journal, as effects: what was audited, disputed and paid. Each is one atomic step.

Houses are clearing houses. An audited statement is `audited`, `reserved` (its amount has its place in the window's
limit, nothing is signed), `signed` (the payment is on record, and may have left), then `settled`. One statement has one
payment for ever: one account, and one nonce, which the statement's id makes. A `refused` one is wrong in its lines: it
is kept so that the next one's link is known, and may be audited again.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec

from farthing.buyer.journal import Purchase, Stopped
from farthing.flow import Effect

AuditState: TypeAlias = Literal["refused", "audited", "reserved", "signed", "settled"]

# Disputes that one audit records: with more of them something else is wrong, and a person is to look at it.
AUDIT_DISPUTES_MAX: Final = 10_000


class House(msgspec.Struct, frozen=True):
    """What is known of a clearing house from the first statement on: a change is refused.

    `key_id` is the thumbprint of the key that signs statements; `treasury` is where they are paid, in `asset` on
    `rail_network`.
    """

    network: str
    key_id: str
    treasury: str
    rail_network: str
    asset: str


class BilledPromise(msgspec.Struct, frozen=True):
    """A promise of the journal that a statement lists, and the statement that listed it first.

    `base` is what was signed (RFC 9421's signature base), `receipt` whether the seller's receipt is on record.
    """

    purchase: Purchase
    promise_id: str
    base: str
    signature: str
    receipt: bool
    billed_in: str


class LineDispute(msgspec.Struct, frozen=True):
    """A line that is not accepted: `amount` (atomic units) is not paid. `reason` is a code of statements' disputes."""

    line: str
    reason: str
    amount: int
    evidence: str


class RaisedDispute(msgspec.Struct, frozen=True):
    """A dispute on record: the line of which statement, and the statement whose adjustment ended it (or empty)."""

    statement: str
    line: str
    reason: str
    amount: int
    adjusted_in: str


class AuditedStatement(msgspec.Struct, frozen=True, kw_only=True):
    """A statement that was found in order, whole, and what was signed for it. Amounts are atomic units.

    `digest` is the SHA-256 of its JWS, in hex. `owed` is its net sum less the disputed lines: the most that is paid.
    `payment` is the x402 payment as JSON, empty until one is signed by `account`.
    """

    network: str
    statement: str
    payer: str
    digest: str
    closed: int
    owed: int
    disputes_sent: bool = False
    state: AuditState = "audited"
    account: str = ""
    amount: int = 0
    payment: str = ""
    valid_before: int = 0
    transaction: str = ""


class OverLimit(msgspec.Struct, frozen=True):
    """The window's limit has no room: `used` atomic units of `limit` are taken."""

    used: int
    limit: int


class PinHouse(Effect[House], frozen=True):
    """Take a house for what it shows when it is seen first; the answer is what is on record."""

    house: House
    now_seconds: int


class BillLines(Effect[tuple[BilledPromise | None, ...]], frozen=True):
    """Find promises by payment ids, and note the statement that bills each, where none has; None for unknown ones."""

    network: str
    statement: str
    payment_ids: tuple[str, ...]


class TakeAdjustment(Effect[RaisedDispute | None], frozen=True):
    """Find a dispute by its id, and note the statement whose adjustment ends it, where none has."""

    network: str
    dispute: str
    statement: str


class FindAudited(Effect[AuditedStatement | None], frozen=True):
    """Find an audited statement."""

    network: str
    statement: str


class NewestAudited(Effect[AuditedStatement | None], frozen=True):
    """Find the newest statement of a payer that was audited and whose window closed before `closed`."""

    network: str
    payer: str
    closed: int


class RecordAudit(Effect[AuditedStatement], frozen=True):
    """Put a statement on record with its disputes, before they are sent; what is there stays, unless it was refused."""

    entry: AuditedStatement
    disputes: tuple[tuple[str, LineDispute], ...]
    now_seconds: int


class UnsentDisputes(Effect[tuple[LineDispute, ...]], frozen=True):
    """List the disputes of a statement that the house has not confirmed yet."""

    network: str
    statement: str


class MarkDisputesSent(Effect[bool], frozen=True):
    """Note that the house has all disputes of a statement."""

    network: str
    statement: str


class ReserveStatement(Effect[bool | Stopped | OverLimit], frozen=True, kw_only=True):
    """Give a statement its place in the window's limit, over all processes of this journal, before anything is signed.

    False: it was signed by another account, or is settled. `window_limit` is in atomic units, for all statements that
    were signed or reserved in `window_seconds`.
    """

    network: str
    statement: str
    account: str
    amount: int
    window_limit: int
    window_seconds: int
    now_seconds: int


class RecordStatementPayment(Effect[bool | Stopped], frozen=True, kw_only=True):
    """Put a statement's signed payment on record, before it leaves.

    `instead_of` is the `valid_before` of the one that it takes the place of (0: there is none): same account and nonce,
    so that the chain can settle one of the two. False: somebody else recorded one just now, and that one is presented.
    """

    network: str
    statement: str
    account: str
    amount: int
    payment: str
    valid_before: int
    instead_of: int
    now_seconds: int


class MayLeave(Effect[bool | Stopped], frozen=True):
    """See that the kill switch is off, just before a payment leaves."""


class MarkSettled(Effect[bool], frozen=True):
    """Note that the house named the transaction that settled a statement. It is left for nothing."""

    network: str
    statement: str
    transaction: str
    now_seconds: int
