"""A payment that the store knows already: what a second request with it is answered (`states.SECOND_REQUEST`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from farthing.errors import StoreError
from farthing.flow import Flow
from farthing.seller.answers import RETRY_AFTER_SECONDS, Answer, problem
from farthing.seller.settling import (
    DELIVERY_LEASE_SECONDS,
    HORIZON_SECONDS,
    SETTLE_LEASE_SECONDS,
    lost,
    lost_lease,
    pending_of,
    receipt_header,
    reconcile,
    reconsider,
    refund_due,
    refunded,
    refused,
    unrecorded,
)
from farthing.seller.silence import still_ours
from farthing.seller.states import Relation, Reply, State, after_lease, reply_of
from farthing.seller.store import Advance, FetchResponse, Known
from farthing.seller.ticket import Deliver, Refuse, Serve, Ticket

# How often the handler of a settled payment may fail before a refund is due.
RUNS_MAX: Final = 3


def reply_to(found: Known, relation: Relation, *, identified: bool = False) -> Reply:
    """Look the answer up in the tables; `identified` where the request has the id that the payment was claimed with."""
    return reply_of(found.state, relation, identified=identified)


def move_on(found: Known, *, now_seconds: int) -> Flow[bool]:
    """Move a payment whose owner crashed, or whose horizon is over, to where it belongs. True: look again."""
    if found.state is State.REFUSED and now_seconds > found.valid_before + HORIZON_SECONDS:
        yield from Advance(found.payment_id, found.epoch, State.REFUSED, State.CLOSED)
        return True
    if now_seconds <= found.lease_until:
        return False
    target = after_lease(
        found.state,
        flow=found.flow,
        idempotent=found.idempotent,
        stores_response=found.stores_response,
        runs_left=found.runs < RUNS_MAX,
    )
    if target is None:
        return False
    yield from Advance(found.payment_id, found.epoch, found.state, target, take_over=True)
    return True


def resume(ticket: Ticket, found: Known, reply: Reply, *, now_seconds: int) -> Flow[Serve | Deliver | Refuse]:
    """Go on with a payment that is settled, owed or unknown, for the request that it was made for."""
    verdict = yield from _resume(ticket, found, reply, now_seconds=now_seconds)
    if not isinstance(verdict, Deliver) or reply is Reply.REPEAT:
        return verdict
    try:
        ours = yield from still_ours(verdict.ticket, State.SETTLED, number=found.claim)
    except StoreError:
        return Refuse(unrecorded(verdict.ticket, found.transaction))
    return Refuse(lost_lease(verdict.ticket)) if ours is None else msgspec.structs.replace(verdict, ticket=ours)


def _resume(ticket: Ticket, found: Known, reply: Reply, *, now_seconds: int) -> Flow[Serve | Deliver | Refuse]:
    # The record's own terms count, whatever the route says today.
    ticket = msgspec.structs.replace(
        ticket, flow=found.flow, idempotent=found.idempotent, stores_response=found.stores_response
    )
    going_on = _GOING_ON.get(reply)
    if going_on is not None:
        return (yield from going_on(ticket, found))
    if reply is Reply.DELIVER and now_seconds <= found.lease_until:
        return Refuse(refusal(found, Reply.IN_PROGRESS))
    source, target = (State.OWED, State.RUNNING) if reply is Reply.RUN else (State.SETTLED, State.SETTLED)
    seconds = SETTLE_LEASE_SECONDS if reply is Reply.RUN else DELIVERY_LEASE_SECONDS
    taken = yield from Advance(
        found.payment_id,
        found.epoch,
        source,
        target,
        lease_until=now_seconds + seconds,
        take_over=True,
        run=reply is Reply.RUN,
    )
    if not taken:
        return Refuse(refusal(found, Reply.IN_PROGRESS))
    mine = msgspec.structs.replace(ticket, epoch=found.epoch + 1)
    header = receipt_header(found.receipt)
    if reply is Reply.RUN:
        return Serve(mine, header)
    response = yield from FetchResponse(found.payment_id)
    if response is None:
        return Refuse(refund_due(found.payment_id, found.transaction))
    return Deliver(mine, response, header)


def _repeat(ticket: Ticket, found: Known) -> Flow[Serve | Deliver | Refuse]:
    """Give the earlier answer again, with its receipt: the delivery is on record already, and stays as it is."""
    response = yield from FetchResponse(found.payment_id)
    if response is None:
        return Refuse(refusal(found, Reply.SERVED))
    return Deliver(ticket, response, receipt_header(found.receipt))


_GOING_ON: Final[Mapping[Reply, Callable[[Ticket, Known], Flow[Serve | Deliver | Refuse]]]] = MappingProxyType(
    {Reply.PENDING: reconcile, Reply.ASK: reconsider, Reply.REPEAT: _repeat}
)


def _not_settled(found: Known, reply: Reply) -> Answer:
    if reply is Reply.REFUSED:
        return refused(found.payment_id, found.network, found.payer, found.reason, found.transaction)
    return pending_of(found.payment_id, found.network, found.payer, found.transaction)


_AFTER_SETTLEMENT: Final[Mapping[Reply, Callable[[str, str], Answer]]] = MappingProxyType(
    {Reply.REFUND: refund_due, Reply.REFUNDED: refunded, Reply.LOSS: lost}
)


def refusal(found: Known, reply: Reply) -> Answer:
    """Write the answer to a request that is neither served nor claimed; it names the payment."""
    if reply is Reply.REFUSED or reply is Reply.DOUBTED:
        return _not_settled(found, reply)
    if reply in _AFTER_SETTLEMENT:
        return _AFTER_SETTLEMENT[reply](found.payment_id, found.transaction)
    if reply is Reply.NOT_CHARGED:
        detail = "The handler was cut short by a crash and this payment was not charged. Sign a new payment."
        return problem(409, "payment-aborted", "Not charged", detail, paymentId=found.payment_id)
    if reply is Reply.SERVED:
        detail = "This payment was settled and served already. A payment buys one answer; sign a new one for another."
        kind, title = "payment-used", "The payment was used already"
        return problem(409, kind, title, detail, paymentId=found.payment_id, transaction=found.transaction)
    if reply is Reply.CONFLICT or reply is Reply.CONFLICT_NAMED:
        detail = "This payment identity is taken by another request or by another signature. Sign a new payment."
        named = found.transaction if reply is Reply.CONFLICT_NAMED else ""
        kind, title = "payment-conflict", "The payment identity is taken"
        return problem(409, kind, title, detail, paymentId=found.payment_id, transaction=named)
    return in_progress(found.payment_id, "The first request with this payment is being served.", found.transaction)


def in_progress(payment_id: str, detail: str, transaction: str = "") -> Answer:
    """Say that another request with this payment is on its way, and when to ask again."""
    return problem(
        409,
        "payment-in-progress",
        "The payment is being served",
        detail,
        retry_after_seconds=RETRY_AFTER_SECONDS,
        paymentId=payment_id,
        transaction=transaction,
    )
