"""The host's own trouble: a store that is full or locked (F2), a wrong clock (F8); and a repeat a day later (F1)."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from typing import Any

import pytest

from farthing.flow import Now
from farthing.protocol.facilitator import Refused, Settled, Unknown
from farthing.services.facilitator.lane import Pace
from farthing.world import sqlite as world_sqlite

AMOUNT = 12_345
QUICK = Pace(idle_seconds=0.05, work_seconds=0.05)
MINUTES = 60
DAY = 86_400


def set_clock(service: Any, ahead_seconds: int) -> Any:
    """Have the host's clock go wrong by so much."""
    service.clock = {Now: lambda _: int(time.time()) + ahead_seconds}
    return service


def limit_pages(service: Any, more: int) -> None:
    """Let the store's file grow by so many pages and no further, as a full disk would."""

    def step(at: sqlite3.Connection) -> None:
        (pages,) = at.execute("PRAGMA page_count").fetchone()
        at.execute(f"PRAGMA max_page_count = {pages + more}")

    service._store.database.submit(step).result(10)


def test_F2_a_full_store_loses_nothing_and_settles_nothing_twice(pyevm: Any, eventually: Any) -> None:
    async def run() -> None:
        async with pyevm.service(pace=QUICK, settle_timeout_seconds=3) as service:
            assert isinstance(await service.settle(*pyevm.payment(), idempotency_key="k"), Settled)
            limit_pages(service, 2)
            payments = [pyevm.payment() for _ in range(12)]
            outcomes = [await service.settle(*each, idempotency_key="k") for each in payments]
            troubled = [each for each in outcomes if not isinstance(each, Settled)]
            assert troubled
            assert all(isinstance(each, Unknown) for each in troubled), troubled
            limit_pages(service, 100_000)
            outcomes = [await service.settle(*each, idempotency_key="k") for each in payments]
            assert all(isinstance(each, Settled) for each in outcomes), outcomes
            assert sum(service.books.settled().values()) == 13 * AMOUNT
            assert sum(service.books.balances().values()) == 0
            assert service.lanes[0].stopped == ""

    asyncio.run(run())
    assert pyevm.balance(pyevm.payee) == 13 * AMOUNT


def test_F2_a_locked_store_loses_nothing_and_settles_nothing_twice(pyevm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world_sqlite, "BUSY_TIMEOUT_SECONDS", 0.1)

    async def run() -> None:
        async with pyevm.service(pace=QUICK, settle_timeout_seconds=3) as service:
            assert isinstance(await service.settle(*pyevm.payment(), idempotency_key="k"), Settled)
            payments = [pyevm.payment() for _ in range(3)]
            with closing(sqlite3.connect(pyevm.folder / "facilitator.sqlite3", isolation_level=None)) as other:
                # As a backup or a person at a prompt does.
                other.execute("BEGIN IMMEDIATE")
                outcomes = await asyncio.gather(*(service.settle(*each, idempotency_key="k") for each in payments))
                other.execute("ROLLBACK")
            assert all(isinstance(each, Unknown) for each in outcomes), outcomes
            outcomes = await asyncio.gather(*(service.settle(*each, idempotency_key="k") for each in payments))
            assert all(isinstance(each, Settled) for each in outcomes), outcomes
            assert sum(service.books.settled().values()) == 4 * AMOUNT

    asyncio.run(run())
    assert pyevm.balance(pyevm.payee) == 4 * AMOUNT


@pytest.mark.parametrize("minutes", [-10, 10])
def test_F8_a_host_whose_clock_is_wrong_says_so_and_settles_nothing_for_it(pyevm: Any, minutes: int) -> None:
    async def run() -> None:
        async with set_clock(pyevm.service(pace=QUICK), minutes * MINUTES) as service:
            payment = pyevm.payment(window_seconds=300, valid_after=pyevm.devnet.timestamp() - 1)
            verdict = await service.verify(*payment)
            assert not verdict.is_valid
            assert "skew" in (verdict.invalid_message or "")
            outcome = await service.settle(*payment, idempotency_key="k")
            assert isinstance(outcome, Refused)
            assert "skew" in outcome.message
            assert await service.find(payment.payment_id) is None
        # Put right, the same payment is good.
        async with pyevm.service(pace=QUICK) as service:
            assert isinstance(await service.settle(*payment, idempotency_key="k"), Settled)

    asyncio.run(run())
    assert pyevm.balance(pyevm.payee) == AMOUNT


@pytest.mark.parametrize("minutes", [-10, 10])
def test_F8_a_clock_that_jumps_while_payments_are_on_their_way_settles_each_once(
    pyevm: Any, held_wallet: Any, eventually: Any, minutes: int
) -> None:
    payments = [pyevm.payment() for _ in range(2)]

    async def run() -> None:
        with held_wallet(pyevm) as let_go:
            async with pyevm.service(pace=QUICK) as service:
                calls = [asyncio.create_task(service.settle(*each, idempotency_key="k")) for each in payments]
                await eventually(lambda: len(service.books.payments(state="received")) == 2)
                service.drain()
                await asyncio.gather(*calls)
            let_go()
        async with set_clock(pyevm.service(pace=QUICK), minutes * MINUTES) as service:
            # By this host's clock the windows are over, or not open yet; what is on record is over either way.
            await eventually(lambda: not service.books.payments(state="received"))
            await eventually(lambda: not service.books.payments(state="in_batch"))
            states = {each.state for each in service.books.payments()}
            assert states <= {"confirmed", "final"} or states == {"refused"}
            assert sum(service.books.settled().values()) == pyevm.balance(pyevm.payee)
            refused = [each for each in service.books.payments() if each.state == "refused"]
            assert len(refused) in {0, 2}
            assert (minutes > 0) == bool(refused)

    asyncio.run(run())


def test_F1_a_repeat_a_day_later_at_another_replica_is_a_duplicate(pyevm: Any) -> None:
    payment = pyevm.payment()

    async def run() -> None:
        async with pyevm.service(pace=QUICK) as service:
            first = await service.settle_as("shop", *payment)
            assert first.success
        for late in (0, DAY, 365 * DAY):
            async with set_clock(pyevm.service(pace=QUICK), late) as replica:
                for caller in ("shop", "another"):
                    again = await replica.settle_as(caller, *payment)
                    assert (again.success, again.error_reason) == (False, "duplicate_settlement")
                    assert again.transaction == first.transaction

    asyncio.run(run())
    assert pyevm.balance(pyevm.payee) == AMOUNT


def test_F1_verify_commits_nothing(pyevm: Any) -> None:
    async def run() -> None:
        async with pyevm.service(pace=QUICK) as service:
            payment = pyevm.payment()
            for _ in range(3):
                assert (await service.verify(*payment)).is_valid
            assert service.books.payments() == ()
            assert await service.find(payment.payment_id) is None
            assert int(pyevm.devnet.rpc("eth_getTransactionCount", pyevm.wallet.address, "latest"), 16) == 0

    asyncio.run(run())
    assert pyevm.balance(pyevm.payee) == 0
