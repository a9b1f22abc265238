"""Confirmed payments and their blocks: the newest are compared first, and none keeps others from being final (F3)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from farthing.protocol.facilitator import Settled
from farthing.services.facilitator import FacilitatorService, watcher
from farthing.services.facilitator.lane import Pace

AMOUNT = 12_345
QUICK = Pace(idle_seconds=0.05, work_seconds=0.05, finality_seconds=0)


async def settle_in_turn(world: Any, service: FacilitatorService, count: int) -> list[Any]:
    """Settle payments, each in a block of its own."""
    payments = [world.payment() for _ in range(count)]
    for payment in payments:
        assert isinstance(await service.settle(*payment, idempotency_key="k"), Settled)
    return payments


def test_F3_the_newest_blocks_are_compared_first_of_more_than_one_comparison_takes(
    pyevm: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "BLOCKS_MAX", 2)

    async def run() -> None:
        async with pyevm.service(pace=QUICK) as service:
            with pyevm.devnet.rewound():
                *before, last = await settle_in_turn(pyevm, service, 5)
                (lane,) = service.lanes
                await eventually(lambda: lane.head and lane.head.number == pyevm.devnet.block_number())
                pyevm.devnet.reorganise(1)
                # Booked, booked back, and booked again: two rows each.
                await eventually(lambda: len(service.books.entries(last.payment_id)) == 6, what="lost and settled")
                assert all(len(service.books.entries(each.payment_id)) == 2 for each in before)
                assert pyevm.balance(pyevm.payee) == 5 * AMOUNT
                assert sum(service.books.balances().values()) == 0

    asyncio.run(run())


def test_F3_blocks_of_which_a_node_says_nothing_keep_no_payment_from_being_final(
    pyevm: Any, recording_node: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "BLOCKS_MAX", 2)
    withheld: set[str] = set()

    def lie(call: dict[str, Any], result: Any) -> Any:
        asked_for = call["params"][0] if call["method"] == "eth_getBlockByNumber" else None
        return None if asked_for in withheld else result

    async def run() -> None:
        async with recording_node(pyevm.devnet) as node:
            node.lie = lie
            config = pyevm.config_text.replace(pyevm.devnet.url, node.url)
            async with pyevm.service(config=config, pace=QUICK) as service:
                height = pyevm.devnet.block_number()
                withheld.update((hex(height + 1), hex(height + 2)))
                await settle_in_turn(pyevm, service, 5)
                records = sorted(service.books.payments(), key=lambda record: record.block_number or 0)
                pyevm.devnet.mine(3)
                await eventually(lambda: len(service.books.payments(state="final")) == 3, what="three final")
                assert {each.payment_id for each in service.books.payments(state="confirmed")} == {
                    each.payment_id for each in records[:2]
                }
                withheld.clear()
                await eventually(lambda: len(service.books.payments(state="final")) == 5, what="all final")

    asyncio.run(run())
