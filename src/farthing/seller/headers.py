"""Headers that a paid answer must have, whatever the handler said (SAFETY S8)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from farthing.protocol.versions import CURRENT, EXPOSED_HEADERS, REQUEST_HEADERS, RESPONSE_HEADERS, VARY_HEADERS
from farthing.protocol.wire import Wire

HeaderList = tuple[tuple[str, str], ...]

# Directives of shared caches (RFC 9111, section 5.2.2), which would serve what one buyer paid for to all others.
_SHARED = frozenset({"public", "s-maxage", "proxy-revalidate"})
# Caches of content networks obey these before Cache-Control (RFC 9213, and older names of the same).
_SHARED_HEADERS: Final = frozenset(
    {"cdn-cache-control", "cloudflare-cdn-cache-control", "surrogate-control", "x-accel-expires", "edge-control"}
)
# Headers that are lists, to which the seller adds its own members.
_LISTS: Final = frozenset({"vary", "access-control-expose-headers"})
_OUR_LISTS: Final = (
    ("vary", ", ".join(VARY_HEADERS)),
    ("access-control-expose-headers", ", ".join(EXPOSED_HEADERS)),
)


def paid_headers(
    headers: Iterable[tuple[str, str]], *, settlement: str, shared_cache: bool, wire: Wire = CURRENT
) -> HeaderList:
    """Make the headers of a paid answer: the handler's, all of them, private to this buyer, with PAYMENT-RESPONSE.

    `settlement` is the header's value; empty where there is none to give. It goes out over `wire`.
    """
    kept: list[tuple[str, str]] = []
    caching: list[str] = []
    lists = False
    for name, value in headers:
        lower = name.lower()
        if lower == "cache-control":
            caching.append(value)
        elif lower in RESPONSE_HEADERS or (not shared_cache and lower in _SHARED_HEADERS):
            continue  # the first is ours to say, whatever the handler says
        else:
            lists = lists or lower in _LISTS
            kept.append((name, value))
    if shared_cache:
        kept += [("cache-control", value) for value in caching]
    else:
        kept.append(("cache-control", private_cache_control(caching) if caching else "private"))
    if settlement:
        kept.append(wire.settlement_header(settlement))
    if not lists:
        return (*kept, *_OUR_LISTS)
    kept = _listed(kept, "vary", VARY_HEADERS)
    return tuple(_listed(kept, "access-control-expose-headers", EXPOSED_HEADERS))


def private_cache_control(values: Iterable[str]) -> str:
    """Take what shared caches may do out of Cache-Control, and say that the answer is private."""
    kept: list[str] = []
    for directive in _directives(", ".join(values)):
        name = directive.partition("=")[0].strip().lower()
        if name not in _SHARED and name != "private" and directive not in kept:
            kept.append(directive)
    if not any(each.lower() == "no-store" for each in kept):
        kept.insert(0, "private")
    return ", ".join(kept)


def _directives(value: str) -> list[str]:
    """Split a list of directives, whose quoted values may hold commas."""
    found: list[str] = []
    current, quoted = "", False
    for character in value:
        if character == '"':
            quoted = not quoted
        if character == "," and not quoted:
            found.append(current.strip())
            current = ""
        else:
            current += character
    found.append(current.strip())
    return [each for each in found if each]


def _listed(headers: list[tuple[str, str]], name: str, members: tuple[str, ...]) -> list[tuple[str, str]]:
    """See that a header that is a list names `members`, in one line of it or in a new one."""
    there = {each.strip().lower() for key, value in headers if key.lower() == name for each in value.split(",")}
    missing = [each for each in members if each.lower() not in there and "*" not in there]
    return [*headers, (name, ", ".join(missing))] if missing else headers


def allow_payment_headers(headers: Iterable[tuple[str, str]]) -> HeaderList:
    """Let a browser's script send a payment and see the answer: for the application's answer to a CORS preflight."""
    kept = list(headers)
    wildcard = any(key.lower() == "access-control-allow-headers" and value.strip() == "*" for key, value in kept)
    if not wildcard:
        kept = _listed(kept, "access-control-allow-headers", REQUEST_HEADERS)
    return tuple(_listed(kept, "access-control-expose-headers", EXPOSED_HEADERS))
