"""The facilitator's face against real nodes and a real token, py-evm and anvil alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from exact_evm_desk import payload_of
from exact_evm_market import AMOUNT, FACE, Market

from farthing.evm.abi import selector
from farthing.evm.addresses import parse_address
from farthing.evm.calls import cancel_authorization_vrs, transfer_with_authorization_bytes
from farthing.evm.signatures import PrivateKey
from farthing.evm.typed_data import CancelAuthorization, Domain
from farthing.flow import Effect, Now, drive
from farthing.mechanisms.interface import Spent, SpentOtherwise, Unspent
from farthing.services.devnet import Devnet


@pytest.fixture
def market(devnet: Devnet) -> Iterator[Market]:
    with devnet.rewound():
        found = Market(devnet)
        devnet.faucet(found.key.address, usdc=1)
        yield found


def test_a_payment_is_verified_settled_and_found(market: Market) -> None:
    made = market.pay()
    found = market.verify(made)
    assert found.response.is_valid, found.response
    assert found.block_number == market.devnet.block_number()
    assert found.base_fee_wei > 0
    assert market.search(made) == Unspent()
    to, calldata = FACE.settlement_call(made.signed)
    receipt = market.send(to, calldata, gas=found.gas_limit)
    assert int(receipt["gasUsed"], 16) <= found.gas_limit
    evidence = FACE.judge_receipt(made.signed, receipt)
    assert isinstance(evidence, Spent)
    assert evidence.transaction == receipt["transactionHash"]
    assert evidence.block_hash == receipt["blockHash"]
    assert market.search(made) == evidence
    assert market.devnet.usdc_balance(market.offer.pay_to) == AMOUNT
    assert market.verify(made).response.invalid_reason == "invalid_exact_evm_nonce_already_used"


def test_both_overloads_leave_the_same_evidence(market: Market) -> None:
    made = market.pay()
    calldata = transfer_with_authorization_bytes(made.signed.detail.message, made.signed.detail.signature)
    receipt = market.send(market.devnet.usdc, calldata)
    assert isinstance(FACE.judge_receipt(made.signed, receipt), Spent)
    assert market.devnet.usdc_balance(market.offer.pay_to) == AMOUNT


def test_F4_a_cancelled_authorisation_is_spent_otherwise(market: Market) -> None:
    made = market.pay()
    message = CancelAuthorization(made.signed.detail.message.from_, made.signed.detail.message.nonce)
    domain = Domain("USDC", "2", market.devnet.chain_id, parse_address(market.devnet.usdc))
    signature = market.key.sign_typed_data(message.bind(domain))
    receipt = market.send(market.devnet.usdc, cancel_authorization_vrs(message, signature))
    assert isinstance(FACE.judge_receipt(made.signed, receipt), SpentOtherwise)
    assert market.search(made) == FACE.judge_receipt(made.signed, receipt)
    assert market.verify(made).response.invalid_reason == "invalid_exact_evm_nonce_already_used"


def test_a_transaction_that_fails_is_no_evidence(market: Market) -> None:
    made = market.pay()
    to, calldata = FACE.settlement_call(made.signed)
    receipt = market.send(to, calldata, gas=40_000)
    assert receipt["status"] == "0x0"
    assert FACE.judge_receipt(made.signed, receipt) == Unspent()
    assert market.search(made) == Unspent()


def test_F7_the_chains_refusals_have_their_codes(market: Market) -> None:
    devnet = market.devnet
    poor = Market(devnet)
    assert poor.verify(poor.pay()).response.invalid_reason == "insufficient_funds"
    made = market.pay()
    owner = PrivateKey.from_hex(devnet.owner[1])
    market.send(devnet.usdc, selector("pause()"), key=owner)
    paused = market.verify(made).response
    assert paused.invalid_reason == "invalid_exact_evm_transaction_simulation_failed"
    assert "pause" in (paused.invalid_message or "").lower()


@pytest.mark.parametrize(
    ("asset", "reason"),
    [
        ("0x" + "77" * 20, "asset_not_deployed_contract"),
        ("0xcA11bde05977b3631167028862bE2a173976CA11", "asset_not_deployed_contract"),
    ],
)
def test_F7_an_asset_that_is_no_token_is_refused(market: Market, asset: str, reason: str) -> None:
    market.offer = msgspec.structs.replace(market.offer, asset=asset)
    assert market.verify(market.pay()).response.invalid_reason == reason


def test_F7_a_token_of_another_name_is_refused(market: Market) -> None:
    """The signature is right under the offer's domain and wrong under the token's own: only the chain can tell."""
    market.offer = msgspec.structs.replace(market.offer, extra={"name": "USD Coin", "version": "2"})
    refused = market.verify(market.pay()).response
    assert refused.invalid_reason == "invalid_exact_evm_transaction_simulation_failed"


def test_F7_a_payer_with_code_is_refused_with_a_clear_reason(market: Market) -> None:
    market.devnet.rpc("anvil_setCode", market.key.address, "0xef0100" + "11" * 20)
    refused = market.verify(market.pay()).response
    assert refused.invalid_reason == "invalid_exact_evm_payload_signature"
    assert "EIP-7702" in (refused.invalid_message or "")


def test_F8_the_chains_clock_decides_and_is_reported(market: Market) -> None:
    made = market.pay()
    now = market.devnet.timestamp()
    market.devnet.increase_time(600)
    market.devnet.mine()

    def perform(effect: Effect[Any]) -> Any:
        return now if isinstance(effect, Now) else market.perform(effect)

    found = drive(FACE.verify(payload_of(made.payload, market.offer), market.offer), perform).response
    assert found.invalid_reason == "invalid_exact_evm_payload_authorization_valid_before"
    assert "clock skew" in (found.invalid_message or "")
