"""F3, S2: a seller with its facilitator in the process: on a chain that loses a block, and one that pays back there."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import local_services
import pytest
from farthing_selling import KEY, Work, acall, make_seller, sign
from refund_bank import Bank, make_shop, signed_and_refused, turn

from farthing.seller.refunding import WINDOW_SECONDS, refund_nonce
from farthing.seller.settling import HORIZON_SECONDS
from farthing.servers.asgi import PaymentMiddleware
from farthing.services.devnet import start_devnet
from farthing.services.facilitator import FacilitatorService, read_config
from farthing.services.facilitator.lane import Pace
from farthing.world.keys import LocalSigner

QUICK = Pace(idle_seconds=0.05, work_seconds=0.05, finality_seconds=0)
WITHIN_SECONDS = 30.0
AMOUNT = 10_000
# More blocks than the devnet calls not final.
FINAL_BLOCKS = 70
TARGET = "/weather/paris"


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Any]:
    """A chain of this test's own: its blocks are lost, and its time runs ahead."""
    with start_devnet("py-evm") as devnet, local_services.LocalServices(devnet, tmp_path / "services") as services:
        devnet.faucet(KEY.address, usdc=1)
        yield services


class Town:
    """A seller, its facilitator, and the work that it sells."""

    def __init__(self, own: Any, service: FacilitatorService, folder: Path, **options: Any) -> None:
        self.own, self.service, self.work = own, service, Work()
        self.pay_to = own.wallet().address
        self.seller = make_seller(
            folder, service, pay_to=self.pay_to, network=own.devnet.network, networks=own.networks, **options
        )
        self.door = PaymentMiddleware(self.work.asgi, seller=self.seller)

    async def buy(self, method: str = "GET") -> tuple[int, list[tuple[str, str]]]:
        offer = await acall(self.door, method, TARGET)
        paid = [("PAYMENT-SIGNATURE", sign(offer.header("payment-required"), networks=self.own.networks))]
        return (await acall(self.door, method, TARGET, paid)).status, paid

    async def until(self, condition: Callable[[], bool], care: bool = True) -> None:  # noqa: FBT001, FBT002
        deadline = time.monotonic() + WITHIN_SECONDS
        while not condition():
            assert time.monotonic() < deadline, (self.states, self.at_facilitator)
            if care:
                for table in ("seller_state SET lease_until = 0", "seller_refund SET turn_at = 0"):
                    self.write(f"UPDATE {table}")
                await asyncio.to_thread(self.seller.care)
            await asyncio.sleep(0.05)

    def write(self, sql: str) -> None:
        self.seller.store._database.submit(lambda connection: connection.execute(sql)).result()

    @property
    def states(self) -> list[str]:
        self.seller.store.flush()
        return [str(row.state) for row in self.seller.store.payments()]

    @property
    def at_facilitator(self) -> list[str]:
        return [record.state for record in self.service.books.payments()]

    @property
    def sums(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for entry in self.seller.store.ledger():
            found[entry.payer] = found.get(entry.payer, 0) - entry.amount
            found[entry.pay_to] = found.get(entry.pay_to, 0) + entry.amount
        return found


@asynccontextmanager
async def town(own: Any, folder: Path, **options: Any) -> AsyncIterator[Town]:
    environment = {**os.environ, "FACILITATOR_KEY": own.wallet(eth="10").key}
    config = read_config(own.facilitator_config())
    async with FacilitatorService.from_config(config, environment=environment, pace=QUICK) as service:
        made = Town(own, service, folder, **options)
        try:
            yield made
        finally:
            made.seller.close()


@pytest.mark.parametrize("lost_for_good", [True, False])
def test_F3_a_block_that_is_lost_under_what_was_served(own: Any, tmp_path: Path, lost_for_good: bool) -> None:  # noqa: FBT001
    devnet = own.devnet

    async def run() -> None:
        async with town(own, tmp_path) as made:
            made.seller.price("GET /weather/{city}", "$0.01")
            status, paid = await made.buy()
            assert (status, made.at_facilitator) == (200, ["confirmed"])
            made.write(f"UPDATE seller_claim SET valid_before = {int(time.time()) - HORIZON_SECONDS - 1}")  # noqa: S608
            # Nothing is mined until the seller has seen that the block is gone.
            devnet.set_automine(enabled=False)
            devnet.reorganise(1)
            assert devnet.usdc_balance(made.pay_to) == 0
            await made.until(lambda: made.states == ["unknown_delivered"])
            again = await acall(made.door, "GET", TARGET, paid)
            assert (again.status, made.work.ran) == (409, 1)
            if lost_for_good:
                devnet.increase_time(3_600)
            devnet.set_automine(enabled=True)
            devnet.mine(FINAL_BLOCKS)
            if lost_for_good:
                await made.until(lambda: made.states == ["loss"])
                assert set(made.sums.values()) == {0}
            else:
                await made.until(lambda: made.at_facilitator == ["final"], care=False)
                await made.until(lambda: made.states == ["delivered"])
                assert made.sums == {KEY.address: -AMOUNT, made.pay_to: AMOUNT}
            assert devnet.usdc_balance(made.pay_to) == made.sums[made.pay_to]
            assert made.work.ran == 1

    asyncio.run(run())


def test_S2_a_refund_by_a_facilitator_in_the_process(own: Any, tmp_path: Path) -> None:
    refunder = own.wallet(usdc="1")
    had = own.devnet.usdc_balance(KEY.address)

    async def run() -> None:
        signer = LocalSigner.from_hex(refunder.key)
        async with town(own, tmp_path, refund_signer=signer) as made:
            made.seller.price("POST /weather/{city}", "$0.01", payment_flow="upfront")
            made.work.status = 500
            status, _ = await made.buy("POST")
            assert (status, made.states) == (500, ["refund_due"])
            await asyncio.to_thread(made.seller.care)
            assert made.states == ["refund_due"]
            own.devnet.mine(FINAL_BLOCKS)
            await made.until(lambda: sorted(made.at_facilitator) == ["confirmed", "final"])
            assert made.states == ["refund_due"]
            own.devnet.mine(FINAL_BLOCKS)
            await made.until(lambda: made.states == ["refunded"])
            assert own.devnet.usdc_balance(KEY.address) == had
            assert made.sums == {KEY.address: 0, made.pay_to: AMOUNT, refunder.address: -AMOUNT}

    asyncio.run(run())


def test_S2_nodes_show_that_a_refund_came_nowhere_and_another_nonce_is_signed_for(own: Any, tmp_path: Path) -> None:
    bank, devnet = Bank(), own.devnet
    shop = make_shop(
        tmp_path,
        bank,
        refund_signer=LocalSigner.from_hex("22" * 32),
        pay_to=own.wallet().address,
        network=devnet.network,
        networks=own.networks,
        nodes={devnet.network: [devnet.url, devnet.url]},
    )
    shop.seller.price("POST /weather/{city}", "$0.01", payment_flow="upfront")
    due = signed_and_refused(shop, bank)
    # By the chain's clock its window is open still.
    shop.seller.care()
    assert shop.seller.store.refunds.under_way(limit=1)[due].series == 0
    devnet.increase_time(WINDOW_SECONDS + 60)
    devnet.mine(FINAL_BLOCKS)
    turn(shop)
    shop.seller.care()
    assert [each.detail.message.nonce for each in bank.refunds] == [refund_nonce(due, 1)]
    shop.seller.close()
