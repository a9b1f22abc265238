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
    pyevm: Any, recording_node: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "BLOCKS_MAX", 2)

    def lie(call: dict[str, Any], result: Any) -> Any:
        # As on a chain that is final after a quarter of an hour.
        return None if call["params"] == ["finalized", False] else result

    async def run() -> None:
        async with recording_node(pyevm.devnet) as node:
            node.lie = lie
            config = pyevm.config_text.replace(pyevm.devnet.url, node.url)
            async with pyevm.service(config=config, pace=QUICK) as service:
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
    # Nothing is said of the first two, and what is behind the third is not final yet.
    height = pyevm.devnet.block_number()
    withheld = {hex(height + 1), hex(height + 2)}
    third = height + 3

    def lie(call: dict[str, Any], result: Any) -> Any:
        asked_for = call["params"][0] if call["method"] == "eth_getBlockByNumber" else None
        if asked_for == "finalized" and int(result["number"], 16) > third:
            return pyevm.devnet.rpc("eth_getBlockByNumber", hex(third), False)  # noqa: FBT003 - JSON-RPC
        return None if asked_for in withheld else result

    async def run() -> None:
        async with recording_node(pyevm.devnet) as node:
            node.lie = lie
            config = pyevm.config_text.replace(pyevm.devnet.url, node.url)
            async with pyevm.service(config=config, pace=QUICK) as service:
                await settle_in_turn(pyevm, service, 5)
                records = sorted(service.books.payments(), key=lambda record: record.block_number or 0)
                pyevm.devnet.mine(3)
                await eventually(lambda: len(service.books.payments(state="final")) == 1, what="the third is final")
                assert service.books.payments(state="final")[0].payment_id == records[2].payment_id
                withheld.clear()
                await eventually(lambda: len(service.books.payments(state="final")) == 3, what="all three final")

    asyncio.run(run())
