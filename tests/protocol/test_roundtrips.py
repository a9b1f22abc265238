"""Properties of the codec: decode of encode is the identity, and a buyer's echo is byte for byte."""

from __future__ import annotations

import base64
import json
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.errors import ProtocolError, RemoteProtocolError
from farthing.money import AMOUNT_MAX
from farthing.protocol import codec, messages
from farthing.testing import strategies

M = TypeVar("M", bound=msgspec.Struct)

texts = strategies.texts()
requirements = strategies.payment_requirements()
offers = strategies.payment_required()
payments = strategies.payment_payloads()
verify_requests = strategies.verify_requests()
verify_responses = strategies.verify_responses()
settlements = strategies.settlement_responses()
supported = strategies.supported_responses()
resources = strategies.resource_infos()
objects = strategies.json_objects()
maybe_objects = st.none() | objects

quick = settings(max_examples=60, deadline=None)


def comes_back(message: M) -> None:
    encoded = codec.encode_json(message)
    assert msgspec.json.Decoder(type(message)).decode(encoded) == message
    json.loads(encoded)  # what we write, the standard library reads


def fits(header: str) -> bool:
    return len(header) <= codec.HEADER_MAX_BYTES


@quick
@given(st.one_of(resources, requirements, offers, payments, verify_requests, verify_responses, settlements, supported))
def test_decode_of_encode_is_the_identity(message: msgspec.Struct) -> None:
    comes_back(message)


@quick
@given(payments)
def test_a_payment_comes_back_from_its_header(payment: messages.PaymentPayload) -> None:
    header = codec.pack_header(payment)
    if fits(header):
        assert codec.decode_payment(header) == payment
        assert codec.decode_payment(header.encode("ascii")) == payment


@quick
@given(settlements)
def test_a_settlement_comes_back_from_its_header(settlement: messages.SettlementResponse) -> None:
    header = codec.pack_header(settlement)
    if fits(header):
        assert codec.decode_settlement(header) == settlement
    assert codec.decode_settlement_json(codec.encode_json(settlement)) == settlement


@quick
@given(verify_requests, verify_responses, supported)
def test_a_facilitators_bodies_come_back(
    request: messages.VerifyRequest, response: messages.VerifyResponse, kinds_: messages.SupportedResponse
) -> None:
    assert codec.decode_verify_request(codec.encode_json(request)) == request
    assert codec.decode_verify_response(codec.encode_json(response)) == response
    assert codec.decode_supported(codec.encode_json(kinds_)) == kinds_


@quick
@given(offers)
def test_an_offer_arrives_as_it_was_made(offer: messages.PaymentRequired) -> None:
    header = codec.pack_payment_required(offer)
    if not fits(header):
        return
    received = codec.decode_payment_required(header)
    assert tuple(entry.requirements for entry in received.offers) == offer.accepts
    assert received.passed_over == ()
    assert received.resource == offer.resource
    assert received.extensions == (offer.extensions or {})
    assert received.error == (offer.error or "")


class _Payload(msgspec.Struct):
    """Some scheme's payload."""

    signature: str
    note: str


def as_written_by_others(value: Any, *, indent: int | None, ascii_only: bool) -> bytes:
    """JSON as other libraries write it: with spaces, with line breaks, escaped or not."""
    return json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode()


@quick
@given(requirements, resources, objects, maybe_objects, st.sampled_from([None, 1]), st.booleans(), texts)
def test_the_buyers_echo_is_byte_for_byte(  # noqa: PLR0917 - one strategy each
    offer: messages.PaymentRequirements,
    resource: messages.ResourceInfo,
    unknown: dict[str, Any],
    extensions: dict[str, Any] | None,
    indent: int | None,
    ascii_only: bool,  # noqa: FBT001 - drawn, not called
    note: str,
) -> None:
    offer_text = as_written_by_others(
        {"unknown": unknown, **msgspec.json.decode(codec.encode_json(offer))}, indent=indent, ascii_only=ascii_only
    )
    resource_text = as_written_by_others(
        {**msgspec.json.decode(codec.encode_json(resource)), "tags": unknown}, indent=indent, ascii_only=ascii_only
    )
    body = b'{ "x402Version": 2, "resource": %b, "accepts": [ %b ], "extensions": %b }' % (
        resource_text,
        offer_text,
        codec.encode_json(extensions),
    )
    header = codec.pack_json(body)
    if not fits(header):
        return
    received = codec.decode_payment_required(header)
    payload = _Payload("0x00", note)
    paid = codec.encode_payment(
        accepted=received.offers[0].raw,
        payload=payload,
        resource=received.resource_raw,
        extensions=received.extensions,
    )
    assert b'"accepted":' + offer_text in paid
    assert b'"resource":' + resource_text in paid
    seen = codec.decode_payment_json(paid)
    assert seen.accepted == offer
    assert seen.resource == resource
    assert (seen.extensions or {}) == (extensions or {})
    assert bytes(seen.payload) == codec.encode_json(payload)
    assert msgspec.json.decode(paid)["x402Version"] == messages.X402_VERSION


@given(st.integers(0, AMOUNT_MAX))
def test_an_amount_is_text_on_the_wire_and_an_integer_inside(atomic: int) -> None:
    offer = messages.PaymentRequirements(
        scheme="exact",
        network="eip155:8453",
        amount=messages.amount_of(atomic),
        asset="0x00",
        pay_to="0x01",
        max_timeout_seconds=60,
    )
    assert offer.atomic == atomic
    assert msgspec.json.decode(codec.encode_json(offer))["amount"] == str(atomic)


@pytest.mark.parametrize("atomic", [-1, AMOUNT_MAX + 1])
def test_an_amount_that_the_chain_cannot_hold_is_not_written(atomic: int) -> None:
    with pytest.raises(ProtocolError):
        messages.amount_of(atomic)


@pytest.mark.parametrize(
    "message",
    [
        messages.PaymentRequired(resource=messages.ResourceInfo(url="https://shop.example/"), accepts=()),
        messages.SupportedKind(scheme="exact", network="eip155:8453"),
    ],
)
def test_the_version_is_on_the_wire_though_it_is_the_default(message: msgspec.Struct) -> None:
    assert msgspec.json.decode(codec.encode_json(message))["x402Version"] == messages.X402_VERSION


@given(st.binary(max_size=300))
def test_unpacking_undoes_packing(data: bytes) -> None:
    assert codec.unpack_header(codec.pack_json(data), what="header") == data
    assert codec.pack_json(data) == base64.b64encode(data).decode()


@given(texts)
def test_only_the_alphabet_of_base64_is_unpacked(text: str) -> None:
    try:
        data = codec.unpack_header(text, what="header")
    except RemoteProtocolError:
        return
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=")
    assert base64.b64decode(text, validate=True) == data
