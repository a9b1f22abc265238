"""What travels between the seller's flows and the door: a ticket through the work, and what to do next."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from farthing.protocol.messages import PaymentPayload
from farthing.protocol.versions import CURRENT
from farthing.protocol.wire import Wire
from farthing.seller.answers import Answer
from farthing.seller.payment import Payment
from farthing.seller.states import PaymentFlow
from farthing.seller.store import StoredResponse


class Ticket(msgspec.Struct, frozen=True, gc=False):
    """A claimed payment on its way through the work. Who holds it, and only at its epoch, may move the payment.

    `identifier` is the scope of the client's payment-identifier, empty where it sent none that counts here. `claim` is
    the store's number of the claim; `wire` is what this request came over, and its answer goes out over.
    """

    payment: Payment
    payload: PaymentPayload
    epoch: int
    flow: PaymentFlow
    idempotent: bool
    stores_response: bool
    shared_cache: bool
    wire: Wire = CURRENT
    claim: int = 0
    identifier: str = ""
    # False where nobody waits for the answer: what is found out is put on record, and no work is begun.
    awaited: bool = True

    @property
    def payment_id(self) -> str:
        """The payment's id."""
        return self.payment.payment_id


class Refuse(msgspec.Struct, frozen=True):
    """Answer this; run nothing."""

    answer: Answer


class Serve(msgspec.Struct, frozen=True, gc=False):
    """Run the work, and conclude with what it answered.

    `settlement` is the PAYMENT-RESPONSE of a payment that is settled already (`upfront`): its answer streams, and
    `finish` concludes. It is empty where the payment is settled after the work: the answer is held until `conclude`.
    """

    ticket: Ticket
    settlement: str = ""


class Deliver(msgspec.Struct, frozen=True, gc=False):
    """Send this response from the record; the work was done before. `settlement` is its PAYMENT-RESPONSE."""

    ticket: Ticket
    response: StoredResponse
    settlement: str


class Release(msgspec.Struct, frozen=True, gc=False):
    """Send the held response, with `settlement` as PAYMENT-RESPONSE; empty: it goes out uncharged."""

    ticket: Ticket
    settlement: str


Verdict: TypeAlias = Refuse | Serve | Deliver
Conclusion: TypeAlias = Release | Refuse
