"""The official package as the oracle: what PyPI `x402` encodes we decode, and the reverse, field by field."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from x402 import schemas as official
from x402.http import utils as official_headers
from x402.http.facilitator_client_base import HTTPFacilitatorClientBase

from farthing.protocol import codec, messages
from farthing.protocol.facilitator import Settled, read_settlement

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
names = texts.filter(bool)
amounts = st.integers(0, 2**256 - 1).map(str)
# Their models turn floats and great integers into other texts of the same number; here we compare texts.
scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts
jsons: st.SearchStrategy[Any] = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2), max_leaves=5
)
objects = st.dictionaries(texts, jsons, max_size=3)
maybe_texts = st.none() | texts
maybe_objects = st.none() | objects

T = TypeVar("T")


def made(model: Callable[..., T], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[T]:
    """`st.builds` would also fill in what it infers, under their aliases."""
    return st.fixed_dictionaries(fields).map(lambda drawn: model(**drawn))


their_resources = made(
    official.ResourceInfo,
    url=texts,
    description=maybe_texts,
    mime_type=maybe_texts,
    service_name=maybe_texts,
    tags=st.none() | st.lists(texts, max_size=2),
    icon_url=maybe_texts,
)
their_requirements = made(
    official.PaymentRequirements,
    scheme=names,
    network=names,
    asset=names,
    amount=amounts,
    pay_to=names,
    max_timeout_seconds=st.integers(0, messages.TIMEOUT_MAX_SECONDS),
    extra=objects,
)
their_offers = made(
    official.PaymentRequired,
    error=maybe_texts,
    resource=st.none() | their_resources,
    accepts=st.lists(their_requirements, max_size=3),
    extensions=maybe_objects,
)
their_payments = made(
    official.PaymentPayload,
    payload=objects,
    accepted=their_requirements,
    resource=st.none() | their_resources,
    extensions=maybe_objects,
)
their_settlements = made(
    official.SettleResponse,
    success=st.booleans(),
    transaction=texts,
    network=texts,
    error_reason=maybe_texts,
    error_message=maybe_texts,
    payer=maybe_texts,
    amount=maybe_texts,
    extra=maybe_objects,
    extensions=maybe_objects,
)
their_verdicts = made(
    official.VerifyResponse,
    is_valid=st.booleans(),
    invalid_reason=maybe_texts,
    invalid_message=maybe_texts,
    payer=maybe_texts,
    extra=maybe_objects,
)
their_supported = made(
    official.SupportedResponse,
    kinds=st.lists(
        made(official.SupportedKind, x402_version=st.just(2), scheme=names, network=names, extra=maybe_objects),
        max_size=3,
    ),
    extensions=st.lists(texts, max_size=2),
    signers=st.dictionaries(texts, st.lists(texts, max_size=2), max_size=2),
)

quick = settings(max_examples=40, deadline=None)


def plain(theirs: Any) -> Any:
    """What their model says, as JSON values, the absent left out."""
    return json.loads(theirs.model_dump_json(by_alias=True, exclude_none=True))


def same_resource(ours: messages.ResourceInfo | None, theirs: Any) -> None:
    if ours is None or theirs is None:
        assert ours is None
        assert theirs is None
        return
    assert (ours.url, ours.description, ours.mime_type) == (
        theirs.url,
        theirs.description or "",
        theirs.mime_type or "",
    )


def same_requirements(ours: messages.PaymentRequirements, theirs: Any) -> None:
    assert (ours.scheme, ours.network, ours.amount, ours.asset, ours.pay_to, ours.max_timeout_seconds) == (
        theirs.scheme,
        theirs.network,
        theirs.amount,
        theirs.asset,
        theirs.pay_to,
        theirs.max_timeout_seconds,
    )
    assert (ours.extra or {}) == plain(theirs).get("extra", {})


def same_payment(ours: messages.PaymentPayload, theirs: Any) -> None:
    same_requirements(ours.accepted, theirs.accepted)
    same_resource(ours.resource, theirs.resource)
    said = plain(theirs)
    assert msgspec.json.decode(ours.payload) == said["payload"]
    assert (ours.extensions or {}) == said.get("extensions", {})


@quick
@given(their_offers)
def test_their_402_is_read_and_what_we_echo_they_find_unchanged(theirs: official.PaymentRequired) -> None:
    header = official_headers.encode_payment_required_header(theirs)
    if len(header) > codec.HEADER_MAX_BYTES:
        return
    received = codec.decode_payment_required(header)
    assert received.passed_over == ()
    same_resource(received.resource, theirs.resource)
    assert received.error == (theirs.error or "")
    assert received.extensions == (plain(theirs).get("extensions") or {})
    for offer, their_offer in zip(received.offers, theirs.accepts, strict=True):
        same_requirements(offer.requirements, their_offer)
        echoed = codec.encode_payment(
            accepted=offer.raw,
            payload=messages.ResourceInfo(url="a stand-in for a payload"),
            resource=received.resource_raw,
            extensions=received.extensions,
        )
        seen = official_headers.decode_payment_signature_header(codec.pack_json(echoed))
        assert isinstance(seen, official.PaymentPayload)
        assert plain(seen.accepted) == plain(their_offer)
        if theirs.resource is not None:
            assert plain(seen.resource) == plain(theirs.resource)


@quick
@given(their_payments)
def test_their_payment_is_read(theirs: official.PaymentPayload) -> None:
    header = official_headers.encode_payment_signature_header(theirs)
    if len(header) <= codec.HEADER_MAX_BYTES:
        same_payment(codec.decode_payment(header), theirs)


@quick
@given(their_payments, their_requirements)
def test_their_request_to_a_facilitator_is_read(
    payment: official.PaymentPayload, requirements: official.PaymentRequirements
) -> None:
    body = HTTPFacilitatorClientBase()._build_request_body(
        2,
        payment.model_dump(by_alias=True, exclude_none=True),
        requirements.model_dump(by_alias=True, exclude_none=True),
    )
    ours = codec.decode_verify_request(json.dumps(body).encode())
    same_payment(ours.payment_payload, payment)
    same_requirements(ours.payment_requirements, requirements)


@quick
@given(their_settlements)
def test_their_settlement_is_read(theirs: official.SettleResponse) -> None:
    ours = codec.decode_settlement(official_headers.encode_payment_response_header(theirs))
    assert json.loads(codec.encode_json(ours)) == plain(theirs)
    outcome = read_settlement(200, theirs.model_dump_json(by_alias=True).encode())
    assert isinstance(outcome, Settled) == (theirs.success and theirs.transaction != "")


@quick
@given(their_verdicts, their_supported)
def test_their_facilitators_answers_are_read(
    verdict: official.VerifyResponse, supported: official.SupportedResponse
) -> None:
    ours = codec.decode_verify_response(verdict.model_dump_json(by_alias=True).encode())
    assert (ours.is_valid, ours.invalid_reason, ours.invalid_message, ours.payer) == (
        verdict.is_valid,
        verdict.invalid_reason,
        verdict.invalid_message,
        verdict.payer,
    )
    kinds = codec.decode_supported(supported.model_dump_json(by_alias=True).encode())
    assert json.loads(codec.encode_json(kinds)) == plain(supported)


@quick
@given(their_offers)
def test_our_402_is_read_by_them(theirs: official.PaymentRequired) -> None:
    ours = messages.PaymentRequired(
        resource=messages.ResourceInfo(url="https://shop.example/a", description="A", mime_type="text/plain"),
        accepts=tuple(
            msgspec.json.decode(json.dumps(plain(a)), type=messages.PaymentRequirements) for a in theirs.accepts
        ),
        error=theirs.error,
        extensions=plain(theirs).get("extensions"),
    )
    seen = official_headers.decode_payment_required_header(codec.pack_payment_required(ours))
    assert isinstance(seen, official.PaymentRequired)
    assert seen.x402_version == messages.X402_VERSION
    assert seen.resource is not None
    assert plain(seen.resource) == {"url": "https://shop.example/a", "description": "A", "mimeType": "text/plain"}
    assert [plain(entry) for entry in seen.accepts] == [plain(entry) for entry in theirs.accepts]
    assert (seen.error or "") == (theirs.error or "")
    assert plain(seen).get("extensions", {}) == plain(theirs).get("extensions", {})


@quick
@given(their_payments)
def test_our_payment_is_read_by_them(theirs: official.PaymentPayload) -> None:
    ours = codec.decode_payment_json(theirs.model_dump_json(by_alias=True, exclude_none=True).encode())
    seen = official_headers.decode_payment_signature_header(codec.pack_header(ours))
    assert isinstance(seen, official.PaymentPayload)
    same_payment(ours, seen)


@quick
@given(their_settlements, their_verdicts, their_supported)
def test_our_answers_are_read_by_them(
    settlement: official.SettleResponse, verdict: official.VerifyResponse, supported: official.SupportedResponse
) -> None:
    our_settlement = msgspec.json.decode(json.dumps(plain(settlement)), type=messages.SettlementResponse)
    seen = official_headers.decode_payment_response_header(codec.pack_header(our_settlement))
    assert plain(seen) == plain(settlement)
    our_verdict = msgspec.json.decode(json.dumps(plain(verdict)), type=messages.VerifyResponse)
    heard = official.VerifyResponse.model_validate_json(codec.encode_json(our_verdict))
    assert plain(heard) == {name: said for name, said in plain(verdict).items() if name != "extra"}
    our_kinds = msgspec.json.decode(json.dumps(plain(supported)), type=messages.SupportedResponse)
    kinds = official.SupportedResponse.model_validate_json(codec.encode_json(our_kinds))
    assert plain(kinds) == plain(supported)
