"""The 402s of fixed prices, remembered as they leave: most requests to a priced route bring no payment.

What such a request is answered follows from its method, its address and the table of routes alone, so that the same
request gets the same bytes. Whoever brings a payment, asks for another method or reads HTML is answered afresh.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeAlias

import msgspec

from farthing.protocol.http import STATUS_PAYMENT_REQUIRED
from farthing.protocol.versions import PAYMENT_HEADERS
from farthing.seller.answers import Answer
from farthing.seller.routes import Route, RouteTable
from farthing.servers.seller import OVERRIDE_HEADERS

# Answers of some three kilobytes: a megabyte at most. Whoever asks for many addresses is answered afresh.
_REMEMBERED_MAX: Final = 256
_ADDRESS_MAX_CHARS: Final = 512

Asked: TypeAlias = tuple[str, str, str, bytes]


class Remembered(msgspec.Struct, frozen=True):
    """An answer as ASGI sends it."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


class UnpaidAnswers:
    """Answers by what was asked, as long as the table of routes is the same."""

    def __init__(self, routes: RouteTable) -> None:
        """Remember nothing yet."""
        self._routes = routes
        self._version = routes.version
        self._answers: dict[Asked, Remembered] = {}

    def asked(self, scope: MutableMapping[str, Any]) -> Asked | None:
        """Say what a request asks for; None where more than that decides its answer."""
        for name, value in scope["headers"]:
            lower = name.lower()
            if lower in _DECIDING or (lower == b"accept" and b"text/html" in value):
                return None
        path, query = scope["path"], scope.get("query_string", b"")
        if scope["method"] == "HEAD" or len(path) + len(query) > _ADDRESS_MAX_CHARS:
            return None
        return scope["method"], path, scope.get("root_path", ""), query

    async def sent(self, asked: Asked, send: Callable[[MutableMapping[str, Any]], Awaitable[None]]) -> bool:
        """Send the answer, where it is remembered."""
        if self._version != self._routes.version:
            self._answers.clear()
            self._version = self._routes.version
        found = self._answers.get(asked)
        if found is None:
            return False
        # A copy: what stands before the door may add to the headers that it gets.
        await send({"type": "http.response.start", "status": found.status, "headers": list(found.headers)})
        await send({"type": "http.response.body", "body": found.body, "more_body": False})
        return True

    def keep(self, asked: Asked | None, route: Route, answer: Answer) -> None:
        """Remember an answer, where it will be the same the next time: an offer at fixed prices."""
        if asked is None or answer.status != STATUS_PAYMENT_REQUIRED or any(way.fixed is None for way in route.ways):
            return
        if self._version != self._routes.version:
            return  # a route was priced while this was being answered
        if len(self._answers) >= _REMEMBERED_MAX:
            self._answers.clear()
        headers = (*answer.headers, ("content-length", str(len(answer.body))))
        encoded = tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in headers)
        self._answers[asked] = Remembered(answer.status, encoded, answer.body)


# What makes an answer another one: payments of any version, and the headers by which a method is overridden.
_DECIDING: Final = frozenset(name.encode() for name in (*PAYMENT_HEADERS, *OVERRIDE_HEADERS))
