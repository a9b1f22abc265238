"""C1, C6: what is in the reserve came on chain, is taken out once, and the database lets nobody take more."""

from __future__ import annotations

from typing import Any

import pytest
from money import CHAIN, balanced, came, issued, paid, plan, report, went
from reserving import cover, covers, default, defaulted, fund, guarantee, standing, take
from town import DOLLAR, NETWORK, Crawler, House

from farthing.clearing.books import Books
from farthing.clearing.guarantee import FundReserve
from farthing.clearing.rules import payee_key, payer_key
from farthing.clearing.settlement import AssignSuspense, OpenPayouts
from farthing.clearing.store import ProvePayee, RegisterPayee
from farthing.evm.signatures import PrivateKey
from farthing.world.clearing_booking import book


def test_C6_the_database_lets_nobody_take_more_than_is_in_the_reserve(house: House) -> None:
    crawler = Crawler()
    house.open(crawler)
    payer, payee = payer_key(crawler.directory), payee_key("news")
    books = Books(NETWORK, "USD")

    def draw(amount: int, step: int) -> Any:
        bookings = books.cover("st-1", payer, payee, amount, step)
        return house.store.database.submit(lambda at: book(at, bookings, house.now)).result()

    with pytest.raises(Exception, match="no reserve in USD"):
        draw(1, 1)
    fund(house, DOLLAR)
    with pytest.raises(Exception, match=r"(?i)check"):
        draw(DOLLAR + 1, 1)
    assert (house.total("reserve"), house.total("recourse"), house.total("cleared")) == (DOLLAR, 0, 0)
    draw(DOLLAR, 1)
    # One step is booked once.
    with pytest.raises(Exception, match=r"(?i)unique"):
        draw(DOLLAR, 1)
    assert house.total("recourse") == DOLLAR


def test_C1_the_database_refuses_to_change_a_cover(house: House) -> None:
    defaulted(house, Crawler())
    cover(house)
    for sql in ("UPDATE clearing_covers SET amount = 1", "DELETE FROM clearing_covers"):
        with pytest.raises(Exception, match="append-only"):
            house.store.database.submit(lambda at, sql=sql: at.execute(sql).rowcount).result()
    assert covers(house) == [("news", 3 * DOLLAR)]


def test_C6_a_deposit_is_given_once_to_the_reserve_or_to_a_payer(house: House) -> None:
    crawler = Crawler()
    house.open(crawler)
    assert fund(house, DOLLAR) is True
    assert fund(house, DOLLAR) is False
    assert house.ask(AssignSuspense(CHAIN, "0xfd", 1, crawler.directory, house.rules, house.now)) is False
    report(house, came("0xbb", DOLLAR))
    assert house.ask(AssignSuspense(CHAIN, "0xbb", 1, crawler.directory, house.rules, house.now)) is True
    assert fund(house, DOLLAR, "0xbb") is False
    # Nobody saw that one come.
    assert house.ask(FundReserve(CHAIN, "0xcc", 1, "USD", house.rules, house.now)) is False
    assert (house.total("reserve"), house.total("suspense"), house.payer(crawler).prepaid) == (DOLLAR, 0, DOLLAR)
    balanced(house, crawler)


def test_C6_what_pays_a_statement_does_not_fund_the_reserve(house: House) -> None:
    crawler = Crawler()
    house.open(crawler)
    record = issued(house, crawler)
    report(house, paid(record, 3 * DOLLAR, transaction="0xfd"))
    assert fund(house, 3 * DOLLAR) is False
    assert standing(house) == (0, 0, 0, 0)


def test_C6_what_is_taken_out_is_paid_out_once_and_is_no_more_than_is_there(house: House) -> None:
    crawler = Crawler()
    house.open(crawler)
    house.ask(RegisterPayee("ourselves", "us.example", "USD", PrivateKey(b"\x03" * 32).address, "c", house.now))
    assert take(house, 1) == "too_much"
    fund(house, 5 * DOLLAR)
    assert take(house, 5 * DOLLAR + 1) == "too_much"
    assert take(house, DOLLAR, payee="nobody") == "unknown_payee"
    assert [take(house, 2 * DOLLAR) for _ in range(3)] == [""] * 3
    assert take(house, DOLLAR) == take(house, 2 * DOLLAR, payee="news") == "request_reused"
    assert take(house, 3 * DOLLAR, "t2") == ""
    # All is taken, and the answer to the first is what it was.
    assert take(house, 2 * DOLLAR) == ""
    assert standing(house)[0] == 0
    assert plan(house) == ()
    house.ask(ProvePayee("ourselves", "c", house.now))
    plan(house)
    (payout,) = house.ask(OpenPayouts(9))
    assert (payout.amount, payout.address) == (5 * DOLLAR, PrivateKey(b"\x03" * 32).address)
    report(house, went("0xe1", payout))
    assert house.balances() == {}
    balanced(house, crawler)


def test_C6_what_is_guaranteed_can_not_be_taken_out(house: House) -> None:
    crawler = Crawler()
    house.open(crawler)
    house.ask(RegisterPayee("ourselves", "us.example", "USD", PrivateKey(b"\x03" * 32).address, "c", house.now))
    guarantee(house)
    fund(house, 5 * DOLLAR)
    record = issued(house, crawler)
    assert standing(house) == (5 * DOLLAR, 0, 3 * DOLLAR, 0)
    assert take(house, 2 * DOLLAR + 1) == "too_much"
    assert take(house, 2 * DOLLAR) == ""
    # Covered, it is not there any more; and paid, it is guaranteed no more.
    default(house, record)
    cover(house)
    assert (take(house, 1, "t2"), standing(house)) == ("too_much", (0, 3 * DOLLAR, 0, 0))
    report(house, paid(record, 3 * DOLLAR))
    assert take(house, 3 * DOLLAR, "t2") == ""
