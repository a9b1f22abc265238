"""The buyer's first flow: from a 402 to a paid request, with the signed payload on record before it leaves.

The second flow, from the answer to a verdict, is `farthing.buyer.verdict`. Between them travels a `PaidRequest`; the
door sends it.
"""

from __future__ import annotations

import hashlib
from typing import Final
from urllib.parse import urlsplit

import msgspec

from farthing.buyer.choice import Candidate, Choice, choose, shown
from farthing.buyer.journal import (
    FindOpen,
    OpenPayment,
    OverBudget,
    PresentAgain,
    RecordPayment,
    Release,
    Reserve,
)
from farthing.buyer.policy import Policy, fold_asset, fold_host, show_value
from farthing.errors import FarthingError, LocalProtocolError, NoAcceptableOffer, PolicyRefused, RemoteProtocolError
from farthing.flow import Flow, Now, RandomBytes
from farthing.mechanisms.interface import BuyerMechanism, PreparedPayment
from farthing.mechanisms.registry import Registry
from farthing.networks import Networks
from farthing.protocol import versions
from farthing.protocol.codec import ReceivedOffers
from farthing.protocol.messages import PaymentRequirements
from farthing.protocol.versions import CURRENT
from farthing.protocol.wire import Wire

_PURCHASE_ID_BYTES: Final = 16
# Offers whose reasons one error message tells; the others are counted.
_REASONS_SHOWN_MAX: Final = 6


class Terms(msgspec.Struct, frozen=True):
    """What a buyer is made of, as far as its flows must know: policy, faces, our own table of tokens, its address."""

    policy: Policy
    mechanisms: Registry[BuyerMechanism]
    networks: Networks
    payer: str


class RequestFacts(msgspec.Struct, frozen=True):
    """A request as a purchase: `url` without credentials and fragment, `request_print` over method, URL and body."""

    method: str
    url: str
    host: str
    request_print: str


class PaymentDemand(msgspec.Struct, frozen=True):
    """A 402 as it came: the PAYMENT-REQUIRED header, or None, and the beginning of the body."""

    header: str | None
    body: bytes = b""


class PaidRequest(msgspec.Struct, frozen=True):
    """What the door sends: the request again, with `header` as its `wire.payment_header`. It is on record.

    `offer` is what was accepted, or None where an earlier payment for this very request is presented again.
    """

    purchase_id: str
    payment_id: str
    header: str
    network: str
    payer: str
    valid_before: int
    offer: PaymentRequirements | None
    choice: Choice | None
    wire: Wire = CURRENT

    @property
    def again(self) -> bool:
        """True where this payment has been sent before."""
        return self.offer is None


def describe_request(method: str, url: str, body: bytes) -> RequestFacts:
    """Give a request its print: SHA-256 over method, URL and the body's SHA-256."""
    method = method.upper()
    parts = urlsplit(url)
    netloc = parts.netloc.rpartition("@")[2]
    plain = parts._replace(netloc=netloc, fragment="").geturl()
    seen = msgspec.json.encode([method, plain, hashlib.sha256(body).hexdigest()])
    return RequestFacts(method, plain, fold_host(parts.hostname or ""), hashlib.sha256(seen).hexdigest())


def prepare(terms: Terms, request: RequestFacts, demand: PaymentDemand) -> Flow[PaidRequest]:
    """Decide whether and what to pay, sign it, and put it on record.

    Where a payment for this very request was sent and nobody knows what became of it (or it was refused and its
    window is open), that same payload is presented again: two payments for one purchase can't happen.

    Raises `PolicyRefused`, `NoAcceptableOffer`, `SignerError` and `StoreError`; nothing has been sent then.
    """
    _check_request(terms.policy, request)
    wire, received = _read(demand)
    now_seconds = yield from Now()
    found = yield from FindOpen(request.request_print, terms.payer, now_seconds)
    if found is not None:
        return (yield from _present_again(found))
    choice = choose(received, policy=terms.policy, mechanisms=terms.mechanisms, networks=terms.networks)
    if not choice.candidates:
        raise _nothing_to_pay(received, choice)
    best = choice.candidates[0]
    purchase_id = (yield from RandomBytes(_PURCHASE_ID_BYTES)).hex()
    reserved = yield from _reservation(terms, request, best, purchase_id, now_seconds)
    if isinstance(reserved, OpenPayment):
        return (yield from _present_again(reserved))
    if isinstance(reserved, OverBudget):
        raise _over_budget(terms.policy, reserved, best)
    try:
        prepared = yield from best.mechanism.pay(best.offer.requirements, payer=terms.payer, nonce=None)
        _check_promise(prepared, best.offer.requirements, terms)
        header = wire.pack_payment(received, best.offer, prepared.payload)
    except FarthingError as error:
        yield from Release(purchase_id, type(error).__name__, now_seconds)
        raise
    signed = prepared.signed
    recorded = yield from RecordPayment(
        purchase_id=purchase_id,
        payment_id=signed.payment_id,
        fingerprint=signed.fingerprint,
        header=header,
        valid_before=signed.valid_before,
        now_seconds=now_seconds,
    )
    if not recorded:
        raise _lost("The reservation in the journal is gone; the payment was not sent.")
    return PaidRequest(
        purchase_id,
        signed.payment_id,
        header,
        best.offer.requirements.network,
        terms.payer,
        signed.valid_before,
        best.offer.requirements,
        choice,
        wire,
    )


def read_demand(demand: PaymentDemand) -> ReceivedOffers:
    """Read a 402, or raise `NoAcceptableOffer` that says why it can't be paid. A body beside the header is ignored."""
    return _read(demand)[1]


def _read(demand: PaymentDemand) -> tuple[Wire, ReceivedOffers]:
    try:
        read = versions.read_demand(demand.header, demand.body)
    except RemoteProtocolError as error:
        raise NoAcceptableOffer(
            f"The seller's offer can't be read: {shown(str(error))}.",
            reason="malformed_offer",
            advice="Nothing was paid; tell the seller.",
        ) from error
    if read is None:
        raise NoAcceptableOffer(
            "The server answered 402 without a PAYMENT-REQUIRED header, so it is no offer of x402.",
            reason="not_x402",
            advice="Pay by the site's own way, or send the request without the paying transport to see the answer.",
        )
    return read


def _check_request(policy: Policy, request: RequestFacts) -> None:
    if request.method == "HEAD" and not policy.pay_head:
        message = "The seller wants a payment for HEAD, which has no content to pay for."
        raise PolicyRefused(message, reason="head_not_paid", advice="Send GET, or allow it with Policy(pay_head=True).")
    if not policy.allows_host(request.host):
        raise PolicyRefused(
            f"The policy does not let {shown(request.host)} be paid.",
            reason="host_not_allowed",
            advice="Add the host to Policy(hosts=[…]) if it may be.",
        )


def _reservation(terms: Terms, request: RequestFacts, best: Candidate, purchase_id: str, now_seconds: int) -> Reserve:
    offered = best.offer.requirements
    return Reserve(
        purchase_id=purchase_id,
        request_print=request.request_print,
        method=request.method,
        url=request.url,
        host=request.host,
        payer=terms.payer,
        scheme=offered.scheme,
        network=offered.network,
        asset=best.token.address,
        pay_to=offered.pay_to,
        amount=offered.atomic,
        currency=terms.policy.currency,
        value=best.value,
        limits=terms.policy.limits(request.host, now_seconds),
        now_seconds=now_seconds,
    )


def _check_promise(prepared: PreparedPayment, offered: PaymentRequirements, terms: Terms) -> None:
    # The policy judged the offer; what was signed must be that and nothing else, whatever a mechanism does.
    signed = prepared.signed
    kept = (
        signed.amount == offered.atomic
        and signed.network == offered.network
        and fold_asset(signed.asset) == fold_asset(offered.asset)
        and fold_asset(signed.pay_to) == fold_asset(offered.pay_to)
        and fold_asset(signed.payer) == fold_asset(terms.payer)
    )
    if not kept:
        message = f"the mechanism for {shown(offered.scheme)} signed something else than the offer; it was not sent"
        raise LocalProtocolError(message, path="$.payload")


def _lost(message: str) -> PolicyRefused:
    return PolicyRefused(message, reason="reservation_lost", advice="Send the request again.")


def _present_again(found: OpenPayment) -> Flow[PaidRequest]:
    recorded = yield from PresentAgain(found.purchase_id)
    if not recorded:
        raise _lost("The earlier payment for this request was concluded just now; nothing was sent.")
    return PaidRequest(
        found.purchase_id,
        found.payment_id,
        found.header,
        found.network,
        found.payer,
        found.valid_before,
        None,
        None,
        versions.wire_of_payment(found.header),
    )


def _nothing_to_pay(received: ReceivedOffers, choice: Choice) -> PolicyRefused | NoAcceptableOffer:
    if not choice.rejected:
        return NoAcceptableOffer(
            "The seller answered 402 and offers no way to pay now.",
            reason="no_offers",
            advice="Try again later; where an earlier payment is pending, it is named in the journal.",
        )
    told = [f"offer {each.index}: {each.why}" for each in choice.rejected[:_REASONS_SHOWN_MAX]]
    more = len(choice.rejected) - len(told)
    reasons = "; ".join(told) + (f"; and {more} more" if more else "")
    limited = next((each for each in choice.rejected if each.by_policy), None)
    if limited is None:
        return NoAcceptableOffer(
            f"None of the seller's offers can be paid: {reasons}.",
            reason="no_acceptable_offer",
            advice="Networks and assets are allowed by Policy(networks=[…], assets=[…]).",
            offer=received.offers[0].requirements if received.offers else None,
        )
    offer = next(each for each in received.offers if each.index == limited.index)
    return PolicyRefused(
        f"The policy allows none of the seller's offers: {reasons}.",
        reason=limited.code,
        advice="Nothing was signed; raise the limit in the Policy if this is worth it.",
        offer=offer.requirements,
    )


def _over_budget(policy: Policy, over: OverBudget, best: Candidate) -> PolicyRefused:
    kind = over.limit.scope.partition(":")[0]
    name = {"host": "per_host", "day": "per_day"}.get(kind, kind)
    limit = show_value(over.limit.limit_value or 0, policy.currency)
    used, price = show_value(over.used_value, policy.currency), show_value(best.value, policy.currency)
    return PolicyRefused(
        f"The budget has no room: {name} allows {limit} ({shown(over.limit.scope)}), {used} is used or reserved, and "
        f"this costs {price}.",
        reason=f"over_{name}",
        advice=f"Nothing was signed; raise Policy({name}=…) to go on.",
        offer=best.offer.requirements,
    )
