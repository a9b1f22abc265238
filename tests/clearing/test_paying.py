"""C6: what a rail is told proves nothing, and what its own books say settles, returns or pays out, once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from serving import Parties, Served, Town, serving, until, website
from town import DOLLAR, NOON, Crawler, House, pack

from farthing.clearing import flows, paying
from farthing.clearing.rails import RailReport
from farthing.clearing.settlement import AcceptStatement, Movement, OpenPayouts, PlanPayouts, RecordMovements
from farthing.clearing.store import FindStatement, ListStatements, ProvePayee
from farthing.flow import Flow

CHAIN = "eip155:84532"
DAY = 86_400


class QuietRail:
    """A rail whose books show nothing, read to their end at a time of the test's."""

    def __init__(self, house: House) -> None:
        self._rail = house.desk.rails["USD"]
        self.currency = "USD"
        self.time_seconds = NOON
        self.complete = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rail, name)

    def report(self, next_block: int | None) -> Flow[RailReport]:
        yield from ()
        return RailReport(CHAIN, (), (next_block or 0) + 1, self.time_seconds, self.complete)


def instructed(house: House) -> str:
    crawler = Crawler()
    house.open(crawler)
    house.upload(pack([crawler.record, crawler.commit(amount=DOLLAR)]))
    house.run(flows.close(house.desk, force=True))
    (record,) = house.ask(ListStatements())
    assert house.ask(AcceptStatement(record.statement, "{}", NOON + DAY, 0))
    (found,) = house.run(paying.instruct_accepted(house.desk))
    assert found.state == "instructed"
    # Handed on again at every round, and promised once.
    assert house.run(paying.instruct_accepted(house.desk)) == (found,)
    assert sum(house.balances(pending=True).values()) == 0
    return str(record.statement)


@pytest.mark.parametrize(
    ("time_seconds", "complete", "returned"),
    [(NOON + DAY + 1, True, True), (NOON + DAY, True, False), (NOON + 9 * DAY, False, False)],
)
def test_C6_a_payment_is_returned_only_when_the_rails_books_are_read_beyond_its_end(
    house: House, time_seconds: int, complete: Any, returned: Any
) -> None:
    statement = instructed(house)
    rail: Any = QuietRail(house)
    rail.time_seconds, rail.complete = time_seconds, complete
    # Our own clock proves nothing.
    house.now = NOON + 5 * DAY
    found = house.run(paying.reconcile(house.desk, rail, CHAIN))
    assert found.returned == ((statement,) if returned else ())
    assert house.ask(FindStatement(statement)).state == ("accepted" if returned else "instructed")


def test_C6_a_payout_that_ran_out_is_signed_again_under_the_same_nonce(new_house: Callable[..., House]) -> None:
    house, crawler = new_house(), Crawler()
    house.open(crawler)
    house.ask(ProvePayee("news", "challenge", NOON))
    house.upload(pack([crawler.record, crawler.commit(amount=DOLLAR)]))
    house.run(flows.close(house.desk, force=True))
    (record,) = house.ask(ListStatements())
    came = Movement(CHAIN, "0xaa", 1, 50, incoming=True, counterparty="0xP", amount=DOLLAR, reference=record.reference)
    house.ask(RecordMovements(CHAIN, "USD", (came,), 51, house.rules, house.now))
    rail = house.desk.rails["USD"]
    (first,) = house.run(paying.prepare_payouts(house.desk, rail))
    (again,) = house.run(paying.prepare_payouts(house.desk, rail))
    assert again == first
    house.now = first.valid_until
    (later,) = house.run(paying.prepare_payouts(house.desk, rail))
    nonces = [msgspec.json.decode(each.payment)["payload"]["authorization"]["nonce"] for each in (first, later)]
    assert nonces == [first.reference, first.reference]
    assert later.valid_until > first.valid_until
    assert len(house.ask(OpenPayouts(9))) == 1
    assert house.ask(PlanPayouts("USD", house.rules, house.now)) == ()


def test_C6_two_houses_on_one_store_pay_and_are_paid_once(devnet_pyevm: Any, tmp_path: Path) -> None:
    town = Town(devnet_pyevm, tmp_path)

    async def run() -> None:
        texts: dict[str, str] = {}
        with website(texts) as authority:
            async with (
                town.facilitator() as facilitator,
                serving(town, facilitator, private=authority) as one,
                serving(town, facilitator, private=authority) as two,
            ):
                parties = await Parties(town, one, authority).open(texts)
                await parties.read_pages(5)
                closed = await asyncio.gather(*(each.service.close_window(force=True) for each in (one, two)))
                assert any(closed)
                statement, status = await parties.statement()
                payment = town.pay(status, statement.rail)
                door = f"/statements/{status.statement}/payment"
                await asyncio.gather(*(parties.payer.post(door, payment) for _ in range(3)))
                await _even(town, parties, one, two)
                assert town.devnet.usdc_balance(town.address("payee")) == 50_000
                assert town.devnet.usdc_balance(town.address("treasury")) == 0
                assert town.devnet.usdc_balance(town.address("payer")) == 100 * DOLLAR - 50_000
                # A plain transfer of the treasury's chain is nobody's: it waits in suspense.
                town.devnet.faucet(town.address("treasury"), usdc=1)
                town.devnet.mine(3)
                await asyncio.gather(one.service.settle_all(), two.service.settle_all())
                balances = await one.operator.get("/balances")
                assert [each for name, each in balances.items() if name.startswith("suspense")] == [DOLLAR]
                assert sum(balances.values()) == 0

    asyncio.run(run())


async def _even(town: Town, parties: Parties, *houses: Served) -> None:
    async def even() -> bool:
        await asyncio.gather(*(each.service.settle_all() for each in houses))
        town.devnet.mine(3)
        (payout, *_) = (await parties.served.operator.get("/lists/payouts"))["entries"] or [{"state": ""}]
        return bool(payout["state"] == "settled") and (await parties.statement())[1].state == "settled"

    await until(even, what="payment and payout")
