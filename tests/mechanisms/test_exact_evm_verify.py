"""The facilitator's face: every requirement of the scheme, each refusal with its code, before the chain is asked."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from exact_evm_desk import (
    GOOD,
    KEY,
    NOW,
    OFFER,
    PAYMENT,
    Node,
    payload_of,
    prepare,
    refusal,
    resign,
    verify,
    verify_signed,
)

from farthing.errors import RemoteProtocolError
from farthing.evm.addresses import parse_address
from farthing.evm.calls import TRANSFER_WITH_AUTHORIZATION_BYTES, TRANSFER_WITH_AUTHORIZATION_VRS
from farthing.evm.node import NodeFailure
from farthing.evm.signatures import PrivateKey
from farthing.flow import drive
from farthing.mechanisms.exact_evm import ExactEvmFacilitator


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
    node = Node(chain_id=hex(8453) if "network" in changes else hex(84532))
    for each in (offer if changes.get("network") is None else other, other):
        found = verify(payload_of(GOOD.payload, each), each, node)
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
    # A payer with code might have signed it; that there is none shows in the one batch.
    assert len(node.batches) == 1


def test_F7_a_payer_who_did_not_sign_is_refused() -> None:
    stranger = resign(GOOD.signed, key=PrivateKey(b"\x22" * 32))
    assert refusal(verify_signed(stranger))[0] == "invalid_exact_evm_payload_signature"


@pytest.mark.parametrize("signature", [b"", b"\x01" * 64, bytes(65), b"\x01" * 66, b"\x01" * 500])
def test_F7_signatures_of_other_shapes_are_no_accounts(signature: bytes) -> None:
    changed = msgspec.structs.replace(
        GOOD.signed, detail=msgspec.structs.replace(GOOD.signed.detail, signature=signature)
    )
    node = Node(simulation=NodeFailure(3, "execution reverted"), gas=NodeFailure(3, "execution reverted"))
    reason, message = refusal(verify_signed(changed, node))
    codes = {True: "invalid_exact_evm_payload_signature", False: "invalid_exact_evm_payload_undeployed_smart_wallet"}
    assert reason == codes[len(signature) == 65]
    assert ("ERC-6492" in message) == (len(signature) != 65)


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
