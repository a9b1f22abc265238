"""Payers with code against real nodes and a real token: verified in one batch, settled, and the evidence found."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
from eth_utils.crypto import keccak
from exact_evm_market import AMOUNT, FACE, Market
from exact_evm_wallets import (
    delegate,
    deploy_factory,
    deploy_wallet,
    factory_call,
    pay_as,
    wallet_address,
    with_signature,
)

from farthing.evm.addresses import parse_address
from farthing.evm.calls import (
    AGGREGATE3,
    TRANSFER_WITH_AUTHORIZATION_BYTES,
    TRANSFER_WITH_AUTHORIZATION_VRS,
)
from farthing.evm.counterfactual import WrappedSignature
from farthing.evm.signatures import PrivateKey
from farthing.mechanisms.exact_evm import ExactEvmFacilitator, ExactEvmSeller
from farthing.mechanisms.interface import PreparedPayment, Spent, Unspent, Verification
from farthing.protocol.messages import VerifyResponse
from farthing.services.devnet import Devnet

SIGNATURE = "invalid_exact_evm_payload_signature"
SALT = keccak(text="salt")
STRANGER = PrivateKey(keccak(text="a stranger"))
SECRET = keccak(text="an account that delegates")


@pytest.fixture
def market(devnet: Devnet) -> Iterator[Market]:
    with devnet.rewound():
        yield Market(devnet)


def settle(
    market: Market, made: PreparedPayment, selector: bytes, face: ExactEvmFacilitator = FACE
) -> tuple[Verification, dict[str, str]]:
    """Verify in one batch, send what the face gives, and see the money there."""
    market.batches = 0
    found = market.verify(made, face=face)
    assert found.response == VerifyResponse(is_valid=True, payer=made.signed.payer), found.response
    assert (market.batches, found.alone) == (1, True)
    assert found.signed is not None
    to, calldata = face.settlement_call(found.signed)
    assert calldata[:4] == selector
    receipt = market.send(to, calldata, gas=found.gas_limit)
    evidence = face.judge_receipt(made.signed, receipt)
    assert isinstance(evidence, Spent)
    assert market.search(made) == evidence
    assert market.devnet.usdc_balance(market.offer.pay_to) == AMOUNT
    assert market.verify(made, face=face).response.invalid_reason == "invalid_exact_evm_nonce_already_used"
    return found, receipt


def refused(market: Market, made: PreparedPayment, face: ExactEvmFacilitator = FACE) -> tuple[str, str]:
    response = market.verify(made, face=face).response
    assert not response.is_valid
    return response.invalid_reason or "", response.invalid_message or ""


def test_a_contract_wallet_pays_by_its_owners_65_bytes(market: Market) -> None:
    wallet = deploy_wallet(market, market.key.address)
    market.devnet.faucet(wallet, usdc=1)
    made = pay_as(market, wallet)
    assert len(made.signed.detail.signature) == 65
    assert ExactEvmSeller().check(made.signed, market.offer, now_seconds=market.devnet.timestamp()) is None
    settle(market, made, TRANSFER_WITH_AUTHORIZATION_BYTES)


@pytest.mark.parametrize("signature", ["a stranger's", "none", "long", "other terms"])
def test_F7_a_contract_wallet_that_did_not_sign_is_refused(market: Market, signature: str) -> None:
    wallet = deploy_wallet(market, market.key.address)
    market.devnet.faucet(wallet, usdc=1)
    made = pay_as(market, wallet, key=STRANGER if signature == "a stranger's" else None)
    if signature == "none":
        made = with_signature(market, made, b"")
    if signature == "long":
        made = with_signature(market, made, b"\x01" * 200)
    if signature == "other terms":
        made = with_signature(market, made, pay_as(market, wallet).signed.detail.signature)
    reason, message = refused(market, made)
    assert reason == SIGNATURE
    assert "EIP-1271" in message


def test_F7_a_contract_wallet_without_the_money_is_refused(market: Market) -> None:
    wallet = deploy_wallet(market, market.key.address)
    assert refused(market, pay_as(market, wallet))[0] == "insufficient_funds"


def test_F7_a_contracts_signature_from_an_account_without_code_is_refused(market: Market) -> None:
    market.devnet.faucet(market.key.address, usdc=1)
    made = with_signature(market, market.pay(), b"\x01" * 200)
    reason, message = refused(market, made)
    assert reason == "invalid_exact_evm_payload_undeployed_smart_wallet"
    assert "ERC-6492" in message
    assert refused(market, pay_as(market, market.key.address, key=STRANGER))[0] == SIGNATURE


class Counterfactual:
    """A wallet that is not deployed yet, with a dollar, and the call that would deploy it."""

    def __init__(self, market: Market) -> None:
        self.factory = deploy_factory(market)
        self.address = wallet_address(self.factory, market.key.address, SALT)
        self.call = WrappedSignature(parse_address(self.factory), factory_call(market.key.address, SALT), b"")
        self.allowing = ExactEvmFacilitator(factories={market.offer.network: [self.factory]})
        market.devnet.faucet(self.address, usdc=1)


@pytest.fixture
def wallet(market: Market) -> Counterfactual:
    return Counterfactual(market)


def test_a_wallet_is_deployed_and_pays_in_one_transaction(market: Market, wallet: Counterfactual) -> None:
    made = pay_as(market, wallet.address, wrapped=wallet.call)
    found, _ = settle(market, made, AGGREGATE3, wallet.allowing)
    assert len(market.devnet.rpc("eth_getCode", wallet.address, "latest")) > 4
    assert found.gas_limit > 200_000


def test_F6_no_factory_is_called_outside_the_allow_list(market: Market, wallet: Counterfactual) -> None:
    made = pay_as(market, wallet.address, wrapped=wallet.call)
    elsewhere = ExactEvmFacilitator(factories={"eip155:8453": [wallet.factory]})
    other = ExactEvmFacilitator(factories={market.offer.network: ["0x" + "77" * 20]})
    for face in (FACE, elsewhere, other):
        reason, message = refused(market, made, face)
        assert reason == "eip6492_factory_not_allowed"
        assert wallet.factory in message
        to, calldata = face.settlement_call(made.signed)
        assert (to, calldata[:4]) == (market.devnet.usdc, TRANSFER_WITH_AUTHORIZATION_BYTES)
        assert parse_address(wallet.factory) not in calldata


def test_a_deployed_wallet_is_taken_out_of_its_wrapper(market: Market, wallet: Counterfactual) -> None:
    """The factory can't make it again: CREATE2 would burn all gas that it is given (EIP-684)."""
    market.send(wallet.factory, wallet.call.factory_calldata, gas=2_000_000)
    made = pay_as(market, wallet.address, wrapped=wallet.call)
    found, _ = settle(market, made, TRANSFER_WITH_AUTHORIZATION_BYTES, wallet.allowing)
    assert found.gas_limit < 200_000


def test_a_deployed_wallet_may_wrap_where_no_factory_is_allowed(market: Market, wallet: Counterfactual) -> None:
    market.send(wallet.factory, wallet.call.factory_calldata, gas=2_000_000)
    settle(market, pay_as(market, wallet.address, wrapped=wallet.call), TRANSFER_WITH_AUTHORIZATION_BYTES)


def test_a_wallet_that_somebody_else_deploys_in_between_still_pays(market: Market, wallet: Counterfactual) -> None:
    made = pay_as(market, wallet.address, wrapped=wallet.call)
    found = market.verify(made, face=wallet.allowing)
    assert found.signed is not None
    to, calldata = wallet.allowing.settlement_call(found.signed)
    market.send(wallet.factory, wallet.call.factory_calldata, gas=2_000_000)
    receipt = market.send(to, calldata, gas=found.gas_limit)
    if wallet.allowing.judge_receipt(made.signed, receipt) == Unspent():
        # The factory took the gas. The payment is verified again before the next attempt.
        settle(market, made, TRANSFER_WITH_AUTHORIZATION_BYTES, wallet.allowing)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("signed by a stranger", SIGNATURE),
        ("another salt", SIGNATURE),
        ("a call that fails", "smart_wallet_deployment_failed"),
        ("no call", "invalid_exact_evm_payload_undeployed_smart_wallet"),
        ("a broken wrapper", SIGNATURE),
        ("no money", "insufficient_funds"),
    ],
)
def test_F7_a_wallet_that_can_not_be_deployed_and_pay_is_refused(
    market: Market, wallet: Counterfactual, change: str, reason: str
) -> None:
    call, key, payer = wallet.call, None, wallet.address
    if change == "signed by a stranger":
        key = STRANGER
    if change == "another salt":
        call = msgspec.structs.replace(call, factory_calldata=factory_call(market.key.address, bytes(32)))
    if change == "a call that fails":
        call = msgspec.structs.replace(call, factory_calldata=b"\x01\x02\x03\x04")
    if change == "no call":
        call = msgspec.structs.replace(call, factory_calldata=b"")
    if change == "no money":
        payer = wallet_address(wallet.factory, market.key.address, bytes(32))
        call = msgspec.structs.replace(call, factory_calldata=factory_call(market.key.address, bytes(32)))
    made = pay_as(market, payer, key=key, wrapped=call)
    if change == "a broken wrapper":
        made = with_signature(market, made, made.signed.detail.signature[128:])
    assert refused(market, made, wallet.allowing)[0] == reason


def delegating(market: Market, to: str) -> PrivateKey:
    key = PrivateKey(SECRET)
    market.devnet.faucet(key.address, usdc=1)
    delegate(market, key, SECRET, to)
    return key


def test_an_account_that_delegates_pays_by_its_own_key(market: Market) -> None:
    """EIP-7702: the token asks the delegate's code, which takes the account's own signature."""
    key = delegating(market, deploy_wallet(market, STRANGER.address))
    settle(market, pay_as(market, key.address, key=key), TRANSFER_WITH_AUTHORIZATION_VRS)


def test_F7_an_account_whose_delegate_does_not_confirm_is_refused(market: Market) -> None:
    """The account's own signature is worth nothing then, although it recovers to `from`."""
    delegate_address = "0xcA11bde05977b3631167028862bE2a173976CA11"
    key = delegating(market, delegate_address)
    reason, message = refused(market, pay_as(market, key.address, key=key))
    assert reason == SIGNATURE
    assert "EIP-7702" in message
    assert delegate_address in message


def test_F7_a_stranger_can_not_sign_for_an_account_that_delegates(market: Market) -> None:
    key = delegating(market, deploy_wallet(market, STRANGER.address))
    reason, message = refused(market, pay_as(market, key.address, key=PrivateKey(keccak(text="another stranger"))))
    assert reason == SIGNATURE
    assert "EIP-7702" in message
