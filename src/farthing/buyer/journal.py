"""The journal as the buyer's flows see it: its entries, and its operations as effects. Each is one atomic step.

States of an entry: `reserved` (its place in the budget is taken, nothing is signed), `sent` (the signed payload is on
record, and may have left), then `settled`, `refused` or `unknown`; `released` (nothing was sent) and `closed` (can't
settle any more, by evidence) have given their place in the budget back.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec

from farthing.flow import Effect

State: TypeAlias = Literal["reserved", "sent", "settled", "refused", "unknown", "released", "closed"]
# What can become of a payment that was sent.
Outcome: TypeAlias = Literal["settled", "refused", "unknown"]

# A refused authorisation lives until its window ends, by the chain's clock. Ten minutes more cover a chain or a
# machine whose clock is off as far as SAFETY F8 allows.
WINDOW_GRACE_SECONDS: Final = 600


class Limit(msgspec.Struct, frozen=True):
    """One budget that a purchase counts toward: `scope` is `total`, `day:2026-11-23` or `host:api.example.com`.

    `limit_value` and all values are in units of 10^-18 of the policy's currency; None means no limit of its own.
    """

    scope: str
    limit_value: int | None


class Purchase(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of the journal. Amounts are atomic units of `asset`, times Unix seconds."""

    purchase_id: str
    state: State
    delivered: bool
    created_at: int
    method: str
    url: str
    host: str
    payer: str
    scheme: str
    network: str
    asset: str
    pay_to: str
    amount: int
    currency: str
    payment_id: str = ""
    valid_before: int = 0
    transaction: str = ""
    reason: str = ""


class OpenPayment(msgspec.Struct, frozen=True, kw_only=True):
    """A payment for this very request that was sent and whose purchase has not ended: it is presented again."""

    purchase_id: str
    payment_id: str
    header: str
    network: str
    payer: str
    state: State
    valid_before: int


class Reserved(msgspec.Struct, frozen=True):
    """The purchase has its place in the budget."""


class OverBudget(msgspec.Struct, frozen=True):
    """A budget has no room for the purchase: `used_value` of `limit` is taken."""

    limit: Limit
    used_value: int


class FindOpen(Effect["OpenPayment | None"], frozen=True):
    """Look for an open payment of this request print: sent and unanswered by anyone alive, unknown, or refused."""

    request_print: str
    payer: str
    now_seconds: int


class Reserve(Effect["Reserved | OverBudget | OpenPayment"], frozen=True, kw_only=True):
    """Take a place in the budget, over all threads and processes of this journal, or say what has no room.

    The same step looks for an open payment once more, and takes back what refused payments and dead processes held.
    """

    purchase_id: str
    request_print: str
    method: str
    url: str
    host: str
    payer: str
    scheme: str
    network: str
    asset: str
    pay_to: str
    amount: int
    currency: str
    value: int
    limits: tuple[Limit, ...]
    now_seconds: int


class RecordPayment(Effect[bool], frozen=True, kw_only=True):
    """Put the signed payload on record, before it leaves. False: the reservation is gone, so it must not leave."""

    purchase_id: str
    payment_id: str
    fingerprint: str
    header: str
    valid_before: int
    now_seconds: int


class PresentAgain(Effect[bool], frozen=True):
    """Record that an open payment leaves once more, before it does. False: it is not open any more."""

    purchase_id: str


class Release(Effect[bool], frozen=True):
    """Give the place in the budget back: nothing was signed, or what was signed never left."""

    purchase_id: str
    reason: str
    now_seconds: int


class RecordOutcome(Effect["State"], frozen=True, kw_only=True):
    """Record what became of a payment that was sent; the answer is the state that the entry has now.

    Unknown is left for `settled` alone: a refusal after it is no evidence (SAFETY B1). `delivered` says that the
    caller has the resource, so that the same request is a new purchase.
    """

    purchase_id: str
    outcome: Outcome
    delivered: bool
    transaction: str
    reason: str
    now_seconds: int
