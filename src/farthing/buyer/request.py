"""A request as a purchase, and the 402 that asks to pay for it."""

from __future__ import annotations

import hashlib
from typing import Final
from urllib.parse import urlsplit

import msgspec

from farthing.buyer.policy import fold_host

_USUAL_PORTS: Final = {"http": 80, "https": 443}


class RequestFacts(msgspec.Struct, frozen=True):
    """A request as a purchase: `url` without credentials and fragment, `request_print` over method, URL and body.

    `authority` is the host, with the port where it is not the scheme's usual one; `body_digest` the body's SHA-256 in
    hex, empty where there is no body.
    """

    method: str
    url: str
    host: str
    request_print: str
    authority: str = ""
    body_digest: str = ""


class PaymentDemand(msgspec.Struct, frozen=True):
    """A 402 as it came: the PAYMENT-REQUIRED header, or None, and the beginning of the body."""

    header: str | None
    body: bytes = b""


def describe_request(method: str, url: str, body: bytes) -> RequestFacts:
    """Give a request its print: SHA-256 over method, URL and the body's SHA-256."""
    method = method.upper()
    parts = urlsplit(url)
    netloc = parts.netloc.rpartition("@")[2]
    plain = parts._replace(netloc=netloc, fragment="").geturl()
    digest = hashlib.sha256(body).hexdigest()
    seen = msgspec.json.encode([method, plain, digest])
    host = fold_host(parts.hostname or "")
    usual = parts.port is None or parts.port == _USUAL_PORTS.get(parts.scheme.lower())
    authority = host if usual else f"{host}:{parts.port}"
    return RequestFacts(
        method, plain, host, hashlib.sha256(seen).hexdigest(), authority, body_digest=digest if body else ""
    )
