"""The journal as the buyer's flows see it: its entries, and its operations as effects. Each is one atomic step.

States of an entry: `reserved` (its place in the budget is taken, nothing is signed), `sent` (the signed payload is on
record, and may have left), then `settled`, `refused` or `unknown`; `released` (nothing was sent) and `closed` (can't
settle any more, by evidence) have given their place in the budget back.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec

from farthing.flow import Effect
from farthing.protocol.clearing import Signed

State: TypeAlias = Literal["reserved", "sent", "settled", "refused", "unknown", "released", "closed"]
# What can become of a payment that was sent.
Outcome: TypeAlias = Literal["settled", "refused", "unknown"]

# A refused authorisation lives until its window ends, by the chain's clock. Ten minutes more cover a chain or a
# machine whose clock is off as far as SAFETY F8 allows.
WINDOW_GRACE_SECONDS: Final = 600
# A promise can be billed until the clearing house takes no late line any more (seven days), and a day more for the
# statement of the last window to come.
PROMISE_GRACE_SECONDS: Final = 8 * 86_400


class Limit(msgspec.Struct, frozen=True):
    """One budget that a purchase counts toward: `scope` is `total`, `day:2026-11-23`, `host:api.example.com` and so on.

    `limit_value` and all values are in units of 10^-18 of the policy's currency; None means no limit of its own.
    """

    scope: str
    limit_value: int | None


class Rate(msgspec.Struct, frozen=True):
    """No more than `count_max` payments in any `seconds`."""

    count_max: int
    seconds: int


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
    # Who was asked and what they showed, as JSON (`farthing.buyer.reconcile.Evidence`), where it was looked up.
    evidence: str = ""


class Promise(msgspec.Struct, frozen=True):
    """What was signed together with its request, for a payment on credit: header lines, and what proves it later.

    `promise_id` is the commitment's id, which the answer and the statement name.
    """

    promise_id: str
    headers: tuple[tuple[str, str], ...]
    evidence: Signed


class OpenPayment(msgspec.Struct, frozen=True, kw_only=True):
    """A payment for this very request that was sent and whose purchase has not ended: it is presented again.

    Where its window is over, it may be signed anew under the same nonce, for the same `amount` of `asset` to `pay_to`.
    """

    purchase_id: str
    payment_id: str
    header: str
    network: str
    payer: str
    state: State
    valid_before: int
    asset: str
    pay_to: str
    amount: int
    promise: Promise | None = None


class PayeeChanged(msgspec.Struct, frozen=True):
    """The host was paid at other accounts before: `known` are those, and nobody has agreed to this one."""

    known: tuple[str, ...]


class TooFast(msgspec.Struct, frozen=True):
    """As many payments as the rate allows were made in its time."""

    rate: Rate


class Stopped(msgspec.Struct, frozen=True):
    """The kill switch is on: nothing is signed, and nothing that was signed leaves. `reason` is who or what says so."""

    reason: str


class Reserved(msgspec.Struct, frozen=True):
    """The purchase has its place in the budget."""


class OverBudget(msgspec.Struct, frozen=True):
    """A budget has no room for the purchase: `used_value` of `limit` is taken."""

    limit: Limit
    used_value: int


class FindOpen(Effect["OpenPayment | None"], frozen=True):
    """Look for an open payment of this request print: sent and unanswered, unknown, refused, or settled for nothing.

    It is open until the resource came, or there is evidence that it can't settle any more. A promise is open until it
    expires: after that it keeps its place in the budget, and the same request is another purchase.
    """

    request_print: str
    payer: str
    now_seconds: int = 0


class Reserve(
    Effect["Reserved | OverBudget | OpenPayment | PayeeChanged | TooFast | Stopped"], frozen=True, kw_only=True
):
    """Take a place in the budget, over all threads and processes of this journal, or say what speaks against it.

    The same step looks for an open payment once more, takes back what dead processes held, and pins the payee to
    `authority` (host, and port where it is not the usual one) where it has none; `payee_known` pins it beside others.
    `payees` are those that the policy names.
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
    authority: str = ""
    payee_known: bool = False
    payees: tuple[str, ...] = ()
    rate: Rate | None = None
    # An open payment that this purchase takes the place of, so that it is not found.
    instead_of: str = ""


class RecordPayment(Effect["bool | Stopped"], frozen=True, kw_only=True):
    """Put the signed payload on record, before it leaves. False: the reservation is gone, so it must not leave."""

    purchase_id: str
    payment_id: str
    fingerprint: str
    header: str
    valid_before: int
    now_seconds: int
    authority: str = ""
    promise: Promise | None = None
    instead_of: str = ""


class PresentAgain(Effect["bool | Stopped"], frozen=True):
    """Record that an open payment leaves once more, before it does. False: it is not open any more."""

    purchase_id: str


class RenewPayment(Effect["bool | Stopped"], frozen=True, kw_only=True):
    """Put a second payload of an open payment on record, before it leaves: same payment id, so same nonce, new window.

    The chain can settle only one of the two. `instead_of` is the first one's `valid_before`. False: it is not open any
    more, or somebody else renewed it just now.
    """

    purchase_id: str
    payment_id: str
    fingerprint: str
    header: str
    valid_before: int
    instead_of: int
    now_seconds: int


class TakeApproval(Effect[bool], frozen=True):
    """Use an approval that was given ahead, once, for this purchase. False: there is none, or it is used or too old."""

    approval_id: str
    purchase_id: str
    now_seconds: int


class Release(Effect[bool], frozen=True):
    """Give the place in the budget back: nothing was signed, or what was signed never left."""

    purchase_id: str
    reason: str
    now_seconds: int


class OpenEntry(msgspec.Struct, frozen=True):
    """A purchase that is not concluded, with its signed payload and its print, for whoever finds out what became of it.

    `under_way` says that a process that is alive waits for its answer just now.
    """

    purchase: Purchase
    header: str
    request_print: str
    under_way: bool


class ListOpen(Effect["tuple[OpenEntry, ...]"], frozen=True):
    """List payments that nobody knows the end of (sent, unknown, refused), oldest first: a page after `after`."""

    after: Purchase | None = None


class RecordEvidence(Effect["State"], frozen=True, kw_only=True):
    """Record what evidence says of a payment: settled, or closed (it can't settle any more, and gives its place back).

    The answer is the state that the entry has now: what is settled stays so. `evidence` is JSON.
    """

    purchase_id: str
    state: State
    transaction: str
    evidence: str
    now_seconds: int


class RecordOutcome(Effect["State"], frozen=True, kw_only=True):
    """Record what became of a payment that was sent; the answer is the state that the entry has now.

    Unknown is left for `settled` alone: a refusal after it is no evidence (SAFETY B1). `delivered` says that the
    caller has the resource, so that the same request is a new purchase; with `handing_over` it has it once the body has
    come to its end (`Journal.delivered`), and a process that dies before that has delivered nothing.
    """

    purchase_id: str
    outcome: Outcome
    delivered: bool
    transaction: str
    reason: str
    now_seconds: int
    receipt: Signed | None = None
    handing_over: bool = False
