"""Payments with a `payment-identifier`: the client's id, under which a repeat gets the earlier answer (SAFETY S7).

The id is looked up before verification, and bound to payment and request in the commit that claims them. It opens
nothing alone: only the same signed payment, for the same request, is given the earlier answer. Its scope is the payer
and the route. Routes that keep no response take no ids, since there is nothing that they could give again.
"""

from __future__ import annotations

import hashlib
from typing import Final

from farthing.errors import ConfigError, RemoteProtocolError
from farthing.flow import Flow, Now, Sleep
from farthing.mechanisms.interface import SignedPayment
from farthing.protocol.messages import PaymentPayload
from farthing.protocol.payment_identifier import NAME, identifier_of
from farthing.seller.answers import Answer, bad_payment, problem
from farthing.seller.request import Request
from farthing.seller.states import PaymentFlow, Relation, Reply, State, Taking, reply_of
from farthing.seller.store import FindIdentifier, Known, LookUp

# How long a repeat waits for the first request: longer than a settlement takes, shorter than clients and proxies wait.
WAIT_SECONDS: Final = 30.0
# How often it looks: soon at first, since most handlers are quick, then at the pace of blocks.
FIRST_LOOK_SECONDS: Final = 0.05
LOOK_MAX_SECONDS: Final = 1.0

# States in which nothing of a payment can be settled any more: its id is free for another one.
FREE: Final = frozenset({State.VOID, State.ABORTED, State.CLOSED})


def takes(said: str, flow: PaymentFlow, *, stores_response: bool, on_credit: bool = False) -> Taking:
    """Say whether a route takes ids: by default where it has an answer to give again. Raises `ConfigError`.

    A route that is paid `on_credit` alone keeps answers for this only, so that somebody has to say so.
    """
    keeps = stores_response and flow is PaymentFlow.AUTHORIZATION
    if said == "":
        return Taking.OPTIONAL if keeps and not on_credit else Taking.OFF
    if said not in set(Taking):
        message = f"payment_identifier is {said!r}; it is 'optional', 'required' or 'off'."
        raise ConfigError(message)
    if said != Taking.OFF and not keeps:
        message = (
            "payment_identifier: a route that keeps no response (upfront, store_response=False) has none to repeat."
        )
        raise ConfigError(message)
    return Taking(said)


def scope_of(request: Request, payment: PaymentPayload, signed: SignedPayment) -> str | Answer:
    """Read the id and give its scope, the key under which the store knows it: empty where there is none.

    The answer to one that is no id, or missing where there has to be one, is a 400.
    """
    return scope_for(request, payment, signed.network, signed.payer)


def scope_for(request: Request, payment: PaymentPayload, network: str, payer: str) -> str | Answer:
    """As `scope_of`, for the payer of one network."""
    taking = request.route.payment_identifier
    if taking is Taking.OFF:
        return ""
    try:
        identifier = identifier_of(payment.extensions)
    except RemoteProtocolError as error:
        return bad_payment(error.message, error.path)
    if identifier == "":
        if taking is Taking.REQUIRED:
            path = f"$.extensions.{NAME}.info.id"
            return bad_payment("this route requires a payment-identifier; echo the extension and append an id", path)
        return ""
    text = f"{network}\n{payer.lower()}\n{request.route.name}\n{identifier}"
    return hashlib.sha256(text.encode()).hexdigest()


def judge(scope: str | Answer, signed: SignedPayment) -> Flow[str | Answer | None]:
    """Look an id up before anything else: gives the payment that it belongs to, or None.

    An answer is given to a request that has no id where there must be one, or one of another payment that may count.
    """
    if isinstance(scope, Answer):
        return scope
    bound = yield from FindIdentifier(scope)
    if bound is None or bound == signed.payment_id:
        return bound
    found = yield from LookUp(bound)
    return None if found is None or found.state in FREE else taken()


def wait(found: Known) -> Flow[Known | None]:
    """Wait for the first request with this payment and id; gives what is known then, None where it takes too long.

    It is over, too, where the first one's lease is: then its process is taken for crashed.
    """
    waited, pause = 0.0, FIRST_LOOK_SECONDS
    while waited < WAIT_SECONDS:
        yield from Sleep(pause)
        waited += pause
        pause = min(2 * pause, LOOK_MAX_SECONDS)
        known = yield from LookUp(found.payment_id)
        now_seconds = yield from Now()
        if known is None or now_seconds > known.lease_until:
            return known
        if reply_of(known.state, Relation.SAME, identified=True) is not Reply.WAIT:
            return known
    return None


def taken() -> Answer:
    """Say that another payment has the id; which one, or what it bought, is nobody's to ask by an id alone."""
    detail = (
        "This payment-identifier belongs to another payment or another request of yours. Send the payment that it was "
        "first sent with, or take another id."
    )
    return problem(409, "payment-conflict", "The payment-identifier is taken", detail)
