"""Version 1 translated: there and back is the identity, whatever comes is a message or a `RemoteProtocolError`."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from x402.http.utils import decode_payment_response_header, decode_payment_signature_header
from x402.mechanisms.evm.v1.constants import V1_NETWORK_CHAIN_IDS
from x402.schemas.v1 import PaymentPayloadV1, PaymentRequiredV1

from farthing.errors import RemoteProtocolError
from farthing.protocol import versions
from farthing.protocol.codec import BODY_MAX_BYTES, decode_settlement, encode_json, pack_header
from farthing.protocol.messages import (
    PaymentPayload,
    PaymentRequired,
    PaymentRequirements,
    ResourceInfo,
    SettlementResponse,
    SupportedKind,
    SupportedResponse,
    VerifyResponse,
)
from farthing.protocol.v1 import Version1
from farthing.protocol.v1.names import EVERYBODYS, NAMES, NETWORKS, name_of, network_of
from farthing.protocol.versions import CURRENT

SOURCE = Path(__file__).parents[2] / "src" / "farthing"
V1 = versions.VERSIONS[1]
PAYEE = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"
DOLLAR = "0x036CbD53842c5426634e7929541eC2318f3dCF7e"
RESOURCE = ResourceInfo("https://shop.example/a", "A report", "application/json")
OFFER = PaymentRequirements(
    scheme="exact",
    network="eip155:84532",
    amount="10000",
    asset=DOLLAR,
    pay_to=PAYEE,
    max_timeout_seconds=60,
    extra={"name": "USDC", "version": "2"},
)
# Packages that give a name to different chains; it is left out.
CONTESTED = {"story", "educhain", "skale-base-sepolia"}

texts = st.text(max_size=40)
amounts = st.integers(0, 2**256 - 1).map(str)
offers = st.builds(
    PaymentRequirements,
    scheme=st.just("exact"),
    network=st.sampled_from([NETWORKS[name] for name in sorted(EVERYBODYS)]),
    amount=amounts,
    asset=st.sampled_from([DOLLAR, "0x" + "11" * 20]),
    pay_to=st.sampled_from([PAYEE, "0x" + "22" * 20]),
    max_timeout_seconds=st.integers(0, 3600),
    extra=st.none() | st.dictionaries(texts, texts | st.integers(-9, 9) | st.booleans(), min_size=1, max_size=3),
)
resources = st.builds(ResourceInfo, url=texts, description=texts, mime_type=texts)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def pack(message: Any) -> str:
    return base64.b64encode(json.dumps(message).encode()).decode()


def unpack(header: str) -> Any:
    return json.loads(base64.b64decode(header))


def required(*accepts: PaymentRequirements, error: str | None = None) -> PaymentRequired:
    return PaymentRequired(resource=RESOURCE, accepts=accepts, error=error)


# Offers


@given(resources, st.lists(offers, min_size=1, max_size=4), texts)
def test_a_buyer_reads_in_the_body_what_the_seller_offers(
    resource: ResourceInfo, accepts: list[PaymentRequirements], error: str
) -> None:
    body = versions.offer_body(PaymentRequired(resource=resource, accepts=tuple(accepts), error=error))
    read = versions.read_demand(None, body)
    assert read is not None
    wire, received = read
    assert wire is V1
    assert [each.requirements for each in received.offers] == accepts
    assert (received.resource, received.error, received.passed_over) == (resource, error, ())
    # And the official package reads the same.
    theirs = PaymentRequiredV1.model_validate_json(body)
    assert [(each.network, each.max_amount_required, each.pay_to, each.resource) for each in theirs.accepts] == [
        (NAMES[each.network], each.amount, each.pay_to, resource.url) for each in accepts
    ]


def test_the_body_is_as_the_specification_has_it() -> None:
    assert json.loads(versions.offer_body(required(OFFER, error="PAYMENT-SIGNATURE header is required"))) == {
        "x402Version": 1,
        "error": "X-PAYMENT header is required",
        "accepts": [
            {
                "scheme": "exact",
                "network": "base-sepolia",
                "maxAmountRequired": "10000",
                "asset": DOLLAR,
                "payTo": PAYEE,
                "resource": "https://shop.example/a",
                "description": "A report",
                "mimeType": "application/json",
                "maxTimeoutSeconds": 60,
                "extra": {"name": "USDC", "version": "2"},
            }
        ],
    }


def test_what_has_no_name_is_offered_in_the_header_alone() -> None:
    nameless = msgspec.structs.replace(OFFER, network="eip155:402402")
    assert json.loads(versions.offer_body(required(nameless)))["x402Version"] == 2
    other_scheme = msgspec.structs.replace(OFFER, scheme="upto")
    assert json.loads(versions.offer_body(required(other_scheme)))["x402Version"] == 2
    (only,) = json.loads(versions.offer_body(required(nameless, OFFER, other_scheme)))["accepts"]
    assert only["network"] == "base-sepolia"


def test_names_that_not_every_client_knows_stand_alone_or_not_at_all() -> None:
    """npm's `x402` refuses a whole 402 for one name that it has not heard of."""
    monad = msgspec.structs.replace(OFFER, network="eip155:143")
    (only,) = json.loads(versions.offer_body(required(monad, OFFER)))["accepts"]
    assert only["network"] == "base-sepolia"
    (only,) = json.loads(versions.offer_body(required(monad)))["accepts"]
    assert only["network"] == "monad"


def test_B3_a_body_beside_the_header_is_ignored() -> None:
    dearer = msgspec.structs.replace(OFFER, amount="1")
    header, body = pack_header(required(OFFER)), versions.offer_body(required(dearer))
    read = versions.read_demand(header, body)
    assert read is not None
    assert read[0] is CURRENT
    assert [each.requirements.amount for each in read[1].offers] == ["10000"]
    with pytest.raises(RemoteProtocolError):
        versions.read_demand("garbage", body)


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"402", b"<html>", b'{"x402Version":2,"accepts":[]}',
                                  b'{"x402Version":"1"}', b'{"x402Version":true}', b"\xff", b"[" * 5000])  # fmt: skip
def test_what_is_no_version_1_offers_nothing(body: bytes) -> None:
    assert versions.read_demand(None, body) is None


def test_one_unreadable_offer_spoils_none_of_the_others() -> None:
    good = json.loads(versions.offer_body(required(OFFER)))["accepts"][0]
    odd = [
        {**good, "maxAmountRequired": "1e4"},
        {**good, "maxAmountRequired": str(2**256)},
        {**good, "maxAmountRequired": 10000},
        {key: value for key, value in good.items() if key != "payTo"},
        7,
    ]
    body = json.dumps({"x402Version": 1, "accepts": [*odd, {**good, "outputSchema": None, "description": None}]})
    read = versions.read_demand(None, body.encode())
    assert read is not None
    received = read[1]
    assert [each.requirements for each in received.offers] == [OFFER]
    assert [each.index for each in received.passed_over] == [0, 1, 2, 3, 4]
    assert "$.accepts[0].maxAmountRequired" in received.passed_over[0].why
    assert "$.accepts[1].maxAmountRequired" in received.passed_over[1].why


def test_an_unknown_name_is_nobody_s_network() -> None:
    good = json.loads(versions.offer_body(required(OFFER)))["accepts"][0]
    body = json.dumps({"x402Version": 1, "accepts": [{**good, "network": "solana"}]}).encode()
    read = versions.read_demand(None, body)
    assert read is not None
    assert [each.requirements.network for each in read[1].offers] == ["solana"]


# Payments


class Payload(msgspec.Struct):
    """Some scheme's payload."""

    signature: str
    more: dict[str, str]


@given(st.lists(offers, min_size=1, max_size=4), st.builds(Payload, texts, st.dictionaries(texts, texts, max_size=3)))
def test_a_seller_reads_what_a_buyer_packs_as_one_of_its_offers(
    accepts: list[PaymentRequirements], payload: Payload
) -> None:
    read = versions.read_demand(None, versions.offer_body(PaymentRequired(RESOURCE, tuple(accepts))))
    assert read is not None
    wire, received = read
    value = wire.pack_payment(received, received.offers[0], payload)
    assert versions.wire_of_payment(value) is V1
    meant = [each for each in accepts if each.network == accepts[0].network]
    payments = V1.read_payments(value, accepts)
    assert [each.accepted for each in payments] == meant
    assert {bytes(each.payload) for each in payments} == {encode_json(payload)}
    theirs = decode_payment_signature_header(value)
    assert isinstance(theirs, PaymentPayloadV1)
    assert (theirs.scheme, theirs.network) == ("exact", name_of(accepts[0].network))
    assert theirs.payload == msgspec.to_builtins(payload)


def test_the_wire_of_a_payment_is_known_again() -> None:
    payment = PaymentPayload(accepted=OFFER, payload=msgspec.Raw(b"{}"))
    assert versions.wire_of_payment(pack_header(payment)) is CURRENT
    assert versions.wire_of_payment("") is CURRENT


PAYMENT = {"x402Version": 1, "scheme": "exact", "network": "base-sepolia", "payload": {"signature": "0x00"}}


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"x402Version": 2}, "$.x402Version"),
        ({"x402Version": "1"}, "$.x402Version"),
        ({"scheme": 1}, "$.scheme"),
        ({"scheme": ""}, "$.scheme"),
        ({"network": None}, "$.network"),
        ({"payload": ...}, "$.payload"),
    ],
)
def test_S10_a_payment_that_cannot_be_read_is_told_with_its_field(change: dict[str, Any], path: str) -> None:
    said = {key: value for key, value in {**PAYMENT, **change}.items() if value is not ...}
    with pytest.raises(RemoteProtocolError) as caught:
        V1.read_payments(pack(said), [OFFER])
    assert caught.value.path == path


@given(st.text(max_size=60) | st.binary(max_size=90).map(lambda data: base64.b64encode(data).decode()))
def test_S10_whatever_comes_as_a_header_is_read_or_refused(value: str) -> None:
    for read in (lambda: V1.read_payments(value, [OFFER]), lambda: V1.read_settlement(value)):
        try:
            read()
        except RemoteProtocolError:
            continue


@given(json_values)
def test_S10_whatever_json_comes_is_read_or_refused(value: Any) -> None:
    data = json.dumps(value).encode()
    for read in (
        lambda: V1.read_payments(pack(value), [OFFER]),
        lambda: V1.read_settlement(pack(value)),
        lambda: V1.decode_verify_request(data),
        lambda: V1.read_offers(None, json.dumps({"x402Version": 1, "accepts": value}).encode()),
    ):
        try:
            read()
        except RemoteProtocolError:
            continue


@pytest.mark.parametrize(
    ("accepts", "means"),
    [
        ([msgspec.structs.replace(OFFER, network="eip155:8453")], 0),
        ([msgspec.structs.replace(OFFER, scheme="upto")], 0),
        ([OFFER, msgspec.structs.replace(OFFER, network="eip155:8453")], 1),
        ([OFFER, msgspec.structs.replace(OFFER, amount="1")], 2),
        ([], 0),
    ],
)
def test_S4_a_payment_may_mean_the_offers_of_its_scheme_and_network(
    accepts: list[PaymentRequirements], means: int
) -> None:
    assert len(V1.read_payments(pack(PAYMENT), accepts)) == means


# Settlements


@given(
    st.builds(
        SettlementResponse,
        success=st.booleans(),
        transaction=texts,
        network=st.sampled_from(sorted(NAMES)),
        error_reason=st.none() | st.sampled_from(["insufficient_funds", "settlement_pending"]),
        payer=st.none() | st.just(PAYEE),
    )
)
def test_a_settlement_comes_through(settlement: SettlementResponse) -> None:
    name, value = V1.settlement_header(pack_header(settlement))
    assert name == "x-payment-response"
    assert V1.read_settlement(value) == settlement
    theirs = decode_payment_response_header(value)
    assert (theirs.success, theirs.network) == (settlement.success, NAMES[settlement.network])
    assert CURRENT.settlement_header("same") == ("payment-response", "same")
    assert json.loads(V1.encode_settlement(settlement)) == unpack(value)


def test_reasons_have_the_names_that_version_1_gives_them() -> None:
    refusal = VerifyResponse(
        is_valid=False,
        invalid_reason="invalid_exact_evm_payload_authorization_value_mismatch",
        invalid_message="words",
        payer=PAYEE,
    )
    assert json.loads(V1.encode_verify_response(refusal)) == {
        "isValid": False,
        "invalidReason": "invalid_exact_evm_payload_authorization_value",
        "payer": PAYEE,
    }
    failed = SettlementResponse(success=False, transaction="", network="eip155:84532", error_reason="network_mismatch")
    assert unpack(V1.settlement_header(pack_header(failed))[1]) == {
        "success": False, "transaction": "", "network": "base-sepolia", "payer": "", "errorReason": "invalid_network"
    }  # fmt: skip
    assert decode_settlement(pack_header(failed)) == failed


# Facilitator


def request(**changes: Any) -> bytes:
    offer = json.loads(versions.offer_body(required(OFFER)))["accepts"][0]
    return json.dumps({"x402Version": 1, "paymentPayload": PAYMENT, "paymentRequirements": offer, **changes}).encode()


def test_a_request_is_translated() -> None:
    asked = V1.decode_verify_request(request())
    assert asked.payment_requirements == OFFER
    assert asked.payment_payload.accepted == OFFER
    assert bytes(asked.payment_payload.payload) == b'{"signature": "0x00"}'


def test_F7_what_the_payment_says_itself_is_not_taken_from_the_requirements() -> None:
    elsewhere = V1.decode_verify_request(request(paymentPayload={**PAYMENT, "network": "base", "scheme": "upto"}))
    assert elsewhere.payment_payload.accepted.network == "eip155:8453"
    assert elsewhere.payment_payload.accepted.scheme == "upto"
    assert elsewhere.payment_requirements == OFFER


def test_A1_a_request_is_bounded() -> None:
    with pytest.raises(RemoteProtocolError, match=str(BODY_MAX_BYTES)):
        V1.decode_verify_request(b" " * (BODY_MAX_BYTES + 1))


def test_kinds_are_named_in_all_versions() -> None:
    kinds = tuple(SupportedKind("exact", network) for network in ("eip155:84532", "eip155:402402"))
    said = versions.in_all_versions(SupportedResponse(kinds=kinds, extensions=("x",)))
    assert [(each.x402_version, each.network) for each in said.kinds] == [
        (2, "eip155:84532"),
        (2, "eip155:402402"),
        (1, "base-sepolia"),
    ]
    assert said.extensions == ("x",)


# Names, and who knows of all this


@pytest.mark.parametrize(("name", "chain_id"), V1_NETWORK_CHAIN_IDS.items())
def test_the_official_package_s_names_are_ours(name: str, chain_id: int) -> None:
    if name in CONTESTED:
        assert network_of(name) == name
    else:
        assert network_of(name) == f"eip155:{chain_id}"
        assert name_of(f"eip155:{chain_id}") == name


def test_npm_s_names_are_ours(node_modules: Path) -> None:
    """The table stands in the package's source as `["base", 8453]`."""
    source = (node_modules / "x402" / "dist" / "cjs" / "types" / "index.js").read_text("utf-8")
    table = source[source.index("EvmNetworkToChainId = ") :].partition(");")[0]
    theirs = {name: int(chain) for name, chain in re.findall(r'\["([a-z-]+)", (\d+)\]', table)}
    assert set(theirs) - CONTESTED == EVERYBODYS
    assert {name: NETWORKS[name] for name in EVERYBODYS} == {name: f"eip155:{theirs[name]}" for name in EVERYBODYS}


def test_a_request_s_payment_is_found_whichever_header_it_came_in() -> None:
    assert versions.presented([("x-payment", "a"), ("accept", "b")]) == (V1, ("a",))
    assert versions.presented([("payment-signature", "a")]) == (CURRENT, ("a",))
    assert versions.presented([]) == (CURRENT, ())
    assert versions.presented([("x-payment", "a"), ("payment-signature", "b")])[1] == ("a", "b")
    assert versions.presented_joined({"x-payment": "a,b"}) == (V1, ("a", "b"))
    assert versions.presented_joined({"accept": "a"}) == (CURRENT, ())


def test_only_protocol_v1_knows_of_version_1() -> None:
    """Its names on the wire, its networks' names, and its number stand in no other file; one line names its wire."""
    telling = re.compile(
        r"x-payment|max_?amount_?required|x402_?version\W{1,6}1\b|version 1\b(?! moves)|\bv1\b|v1_|_v1\b|base-sepolia",
        re.IGNORECASE,
    )
    found = {
        str(path.relative_to(SOURCE)): lines
        for path in sorted(SOURCE.rglob("*.py"))
        if path.parent != SOURCE / "protocol" / "v1"
        # Public strategies draw the messages of both versions, for the tests of users.
        and path != SOURCE / "testing" / "strategies.py"
        and (lines := [line.strip() for line in path.read_text("utf-8").splitlines() if telling.search(line)])
    }
    assert found == {"protocol/versions.py": ["from farthing.protocol.v1 import Version1"]}
    assert isinstance(V1, Version1)
