"""Conclude: what follows the work. Held answers wait for their settlement; streamed ones are finished."""

from __future__ import annotations

from typing import Final

import msgspec

from farthing.errors import StoreError
from farthing.flow import Flow, Now
from farthing.seller.answers import spoken
from farthing.seller.known import RUNS_MAX
from farthing.seller.settling import SETTLE_LEASE_SECONDS, lost_lease, release, settle, unrecorded
from farthing.seller.silence import still_ours
from farthing.seller.states import PaymentFlow, State
from farthing.seller.store import Advance, LookUp, MarkDelivered, StoredResponse
from farthing.seller.ticket import Deliver, Refuse, Release, Serve, Ticket

_SUCCESS: Final = range(200, 300)
# The reason on a payment whose answer was cut after a part of it had left: how much was served is for a person to say.
ANSWER_CUT: Final = "answer_cut"


def succeeded(status: int) -> bool:
    """Tell whether the work is to be charged: a 2xx. A redirect, a 304 or an error costs nothing."""
    return status in _SUCCESS


def conclude(ticket: Ticket, response: StoredResponse) -> Flow[Release | Refuse]:
    """Record a held 2xx response, settle, and say what goes out (`authorization`).

    The record and the intent to settle are one commit; a route that keeps no response has its intent on record since
    the claim.
    """
    conclusion = yield from _conclude(ticket, response)
    return Refuse(spoken(conclusion.answer, ticket.wire)) if isinstance(conclusion, Refuse) else conclusion


def _conclude(ticket: Ticket, response: StoredResponse) -> Flow[Release | Refuse]:
    if not ticket.stores_response:
        # The intent is on record since the claim: nothing but this keeps a process that was silent from settling.
        ours = yield from _ours(ticket, State.SETTLING)
        if isinstance(ours, Refuse):
            return ours
        return (yield from _release(ours, (yield from settle(ours, State.SETTLING, "held"))))
    now_seconds = yield from Now()
    try:
        moved = yield from Advance(
            ticket.payment_id,
            ticket.epoch,
            State.CLAIMED,
            State.SETTLING,
            lease_until=now_seconds + SETTLE_LEASE_SECONDS,
            response=response,
            claim=ticket.claim,
        )
    except StoreError:
        return Refuse(unrecorded(ticket, ""))
    if not moved:
        return Refuse(lost_lease(ticket))
    return (yield from _release(ticket, (yield from settle(ticket, State.SETTLING, response))))


def _release(ticket: Ticket, settled: Serve | Deliver | Refuse) -> Flow[Release | Refuse]:
    """Let an answer out that is settled, unless another has the delivery by now."""
    conclusion = release(ticket, settled)
    if isinstance(conclusion, Refuse):
        return conclusion
    ours = yield from _ours(ticket, State.SETTLED)
    return ours if isinstance(ours, Refuse) else msgspec.structs.replace(conclusion, ticket=ours)


def _ours(ticket: Ticket, state: State) -> Flow[Ticket | Refuse]:
    try:
        ours = yield from still_ours(ticket, state, number=ticket.claim)
        return Refuse(lost_lease(ticket)) if ours is None else ours
    except StoreError:
        return Refuse(unrecorded(ticket, transaction=""))


def abandon(ticket: Ticket) -> Flow[bool]:
    """Let a payment go whose work failed, uncharged (`authorization`). True: it is on record; False: so will it be.

    Where the note can't be written the lease runs out, with the same result: an authorisation that nobody settles.
    """
    source = State.CLAIMED if ticket.stores_response else State.SETTLING
    try:
        return (yield from Advance(ticket.payment_id, ticket.epoch, source, State.VOID))
    except StoreError:
        return False


def finish(ticket: Ticket, *, complete: bool, begun: bool = False) -> Flow[None]:
    """Note how the work of a settled payment ended (`upfront`): delivered, owed still, or to be refunded.

    `begun`: a part of a good answer had left. A client that reads all but the end would have its money back, were that
    paid back unasked: the reason stays on record, over later runs too.
    """
    if complete:
        yield from MarkDelivered(ticket.payment_id, ticket.epoch, State.RUNNING, ticket.claim)
        return
    try:
        found = yield from LookUp(ticket.payment_id)
        again = ticket.idempotent and found is not None and found.runs < RUNS_MAX
        target = State.OWED if again else State.REFUND_DUE
        reason = ANSWER_CUT if begun else ""
        yield from Advance(ticket.payment_id, ticket.epoch, State.RUNNING, target, reason=reason)
    except StoreError:
        # The lease runs out, with the same result.
        return


def keep(ticket: Ticket) -> Flow[bool]:
    """Renew the lease on a run that goes on (`upfront`): while it does, no copy of its request is another run.

    False: the run is over, or another's.
    """
    now_seconds = yield from Now()
    until = now_seconds + SETTLE_LEASE_SECONDS
    return (yield from Advance(ticket.payment_id, ticket.epoch, State.RUNNING, State.RUNNING, lease_until=until))


def not_begun(ticket: Ticket) -> Flow[None]:
    """Note that a settled payment's work was not begun, since its client had gone: the same payment runs it."""
    try:
        yield from Advance(ticket.payment_id, ticket.epoch, State.RUNNING, State.OWED)
    except StoreError:
        return


def delivered(ticket: Ticket, *, spooled: bool = True) -> Flow[None]:
    """Note that all bytes of a settled answer went out; `spooled` False: no file was kept of it."""
    source = State.RUNNING if ticket.flow is PaymentFlow.UPFRONT else State.SETTLED
    keep = ticket.identifier != ""
    yield from MarkDelivered(ticket.payment_id, ticket.epoch, source, ticket.claim, spooled, keep)


def undelivered(ticket: Ticket) -> Flow[None]:
    """Give the delivery back at once, since its client has gone: the same payment gets the answer when it returns."""
    try:
        yield from Advance(ticket.payment_id, ticket.epoch, State.SETTLED, State.SETTLED)
    except StoreError:
        return
