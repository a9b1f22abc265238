"""Payers with code at the whole facilitator: settled alone, under a gas cap of their own, by allowed factories (F6)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from eth_utils.crypto import keccak
from exact_evm_desk import payload_of
from exact_evm_market import AMOUNT, Market
from exact_evm_wallets import delegate, deploy_factory, deploy_wallet, factory_call, pay_as, wallet_address

from farthing.errors import ConfigError
from farthing.evm.addresses import parse_address
from farthing.evm.counterfactual import WrappedSignature
from farthing.evm.signatures import PrivateKey
from farthing.mechanisms.interface import PreparedPayment
from farthing.protocol.facilitator import Outcome, Refused, Settled
from farthing.services.devnet import Devnet
from farthing.services.facilitator import FacilitatorService, read_config
from farthing.services.facilitator.config import factories_of
from farthing.services.facilitator.lane import Pace

OWNER = keccak(text="the wallets' owner at the facilitator")


class Bank:
    """A facilitator with a hot wallet of its own, and payers on one devnet."""

    def __init__(self, devnet: Devnet, folder: Path) -> None:
        self.devnet, self.folder = devnet, folder
        self.market = Market(devnet)
        self.hot = keccak(text=str(folder))
        devnet.faucet(PrivateKey(self.hot).address, eth=10)

    def config(self, limits: str = "", factories: str = "[]") -> str:
        return f"""
store = "{self.folder / "facilitator.sqlite3"}"
[wallet]
key_env = "HOT"
[limits]
{limits}
[[network]]
id = "{self.devnet.network}"
rpc_urls = ["{self.devnet.url}"]
wallet_factories = {factories}
[[network.token]]
address = "{self.devnet.usdc}"
symbol = "USDC"
decimals = 6
eip712_name = "USDC"
eip712_version = "2"
"""

    def settle(self, *made: PreparedPayment, config: str = "") -> list[Outcome]:
        loaded = read_config(config or self.config())
        environment = {"HOT": "0x" + self.hot.hex()}

        async def run() -> list[Outcome]:
            pace = Pace(work_seconds=0.02)
            async with FacilitatorService.from_config(loaded, environment=environment, pace=pace) as service:
                offer = self.market.offer
                payments = [payload_of(each.payload, offer) for each in made]
                for each in payments:
                    verdict = await service.verify(each, offer)
                    if not verdict.is_valid:
                        return [Refused(verdict.invalid_reason or "", verdict.invalid_message or "")]
                calls = (service.settle(each, offer, idempotency_key="") for each in payments)
                return list(await asyncio.gather(*calls))

        return asyncio.run(run())


@pytest.fixture
def bank(devnet_pyevm: Devnet, tmp_path: Path) -> Bank:
    return Bank(devnet_pyevm, tmp_path)


def transaction(outcome: Outcome) -> str:
    assert isinstance(outcome, Settled), outcome
    return outcome.response.transaction


def test_contract_wallets_and_accounts_that_delegate_are_settled_alone(bank: Bank) -> None:
    """`aggregate3` has no gas cap for each of its calls: what a payer's code does there is everybody's."""
    market = bank.market
    wallet = deploy_wallet(market, market.key.address)
    delegating = PrivateKey(OWNER)
    for payer in (wallet, delegating.address, market.key.address):
        bank.devnet.faucet(payer, usdc=1)
    delegate(market, delegating, OWNER, deploy_wallet(market, market.key.address))
    outcomes = bank.settle(
        pay_as(market, wallet),
        pay_as(market, delegating.address, key=delegating),
        pay_as(market, wallet),
        market.pay(),
        market.pay(),
    )
    transactions = [transaction(each) for each in outcomes]
    assert len(set(transactions[:3])) == 3
    assert not set(transactions[:3]) & set(transactions[3:])
    assert bank.devnet.usdc_balance(market.offer.pay_to) == 5 * AMOUNT


def test_F6_a_payer_with_code_has_a_gas_cap_of_its_own(bank: Bank) -> None:
    market = bank.market
    wallet = deploy_wallet(market, market.key.address)
    for payer in (wallet, market.key.address):
        bank.devnet.faucet(payer, usdc=1)
    low = bank.config("wallet_gas_limit_max = 60_000")
    (refused,) = bank.settle(pay_as(market, wallet), config=low)
    assert isinstance(refused, Refused)
    assert refused.reason == "invalid_transaction_state"
    assert "the cap is 60000" in refused.message
    assert transaction(bank.settle(market.pay(), config=low)[0])
    # The other way round: the cap of accounts is none of the wallets'.
    assert transaction(bank.settle(pay_as(market, wallet), config=bank.config("gas_limit_max = 60_000"))[0])


def test_F6_a_wallet_is_deployed_only_by_a_factory_of_the_configuration(bank: Bank) -> None:
    market = bank.market
    factory = deploy_factory(market)
    salt = keccak(text=str(bank.folder))
    address = wallet_address(factory, market.key.address, salt)
    bank.devnet.faucet(address, usdc=1)
    call = WrappedSignature(parse_address(factory), factory_call(market.key.address, salt), b"")
    made = pay_as(market, address, wrapped=call)
    (refused,) = bank.settle(made)
    assert isinstance(refused, Refused)
    assert refused.reason == "eip6492_factory_not_allowed"
    assert bank.devnet.rpc("eth_getCode", address, "latest") == "0x"
    allowing = bank.config(factories=f'["{factory}"]')
    assert transaction(bank.settle(made, config=allowing)[0])
    # There now, and still wrapped: the factory isn't called again.
    again = bank.settle(pay_as(market, address, wrapped=call), config=allowing)
    receipt = bank.devnet.rpc("eth_getTransactionReceipt", transaction(again[0]))
    assert receipt["to"].lower() == bank.devnet.usdc.lower()
    assert bank.devnet.usdc_balance(market.offer.pay_to) == 2 * AMOUNT


def test_a_wallet_that_was_deployed_while_the_payment_waited_is_settled(
    bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first call fails, since CREATE2 takes its gas; verified again, it is sent without a deployment."""
    market = bank.market
    factory = deploy_factory(market)
    salt = keccak(text=str(bank.folder))
    address = wallet_address(factory, market.key.address, salt)
    bank.devnet.faucet(address, usdc=1)
    call = WrappedSignature(parse_address(factory), factory_call(market.key.address, salt), b"")
    settle = FacilitatorService.settle

    async def deployed_first(self: FacilitatorService, *payment: Any, **options: Any) -> Outcome:
        (lane,) = self.lanes
        build = lane.ask
        sent: list[str] = []

        async def ask(*calls: Any) -> Any:
            if not sent and any(each.method == "eth_sendRawTransaction" for each in calls):
                sent.append(market.send(factory, call.factory_calldata, gas=2_000_000)["transactionHash"])
            return await build(*calls)

        monkeypatch.setattr(lane, "ask", ask)
        return await settle(self, *payment, **options)

    monkeypatch.setattr(FacilitatorService, "settle", deployed_first)
    outcomes = bank.settle(pay_as(market, address, wrapped=call), config=bank.config(factories=f'["{factory}"]'))
    assert transaction(outcomes[0])
    assert bank.devnet.usdc_balance(market.offer.pay_to) == AMOUNT


def test_factories_are_none_by_default_and_addresses_where_there_are_some(bank: Bank) -> None:
    plain = bank.config().replace("wallet_factories = []\n", "")
    assert factories_of(read_config(plain)) == {bank.devnet.network: ()}
    with pytest.raises(ConfigError, match="wallet_factories"):
        factories_of(read_config(bank.config(factories='["0x12"]')))
