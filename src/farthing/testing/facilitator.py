"""A hostile facilitator: stands before a real one and misbehaves where a seller verifies or settles.

    with HostileFacilitator("http://127.0.0.1:8403", FacilitatorMode.CUT_AFTER_SETTLING) as facilitator:
        seller = Seller(facilitator=RemoteFacilitator(facilitator.url), …)

It forwards to the real facilitator what a mode says is settled, so the money really moves there. `/supported`,
`/payments` and all else pass: a seller that looks for evidence finds it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from enum import Enum
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from farthing.testing.script import Script
from farthing.testing.standin import Answer, Exchange, Seen, StandIn

# Over what any facilitator's answer has; ours are read up to 256 KiB.
OVERSIZED_BYTES: Final = 8 * 1024 * 1024
# Two hundred bytes of head and body take eight seconds and more.
DRIP_PAUSE_SECONDS: Final = 0.02
ELSEWHERE: Final = "http://elsewhere.invalid/settle"
OTHER_TRANSACTION: Final = "0x" + "de" * 32
OTHER_NETWORK: Final = "eip155:999999"

_VERIFY: Final = "/verify"
_SETTLE: Final = "/settle"
_SETTLES: Final = "settles"
_ALONE: Final = "alone"


class FacilitatorMode(Enum):
    """What the hostile facilitator does with a call. `settles` tells whether the real facilitator gets it."""

    BEHAVE = (_SETTLES, "The real facilitator's answer, as it is.")
    CUT_BEFORE = (_ALONE, "The connection ends before anything is settled, without an answer.")
    CUT_AFTER_SETTLING = (_SETTLES, "The connection ends after settling, without an answer.")
    CUT_IN_HEADERS = (_SETTLES, "The connection ends in the middle of the answer's head, after settling.")
    CUT_IN_BODY = (_SETTLES, "The connection ends in the middle of the answer's body, after settling.")
    TIMEOUT_BEFORE = (_ALONE, "No answer as long as the caller waits; nothing is settled.")
    TIMEOUT_AFTER_SETTLING = (_SETTLES, "No answer as long as the caller waits, after settling.")
    SLOW_DRIP = (_SETTLES, "The right answer, a byte at a time, slower than a short time-out.")
    ERROR_BEFORE = (_ALONE, "500 with JSON of another kind; nothing is settled.")
    BAD_GATEWAY_AFTER_SETTLING = (_SETTLES, "A proxy's 502 page, after settling.")
    UNAVAILABLE_WITH_SUCCESS = (_SETTLES, "503 whose body says `success: true`.")
    TRUNCATED = (_SETTLES, "200 and half of the right JSON, after settling.")
    OVERSIZED = (_SETTLES, "200 and the right JSON with 8 MiB of padding in it, after settling.")
    EMPTY = (_SETTLES, "200 without a body, after settling.")
    PROSE = (_SETTLES, "200 with friendly words, after settling.")
    PROSE_UNSETTLED = (_ALONE, "200 with friendly words; nothing is settled.")
    WRONG_TYPES = (_SETTLES, '`success: "true"`: text where a truth value belongs, after settling.')
    NO_TRANSACTION = (_ALONE, "`success: true` that names no transaction; nothing is settled.")
    OTHER_NETWORK = (_SETTLES, "`success: true` on another network, after settling.")
    PENDING_FOREVER = (_SETTLES, "`settlement_pending` with the transaction, whatever became of it.")
    REFUSED_AFTER_SETTLING = (_SETTLES, "A lie: `success: false`, `insufficient_funds`, after settling.")
    OTHER_TRANSACTION = (_SETTLES, "A lie: `success: true` with a transaction that nobody sent, after settling.")
    CLAIMED_UNSETTLED = (_ALONE, "A lie: `success: true` with a transaction that nobody sent; nothing is settled.")
    REDIRECT = (_ALONE, "307 to another host; nothing is settled.")

    def __init__(self, way: str, sentence: str) -> None:
        """Keep what the mode does with the money, and its sentence."""
        self.settles = way == _SETTLES
        self.__doc__ = sentence

    @property
    def lies(self) -> bool:
        """Whether it says `success: true`, well formed: nobody without a node of their own can tell this from truth."""
        return self in {FacilitatorMode.OTHER_TRANSACTION, FacilitatorMode.CLAIMED_UNSETTLED}


class HostileFacilitator:
    """A facilitator that misbehaves on cue; a context manager that listens while it lasts.

    `settle` and `verify` are each one mode for ever, or several in turn and BEHAVE after them.
    """

    def __init__(
        self,
        upstream_url: str,
        settle: FacilitatorMode | Iterable[FacilitatorMode] = (),
        *,
        verify: FacilitatorMode | Iterable[FacilitatorMode] = (),
    ) -> None:
        """Stand before the real facilitator at `upstream_url` (http). Raises `ConfigError` for another URL."""
        self._scripts = {
            _SETTLE: Script(settle, then=FacilitatorMode.BEHAVE),
            _VERIFY: Script(verify, then=FacilitatorMode.BEHAVE),
        }
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

    def play(
        self,
        settle: FacilitatorMode | Iterable[FacilitatorMode] = (),
        *,
        verify: FacilitatorMode | Iterable[FacilitatorMode] = (),
    ) -> None:
        """From now on play these."""
        self._scripts = {
            _SETTLE: Script(settle, then=FacilitatorMode.BEHAVE),
            _VERIFY: Script(verify, then=FacilitatorMode.BEHAVE),
        }

    def seen(self) -> tuple[Seen, ...]:
        """Every request, in its order."""
        return self._stand_in.seen()

    def count(self, path: str) -> int:
        """How many requests came for `path` (`/settle`)."""
        return sum(each.path == path for each in self.seen())

    def _answer(self, exchange: Exchange) -> None:
        script = self._scripts.get(exchange.request.path)
        if script is None:
            self._stand_in.note(exchange.request)
            exchange.send(exchange.forward())
            return
        mode = script.next()
        self._stand_in.note(msgspec.structs.replace(exchange.request, mode=mode.name))
        answer = exchange.forward() if mode.settles else _ERROR
        _ACTS[mode](exchange, answer)


def _json(answer: Answer, **changes: object) -> Answer:
    """The answer's JSON with some members changed, as a 200."""
    try:
        message: dict[str, Any] = json.loads(answer.body)
    except ValueError:
        message = {}
    return Answer(200, _TYPE, json.dumps(message | changes).encode())


def _made_up(exchange: Exchange, **changes: object) -> Answer:
    """A settlement that is well formed, from the request alone."""
    try:
        network = json.loads(exchange.request.body)["paymentRequirements"]["network"]
    except (ValueError, KeyError, TypeError):
        network = "eip155:1"
    message = {"success": True, "isValid": True, "transaction": OTHER_TRANSACTION, "network": network}
    return Answer(200, _TYPE, json.dumps(message | changes).encode())


_TYPE: Final = (("Content-Type", "application/json"),)
_ERROR: Final = Answer(500, _TYPE, b'{"detail": "Internal Server Error"}')
_PROSE: Final = Answer(200, (("Content-Type", "text/plain"),), b"Thank you! All is well, your money has arrived.")
_BAD_GATEWAY: Final = Answer(502, (("Content-Type", "text/html"),), b"<html><h1>502 Bad Gateway</h1></html>")
_REDIRECT: Final = Answer(307, (("Location", ELSEWHERE),), b"")
_REFUSAL: Final[dict[str, object]] = {
    "success": False,
    "errorReason": "insufficient_funds",
    "transaction": "",
    "isValid": False,
    "invalidReason": "insufficient_funds",
}
_PENDING: Final[dict[str, object]] = {
    "success": False,
    "errorReason": "settlement_pending",
    "isValid": False,
    "invalidReason": "unexpected_verify_error",
}

_ACTS: Final[dict[FacilitatorMode, Callable[[Exchange, Answer], object]]] = {
    FacilitatorMode.BEHAVE: lambda exchange, answer: exchange.send(answer),
    FacilitatorMode.CUT_BEFORE: lambda exchange, _: exchange.cut(),
    FacilitatorMode.CUT_AFTER_SETTLING: lambda exchange, _: exchange.cut(),
    FacilitatorMode.CUT_IN_HEADERS: lambda exchange, answer: exchange.send_part_of_head(answer),
    FacilitatorMode.CUT_IN_BODY: lambda exchange, answer: exchange.send_part(answer, body_bytes=len(answer.body) // 2),
    FacilitatorMode.TIMEOUT_BEFORE: lambda exchange, _: exchange.hold(),
    FacilitatorMode.TIMEOUT_AFTER_SETTLING: lambda exchange, _: exchange.hold(),
    FacilitatorMode.SLOW_DRIP: lambda exchange, answer: exchange.drip(answer, pause_seconds=DRIP_PAUSE_SECONDS),
    FacilitatorMode.ERROR_BEFORE: lambda exchange, answer: exchange.send(answer),
    FacilitatorMode.BAD_GATEWAY_AFTER_SETTLING: lambda exchange, _: exchange.send(_BAD_GATEWAY),
    FacilitatorMode.UNAVAILABLE_WITH_SUCCESS: lambda exchange, answer: exchange.send(
        Answer(503, answer.headers, answer.body)
    ),
    FacilitatorMode.TRUNCATED: lambda exchange, answer: exchange.send(
        Answer(200, _TYPE, answer.body[: len(answer.body) // 2])
    ),
    FacilitatorMode.OVERSIZED: lambda exchange, answer: exchange.send(_json(answer, padding="x" * OVERSIZED_BYTES)),
    FacilitatorMode.EMPTY: lambda exchange, _: exchange.send(Answer(200, _TYPE)),
    FacilitatorMode.PROSE: lambda exchange, _: exchange.send(_PROSE),
    FacilitatorMode.PROSE_UNSETTLED: lambda exchange, _: exchange.send(_PROSE),
    FacilitatorMode.WRONG_TYPES: lambda exchange, answer: exchange.send(_json(answer, success="true", isValid="true")),
    FacilitatorMode.NO_TRANSACTION: lambda exchange, _: exchange.send(_made_up(exchange, transaction="")),
    FacilitatorMode.OTHER_NETWORK: lambda exchange, answer: exchange.send(_json(answer, network=OTHER_NETWORK)),
    FacilitatorMode.PENDING_FOREVER: lambda exchange, answer: exchange.send(_json(answer, **_PENDING)),
    FacilitatorMode.REFUSED_AFTER_SETTLING: lambda exchange, answer: exchange.send(_json(answer, **_REFUSAL)),
    FacilitatorMode.OTHER_TRANSACTION: lambda exchange, answer: exchange.send(
        _json(answer, transaction=OTHER_TRANSACTION)
    ),
    FacilitatorMode.CLAIMED_UNSETTLED: lambda exchange, _: exchange.send(_made_up(exchange)),
    FacilitatorMode.REDIRECT: lambda exchange, _: exchange.send(_REDIRECT),
}
