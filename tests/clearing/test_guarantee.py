"""C6: a guarantee needs a funded reserve: guaranteed payees are paid from it once, and payers owe as before."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from money import CHAIN, accept, balanced, came, decide, dispute, issued, line_ids, look, paid, plan, report, went
from reserving import (
    cover,
    covers,
    default,
    defaulted,
    fund,
    guarantee,
    nothing_below_zero,
    standing,
)
from town import DOLLAR, NETWORK, NOON, Crawler, House, pack

from farthing.clearing import flows, paying
from farthing.clearing.rails import RailReport
from farthing.clearing.rules import Rules
from farthing.clearing.settlement import (
    AssignSuspense,
    InstructStatement,
    OpenPayouts,
    PayFromBalance,
    ReturnStatement,
    SuspendOverdue,
)
from farthing.clearing.store import ListStatements, RegisterPayer
from farthing.flow import Flow

DAY = 86_400


def test_C6_a_guaranteed_payee_is_paid_from_the_reserve_and_the_payers_late_payment_refills_it(house: House) -> None:
    crawler = Crawler()
    record = defaulted(house, crawler)
    assert standing(house) == (10 * DOLLAR, 0, 3 * DOLLAR, 3 * DOLLAR)
    assert cover(house) == (record.statement,)
    assert cover(house) == ()
    assert standing(house) == (7 * DOLLAR, 3 * DOLLAR, 0, 0)
    assert covers(house) == [("news", 3 * DOLLAR)]
    balanced(house, crawler)
    # The payer owes what it owed, and is suspended as ever.
    assert (house.payer(crawler).owed, house.payer(crawler).recourse) == (3 * DOLLAR, 3 * DOLLAR)
    assert house.ask(SuspendOverdue(house.rules, house.now)) == (crawler.directory,)
    (payout,) = plan(house)
    (found,) = house.ask(OpenPayouts(10))
    assert (found.amount, report(house, went("0xe1", found))) == (3 * DOLLAR, (payout,))
    # It pays late: the reserve has its money again, and the payee gets none of it.
    assert report(house, paid(record, 3 * DOLLAR)) == (record.statement,)
    assert standing(house) == (10 * DOLLAR, 0, 0, 0)
    assert (house.total("cleared"), house.total("accrued"), plan(house)) == (0, 0, ())
    assert house.total("treasury") == -10 * DOLLAR
    assert (house.payer(crawler).state, house.payer(crawler).owed, house.payer(crawler).recourse) == ("active", 0, 0)
    balanced(house, crawler)


def test_C6_who_is_not_guaranteed_is_paid_when_its_payers_have_paid(house: House) -> None:
    crawler = Crawler()
    house.open(crawler, payees={"news": "news.example", "blog": "blog.example"})
    guarantee(house, "blog")
    fund(house, 10 * DOLLAR)
    record = issued(house, crawler)
    default(house, record)
    # A guarantee that comes later is for statements that are issued later.
    guarantee(house)
    assert cover(house) == ()
    assert (standing(house), house.total("cleared")) == ((10 * DOLLAR, 0, 0, 0), 0)


def test_C6_a_guarantee_that_was_given_for_a_statement_stays(house: House) -> None:
    record = defaulted(house, Crawler())
    guarantee(house, on=False)
    assert cover(house) == (record.statement,)


@pytest.mark.parametrize(
    ("dispute_days", "day"),
    [(30, 30), (1, 10)],
    ids=["while it can be disputed", "while it can be paid"],
)  # fmt: skip
def test_C6_nothing_is_covered_before_the_payer_can_neither_pay_in_time_nor_dispute(
    new_house: Callable[..., House], dispute_days: int, day: int
) -> None:
    house, crawler = new_house(Rules(network=NETWORK, dispute_seconds=dispute_days * DAY)), Crawler()
    record = defaulted(house, crawler)
    assert house.now == NOON + day * DAY + 1
    # One of the two dates is over long before.
    house.now = NOON + min(10, dispute_days) * DAY + 1
    assert cover(house) == ()
    house.now = NOON + day * DAY + 1
    # The rail's books were not read beyond that time: a payment may be in them.
    assert cover(house, house.now - 1) == ()
    house.now -= 1
    assert cover(house) == ()
    house.now += 1
    assert cover(house) == (record.statement,)


def test_C6_the_oldest_is_covered_first_as_far_as_the_reserve_reaches(house: House) -> None:
    crawler = Crawler()
    first = defaulted(house, crawler, funded=4 * DOLLAR)
    house.now = NOON + DAY
    second = issued(house, crawler, sequence=2, at=house.now)
    default(house, second)
    assert standing(house) == (4 * DOLLAR, 0, 6 * DOLLAR, 6 * DOLLAR)
    assert cover(house) == (first.statement, second.statement)
    assert covers(house) == [("news", 3 * DOLLAR), ("news", DOLLAR)]
    assert standing(house) == (0, 4 * DOLLAR, 2 * DOLLAR, 2 * DOLLAR)
    assert cover(house) == ()
    # What comes into it covers the rest, and no more than that.
    fund(house, 5 * DOLLAR, "0xfe")
    assert cover(house) == (second.statement,)
    assert covers(house) == [("news", 3 * DOLLAR), ("news", DOLLAR), ("news", 2 * DOLLAR)]
    assert (standing(house), house.total("cleared")) == ((3 * DOLLAR, 6 * DOLLAR, 0, 0), 6 * DOLLAR)
    report(house, paid(second, 3 * DOLLAR))
    assert (standing(house), house.total("cleared")) == ((6 * DOLLAR, 3 * DOLLAR, 0, 0), 6 * DOLLAR)
    balanced(house, crawler)


def test_C6_a_share_that_was_covered_in_part_gets_the_rest_of_what_the_payer_pays(house: House) -> None:
    crawler = Crawler()
    record = defaulted(house, crawler, funded=DOLLAR)
    cover(house)
    report(house, paid(record, 3 * DOLLAR))
    assert (standing(house), house.total("cleared")) == ((DOLLAR, 0, 0, 0), 3 * DOLLAR)
    assert house.total("accrued") == 0
    balanced(house, crawler)


def test_C6_disputed_lines_are_not_covered_and_come_with_the_next_statement(house: House) -> None:
    crawler = Crawler()
    house.open(crawler)
    guarantee(house)
    fund(house, 10 * DOLLAR)
    record = issued(house, crawler)
    line, other, _ = line_ids(house, record)
    opened, granted = dispute(house, record, [line, other])
    decide(house, granted, granted=True)
    default(house, record)
    assert cover(house) == (record.statement,)
    assert covers(house) == [("news", DOLLAR)]
    # The charge stands after all: it is asked for by the next statement, and guaranteed with that.
    decide(house, opened, granted=False)
    assert cover(house) == ()
    second = issued(house, crawler, 1, sequence=2, at=house.now)
    default(house, second)
    assert (second.net, cover(house)) == (2 * DOLLAR, (second.statement,))
    report(house, paid(record, DOLLAR), paid(second, 2 * DOLLAR, transaction="0xab"))
    assert (standing(house), house.total("cleared")) == ((10 * DOLLAR, 0, 0, 0), 3 * DOLLAR)
    assert house.total("held") == house.total("accrued") == house.total("receivable") == 0
    balanced(house, crawler)


def test_C6_what_a_payer_disputes_takes_nothing_from_its_payees_next_guarantee(house: House) -> None:
    """No reserve pays for a disputed line, so that it stands for none of the payer's credit."""
    crawler = Crawler()
    house.open(crawler, credit=4 * DOLLAR)
    guarantee(house)
    fund(house, 10 * DOLLAR)
    record = issued(house, crawler)
    first, second, _ = line_ids(house, record)
    opened = dispute(house, record, [first, second])
    assert standing(house)[2] == DOLLAR
    decide(house, opened[0], granted=False)
    later = issued(house, crawler, 3, sequence=2)
    # A dollar of the first, and of the four of the second as much as the credit has beside it.
    assert (later.net, standing(house)[2]) == (4 * DOLLAR, 4 * DOLLAR)
    default(house, later)
    assert set(cover(house)) == {record.statement, later.statement}
    assert sum(each for _, each in covers(house)) == 4 * DOLLAR
    # What was covered stands for the credit until the payer has paid.
    issued(house, crawler, 1, sequence=3, at=house.now)
    assert standing(house)[2] == 0
    nothing_below_zero(house)
    balanced(house, crawler)


def test_C6_what_a_payer_disputes_holds_none_of_its_balance(house: House) -> None:
    crawler = Crawler()
    house.open(crawler, credit=0)
    guarantee(house)
    report(house, came("0xbb", 4 * DOLLAR))
    house.ask(AssignSuspense(CHAIN, "0xbb", 1, crawler.directory, house.rules, house.now))
    first, second = issued(house, crawler), issued(house, crawler, sequence=2)
    assert house.ask(PayFromBalance(second.statement, house.rules, house.now)) is False
    dispute(house, first, line_ids(house, first)[:2])
    assert house.ask(PayFromBalance(second.statement, house.rules, house.now)) is True
    assert house.payer(crawler).prepaid == DOLLAR
    balanced(house, crawler)


def test_C6_what_is_covered_can_not_be_disputed_by_a_clock_that_is_behind(house: House) -> None:
    crawler = Crawler()
    record = defaulted(house, crawler)
    cover(house)
    house.now = NOON
    assert dispute(house, record, line_ids(house, record)) == "too_late"
    nothing_below_zero(house)


def test_C6_a_payment_returned_under_a_covered_statement_pays_nobody_twice(house: House) -> None:
    crawler = Crawler()
    record = defaulted(house, crawler)
    until = house.now + DAY
    accept(house, record, until)
    house.ask(InstructStatement(record.statement, house.rules, house.now))
    assert cover(house) == (record.statement,)
    (payout,) = plan(house)
    report(house, went("0xe1", house.ask(OpenPayouts(10))[0]))
    assert house.ask(ReturnStatement(record.statement, until, house.rules, house.now)) is True
    assert (look(house, record).state, cover(house), plan(house)) == ("accepted", (), ())
    assert standing(house) == (7 * DOLLAR, 3 * DOLLAR, 0, 0)
    nothing_below_zero(house)
    # Another payment is signed, instructed, and settles.
    accept(house, record, until + DAY)
    house.ask(InstructStatement(record.statement, house.rules, house.now))
    assert report(house, paid(record, 3 * DOLLAR)) == (record.statement,)
    assert (standing(house), house.total("cleared"), plan(house)) == ((10 * DOLLAR, 0, 0, 0), 0, ())
    assert payout.startswith("po-")
    balanced(house, crawler)


def test_C6_a_balance_that_pays_late_refills_the_reserve(house: House) -> None:
    crawler = Crawler()
    record = defaulted(house, crawler)
    cover(house)
    report(house, came("0xbb", 3 * DOLLAR))
    house.ask(AssignSuspense(CHAIN, "0xbb", 1, crawler.directory, house.rules, house.now))
    assert house.ask(PayFromBalance(record.statement, house.rules, house.now)) is True
    assert (standing(house), house.total("cleared")) == ((10 * DOLLAR, 0, 0, 0), 3 * DOLLAR)
    balanced(house, crawler)


def test_C6_a_balance_that_a_guarantee_counts_on_pays_no_other_statement(house: House) -> None:
    """Payer and payee may be one person: the balance would be paid out to it, and the reserve cover the rest."""
    crawler = Crawler()
    house.open(crawler, credit=0)
    guarantee(house)
    fund(house, 10 * DOLLAR)
    report(house, came("0xbb", 3 * DOLLAR))
    house.ask(AssignSuspense(CHAIN, "0xbb", 1, crawler.directory, house.rules, house.now))
    first, second = issued(house, crawler), issued(house, crawler, sequence=2)
    assert standing(house)[2] == 3 * DOLLAR
    assert house.ask(PayFromBalance(second.statement, house.rules, house.now)) is False
    assert (look(house, second).state, house.payer(crawler).prepaid) == ("issued", 3 * DOLLAR)
    assert house.ask(PayFromBalance(first.statement, house.rules, house.now)) is True
    report(house, came("0xbc", 3 * DOLLAR))
    house.ask(AssignSuspense(CHAIN, "0xbc", 1, crawler.directory, house.rules, house.now))
    assert house.ask(PayFromBalance(second.statement, house.rules, house.now)) is True
    balanced(house, crawler)


def test_C6_two_processes_cover_a_default_once(new_house: Callable[..., House]) -> None:
    houses = [new_house(), new_house()]
    record = defaulted(houses[0], Crawler())
    houses[1].now = houses[0].now
    told: list[str] = []
    threads = [threading.Thread(target=lambda each=each: told.extend(cover(each))) for each in houses * 4]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert told == [record.statement]
    assert standing(houses[0]) == (7 * DOLLAR, 3 * DOLLAR, 0, 0)


@pytest.mark.parametrize("amount", [1, 2])
def test_C6_what_is_served_beyond_a_payers_credit_is_not_guaranteed(house: House, amount: int) -> None:
    crawler = Crawler()
    house.open(crawler, payees={"news": "news.example", "blog": "blog.example"})
    house.ask(RegisterPayer(crawler.directory, "USD", 4 * DOLLAR, house.now))
    for name in ("news", "blog"):
        guarantee(house, name)
    fund(house, 100 * DOLLAR)
    lines = [
        crawler.commit(f"/{n}", amount=DOLLAR, payee=name, domain=f"{name}.example")
        for name in ("news", "blog")
        for n in range(amount)
    ]
    house.upload(pack([crawler.record, *lines]), payees=frozenset({"news", "blog"}))
    house.run(flows.close(house.desk, force=True))
    first = house.ask(ListStatements())[-1]
    # What is guaranteed of a statement that is not paid leaves less for the next one.
    second = issued(house, crawler, 3, sequence=2)
    default(house, second)
    assert standing(house)[2:] == (min(4, 3 + 2 * amount) * DOLLAR,) * 2
    assert first.statement in cover(house)
    assert sum(each for _, each in covers(house)) == 4 * DOLLAR
    nothing_below_zero(house)


class QuietRail:
    """A rail whose books show nothing, read until a time of the test's."""

    def __init__(self, house: House, time_seconds: int, *, complete: bool) -> None:
        self._rail = house.desk.rails["USD"]
        self.currency = "USD"
        self._read = (time_seconds, complete)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rail, name)

    def report(self, next_block: int | None) -> Flow[RailReport]:
        yield from ()
        return RailReport(CHAIN, (), (next_block or 0) + 1, *self._read)


def test_C6_a_round_covers_what_is_unpaid_in_books_that_were_read_to_their_end(house: House) -> None:
    record = defaulted(house, Crawler())
    house.now += DAY
    for time_seconds, complete in ((record.dispute_until, True), (house.now, False)):
        rail: Any = QuietRail(house, time_seconds, complete=complete)
        assert house.run(paying.reconcile(house.desk, rail, CHAIN)).covered == ()
    rail = QuietRail(house, record.dispute_until + 1, complete=True)
    found = house.run(paying.reconcile(house.desk, rail, CHAIN))
    assert (found.covered, found.suspended) == ((record.statement,), ())
