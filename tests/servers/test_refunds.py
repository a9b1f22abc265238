"""S2, S6: what a seller owes back is booked as paid back once, by an entry of its own."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from farthing_selling import KEY, PAY_TO, TRANSACTION

from farthing.errors import StoreError
from farthing.seller.states import State

TARGET = "/weather/paris"
REFUND = "0x" + "cd" * 32


@pytest.fixture
def owed(shop: Any) -> Any:
    """A payment that was settled before its work, which failed and may not be run again."""
    shop.seller.price("POST /weather/{city}", "$0.01", payment_flow="upfront")
    shop.work.status = 500
    shop.paid = shop.pay("POST", TARGET)
    shop.send("POST", TARGET, shop.paid)
    assert shop.states == ["refund_due"]
    return shop


def test_S2_a_refund_is_booked_once_against_what_was_paid(owed: Any) -> None:
    store = owed.seller.store
    (due,) = store.payments(State.REFUND_DUE)
    assert store.refunded(due.payment_id, REFUND, posted_at=2**33)
    assert not store.refunded(due.payment_id, "0xother", posted_at=2**33)
    assert (owed.states, store.payments(State.REFUND_DUE)) == (["refunded"], ())
    paid, back = store.ledger()
    assert (paid.payer, paid.pay_to, paid.amount, paid.transaction) == (KEY.address, PAY_TO, 10_000, TRANSACTION)
    assert (back.payer, back.pay_to, back.amount, back.transaction) == (PAY_TO, KEY.address, 10_000, REFUND)
    assert (back.network, back.asset) == (paid.network, paid.asset)
    got = owed.send("POST", TARGET, owed.paid)
    assert (got.status, got.json["transaction"], owed.work.ran) == (409, REFUND, 1)


def test_S2_of_two_that_book_a_refund_at_once_one_does(owed: Any) -> None:
    store, booked = owed.seller.store, []
    (due,) = store.payments(State.REFUND_DUE)
    start = threading.Barrier(2)

    def book(transaction: str) -> None:
        start.wait()
        booked.append(store.refunded(due.payment_id, transaction, posted_at=1))

    threads = [threading.Thread(target=book, args=(f"0x{at}",)) for at in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(booked) == [False, True]
    assert len(store.ledger()) == 2


def test_S2_nothing_is_refunded_that_is_not_due(shop: Any) -> None:
    shop.seller.price("GET /weather/{city}", "$0.01")
    assert shop.buy("GET", TARGET).status == 200
    store = shop.seller.store
    (row,) = store.payments()
    assert not store.refunded(row.payment_id, REFUND, posted_at=1)
    assert not store.refunded("pay_nobody", REFUND, posted_at=1)
    assert (shop.states, len(store.ledger())) == (["delivered"], 1)
    with pytest.raises(StoreError, match="name the one that paid it back"):
        store.refunded(row.payment_id, "", posted_at=1)
