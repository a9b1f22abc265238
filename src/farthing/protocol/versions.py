"""The versions that are spoken at the door, and which one a message is in. Inside there is one: version 2.

To speak another, give it a wire (`farthing.protocol.wire`) and name it here; nothing else changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from farthing.protocol.codec import ReceivedOffers, encode_json
from farthing.protocol.messages import PaymentRequired, SupportedResponse
from farthing.protocol.v1 import Version1
from farthing.protocol.wire import Version2, Wire

CURRENT: Final[Wire] = Version2()
# The current one first: where a message could be read in several, it is the first one's.
VERSIONS: Final[tuple[Wire, ...]] = (CURRENT, Version1())
_OTHERS: Final = VERSIONS[1:]

# Header names, lower case: what carries a payment, and what says what became of it.
PAYMENT_HEADERS: Final = frozenset(wire.payment_header.lower() for wire in VERSIONS)
RESPONSE_HEADERS: Final = frozenset(wire.response_header.lower() for wire in VERSIONS)
# What a browser's script must be allowed to send and to see (CORS), and what a paid answer varies on.
REQUEST_HEADERS: Final = tuple(name for wire in VERSIONS for name in wire.request_headers)
EXPOSED_HEADERS: Final = tuple(name for wire in VERSIONS for name in wire.exposed_headers)
VARY_HEADERS: Final = tuple(wire.payment_header for wire in VERSIONS)

_BY_HEADER: Final[Mapping[str, Wire]] = {wire.payment_header.lower(): wire for wire in VERSIONS}
_BY_VERSION: Final[Mapping[int, Wire]] = {wire.version: wire for wire in VERSIONS}


def presented(headers: Iterable[tuple[str, str]]) -> tuple[Wire, tuple[str, ...]]:
    """Find the payments of a request: every value, in order, and the wire they came over. Names are lower case.

    A request has one payment; of several, over one wire or two, nobody need say which is meant.
    """
    wire: Wire = CURRENT
    found: tuple[str, ...] = ()
    for name, value in headers:
        if name in _BY_HEADER:
            wire = _BY_HEADER[name]
            found = (*found, value)
    return wire, found


def presented_joined(headers: Mapping[str, str]) -> tuple[Wire, tuple[str, ...]]:
    """Find the payments of a request whose server joins repeated headers with a comma, which base64 has not."""
    names = [name for name in _BY_HEADER if name in headers]
    if not names:
        return CURRENT, ()
    return presented((name, value) for name in names for value in headers[name].split(","))


def offer_body(message: PaymentRequired, reason: str = "") -> bytes:
    """Write the body of a 402. Version 2 reads the header alone, so that the body is for those who read offers there.

    `reason` is the code for which a payment was refused.
    """
    for wire in _OTHERS:
        body = wire.offer_body(message, reason)
        if body is not None:
            return body
    return encode_json(message)


def read_demand(header: str | None, body: bytes) -> tuple[Wire, ReceivedOffers] | None:
    """Read a 402: its PAYMENT-REQUIRED header, or None, and the beginning of its body. None where it offers nothing.

    Raises `RemoteProtocolError` for an offer that can't be read.
    """
    for wire in VERSIONS:
        received = wire.read_offers(header, body)
        if received is not None:
            return wire, received
    return None


def wire_of_payment(value: str) -> Wire:
    """Say over which wire a payment header's value travels, that was written here."""
    return next((wire for wire in _OTHERS if wire.wrote(value)), CURRENT)


def wire_of_version(version: int) -> Wire | None:
    """Find the wire of a version's number; None where it is not spoken here."""
    return _BY_VERSION.get(version)


def in_all_versions(supported: SupportedResponse) -> SupportedResponse:
    """Give a facilitator's kinds as each version names them."""
    kinds = tuple(kind for wire in VERSIONS for kind in wire.kinds(supported.kinds))
    return msgspec.structs.replace(supported, kinds=kinds)
