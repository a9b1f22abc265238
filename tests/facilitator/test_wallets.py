"""Several hot wallets (F5): payments are spread over them, and two processes share the work."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from farthing.errors import ConfigError
from farthing.protocol.facilitator import Settled
from farthing.services.facilitator import FacilitatorService, read_config
from farthing.services.facilitator.config import signers_of
from farthing.services.facilitator.lane import Pace

AMOUNT = 12_345
PACE = Pace(lease_seconds=3, work_seconds=0.05)


def with_wallets(world: Any, parties: list[Any]) -> str:
    """The configuration with several wallets; each is funded and its key in the environment."""
    tables = ""
    for number, party in enumerate(parties):
        world.devnet.faucet(party.address, eth=10)
        world.secrets[f"WALLET_{number}"] = party.secret
        tables += f'[[wallet]]\nkey_env = "WALLET_{number}"\n'
    config: str = world.config_text.replace('[wallet]\nkey_env = "WALLET_KEY"\n', tables)
    assert "[[wallet]]" in config
    return config


def count(world: Any, party: Any) -> int:
    return int(world.devnet.rpc("eth_getTransactionCount", party.address, "latest"), 16)


def leases(service: FacilitatorService) -> list[bool]:
    return [lane.lease is not None for lane in service.lanes]


def test_F5_payments_are_spread_over_the_wallets(pyevm: Any, eventually: Any, new_party: Any) -> None:
    wallets = [new_party(), new_party()]
    config = with_wallets(pyevm, wallets)

    async def run() -> None:
        async with pyevm.service(config=config, pace=PACE, joined_payments_max=1) as service:
            await eventually(lambda: all(leases(service)))
            payments = [pyevm.payment() for _ in range(10)]
            # No block until all are on their way, so that how they are shared is the choice of the service alone.
            pyevm.devnet.set_automine(enabled=False)
            try:
                settling = [asyncio.create_task(service.settle(*each, idempotency_key="k")) for each in payments]
                await eventually(lambda: sum(len(lane.entries) for lane in service.lanes) == len(payments))
            finally:
                pyevm.devnet.set_automine(enabled=True)
            pyevm.devnet.mine()
            outcomes = await asyncio.gather(*settling)
            assert all(isinstance(each, Settled) for each in outcomes), outcomes
            assert service.books.settled() == {each.payment_id: AMOUNT for each in payments}
            assert [count(pyevm, each) for each in wallets] == [5, 5]
            health = await service.health()
            shown = health["networks"][pyevm.devnet.network]["wallets"]
            assert [each["wallet"] for each in shown] == [each.address for each in wallets]
            assert (await service.supported()).signers == {"eip155:*": tuple(each.address for each in wallets)}

    asyncio.run(run())
    assert pyevm.balance(pyevm.payee) == 10 * AMOUNT


def test_F5_two_processes_with_two_wallets_share_the_work(pyevm: Any, eventually: Any, new_party: Any) -> None:
    wallets = [new_party(), new_party()]
    config = with_wallets(pyevm, wallets)

    async def run() -> None:
        async with pyevm.service(config=config, pace=PACE) as first:
            await eventually(lambda: leases(first) == [True, True])
            async with pyevm.service(config=config, pace=PACE) as second:
                # The one that has two gives one to the one that has none, and takes it back when that one is gone.
                await eventually(lambda: sum(leases(first)) == sum(leases(second)) == 1)
                payments = [pyevm.payment() for _ in range(12)]
                services = (first, second)
                outcomes = await asyncio.gather(
                    *(services[at % 2].settle(*each, idempotency_key="k") for at, each in enumerate(payments))
                )
                assert all(isinstance(each, Settled) for each in outcomes), outcomes
                assert sum(leases(first)) == sum(leases(second)) == 1
                assert first.books.settled() == {each.payment_id: AMOUNT for each in payments}
            await eventually(lambda: leases(first) == [True, True])
            assert isinstance(await first.settle(*pyevm.payment(), idempotency_key="k"), Settled)

    asyncio.run(run())
    assert pyevm.balance(pyevm.payee) == 13 * AMOUNT
    assert min(count(pyevm, each) for each in wallets) >= 1


def test_a_wallet_without_gas_leaves_the_work_to_the_other(pyevm: Any, eventually: Any, new_party: Any) -> None:
    wallets = [new_party(), new_party()]
    config = with_wallets(pyevm, wallets)

    async def run() -> None:
        async with pyevm.service(config=config, pace=PACE) as service:
            await eventually(lambda: all(leases(service)))
            service.lanes[0].unfunded = True
            for _ in range(3):
                assert isinstance(await service.settle(*pyevm.payment(), idempotency_key="k"), Settled)
        assert count(pyevm, wallets[0]) == 0

    asyncio.run(run())
    assert pyevm.balance(pyevm.payee) == 3 * AMOUNT


def test_A3_one_key_twice_is_a_mistake(pyevm: Any, new_party: Any) -> None:
    party = new_party()
    config = with_wallets(pyevm, [party, party])
    with pytest.raises(ConfigError, match="there twice"):
        signers_of(read_config(config), pyevm.environment)
    with pytest.raises(ConfigError, match="wallet"):
        read_config("wallet = []\n" + pyevm.config_text.replace('[wallet]\nkey_env = "WALLET_KEY"\n', ""))
