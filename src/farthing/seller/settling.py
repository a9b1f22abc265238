"""Settling: from a durable intent to settle to evidence of what became of it (SAFETY S2, S3, S6).

`SETTLING` is on record before the facilitator is asked. Whatever is not clearly success or refusal is `UNKNOWN`, is
not served, and is found out by asking for the payment, never by guessing.
"""

from __future__ import annotations

from typing import Final, Literal

from farthing.errors import FacilitatorUnavailable, RemoteProtocolError, StoreError
from farthing.flow import Flow, Now
from farthing.protocol.codec import decode_settlement_json, encode_json, pack_header, pack_json
from farthing.protocol.facilitator import (
    DUPLICATE_SETTLEMENT,
    SETTLEMENT_PENDING,
    FindPayment,
    Outcome,
    PaymentStatus,
    Refused,
    Settle,
    Settled,
    Unknown,
)
from farthing.protocol.messages import SettlementResponse, amount_of
from farthing.seller.answers import (
    RETRY_AFTER_OUTAGE_SECONDS,
    RETRY_AFTER_SECONDS,
    Answer,
    payment_failed,
    problem,
)
from farthing.seller.looking import EXPIRED, by_chain
from farthing.seller.states import PaymentFlow, State
from farthing.seller.store import Advance, FetchResponse, IsOurs, Known, LedgerEntry, StoredResponse, TakesKeys
from farthing.seller.ticket import Deliver, Refuse, Release, Serve, Ticket

# A facilitator waits for confirmations before it answers; after this the owner is taken for crashed.
SETTLE_LEASE_SECONDS: Final = 180
# Time for the answer to go out before another request may take the delivery over.
DELIVERY_LEASE_SECONDS: Final = 60
# A refused authorisation may still be submitted by somebody until its window ends; clocks differ, and blocks may be
# replaced for a while after that.
HORIZON_SECONDS: Final = 900
# Refusals that say: settled, and somebody else was told so. Another store of this seller may be that one.
_TOLD_ANOTHER: Final = frozenset({DUPLICATE_SETTLEMENT, "invalid_exact_evm_nonce_already_used"})
# How soon a refused payment is looked up again: more often than a block comes there is nothing new.
RECHECK_SECONDS: Final = 2
# How a facilitator names the states in which the payment is on chain, or will never be (`docs/facilitator.md`).
FOUND_SETTLED: Final = frozenset({"confirmed", "final", "settled"})
FOUND_FINAL: Final = frozenset({"final"})
FOUND_REFUSED: Final = frozenset({"refused"})

Held = Literal["held"]


def settle(
    ticket: Ticket, source: State, response: StoredResponse | Held | None, *, again: bool = False
) -> Flow[Serve | Deliver | Refuse]:
    """Settle a payment whose SETTLING is on record, and say how to go on.

    `response` is what to deliver after the work, `"held"` where the door holds it unrecorded, None before the work.
    `again` where it was asked for before.
    """
    try:
        outcome = yield from Settle(ticket.payload, ticket.payment.requirements, ticket.payment_id)
    except Exception as error:  # noqa: BLE001 - a facilitator in the process may raise anything: nothing is known then
        outcome = Unknown("unexpected_settle_error", f"{type(error).__name__} while settling.")
    if isinstance(outcome, Refused) and outcome.reason == DUPLICATE_SETTLEMENT:
        outcome = yield from _judge_duplicate(outcome, again=again)
    return (yield from book(ticket, source, _believable(outcome, ticket), response))


def _judge_duplicate(outcome: Refused, *, again: bool) -> Flow[Outcome]:
    """Judge that somebody else was told of this payment's success.

    A facilitator that takes keys would have told us, had we asked before under ours: another seller, or another store
    of this one, has served the payment. Else it may have been us, whose answer was lost: a question, not a verdict.
    """
    if not again and (yield from TakesKeys()):
        return outcome
    return Unknown(outcome.reason, outcome.message, outcome.transaction)


def _believable(outcome: Outcome, ticket: Ticket) -> Outcome:
    """Take a success for another network or amount as no success at all."""
    if not isinstance(outcome, Settled):
        return outcome
    response = outcome.response
    wrong_amount = response.amount not in (None, "", amount_of(ticket.payment.amount))
    if not response.success or not response.transaction or response.network != ticket.payment.network or wrong_amount:
        text = "The facilitator's success is not about this payment."
        return Unknown("unexpected_settle_error", text, response.transaction)
    return outcome


def book(
    ticket: Ticket, source: State, outcome: Outcome, response: StoredResponse | Held | None
) -> Flow[Serve | Deliver | Refuse]:
    """Put an outcome on record, then say how to go on."""
    try:
        if isinstance(outcome, Settled):
            return (yield from _settled(ticket, source, outcome.response, response))
        if isinstance(outcome, Refused):
            return (yield from _refused(ticket, source, outcome))
        return (yield from _unknown(ticket, source, outcome))
    except StoreError:
        transaction = outcome.response.transaction if isinstance(outcome, Settled) else outcome.transaction
        return Refuse(unrecorded(ticket, transaction))


def _settled(
    ticket: Ticket, source: State, settlement: SettlementResponse, response: StoredResponse | Held | None
) -> Flow[Serve | Deliver | Refuse]:
    now_seconds = yield from Now()
    payment = ticket.payment
    upfront = ticket.flow is PaymentFlow.UPFRONT
    entry = LedgerEntry(
        network=payment.network,
        asset=payment.asset,
        payer=payment.payer,
        pay_to=payment.pay_to,
        amount=payment.amount,
        transaction=settlement.transaction,
        posted_at=now_seconds,
    )
    if upfront:
        target = State.RUNNING if ticket.awaited else State.OWED
    elif response is None:
        target = State.REFUND_DUE
    else:
        target = State.SETTLED
    lease_seconds = SETTLE_LEASE_SECONDS if upfront else DELIVERY_LEASE_SECONDS
    # Where nobody waits, whoever comes first may have it.
    lease_until = now_seconds + lease_seconds if ticket.awaited else 0
    written = encode_json(settlement)
    moved = yield from Advance(
        ticket.payment_id,
        ticket.epoch,
        source,
        target,
        lease_until=lease_until,
        run=upfront and ticket.awaited,
        transaction=settlement.transaction,
        receipt=written.decode(),
        entry=entry,
        claim=ticket.claim,
    )
    if not moved:
        return Refuse(lost_lease(ticket))
    header = pack_json(written)
    if upfront:
        return Serve(ticket, header)
    if response is None:
        return Refuse(refund_due(ticket.payment_id, settlement.transaction))
    if response == "held":
        return Deliver(ticket, StoredResponse(0, ()), header)
    return Deliver(ticket, response, header)


def _refused(ticket: Ticket, source: State, outcome: Refused) -> Flow[Refuse]:
    moved = yield from Advance(
        ticket.payment_id,
        ticket.epoch,
        source,
        State.REFUSED,
        transaction=outcome.transaction,
        reason=outcome.reason,
    )
    if not moved:
        return Refuse(lost_lease(ticket))
    return Refuse(
        refused(ticket.payment_id, ticket.payment.network, ticket.payment.payer, outcome.reason, outcome.transaction)
    )


def _unknown(ticket: Ticket, source: State, outcome: Unknown) -> Flow[Refuse]:
    if source is not State.UNKNOWN or outcome.transaction:
        yield from Advance(
            ticket.payment_id,
            ticket.epoch,
            source,
            State.UNKNOWN,
            transaction=outcome.transaction,
            reason=outcome.reason,
        )
    return Refuse(pending(ticket, outcome.transaction))


def reconcile(ticket: Ticket, found: Known) -> Flow[Serve | Deliver | Refuse]:
    """Find out what became of an UNKNOWN payment: ask for it; settle it again only where it never arrived.

    The key of the settlement is the payment's id, so that a facilitator that knows keys answers as it did before. A
    settlement of which another caller was told (another store of this seller, say) bought an answer there, none here;
    where the facilitator takes keys and does not say whose it is, it is asked under ours.
    """
    try:
        status = yield from FindPayment(ticket.payment_id)
    except FacilitatorUnavailable:
        shown = yield from by_chain(ticket, found)
        return (yield from book(ticket, State.UNKNOWN, shown, (yield from _kept(ticket))))
    response = yield from _kept(ticket)
    if status is None:
        return (yield from _settle_again(ticket, response, found, known_there=False))
    outcome = _outcome_of(status, ticket)
    if isinstance(outcome, Settled):
        ours = yield from IsOurs(ticket.payment_id, status.idempotency_key_digest)
        if ours is None:
            return (yield from _settle_again(ticket, response, found, known_there=True))
        if not ours:
            outcome = Refused(DUPLICATE_SETTLEMENT, "", status.transaction, ticket.payment.payer)
    return (yield from book(ticket, State.UNKNOWN, outcome, response))


def reconsider(ticket: Ticket, found: Known) -> Flow[Serve | Deliver | Refuse]:
    """Ask whether a payment that was refused was settled after all: a late transfer, or a refusal that was no verdict.

    Not where the reason says that another caller was told of its success: what it bought was served there.
    Asked at most every `RECHECK_SECONDS`, whoever asks: the row's lease is the turn.
    """
    answer = refused(ticket.payment_id, ticket.payment.network, ticket.payment.payer, found.reason, found.transaction)
    now_seconds = yield from Now()
    if now_seconds <= found.lease_until or found.reason in _TOLD_ANOTHER:
        return Refuse(answer)
    until = now_seconds + RECHECK_SECONDS
    turn = yield from Advance(ticket.payment_id, found.epoch, State.REFUSED, State.REFUSED, lease_until=until)
    if not turn:
        return Refuse(answer)
    try:
        booked = yield from look_again(ticket, found)
    except FacilitatorUnavailable:
        booked = None
    return Refuse(answer) if booked is None else booked


def look_again(ticket: Ticket, found: Known) -> Flow[Serve | Deliver | Refuse | None]:
    """Look a refused payment up; None where it was not settled. Raises `FacilitatorUnavailable`."""
    if found.reason in _TOLD_ANOTHER:
        return None
    status = yield from FindPayment(ticket.payment_id)
    outcome = None if status is None else _outcome_of(status, ticket)
    if status is None or not isinstance(outcome, Settled):
        return None
    # Here doubt is a no: the refusal stands, and the payment itself is asked about again.
    if (yield from IsOurs(ticket.payment_id, status.idempotency_key_digest)) is not True:
        return None
    return (yield from book(ticket, State.REFUSED, outcome, (yield from _kept(ticket))))


def _kept(ticket: Ticket) -> Flow[StoredResponse | None]:
    """Fetch what a settled payment is to be given, where its route keeps it."""
    if ticket.stores_response and ticket.flow is PaymentFlow.AUTHORIZATION:
        return (yield from FetchResponse(ticket.payment_id))
    return None


def _settle_again(
    ticket: Ticket, response: StoredResponse | None, found: Known, *, known_there: bool
) -> Flow[Serve | Deliver | Refuse]:
    now_seconds = yield from Now()
    if now_seconds > found.valid_before + HORIZON_SECONDS and not found.transaction and not known_there:
        # The facilitator never had it, and nobody can settle it any more.
        yield from Advance(ticket.payment_id, ticket.epoch, State.UNKNOWN, State.CLOSED, reason=EXPIRED)
        return Refuse(refused(ticket.payment_id, ticket.payment.network, ticket.payment.payer, EXPIRED, ""))
    nothing_to_deliver = ticket.flow is PaymentFlow.AUTHORIZATION and response is None
    if not ticket.awaited:
        return Refuse(pending(ticket, found.transaction))
    # Without keys a repeat is refused *because* the payment settled: asking would only blur what is known.
    if nothing_to_deliver or not (yield from TakesKeys()):
        return (yield from book(ticket, State.UNKNOWN, (yield from by_chain(ticket, found)), response))
    moved = yield from Advance(
        ticket.payment_id,
        ticket.epoch,
        State.UNKNOWN,
        State.SETTLING,
        lease_until=now_seconds + SETTLE_LEASE_SECONDS,
    )
    if not moved:
        return Refuse(lost_lease(ticket))
    return (yield from settle(ticket, State.SETTLING, response, again=True))


def _outcome_of(status: PaymentStatus, ticket: Ticket) -> Outcome:
    payment = ticket.payment
    if status.state in FOUND_SETTLED and status.transaction:
        if not status.pays(network=payment.network, asset=payment.asset, pay_to=payment.pay_to, amount=payment.amount):
            return Unknown("unexpected_settle_error", "What was found is not this payment.", status.transaction)
        response = SettlementResponse(
            success=True, transaction=status.transaction, network=payment.network, payer=payment.payer
        )
        return Settled(response)
    if status.state in FOUND_REFUSED:
        return Refused(status.reason or "invalid_transaction_state", "", status.transaction, payment.payer)
    return Unknown(SETTLEMENT_PENDING, "", status.transaction)


def release(ticket: Ticket, settled: Serve | Deliver | Refuse) -> Release | Refuse:
    """Turn what `settle` said after the work into what the door does with the response that it holds."""
    if isinstance(settled, Deliver):
        return Release(ticket, settled.settlement)
    if isinstance(settled, Refuse):
        return settled
    message = "a payment that settles after the work is not served after it"
    raise AssertionError(message)


def receipt_header(receipt: str) -> str:
    """Turn a recorded receipt into the header's value; empty where it can't be read."""
    try:
        return pack_header(decode_settlement_json(receipt.encode()))
    except RemoteProtocolError:
        return ""


def pending(ticket: Ticket, transaction: str) -> Answer:
    """Say that nobody knows yet, and that the same payment is to be sent again: 402 without an offer."""
    return pending_of(ticket.payment_id, ticket.payment.network, ticket.payment.payer, transaction)


def pending_of(payment_id: str, network: str, payer: str, transaction: str) -> Answer:
    """Say the same of a payment that is on record."""
    settlement = SettlementResponse(
        success=False,
        transaction=transaction,
        network=network,
        error_reason=SETTLEMENT_PENDING,
        error_message="The settlement is not confirmed yet. Send the same payment again; do not sign another one.",
        payer=payer,
    )
    return payment_failed(
        settlement,
        kind="settlement-pending",
        title="The payment is not confirmed yet",
        detail="Send the same request with the same payment again; do not sign another one.",
        payment_id=payment_id,
        retry_after_seconds=RETRY_AFTER_SECONDS,
    )


def refused(payment_id: str, network: str, payer: str, reason: str, transaction: str) -> Answer:
    """Say that the facilitator refused to settle: 402 without an offer, since the authorisation lives on."""
    settlement = SettlementResponse(
        success=False, transaction=transaction, network=network, error_reason=reason, payer=payer or None
    )
    return payment_failed(
        settlement,
        kind="settlement-refused",
        title="The payment was refused",
        detail=f"The facilitator did not settle the payment: {reason}.",
        payment_id=payment_id,
    )


def refund_due(payment_id: str, transaction: str) -> Answer:
    """Say that the payment settled and can't be served any more."""
    detail = "The payment was settled, but its response was lost. A refund is due; name the payment and transaction."
    title = "A refund is due"
    return problem(409, "refund-due", title, detail, paymentId=payment_id, transaction=transaction)


def refunded(payment_id: str, transaction: str) -> Answer:
    """Say that the payment was paid back, by this transaction."""
    detail = "The payment was settled and could not be served. It was paid back; the transaction named is the refund's."
    title = "The payment was refunded"
    return problem(409, "payment-refunded", title, detail, paymentId=payment_id, transaction=transaction)


def lost(payment_id: str, transaction: str) -> Answer:
    """Say that the settlement was taken back with its block, and refused in the end."""
    detail = "The payment's block was lost, and it can't be settled any more. Sign a new payment for another answer."
    return problem(409, "payment-lost", "The payment was lost", detail, paymentId=payment_id, transaction=transaction)


def lost_lease(ticket: Ticket) -> Answer:
    """Say that another process took the payment over while this one was busy."""
    detail = "Another request with this payment has taken over. Send the same request with the same payment again."
    return problem(
        409,
        "payment-in-progress",
        "The payment is being served",
        detail,
        retry_after_seconds=RETRY_AFTER_SECONDS,
        paymentId=ticket.payment_id,
    )


def unrecorded(ticket: Ticket, transaction: str) -> Answer:
    """Say that the books can't be written: nothing is served on what is not on record."""
    detail = "What became of the payment can't be recorded now. Send the same request with the same payment again."
    return problem(
        503,
        "store-unavailable",
        "The payment can't be recorded now",
        detail,
        retry_after_seconds=RETRY_AFTER_OUTAGE_SECONDS,
        paymentId=ticket.payment_id,
        transaction=transaction,
    )
