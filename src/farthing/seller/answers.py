"""What the seller answers by itself: the 402, and problem details (RFC 9457). Nothing here is ever content."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from farthing.networks import KNOWN, Networks
from farthing.protocol.codec import encode_json, pack_header
from farthing.protocol.http import PAYMENT_REQUIRED, PAYMENT_RESPONSE, STATUS_PAYMENT_REQUIRED
from farthing.protocol.messages import PaymentRequired, SettlementResponse
from farthing.protocol.versions import CURRENT, EXPOSED_HEADERS, VARY_HEADERS, offer_body
from farthing.protocol.wire import Wire
from farthing.seller.page import page_headers, render_page

PROBLEM_JSON: Final = "application/problem+json"
# How long a client waits before it asks again: about a block of the networks that people pay on.
RETRY_AFTER_SECONDS: Final = 2
# A facilitator or a store that is away is seldom back at once.
RETRY_AFTER_OUTAGE_SECONDS: Final = 5
# Problem types are stable names; the page of the documentation explains each.
_TYPE_PREFIX: Final = "urn:farthing:problem:"
_VARY: Final = ", ".join(("Accept", *VARY_HEADERS))
_EXPOSED: Final = ", ".join((*EXPOSED_HEADERS, "Retry-After"))


class Answer(msgspec.Struct, frozen=True):
    """An answer of the seller's own: status, headers with lower-case names, body."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


def problem(
    status: int,
    kind: str,
    title: str,
    detail: str,
    *,
    retry_after_seconds: int = 0,
    **members: Any,
) -> Answer:
    """Make problem details. `kind` is the problem's stable name; `members` are its extensions, empty ones left out."""
    body = {"type": _TYPE_PREFIX + kind, "title": title, "status": status, "detail": detail}
    body.update({key: value for key, value in members.items() if value not in ("", None)})
    headers = _common(PROBLEM_JSON)
    if retry_after_seconds:
        headers.append(("retry-after", str(retry_after_seconds)))
    return Answer(status, tuple(headers), encode_json(body))


def bad_payment(detail: str, path: str) -> Answer:
    """Refuse a payment that can't be read: 400, with the field at fault (SAFETY S10)."""
    return problem(400, "malformed-payment", "The payment can't be read", detail, field=path)


def payment_required(
    message: PaymentRequired,
    *,
    html: bool,
    settlement: SettlementResponse | None = None,
    networks: Networks = KNOWN,
) -> Answer:
    """Make a 402 that offers: the header for programs, and a body for whoever reads it."""
    offer = (PAYMENT_REQUIRED.lower(), pack_header(message))
    if html:
        headers = [*_common("text/html; charset=utf-8"), *page_headers(), offer]
        body = render_page(message, networks)
    else:
        headers = [*_common("application/json"), offer]
        body = offer_body(message, settlement.error_reason or "" if settlement is not None else "")
    if settlement is not None:
        headers.append((PAYMENT_RESPONSE.lower(), pack_header(settlement)))
    return Answer(STATUS_PAYMENT_REQUIRED, tuple(headers), body)


def payment_failed(
    settlement: SettlementResponse,
    *,
    kind: str,
    title: str,
    detail: str,
    payment_id: str,
    retry_after_seconds: int = 0,
) -> Answer:
    """Make a 402 without an offer: something of this payment may still be settled, so that nobody must pay anew."""
    answer = problem(
        STATUS_PAYMENT_REQUIRED,
        kind,
        title,
        detail,
        retry_after_seconds=retry_after_seconds,
        reason=settlement.error_reason or "",
        paymentId=payment_id,
        transaction=settlement.transaction,
    )
    header = (PAYMENT_RESPONSE.lower(), pack_header(settlement))
    return Answer(answer.status, (*answer.headers, header), answer.body)


def spoken(answer: Answer, wire: Wire) -> Answer:
    """Give an answer as it goes out over `wire`: what it says of the payment stands in that wire's header."""
    if wire is CURRENT:
        return answer
    ours = PAYMENT_RESPONSE.lower()
    headers = tuple(wire.settlement_header(value) if name == ours else (name, value) for name, value in answer.headers)
    return Answer(answer.status, headers, answer.body)


def _common(content_type: str) -> list[tuple[str, str]]:
    return [
        ("content-type", content_type),
        ("cache-control", "no-store"),
        ("vary", _VARY),
        ("access-control-expose-headers", _EXPOSED),
        ("x-content-type-options", "nosniff"),
    ]
