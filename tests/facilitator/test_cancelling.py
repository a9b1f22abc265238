"""Stuck for good: a transfer to self at the same nonce, stored first, and the members judged by their identities."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import Any

import msgspec

from farthing.facilitator.fees import CANCEL_CAP_FACTOR, FeeCaps, Fees
from farthing.protocol.facilitator import Refused, Settled, Unknown
from farthing.services.facilitator.lane import Pace

AMOUNT = 12_345
GWEI = 10**9


def versions(world: Any) -> list[tuple[int, int, int]]:
    """What was signed: (nonce, cancels, fee in wei)."""
    at = sqlite3.connect(world.folder / "facilitator.sqlite3")
    try:
        query = "SELECT nonce, cancels, max_fee_per_gas FROM transaction_versions ORDER BY nonce, version"
        return [(nonce, cancels, int(fee)) for nonce, cancels, fee in at.execute(query)]
    finally:
        at.close()


def hashes(world: Any) -> list[str]:
    """The hashes of all versions."""
    at = sqlite3.connect(world.folder / "facilitator.sqlite3")
    try:
        return [hash_ for (hash_,) in at.execute("SELECT hash FROM transaction_versions")]
    finally:
        at.close()


def test_a_cancellation_offers_more_than_what_it_replaces_up_to_twice_the_cap() -> None:
    caps = FeeCaps(max_fee_per_gas=100, priority_fee_per_gas=1)
    fees = Fees(100, 10)
    offered = []
    while (found := caps.cancel(fees, 50)) is not None:
        assert caps.bump(fees, 50) is None
        assert found.max_fee_per_gas >= fees.max_fee_per_gas * 110 // 100
        assert found.max_priority_fee_per_gas >= fees.max_priority_fee_per_gas * 110 // 100
        fees = found
        offered.append(found.max_fee_per_gas)
    assert offered
    assert max(offered) <= CANCEL_CAP_FACTOR * 100


def test_at_the_fee_cap_it_is_cancelled_where_the_operator_said_so_and_settled_anew(
    pyevm: Any, eventually: Any
) -> None:
    async def run() -> None:
        pace = Pace(stuck_seconds=0, work_seconds=0.01)
        async with pyevm.service(pace=pace, cancel_at_fee_cap=True) as service:
            (lane,) = service.lanes
            pyevm.devnet.set_automine(enabled=False)
            try:
                settling = asyncio.create_task(service.settle(*pyevm.payment(), idempotency_key="k"))
                await eventually(lambda: [each.state for each in lane.entries.values()] == ["cancelling"])
                # Stored before it is broadcast: the row is there already.
                assert versions(pyevm)[-1][1] == 1
                await eventually(lambda: _pooled_is_cancellation(pyevm, lane))
                lane.pace = msgspec.structs.replace(lane.pace, stuck_seconds=60)
                pyevm.devnet.mine()
            finally:
                pyevm.devnet.set_automine(enabled=True)
            assert isinstance(await settling, Settled)
            (record,) = service.books.payments()
            assert (record.attempts, record.nonce) == (1, 1)
            assert sum(service.books.balances().values()) == 0
        signed = versions(pyevm)
        assert all(fee <= 100 * GWEI for _, cancels, fee in signed if not cancels)
        assert all(fee <= CANCEL_CAP_FACTOR * 100 * GWEI for _, _, fee in signed)
        assert pyevm.balance(pyevm.payee) == AMOUNT
        assert int(pyevm.devnet.rpc("eth_getTransactionCount", pyevm.wallet.address, "latest"), 16) == 2

    asyncio.run(run())


def test_F2_a_cancellation_that_was_stored_and_not_sent_is_sent_by_the_next_process(
    pyevm: Any, eventually: Any
) -> None:
    async def run() -> None:
        payment = pyevm.payment()
        pyevm.devnet.set_automine(enabled=False)
        try:
            pace = Pace(stuck_seconds=0, work_seconds=0.01)
            async with pyevm.service(pace=pace, cancel_at_fee_cap=True) as service:
                (lane,) = service.lanes
                settling = asyncio.create_task(service.settle(*payment, idempotency_key="k"))
                await eventually(lambda: [each.state for each in lane.entries.values()] == ["cancelling"])
                await eventually(lambda: _pooled_is_cancellation(pyevm, lane))
                (entry,) = lane.entries.values()
            assert isinstance(await settling, Unknown)
            # As if it had never been sent.
            for hash_ in hashes(pyevm):
                pyevm.devnet.rpc("anvil_dropTransaction", hash_)
            assert not any(pyevm.devnet.rpc("eth_getTransactionByHash", hash_) for hash_ in hashes(pyevm))
        finally:
            pyevm.devnet.set_automine(enabled=True)
        async with pyevm.service() as service:
            await eventually(lambda: service.books.payments(state="confirmed"))
            assert isinstance(await service.settle(*payment, idempotency_key="k"), Settled)
            (record,) = service.books.payments()
            assert (record.attempts, record.nonce) == (1, 1)
        assert entry.nonce == 0
        assert pyevm.balance(pyevm.payee) == AMOUNT
        assert int(pyevm.devnet.rpc("eth_getTransactionCount", pyevm.wallet.address, "latest"), 16) == 2

    asyncio.run(run())


def _pooled_is_cancellation(world: Any, lane: Any) -> bool:
    (entry,) = lane.entries.values()
    found = world.devnet.rpc("eth_getTransactionByHash", entry.versions[-1].hash)
    return bool(entry.cancelling and found)


def test_without_that_it_is_sent_again_at_the_cap_and_never_cancelled(pyevm: Any, eventually: Any) -> None:
    async def run() -> None:
        pace = Pace(stuck_seconds=0, work_seconds=0.01)
        async with pyevm.service(pace=pace) as service:
            (lane,) = service.lanes
            pyevm.devnet.set_automine(enabled=False)
            try:
                settling = asyncio.create_task(service.settle(*pyevm.payment(), idempotency_key="k"))
                await eventually(lambda: lane.entries and _at_the_cap(lane))
                await eventually(lambda: _steps(service, lane))
                pyevm.devnet.mine()
            finally:
                pyevm.devnet.set_automine(enabled=True)
            assert isinstance(await settling, Settled)
        assert not any(cancels for _, cancels, _ in versions(pyevm))

    asyncio.run(run())


def _at_the_cap(lane: Any) -> bool:
    (entry,) = lane.entries.values()
    newest = entry.versions[-1]
    return lane.caps.bump(Fees(newest.max_fee_per_gas, newest.max_priority_fee_per_gas), 0) is None


async def _steps(_service: Any, lane: Any) -> bool:
    """Let the submitter go round some times more."""
    for _ in range(10):
        lane.work.set()
        await asyncio.sleep(0)
    return [each.state for each in lane.entries.values()] == ["sent"]


def test_it_is_cancelled_once_every_window_is_over_and_the_members_are_refused(pyevm: Any, eventually: Any) -> None:
    async def run() -> None:
        pace = Pace(idle_seconds=0.05, work_seconds=0.05, finality_seconds=0)
        async with pyevm.service(pace=pace, settle_timeout_seconds=1) as service:
            (lane,) = service.lanes
            pyevm.devnet.set_automine(enabled=False)
            try:
                payment = pyevm.payment()
                outcome = await service.settle(*payment, idempotency_key="k")
                assert isinstance(outcome, Unknown)
                await eventually(lambda: [each.state for each in lane.entries.values()] == ["sent"])
                pyevm.devnet.rpc("anvil_dropTransaction", outcome.transaction)
                pyevm.devnet.increase_time(400)
                pyevm.devnet.mine()
                await eventually(lambda: lane.head and lane.head.number == pyevm.devnet.block_number())
                lane.pace = msgspec.structs.replace(lane.pace, stuck_seconds=0)
                await eventually(lambda: [each.state for each in lane.entries.values()] == ["cancelling"])
                lane.pace = msgspec.structs.replace(lane.pace, stuck_seconds=60)
                await eventually(lambda: _pooled_is_cancellation(pyevm, lane))
                pyevm.devnet.mine(200)
            finally:
                pyevm.devnet.set_automine(enabled=True)
            await eventually(lambda: service.books.payments(state="refused"))
            refused = await service.settle(*payment, idempotency_key="k")
            assert isinstance(refused, Refused)
            assert refused.reason == "invalid_transaction_state"
            assert lane.stopped == ""
        assert [cancels for _, cancels, _ in versions(pyevm)] == [0, 1]
        assert pyevm.balance(pyevm.payee) == 0
        assert int(pyevm.devnet.rpc("eth_getTransactionCount", pyevm.wallet.address, "latest"), 16) == 1

    with pyevm.devnet.rewound():
        asyncio.run(run())
