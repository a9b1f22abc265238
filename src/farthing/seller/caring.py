"""Caring for payments that nobody asks for: their owner crashed, their buyer does not come back, or they are over.

Who comes back finds the payment where it belongs, and what was settled is in the books without anybody's asking.
Nothing is settled from here: that takes the payment itself, which only its buyer has.
"""

from __future__ import annotations

from typing import Final

import msgspec

from farthing.errors import FacilitatorUnavailable
from farthing.flow import Flow, Now
from farthing.protocol.messages import PaymentPayload, PaymentRequirements, amount_of
from farthing.seller.following import UNTOLD_SECONDS, follow
from farthing.seller.known import move_on
from farthing.seller.payment import Payment
from farthing.seller.settling import HORIZON_SECONDS, look_again, reconcile
from farthing.seller.states import State
from farthing.seller.store import Advance, Archive, FindStale, Stale
from farthing.seller.ticket import Ticket

# Payments of one round. A restart after a crash finds what was under way, some hundreds at most; the rest is next.
ROUND_MAX: Final = 200
# How soon an unknown payment is looked up again without anybody's asking: its buyer may ask as often as it likes.
LOOK_AGAIN_SECONDS: Final = 30
# Payments that one statement moves away: a transaction stays short, so that claims don't wait for it.
ARCHIVE_MAX: Final = 500


class Cared(msgspec.Struct, frozen=True):
    """What a round came to: how many payments were touched, and the ids of those that are lost.

    `followed_after` is the claim behind which the next round follows settled payments.
    """

    touched: int
    losses: tuple[str, ...]
    followed_after: int = 0


def care(*, limit: int = ROUND_MAX, followed_after: int = 0) -> Flow[Cared]:
    """Move what nobody works on to where it belongs, and what is over out of the way."""
    now_seconds = yield from Now()
    closing_before = now_seconds - HORIZON_SECONDS
    stale = yield from FindStale(now_seconds, closing_before, limit)
    for each in stale:
        yield from _care_for(each)
    followed = yield from follow(after=followed_after)
    archived = yield from Archive(closing_before, ARCHIVE_MAX, followed.over)
    return Cared(len(stale) + followed.moved + archived, followed.losses, followed.next_after)


def _care_for(stale: Stale) -> Flow[None]:
    found = stale.known
    now_seconds = yield from Now()
    if found.state is State.REFUSED:
        # Asked once more before it is closed: after that its buyer is offered to pay anew.
        try:
            yield from look_again(_ticket(stale), found)
        except FacilitatorUnavailable:
            if now_seconds <= found.valid_before + HORIZON_SECONDS + UNTOLD_SECONDS:
                # Behind all others: a facilitator without `/payments` never tells of any.
                until = now_seconds + LOOK_AGAIN_SECONDS
                yield from Advance(found.payment_id, found.epoch, State.REFUSED, State.REFUSED, lease_until=until)
                return
        yield from move_on(found, now_seconds=now_seconds)
    elif found.state is not State.UNKNOWN:
        yield from move_on(found, now_seconds=now_seconds)
    else:
        until = now_seconds + LOOK_AGAIN_SECONDS
        turn = yield from Advance(found.payment_id, found.epoch, State.UNKNOWN, State.UNKNOWN, lease_until=until)
        if turn:
            yield from reconcile(_ticket(stale), found)


def _ticket(stale: Stale) -> Ticket:
    """Make a ticket of what is on record, for the books alone: the payment itself is not there to be settled."""
    found = stale.known
    requirements = PaymentRequirements(
        scheme="exact",
        network=found.network,
        amount=amount_of(stale.amount),
        asset=stale.asset,
        pay_to=stale.pay_to,
        max_timeout_seconds=0,
    )
    payment = Payment(
        payment_id=found.payment_id,
        payer=found.payer,
        pay_to=stale.pay_to,
        amount=stale.amount,
        asset=stale.asset,
        network=found.network,
        requirements=requirements,
    )
    return Ticket(
        payment=payment,
        payload=PaymentPayload(accepted=requirements, payload=msgspec.Raw(b"{}")),
        epoch=found.epoch,
        flow=found.flow,
        idempotent=found.idempotent,
        stores_response=found.stores_response,
        shared_cache=False,
        claim=found.claim,
        awaited=False,
    )
