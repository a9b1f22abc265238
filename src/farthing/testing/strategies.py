"""hypothesis strategies for every message of the protocol: valid ones, and in `nearly_valid` those that just aren't.

    from hypothesis import given
    from farthing.testing import strategies

    @given(strategies.payment_required())
    def test_my_client_reads_every_offer(offer): ...

Each gives the structs of `farthing.protocol.messages` (version 1: of `farthing.protocol.v1.messages`); `json_of` and
`header_of` turn them into what travels. Everything drawn comes back from its own JSON.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from farthing.evm.addresses import checksum_address
from farthing.mechanisms.exact_evm.payload import ExactAuthorization, ExactPayload
from farthing.money import AMOUNT_MAX
from farthing.protocol import messages
from farthing.protocol.codec import encode_json, pack_json
from farthing.protocol.v1 import messages as v1
from farthing.protocol.v1.names import NAMES

M = TypeVar("M", bound=msgspec.Struct)

# Drawn texts are short: what is wrong with long ones is wrong with their length, which `nearly_valid` draws.
_TEXT_MAX_CHARS = 40
_MEMBERS_MAX = 4
_OFFERS_MAX = 3
_SIGNATURE_BYTES = 65
_NONCE_BYTES = 32
_ADDRESS_BYTES = 20
_CHAIN_ID_MAX = 2**53
# A time far from the present is as good as any on the wire; who checks windows says so.
_UINT64_MAX = 2**64 - 1


def texts() -> SearchStrategy[str]:
    """Text that JSON can say (no lone surrogates), up to 40 characters."""
    return st.text(st.characters(exclude_categories=["Cs"]), max_size=_TEXT_MAX_CHARS)


def names() -> SearchStrategy[str]:
    """Text that is not empty: schemes, networks, assets, payees may be anything to whoever does not know them."""
    return texts().filter(bool)


def json_values() -> SearchStrategy[Any]:
    """Any JSON value: what `extra` and extensions may hold."""
    leaves = (
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**64 - 1)
        | st.floats(allow_nan=False, allow_infinity=False)
        | texts()
    )
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts(), inner, max_size=3),
        max_leaves=8,
    )


def json_objects() -> SearchStrategy[dict[str, Any]]:
    """Any JSON object, of up to four members."""
    return st.dictionaries(texts(), json_values(), max_size=_MEMBERS_MAX)


def amounts() -> SearchStrategy[str]:
    """Amounts as the wire has them: decimal text of 0 to 2^256 - 1."""
    return st.integers(0, AMOUNT_MAX).map(str)


def networks() -> SearchStrategy[str]:
    """EIP-155 networks by their CAIP-2 names: those that have a name in version 1, and any other chain id."""
    return st.sampled_from(sorted(NAMES)) | st.integers(1, _CHAIN_ID_MAX).map(lambda chain_id: f"eip155:{chain_id}")


def addresses() -> SearchStrategy[str]:
    """EVM addresses as they may be written: with the checksum of EIP-55, or all in lower case."""
    raw = st.binary(min_size=_ADDRESS_BYTES, max_size=_ADDRESS_BYTES)
    return raw.map(checksum_address) | raw.map(lambda data: "0x" + data.hex())


def resource_infos() -> SearchStrategy[messages.ResourceInfo]:
    """What is for sale."""
    return st.builds(messages.ResourceInfo, url=texts(), description=texts(), mime_type=texts())


def payment_requirements(*, known: bool = False) -> SearchStrategy[messages.PaymentRequirements]:
    """One offer; of any scheme, or `known`: `exact` on an EIP-155 network, with addresses and the token's names."""
    if not known:
        return st.builds(
            messages.PaymentRequirements,
            scheme=names(),
            network=names(),
            amount=amounts(),
            asset=names(),
            pay_to=names(),
            max_timeout_seconds=st.integers(0, messages.TIMEOUT_MAX_SECONDS),
            extra=st.none() | json_objects(),
        )
    return st.builds(
        messages.PaymentRequirements,
        scheme=st.just("exact"),
        network=networks(),
        amount=amounts(),
        asset=addresses(),
        pay_to=addresses(),
        max_timeout_seconds=st.integers(0, messages.TIMEOUT_MAX_SECONDS),
        extra=st.fixed_dictionaries({"name": names(), "version": names()}),
    )


def payment_required() -> SearchStrategy[messages.PaymentRequired]:
    """A 402: up to three offers."""
    return st.builds(
        messages.PaymentRequired,
        resource=resource_infos(),
        accepts=st.lists(payment_requirements(), max_size=_OFFERS_MAX).map(tuple),
        error=st.none() | texts(),
        extensions=st.none() | json_objects(),
    )


def exact_payloads() -> SearchStrategy[ExactPayload]:
    """The payload of `exact` by EIP-3009: well formed, signed by nobody."""
    authorization = st.builds(
        ExactAuthorization,
        from_=addresses(),
        to=addresses(),
        value=amounts(),
        valid_after=st.integers(0, _UINT64_MAX).map(str),
        valid_before=st.integers(0, _UINT64_MAX).map(str),
        nonce=_hexes(_NONCE_BYTES),
    )
    return st.builds(ExactPayload, signature=_hexes(_SIGNATURE_BYTES), authorization=authorization)


def payment_payloads(*, known: bool = False) -> SearchStrategy[messages.PaymentPayload]:
    """A payment; of any scheme and payload, or `known`: `exact` by EIP-3009."""
    payload = exact_payloads() if known else json_values()
    return st.builds(
        messages.PaymentPayload,
        accepted=payment_requirements(known=known),
        payload=payload.map(lambda value: msgspec.Raw(encode_json(value))),
        resource=st.none() | resource_infos(),
        extensions=st.none() | json_objects(),
    )


def verify_requests(*, known: bool = False) -> SearchStrategy[messages.VerifyRequest]:
    """What a seller asks a facilitator."""
    return st.builds(
        messages.VerifyRequest,
        payment_payload=payment_payloads(known=known),
        payment_requirements=payment_requirements(known=known),
    )


def verify_responses() -> SearchStrategy[messages.VerifyResponse]:
    """A facilitator's verdict."""
    return st.builds(
        messages.VerifyResponse,
        is_valid=st.booleans(),
        invalid_reason=st.none() | texts(),
        invalid_message=st.none() | texts(),
        payer=st.none() | texts(),
    )


def settlement_responses() -> SearchStrategy[messages.SettlementResponse]:
    """What became of a settlement."""
    return st.builds(
        messages.SettlementResponse,
        success=st.booleans(),
        transaction=texts(),
        network=texts(),
        error_reason=st.none() | texts(),
        error_message=st.none() | texts(),
        payer=st.none() | texts(),
        amount=st.none() | texts(),
        extra=st.none() | json_objects(),
        extensions=st.none() | json_objects(),
    )


def supported_kinds() -> SearchStrategy[messages.SupportedKind]:
    """One scheme on one network."""
    return st.builds(messages.SupportedKind, scheme=names(), network=names(), extra=st.none() | json_objects())


def supported_responses() -> SearchStrategy[messages.SupportedResponse]:
    """What a facilitator offers."""
    return st.builds(
        messages.SupportedResponse,
        kinds=st.lists(supported_kinds(), max_size=3).map(tuple),
        extensions=st.lists(texts(), max_size=3).map(tuple),
        signers=st.dictionaries(texts(), st.lists(texts(), max_size=2).map(tuple), max_size=2),
    )


# Version 1


def network_names() -> SearchStrategy[str]:
    """Networks as version 1 calls them: `base-sepolia`."""
    return st.sampled_from(sorted(set(NAMES.values())))


def offers_v1() -> SearchStrategy[v1.OfferV1]:
    """One entry of version 1's `accepts`."""
    return st.builds(
        v1.OfferV1,
        scheme=st.just("exact") | names(),
        network=network_names(),
        max_amount_required=amounts(),
        pay_to=addresses(),
        asset=addresses(),
        max_timeout_seconds=st.integers(0, messages.TIMEOUT_MAX_SECONDS),
        extra=st.none() | json_objects(),
        resource=texts(),
        description=texts(),
        mime_type=texts(),
    )


def payment_required_v1() -> SearchStrategy[dict[str, Any]]:
    """The body of version 1's 402, as JSON's objects."""
    offers = st.lists(offers_v1().map(lambda offer: msgspec.json.decode(encode_json(offer))), max_size=_OFFERS_MAX)
    return st.fixed_dictionaries({"x402Version": st.just(1), "accepts": offers}, optional={"error": texts()})


def payments_v1() -> SearchStrategy[v1.PaymentV1]:
    """A payment of version 1, of `exact`."""
    payload = exact_payloads().map(lambda value: msgspec.Raw(encode_json(value)))
    return st.builds(v1.PaymentV1, scheme=st.just("exact"), network=network_names(), payload=payload)


def verify_requests_v1() -> SearchStrategy[v1.VerifyRequestV1]:
    """What a seller of version 1 asks a facilitator."""
    return st.builds(v1.VerifyRequestV1, payment_payload=payments_v1(), payment_requirements=offers_v1())


def settlements_v1() -> SearchStrategy[v1.SettlementV1]:
    """What became of a settlement, in version 1."""
    return st.builds(
        v1.SettlementV1,
        success=st.booleans(),
        transaction=texts(),
        network=network_names(),
        payer=texts(),
        error_reason=st.none() | texts(),
    )


# On the wire


def json_of(drawn: SearchStrategy[M]) -> SearchStrategy[bytes]:
    """Messages as JSON."""
    return drawn.map(encode_json)


def header_of(drawn: SearchStrategy[M]) -> SearchStrategy[str]:
    """Messages as the base64 of a header."""
    return drawn.map(lambda message: pack_json(encode_json(message)))


def _hexes(size_bytes: int) -> SearchStrategy[str]:
    return st.binary(min_size=size_bytes, max_size=size_bytes).map(lambda data: "0x" + data.hex())
