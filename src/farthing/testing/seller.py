"""A hostile seller: stands before a real one, lets requests without a payment pass, and misbehaves where somebody paid.

    with HostileSeller("http://127.0.0.1:8402", [SellerMode.CUT_AFTER_SETTLING] * 2) as seller:
        client.get(seller.url + "/weather")      # misbehaves twice, then behaves
    assert len(seller.payments()) == 1           # however often the client asked, it signed one payment

It forwards to the real seller what a mode says is settled, so the money really moves there.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable
from enum import Enum
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from farthing.protocol.codec import unpack_header
from farthing.protocol.http import PAYMENT_REQUIRED, PAYMENT_RESPONSE, STATUS_PAYMENT_REQUIRED
from farthing.protocol.versions import PAYMENT_HEADERS
from farthing.testing.script import Script
from farthing.testing.standin import Answer, Exchange, Seen, StandIn

# A head over any client's limit (httptools and h11 take 64 to 100 KiB), and a body that nobody should read unbounded.
OVERSIZED_HEADER_BYTES: Final = 256 * 1024
OVERSIZED_BODY_BYTES: Final = 8 * 1024 * 1024
# Half a kilobyte of head takes seconds; no pause is as long as a client's read time-out.
DRIP_PAUSE_SECONDS: Final = 0.005
# Where a redirect leads: a name that nobody can have (RFC 2606).
ELSEWHERE: Final = "http://elsewhere.invalid/take"
PRICE_FACTOR: Final = 10
# An address that belongs to nobody we know.
OTHER_PAYEE: Final = "0x000000000000000000000000000000000000dEaD"
OTHER_TRANSACTION: Final = "0x" + "de" * 32

_SETTLES: Final = "settles"
_ALONE: Final = "alone"


class SellerMode(Enum):
    """What the hostile seller does with a paid request. `settles` tells whether the real seller gets it."""

    BEHAVE = (_SETTLES, "The real seller's answer, as it is.")
    CUT_BEFORE = (_ALONE, "The connection ends before anything is settled, without an answer.")
    CUT_AFTER_SETTLING = (_SETTLES, "The connection ends after settling, without an answer.")
    CUT_IN_HEADERS = (_SETTLES, "The connection ends in the middle of the answer's head, after settling.")
    CUT_IN_BODY = (_SETTLES, "The connection ends in the middle of the answer's body, after settling.")
    TIMEOUT_BEFORE = (_ALONE, "No answer as long as the client waits; nothing is settled.")
    TIMEOUT_AFTER_SETTLING = (_SETTLES, "No answer as long as the client waits, after settling.")
    SLOW_DRIP = (_SETTLES, "The right answer, a byte at a time.")
    ERROR_BEFORE = (_ALONE, "503 Service Unavailable; nothing is settled.")
    BAD_GATEWAY_AFTER_SETTLING = (_SETTLES, "A proxy's 502 page, after settling.")
    SECOND_402 = (_ALONE, "The offer again, as if nothing had been paid; nothing is settled.")
    SECOND_402_AFTER_SETTLING = (_SETTLES, "The offer again, as if nothing had been paid, after settling.")
    DEARER_402_AFTER_SETTLING = (_SETTLES, "After settling, an offer of ten times the price.")
    OTHER_PAYEE_402_AFTER_SETTLING = (_SETTLES, "After settling, an offer that pays somebody else.")
    REFUSED_AFTER_SETTLING = (_SETTLES, "A lie: 402, `success: false`, `insufficient_funds` and a new offer, after it.")
    PENDING_FOREVER = (_SETTLES, "402 with `settlement_pending`, whatever became of it.")
    PROSE = (_SETTLES, "200 with friendly words and no PAYMENT-RESPONSE, after settling.")
    PROSE_UNSETTLED = (_ALONE, "200 with friendly words and no PAYMENT-RESPONSE; nothing is settled.")
    OTHER_TRANSACTION = (_SETTLES, "The goods, with a PAYMENT-RESPONSE that names a transaction that nobody sent.")
    CLAIMED_UNSETTLED = (_ALONE, "A lie: 200, `success: true` and a made-up transaction; nothing is settled.")
    UNREADABLE_RESPONSE = (_SETTLES, "The goods, with a PAYMENT-RESPONSE that is no base64.")
    TRUNCATED_RESPONSE = (_SETTLES, "The goods, with half of a PAYMENT-RESPONSE.")
    OVERSIZED_HEADER = (_SETTLES, "The goods, with a PAYMENT-RESPONSE of 256 KiB.")
    OVERSIZED_BODY = (_SETTLES, "The right head, and a body of 8 MiB.")
    REDIRECT = (_SETTLES, "307 to another host, after settling.")
    REDIRECT_UNSETTLED = (_ALONE, "307 to another host; nothing is settled.")

    def __init__(self, way: str, sentence: str) -> None:
        """Keep what the mode does with the money, and its sentence."""
        self.settles = way == _SETTLES
        self.__doc__ = sentence


class HostileSeller:
    """A seller that misbehaves on cue; a context manager that listens while it lasts.

    `modes` is one mode for ever, or several in turn and `then` after them. Requests without a payment pass.
    """

    def __init__(
        self, upstream_url: str, modes: SellerMode | Iterable[SellerMode] = (), *, then: SellerMode = SellerMode.BEHAVE
    ) -> None:
        """Stand before the real seller at `upstream_url` (http). Raises `ConfigError` for another URL."""
        self._script = Script(modes, then=then)
        self._stand_in = StandIn(upstream_url, self._answer)

    def __enter__(self) -> Self:
        self._stand_in.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stand_in.__exit__(kind, error, traceback)

    @property
    def url(self) -> str:
        """Where it listens: `http://127.0.0.1:PORT`."""
        return self._stand_in.url

    def play(self, modes: SellerMode | Iterable[SellerMode], *, then: SellerMode = SellerMode.BEHAVE) -> None:
        """From now on play these."""
        self._script = Script(modes, then=then)

    def seen(self) -> tuple[Seen, ...]:
        """Every request, in its order; `mode` is empty for those without a payment."""
        return self._stand_in.seen()

    def paid_requests(self) -> tuple[Seen, ...]:
        """The requests that carried a payment."""
        return tuple(each for each in self.seen() if _payment(each))

    def payments(self) -> tuple[str, ...]:
        """The different payments that came, in the order of their first coming: signed authorisations, not copies.

        Two payloads with one nonce are one payment: of the two only one can settle.
        """
        return tuple(dict.fromkeys(_identity(_payment(each)) for each in self.paid_requests()))

    def _answer(self, exchange: Exchange) -> None:
        if not _payment(exchange.request):
            self._stand_in.note(exchange.request)
            exchange.send(exchange.forward())
            return
        mode = self._script.next()
        self._stand_in.note(msgspec.structs.replace(exchange.request, mode=mode.name))
        answer = exchange.forward() if mode.settles else Answer(503, (), b"unavailable")
        _ACTS[mode](exchange, answer)


def _payment(request: Seen) -> str:
    return next((value for name, value in request.headers if name.lower() in PAYMENT_HEADERS), "")


def _identity(header: str) -> str:
    """What can be spent once: the payer and the nonce of the authorisation, where it has one."""
    try:
        payload: Any = json.loads(base64.b64decode(header))["payload"]
        signed = payload.get("authorization") or payload["permit2Authorization"]
        return f"{signed['from']}:{signed['nonce']}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return header


def _offer(exchange: Exchange, change: Callable[[dict[str, Any]], object] = lambda _: None) -> Answer:
    """The 402 that the real seller gives to whoever has not paid, with each of its offers changed."""
    answer = exchange.forward(without=PAYMENT_HEADERS)
    header = answer.header(PAYMENT_REQUIRED)
    if header:
        message: dict[str, Any] = json.loads(unpack_header(header, what=PAYMENT_REQUIRED))
        for each in message["accepts"]:
            change(each)
        answer = answer.with_header(PAYMENT_REQUIRED, _packed(message))
    return answer


def _dearer(offer: dict[str, Any]) -> None:
    offer["amount"] = str(int(offer["amount"]) * PRICE_FACTOR)


def _elsewhere(offer: dict[str, Any]) -> None:
    offer["payTo"] = OTHER_PAYEE


def _packed(message: object) -> str:
    return base64.b64encode(json.dumps(message, separators=(",", ":")).encode()).decode()


def _network(exchange: Exchange) -> str:
    try:
        return str(json.loads(base64.b64decode(_payment(exchange.request)))["accepted"]["network"])
    except (ValueError, KeyError, TypeError):
        return "eip155:1"


def _response(exchange: Exchange, *, success: bool, transaction: str = "", reason: str = "") -> str:
    message = {"success": success, "transaction": transaction, "network": _network(exchange)}
    return _packed(message | ({"errorReason": reason} if reason else {}))


def _refused(exchange: Exchange) -> Answer:
    response = _response(exchange, success=False, reason="insufficient_funds")
    return _offer(exchange).with_header(PAYMENT_RESPONSE, response)


def _pending(exchange: Exchange, answer: Answer) -> Answer:
    transaction = _transaction_of(answer)
    response = _response(exchange, success=False, transaction=transaction, reason="settlement_pending")
    return Answer(STATUS_PAYMENT_REQUIRED, ((PAYMENT_RESPONSE, response), ("Retry-After", "1")), b"{}")


def _transaction_of(answer: Answer) -> str:
    try:
        header = answer.header(PAYMENT_RESPONSE)
        return str(json.loads(unpack_header(header, what=PAYMENT_RESPONSE))["transaction"]) if header else ""
    except (ValueError, KeyError, TypeError):
        return ""


def _lying(exchange: Exchange, answer: Answer) -> Answer:
    return answer.with_header(PAYMENT_RESPONSE, _response(exchange, success=True, transaction=OTHER_TRANSACTION))


def _half(text: str) -> str:
    return text[: len(text) // 2]


_GOODS: Final = Answer(200, (("Content-Type", "application/json"),), b'{"goods": "or so they say"}')
_PROSE: Final = Answer(200, (("Content-Type", "text/plain"),), b"Thank you! All is well, your money has arrived.")
_BAD_GATEWAY: Final = Answer(502, (("Content-Type", "text/html"),), b"<html><h1>502 Bad Gateway</h1></html>")
_REDIRECT: Final = Answer(307, (("Location", ELSEWHERE),), b"")

_ACTS: Final[dict[SellerMode, Callable[[Exchange, Answer], object]]] = {
    SellerMode.BEHAVE: lambda exchange, answer: exchange.send(answer),
    SellerMode.CUT_BEFORE: lambda exchange, _: exchange.cut(),
    SellerMode.CUT_AFTER_SETTLING: lambda exchange, _: exchange.cut(),
    SellerMode.CUT_IN_HEADERS: lambda exchange, answer: exchange.send_part_of_head(answer),
    SellerMode.CUT_IN_BODY: lambda exchange, answer: exchange.send_part(answer, body_bytes=len(answer.body) // 2),
    SellerMode.TIMEOUT_BEFORE: lambda exchange, _: exchange.hold(),
    SellerMode.TIMEOUT_AFTER_SETTLING: lambda exchange, _: exchange.hold(),
    SellerMode.SLOW_DRIP: lambda exchange, answer: exchange.drip(answer, pause_seconds=DRIP_PAUSE_SECONDS),
    SellerMode.ERROR_BEFORE: lambda exchange, answer: exchange.send(answer),
    SellerMode.BAD_GATEWAY_AFTER_SETTLING: lambda exchange, _: exchange.send(_BAD_GATEWAY),
    SellerMode.SECOND_402: lambda exchange, _: exchange.send(_offer(exchange)),
    SellerMode.SECOND_402_AFTER_SETTLING: lambda exchange, _: exchange.send(_offer(exchange)),
    SellerMode.DEARER_402_AFTER_SETTLING: lambda exchange, _: exchange.send(_offer(exchange, _dearer)),
    SellerMode.OTHER_PAYEE_402_AFTER_SETTLING: lambda exchange, _: exchange.send(_offer(exchange, _elsewhere)),
    SellerMode.REFUSED_AFTER_SETTLING: lambda exchange, _: exchange.send(_refused(exchange)),
    SellerMode.PENDING_FOREVER: lambda exchange, answer: exchange.send(_pending(exchange, answer)),
    SellerMode.PROSE: lambda exchange, _: exchange.send(_PROSE),
    SellerMode.PROSE_UNSETTLED: lambda exchange, _: exchange.send(_PROSE),
    SellerMode.OTHER_TRANSACTION: lambda exchange, answer: exchange.send(_lying(exchange, answer)),
    SellerMode.CLAIMED_UNSETTLED: lambda exchange, _: exchange.send(_lying(exchange, _GOODS)),
    SellerMode.UNREADABLE_RESPONSE: lambda exchange, answer: exchange.send(
        answer.with_header(PAYMENT_RESPONSE, "*this is no base64*")
    ),
    SellerMode.TRUNCATED_RESPONSE: lambda exchange, answer: exchange.send(
        answer.with_header(PAYMENT_RESPONSE, _half(answer.header(PAYMENT_RESPONSE)))
    ),
    SellerMode.OVERSIZED_HEADER: lambda exchange, answer: exchange.send(
        answer.with_header(PAYMENT_RESPONSE, "A" * OVERSIZED_HEADER_BYTES)
    ),
    SellerMode.OVERSIZED_BODY: lambda exchange, answer: exchange.send(
        Answer(answer.status, answer.headers, b"x" * OVERSIZED_BODY_BYTES)
    ),
    SellerMode.REDIRECT: lambda exchange, _: exchange.send(_REDIRECT),
    SellerMode.REDIRECT_UNSETTLED: lambda exchange, _: exchange.send(_REDIRECT),
}  # fmt: skip
