"""The life of a payment at the seller, as tables: what may follow what, and what a second request is answered.

The store moves a payment only along `MOVES`; the flows answer a known payment only by `SECOND_REQUEST`; the page
`docs/seller.md` is made from both (`python -m farthing.seller.states`), and a test fails when it drifts.
"""

from __future__ import annotations

import enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


class State(enum.StrEnum):
    """Where a payment stands, by its record."""

    NONE = "none"
    CLAIMED = "claimed"
    SETTLING = "settling"
    UNKNOWN = "unknown"
    SETTLED = "settled"
    DELIVERED = "delivered"
    REFUSED = "refused"
    VOID = "void"
    ABORTED = "aborted"
    OWED = "owed"
    RUNNING = "running"
    REFUND_DUE = "refund_due"
    REFUNDED = "refunded"
    CLOSED = "closed"
    # The block of a settlement that was booked was lost: what it bought waits for its buyer, or was delivered.
    UNKNOWN_SETTLED = "unknown_settled"
    UNKNOWN_DELIVERED = "unknown_delivered"
    LOSS = "loss"


class PaymentFlow(enum.StrEnum):
    """When a route settles, by the names of the wire (`extra.paymentFlow`)."""

    AUTHORIZATION = "authorization"
    UPFRONT = "upfront"


class Taking(enum.StrEnum):
    """Whether a route takes payment-identifiers."""

    OFF = "off"
    OPTIONAL = "optional"
    REQUIRED = "required"


class Move(NamedTuple):
    """One move: what happened, and the state that is on record after it."""

    source: State
    event: str
    target: State


class Relation(enum.StrEnum):
    """What a second request has in common with the record that it meets."""

    SAME = "same fingerprint, same request"
    OTHER_REQUEST = "same fingerprint, other request"
    OTHER_PAYMENT = "other fingerprint"


class Reply(enum.StrEnum):
    """What a request with a known payment identity is answered."""

    IN_PROGRESS = "409 and Retry-After"
    CONFLICT = "409"
    CONFLICT_NAMED = "409, naming the transaction"
    PENDING = "402 with PAYMENT-RESPONSE pending, Retry-After, no offer; asks what became of it first"
    DELIVER = "lease alive: 409 and Retry-After; over: takes the lease and gets the stored response"
    WAIT = "waits for the first, then as that one was answered"
    REPEAT = "the earlier answer"
    RUN = "runs, without a charge"
    SERVED = "409, naming the transaction: already served"
    CLAIM = "claims again, after verification"
    NOT_CHARGED = "409, not charged"
    REFUSED = "402, the same reason, no offer"
    ASK = "asks whether it was settled after all; else 402, the same reason, no offer"
    REFUND = "409, naming the transaction: a refund is due"
    REFUNDED = "409, naming the refund's transaction"
    DOUBTED = "402 with PAYMENT-RESPONSE pending, Retry-After, no offer"
    LOSS = "409, naming the payment: its settlement was lost"
    OFFER = "402 with an offer"


_PAID_BACK: Final = (
    Move(State.REFUND_DUE, "refunded: the ledger's contrary entry in one transaction", State.REFUNDED),
    Move(State.REFUND_DUE, "its block was lost, and it was refused in the end: nothing is owed", State.CLOSED),
)
# What becomes of a delivered payment whose block is lost. It never comes to where something is delivered.
_AFTER_DELIVERY: Final = (
    Move(State.DELIVERED, "window and horizon over: looked up; not final yet", State.DELIVERED),
    Move(State.DELIVERED, "its block was lost", State.UNKNOWN_DELIVERED),
    Move(State.DELIVERED, "its block was lost, and it was refused in the end: booked", State.LOSS),
    Move(State.UNKNOWN_DELIVERED, "looked up; final by another transaction: booked anew", State.UNKNOWN_DELIVERED),
    Move(State.UNKNOWN_DELIVERED, "evidence: settled again", State.DELIVERED),
    Move(State.UNKNOWN_DELIVERED, "evidence: refused in the end: the ledger's contrary entry", State.LOSS),
)

# The response and the intent to settle are one commit, so that EXECUTED of the proposal is never on record alone.
AUTHORIZATION_MOVES: Final = (
    Move(State.NONE, "verified: claimed", State.CLAIMED),
    Move(State.NONE, "verified: claimed, by a route that keeps no response", State.SETTLING),
    Move(State.CLAIMED, "2xx: response stored, about to settle", State.SETTLING),
    Move(State.CLAIMED, "no 2xx, or an exception: its answer goes out, uncharged", State.VOID),
    Move(State.CLAIMED, "lease over, idempotent route", State.VOID),
    Move(State.CLAIMED, "lease over, another route", State.ABORTED),
    Move(State.SETTLING, "facilitator: success; receipt and ledger in one transaction", State.SETTLED),
    Move(State.SETTLING, "facilitator: a clear refusal", State.REFUSED),
    Move(State.SETTLING, "anything else, or lease over", State.UNKNOWN),
    Move(State.SETTLING, "no 2xx, by a route that keeps no response", State.VOID),
    Move(State.SETTLING, "its process was silent, and goes on: taken anew", State.SETTLING),
    Move(State.UNKNOWN, "looked up, or a transaction was named; still no evidence", State.UNKNOWN),
    Move(State.UNKNOWN, "evidence: settled", State.SETTLED),
    Move(State.UNKNOWN, "evidence: refused", State.REFUSED),
    Move(State.UNKNOWN, "evidence: settled, but no response was kept", State.REFUND_DUE),
    Move(
        State.UNKNOWN, "the facilitator never had it, and takes keys: settled again, under the same key", State.SETTLING
    ),
    Move(State.SETTLED, "lease over: another caller takes the delivery", State.SETTLED),
    Move(State.SETTLED, "its process was silent, and goes on: taken anew", State.SETTLED),
    Move(State.SETTLED, "all bytes out", State.DELIVERED),
    Move(State.SETTLED, "lease over, no response kept", State.REFUND_DUE),
    *_PAID_BACK,
    Move(State.UNKNOWN, "window and horizon over, and the facilitator never had it", State.CLOSED),
    Move(State.REFUSED, "looked up again", State.REFUSED),
    Move(State.REFUSED, "evidence: settled after all", State.SETTLED),
    Move(State.REFUSED, "evidence: settled after all, but no response was kept", State.REFUND_DUE),
    Move(State.REFUSED, "window and horizon over", State.CLOSED),
    Move(State.VOID, "verified: claimed again", State.CLAIMED),
    Move(State.VOID, "verified: claimed again, by a route that keeps no response", State.SETTLING),
    Move(State.ABORTED, "another fingerprint, verified: claimed", State.CLAIMED),
    Move(State.ABORTED, "another fingerprint, verified: claimed, by a route that keeps no response", State.SETTLING),
    Move(State.CLOSED, "verified: claimed anew", State.CLAIMED),
    Move(State.CLOSED, "verified: claimed anew, by a route that keeps no response", State.SETTLING),
    Move(State.SETTLED, "window and horizon over: known to be final", State.SETTLED),
    Move(State.SETTLED, "its block was lost", State.UNKNOWN_SETTLED),
    Move(State.SETTLED, "its block was lost, and it was refused in the end: booked", State.LOSS),
    Move(State.UNKNOWN_SETTLED, "looked up; final by another transaction: booked anew", State.UNKNOWN_SETTLED),
    Move(State.UNKNOWN_SETTLED, "evidence: settled again", State.SETTLED),
    Move(State.UNKNOWN_SETTLED, "evidence: refused in the end: the ledger's contrary entry", State.LOSS),
    *_AFTER_DELIVERY,
)

# Nothing runs between claim and settlement here, so the claim is made in SETTLING; and the run begins in the commit
# that books the receipt. Two commits less a payment, and no state in which money could be lost.
UPFRONT_MOVES: Final = (
    Move(State.NONE, "verified: claimed, about to settle", State.SETTLING),
    Move(State.SETTLING, "facilitator: success; receipt, ledger and the first run in one transaction", State.RUNNING),
    Move(State.SETTLING, "facilitator: a clear refusal", State.REFUSED),
    Move(State.SETTLING, "anything else, or lease over", State.UNKNOWN),
    Move(State.UNKNOWN, "looked up, or a transaction was named; still no evidence", State.UNKNOWN),
    Move(State.UNKNOWN, "evidence: settled; receipt, ledger and the first run in one transaction", State.RUNNING),
    Move(State.UNKNOWN, "evidence: settled, and nobody waits for it", State.OWED),
    Move(State.UNKNOWN, "evidence: refused", State.REFUSED),
    Move(
        State.UNKNOWN, "the facilitator never had it, and takes keys: settled again, under the same key", State.SETTLING
    ),
    Move(State.REFUSED, "looked up again", State.REFUSED),
    Move(State.REFUSED, "evidence: settled after all; receipt, ledger and the first run", State.RUNNING),
    Move(State.REFUSED, "evidence: settled after all, and nobody waits for it", State.OWED),
    Move(State.RUNNING, "the work goes on: lease renewed", State.RUNNING),
    Move(State.RUNNING, "its process was silent, and goes on: taken anew", State.RUNNING),
    Move(State.RUNNING, "complete 2xx, all bytes out", State.DELIVERED),
    Move(State.RUNNING, "not begun, since its client has gone", State.OWED),
    Move(State.RUNNING, "failed, cut or lease over; idempotent route, runs left", State.OWED),
    Move(State.RUNNING, "failed, cut or lease over; another route, or no runs left", State.REFUND_DUE),
    Move(State.OWED, "the same request again", State.RUNNING),
    *_PAID_BACK,
    Move(State.UNKNOWN, "window and horizon over, and the facilitator never had it", State.CLOSED),
    Move(State.REFUSED, "window and horizon over", State.CLOSED),
    Move(State.CLOSED, "verified: claimed anew", State.SETTLING),
    *_AFTER_DELIVERY,
)

_ALLOWED: Final = frozenset((move.source, move.target) for move in AUTHORIZATION_MOVES + UPFRONT_MOVES)

_SAME, _REQUEST, _PAYMENT = Relation.SAME, Relation.OTHER_REQUEST, Relation.OTHER_PAYMENT


def _row(same: Reply, other_request: Reply, other_payment: Reply) -> dict[Relation, Reply]:
    return {_SAME: same, _REQUEST: other_request, _PAYMENT: other_payment}


SECOND_REQUEST: Final[Mapping[State, Mapping[Relation, Reply]]] = MappingProxyType(
    {
        State.CLAIMED: _row(Reply.IN_PROGRESS, Reply.CONFLICT, Reply.CONFLICT),
        State.SETTLING: _row(Reply.IN_PROGRESS, Reply.CONFLICT, Reply.CONFLICT),
        State.UNKNOWN: _row(Reply.PENDING, Reply.CONFLICT, Reply.CONFLICT),
        State.SETTLED: _row(Reply.DELIVER, Reply.CONFLICT, Reply.CONFLICT_NAMED),
        State.RUNNING: _row(Reply.IN_PROGRESS, Reply.CONFLICT, Reply.CONFLICT),
        State.OWED: _row(Reply.RUN, Reply.CONFLICT, Reply.CONFLICT_NAMED),
        State.DELIVERED: _row(Reply.SERVED, Reply.CONFLICT, Reply.CONFLICT),
        State.VOID: _row(Reply.CLAIM, Reply.CLAIM, Reply.CLAIM),
        State.ABORTED: _row(Reply.NOT_CHARGED, Reply.CONFLICT, Reply.CLAIM),
        State.REFUSED: _row(Reply.ASK, Reply.REFUSED, Reply.CONFLICT),
        State.REFUND_DUE: _row(Reply.REFUND, Reply.CONFLICT, Reply.CONFLICT),
        State.REFUNDED: _row(Reply.REFUNDED, Reply.CONFLICT, Reply.CONFLICT),
        State.CLOSED: _row(Reply.OFFER, Reply.OFFER, Reply.CLAIM),
        State.UNKNOWN_SETTLED: _row(Reply.DOUBTED, Reply.CONFLICT, Reply.CONFLICT),
        State.UNKNOWN_DELIVERED: _row(Reply.SERVED, Reply.CONFLICT, Reply.CONFLICT),
        State.LOSS: _row(Reply.LOSS, Reply.CONFLICT, Reply.CONFLICT),
    }
)


# What is answered instead where the request has the payment-identifier that the payment was claimed with.
WITH_IDENTIFIER: Final[Mapping[State, Reply]] = MappingProxyType(
    {
        State.CLAIMED: Reply.WAIT,
        State.SETTLING: Reply.WAIT,
        State.SETTLED: Reply.REPEAT,
        State.DELIVERED: Reply.REPEAT,
    }
)


def reply_of(state: State, relation: Relation, *, identified: bool) -> Reply:
    """Look up what a second request is answered; `identified` where it has the id that the payment was claimed with."""
    if identified and relation is Relation.SAME:
        return WITH_IDENTIFIER.get(state, SECOND_REQUEST[state][relation])
    return SECOND_REQUEST[state][relation]


def allowed(source: State, target: State) -> bool:
    """Tell whether a payment may move from `source` to `target`."""
    return (source, target) in _ALLOWED


def after_lease(
    state: State, *, flow: PaymentFlow, idempotent: bool, stores_response: bool, runs_left: bool
) -> State | None:
    """Give the state of a payment whose owner's lease is over, or who is dead; None where it stays."""
    if state is State.CLAIMED:
        return State.VOID if idempotent else State.ABORTED
    if state is State.SETTLING:
        return State.UNKNOWN
    if state is State.RUNNING:
        return State.OWED if idempotent and runs_left else State.REFUND_DUE
    if state is State.SETTLED and flow is PaymentFlow.AUTHORIZATION and not stores_response:
        return State.REFUND_DUE
    return None


def as_markdown() -> str:
    """Write the tables as the documentation shows them: two diagrams (Mermaid) and the table of second requests."""
    parts = ["<!-- made by `python -m farthing.seller.states`; do not edit -->", ""]
    for title, moves in (
        ("Settling after the work (`authorization`)", AUTHORIZATION_MOVES),
        ("Settling before the work (`upfront`)", UPFRONT_MOVES),
    ):
        parts += [f"### {title}", "", "```mermaid", "stateDiagram-v2"]
        parts += [f"    {_node(move.source)} --> {_node(move.target)}: {_label(move.event)}" for move in moves]
        parts += ["```", "", "| on record | what happens | then on record |", "|---|---|---|"]
        parts += [f"| {move.source.upper()} | {move.event} | {move.target.upper()} |" for move in moves]
        parts.append("")
    parts += ["### A second request with a known identity", ""]
    same, *others = Relation
    parts.append(f"| state found | {same} | the same, with its payment-identifier | " + " | ".join(others) + " |")
    parts.append("|---|---|---|---|---|")
    for state, replies in SECOND_REQUEST.items():
        cells = (replies[same], reply_of(state, same, identified=True), *(replies[each] for each in others))
        parts.append(f"| {state.upper()} | " + " | ".join(cells) + " |")
    return "\n".join(parts) + "\n"


def _node(state: State) -> str:
    return "[*]" if state is State.NONE else state.upper()


def _label(event: str) -> str:
    # Mermaid reads colons and semicolons as its own.
    return event.replace(":", " -").replace(";", ",")


if __name__ == "__main__":
    import sys

    sys.stdout.write(as_markdown())
