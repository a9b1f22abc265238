"""The facilitator's face: every requirement of the scheme, each refusal with its code; outages are no verdicts."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.errors import NodeUnavailable, RemoteProtocolError
from farthing.evm.abi import selector
from farthing.evm.addresses import parse_address
from farthing.evm.calls import TRANSFER_WITH_AUTHORIZATION_BYTES, TRANSFER_WITH_AUTHORIZATION_VRS
from farthing.evm.node import AskNode, NodeFailure
from farthing.evm.signatures import PrivateKey
from farthing.evm.signing import SignTypedData
from farthing.flow import Effect, Now, RandomBytes, drive
from farthing.mechanisms.exact_evm import ExactEvmBuyer, ExactEvmFacilitator
from farthing.mechanisms.exact_evm.payload import ExactDetail, write_payload
from farthing.mechanisms.interface import PreparedPayment, SignedPayment, Verification
from farthing.protocol.codec import decode_payment_json, encode_json, encode_payment
from farthing.protocol.messages import PaymentPayload, PaymentRequirements

KEY = PrivateKey(b"\x21" * 32)
NOW = 1_800_000_000
NONCE = b"\x33" * 32
OFFER = PaymentRequirements(
    scheme="exact",
    network="eip155:84532",
    amount="10000",
    asset="0x036CbD53842c5426634e7929541eC2318f3dCF7e",
    pay_to="0x209693Bc6afc0C5328bA36FaF03C514EF312287C",
    max_timeout_seconds=60,
    extra={"name": "USDC", "version": "2"},
)


def word(number: int) -> str:
    return "0x" + number.to_bytes(32, "big").hex()


def block(**changes: Any) -> dict[str, Any]:
    return {"number": "0x10", "timestamp": hex(NOW - 1), "baseFeePerGas": "0x5"} | changes


class Node:
    """Canned answers to one verification, by what is asked; records what was asked."""

    def __init__(self, **answers: Any) -> None:
        self.answers: dict[str, Any] = {
            "chain_id": hex(84532),
            "code": "0x",
            "balance": word(10_000),
            "used": word(0),
            "simulation": "0x",
            "block": block(),
            "gas": hex(80_000),
        } | answers
        self.batches: list[AskNode] = []
        self.now = NOW

    def perform(self, effect: Effect[Any]) -> Any:
        if isinstance(effect, Now):
            return self.now
        if isinstance(effect, RandomBytes):
            return NONCE[: effect.size_bytes]
        if isinstance(effect, SignTypedData):
            return KEY.sign_typed_data(effect.message)
        assert isinstance(effect, AskNode)
        self.batches.append(effect)
        return tuple(self.answers.values())[: len(effect.calls)]


def prepare(offer: PaymentRequirements = OFFER) -> PreparedPayment:
    return drive(ExactEvmBuyer().pay(offer, payer=KEY.address, nonce=None), Node().perform)


def payload_of(payload: Any, accepted: PaymentRequirements = OFFER) -> PaymentPayload:
    raw = msgspec.Raw(encode_json(accepted))
    return decode_payment_json(encode_payment(accepted=raw, payload=payload, resource=None, extensions=None))


def resign(signed: SignedPayment, *, key: PrivateKey = KEY, **changes: Any) -> SignedPayment:
    """Sign changed members of the authorisation anew, so that only the change is at fault."""
    detail = signed.detail
    assert isinstance(detail, ExactDetail)
    message = msgspec.structs.replace(detail.message, **changes)
    from farthing.evm.typed_data import Domain  # noqa: PLC0415 - used here alone

    domain = Domain("USDC", "2", detail.chain_id, detail.token)
    changed = msgspec.structs.replace(detail, message=message, signature=key.sign_typed_data(message.bind(domain)))
    return msgspec.structs.replace(signed, detail=changed)


def verify(
    payment: PaymentPayload,
    requirements: PaymentRequirements = OFFER,
    node: Node | None = None,
    *,
    settling: bool = False,
) -> Verification:
    return drive(ExactEvmFacilitator().verify(payment, requirements, settling=settling), (node or Node()).perform)


def verify_signed(signed: SignedPayment, node: Node | None = None) -> Verification:
    return verify(payload_of(write_payload(signed.detail)), OFFER, node)


def refusal(found: Verification) -> tuple[str, str]:
    assert not found.response.is_valid
    assert found.response.payer == KEY.address
    return found.response.invalid_reason or "", found.response.invalid_message or ""


GOOD = prepare()
PAYMENT = payload_of(GOOD.payload)


def test_a_good_payment_is_valid_in_one_round_trip() -> None:
    node = Node()
    found = verify(PAYMENT, node=node)
    assert found.response.is_valid
    assert found.response.payer == KEY.address
    assert found.signed == GOOD.signed
    assert (found.block_number, found.block_time_seconds, found.base_fee_wei, found.gas_limit) == (16, NOW - 1, 5, 0)
    (asked,) = node.batches
    assert asked.network == OFFER.network
    methods = [call.method for call in asked.calls]
    assert methods == ["eth_chainId", "eth_getCode", "eth_call", "eth_call", "eth_call", "eth_getBlockByNumber"]
    simulation = asked.calls[4].params[0]
    assert parse_address(simulation["to"]) == parse_address(OFFER.asset)
    assert bytes.fromhex(simulation["data"][2:])[:4] == TRANSFER_WITH_AUTHORIZATION_VRS


def test_settling_asks_for_the_gas_in_the_same_round_trip() -> None:
    node = Node()
    assert verify(PAYMENT, node=node, settling=True).gas_limit == 100_000
    (asked,) = node.batches
    assert asked.calls[-1].method == "eth_estimateGas"


def test_simulations_are_made_as_the_sender_where_one_is_given() -> None:
    node = Node()
    drive(ExactEvmFacilitator(sender=KEY.address).verify(PAYMENT, OFFER), node.perform)
    assert node.batches[0].calls[4].params[0]["from"] == KEY.address


# The offer at /verify differs in one field from what was signed.
CHANGED_OFFERS = [
    ({"scheme": "upto"}, "unsupported_scheme"),
    ({"network": "eip155:8453"}, "network_mismatch"),
    ({"network": "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"}, "invalid_network"),
    ({"network": "eip155:084532"}, "invalid_network"),
    ({"asset": "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913"}, "invalid_payment_requirements"),
    ({"asset": "USDC"}, "invalid_payment_requirements"),
    ({"pay_to": "0x" + "12" * 20}, "invalid_exact_evm_payload_recipient_mismatch"),
    ({"pay_to": "0x" + "00" * 20}, "invalid_payment_requirements"),
    ({"pay_to": "merchant"}, "invalid_payment_requirements"),
    ({"amount": "10001"}, "invalid_exact_evm_payload_authorization_value_mismatch"),
    ({"amount": "9999"}, "invalid_exact_evm_payload_authorization_value_mismatch"),
    ({"extra": None}, "missing_eip712_domain"),
    ({"extra": {"name": "USDC"}}, "missing_eip712_domain"),
    ({"extra": {"name": "USDC", "version": 2}}, "invalid_payment_requirements"),
    ({"extra": {"name": "USD Coin", "version": "2"}}, "invalid_exact_evm_token_name_mismatch"),
    ({"extra": {"name": "USDC", "version": "1"}}, "invalid_exact_evm_token_version_mismatch"),
    (
        {"extra": {"name": "USDC", "version": "2", "assetTransferMethod": "permit2"}},
        "unsupported_asset_transfer_method",
    ),
    (
        {"extra": {"name": "USDC", "version": "2", "assetTransferMethod": "erc7710"}},
        "unsupported_asset_transfer_method",
    ),
    ({"max_timeout_seconds": 0}, None),
]


@pytest.mark.parametrize(("changes", "reason"), CHANGED_OFFERS)
def test_F7_an_offer_with_one_field_changed_is_refused_before_the_node_is_asked(
    changes: dict[str, Any], reason: str | None
) -> None:
    node = Node()
    found = verify(PAYMENT, msgspec.structs.replace(OFFER, **changes), node)
    if reason is None:
        # Within the slack of a payer's clock.
        assert found.response.is_valid
        return
    assert refusal(found)[0] == reason
    assert node.batches == []


def test_F7_the_scheme_that_the_payment_accepts_is_checked_too() -> None:
    other = payload_of(GOOD.payload, msgspec.structs.replace(OFFER, scheme="upto"))
    assert refusal(verify(other))[0] == "unsupported_scheme"


@pytest.mark.parametrize(
    "changes",
    [
        {"network": "eip155:8453"},
        {"asset": "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913"},
    ],
)
def test_F7_a_signature_for_another_network_or_contract_is_refused(changes: dict[str, Any]) -> None:
    """Payee, amount and window match; accepted and requirements agree with each other and not with the signature."""
    offer = msgspec.structs.replace(OFFER, extra={"name": "USD Coin", "version": "2"}, **changes)
    other = msgspec.structs.replace(offer, asset="0x" + "77" * 20)
    for each in (offer if changes.get("network") is None else other, other):
        found = verify(payload_of(GOOD.payload, each), each)
        assert refusal(found)[0] == "invalid_exact_evm_payload_signature"


# The signed authorisation differs in one field from the offer, signed again or not.
CHANGED_MEMBERS = [
    ({"to": b"\x12" * 20}, "invalid_exact_evm_payload_recipient_mismatch"),
    ({"value": 10_001}, "invalid_exact_evm_payload_authorization_value_mismatch"),
    ({"value": 9_999}, "invalid_exact_evm_payload_authorization_value_mismatch"),
    ({"value": 0}, "invalid_exact_evm_payload_authorization_value_mismatch"),
    ({"valid_after": NOW + 1}, "invalid_exact_evm_payload_authorization_valid_after"),
    ({"valid_before": NOW}, "invalid_exact_evm_payload_authorization_valid_before"),
    ({"valid_before": NOW + 5}, "invalid_exact_evm_payload_authorization_valid_before"),
    ({"valid_before": NOW + 361}, "invalid_exact_evm_payload_authorization_valid_before"),
    ({"valid_before": 2**256 - 1}, "invalid_exact_evm_payload_authorization_valid_before"),
    ({"valid_after": 2**256 - 1}, "invalid_exact_evm_payload_authorization_valid_after"),
]


@pytest.mark.parametrize(("changes", "reason"), CHANGED_MEMBERS)
def test_F7_F8_each_signed_member_is_compared(changes: dict[str, Any], reason: str) -> None:
    assert refusal(verify_signed(resign(GOOD.signed, **changes)))[0] == reason


@pytest.mark.parametrize("change", [{"valid_after": 1}, {"valid_before": NOW + 59}, {"nonce": b"\x34" * 32}])
def test_F7_a_member_changed_after_signing_spoils_the_signature(change: dict[str, Any]) -> None:
    detail = GOOD.signed.detail
    message = msgspec.structs.replace(detail.message, **change)
    changed = msgspec.structs.replace(GOOD.signed, detail=msgspec.structs.replace(detail, message=message))
    node = Node()
    assert refusal(verify_signed(changed, node))[0] == "invalid_exact_evm_payload_signature"
    assert node.batches == []


def test_F7_a_payer_who_did_not_sign_is_refused() -> None:
    stranger = resign(GOOD.signed, key=PrivateKey(b"\x22" * 32))
    assert refusal(verify_signed(stranger))[0] == "invalid_exact_evm_payload_signature"


@pytest.mark.parametrize("signature", [b"", b"\x01" * 64, bytes(65), b"\x01" * 66, b"\x01" * 500])
def test_F7_signatures_of_other_shapes_are_refused_without_a_node(signature: bytes) -> None:
    changed = msgspec.structs.replace(
        GOOD.signed, detail=msgspec.structs.replace(GOOD.signed.detail, signature=signature)
    )
    node = Node()
    reason, message = refusal(verify_signed(changed, node))
    assert reason == "invalid_exact_evm_payload_signature"
    assert ("EIP-1271" in message) == (len(signature) > 65)
    assert node.batches == []


@pytest.mark.parametrize(("seconds", "side"), [(600, "behind"), (-600, "ahead")])
def test_F8_ten_minutes_of_a_payers_clock_are_reported_as_skew(seconds: int, side: str) -> None:
    """The payer signed by a clock that is `seconds` behind ours (or ahead): sixty seconds from its own now."""
    signed = resign(GOOD.signed, valid_after=max(0, NOW - seconds - 1), valid_before=NOW - seconds + 60)
    reason, message = refusal(verify_signed(signed))
    assert reason.startswith("invalid_exact_evm_payload_authorization_valid_")
    assert "clock skew" in message
    assert side in message


def test_F8_a_window_too_far_ahead_is_reported_as_skew() -> None:
    signed = resign(GOOD.signed, valid_before=NOW + 660)
    reason, message = refusal(verify_signed(signed))
    assert reason == "invalid_exact_evm_payload_authorization_valid_before"
    assert "clock skew" in message


@pytest.mark.parametrize("seconds", [-600, 600])
def test_F8_ten_minutes_of_our_own_clock_are_reported_as_skew(seconds: int) -> None:
    node = Node()
    node.now = NOW + seconds
    reason, message = refusal(verify_signed(GOOD.signed, node))
    assert reason.startswith("invalid_exact_evm_payload_authorization_valid_")
    assert "this host's clock (clock skew)" in message


def test_F8_a_window_of_long_ago_is_refused_without_a_node() -> None:
    node = Node()
    reason, message = refusal(verify_signed(resign(GOOD.signed, valid_before=NOW - 100_000), node))
    assert reason == "invalid_exact_evm_payload_authorization_valid_before"
    assert "skew" not in message
    assert node.batches == []


def test_F8_the_margin_is_two_blocks_of_a_slow_chain() -> None:
    usdc = "0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48"
    offer = msgspec.structs.replace(
        OFFER, network="eip155:1", asset=usdc, extra={"name": "USD Coin", "version": "2"}, max_timeout_seconds=23
    )
    found = verify(payload_of(prepare(offer).payload, offer), offer, Node(chain_id="0x1"))
    assert refusal(found)[0] == "invalid_exact_evm_payload_authorization_valid_before"


def failure(message: str, data: bytes | None = None, code: int = 3) -> NodeFailure:
    return NodeFailure(code, message, None if data is None else "0x" + data.hex())


def revert(text: str) -> NodeFailure:
    from eth_abi import encode  # noqa: PLC0415 - slow to import

    return failure("execution reverted: " + text, selector("Error(string)") + encode(["string"], [text]))


CHAIN = [
    ({"code": "0xef0100" + "11" * 20}, "invalid_exact_evm_payload_signature", "EIP-7702"),
    ({"balance": "0x", "used": "0x"}, "asset_not_deployed_contract", ""),
    ({"used": "0x"}, "invalid_exact_evm_eip3009_not_supported", ""),
    ({"used": failure("execution reverted")}, "invalid_exact_evm_eip3009_not_supported", ""),
    (
        {"used": word(1), "simulation": revert("FiatTokenV2: authorization is used or canceled")},
        "invalid_exact_evm_nonce_already_used",
        "",
    ),
    (
        {"balance": word(9_999), "simulation": revert("ERC20: transfer amount exceeds balance")},
        "insufficient_funds",
        "9999",
    ),
    (
        {"block": block(timestamp=hex(NOW + 60)), "simulation": revert("authorization is expired")},
        "invalid_exact_evm_payload_authorization_valid_before",
        "chain's clock",
    ),
    (
        {"block": block(timestamp=hex(NOW + 600)), "simulation": revert("authorization is expired")},
        "invalid_exact_evm_payload_authorization_valid_before",
        "600 s ahead of this host's clock (clock skew)",
    ),
    (
        {"simulation": revert("Blacklistable: account is blacklisted")},
        "invalid_exact_evm_transaction_simulation_failed",
        "blacklisted",
    ),
    (
        {"simulation": NodeFailure(-32015, "VM execution error.", "Reverted 0x" + revert("paused").data[2:])},
        "invalid_exact_evm_transaction_simulation_failed",
        "paused",
    ),
    (
        {"simulation": NodeFailure(-32000, "execution reverted", {"data": revert("paused").data})},
        "invalid_exact_evm_transaction_simulation_failed",
        "paused",
    ),
    (
        {"simulation": NodeFailure(-32000, "execution reverted")},
        "invalid_exact_evm_transaction_simulation_failed",
        "execution reverted",
    ),
]


@pytest.mark.parametrize(("answers", "reason", "said"), CHAIN)
def test_F7_what_the_chain_says_has_its_code(answers: dict[str, Any], reason: str, said: str) -> None:
    found, message = refusal(verify(PAYMENT, node=Node(**answers)))
    assert found == reason
    assert said in message
    assert refusal(verify(PAYMENT, node=Node(**answers, gas=failure("execution reverted")), settling=True))[0] == reason


TROUBLE: list[dict[str, Any]] = [
    {"chain_id": "0x1"},
    {"chain_id": NodeFailure(-32601, "no such method")},
    {"code": NodeFailure(-32005, "rate limit")},
    {"balance": NodeFailure(-32603, "internal error")},
    {"used": NodeFailure(-32000, "header not found")},
    {"simulation": NodeFailure(-32000, "request timed out")},
    {"simulation": NodeFailure(-32005, "limit exceeded")},
    {"block": NodeFailure(-32000, "no")},
    {"chain_id": None},
    {"code": None},
    {"code": "no hex"},
    {"balance": 10_000},
    {"balance": "0x01"},
    {"used": word(2)},
    {"simulation": None},
    {"simulation": "0xzz"},
    {"block": None},
    {"block": {}},
    {"block": block(timestamp=NOW)},
    {"block": block(baseFeePerGas=None)},
    # The node contradicts itself.
    {"balance": word(9_999)},
    {"used": word(1)},
    {"simulation": revert("ERC20: transfer amount exceeds balance")},
    {"simulation": revert("FiatTokenV2: authorization is used or canceled")},
    {"simulation": failure("execution reverted", selector("ERC20InsufficientBalance(address,uint256,uint256)"))},
]


@pytest.mark.parametrize("answers", TROUBLE)
def test_F3_a_broken_or_disagreeing_node_is_an_error_and_no_verdict(answers: dict[str, Any]) -> None:
    with pytest.raises(NodeUnavailable):
        verify(PAYMENT, node=Node(**answers))


def test_F3_an_outage_passes_through() -> None:
    class Down(Node):
        def perform(self, effect: Effect[Any]) -> Any:
            if isinstance(effect, AskNode):
                raise NodeUnavailable("down")
            return super().perform(effect)

    with pytest.raises(NodeUnavailable, match="down"):
        verify(PAYMENT, node=Down())
    with pytest.raises(NodeUnavailable):
        verify(PAYMENT, node=Node(gas=NodeFailure(-32000, "no")), settling=True)
    with pytest.raises(NodeUnavailable, match="disagree"):
        verify(PAYMENT, node=Node(gas=failure("execution reverted")), settling=True)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=70) | st.sampled_from(["0x", "0x0", word(0), word(1)]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["chain_id", "code", "balance", "used", "simulation", "block"]), json_values)
def test_F3_whatever_a_node_says_for_one_answer_is_never_insufficient_funds_or_a_bad_signature(
    name: str, answer: Any
) -> None:
    try:
        found = verify(PAYMENT, node=Node(**{name: answer}))
    except NodeUnavailable:
        return
    if not found.response.is_valid:
        assert name == "code" or found.response.invalid_reason not in {
            "insufficient_funds",
            "invalid_exact_evm_payload_signature",
            "invalid_exact_evm_nonce_already_used",
        }


def test_too_few_answers_are_an_outage() -> None:
    class Short(Node):
        def perform(self, effect: Effect[Any]) -> Any:
            return super().perform(effect)[:-1] if isinstance(effect, AskNode) else super().perform(effect)

    with pytest.raises(NodeUnavailable):
        verify(PAYMENT, node=Short())


def test_the_settling_call_takes_the_overload_that_fits_the_signature() -> None:
    face = ExactEvmFacilitator()
    to, calldata = face.settlement_call(GOOD.signed)
    assert to == OFFER.asset
    assert calldata[:4] == TRANSFER_WITH_AUTHORIZATION_VRS
    detail = msgspec.structs.replace(GOOD.signed.detail, signature=b"\x01" * 100)
    _, calldata = face.settlement_call(msgspec.structs.replace(GOOD.signed, detail=detail))
    assert calldata[:4] == TRANSFER_WITH_AUTHORIZATION_BYTES


def test_a_payload_that_cannot_be_read_is_an_error_of_the_protocol() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        verify(payload_of({"permit2Authorization": {}, "signature": "0x"}))
    assert caught.value.path == "$.payload.authorization"
