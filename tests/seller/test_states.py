from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest

from farthing.errors import StoreError
from farthing.seller.states import (
    AUTHORIZATION_MOVES,
    SECOND_REQUEST,
    UPFRONT_MOVES,
    PaymentFlow,
    Relation,
    State,
    after_lease,
    allowed,
    as_markdown,
)
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
from farthing.world.seller_store import SellerStore

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def store(store_url: str) -> Any:
    made = SellerStore(store_url)
    yield made
    made.close()


def claim(state: State = State.CLAIMED, fingerprint: str = "f") -> Claim:
    return Claim(
        payment_id="pay_1",
        fingerprint=fingerprint,
        request_print="r",
        state=state,
        lease_until=100,
        valid_before=2**256 - 1,
        flow=PaymentFlow.AUTHORIZATION,
        idempotent=True,
        stores_response=True,
        network="eip155:1",
        asset="0xa",
        payer="0xb",
        pay_to="0xc",
        amount=2**256 - 1,
        resource="https://x/",
        claimed_at=1,
    )


ENTRY = LedgerEntry("eip155:1", "0xa", "0xb", "0xc", 5, "0xt", 7)


def test_the_page_is_made_from_the_tables() -> None:
    page = (ROOT / "docs" / "seller.md").read_text()
    assert as_markdown() in page, "run `python -m farthing.seller.states` and put its output into docs/seller.md"


def test_every_state_that_is_on_record_answers_a_second_request() -> None:
    reached = {move.target for move in AUTHORIZATION_MOVES + UPFRONT_MOVES}
    assert reached == set(SECOND_REQUEST)
    assert all(set(replies) == set(Relation) for replies in SECOND_REQUEST.values())


def test_what_a_lapsed_lease_leads_to_is_in_the_table() -> None:
    for state, flow, idempotent, stores, left in itertools.product(
        State, PaymentFlow, (True, False), (True, False), (True, False)
    ):
        target = after_lease(state, flow=flow, idempotent=idempotent, stores_response=stores, runs_left=left)
        assert target is None or allowed(state, target)
        # What may have been settled is never let go, and what was not is never kept.
        assert not (state is State.SETTLING and target is not State.UNKNOWN)


def test_no_move_leads_from_a_settlement_to_a_claim() -> None:
    settled = {State.SETTLING, State.UNKNOWN, State.SETTLED, State.DELIVERED, State.OWED, State.RUNNING}
    for source in settled:
        assert not allowed(source, State.CLAIMED)
    for source in settled - {State.SETTLING}:
        assert not allowed(source, State.VOID)


def test_F3_nothing_leads_from_a_delivery_to_another_one() -> None:
    """Whatever becomes of its block: while nobody knows, and after."""
    reached, fresh = set(), {State.DELIVERED}
    while fresh:
        reached |= fresh
        fresh = {target for source in reached for target in State if allowed(source, target)} - reached
    assert reached == {State.DELIVERED, State.UNKNOWN_DELIVERED, State.LOSS}
    assert not any(allowed(State.LOSS, target) for target in State)


def test_S1_a_claim_is_made_once(store: Any) -> None:
    assert store.make_claim(MakeClaim(claim())).result() == Claimed(1, ANY)
    again = store.make_claim(MakeClaim(claim())).result()
    assert isinstance(again, Known)
    assert (again.state, again.epoch) == (State.CLAIMED, 1)
    assert store.payments()[0].amount == 2**256 - 1


def test_S1_who_lost_the_lease_changes_nothing(store: Any) -> None:
    store.make_claim(MakeClaim(claim())).result()
    assert store.advance(Advance("pay_1", 1, State.CLAIMED, State.VOID, take_over=True)).result()
    found = store.look_up(LookUp("pay_1"))
    assert found.epoch == 2
    assert store.make_claim(MakeClaim(claim(), found)).result() == Claimed(3, ANY)
    for epoch in (1, 2):
        late = Advance("pay_1", epoch, State.CLAIMED, State.SETTLING, response=StoredResponse(200, (), b"late"))
        assert not store.advance(late).result()
        assert store.fetch_response(FetchResponse("pay_1")) is None
        store.mark_delivered(MarkDelivered("pay_1", epoch, State.SETTLED))
    assert isinstance(store.make_claim(MakeClaim(claim(), found)).result(), Known)
    assert store.look_up(LookUp("pay_1")).state is State.CLAIMED


def test_a_move_that_the_table_has_not_is_refused(store: Any) -> None:
    store.make_claim(MakeClaim(claim())).result()
    with pytest.raises(StoreError, match="no move"):
        store.advance(Advance("pay_1", 1, State.CLAIMED, State.DELIVERED))


def test_receipt_response_and_ledger_are_one_step_with_their_move(store: Any) -> None:
    store.make_claim(MakeClaim(claim())).result()
    response = StoredResponse(201, (("Set-Cookie", "a"), ("Set-Cookie", "b")), b"\x00\xff")
    assert store.advance(Advance("pay_1", 1, State.CLAIMED, State.SETTLING, response=response)).result()
    settled = Advance("pay_1", 1, State.SETTLING, State.SETTLED, transaction="0xt", receipt="{}", entry=ENTRY)
    assert store.advance(settled).result()
    assert not store.advance(settled).result()
    assert store.ledger() == (ENTRY,)
    assert store.fetch_response(FetchResponse("pay_1")) == response
    store.mark_delivered(MarkDelivered("pay_1", 1, State.SETTLED))
    store.flush()
    assert store.fetch_response(FetchResponse("pay_1")) is None
    assert store.look_up(LookUp("pay_1")).transaction == "0xt"


def test_the_ledger_refuses_to_be_edited(store: Any) -> None:
    test_receipt_response_and_ledger_are_one_step_with_their_move(store)
    for statement in ("UPDATE seller_ledger SET amount = '0'", "DELETE FROM seller_ledger"):
        with pytest.raises(Exception, match="append-only"):
            store._database.submit(lambda connection, sql=statement: connection.execute(sql)).result()
    assert store.ledger() == (ENTRY,)
