"""F2: a write that happened and whose answer was lost, as where PostgreSQL dies during the commit: nobody is stuck."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from farthing.errors import StoreError
from farthing.facilitator.store import AcquireLease, MarkSent, OpenWallet, PlanTransactions, RecordChain, StoreSigned
from farthing.flow import Effect
from farthing.protocol.facilitator import Settled
from farthing.services.facilitator.lane import Pace
from farthing.world.facilitator_store import FacilitatorStore
from farthing.world.pending import Pending

AMOUNT = 12_345
QUICK = Pace(idle_seconds=0.05, work_seconds=0.05)
WRITES = (AcquireLease, OpenWallet, PlanTransactions, StoreSigned, MarkSent, RecordChain)


def lose_answer(monkeypatch: pytest.MonkeyPatch, lost: Callable[[Effect[Any]], bool]) -> list[Effect[Any]]:
    """Have the next write of which `lost` is true be done, and be told as one of which nobody knows; gives it then."""
    done: list[Effect[Any]] = []
    handlers = FacilitatorStore.handlers

    def cut(write: Callable[[Any], Pending[Any]]) -> Callable[[Any], Pending[Any]]:
        def perform(effect: Effect[Any]) -> Pending[Any]:
            answer = write(effect)
            if done or not lost(effect):
                return answer
            done.append(effect)
            told = Pending[Any]()
            answer.add_done_callback(lambda _: told.fail(StoreError("whether this was written is unknown")))
            return told

        return perform

    def with_cut(store: FacilitatorStore) -> Any:
        table = handlers(store)
        return {kind: cut(handler) if kind in WRITES else handler for kind, handler in table.items()}

    monkeypatch.setattr(FacilitatorStore, "handlers", with_cut)
    return done


def settle_all(pyevm: Any, eventually: Any, *, count: int) -> None:
    """Settle payments one after another: each is told, booked and on the chain, and nothing is left to do."""
    payments = [pyevm.payment() for _ in range(count)]

    async def run() -> None:
        async with pyevm.service(pace=QUICK) as service:
            for payment in payments:
                assert isinstance(await service.settle(*payment, idempotency_key="k"), Settled)
            await eventually(lambda: not service.lanes[0].entries)
            assert set(service.books.settled().values()) == {AMOUNT}

    asyncio.run(run())
    assert pyevm.balance(pyevm.payee) == count * AMOUNT


@pytest.mark.parametrize("kind", WRITES)
def test_F2_a_write_whose_answer_was_lost_holds_no_payment_up(
    pyevm: Any, monkeypatch: pytest.MonkeyPatch, eventually: Any, kind: type[Effect[Any]]
) -> None:
    lost = lose_answer(monkeypatch, lambda effect: isinstance(effect, kind))
    # Those that come after it, too: a nonce that is forgotten holds up all behind it.
    settle_all(pyevm, eventually, count=3)
    assert len(lost) == 1


def test_F2_a_commit_that_lands_after_its_connection_broke_is_read_back_too(
    pyevm: Any, monkeypatch: pytest.MonkeyPatch, eventually: Any
) -> None:
    """PostgreSQL may go on committing for nobody: it holds the store's lock until then, and the next write waits."""
    lost: list[Effect[Any]] = []
    landing: list[Callable[[], Pending[Any]]] = []
    handlers = FacilitatorStore.handlers

    def behind(write: Callable[[Any], Pending[Any]]) -> Callable[[Any], Pending[Any]]:
        def perform(effect: Effect[Any]) -> Pending[Any]:
            while landing:
                landing.pop()()
            if lost or not isinstance(effect, PlanTransactions):
                return write(effect)
            lost.append(effect)
            landing.append(lambda: write(effect))
            told = Pending[Any]()
            told.fail(StoreError("whether this was written is unknown"))
            return told

        return perform

    def with_lock(store: FacilitatorStore) -> Any:
        return {kind: behind(each) if kind in WRITES else each for kind, each in handlers(store).items()}

    monkeypatch.setattr(FacilitatorStore, "handlers", with_lock)
    settle_all(pyevm, eventually, count=2)
    assert len(lost) == 1


def test_F2_F3_blocks_that_were_lost_with_the_answer_about_them_are_sent_again(
    pyevm: Any, monkeypatch: pytest.MonkeyPatch, eventually: Any
) -> None:
    lost = lose_answer(monkeypatch, lambda effect: isinstance(effect, RecordChain) and bool(effect.lost))
    payment = pyevm.payment()

    async def run() -> None:
        async with pyevm.service(pace=QUICK) as service:
            assert isinstance(await service.settle(*payment, idempotency_key="k"), Settled)
            (lane,) = service.lanes
            first = await service.find(payment.payment_id)
            assert first is not None
            await eventually(lambda: lane.head and lane.head.number >= (first.block_number or 0))
            pyevm.devnet.reorganise(1)
            await eventually(lambda: lost)
            await eventually(lambda: pyevm.balance(pyevm.payee) == AMOUNT, what="the transaction is sent again")
            await eventually(lambda: sum(service.books.settled().values()) == AMOUNT)

    with pyevm.devnet.rewound():
        asyncio.run(run())
        assert pyevm.balance(pyevm.payee) == AMOUNT
