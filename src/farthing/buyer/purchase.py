"""The buyer's first flow: from a 402 to a paid request, with the signed payload on record before it leaves.

The second flow, from the answer to a verdict, is `farthing.buyer.verdict`. Between them travels a `PaidRequest`; the
door sends it.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from farthing.buyer import refusals
from farthing.buyer.approval import Question, Why, approval_id_of, get_approval
from farthing.buyer.choice import Candidate, Choice, choose, shown
from farthing.buyer.journal import (
    FindOpen,
    OpenPayment,
    OverBudget,
    PayeeChanged,
    PresentAgain,
    Promise,
    RecordPayment,
    Release,
    RenewPayment,
    Reserve,
    Reserved,
    Stopped,
    TooFast,
)
from farthing.buyer.policy import Policy, fold_asset, is_public_name
from farthing.buyer.request import PaymentDemand, RequestFacts
from farthing.errors import (
    FarthingError,
    LocalProtocolError,
    NoAcceptableOffer,
    PolicyRefused,
    ProtocolError,
    RemoteProtocolError,
)
from farthing.flow import Flow, Now, RandomBytes
from farthing.mechanisms.interface import BindsRequest, BuyerMechanism, RequestToBind, SignedPayment
from farthing.mechanisms.registry import Registry
from farthing.networks import Networks
from farthing.protocol import versions
from farthing.protocol.codec import ReceivedOffers
from farthing.protocol.extensions import echo
from farthing.protocol.messages import PaymentRequirements
from farthing.protocol.payment_identifier import NAME
from farthing.protocol.versions import CURRENT
from farthing.protocol.wire import Wire

_PURCHASE_ID_BYTES: Final = 16


class Terms(msgspec.Struct, frozen=True):
    """What a buyer is made of, as far as its flows must know: policy, faces, our own table of tokens, its address.

    `session` names what `Policy(per_session=…)` counts together.
    """

    policy: Policy
    mechanisms: Registry[BuyerMechanism]
    networks: Networks
    payer: str
    session: str = ""


class PaidRequest(msgspec.Struct, frozen=True):
    """What the door sends: the request again, with `lines` in place of its own of these names. It is on record.

    `header` is the payment's own. `offer` is what was accepted, or None where an earlier payload for this very request
    is presented again. `again` is True where a payment for it has been sent before: that payload, or one of the same
    nonce whose window was over. `promise` is what was signed with the request, where it is paid on credit.
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
    again: bool = False
    promise: Promise | None = None
    url: str = ""

    @property
    def lines(self) -> tuple[tuple[str, str], ...]:
        """The header lines to send: the payment, and on credit the signature over the request."""
        return (self.wire.payment_header, self.header), *(self.promise.headers if self.promise is not None else ())


class _Signed(msgspec.Struct, frozen=True):
    """What was signed for an offer, and when."""

    payment: SignedPayment
    header: str
    promise: Promise | None
    now_seconds: int


class _Demanded(msgspec.Struct, frozen=True):
    """What one purchase is about, from the 402 on."""

    request: RequestFacts
    wire: Wire
    received: ReceivedOffers
    choice: Choice


def prepare(terms: Terms, request: RequestFacts, demand: PaymentDemand) -> Flow[PaidRequest]:
    """Decide whether and what to pay, sign it, and put it on record.

    Where a payment for this very request was sent and its purchase has not ended, that same payload is presented
    again; where its window is over, one with the same nonce. Two payments for one purchase can't happen (SAFETY B1).

    Raises `PolicyRefused`, `NoAcceptableOffer`, `SignerError` and `StoreError`; nothing has been sent then.
    """
    _check_request(terms.policy, request)
    wire, received = _read(demand)
    return (yield from _prepare(terms, request, wire, received))


def prepare_ahead(terms: Terms, request: RequestFacts, remembered: ReceivedOffers) -> Flow[PaidRequest]:
    """Promise to pay before anybody asks: the price is known from an earlier answer of this host.

    `remembered` holds offers that are paid on credit alone. Raises as `prepare` does.
    """
    _check_request(terms.policy, request)
    return (yield from _prepare(terms, request, CURRENT, remembered))


def _prepare(terms: Terms, request: RequestFacts, wire: Wire, received: ReceivedOffers) -> Flow[PaidRequest]:
    now_seconds = yield from Now()
    found = yield from FindOpen(request.request_print, terms.payer, now_seconds)
    choice = choose(received, policy=terms.policy, mechanisms=terms.mechanisms, networks=terms.networks)
    demanded = _Demanded(request, wire, received, choice)
    instead_of = _superseded(demanded, found)
    if found is not None and not instead_of:
        return (yield from _go_on(terms, demanded, found, now_seconds))
    if not choice.candidates:
        raise refusals.nothing_to_pay(received, choice)
    best = choice.candidates[0]
    purchase_id = (yield from RandomBytes(_PURCHASE_ID_BYTES)).hex()
    reserved, asked = yield from _take_place(terms, demanded, best, purchase_id, now_seconds, instead_of)
    if isinstance(reserved, OpenPayment):
        return (yield from _go_on(terms, demanded, reserved, now_seconds))
    try:
        if not asked and terms.policy.asks_about(best.value):
            question = _question(terms, demanded, best, now_seconds)
            yield from get_approval(question, terms.policy, purchase_id, now_seconds)
        made = yield from _sign(terms, demanded, best, instead_of or purchase_id)
    except FarthingError as error:
        yield from Release(purchase_id, getattr(error, "reason", type(error).__name__), now_seconds)
        raise
    recorded = yield from RecordPayment(
        purchase_id=purchase_id,
        payment_id=made.payment.payment_id,
        fingerprint=made.payment.fingerprint,
        header=made.header,
        valid_before=made.payment.valid_before,
        now_seconds=made.now_seconds,
        authority=request.authority if terms.policy.pin_payees else "",
        promise=made.promise,
        instead_of=instead_of,
    )
    if isinstance(recorded, Stopped):
        raise refusals.stopped(recorded)
    if not recorded:
        raise refusals.lost("The reservation in the journal is gone; the payment was not sent.")
    return _paid(demanded, best, purchase_id, made)


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
    if not policy.may_be_private(request.host) and not is_public_name(request.host):
        raise PolicyRefused(
            f"{shown(request.host)} is no host of the public Internet, and the policy allows no other.",
            reason="private_host",
            advice="Name it in Policy(private_hosts=[…]) if you know it.",
        )


def _take_place(  # noqa: PLR0917 - what is bought, as which purchase, when, and instead of which
    terms: Terms, demanded: _Demanded, best: Candidate, purchase_id: str, now_seconds: int, instead_of: str
) -> Flow[tuple[Reserved | OpenPayment, bool]]:
    """Take a place in the budgets; True beside it says that somebody was asked and agreed to all of it."""
    reserve = _reservation(terms, demanded.request, best, purchase_id, now_seconds)
    reserve = msgspec.structs.replace(reserve, instead_of=instead_of)
    answer = yield from reserve
    asked = isinstance(answer, PayeeChanged)
    if isinstance(answer, PayeeChanged):
        question = _question(terms, demanded, best, now_seconds, known_payees=answer.known)
        yield from get_approval(question, terms.policy, purchase_id, now_seconds)
        answer = yield from msgspec.structs.replace(reserve, payee_known=True)
    if isinstance(answer, OverBudget):
        raise refusals.over_budget(terms.policy, answer, best)
    if isinstance(answer, TooFast):
        raise refusals.too_fast(answer, best)
    if isinstance(answer, Stopped):
        raise refusals.stopped(answer)
    if isinstance(answer, PayeeChanged):
        raise refusals.lost("The journal takes this payee for unknown although it was agreed to; nothing was signed.")
    return answer, asked


def _sign(terms: Terms, demanded: _Demanded, best: Candidate, purchase_id: str) -> Flow[_Signed]:
    """Have the offer signed under the purchase's own nonce, and hold what was signed to the offer and the policy."""
    offered, mechanism = best.offer.requirements, best.mechanism
    payer = mechanism.payer if isinstance(mechanism, BindsRequest) else terms.payer
    prepared = yield from mechanism.pay(offered, payer=payer, nonce=nonce_of(purchase_id))
    now_seconds = yield from Now()
    _check_promise(prepared.signed, offered, terms, payer, now_seconds)
    received = _with_identifier(demanded.received, purchase_id)
    header = demanded.wire.pack_payment(received, best.offer, prepared.payload)
    if not isinstance(mechanism, BindsRequest):
        return _Signed(prepared.signed, header, None, now_seconds)
    request = demanded.request
    to_bind = RequestToBind(request.method, request.url, request.body_digest)
    bound = yield from mechanism.bind(prepared, offered, to_bind, payment_header=header)
    _check_promise(bound.signed, offered, terms, payer, now_seconds)
    return _Signed(bound.signed, header, Promise(bound.promise_id, bound.headers, bound.evidence), now_seconds)


def nonce_of(purchase_id: str) -> bytes:
    """The nonce of all that is ever signed for one purchase: of two payloads the chain can settle only one."""
    return hashlib.sha256(b"farthing purchase nonce\x00" + purchase_id.encode()).digest()


def identifier_of(purchase_id: str) -> str:
    """The `payment-identifier` of a purchase: a retry carries the same, and it says nothing else of the purchase."""
    return "far_" + hashlib.sha256(b"farthing payment-identifier\x00" + purchase_id.encode()).hexdigest()


def _with_identifier(received: ReceivedOffers, purchase_id: str) -> ReceivedOffers:
    advertised: object = received.extensions.get(NAME)
    if not isinstance(advertised, dict):
        return received
    try:
        extensions = echo(received.extensions, {NAME: {"id": identifier_of(purchase_id)}})
    except ProtocolError:
        # It brings an id of its own, or is of a shape that we don't know: it is echoed as it came.
        return received
    return msgspec.structs.replace(received, extensions=extensions)


def _question(
    terms: Terms, demanded: _Demanded, best: Candidate, now_seconds: int, *, known_payees: tuple[str, ...] = ()
) -> Question:
    why: list[Why] = ["price"] if terms.policy.asks_about(best.value) else []
    if known_payees:
        why.append("payee_changed")
    request = demanded.request
    return Question(
        approval_id=approval_id_of(terms.payer, request.request_print, best),
        why=tuple(why),
        method=request.method,
        url=request.url,
        payer=terms.payer,
        offer=best.offer.requirements,
        value=best.value,
        currency=terms.policy.currency,
        known_payees=known_payees,
        expires_at=now_seconds + terms.policy.approval_seconds,
    )


def _reservation(terms: Terms, request: RequestFacts, best: Candidate, purchase_id: str, now_seconds: int) -> Reserve:
    offered, policy = best.offer.requirements, terms.policy
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
        currency=policy.currency,
        value=best.value,
        limits=policy.limits(request.host, now_seconds, terms.session),
        now_seconds=now_seconds,
        authority=request.authority if policy.pin_payees else "",
        payee_known=policy.knows_payee(request.authority, offered.pay_to),
        payees=tuple(sorted(policy.payees.get(request.authority, ()))),
        rate=policy.rate,
    )


def _paid(demanded: _Demanded, best: Candidate, purchase_id: str, made: _Signed) -> PaidRequest:
    signed = made.payment
    return PaidRequest(
        purchase_id,
        signed.payment_id,
        made.header,
        signed.network,
        signed.payer,
        signed.valid_before,
        best.offer.requirements,
        demanded.choice,
        demanded.wire,
        promise=made.promise,
        url=demanded.request.url,
    )


def _check_promise(
    signed: SignedPayment, offered: PaymentRequirements, terms: Terms, payer: str, now_seconds: int
) -> None:
    # The policy judged the offer; what was signed must be that and nothing else, whatever a mechanism does.
    kept = (
        signed.amount == offered.atomic
        and signed.network == offered.network
        and fold_asset(signed.asset) == fold_asset(offered.asset)
        and fold_asset(signed.pay_to) == fold_asset(offered.pay_to)
        and fold_asset(signed.payer) == fold_asset(payer)
        and signed.valid_before <= now_seconds + terms.policy.max_validity_seconds
    )
    if not kept:
        message = f"the mechanism for {shown(offered.scheme)} signed something else than the offer; it was not sent"
        raise LocalProtocolError(message, path="$.payload")


# A payment for this very request that was sent before.


def _go_on(terms: Terms, demanded: _Demanded, found: OpenPayment, now_seconds: int) -> Flow[PaidRequest]:
    """Present the open payment again: the same payload, or, once its window is over, one of the same nonce."""
    # What is settled by the seller's word needs no second payload, whatever its window: the seller owes the resource.
    # A promise is found while its window is open, and never signed anew.
    if found.promise is None and found.state != "settled" and now_seconds >= found.valid_before:
        renewed = yield from _renew(terms, demanded, found, now_seconds)
        if renewed is not None:
            return renewed
    recorded = yield from PresentAgain(found.purchase_id)
    if isinstance(recorded, Stopped):
        raise refusals.stopped(recorded)
    if not recorded:
        raise refusals.lost("The earlier payment for this request was concluded just now; nothing was sent.")
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
        again=True,
        promise=found.promise,
        url=demanded.request.url,
    )


def _superseded(demanded: _Demanded, found: OpenPayment | None) -> str:
    """Name an open promise that was refused and is not asked for any more: another takes its place, of the same nonce.

    So it is where a price was remembered and has changed. Both keep their places in the budget: the refusal is no
    evidence, and an edge takes a nonce once.
    """
    if found is None or found.promise is None or found.state != "refused":
        return ""
    return "" if any(_is_same(each, found) for each in demanded.choice.candidates) else found.purchase_id


def _renew(terms: Terms, demanded: _Demanded, found: OpenPayment, now_seconds: int) -> Flow[PaidRequest | None]:
    """Sign an open payment anew under its nonce; None where the same thing is not offered any more.

    Whether the first payload was settled nobody knows, so that the chain must be unable to settle both: the nonce is
    the same. The terms must be too, so that evidence of the one is evidence of the other.
    """
    best = next((each for each in demanded.choice.candidates if _is_same(each, found)), None)
    if best is None:
        return None
    if terms.policy.asks_about(best.value):
        question = _question(terms, demanded, best, now_seconds)
        yield from get_approval(question, terms.policy, found.purchase_id, now_seconds)
    made = yield from _sign(terms, demanded, best, found.purchase_id)
    signed = made.payment
    if signed.payment_id != found.payment_id:
        # Signed by an earlier version, whose nonces were random: a second one would be a second payment.
        return None
    recorded = yield from RenewPayment(
        purchase_id=found.purchase_id,
        payment_id=found.payment_id,
        fingerprint=signed.fingerprint,
        header=made.header,
        valid_before=signed.valid_before,
        instead_of=found.valid_before,
        now_seconds=made.now_seconds,
    )
    if isinstance(recorded, Stopped):
        raise refusals.stopped(recorded)
    if not recorded:
        raise refusals.lost("The earlier payment for this request was presented or concluded just now.")
    paid = _paid(demanded, best, found.purchase_id, made)
    return msgspec.structs.replace(paid, again=True)


def _is_same(each: Candidate, found: OpenPayment) -> bool:
    offered = each.offer.requirements
    return (
        offered.network == found.network
        and offered.atomic == found.amount
        and fold_asset(offered.asset) == fold_asset(found.asset)
        and fold_asset(offered.pay_to) == fold_asset(found.pay_to)
    )
