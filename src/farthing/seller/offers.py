"""The offers of a route for a request, and whether a payment was made for one of them (SAFETY S4)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec

from farthing.errors import RemoteProtocolError
from farthing.evm.addresses import AddressInvalid, parse_address
from farthing.mechanisms.interface import Refusal, SellerMechanism, SignedPayment
from farthing.protocol.messages import PaymentPayload, PaymentRequired, PaymentRequirements, ResourceInfo
from farthing.protocol.payment_identifier import NAME, declaration
from farthing.seller.request import Request, normal_url
from farthing.seller.routes import Route
from farthing.seller.states import Taking

_ADDRESS_CHARS: Final = 42
# Routes whose offers are remembered: more than a seller writes down.
_ROUTES_REMEMBERED_MAX: Final = 1_024
_DECLARED: Final = {
    taking: {NAME: declaration(required=taking is Taking.REQUIRED)} for taking in (Taking.OPTIONAL, Taking.REQUIRED)
}


class Offered(msgspec.Struct, frozen=True, gc=False):
    """One offer that this route makes for this request, with the mechanism that it is paid by."""

    mechanism: SellerMechanism
    requirements: PaymentRequirements


class Mismatch(msgspec.Struct, frozen=True):
    """Why a payment was not made for any of the offers: the reason code, and the field that differs.

    `network` is where it would be paid.
    """

    reason: str
    field: str
    message: str
    network: str = ""


class Matched(msgspec.Struct, frozen=True, gc=False):
    """A payment, read, with the offer that it was made for."""

    payment: PaymentPayload
    signed: SignedPayment
    offer: Offered


def offers_for(request: Request) -> tuple[Offered, ...]:
    """Make the route's offers for this request, callable prices computed anew. Raises what a callable raises."""
    fixed = _fixed_offers(request.route)
    if fixed is not None:
        return fixed
    ways = request.route.ways
    return tuple(
        [Offered(way.mechanism, way.requirements(request.facts) if way.fixed is None else way.fixed) for way in ways]
    )


@lru_cache(maxsize=_ROUTES_REMEMBERED_MAX)
def _fixed_offers(route: Route) -> tuple[Offered, ...] | None:
    """Make the offers of a route whose every price is fixed, once; None for another."""
    made = [Offered(way.mechanism, way.fixed) for way in route.ways if way.fixed is not None]
    return tuple(made) if len(made) == len(route.ways) else None


def payment_required_for(request: Request, offers: tuple[Offered, ...], error: str) -> PaymentRequired:
    """Make the 402's message."""
    route = request.route
    resource = ResourceInfo(url=request.url, description=route.description, mime_type=route.mime_type)
    accepts = tuple(each.requirements for each in offers)
    return PaymentRequired(resource=resource, accepts=accepts, error=error, extensions=extensions_of(route))


def extensions_of(route: Route) -> dict[str, Any] | None:
    """Say which extensions the route's offers have."""
    taking = route.payment_identifier
    return None if taking is Taking.OFF else _DECLARED[taking]


def match_payment(
    possible: Sequence[PaymentPayload], request: Request, offers: tuple[Offered, ...]
) -> Matched | Mismatch:
    """Find the one offer that a payment belongs to.

    `possible` has one reading where the payment says what it accepted. Where it does not, it belongs to the offer that
    its network, payee, value and signature fit, if that is one alone: each reading is checked as of the moment at
    which it was made, so that the answer does not depend on the clock. Raises `RemoteProtocolError` for a payment that
    can't be read.
    """
    fitting: list[Matched] = []
    against: Refusal | None = None
    for payment in possible:
        offer = match_offer(payment, request, offers)
        if isinstance(offer, Mismatch):
            return offer
        matched = Matched(payment, offer.mechanism.read(payment), offer)
        if request.wire.names_offer:
            return matched
        refusal = _misfit(matched)
        if refusal is not None:
            against = refusal
        elif not any(each.offer is offer for each in fitting):
            fitting.append(matched)
    if len(fitting) > 1:
        # Two tokens at one price: the payer's own signature was made for one of them.
        fitting = [each for each in fitting if _is_signed(each)] or fitting
    if len(fitting) == 1:
        return fitting[0]
    network = (possible[0].accepted if possible else offers[0].requirements).network
    if len(possible) == 1 and against is not None:
        return Mismatch(against.reason, "$.payload", against.message, network)
    what = "fits several of them" if fitting else "fits none of them"
    message = f"the payment does not say which offer of this request it is for, and {what}"
    return Mismatch("invalid_payment_requirements", "$", message, network)


def _misfit(matched: Matched) -> Refusal | None:
    signed, offer = matched.signed, matched.offer
    made_at = max(signed.valid_after, signed.valid_before - offer.requirements.max_timeout_seconds)
    return offer.mechanism.check(signed, offer.requirements, now_seconds=made_at)


def _is_signed(matched: Matched) -> bool:
    offer = matched.offer
    return offer.mechanism.check_signature(matched.signed, offer.requirements) is None


def match_offer(payment: PaymentPayload, request: Request, offers: tuple[Offered, ...]) -> Offered | Mismatch:
    """Find the offer that a payment accepted, as it stands today for this request.

    Raises `RemoteProtocolError` where an address has a wrong checksum or the resource's URL is none.
    """
    accepted, resource = payment.accepted, payment.resource
    if resource is None or resource.url == request.url:
        # Echoed as it was offered, which is what clients do: nothing about it is left to be checked.
        for offer in offers:
            if _echoes(accepted, offer.requirements):
                return offer
    for field, text in (("asset", accepted.asset), ("payTo", accepted.pay_to)):
        _check_address(text, f"$.accepted.{field}")
    if resource is not None and normal_url(resource.url) != normal_url(request.url):
        message = f"the payment was made for another resource; this one is {request.url}"
        return Mismatch("invalid_payment_requirements", "$.resource.url", message, accepted.network)
    nearest = "$.accepted"
    for offer in offers:
        difference = first_difference(offer.requirements, accepted)
        if difference is None:
            return offer
        if len(offers) == 1:
            nearest = difference
    message = f"the payment accepted an offer that is not made for this request ({nearest[2:]} differs)"
    return Mismatch("invalid_payment_requirements", nearest, message, accepted.network)


def _echoes(theirs: PaymentRequirements, ours: PaymentRequirements) -> bool:
    """Tell whether two requirements are the same in every member, and in the type of every member of `extra`."""
    # Only what `_same_json` need not look into: in Python True == 1, and so would be what stands inside of a list.
    if theirs != ours:
        return False
    for value in (theirs.extra or {}).values():  # noqa: SIM110 - a loop takes half of what a generator does
        if type(value) is not str:
            return False
    return True


def first_difference(ours: PaymentRequirements, theirs: PaymentRequirements) -> str | None:
    """Give the JSON path of the first member in which what was accepted is not what was offered, or None.

    Addresses are compared without their case; `extra` must contain all of ours.
    """
    same = {
        "scheme": ours.scheme == theirs.scheme,
        "network": ours.network == theirs.network,
        "amount": ours.amount == theirs.amount,
        "asset": _same_address(ours.asset, theirs.asset),
        "payTo": _same_address(ours.pay_to, theirs.pay_to),
        "maxTimeoutSeconds": ours.max_timeout_seconds == theirs.max_timeout_seconds,
    }
    for member, is_same in same.items():
        if not is_same:
            return f"$.accepted.{member}"
    theirs_extra = theirs.extra or {}
    for key, value in (ours.extra or {}).items():
        if key not in theirs_extra or not _same_json(theirs_extra[key], value):
            return f"$.accepted.extra.{key}"
    return None


def _same_json(one: Any, other: Any) -> bool:
    # In Python True == 1; in JSON it is not.
    return type(one) is type(other) and bool(one == other)


def _same_address(one: str, other: str) -> bool:
    if one == other:
        return True
    if len(one) != _ADDRESS_CHARS or not one.lower().startswith("0x"):
        return False
    return one.lower() == other.lower()


def _check_address(text: str, path: str) -> None:
    if len(text) != _ADDRESS_CHARS or not text.lower().startswith("0x"):
        return
    try:
        parse_address(text)
    except AddressInvalid as error:
        raise RemoteProtocolError(str(error), path=path) from None
