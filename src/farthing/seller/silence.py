"""What a process asks that was silent for a while: whether a payment is its own still (decision 023).

A process whose heart is not known to have beaten may have been taken for dead. Its moves then fail by themselves, since
each names state and epoch; what no statement can hold back, it asks about first.
"""

from __future__ import annotations

import msgspec

from farthing.flow import Flow, Now
from farthing.seller.settling import DELIVERY_LEASE_SECONDS, SETTLE_LEASE_SECONDS
from farthing.seller.states import State
from farthing.seller.store import Advance, Holds
from farthing.seller.ticket import Ticket


def still_ours(ticket: Ticket, state: State, *, number: int) -> Flow[Ticket | None]:
    """Ask, before bytes are sent or a settlement is asked for, whose a payment is: None where another has taken it.

    Nothing is asked where nobody can have taken the process for dead since `number`. Else the payment is taken anew,
    and gets a new epoch: who found it free before, and comes after, moves nothing. Raises `StoreError`.
    """
    if (yield from Holds(number)):
        return ticket
    now_seconds = yield from Now()
    seconds = DELIVERY_LEASE_SECONDS if state is State.SETTLED else SETTLE_LEASE_SECONDS
    taken = yield from Advance(
        ticket.payment_id,
        ticket.epoch,
        state,
        state,
        lease_until=now_seconds + seconds,
        take_over=True,
        claim=ticket.claim,
    )
    return msgspec.structs.replace(ticket, epoch=ticket.epoch + 1) if taken else None
