"""C6: payees are paid what is cleared, each once; payers who do not pay are suspended."""

from __future__ import annotations

import threading
from collections.abc import Callable

from money import balanced, cleared, issued, paid, plan, report, went
from town import DOLLAR, NOON, Crawler, House

from farthing.clearing.settlement import (
    OpenPayouts,
    StoreSignedPayout,
    SuspendOverdue,
)
from farthing.clearing.store import ProvePayee


def test_C6_payees_are_paid_when_payers_have_paid_and_their_domain_is_proved(house: House) -> None:
    crawler = Crawler()
    house.open(crawler)
    record = issued(house, crawler)
    house.ask(ProvePayee("news", "challenge", house.now))
    assert plan(house) == ()
    report(house, paid(record, 3 * DOLLAR))
    (payout,) = plan(house)
    assert plan(house) == ()
    (found,) = house.ask(OpenPayouts(10))
    assert (found.payout, found.amount, found.state) == (payout, 3 * DOLLAR, "planned")
    balanced(house, crawler)


def test_C6_nothing_is_paid_out_to_a_domain_that_is_not_proved(house: House) -> None:
    crawler = Crawler()
    house.open(crawler)
    cleared(house, crawler)
    assert plan(house) == ()
    assert house.ask(ProvePayee("news", "another challenge", house.now)) is False
    assert plan(house) == ()


def test_C6_a_payout_is_planned_once_by_two_processes(new_house: Callable[..., House]) -> None:
    crawler = Crawler()
    houses = [new_house(), new_house()]
    houses[0].open(crawler)
    cleared(houses[0], crawler)
    houses[0].ask(ProvePayee("news", "challenge", NOON))
    planned: list[str] = []
    threads = [threading.Thread(target=lambda each=each: planned.extend(plan(each))) for each in houses * 4]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(planned) == 1
    assert sum(houses[0].balances(pending=True).values()) == 0


def test_C6_a_payout_settles_by_its_nonce_and_only_a_later_authorisation_replaces_one(house: House) -> None:
    crawler = Crawler()
    house.open(crawler)
    cleared(house, crawler)
    house.ask(ProvePayee("news", "challenge", house.now))
    (name,) = plan(house)
    assert house.ask(StoreSignedPayout(name, "{1}", 100)) is True
    assert house.ask(StoreSignedPayout(name, "{2}", 100)) is False
    assert house.ask(StoreSignedPayout(name, "{3}", 200)) is True
    (payout,) = house.ask(OpenPayouts(10))
    assert (payout.payment, payout.state) == ("{3}", "signed")
    wrong = went("0xe1", payout, payout.amount - 1)
    assert report(house, wrong) == ()
    right = went("0xe2", payout)
    assert report(house, right) == (name,)
    assert report(house, right) == ()
    assert house.ask(OpenPayouts(10)) == ()
    assert house.total("cleared") == 0
    assert house.balances(pending=True) == {}
    balanced(house, crawler)


# Standing


def test_payers_who_do_not_pay_are_suspended_and_go_on_when_they_have(house: House) -> None:
    crawler = Crawler()
    house.open(crawler)
    record = issued(house, crawler)
    house.now = record.due_at + house.rules.grace_seconds
    assert house.ask(SuspendOverdue(house.rules, house.now)) == ()
    house.now += 1
    assert house.ask(SuspendOverdue(house.rules, house.now)) == (crawler.directory,)
    assert house.ask(SuspendOverdue(house.rules, house.now)) == ()
    assert house.lease(crawler, DOLLAR).reason == "suspended"
    report(house, paid(record, 3 * DOLLAR))
    assert house.payer(crawler).state == "active"


# The books
