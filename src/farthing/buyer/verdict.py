"""The buyer's second flow: from the answer to a paid request to a verdict, on record (SAFETY B1, B4).

| answer | journal | caller |
|---|---|---|
| any status, PAYMENT-RESPONSE with success, our network, a transaction, our payer if named | settled | the answer |
| 2xx or 3xx without such proof | unknown (delivered, for 2xx) | the answer |
| 402 with a reason code, or 402 with `success: false` and a reason | refused | `PaymentRefused` |
| 402 pending, or without a clear refusal; 408, 409, 425, 429; 5xx; no answer | unknown | `PaymentUnknown` |
| another 4xx | refused (`http_404`) | the answer |

A 402 that says "settled" contradicts itself: the journal believes it, the caller gets `PaymentUnknown`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from farthing.buyer.choice import shown
from farthing.buyer.journal import Outcome, RecordOutcome, State
from farthing.buyer.policy import fold_asset
from farthing.buyer.purchase import PaidRequest
from farthing.errors import PaymentRefused, PaymentUnknown, RemoteProtocolError
from farthing.flow import Flow, Now
from farthing.protocol import versions
from farthing.protocol.facilitator import DUPLICATE_SETTLEMENT, SETTLEMENT_PENDING
from farthing.protocol.http import STATUS_PAYMENT_REQUIRED
from farthing.protocol.messages import SettlementResponse

if TYPE_CHECKING:
    from farthing.buyer.promises import Proof

# What a seller's receipt is made of: header lines that a door hands over with the answer to a promise.
SIGNED_FIELDS: Final = ("payment-response", "signature-input", "signature", "content-digest")

_SUCCESSES: Final = range(200, 300)
_REDIRECTS: Final = range(300, 400)
_SERVER_ERRORS: Final = range(500, 600)
# Time-out, conflict (an earlier copy is at work, or settled), too early, too many: the payment was not judged.
_NOT_JUDGED: Final = frozenset({408, 409, 425, 429})

# A code of the protocol, in contrast to prose: `insufficient_funds`.
_REASON_CODE = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)+\Z")
_REASON_MAX_CHARS: Final = 100
# Codes that refuse nothing: the facilitator did not judge, has not finished, or has settled it before.
_UNDECIDED: Final = frozenset(
    {SETTLEMENT_PENDING, DUPLICATE_SETTLEMENT, "unexpected_verify_error", "unexpected_settle_error", "payment_required"}
)

_ADVICE_REFUSED: Final = (
    "The authorisation lives until its window ends: until then the same request presents the same payment again. It "
    "keeps its place in the budget until there is evidence that it was not settled: journal.mark_unspent(…)."
)
_ADVICE_UNKNOWN: Final = (
    "It may have settled, so it keeps its place in the budget. Send the same request again: it presents the same "
    "payment. Or look on chain and tell the journal: journal.mark_settled(…) or journal.mark_unspent(…)."
)


class PaidAnswer(msgspec.Struct, frozen=True):
    """The answer to a paid request, as far as the verdict needs it; header values as they came, or None.

    `payment_response` is the header that the payment's wire has for it; `body` the beginning of a 402's body, where
    its headers say nothing; `lines` those of `SIGNED_FIELDS` that it has, where the payment was a promise.
    """

    status: int
    payment_response: str | None = None
    payment_required: str | None = None
    body: bytes = b""
    lines: tuple[tuple[str, str], ...] = ()


class NoAnswer(msgspec.Struct, frozen=True):
    """The paid request had no answer: `what` names the error (`ReadTimeout`)."""

    what: str


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What the caller may know of a payment whose answer it gets.

    `state` is the journal's: `settled` (`transaction` names it), or `unknown` and `refused` where the seller answered
    without proving a settlement. `response` is the seller's PAYMENT-RESPONSE, where there was a readable one.
    """

    payment_id: str
    purchase_id: str
    state: State
    transaction: str = ""
    response: SettlementResponse | None = None


class _Reading(msgspec.Struct, frozen=True):
    """How an answer is read, before it is recorded."""

    outcome: Outcome
    reason: str = ""
    transaction: str = ""
    delivered: bool = False
    handed_over: bool = False
    response: SettlementResponse | None = None


def conclude(paid: PaidRequest, answer: PaidAnswer | NoAnswer, *, streams: bool = False) -> Flow[Receipt]:
    """Judge the answer and put the outcome on record; give a receipt where the caller gets the answer.

    `streams` says that its body is still to come, so that what is delivered now may be cut yet.

    Raises `PaymentRefused` or `PaymentUnknown` where the caller must not take the answer for the resource.
    """
    proof = None
    if paid.promise is not None and isinstance(answer, PaidAnswer):
        # Imported where it is used: who pays on chain alone does not install what verifies receipts.
        from farthing.buyer.promises import prove  # noqa: PLC0415

        response = _settlement(paid, answer.payment_response)
        proof = yield from prove(
            paid.promise, paid.network, paid.url, status=answer.status, response=response, lines=answer.lines
        )
    reading = _read(paid, answer, proof)
    now_seconds = yield from Now()
    state = yield from RecordOutcome(
        purchase_id=paid.purchase_id,
        outcome=reading.outcome,
        delivered=reading.delivered,
        transaction=reading.transaction,
        reason=reading.reason,
        now_seconds=now_seconds,
        receipt=None if proof is None else proof.receipt,
        handing_over=streams,
    )
    if reading.handed_over:
        return Receipt(
            payment_id=paid.payment_id,
            purchase_id=paid.purchase_id,
            state=state,
            transaction=reading.transaction,
            response=reading.response,
        )
    raise _error(paid, reading, state)


def _read(  # noqa: PLR0911 - one line a row
    paid: PaidRequest, answer: PaidAnswer | NoAnswer, proof: Proof | None
) -> _Reading:
    if isinstance(answer, NoAnswer):
        return _Reading("unknown", shown(answer.what))
    response = _settlement(paid, answer.payment_response)
    transaction = shown(response.transaction) if response is not None else ""
    proven = response is not None and _proves(response, paid)
    if paid.promise is not None and proof is not None:
        # Only an answer that gives the resource is charged; its receipt is what proves the promise taken.
        proven = not proof.lacks and answer.status in _SUCCESSES
        transaction = paid.promise.promise_id if proven else ""
    if proven:
        refuses = answer.status == STATUS_PAYMENT_REQUIRED
        reason = "contradiction" if refuses else ""
        # What failed after it was settled may be owed: it stays open, and the same payment is presented again.
        ok = answer.status in _SUCCESSES or answer.status in _REDIRECTS
        return _Reading("settled", reason, transaction, delivered=ok, handed_over=not refuses, response=response)
    if answer.status in _SUCCESSES:
        reason = "no_settlement_proof" if response is None or response.success else _reason_of(response)
        if proof is not None and proof.lacks and (response is None or response.success):
            reason = proof.lacks
        return _Reading("unknown", reason, transaction, delivered=True, handed_over=True, response=response)
    if answer.status in _REDIRECTS:
        return _Reading("unknown", f"http_{answer.status}", transaction, handed_over=True, response=response)
    if answer.status == STATUS_PAYMENT_REQUIRED:
        return _read_402(answer, response, transaction)
    if answer.status in _NOT_JUDGED or answer.status in _SERVER_ERRORS:
        return _Reading("unknown", f"http_{answer.status}", transaction, response=response)
    # A transaction named beside a failure may have moved money, whatever else the answer says.
    outcome: Outcome = "unknown" if transaction else "refused"
    return _Reading(outcome, f"http_{answer.status}", transaction, handed_over=True, response=response)


def _read_402(answer: PaidAnswer, response: SettlementResponse | None, transaction: str) -> _Reading:
    if response is not None:
        reason = _reason_of(response)
        undecided = response.success or transaction != "" or reason in _UNDECIDED
        return _Reading("unknown" if undecided else "refused", reason, transaction, response=response)
    # Nothing was settled: a verification that failed names its reason in the new offer's `error`.
    reason = _offer_error(answer)
    if _is_code(reason) and reason not in _UNDECIDED:
        return _Reading("refused", reason)
    return _Reading("unknown", "second_402")


def _settlement(paid: PaidRequest, header: str | None) -> SettlementResponse | None:
    if header is None:
        return None
    try:
        return paid.wire.read_settlement(header)
    except RemoteProtocolError:
        return None


def _proves(response: SettlementResponse, paid: PaidRequest) -> bool:
    """Tell whether a PAYMENT-RESPONSE counts as settled: success, our network, a transaction, our payer if named."""
    return (
        response.success
        and response.network == paid.network
        and response.transaction != ""
        and (not response.payer or fold_asset(response.payer) == fold_asset(paid.payer))
    )


def _reason_of(response: SettlementResponse) -> str:
    if response.success:
        return "contradiction"
    reason = response.error_reason or ""
    # Prose in the reason's place refuses all the same; no reason at all says nothing.
    return reason if _is_code(reason) else "settlement_failed" if reason else "unexpected_settle_error"


def _offer_error(answer: PaidAnswer) -> str:
    try:
        read = versions.read_demand(answer.payment_required, answer.body)
    except RemoteProtocolError:
        return ""
    return "" if read is None else read[1].error


def _is_code(reason: str) -> bool:
    return len(reason) <= _REASON_MAX_CHARS and _REASON_CODE.match(reason) is not None


def _error(paid: PaidRequest, reading: _Reading, state: State) -> PaymentRefused | PaymentUnknown:
    if state == "refused":
        return PaymentRefused(
            f"The seller refused the payment: {reading.reason}.",
            reason=reading.reason,
            advice=_ADVICE_REFUSED,
            offer=paid.offer,
            payment_id=paid.payment_id,
            transaction=reading.transaction,
        )
    if state == "settled":
        message = "The payment is settled by the seller's word or the journal's, and the answer is not the resource"
    else:
        message = "Nobody has said whether the payment settled"
    return PaymentUnknown(
        f"{message} ({reading.reason}; payment {paid.payment_id}).",
        reason=reading.reason,
        advice=_ADVICE_UNKNOWN,
        offer=paid.offer,
        payment_id=paid.payment_id,
        transaction=reading.transaction,
    )
