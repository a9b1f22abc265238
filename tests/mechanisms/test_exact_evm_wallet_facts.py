"""What the chain says of payers with code, by canned answers: verdicts, and trouble of the node that is none (F3)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from eth_abi.abi import encode
from exact_evm_desk import GOOD, OFFER, Node, payload_of, refusal, word

from farthing.errors import ConfigError, NodeUnavailable
from farthing.evm.abi import selector
from farthing.evm.calls import MULTICALL3, TRANSFER_WITH_AUTHORIZATION_BYTES, TRANSFER_WITH_AUTHORIZATION_VRS
from farthing.evm.counterfactual import WrappedSignature, wrap_signature
from farthing.evm.node import NodeFailure
from farthing.flow import drive
from farthing.mechanisms.exact_evm import ExactEvmFacilitator
from farthing.mechanisms.exact_evm.chain import SIMULATED_GAS_MAX
from farthing.mechanisms.exact_evm.payload import signed_payment, write_payload
from farthing.mechanisms.interface import SignedPayment, Verification

FACTORY = b"\x77" * 20
FACE = ExactEvmFacilitator(factories={OFFER.network: ["0x" + FACTORY.hex()]})
CODE = "0x60006000"
LONG = b"\x01" * 200
WRAPPED = wrap_signature(WrappedSignature(FACTORY, b"\x01\x02\x03\x04", LONG))
SIGNATURE = "invalid_exact_evm_payload_signature"
SIMULATION = "invalid_exact_evm_transaction_simulation_failed"


def revert(text: str) -> NodeFailure:
    data = selector("Error(string)") + encode(["string"], [text])
    return NodeFailure(3, "execution reverted", "0x" + data.hex())


BAD_SIGNATURE = revert("FiatTokenV2: invalid signature")


def rehearsal(*results: tuple[bool, bytes]) -> str:
    return "0x" + encode(["(bool,bytes)[]"], [list(results)]).hex()


WENT_WELL = rehearsal((True, b""), (True, b""))


def signed(signature: bytes) -> SignedPayment:
    return signed_payment(OFFER.network, msgspec.structs.replace(GOOD.signed.detail, signature=signature))


def verify(signature: bytes, node: Node, *, settling: bool = False) -> Verification:
    payment = payload_of(write_payload(signed(signature).detail))
    return drive(FACE.verify(payment, OFFER, settling=settling), node.perform)


@pytest.mark.parametrize("signature", [LONG, b"", b"\x01" * 65, WRAPPED])
def test_a_contracts_signature_is_judged_by_its_simulation_in_one_round_trip(signature: bytes) -> None:
    node = Node(code=CODE, rehearsal=WENT_WELL)
    found = verify(signature, node)
    assert found.response.is_valid, found.response
    assert (found.alone, found.gas_limit) == (True, 100_000)
    (asked,) = node.batches
    assert len(asked.calls) == (9 if signature == WRAPPED else 7)
    simulated = asked.calls[4].params[0]
    assert bytes.fromhex(simulated["data"][2:])[:4] == TRANSFER_WITH_AUTHORIZATION_BYTES
    assert (simulated["gas"], asked.calls[6].method) == (hex(SIMULATED_GAS_MAX), "eth_estimateGas")


def test_a_payer_without_code_goes_together_and_one_with_code_alone() -> None:
    signature = GOOD.signed.detail.signature
    assert not verify(signature, Node()).alone
    assert verify(signature, Node(code="0xef0100" + "11" * 20)).alone
    assert verify(WRAPPED, Node(rehearsal=WENT_WELL)).alone


def test_a_deployment_is_what_was_simulated() -> None:
    node = Node(rehearsal=WENT_WELL)
    found = verify(WRAPPED, node)
    assert (found.response.is_valid, found.gas_limit) == (True, 300_000)
    assert found.signed is not None
    to, calldata = FACE.settlement_call(found.signed)
    assert bytes.fromhex(to[2:]) == MULTICALL3
    estimated = node.batches[0].calls[8].params[0]
    assert (estimated["to"], estimated["data"]) == (to, "0x" + calldata.hex())


def test_the_overload_follows_from_the_payment_alone() -> None:
    """After a crash the settling call is built again from what is on record."""
    own = GOOD.signed.detail.signature
    stranger = b"\x01" * 65
    for signature, expected in (
        (own, TRANSFER_WITH_AUTHORIZATION_VRS),
        (stranger, TRANSFER_WITH_AUTHORIZATION_BYTES),
        (LONG, TRANSFER_WITH_AUTHORIZATION_BYTES),
    ):
        payment = FACE.read(payload_of(write_payload(signed(signature).detail)))
        assert FACE.settlement_call(payment)[1][:4] == expected
    # An offer without the token's names: 65 bytes that could be an account's are taken for one.
    nameless = msgspec.structs.replace(OFFER, extra=None)
    payment = FACE.read(payload_of(GOOD.payload, nameless))
    assert FACE.settlement_call(payment)[1][:4] == TRANSFER_WITH_AUTHORIZATION_VRS
    payment = FACE.read(payload_of(write_payload(signed(bytes(65)).detail), nameless))
    assert FACE.settlement_call(payment)[1][:4] == TRANSFER_WITH_AUTHORIZATION_BYTES


def test_F7_other_names_in_the_accepted_offer_are_refused() -> None:
    other = msgspec.structs.replace(OFFER, extra={"name": "USD Coin", "version": "2"})
    node = Node()
    found = drive(FACE.verify(payload_of(GOOD.payload, other), OFFER), node.perform)
    assert refusal(found)[0] == "invalid_payment_requirements"
    assert node.batches == []


REFUSED: list[tuple[bytes, dict[str, Any], str, str]] = [
    (LONG, {"code": CODE, "simulation": BAD_SIGNATURE}, SIGNATURE, "EIP-1271"),
    (LONG, {"code": CODE, "simulation": NodeFailure(-32000, "out of gas")}, SIMULATION, "out of gas"),
    (
        LONG,
        {"code": CODE, "gas": NodeFailure(-32000, "gas required exceeds allowance (2000000)")},
        SIMULATION,
        "estimate",
    ),
    (LONG, {"code": CODE, "used": word(1), "simulation": BAD_SIGNATURE}, "invalid_exact_evm_nonce_already_used", ""),
    (WRAPPED, {"code": CODE, "simulation": BAD_SIGNATURE, "rehearsal": WENT_WELL}, SIGNATURE, "EIP-1271"),
    (WRAPPED, {"rehearsal": rehearsal((True, b""), (False, selector("InvalidSignature()")))}, SIGNATURE, "factory"),
    (WRAPPED, {"rehearsal": rehearsal((False, b""), (False, b""))}, "smart_wallet_deployment_failed", "0x7777"),
    (WRAPPED, {"rehearsal": "0x"}, "smart_wallet_deployment_failed", ""),
    (WRAPPED, {"rehearsal": BAD_SIGNATURE}, "smart_wallet_deployment_failed", ""),
    (WRAPPED, {"rehearsal": WENT_WELL, "deploying_gas": revert("no")}, SIMULATION, "estimate"),
]


@pytest.mark.parametrize(("signature", "answers", "reason", "said"), REFUSED)
def test_F7_what_the_chain_says_of_a_wallet_has_its_code(
    signature: bytes, answers: dict[str, Any], reason: str, said: str
) -> None:
    found, message = refusal(verify(signature, Node(**answers)))
    assert found == reason
    assert said in message


TROUBLE: list[tuple[bytes, dict[str, Any]]] = [
    # A contract's payment goes well, and there is no contract.
    (LONG, {}),
    (b"", {}),
    (LONG, {"code": CODE, "balance": word(1)}),
    (LONG, {"code": CODE, "used": word(1)}),
    (LONG, {"code": CODE, "simulation": NodeFailure(-32005, "rate limit")}),
    (LONG, {"code": CODE, "gas": NodeFailure(-32603, "internal error")}),
    (WRAPPED, {"rehearsal": NodeFailure(-32603, "internal error")}),
    (WRAPPED, {"rehearsal": rehearsal((True, b""))}),
    (WRAPPED, {"rehearsal": "0x01"}),
    (WRAPPED, {"rehearsal": None}),
    (WRAPPED, {"rehearsal": WENT_WELL, "used": word(1)}),
    (WRAPPED, {"rehearsal": WENT_WELL, "deploying_gas": None}),
]


@pytest.mark.parametrize(("signature", "answers"), TROUBLE)
def test_F3_trouble_of_the_node_is_no_verdict_on_a_wallet(signature: bytes, answers: dict[str, Any]) -> None:
    with pytest.raises(NodeUnavailable):
        verify(signature, Node(**answers))


def test_F6_a_factory_that_is_no_address_is_found_at_start_up() -> None:
    with pytest.raises(ConfigError, match="factory"):
        ExactEvmFacilitator(factories={OFFER.network: ["0x12"]})
