"""What the chain says of a payment: verdicts with their codes, and trouble of the node that is none (F3)."""

from __future__ import annotations

from typing import Any

import pytest
from eth_abi.abi import encode
from exact_evm_desk import NOW, OFFER, PAYMENT, Node, block, refusal, verify, word
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.errors import NodeUnavailable
from farthing.evm.abi import selector
from farthing.evm.node import AskNode, NodeFailure
from farthing.flow import Effect, drive
from farthing.mechanisms.exact_evm import ExactEvmFacilitator


def failure(message: str, data: bytes | None = None, code: int = 3) -> NodeFailure:
    return NodeFailure(code, message, None if data is None else "0x" + data.hex())


def revert(text: str) -> NodeFailure:
    return failure("execution reverted: " + text, selector("Error(string)") + encode(["string"], [text]))


CHAIN = [
    (
        {"code": "0xef0100" + "11" * 20, "simulation": revert("FiatTokenV2: invalid signature")},
        "invalid_exact_evm_payload_signature",
        "EIP-7702",
    ),
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
    node = Node()

    def down(effect: Effect[Any]) -> Any:
        if isinstance(effect, AskNode):
            raise NodeUnavailable("down")
        return node.perform(effect)

    with pytest.raises(NodeUnavailable, match="down"):
        drive(ExactEvmFacilitator().verify(PAYMENT, OFFER), down)
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
    node = Node()

    def short(effect: Effect[Any]) -> Any:
        return node.perform(effect)[:-1] if isinstance(effect, AskNode) else node.perform(effect)

    with pytest.raises(NodeUnavailable):
        drive(ExactEvmFacilitator().verify(PAYMENT, OFFER), short)
