"""Promises with a `payment-identifier`: a repeat of the same signed request gets the earlier answer (SAFETY S7).

The id is looked up before anything is verified, and bound in the transaction that puts its commitment on record. It
opens nothing alone: only the same promise, to the byte, is given the earlier answer, while its window is open. Its
scope is the payer and the route. What is kept, and for how long, is decided in docs/decisions/020.
"""

from __future__ import annotations

from typing import Final

import msgspec

from farthing.errors import RemoteProtocolError, StoreError
from farthing.flow import Effect, Flow, Now
from farthing.mechanisms.batch_credit.verify import fingerprint_of, repeat_fault
from farthing.protocol.http import PAYMENT_RESPONSE
from farthing.protocol.messages import PaymentPayload
from farthing.seller.answers import RETRY_AFTER_OUTAGE_SECONDS, Answer, problem
from farthing.seller.identified import scope_for, taken
from farthing.seller.request import Request
from farthing.signatures.messages import HttpRequest
from farthing.signatures.profile import ProfileSignature, read_profile

# An answer that is kept, headers and body: a page or two of text. A larger one is not given again.
ANSWER_MAX_BYTES: Final = 65_536
# What one process keeps at a time, of all that is still open: beyond, answers are not kept, and their ids are.
ANSWERS_MAX_BYTES: Final = 256 * 1024 * 1024
# An id stays its promise's for so long after the promise's window, so that another promise under it is told apart.
IDENTIFIER_KEPT_SECONDS: Final = 3_600


class Bound(msgspec.Struct, frozen=True):
    """An id that belongs to a commitment. `answer` is what was sent for it, None where that is not kept (any more).

    `settlement` is the PAYMENT-RESPONSE of the answer; `expires` is when the promise does (Unix seconds).
    """

    scope: str
    payer: str
    commitment_id: str
    fingerprint: str
    settlement: str
    expires: int
    answer: Answer | None = None


class FindBound(Effect["Bound | None"], frozen=True):
    """Find the commitment that an id was bound to, by its scope; None where it is nobody's, or was long ago."""

    scope: str
    now_seconds: int


class NoteRepeated(Effect[None], frozen=True):
    """Note, without waiting, that the earlier answer under this scope went out whole again."""

    scope: str


class Repeated(Answer, frozen=True):
    """An earlier answer, given again."""

    scope: str


def look_up(request: Request, message: HttpRequest, payment: PaymentPayload, body: bytes) -> Flow[str | Answer]:
    """Look a request's id up: gives its scope, empty where there is none, or the answer that ends it here.

    Yields `Now` and `FindBound`.
    """
    profile = _read(message)
    scope = scope_for(request, payment, payment.accepted.network, "" if profile is None else profile.agent)
    if isinstance(scope, Answer) or scope == "" or profile is None:
        return scope
    now_seconds = yield from Now()
    try:
        bound = yield from FindBound(scope, now_seconds)
    except StoreError:
        return problem(
            503,
            "store-unavailable",
            "The log can't be read",
            "Nothing is taken for this request now; send the same again.",
            retry_after_seconds=RETRY_AFTER_OUTAGE_SECONDS,
        )
    if bound is None:
        return scope
    if bound.fingerprint != fingerprint_of(profile.base, profile.signature):
        return taken()
    # The same bytes as were verified when they were bound; their time and what no signature covers are looked at again.
    return scope if repeat_fault(message, profile, body, now_seconds) else earlier(bound)


def _read(message: HttpRequest) -> ProfileSignature | None:
    try:
        return read_profile(message)
    except RemoteProtocolError:
        # Refused when it is verified, with the reason; an id that is none is told first all the same.
        return None


def earlier(bound: Bound) -> Answer:
    """Give the earlier answer; where it is not kept, say which commitment is on record."""
    if bound.answer is not None:
        return Repeated(bound.answer.status, bound.answer.headers, bound.answer.body, bound.scope)
    answer = problem(
        409,
        "commitment-known",
        "This promise was served",
        "It is on record and will be billed once, and its answer is not kept; a new request makes a new promise.",
        commitmentId=bound.commitment_id,
    )
    return Answer(answer.status, (*answer.headers, (PAYMENT_RESPONSE.lower(), bound.settlement)), answer.body)


def kept(status: int, headers: tuple[tuple[str, str], ...], body: bytes) -> Answer | None:
    """Make of an answer what is kept of it, its length left to whoever sends it; None where it is too large."""
    lines = tuple(each for each in headers if each[0].lower() not in {"content-length", "transfer-encoding"})
    answer = Answer(status, lines, body)
    size_bytes = size_of(answer)
    return None if size_bytes > ANSWER_MAX_BYTES else answer


def size_of(answer: Answer) -> int:
    """Count the bytes of an answer that is kept: headers and body."""
    return len(answer.body) + sum(len(name) + len(value) for name, value in answer.headers)


def repeated(answer: Repeated) -> Flow[None]:
    """Note that all bytes of a repeat went out."""
    yield from NoteRepeated(answer.scope)
