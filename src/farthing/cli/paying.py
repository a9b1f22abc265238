"""The transport of the paying commands: asks without a payment, and makes a buyer only where a 402 asks for one.

So a free resource needs no key, and a passphrase is typed only when there is something to pay.
"""

from __future__ import annotations

import contextlib
import urllib.request
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import httpx2

from farthing.clients.buyer import DEMAND_BODY_MAX_BYTES, demand_of
from farthing.clients.httpx import PayingTransport
from farthing.errors import ConfigError
from farthing.protocol.http import PAYMENT_REQUIRED, STATUS_PAYMENT_REQUIRED

if TYPE_CHECKING:
    from farthing.buyer import PaymentDemand
    from farthing.cli.narrate import Narrator
    from farthing.clients.buyer import Buyer

# Of the user's own headers, those that another origin may have too (SAFETY B5): they name no one.
_HARMLESS: Final = frozenset({"accept", "accept-encoding", "accept-language", "connection", "content-length",
                              "content-type", "host", "range", "user-agent"})  # fmt: skip


class DemandSeen(Exception):
    """A 402 came, and was only to be looked at."""

    def __init__(self, demand: PaymentDemand) -> None:
        """Hold the 402."""
        super().__init__()
        self.demand = demand


class PayWhenAsked(httpx2.BaseTransport):
    """Sends with `inner`, and pays with the buyer that `make_buyer` makes. Without `pays` a 402 is `DemandSeen`."""

    def __init__(self, inner: httpx2.BaseTransport, make_buyer: Callable[[], Buyer], *, pays: bool) -> None:
        """Make no buyer yet."""
        self._inner = inner
        self._make_buyer = make_buyer
        self._pays = pays

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request; where a 402 comes back, make a buyer and pay."""
        response = self._inner.handle_request(request)
        if response.status_code != STATUS_PAYMENT_REQUIRED:
            return response
        body = beginning(response)
        if not self._pays:
            headers = response.headers
            raise DemandSeen(demand_of(headers.get(PAYMENT_REQUIRED), body, headers.get("Content-Encoding", "")))
        # The 402 that came is the one that is answered: it isn't asked for a second time.
        came = httpx2.Response(STATUS_PAYMENT_REQUIRED, headers=response.headers, stream=httpx2.ByteStream(body))
        answer = PayingTransport(self._make_buyer(), inner=_Continued(came, self._inner)).handle_request(request)
        assert isinstance(answer, httpx2.Response)  # noqa: S101 - what an httpx2 transport gives
        return answer

    def close(self) -> None:
        """Close the transport that it sends with."""
        self._inner.close()


class Told(httpx2.BaseTransport):
    """Sends with `inner`, and tells of every request and answer."""

    def __init__(self, inner: httpx2.BaseTransport, narrator: Narrator) -> None:
        """Tell it to `narrator`."""
        self._inner = inner
        self._tell = narrator

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request."""
        self._tell.request(request.method, str(request.url), request.headers.multi_items())
        try:
            response = self._inner.handle_request(request)
        except UnicodeError:  # of Python's name lookup, for labels that are empty or too long
            raise httpx2.ConnectError("no host can have this name", request=request) from None
        self._tell.response(response.status_code, response.reason_phrase, response.headers.multi_items())
        return response

    def close(self) -> None:
        """Close the transport that it sends with."""
        self._inner.close()


class _Continued(httpx2.BaseTransport):
    """Gives the first answer, which came already, and sends what follows."""

    def __init__(self, first: httpx2.Response, inner: httpx2.BaseTransport) -> None:
        self._first: httpx2.Response | None = first
        self._inner = inner

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        first, self._first = self._first, None
        return self._inner.handle_request(request) if first is None else first


def transport_for(url: str) -> httpx2.HTTPTransport:
    """Give the transport for `url`: through the proxy that the environment names, as curl does."""
    parts = httpx2.URL(url)
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or urllib.request.proxy_bypass(parts.host):
        return httpx2.HTTPTransport()
    try:
        return httpx2.HTTPTransport(proxy=proxy)
    except (ValueError, ImportError):
        raise ConfigError("The proxy that the environment names can't be used.") from None


def may_follow(following: httpx2.Request, request: httpx2.Request) -> httpx2.Request:
    """Make a redirect fit to be followed: another origin gets no credentials, and https never becomes http."""
    before, after = request.url, following.url
    if before.scheme == "https" and after.scheme != "https":
        raise ConfigError(f"The server redirects from https to {after.scheme}, which is not followed.")
    if (before.scheme, before.host, before.port) != (after.scheme, after.host, after.port):
        for name in [name for name in following.headers if name.lower() not in _HARMLESS]:
            del following.headers[name]
    return following


def beginning(response: httpx2.Response) -> bytes:
    """Read a 402's body as it came: to its end, within bounds, so that the connection serves the paid request too."""
    seen = b""
    stream = response.stream
    try:
        with contextlib.suppress(httpx2.TransportError):
            if isinstance(stream, httpx2.SyncByteStream):
                for part in stream:
                    seen += part
                    if len(seen) > DEMAND_BODY_MAX_BYTES:
                        break
    finally:
        response.close()
    return seen[:DEMAND_BODY_MAX_BYTES]
