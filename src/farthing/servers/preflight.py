"""OPTIONS on a priced path: no handler of the application ever hears of it.

A CORS preflight (Fetch standard, section 4.8) passes, but not to the priced path: a handler that takes OPTIONS would
run unpaid. The application's CORS layer is asked at an address below it that has no route, and what it says of CORS is
the answer, with the payment's headers added. Without such a layer the answer allows no other origin.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from farthing.protocol.versions import REQUEST_HEADERS
from farthing.seller.answers import Answer
from farthing.seller.headers import HeaderList, allow_payment_headers
from farthing.seller.routes import Preflight

_REQUEST_HEADERS: Final = "access-control-request-headers"
_OURS: Final = frozenset(name.lower() for name in REQUEST_HEADERS)
_REFUSED: Final = 400


def is_preflight(headers: Mapping[str, str]) -> bool:
    """Tell a preflight from another OPTIONS."""
    return "origin" in headers and "access-control-request-method" in headers


def probe_path(path: str) -> str:
    """Give the address at which the application's CORS layer is asked: below the priced one, and of no route."""
    return path.rstrip("/") + "/.cors-preflight"


def probe_headers(headers: Iterable[tuple[str, str]]) -> Iterable[tuple[str, str]]:
    """Leave the payment's headers out of what the CORS layer is asked for: they are allowed here."""
    for name, value in headers:
        if name.lower() != _REQUEST_HEADERS:
            yield name, value
            continue
        others = [each.strip() for each in value.split(",") if each.strip().lower() not in _OURS]
        if others:
            yield name, ", ".join(others)


def options_answer(match: Preflight) -> Answer:
    """Answer an OPTIONS that is no preflight: what has a price here (RFC 9110, section 9.3.7)."""
    allow = ", ".join(sorted({*(each for each in match.allow if each != "*"), "OPTIONS"}))
    return Answer(204, (("allow", allow), ("cache-control", "no-store")), b"")


def preflight_answer(status: int, said: HeaderList) -> Answer:
    """Answer a preflight with what the application's CORS layer said of it, and the payment's headers allowed."""
    cors = tuple(
        (name.lower(), value)
        for name, value in said
        if name.lower().startswith("access-control-") or name.lower() == "vary"
    )
    refused = status == _REFUSED and bool(cors)
    headers = (*allow_payment_headers(cors), ("cache-control", "no-store"))
    return Answer(_REFUSED if refused else 204, headers, b"")
