"""Admit: from a request to a verdict, before any work is done.

The order (`docs/seller.md`): decode, match the offer that this route makes for this request, look the identity up
(known: answer from its state), check the signature locally, have the facilitator verify, then claim. Nothing
unverified is ever written, so that nobody can lock a payer out with junk.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Final, TypeAlias

import msgspec

from farthing.errors import ConfigError, FacilitatorUnavailable, RemoteProtocolError, StoreError
from farthing.flow import Flow, Now
from farthing.mechanisms.interface import SellerMechanism, SignedPayment
from farthing.money import show_atomic
from farthing.networks import KNOWN, Networks
from farthing.protocol.codec import HEADER_MAX_BYTES
from farthing.protocol.facilitator import Verify
from farthing.protocol.messages import PaymentPayload, PaymentRequirements, SettlementResponse, amount_of
from farthing.protocol.payment_identifier import CONFLICT
from farthing.seller import identified
from farthing.seller import known as known_payment
from farthing.seller.answers import (
    RETRY_AFTER_OUTAGE_SECONDS,
    Answer,
    bad_payment,
    payment_required,
    problem,
    spoken,
)
from farthing.seller.offers import Mismatch, Offered, match_payment, offers_for, payment_required_for
from farthing.seller.page import UNPAID
from farthing.seller.payment import Payment
from farthing.seller.request import Request
from farthing.seller.settling import settle
from farthing.seller.states import PaymentFlow, Relation, Reply, State
from farthing.seller.store import Claim, Claimed, FindIdentifier, IdentifierTaken, Known, LookUp, MakeClaim
from farthing.seller.ticket import Deliver, Refuse, Serve, Ticket

# A handler that runs longer may be taken for crashed; its claim is then lost, and it isn't settled.
WORK_LEASE_SECONDS: Final = 300
# Amounts whose price in units of the asset is remembered.
_PRICES_MAX: Final = 256
# Each look may find that another process moved the payment on in between; three moves are more than any race needs.
_LOOKS_MAX: Final = 4
# The facilitator could not judge (`specs`: unexpected_verify_error): an outage, whatever the status it came with.
_NOT_JUDGED: Final = frozenset({"unexpected_verify_error", "unexpected_error"})
# Where nothing of a known payment can still be settled, and it would be judged by today's offers.
_BEGINS_ANEW: Final = frozenset({Reply.CLAIM, Reply.OFFER})

_GOES_ON: Final = frozenset({Reply.DELIVER, Reply.RUN, Reply.PENDING, Reply.ASK, Reply.REPEAT})

Verdict: TypeAlias = Refuse | Serve | Deliver


class Read(msgspec.Struct, frozen=True, gc=False):
    """A payment that was read, and the offer of ours that it is for."""

    payment: PaymentPayload
    signed: SignedPayment
    requirements: PaymentRequirements
    mechanism: SellerMechanism
    offers: tuple[Offered, ...]
    # The scope of its payment-identifier (`farthing.seller.identified`), empty where it has none.
    identifier: str = ""


class Unmatched(msgspec.Struct, frozen=True):
    """A payment that no offer of today fits: what it may have been before, and the answer to one that is not known."""

    readings: tuple[Read, ...]
    answer: Refuse


def admit(request: Request, *, networks: Networks = KNOWN, servable: bool = True) -> Flow[Verdict]:
    """Judge a request for a priced route. `servable` False asks for the offer alone (HEAD), paid or not."""
    verdict = yield from _judge(request, networks, servable=servable)
    return Refuse(spoken(verdict.answer, request.wire)) if isinstance(verdict, Refuse) else verdict


def _judge(request: Request, networks: Networks, *, servable: bool) -> Flow[Verdict]:
    try:
        offers = offers_for(request)
    except ConfigError as error:
        return Refuse(problem(500, "price-unusable", "The price can't be computed", str(error)))
    if not request.payments or not servable:
        return _offer(request, offers, UNPAID, networks)
    read = _read(request, offers, networks)
    if isinstance(read, Refuse):
        return read
    try:
        if isinstance(read, Unmatched):
            return (yield from _admit_unmatched(request, read, networks))
        return (yield from _admit(request, read, networks))
    except StoreError:
        return Refuse(_outage("store-unavailable", "The seller's books can't be written now; nothing was charged."))


def _offer(
    request: Request,
    offers: tuple[Offered, ...],
    error: str,
    networks: Networks,
    settlement: SettlementResponse | None = None,
) -> Refuse:
    message = payment_required_for(request, offers, error)
    return Refuse(payment_required(message, html=request.prefers_html, settlement=settlement, networks=networks))


def _read(request: Request, offers: tuple[Offered, ...], networks: Networks) -> Read | Unmatched | Refuse:
    """Decode the payment and match it to an offer, without asking anybody."""
    header, *more = (each.strip() for each in request.payments)
    if more:
        return Refuse(bad_payment("there is more than one payment; send one", "$"))
    if len(header) > HEADER_MAX_BYTES:
        detail = f"{request.wire.payment_header}: {len(header)} bytes; the limit is {HEADER_MAX_BYTES}"
        return Refuse(bad_payment(detail, "$"))
    try:
        possible = request.wire.read_payments(header, tuple(each.requirements for each in offers))
        matched = match_payment(possible, request, offers)
        if isinstance(matched, Mismatch):
            refusal = SettlementResponse(
                success=False,
                transaction="",
                network=matched.network,
                error_reason=matched.reason,
                error_message=matched.message,
            )
            answer = _offer(request, offers, f"{matched.reason}: {matched.message}", networks, refusal)
            return Unmatched(tuple(_read_anyway(possible, offers)), answer)
    except RemoteProtocolError as error:
        return Refuse(bad_payment(error.message, error.path))
    return Read(matched.payment, matched.signed, matched.offer.requirements, matched.offer.mechanism, offers)


def _read_anyway(possible: Sequence[PaymentPayload], offers: tuple[Offered, ...]) -> Iterator[Read]:
    """Read a payment that no offer fits by the mechanisms that it may be for; its terms are then what was signed."""
    for payment in possible:
        kind = (payment.accepted.scheme, payment.accepted.network)
        mechanism = next(
            (each.mechanism for each in offers if (each.requirements.scheme, each.requirements.network) == kind), None
        )
        if mechanism is not None:
            with contextlib.suppress(RemoteProtocolError):
                signed = mechanism.read(payment)
                terms = msgspec.structs.replace(payment.accepted, amount=amount_of(signed.amount), pay_to=signed.pay_to)
                yield Read(payment, signed, terms, mechanism, offers)


def _admit_unmatched(request: Request, unmatched: Unmatched, networks: Networks) -> Flow[Verdict]:
    """Refuse a payment that no offer of today fits, unless it is known for this request: then the price has changed.

    What of it may still be settled by us is answered from its record: a new offer would have it paid twice (SAFETY S3).
    """
    for read in unmatched.readings:
        scope = identified.scope_of(request, read.payment, read.signed)
        bound = (yield from FindIdentifier(scope)) if isinstance(scope, str) and scope else None
        for _ in range(_LOOKS_MAX):
            found = yield from LookUp(read.signed.payment_id)
            if found is None or relation_of(request, read.signed, found) is not Relation.SAME:
                break
            if known_payment.reply_to(found, Relation.SAME) in _BEGINS_ANEW:
                break
            verdict = yield from _answer_known(request, read, found, networks, identified_by=bound)
            if verdict is not None:
                return verdict
    return unmatched.answer


def _admit(request: Request, read: Read, networks: Networks) -> Flow[Verdict]:
    signed = read.signed
    scope = identified.scope_of(request, read.payment, signed)
    bound: str | None = None
    if scope:
        judged = yield from identified.judge(scope, signed)
        if isinstance(judged, Answer):
            return Refuse(judged)
        bound, read = judged, msgspec.structs.replace(read, identifier=scope)
    found = yield from LookUp(signed.payment_id)
    for _ in range(_LOOKS_MAX):
        if found is not None:
            verdict = yield from _answer_known(request, read, found, networks, identified_by=bound)
            if verdict is not None:
                return verdict
            found = yield from LookUp(signed.payment_id)
            if found is not None and not _claimable(request, read, found):
                continue
        refused = yield from _verify(request, read, networks)
        if refused is not None:
            return refused
        claimed = yield from _claim(request, read, found, networks)
        if isinstance(claimed, Serve | Deliver | Refuse):
            return claimed
        found = claimed
        if read.identifier:
            bound = yield from FindIdentifier(read.identifier)
    detail = "Another request with this payment is being served."
    return Refuse(known_payment.in_progress(signed.payment_id, detail))


def _claimable(request: Request, read: Read, found: Known) -> bool:
    return known_payment.reply_to(found, relation_of(request, read.signed, found)) is Reply.CLAIM


def relation_of(request: Request, signed: SignedPayment, found: Known) -> Relation:
    """Say what this request has in common with the record that it met."""
    if found.fingerprint != signed.fingerprint:
        return Relation.OTHER_PAYMENT
    return Relation.SAME if found.request_print == request.print else Relation.OTHER_REQUEST


def _answer_known(
    request: Request, read: Read, found: Known, networks: Networks, *, identified_by: str | None = None
) -> Flow[Verdict | None]:
    """Answer from the state of a known payment; None where it may be claimed, or where the state was moved on.

    `identified_by` is the payment that the request's payment-identifier belongs to.
    """
    now_seconds = yield from Now()
    moved = yield from known_payment.move_on(found, now_seconds=now_seconds)
    if moved:
        return None
    relation = relation_of(request, read.signed, found)
    reply = known_payment.reply_to(found, relation, identified=identified_by == found.payment_id)
    if reply is Reply.CLAIM:
        return None
    if reply is Reply.WAIT:
        known = yield from identified.wait(found)
        return Refuse(known_payment.refusal(found, Reply.IN_PROGRESS)) if known is None else None
    if reply is Reply.OFFER:
        return _offer(request, read.offers, "this payment was refused; its window is over", networks)
    if reply in _GOES_ON:
        ticket = ticket_for(request, read, networks, epoch=found.epoch, claim=found.claim)
        verdict = yield from known_payment.resume(ticket, found, reply, now_seconds=now_seconds)
        return verdict
    return Refuse(known_payment.refusal(found, reply))


def _verify(request: Request, read: Read, networks: Networks) -> Flow[Refuse | None]:
    """Check locally, then with the facilitator. None where nothing speaks against the payment."""
    now_seconds = yield from Now()
    signed = read.signed
    refusal = read.mechanism.check(signed, read.requirements, now_seconds=now_seconds)
    if refusal is not None:
        return _refused(request, read, refusal.reason, refusal.message, networks)
    try:
        verdict = yield from Verify(read.payment, read.requirements)
    except FacilitatorUnavailable:
        return Refuse(_outage("facilitator-unavailable", "The payment can't be verified now; nothing was charged."))
    if verdict.is_valid:
        # A verdict that does not say whose signature it judged is believed of the payer's own key alone.
        if (verdict.payer or "").lower() == signed.payer.lower():
            return None
        refusal = read.mechanism.check_signature(signed, read.requirements)
        return None if refusal is None else _refused(request, read, refusal.reason, refusal.message, networks)
    reason = verdict.invalid_reason or ""
    if reason in _NOT_JUDGED or reason == "":
        return Refuse(_outage("facilitator-unavailable", "The payment can't be verified now; nothing was charged."))
    return _refused(request, read, reason, verdict.invalid_message or "", networks)


def _refused(request: Request, read: Read, reason: str, message: str, networks: Networks) -> Refuse:
    if reason == CONFLICT:
        # The first payment under this id may be settled: an offer would have it paid twice.
        return Refuse(identified.taken())
    settlement = SettlementResponse(
        success=False,
        transaction="",
        network=read.signed.network,
        error_reason=reason,
        error_message=message or None,
        payer=read.signed.payer,
    )
    text = f"{reason}: {message}" if message else reason
    return _offer(request, read.offers, text, networks, settlement)


def _claim(request: Request, read: Read, over: Known | None, networks: Networks) -> Flow[Verdict | Known]:
    """Claim the payment and say how to go on; or give what is known of it now, where somebody else was first."""
    now_seconds = yield from Now()
    route, signed = request.route, read.signed
    upfront = route.payment_flow is PaymentFlow.UPFRONT
    # Where nothing is on record between claim and settlement, a crash must leave SETTLING behind, never CLAIMED.
    state = State.SETTLING if upfront or not route.store_response else State.CLAIMED
    claim = Claim(
        payment_id=signed.payment_id,
        fingerprint=signed.fingerprint,
        request_print=request.print,
        state=state,
        lease_until=now_seconds + WORK_LEASE_SECONDS,
        valid_before=signed.valid_before,
        flow=route.payment_flow,
        idempotent=route.repeats_safely(request.method),
        stores_response=route.store_response,
        network=signed.network,
        asset=signed.asset,
        payer=signed.payer,
        pay_to=signed.pay_to,
        amount=signed.amount,
        resource=request.url,
        claimed_at=now_seconds,
        identifier=read.identifier,
    )
    answer = yield from MakeClaim(claim, over)
    if isinstance(answer, IdentifierTaken):
        return Refuse(identified.taken())
    if not isinstance(answer, Claimed):
        return answer
    ticket = ticket_for(request, read, networks, epoch=answer.epoch, claim=answer.claim)
    if not upfront:
        return Serve(ticket)
    return (yield from settle(ticket, State.SETTLING, None))


def ticket_for(request: Request, read: Read, networks: Networks, *, epoch: int, claim: int = 0) -> Ticket:
    """Make the value that travels from admit to conclude."""
    signed, route = read.signed, request.route
    token = networks.token(signed.network, signed.asset)
    return Ticket(
        payment=Payment(
            payment_id=signed.payment_id,
            payer=signed.payer,
            pay_to=signed.pay_to,
            amount=signed.amount,
            asset=signed.asset,
            network=signed.network,
            requirements=read.requirements,
            price=None if token is None else _price(signed.amount, token.decimals),
        ),
        payload=read.payment,
        epoch=epoch,
        flow=route.payment_flow,
        idempotent=route.repeats_safely(request.method),
        stores_response=route.store_response,
        shared_cache=route.shared_cache,
        wire=request.wire,
        claim=claim,
        identifier=read.identifier,
    )


# A route asks for few amounts, again and again.
@lru_cache(maxsize=_PRICES_MAX)
def _price(amount: int, decimals: int) -> Decimal:
    return Decimal(show_atomic(amount, decimals))


def _outage(kind: str, detail: str) -> Answer:
    title = "Payments can't be taken now"
    return problem(503, kind, title, detail, retry_after_seconds=RETRY_AFTER_OUTAGE_SECONDS)
