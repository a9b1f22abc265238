"""C6: disputes hold their lines; only a rail's report settles."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from money import CHAIN, accept, balanced, came, decide, dispute, issued, line_ids, look, paid, plan, report, went
from town import DOLLAR, NOON, Crawler, House, pack

from farthing.clearing import flows
from farthing.clearing.settlement import (
    AcceptStatement,
    AssignSuspense,
    InstructStatement,
    OpenPayouts,
    PayFromBalance,
    ReturnStatement,
    SuspendOverdue,
)
from farthing.clearing.store import Listing, ListStatements, ProvePayee, RegisterPayer
from farthing.protocol.clearing import Sent
from farthing.protocol.signed_statements import open_statement


def test_C6_only_the_rails_report_settles_a_statement_and_clears_its_shares(house: House) -> None:
    crawler = Crawler()
    house.open(crawler)
    record = accept(house, issued(house, crawler))
    assert record.state == "accepted"
    told = house.ask(InstructStatement(record.statement, house.rules, house.now))
    assert told.state == "instructed"
    # A promise is on record and nothing has moved.
    assert house.total("cleared") == house.total("treasury") == 0
    assert house.balances(pending=True) != {}
    assert house.payer(crawler).owed == 3 * DOLLAR
    assert report(house, paid(record, 3 * DOLLAR)) == (record.statement,)
    assert look(house, record).state == "settled"
    assert look(house, record).transaction == "0xaa"
    assert report(house, paid(record, 3 * DOLLAR)) == ()
    assert house.total("suspense") == 0
    assert house.balances(pending=True) == {}
    assert (house.total("treasury"), house.total("cleared")) == (-3 * DOLLAR, 3 * DOLLAR)
    assert house.payer(crawler).owed == 0
    balanced(house, crawler)


def test_C6_each_movement_is_booked_once_whoever_reads_it(new_house: Callable[..., House]) -> None:
    crawler = Crawler()
    houses = [new_house(), new_house()]
    houses[0].open(crawler)
    record = issued(houses[0], crawler)
    told: list[str] = []
    threads = [
        threading.Thread(target=lambda each=each: told.extend(report(each, paid(record, 3 * DOLLAR))))
        for each in houses * 4
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert told == [record.statement]
    assert houses[0].total("treasury") == -3 * DOLLAR
    balanced(houses[0], crawler)


@pytest.mark.parametrize("what", ["plain transfer", "another amount", "a second payment"])
def test_C6_money_that_pays_no_statement_goes_to_suspense(house: House, what: str) -> None:
    crawler = Crawler()
    house.open(crawler)
    record = issued(house, crawler)
    amount = 3 * DOLLAR
    stray = paid(record, amount, transaction="0xbb")
    if what == "plain transfer":
        stray = came("0xbb", amount)
    elif what == "another amount":
        stray = paid(record, amount := DOLLAR, transaction="0xbb")
    else:
        assert report(house, paid(record, amount)) == (record.statement,)
    assert report(house, stray) == ()
    assert house.total("suspense") == amount
    assert look(house, record).state == ("settled" if what == "a second payment" else "issued")
    balanced(house, crawler)
    # An operator finds out whose it is; that can be said once.
    assert [each["amount"] for each in house.ask(Listing("suspense"))] == [amount]
    assign = AssignSuspense(CHAIN, "0xbb", 1, crawler.directory, house.rules, house.now)
    assert house.ask(assign) is True
    assert house.ask(assign) is False
    assert (house.total("suspense"), house.payer(crawler).prepaid) == (0, amount)
    assert house.ask(Listing("suspense")) == ()
    balanced(house, crawler)


def test_C1_C6_money_in_suspense_is_given_to_no_payer_of_another_currency(house: House) -> None:
    """A dollar would be a euro in its balance, and both currencies' books would be out by one."""
    crawler, other = Crawler(), Crawler("https://euro.example", b"\x0b" * 32)
    house.open(crawler)
    house.ask(RegisterPayer(other.directory, "EUR", DOLLAR, house.now))
    report(house, came("0xbb", DOLLAR))
    before = house.balances()
    assert house.ask(AssignSuspense(CHAIN, "0xbb", 1, other.directory, house.rules, house.now)) is False
    assert (house.balances(), house.payer(other).prepaid) == (before, 0)
    assert len(house.ask(Listing("suspense"))) == 1
    assert house.ask(AssignSuspense(CHAIN, "0xbb", 1, crawler.directory, house.rules, house.now)) is True
    balanced(house, crawler)


def test_C6_a_returned_payment_moves_the_statement_back_and_its_lines_stay(house: House) -> None:
    crawler = Crawler()
    house.open(crawler)
    record = issued(house, crawler)
    before = line_ids(house, record)
    accept(house, record)
    house.ask(InstructStatement(record.statement, house.rules, house.now))
    assert house.ask(ReturnStatement(record.statement, NOON + 1_000_000, house.rules, house.now)) is True
    assert house.ask(ReturnStatement(record.statement, NOON + 1_000_000, house.rules, house.now)) is False
    returned = look(house, record)
    assert (returned.state, returned.payment) == ("accepted", "")
    assert house.balances(pending=True) == {}
    assert (returned.jws, line_ids(house, record)) == (record.jws, before)
    # The dead payment is not handed on again; another one can be, under the same nonce.
    assert house.ask(InstructStatement(record.statement, house.rules, house.now)) is None
    accept(house, record)
    assert house.ask(InstructStatement(record.statement, house.rules, house.now)).attempts == 2
    assert report(house, paid(record, 3 * DOLLAR)) == (record.statement,)
    balanced(house, crawler)


def test_C6_disputed_lines_are_held_and_the_rest_settles(house: House) -> None:
    crawler = Crawler()
    house.open(crawler)
    record = issued(house, crawler)
    (line, *_) = line_ids(house, record)
    (opened,) = dispute(house, record, [line])
    assert (opened.state, opened.amount) == ("open", str(DOLLAR))
    assert dispute(house, record, [line]) == (opened,)
    assert look(house, record).payable == 2 * DOLLAR
    assert (house.total("held"), house.total("accrued")) == (DOLLAR, 2 * DOLLAR)
    # The whole amount is not what is asked for any more.
    assert report(house, paid(record, 3 * DOLLAR, transaction="0xcc")) == ()
    assert report(house, paid(record, 2 * DOLLAR)) == (record.statement,)
    assert (house.total("cleared"), house.total("held")) == (2 * DOLLAR, DOLLAR)
    balanced(house, crawler)


@pytest.mark.parametrize("paid_before", [False, True])
@pytest.mark.parametrize("granted", [False, True])
def test_C6_what_is_decided_goes_on_the_next_statement(house: House, granted: Any, paid_before: Any) -> None:
    crawler = Crawler()
    house.open(crawler)
    record = issued(house, crawler)
    (line, *_) = line_ids(house, record)
    if paid_before:
        report(house, paid(record, 3 * DOLLAR))
    (opened,) = dispute(house, record, [line])
    assert decide(house, opened, granted=granted).state == ("granted" if granted else "rejected")
    assert decide(house, opened, granted=not granted) is None
    if not paid_before:
        report(house, paid(record, 2 * DOLLAR))
    balanced(house, crawler)
    second = issued(house, crawler, 5, sequence=2)
    statement = open_statement(second.jws)[0]
    adjustment = {(False, False): DOLLAR, (False, True): 0, (True, False): 0, (True, True): -DOLLAR}[
        granted, paid_before
    ]
    assert (int(statement.adjustments), int(statement.net)) == (adjustment, 5 * DOLLAR + adjustment)
    assert statement.count == (5 if (granted, paid_before) == (False, True) else 6)
    assert -house.total("receivable") == second.net
    report(house, paid(second, second.net, transaction="0xdd"))
    # Whoever was right: what the payer paid is what the payee is owed.
    total = (8 - granted) * DOLLAR
    assert (house.total("cleared"), house.total("treasury")) == (total, -total)
    assert house.total("held") == house.total("accrued") == house.total("receivable") == 0
    balanced(house, crawler)


@pytest.mark.parametrize(("sent", "later", "state"), [("", "", "granted"), ("", "later", "open"), ("sent", "", "open")])
def test_C6_what_was_not_delivered_is_granted_where_the_edge_has_no_sent(
    house: House,
    sent: str,
    later: str,
    state: str,
) -> None:
    crawler = Crawler()
    house.open(crawler)
    record = issued(house, crawler, 1, sent=bool(sent))
    (line,) = line_ids(house, record)
    if later:
        house.upload(pack([Sent(crawler.directory, line)], sequence=9))
    (opened,) = dispute(house, record, [line], "not_delivered")
    assert opened.state == state
    balanced(house, crawler)


def test_C6_what_was_paid_out_is_not_granted_before_an_operator_looked(house: House) -> None:
    """Payer and payees may be one person: each round would pay it out twice, out of what is others'."""
    crawler = Crawler()
    house.open(crawler)
    house.ask(ProvePayee("news", "challenge", house.now))
    first = issued(house, crawler, sent=False)
    report(house, paid(first, 3 * DOLLAR))
    plan(house)
    # Not settled yet, and signed perhaps: as good as paid.
    line, *others = line_ids(house, first)
    opened = [*dispute(house, first, [line], "not_delivered")]
    (payout,) = house.ask(OpenPayouts(10))
    report(house, went("0xe1", payout))
    # Shares that come later, and were not paid out, make up for the one of the two.
    second = issued(house, crawler, 2, sequence=2)
    report(house, paid(second, 2 * DOLLAR, transaction="0xcc"))
    opened += dispute(house, first, others, "not_delivered")
    assert [each.state for each in opened] == ["open", "granted", "open"]
    assert (house.total("cleared"), house.total("held")) == (-DOLLAR, 2 * DOLLAR)
    assert plan(house) == ()
    balanced(house, crawler)


def test_C6_a_line_that_is_not_there_or_too_late_is_not_disputed(house: House) -> None:
    crawler = Crawler()
    house.open(crawler)
    record = issued(house, crawler)
    assert dispute(house, record, ["sha256:" + "0" * 64]).startswith("unknown_line")
    house.now = record.dispute_until + 1
    assert dispute(house, record, line_ids(house, record)) == "too_late"
    assert house.total("held") == 0


def test_C6_acceptance_is_for_the_disputes_that_the_payer_saw(house: House) -> None:
    crawler = Crawler()
    house.open(crawler)
    record = issued(house, crawler)
    dispute(house, record, line_ids(house, record)[:1])
    assert house.ask(AcceptStatement(record.statement, "{}", NOON, 0)) is False
    assert accept(house, record).payable == 2 * DOLLAR


def test_C6_a_balance_pays_a_statement_once_and_no_further_than_it_reaches(house: House) -> None:
    crawler = Crawler()
    house.open(crawler)
    first, second = issued(house, crawler), issued(house, crawler, sequence=2)
    report(house, came("0xbb", 5 * DOLLAR))
    house.ask(AssignSuspense(CHAIN, "0xbb", 1, crawler.directory, house.rules, house.now))
    assert house.ask(PayFromBalance(first.statement, house.rules, house.now)) is True
    assert house.ask(PayFromBalance(first.statement, house.rules, house.now)) is False
    assert house.ask(PayFromBalance(second.statement, house.rules, house.now)) is False
    assert (house.payer(crawler).prepaid, house.payer(crawler).owed) == (2 * DOLLAR, 3 * DOLLAR)
    assert house.total("cleared") == 3 * DOLLAR
    balanced(house, crawler)


def test_C6_a_statement_below_zero_goes_to_the_payers_balance(house: House) -> None:
    crawler = Crawler()
    house.open(crawler)
    record = issued(house, crawler)
    report(house, paid(record, 3 * DOLLAR))
    for each in dispute(house, record, line_ids(house, record)):
        decide(house, each, granted=True)
    house.run(flows.close(house.desk, force=True))
    second = house.ask(ListStatements())[-1]
    assert (second.net, second.state) == (-3 * DOLLAR, "settled")
    assert (house.payer(crawler).prepaid, house.payer(crawler).owed) == (3 * DOLLAR, 0)
    balanced(house, crawler)


@pytest.mark.parametrize("state", ["accepted", "instructed"])
def test_C6_nothing_is_paid_back_that_was_not_paid(house: House, state: str) -> None:
    """A payer signs a payment that it has no money for, and disputes: no balance comes of it, no share is held."""
    crawler, honest = Crawler(), Crawler("https://honest.example", b"\x0b" * 32)
    house.open(crawler, honest)
    ours = issued(house, honest)
    report(house, paid(ours, 3 * DOLLAR))
    record = accept(house, issued(house, crawler, sent=False, sequence=2))
    if state == "instructed":
        house.ask(InstructStatement(record.statement, house.rules, house.now))
    assert dispute(house, record, line_ids(house, record), "not_delivered") == "payment_under_way"
    assert (house.total("cleared"), house.total("held")) == (3 * DOLLAR, 0)
    if state == "accepted":
        house.ask(InstructStatement(record.statement, house.rules, house.now))
    # The payment can't settle any more: what is disputed now is not asked for, and nothing is given for it.
    house.ask(ReturnStatement(record.statement, record.payment_until, house.rules, house.now))
    assert len(dispute(house, record, line_ids(house, record)[:2], "not_delivered")) == 2
    assert look(house, record).payable == DOLLAR
    issued(house, crawler, 1, sequence=3)
    assert (house.payer(crawler).prepaid, house.payer(crawler).owed) == (0, 2 * DOLLAR)
    assert house.total("cleared") == 3 * DOLLAR
    assert sum(house.balances().values()) == 0


def test_C6_a_payment_is_returned_that_was_read_and_no_later_one(house: House) -> None:
    crawler = Crawler()
    house.open(crawler)
    record = accept(house, issued(house, crawler))
    house.ask(InstructStatement(record.statement, house.rules, house.now))
    assert house.ask(ReturnStatement(record.statement, record.payment_until, house.rules, house.now)) is True
    again = accept(house, record, record.payment_until + 1_000)
    house.ask(InstructStatement(record.statement, house.rules, house.now))
    # Another process saw the first payment's end, and comes late.
    assert house.ask(ReturnStatement(record.statement, record.payment_until, house.rules, house.now)) is False
    assert look(house, record).state == "instructed"
    assert look(house, record).payment_until == again.payment_until


@pytest.mark.parametrize("credit", [0, DOLLAR])
def test_C6_a_statement_that_is_disputed_whole_asks_for_nothing_and_is_settled(house: House, credit: int) -> None:
    crawler = Crawler()
    house.open(crawler)
    if credit:
        before = issued(house, crawler, 1)
        report(house, paid(before, DOLLAR))
        (opened,) = dispute(house, before, line_ids(house, before))
        decide(house, opened, granted=True)
    record = issued(house, crawler, sequence=2)
    lines = [each for each in line_ids(house, record) if each.startswith("sha256:")]
    opened = dispute(house, record, lines)
    assert len(opened) == 3
    assert (look(house, record).payable, look(house, record).state) == (-credit, "settled")
    assert (house.total("held"), house.payer(crawler).prepaid) == (3 * DOLLAR, credit)
    house.now = record.due_at + house.rules.grace_seconds + 1
    assert house.ask(SuspendOverdue(house.rules, house.now)) == ()
    balanced(house, crawler)
    # What is rejected is asked for by the next one.
    for each in opened:
        decide(house, each, granted=False)
    house.run(flows.close(house.desk, force=True))
    last = house.ask(ListStatements())[-1]
    assert (last.net, last.state) == (3 * DOLLAR, "issued")
    report(house, paid(last, 3 * DOLLAR, transaction="0xee"))
    assert (house.total("held"), house.total("accrued"), house.total("receivable")) == (0, 0, 0)
    assert house.total("cleared") == 3 * DOLLAR
    balanced(house, crawler)


@pytest.mark.parametrize("reason", ["not_authorized", "not_delivered"])
def test_C6_a_rejected_dispute_is_final_and_its_charge_is_paid(house: House, reason: str) -> None:
    """Else a payer disputes each adjustment anew: every statement settles at nothing, and its payees are never paid."""
    crawler = Crawler()
    house.open(crawler)
    record = issued(house, crawler, 1)
    (opened,) = dispute(house, record, line_ids(house, record), reason)
    decide(house, opened, granted=False)
    second = issued(house, crawler, 1, sequence=2)
    adjustment, line = line_ids(house, second)
    assert adjustment == f"adjustment:{opened.dispute}"
    # Nothing of such a request is held; the other line can be disputed by itself.
    assert dispute(house, second, [line, adjustment], reason) == f"already_decided {adjustment}"
    assert (look(house, second).payable, look(house, second).state) == (2 * DOLLAR, "issued")
    assert dispute(house, second, [line], "duplicate")[0].state == "open"
    assert look(house, second).payable == DOLLAR
    balanced(house, crawler)
    house.now = second.due_at + house.rules.grace_seconds + 1
    assert house.ask(SuspendOverdue(house.rules, house.now)) == (crawler.directory,)
    report(house, paid(second, DOLLAR, transaction="0xbb"))
    assert (house.total("cleared"), house.total("held")) == (DOLLAR, DOLLAR)
    balanced(house, crawler)


def test_movements_that_share_a_transaction_are_listed_one_by_one(house: House) -> None:
    house.open(Crawler())
    report(house, *(came("0xbb", DOLLAR, log_index=number) for number in range(5)))
    seen: list[str] = []
    after = ""
    while page := house.ask(Listing("movements", after, 2)):
        seen += [each["movement"] for each in page]
        after = seen[-1]
    assert seen == [f"0xbb:{number}" for number in range(5)]
