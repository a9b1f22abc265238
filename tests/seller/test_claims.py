"""Claims and moves that share a batch each get their own answer; what was claimed in the old tables is there still."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from operator import methodcaller
from pathlib import Path
from typing import Any

import pytest

from farthing.seller.states import PaymentFlow, State
from farthing.seller.store import (
    Advance,
    Claim,
    Claimed,
    FetchResponse,
    Known,
    LedgerEntry,
    LookUp,
    MakeClaim,
    MarkDelivered,
    StoredResponse,
)
from farthing.world.lane_rows import LANES
from farthing.world.many_rows import ROWS_MAX
from farthing.world.migrations import load_migrations, migrate
from farthing.world.performers import Performer
from farthing.world.seller_store import SellerStore
from farthing.world.sqlite import Database

# More than one statement's rows, and no power of two.
MANY = 2 * ROWS_MAX + 7
TRANSACTION = "0x" + "ab" * 32


@pytest.fixture
def store(store_url: str) -> Iterator[SellerStore]:
    made = SellerStore(store_url)
    made.lanes.next()  # its lane is taken before the writer is held
    yield made
    made.close()


def claim(payment_id: str, fingerprint: str = "f") -> Claim:
    return Claim(
        payment_id=payment_id,
        fingerprint=fingerprint,
        request_print="r",
        state=State.CLAIMED,
        lease_until=100,
        valid_before=200,
        flow=PaymentFlow.AUTHORIZATION,
        idempotent=True,
        stores_response=True,
        network="eip155:1",
        asset="0xa",
        payer="0xb",
        pay_to="0xc",
        amount=5,
        resource="https://x/",
        claimed_at=1,
    )


def held(store: SellerStore) -> threading.Event:
    """Keep the writer busy, so that what is asked for until the event is set is one batch."""
    leave = threading.Event()
    store._database.submit(lambda _: leave.wait(10))
    return leave


def in_one_batch(store: SellerStore, effects: list[Any]) -> list[Any]:
    leave = held(store)
    performed = [store.handlers()[type(effect)](effect) for effect in effects]
    leave.set()
    return [each.result(10) for each in performed]


def test_S1_of_the_claims_of_one_batch_each_payment_has_one_owner(store: SellerStore) -> None:
    wanted = [MakeClaim(claim(f"pay_{number % MANY}", str(number))) for number in range(2 * MANY)]
    answers = in_one_batch(store, wanted)
    for effect, answer in zip(wanted, answers, strict=True):
        if int(effect.claim.fingerprint) < MANY:
            assert isinstance(answer, Claimed)
            assert answer.epoch == 1
        else:
            assert isinstance(answer, Known)
            assert int(answer.fingerprint) < MANY
            assert answer.state is State.CLAIMED
    assert len({answer.claim for answer in answers if isinstance(answer, Claimed)}) == MANY
    assert len(store.payments()) == MANY


def test_S1_of_two_moves_of_one_claim_in_one_batch_one_is_made(store: SellerStore) -> None:
    names = [f"pay_{number}" for number in range(MANY)]
    claims = in_one_batch(store, [MakeClaim(claim(name)) for name in names])
    moves = [
        Advance(name, 1, State.CLAIMED, target, claim=made.claim, response=StoredResponse(200, (), target.encode()))
        for name, made in zip(names, claims, strict=True)
        for target in (State.SETTLING, State.VOID)
    ]
    # One of another epoch, before all the others.
    moves.insert(0, Advance(names[-1], 9, State.CLAIMED, State.ABORTED, claim=claims[-1].claim))
    answers = in_one_batch(store, moves)
    assert answers.pop(0) is False
    for name, settling, void in zip(names, answers[::2], answers[1::2], strict=True):
        assert settling != void
        found = store.look_up(LookUp(name))
        assert found is not None
        assert found.state is (State.SETTLING if settling else State.VOID)
        kept = store.fetch_response(FetchResponse(name))
        assert (kept is not None and kept.body == b"settling") if settling else kept is None


def test_S1_a_claim_over_what_was_moved_meanwhile_is_not_made(store: SellerStore) -> None:
    first: Any = in_one_batch(store, [MakeClaim(claim("pay_1"))])[0]
    assert store.advance(Advance("pay_1", 1, State.CLAIMED, State.VOID, claim=first.claim)).result(10)
    found = store.look_up(LookUp("pay_1"))
    again, late = in_one_batch(store, [MakeClaim(claim("pay_1", "g"), found), MakeClaim(claim("pay_1", "h"), found)])
    assert isinstance(again, Claimed)
    assert again.epoch == 2
    assert isinstance(late, Known)
    assert (late.fingerprint, late.state) == ("g", State.CLAIMED)
    # Whoever held the first claim can do nothing to the second.
    assert not store.advance(Advance("pay_1", 1, State.CLAIMED, State.SETTLING, claim=first.claim)).result(10)
    assert not store.advance(Advance("pay_1", 1, State.CLAIMED, State.SETTLING)).result(10)
    assert [row.state for row in store.payments()] == [State.CLAIMED]


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)  # whose connection tells what it runs
def test_what_one_turn_of_a_loop_asks_for_is_one_batch(store: SellerStore) -> None:
    statements: list[str] = []

    async def turn() -> None:
        performer = Performer(store.handlers())
        asked = [performer.awaiting(MakeClaim(claim(f"pay_{number}"))) for number in range(8)]
        assert len({answer.claim for answer in await asyncio.gather(*asked) if isinstance(answer, Claimed)}) == len(
            asked
        )

    async def blocked() -> Any:
        # Who blocks the loop for the answer has it handed over first.
        return store.make_claim(MakeClaim(claim("pay_blocked"))).result(10)

    store.make_claim(MakeClaim(claim("pay_first"))).result(10)
    assert isinstance(store._database, Database)
    assert store._database._writing is not None
    store._database._writing.set_trace_callback(statements.append)
    asyncio.run(turn())
    assert [each.split(" ", 2)[0] for each in statements] == ["BEGIN", "INSERT", "INSERT", "COMMIT"]
    assert isinstance(asyncio.run(blocked()), Claimed)


def test_two_stores_of_one_place_number_in_lanes_of_their_own(store: SellerStore, store_url: str) -> None:
    other = SellerStore(store_url)
    try:
        made = [each.make_claim(MakeClaim(claim(f"pay_{id(each)}"))).result(10) for each in (store, other)]
        assert all(isinstance(each, Claimed) for each in made)
        assert other._database.fetch(LANES) == [("2",)]
    finally:
        other.close()


def old_store(path: Path) -> None:
    """A store as it was before migration 0004, with a payment in each of its shapes."""
    connection = sqlite3.connect(path, isolation_level=None)
    migrate(connection, load_migrations("seller")[:3])
    for number, (state, tx) in enumerate((("settled", TRANSACTION), ("void", ""), ("delivered", TRANSACTION)), start=1):
        connection.execute(
            "INSERT INTO seller_payment VALUES (?, 'f', 'r', ?, 3, 4, 5, 'authorization', 1, 1, 2, 'eip155:1', '0xa', "
            "'0xb', '0xc', '7', 'https://x/', ?, 'why', ?, ?)",
            (f"pay_{number}", state, tx, '{"success":true}' if tx else "", number),
        )
        if tx:
            entry = (f"pay_{number}", tx, "eip155:1", "0xa", "0xb", "0xc", "7", 9)
            connection.execute("INSERT INTO seller_ledger VALUES (?, ?, ?, ?, ?, ?, ?, ?)", entry)
    connection.execute("INSERT INTO seller_response VALUES ('pay_1', 200, '[[\"a\",\"b\"]]', x'00ff', '')")
    connection.close()


def test_S6_what_was_on_record_before_the_store_was_reshaped_is_there_after(tmp_path: Path) -> None:
    old_store(tmp_path / "seller.sqlite")
    store = SellerStore(tmp_path / "seller.sqlite")
    try:
        found = store.look_up(LookUp("pay_1"))
        assert found is not None
        assert (found.state, found.epoch, found.lease_until, found.runs) == (State.SETTLED, 3, 4, 2)
        assert (found.transaction, found.reason, found.receipt) == (TRANSACTION, "why", '{"success":true}')
        assert store.fetch_response(FetchResponse("pay_1")) == StoredResponse(200, (("a", "b"),), b"\x00\xff")
        assert store.ledger() == (LedgerEntry("eip155:1", "0xa", "0xb", "0xc", 7, TRANSACTION, 9),) * 2
        assert [row.payment_id for row in store.payments()] == ["pay_3", "pay_2", "pay_1"]
        store.mark_delivered(MarkDelivered("pay_1", 3, State.SETTLED))
        store.flush()
        assert store.fetch_response(FetchResponse("pay_1")) is None
        again = store.make_claim(MakeClaim(claim("pay_2", "g"), store.look_up(LookUp("pay_2")))).result(10)
        assert isinstance(again, Claimed)
        assert again.epoch == 4
        for statement in ("UPDATE seller_ledger SET amount = '0'", "DELETE FROM seller_ledger"):
            edit: Any = methodcaller("execute", statement)
            with pytest.raises(Exception, match="append-only"):
                store._database.submit(edit).result(10)
    finally:
        store.close()
