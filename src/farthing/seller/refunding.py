"""Refunding: paying back what was settled and could not be served, by the route's own signer (SAFETY S2, S6).

A refund is a payment like any other, from the signer's account to the payer of the record, of the same amount. Its
nonce follows from the payment's id, so that the chain settles one refund of a payment, whatever was signed how often
and by whichever replica; and what was signed is on record before it is sent, so that every retry sends the same bytes.
Another nonce is signed for on one evidence alone: a finalised block past the window, in which the first is unspent.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from farthing.errors import FacilitatorUnavailable, FarthingError, StoreError
from farthing.evm.signing import SignTypedData
from farthing.flow import Flow, Now
from farthing.mechanisms.interface import BuyerMechanism, PreparedPayment, SellerMechanism, SignedPayment
from farthing.protocol.codec import decode_payment_json, encode_json
from farthing.protocol.facilitator import (
    DUPLICATE_SETTLEMENT,
    FindPayment,
    Outcome,
    PaymentStatus,
    Refused,
    Settle,
    Settled,
    Unknown,
)
from farthing.protocol.messages import PaymentPayload, PaymentRequirements, amount_of
from farthing.seller.following import LOSS_PREFIX
from farthing.seller.looking import LookOnChain
from farthing.seller.refunds import (
    FindRefundsDue,
    FindRefundSigner,
    PostponeRefund,
    RecordRefund,
    RefundDue,
    RefundRecord,
    SignRefund,
    TakeRefundTurn,
)
from farthing.seller.settling import FOUND_FINAL, FOUND_REFUSED, FOUND_SETTLED, HORIZON_SECONDS
from farthing.seller.states import State
from farthing.seller.store import Advance, IsOurs, LedgerEntry, TakesKeys

# Each is a settlement that may take as long as its facilitator likes, and other payments are cared for in between.
ROUND_MAX: Final = 20
# Longer than a look-up and a settlement take; a process that died in its turn holds a refund up for so long.
TURN_SECONDS: Final = 180
# How soon one that is on its way is looked up again, and one that waits until its payment is final.
LOOK_AGAIN_SECONDS: Final = 30
# How soon one is tried again that was refused, for want of funds for one.
RETRY_SECONDS: Final = 300
# A day: a facilitator that is out of gas, or behind a stuck chain, can pay it still when somebody has come.
WINDOW_SECONDS: Final = 86_400
# After these a facilitator says no more; "settled" is that of one that does not tell what is final.
_LAST_WORDS: Final = FOUND_FINAL | {"settled"}
# What is kept of a reason.
NOTE_MAX_CHARS: Final = 300


class RefundDesk(msgspec.Struct, frozen=True):
    """The two faces by which a refund is made and read."""

    buyer: BuyerMechanism
    seller: SellerMechanism


class Refunded(msgspec.Struct, frozen=True):
    """A refund was paid, and is booked."""

    payment_id: str
    transaction: str


class NotOwed(msgspec.Struct, frozen=True):
    """The payment itself was refused in the end, its block being lost: nothing is owed for it any more."""

    payment_id: str


class Waiting(msgspec.Struct, frozen=True):
    """A refund is not paid yet, for `seconds`. `why` is empty where all takes its course."""

    payment_id: str
    seconds: int
    why: str = ""
    # Nobody knows what the facilitator did: it is not asked for more in this round.
    is_outage: bool = False


class RefundRound(msgspec.Struct, frozen=True):
    """What a round came to, and after which claim the next one begins: 0 where it is the first again."""

    refunded: tuple[Refunded, ...]
    troubles: tuple[Waiting, ...]
    next_after: int


class _Open(msgspec.Struct, frozen=True):
    """A refund to be settled: the one on record, or (None) another one under the nonce of `series`."""

    payment: PaymentPayload | None
    series: int


def refund_nonce(payment_id: str, series: int) -> bytes:
    """Give the nonce of a payment's refund: 32 bytes that whoever knows the payment can compute."""
    return hashlib.sha256(f"farthing refund {payment_id} {series}".encode()).digest()


def refund_round(desk: RefundDesk, *, after: int = 0, limit: int = ROUND_MAX) -> Flow[RefundRound]:
    """Pay back what is due and has a signer: one page of what is owed, behind the claim `after`."""
    now_seconds = yield from Now()
    found = yield from FindRefundsDue(now_seconds, after, limit)
    if after and not found:
        found = yield from FindRefundsDue(now_seconds, 0, limit)
    refunded: list[Refunded] = []
    troubles: list[Waiting] = []
    for due in found:
        try:
            step = yield from _care_for(due, desk)
        except FarthingError as error:
            step = Waiting(due.payment_id, TURN_SECONDS, str(error))
        if isinstance(step, Refunded):
            refunded.append(step)
        elif isinstance(step, Waiting) and step.why:
            troubles.append(msgspec.structs.replace(step, why=_note_of(step)))
        if isinstance(step, Waiting) and step.is_outage:
            # The others come in the next round, which begins behind this one: it may be the only one in trouble.
            return RefundRound(tuple(refunded), tuple(troubles), due.claim)
    return RefundRound(tuple(refunded), tuple(troubles), found[-1].claim if len(found) == limit else 0)


def _care_for(due: RefundDue, desk: RefundDesk) -> Flow[Refunded | NotOwed | Waiting | None]:
    """Take the turn at one refund and do what is to be done now; None where it is nobody's, or another's."""
    address = yield from FindRefundSigner(due.resource, due.flow, due.network, due.pay_to)
    if address is None and (due.record is None or not due.record.payment):
        return None
    now_seconds = yield from Now()
    until = now_seconds + TURN_SECONDS
    if not (yield from TakeRefundTurn(due.claim, due.record, address or "", until)):
        return None
    try:
        step = yield from _go_on(due, address, desk)
    except FarthingError as error:
        step = Waiting(due.payment_id, RETRY_SECONDS, str(error))
    if isinstance(step, Waiting):
        yield from PostponeRefund(due.claim, until, now_seconds + step.seconds, _note_of(step))
    return step


def _note_of(step: Waiting) -> str:
    """Give what is kept and logged of a reason, which may hold a facilitator's own words: one short line."""
    return "".join(each if each.isprintable() else " " for each in step.why[:NOTE_MAX_CHARS])


def _go_on(due: RefundDue, address: str | None, desk: RefundDesk) -> Flow[Refunded | NotOwed | Waiting]:
    step: _Open | Refunded | NotOwed | Waiting
    if due.record is None or not due.record.payment:
        step = yield from _until_final(due)
    else:
        step = yield from _what_became(due, due.record, desk, address)
    if not isinstance(step, _Open):
        return step
    if address is None:
        return Waiting(due.payment_id, RETRY_SECONDS, "What it was paid for has no refund_signer any more.")
    payment = step.payment or (yield from _sign(due, address, step.series, desk))
    if payment is None:
        return Waiting(due.payment_id, LOOK_AGAIN_SECONDS)
    signed = _read(due, payment, desk)
    takes_keys = yield from TakesKeys()
    if not takes_keys and (yield from IsOurs(due.payment_id, "")) is None:
        # What its success would mean is not known: nothing is sent yet.
        why = "The facilitator does not say whether it takes idempotency keys."
        return Waiting(due.payment_id, LOOK_AGAIN_SECONDS, why, is_outage=True)
    try:
        outcome: Outcome = yield from Settle(payment, payment.accepted, signed.payment_id)
    except Exception as error:  # noqa: BLE001 - a facilitator in the process may raise anything: nothing is known then
        outcome = Unknown("unexpected_settle_error", f"{type(error).__name__} while settling.")
    return (yield from _judge(due, signed, outcome, takes_keys=takes_keys))


def _until_final(due: RefundDue) -> Flow[_Open | NotOwed | Waiting]:
    """Wait until the payment itself is final: what a lost block takes back is not to be paid back, too."""
    now_seconds = yield from Now()
    try:
        status = yield from FindPayment(due.payment_id)
    except FacilitatorUnavailable as error:
        if (yield from IsOurs(due.payment_id, "")) is not True:
            return Waiting(due.payment_id, LOOK_AGAIN_SECONDS, str(error), is_outage=True)
        # One that takes no keys has no `/payments` either: it will never tell.
        status = None
    if status is not None and not _is_about(status, due):
        return Waiting(due.payment_id, RETRY_SECONDS, "What the facilitator found is not the payment that is owed.")
    state = "" if status is None else status.state
    # Where nobody says what is final, time does.
    is_old = now_seconds > due.settled_at + HORIZON_SECONDS
    if state in FOUND_FINAL or (is_old and (state == "" or state in FOUND_SETTLED)):
        return _Open(None, 0)
    if status is not None and state in FOUND_REFUSED:
        return (yield from _let_go(due, status.reason or "refused"))
    return Waiting(due.payment_id, LOOK_AGAIN_SECONDS)


def _let_go(due: RefundDue, reason: str) -> Flow[NotOwed | Waiting]:
    """Close a payment that was neither served nor, in the end, settled, with the ledger's contrary entry."""
    now_seconds = yield from Now()
    closed = yield from Advance(
        due.payment_id,
        due.epoch,
        State.REFUND_DUE,
        State.CLOSED,
        take_over=True,
        reason=reason,
        entry=_contrary(due, due.pay_to, LOSS_PREFIX + due.transaction, now_seconds),
        claim=due.claim,
    )
    return NotOwed(due.payment_id) if closed else Waiting(due.payment_id, LOOK_AGAIN_SECONDS)


def _is_about(status: PaymentStatus, due: RefundDue) -> bool:
    """Whether what a facilitator found is the payment that is owed back."""
    return status.pays(network=due.network, asset=due.asset, pay_to=due.pay_to, amount=due.amount)


def _what_became(
    due: RefundDue, record: RefundRecord, desk: RefundDesk, address: str | None
) -> Flow[_Open | Refunded | Waiting]:
    """Find out what became of the refund on record, before anything else is done."""
    payment = decode_payment_json(record.payment)
    signed = _read(due, payment, desk)
    now_seconds = yield from Now()
    is_over = now_seconds > record.valid_before + HORIZON_SECONDS
    try:
        status = yield from FindPayment(signed.payment_id)
        # It was never there, and of one account's nonce the chain takes one: it may be signed for again.
        may_sign_again = status is None and address == record.signer
    except FacilitatorUnavailable:
        status, may_sign_again = None, False
    if status is not None and status.state not in FOUND_REFUSED:
        # Booked when it is final, so that no lost block takes a refund back that is in the books.
        is_last_word = status.state in _LAST_WORDS or (is_over and status.state in FOUND_SETTLED)
        if is_last_word and status.transaction not in {"", due.transaction} and _is_of(status, signed):
            return (yield from _book(due, signed, status.transaction))
        return Waiting(due.payment_id, LOOK_AGAIN_SECONDS)
    # Refused is no evidence: whoever has seen the bytes can have them settled while the window is open.
    shown = yield from _on_chain(due, record, payment, signed)
    if shown is not None:
        return shown
    if status is None and not is_over:
        return _Open(payment, record.series)
    if may_sign_again:
        return _Open(None, record.series)
    why = f"Whether {signed.payer} paid it is not shown: give the seller nodes of {due.network}, or look on chain."
    return Waiting(due.payment_id, RETRY_SECONDS, why)


def _on_chain(
    due: RefundDue, record: RefundRecord, payment: PaymentPayload, signed: SignedPayment
) -> Flow[_Open | Refunded | Waiting | None]:
    """Look by the seller's own nodes, at finalised blocks; None where they show nothing, or there are none."""
    traced = yield from LookOnChain(payment, record.valid_before - WINDOW_SECONDS)
    if traced is None or traced.verdict == "open":
        return None
    if traced.verdict == "settled":
        return (yield from _book(due, signed, traced.transaction))
    if traced.transaction:
        why = f"Its nonce was spent otherwise or cancelled, by {traced.transaction}: pay it back by hand."
        return Waiting(due.payment_id, RETRY_SECONDS, why)
    return _Open(None, record.series + 1)


def _is_of(status: PaymentStatus, signed: SignedPayment) -> bool:
    """Whether what a facilitator found is this refund."""
    return status.payer.lower() == signed.payer.lower() and status.pays(
        network=signed.network, asset=signed.asset, pay_to=signed.pay_to, amount=signed.amount
    )


def _sign(due: RefundDue, address: str, series: int, desk: RefundDesk) -> Flow[PaymentPayload | None]:
    """Sign a refund and put it on record; None where another process has put one there meanwhile."""
    wanted = PaymentRequirements(
        scheme=desk.seller.scheme,
        network=due.network,
        amount=amount_of(due.amount),
        asset=due.asset,
        pay_to=due.payer,
        max_timeout_seconds=WINDOW_SECONDS,
    )
    requirements = desk.seller.complete(wanted)
    prepared = yield from _by(
        address, desk.buyer.pay(requirements, payer=address, nonce=refund_nonce(due.payment_id, series))
    )
    payment = PaymentPayload(accepted=requirements, payload=msgspec.Raw(encode_json(prepared.payload)))
    record = RefundRecord(address, encode_json(payment), prepared.signed.valid_before, series, 0)
    return payment if (yield from RecordRefund(due.claim, due.record, record)) else None


def _by(address: str, paying: Flow[PreparedPayment]) -> Flow[PreparedPayment]:
    """Have a buyer's face sign by one of several signers."""
    try:
        effect = next(paying)
        while True:
            wanted = SignRefund(address, effect.message) if isinstance(effect, SignTypedData) else effect
            answer = yield wanted
            effect = paying.send(answer)
    except StopIteration as done:
        prepared: PreparedPayment = done.value
        return prepared


def _read(due: RefundDue, payment: PaymentPayload, desk: RefundDesk) -> SignedPayment:
    """Read a refund, and see that it pays the record's payer what the record says. Raises `StoreError`."""
    signed = desk.seller.read(payment)
    wanted = (due.network, due.asset.lower(), due.payer.lower(), due.amount)
    if (signed.network, signed.asset.lower(), signed.pay_to.lower(), signed.amount) != wanted:
        message = f"The refund on record for {due.payment_id} is not of its amount to its payer; it is not sent."
        raise StoreError(message)
    return signed


def _judge(due: RefundDue, signed: SignedPayment, outcome: Outcome, *, takes_keys: bool) -> Flow[Refunded | Waiting]:
    if isinstance(outcome, Settled):
        response = outcome.response
        believable = response.network == signed.network and response.amount in (None, "", amount_of(signed.amount))
        if response.success and response.transaction not in {"", due.transaction} and believable:
            if takes_keys:
                # It tells at `/payments` when that is final.
                return Waiting(due.payment_id, LOOK_AGAIN_SECONDS)
            return (yield from _book(due, signed, response.transaction))
        return Waiting(due.payment_id, LOOK_AGAIN_SECONDS, "The facilitator's success is not about this refund.")
    if isinstance(outcome, Unknown):
        return Waiting(due.payment_id, LOOK_AGAIN_SECONDS, outcome.message or outcome.reason, is_outage=True)
    if outcome.reason == DUPLICATE_SETTLEMENT:
        return Waiting(due.payment_id, LOOK_AGAIN_SECONDS)
    return Waiting(due.payment_id, RETRY_SECONDS, _refusal(due, signed, outcome))


def _refusal(due: RefundDue, signed: SignedPayment, outcome: Refused) -> str:
    if "insufficient_funds" in outcome.reason:
        return f"{signed.payer} lacks the {due.amount} atomic units of {due.asset} on {due.network}: fund it."
    return f"The facilitator refused the refund by {signed.payer}: {outcome.reason}. {outcome.message}".strip()


def _book(due: RefundDue, signed: SignedPayment, transaction: str) -> Flow[Refunded | Waiting]:
    """Move the payment to REFUNDED, with the ledger's contrary entry: from the account that paid."""
    now_seconds = yield from Now()
    moved = yield from Advance(
        due.payment_id,
        due.epoch,
        State.REFUND_DUE,
        State.REFUNDED,
        take_over=True,
        transaction=transaction,
        entry=_contrary(due, signed.payer, transaction, now_seconds),
        claim=due.claim,
    )
    return Refunded(due.payment_id, transaction) if moved else Waiting(due.payment_id, LOOK_AGAIN_SECONDS)


def _contrary(due: RefundDue, by: str, transaction: str, now_seconds: int) -> LedgerEntry:
    """Write the entry that takes a payment back: from the account that pays it, or to which it never came."""
    return LedgerEntry(
        network=due.network,
        asset=due.asset,
        payer=by,
        pay_to=due.payer,
        amount=due.amount,
        transaction=transaction,
        posted_at=now_seconds,
    )
