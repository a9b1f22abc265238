"""A request as the seller's flows see it: no framework, no I/O, already matched to its route."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final
from urllib.parse import quote, urlsplit

import msgspec

from farthing.errors import ConfigError, RemoteProtocolError
from farthing.protocol.versions import CURRENT
from farthing.protocol.wire import Wire
from farthing.seller.pricing import Facts
from farthing.seller.routes import Route

# What RFC 3986 lets stand in a path without escaping (section 3.3), `/` included.
_PATH_SAFE: Final = "/:@!$&'()*+,;=-._~"
# Longer addresses would make the offer's header too large for many an intermediary (S11).
URL_MAX_CHARS: Final = 2_048

# Paths whose escaped form is remembered: a quarter of a megabyte.
_REMEMBERED_MAX: Final = 1_024
_REMEMBERED_MAX_CHARS: Final = 128

_ESCAPE = re.compile(r"%([0-9a-fA-F]{2})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Request(msgspec.Struct, frozen=True, gc=False):
    """A request for a priced route.

    `url` is the resource's address as it is offered (`offered_url`); `payments` every payment that came with it,
    and `wire` what they came over; `body_digest` the SHA-256 of the body in hex, empty where there is none.
    """

    method: str
    path: str
    query: str
    url: str
    route: Route
    params: Mapping[str, str]
    headers: Mapping[str, str]
    payments: tuple[str, ...] = ()
    body_digest: str = ""
    wire: Wire = CURRENT

    @property
    def facts(self) -> Facts:
        """What a callable price may look at."""
        return Facts(self.method, self.path, self.query, self.params, self.headers)

    @property
    def print(self) -> str:
        """The request print: method, URL as offered, digest of the body."""
        text = f"{self.method}\n{self.url}\n{self.body_digest}"
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def prefers_html(self) -> bool:
        """Whether a person asks: HTML is named, and liked at least as much as JSON (RFC 9110, section 12.5.1)."""
        accept = self.headers.get("accept", "")
        return "text/html" in accept and _quality(accept, "text/html") >= _quality(accept, "application/json")


def _quality(accept: str, media_type: str) -> float:
    found = -1.0
    for part in accept[:URL_MAX_CHARS].split(","):
        name, *parameters = (each.strip().lower() for each in part.split(";"))
        if name != media_type:
            continue
        quality = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip() == "q":
                try:
                    quality = float(value)
                except ValueError:
                    quality = 0.0
        found = max(found, quality)
    return found


def check_base_url(base_url: str) -> str:
    """Check the public base, under which buyers see the resources; gives it without a slash at its end."""
    parts = urlsplit(base_url)
    if parts.scheme not in _DEFAULT_PORTS or not parts.netloc or parts.query or parts.fragment or "@" in parts.netloc:
        message = f"base_url is {base_url!r}; write the public address of the site, like 'https://api.example.com'."
        raise ConfigError(message)
    return base_url.rstrip("/")


def offered_url(base_url: str, path: str, query: str) -> str:
    """Write the resource's address as it is offered: the public base, the path escaped anew, the query as it came."""
    url = base_url + (_quoted(path) if len(path) <= _REMEMBERED_MAX_CHARS else _quote(path))
    return f"{url}?{query}" if query else url


def _quote(path: str) -> str:
    return quote(path, safe=_PATH_SAFE, errors="replace")


_quoted = lru_cache(maxsize=_REMEMBERED_MAX)(_quote)


def normal_url(url: str) -> str:
    """Write a URL in its normal form, for comparing (RFC 3986, section 6.2.2): case, default port, escapes.

    The order of a query's members is kept, dots and double slashes too: a resource is what its offer says.
    Raises `RemoteProtocolError`.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
        host = (parts.hostname or "").lower()
    except ValueError as error:
        message = f"resource.url is no URL ({error})"
        raise RemoteProtocolError(message, path="$.resource.url") from None
    scheme = parts.scheme.lower()
    netloc = host if port is None or port == _DEFAULT_PORTS.get(scheme) else f"{host}:{port}"
    if "@" in parts.netloc:
        netloc = f"@{netloc}"
    path = _normal_escapes(parts.path) or "/"
    query = f"?{_normal_escapes(parts.query)}" if parts.query else ""
    fragment = f"#{parts.fragment}" if parts.fragment else ""
    return f"{scheme}://{netloc}{path}{query}{fragment}"


def _normal_escapes(text: str) -> str:
    def normal(found: re.Match[str]) -> str:
        character = chr(int(found[1], 16))
        return character if character in _UNRESERVED else found[0].upper()

    return _ESCAPE.sub(normal, text)
