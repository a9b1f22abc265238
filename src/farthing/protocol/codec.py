"""The codec: JSON and the base64 headers that carry it, bounded before anything is decoded.

Source: `specs/transports-v2/http.md`. Base64 is the standard alphabet with padding (RFC 4648, section 4).
"""

from __future__ import annotations

import binascii
import re
from typing import Any, TypeVar

import msgspec

from farthing.errors import RemoteProtocolError
from farthing.protocol.messages import (
    OFFERS_MAX,
    X402_VERSION,
    PaymentPayload,
    PaymentRequired,
    PaymentRequirements,
    ResourceInfo,
    SettlementResponse,
    SupportedResponse,
    VerifyRequest,
    VerifyResponse,
)

# A header over this is refused before it is decoded (S10): intermediaries refuse more than 8 to 16 KiB anyway.
HEADER_MAX_BYTES = 16_384
# Offers are read by other people's clients through other people's proxies, so ours stay under half of it (S11).
OFFER_HEADER_MAX_BYTES = 8_192
# A facilitator's request carries one payment and its requirements: twice the header, unpacked, and some room.
BODY_MAX_BYTES = 65_536
# Offers nest four deep, JSON Schemas of extensions some ten more. Where Python's own stack ends depends on its version.
NESTING_MAX = 64
# What a buyer takes for the window of an offer that names none (`cloudflare:402` does not): the shortest that the
# official packages ask for, since a window that is open for longer than needed is a risk.
TIMEOUT_DEFAULT_SECONDS = 60

T = TypeVar("T")

_encoder = msgspec.json.Encoder()
_payment_decoder = msgspec.json.Decoder(PaymentPayload)
_requirements_decoder = msgspec.json.Decoder(PaymentRequirements)
_settlement_decoder = msgspec.json.Decoder(SettlementResponse)
_verify_request_decoder = msgspec.json.Decoder(VerifyRequest)
_verify_response_decoder = msgspec.json.Decoder(VerifyResponse)
_supported_decoder = msgspec.json.Decoder(SupportedResponse)

# msgspec ends its messages with the path: "Expected `str`, got `int` - at `$.accepted.amount`".
_PATH = re.compile(r"(?P<what>.*?)(?: - at `(?P<path>\$[^`]*)`)?\Z", re.DOTALL)
# A string, or what there is of one: nothing here may fail and try again, which would take quadratic time.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.?)*+"?', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")
# A missing member and a struct's own check are told of the object; the member at fault stands in the words.
_MEMBER = re.compile(r"(?:Object missing required field )?`(?P<member>[A-Za-z0-9]+)`")


class Offer(msgspec.Struct, frozen=True):
    """One entry of `accepts`, as the buyer sees it: parsed, and raw as it must be echoed."""

    index: int
    requirements: PaymentRequirements
    raw: msgspec.Raw


class PassedOver(msgspec.Struct, frozen=True):
    """An entry of `accepts` that could not be read: named, and passed over."""

    index: int
    why: str


class ReceivedOffers(msgspec.Struct, frozen=True):
    """A 402 as the buyer received it. One unreadable offer spoils none of the others."""

    offers: tuple[Offer, ...]
    passed_over: tuple[PassedOver, ...]
    resource: ResourceInfo | None
    resource_raw: msgspec.Raw | None
    extensions: dict[str, Any]
    error: str


class _Envelope(msgspec.Struct, frozen=True, rename="camel"):
    """A 402's outside, with all that must be echoed kept raw."""

    accepts: list[msgspec.Raw]
    x402_version: int = msgspec.field(name="x402Version", default=X402_VERSION)
    resource: msgspec.Raw = msgspec.Raw(b"null")
    error: str | None = None
    extensions: dict[str, Any] | None = None


_envelope_decoder = msgspec.json.Decoder(_Envelope)
_members_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_resource_decoder = msgspec.json.Decoder(ResourceInfo)


def decode_with(decoder: msgspec.json.Decoder[T], data: bytes | msgspec.Raw, *, what: str, at: str = "$") -> T:
    """Decode JSON and say, when it can't be, what is wrong with which field of `what`.

    `at` is where `data` stands in its message: a payload read by its mechanism stands at `$.payload`.
    """
    if not isinstance(data, msgspec.Raw) and _nests_too_deep(data):
        message = f"{what}: JSON is nested too deep; the limit is {NESTING_MAX}"
        raise RemoteProtocolError(message, path=at)
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        why, path = _explain(str(error))
        raise RemoteProtocolError(f"{what}: {why}", path=at + path.removeprefix("$")) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        message = f"{what}: not JSON ({error})"
        raise RemoteProtocolError(message, path=at) from None


def _nests_too_deep(data: bytes) -> bool:
    # Nothing is deeper than it has opening brackets, and most messages have a handful: two scans at memory's speed.
    if data.count(b"{") + data.count(b"[") <= NESTING_MAX:
        return False
    depth = 0
    for bracket in _BRACKET.finditer(_STRING.sub(b"", data)):
        depth += 1 if bracket[0] in b"[{" else -1
        if depth > NESTING_MAX:
            return True
    return False


def _explain(text: str) -> tuple[str, str]:
    """Take msgspec's words apart: what is wrong, and the JSON path of the field at fault."""
    found = _PATH.match(text)
    if found is None:  # a pattern that matches every text; for the type checkers
        return text, "$"
    member = _MEMBER.match(found["what"])
    path = found["path"] or "$"
    return found["what"], path if member is None else f"{path}.{member['member']}"


def unpack_header(value: str | bytes, *, what: str) -> bytes:
    """Turn a header's base64 into the bytes of its JSON, or raise `RemoteProtocolError`."""
    if len(value) > HEADER_MAX_BYTES:
        message = f"{what}: {len(value)} bytes; the limit is {HEADER_MAX_BYTES}"
        raise RemoteProtocolError(message)
    if len(value) % 4:  # the strict mode of binascii forgives padding beyond what is needed
        message = f"{what}: not base64 ({len(value)} characters are no multiple of 4)"
        raise RemoteProtocolError(message)
    try:
        return binascii.a2b_base64(value, strict_mode=True)
    except ValueError as error:  # binascii.Error, and text that is not ASCII
        message = f"{what}: not base64 ({error})"
        raise RemoteProtocolError(message) from None


def pack_header(message: msgspec.Struct) -> str:
    """Encode a message as a header value."""
    return binascii.b2a_base64(_encoder.encode(message), newline=False).decode("ascii")


def encode_json(message: object) -> bytes:
    """Encode a message as JSON."""
    return _encoder.encode(message)


def encode_payment(
    *,
    accepted: msgspec.Raw,
    payload: msgspec.Struct,
    resource: msgspec.Raw | None,
    extensions: dict[str, Any] | None,
) -> bytes:
    """Encode a `PaymentPayload` as JSON, echoing offer and resource byte for byte as they came."""
    parts = [b'{"x402Version":2']
    if resource is not None:
        parts += [b',"resource":', bytes(resource)]
    parts += [b',"accepted":', bytes(accepted), b',"payload":', _encoder.encode(payload)]
    if extensions:
        parts += [b',"extensions":', _encoder.encode(extensions)]
    parts.append(b"}")
    return b"".join(parts)


def pack_json(data: bytes) -> str:
    """Turn the bytes of a JSON text into a header value."""
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def decode_payment(header: str | bytes) -> PaymentPayload:
    """Read a PAYMENT-SIGNATURE header."""
    data = unpack_header(header, what="PAYMENT-SIGNATURE")
    return decode_with(_payment_decoder, data, what="PAYMENT-SIGNATURE")


def decode_payment_json(data: bytes) -> PaymentPayload:
    """Read the JSON of a PaymentPayload."""
    return decode_with(_payment_decoder, data, what="PaymentPayload")


def decode_requirements_json(data: bytes) -> PaymentRequirements:
    """Read the JSON of a PaymentRequirements."""
    return decode_with(_requirements_decoder, data, what="PaymentRequirements")


def decode_payment_required(header: str | bytes) -> ReceivedOffers:
    """Read a PAYMENT-REQUIRED header as a buyer does: offers one by one, raw parts kept for the echo."""
    data = unpack_header(header, what="PAYMENT-REQUIRED")
    envelope = decode_with(_envelope_decoder, data, what="PAYMENT-REQUIRED")
    if envelope.x402_version != X402_VERSION:
        message = f"PAYMENT-REQUIRED: x402Version is {envelope.x402_version}, not {X402_VERSION}"
        raise RemoteProtocolError(message, path="$.x402Version")
    if len(envelope.accepts) > OFFERS_MAX:
        message = f"PAYMENT-REQUIRED: {len(envelope.accepts)} offers; the limit is {OFFERS_MAX}"
        raise RemoteProtocolError(message, path="$.accepts")
    offers: list[Offer] = []
    passed_over: list[PassedOver] = []
    for index, raw in enumerate(envelope.accepts):
        try:
            requirements = _read_offer(raw, at=f"$.accepts[{index}]")
        except RemoteProtocolError as error:
            passed_over.append(PassedOver(index, str(error)))
        else:
            offers.append(Offer(index, requirements, raw.copy()))
    resource = None
    if bytes(envelope.resource) != b"null":
        resource = decode_with(_resource_decoder, envelope.resource, what="PAYMENT-REQUIRED", at="$.resource")
    return ReceivedOffers(
        offers=tuple(offers),
        passed_over=tuple(passed_over),
        resource=resource,
        resource_raw=envelope.resource.copy() if resource is not None else None,
        extensions=envelope.extensions or {},
        error=envelope.error or "",
    )


def _read_offer(raw: msgspec.Raw, *, at: str) -> PaymentRequirements:
    """Read one offer, leniently where the field is lenient: one without `maxTimeoutSeconds` can still be paid."""
    try:
        return decode_with(_requirements_decoder, raw, what="offer", at=at)
    except RemoteProtocolError:
        members = _members_of(raw)
        if members is None:
            raise
        if "amount" not in members:
            message = "the offer has no `amount`: nothing says what it costs"
            raise RemoteProtocolError(message, path=f"{at}.amount") from None
        if "maxTimeoutSeconds" in members:
            raise
        members["maxTimeoutSeconds"] = msgspec.Raw(b"%d" % TIMEOUT_DEFAULT_SECONDS)
        return decode_with(_requirements_decoder, _encoder.encode(members), what="offer", at=at)


def _members_of(raw: msgspec.Raw) -> dict[str, msgspec.Raw] | None:
    try:
        return _members_decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def decode_settlement(header: str | bytes) -> SettlementResponse:
    """Read a PAYMENT-RESPONSE header."""
    data = unpack_header(header, what="PAYMENT-RESPONSE")
    return decode_with(_settlement_decoder, data, what="PAYMENT-RESPONSE")


def decode_settlement_json(data: bytes) -> SettlementResponse:
    """Read the body of a facilitator's `/settle` answer."""
    return decode_with(_settlement_decoder, data, what="settlement answer")


def decode_verify_request(data: bytes) -> VerifyRequest:
    """Read the body of a `/verify` or `/settle` request."""
    if len(data) > BODY_MAX_BYTES:
        message = f"request body: {len(data)} bytes; the limit is {BODY_MAX_BYTES}"
        raise RemoteProtocolError(message)
    return decode_with(_verify_request_decoder, data, what="request body")


def decode_verify_response(data: bytes) -> VerifyResponse:
    """Read the body of a facilitator's `/verify` answer."""
    return decode_with(_verify_response_decoder, data, what="verification answer")


def decode_supported(data: bytes) -> SupportedResponse:
    """Read the body of a facilitator's `/supported` answer."""
    return decode_with(_supported_decoder, data, what="/supported answer")


def pack_payment_required(message: PaymentRequired) -> str:
    """Encode a 402's header value."""
    return pack_header(message)
