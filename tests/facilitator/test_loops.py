"""The loops of a lane: nothing that a node says ends them, and what they were not told proves nothing (F3, F5)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from farthing.facilitator.store import PaymentRecord
from farthing.protocol.facilitator import Settled
from farthing.services.facilitator import watcher
from farthing.services.facilitator.lane import Pace

AMOUNT = 12_345
# More than any integer of a database.
HUGE = hex(2**200)


@pytest.mark.parametrize(
    ("method", "member"), [("eth_getTransactionReceipt", "gasUsed"), ("eth_getTransactionCount", "")]
)
def test_F5_no_answer_of_a_node_ends_a_loop(
    pyevm: Any, recording_node: Any, eventually: Any, method: str, member: str
) -> None:
    told: list[str] = []

    def lie(call: dict[str, Any], result: Any) -> Any:
        if call["method"] != method or len(told) >= 3:
            return result
        told.append(method)
        return {**result, member: HUGE} if member else HUGE

    async def run() -> None:
        async with recording_node(pyevm.devnet) as node:
            node.lie = lie
            config = pyevm.config_text.replace(pyevm.devnet.url, node.url)
            async with pyevm.service(config=config, pace=Pace(idle_seconds=0.05, work_seconds=0.05)) as service:
                outcome = await service.settle(*pyevm.payment(), idempotency_key="k")
                assert told
                assert isinstance(outcome, Settled)
        assert pyevm.balance(pyevm.payee) == AMOUNT

    asyncio.run(run())


def test_F5_more_transactions_than_one_look_asks_for_are_nobodys_fault(
    pyevm: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "RECEIPTS_MAX", 2)
    config = pyevm.config_text.replace("rpc_urls", "confirmations = 8\nrpc_urls")

    async def run() -> None:
        async with pyevm.service(
            config=config, pace=Pace(idle_seconds=0.05, work_seconds=0.05), joined_payments_max=1
        ) as service:
            (lane,) = service.lanes
            pyevm.devnet.set_automine(enabled=False)
            try:
                calls = [asyncio.create_task(service.settle(*pyevm.payment(), idempotency_key="k")) for _ in range(5)]
                await eventually(lambda: [each.state for each in lane.entries.values()] == ["sent"] * 5)
                # All five are in one block, and several blocks more are looked at before the first is deep enough.
                for _ in range(watcher.FOREIGN_BLOCKS + 2):
                    pyevm.devnet.mine()
                    await eventually(lambda: lane.head and lane.head.number == pyevm.devnet.block_number())
                assert lane.stopped == ""
                pyevm.devnet.mine(8)
            finally:
                pyevm.devnet.set_automine(enabled=True)
            assert all(isinstance(each, Settled) for each in await asyncio.gather(*calls))
            assert lane.stopped == ""
        assert pyevm.balance(pyevm.payee) == 5 * AMOUNT

    asyncio.run(run())


def test_F5_payments_that_cant_be_decided_yet_keep_no_others_waiting() -> None:
    records = tuple(
        PaymentRecord(
            payment_id=f"pay_{at}",
            state="in_batch",
            scheme="exact",
            network="eip155:1",
            asset="0xToken",
            payer="0xPayer",
            pay_to="0xPayee",
            amount=1,
            valid_before=1,
            fingerprint="f",
            requirements_print="r",
            created_at=at,
            recorded_block=1,
            gas_limit=1,
        )
        for at in range(7)
    )
    judged: dict[str, int] = {}
    asked: list[str] = []
    for look in range(1, 5):
        chosen = [record.payment_id for record in watcher.in_turn(records, judged, 2)]
        asked += chosen
        judged.update(dict.fromkeys(chosen, look))
    assert asked == [f"pay_{at}" for at in (0, 1, 2, 3, 4, 5, 6, 0)]
