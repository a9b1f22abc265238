"""C1: the books balance and only grow."""

# ruff: noqa: S608 - the tables are named by the test

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from money import accept, balanced, cleared, decide, dispute, issued, line_ids, paid, report, went
from town import DOLLAR, Crawler, House, pack

from farthing.clearing import flows
from farthing.clearing.settlement import (
    InstructStatement,
    OpenPayouts,
    PlanPayouts,
    ReturnStatement,
)
from farthing.clearing.store import ListStatements, ProvePayee
from farthing.protocol.clearing import Sent
from farthing.protocol.statements import Dispute

APPEND_ONLY = ["uploads", "checks", "lines", "keys", "transfers", "shares", "runs", "movements", "rejections", "sent"]


@pytest.mark.parametrize("table", APPEND_ONLY)
def test_C1_the_database_refuses_to_change_what_was_booked(house: House, table: str) -> None:
    crawler = Crawler()
    house.open(crawler)
    forged = msgspec.structs.replace(crawler.commit("/f"), signature=crawler.commit("/g").signature)
    house.upload(pack([crawler.record, forged, Sent(crawler.directory, forged.id)], sequence=8))
    cleared(house, crawler)
    columns = house.store.database.fetch(f"SELECT * FROM clearing_{table} LIMIT 1")
    assert columns, "the test has a row to change"
    name = {"lines": "amount", "transfers": "amount", "shares": "amount", "movements": "amount"}.get(table)
    name = name or {"uploads": "accepted", "checks": "failed", "keys": "edge", "runs": "run"}.get(table, "payer")
    for sql in (f"UPDATE clearing_{table} SET {name} = {name}", f"DELETE FROM clearing_{table}"):
        with pytest.raises(Exception, match="append-only") as caught:
            house.store.database.submit(lambda at, sql=sql: at.execute(sql).rowcount).result()
        assert not isinstance(caught.value, AssertionError)
    assert house.store.database.fetch(f"SELECT * FROM clearing_{table} LIMIT 1") == columns


def test_C1_a_promise_is_resolved_once_and_a_name_books_once(house: House) -> None:
    crawler = Crawler()
    house.open(crawler)
    record = accept(house, issued(house, crawler))
    house.ask(InstructStatement(record.statement, house.rules, house.now))
    report(house, paid(record, 3 * DOLLAR))
    copy = (
        "INSERT INTO clearing_transfers SELECT transfer || ?, kind, pending, debit, credit, amount, about, reverses, "
        "booked_at FROM clearing_transfers WHERE kind = ?"
    )
    for suffix, kind in (("!", "post"), ("", "posted")):
        with pytest.raises(Exception, match=r"(?i)unique"):
            house.store.database.submit(lambda at, row=(suffix, kind): at.execute(copy, row).rowcount).result()


STEPS = st.lists(
    st.sampled_from(["upload", "close", "dispute", "grant", "reject", "pay", "accept", "return", "plan", "paid out"]),
    min_size=1,
    max_size=14,
)


@settings(max_examples=40, deadline=None)
@given(STEPS)
def test_C1_debits_equal_credits_whatever_happens_in_whatever_order(tmp_path_factory: Any, steps: list[str]) -> None:
    house, crawler = House(tmp_path_factory.mktemp("books") / "clearing.sqlite3"), Crawler()
    try:
        house.open(crawler)
        house.ask(ProvePayee("news", "challenge", house.now))
        opened: list[Dispute] = []
        for number, step in enumerate(steps, 1):
            _do(house, crawler, step, number, opened)
            balanced(house, crawler)
            assert sum(house.balances(pending=True).values()) == 0
    finally:
        house.close()


def _do(house: House, crawler: Crawler, step: str, number: int, opened: list[Dispute]) -> None:  # noqa: C901 - steps
    records = house.ask(ListStatements())
    last = records[-1] if records else None
    if step == "upload":
        house.upload(pack([crawler.record, crawler.commit(f"/{number}", amount=1 + number)], sequence=number))
    elif step == "close":
        house.run(flows.close(house.desk, force=True))
    elif step in {"grant", "reject"} and opened:
        decide(house, opened.pop(), granted=step == "grant")
    elif step == "plan":
        house.ask(PlanPayouts("USD", house.rules, house.now))
    elif step == "paid out":
        for each in house.ask(OpenPayouts(9)):
            report(house, went(f"0x{number}", each))
    elif last is None:
        return
    elif step == "dispute":
        found = dispute(house, last, [each for each in line_ids(house, last) if each.startswith("sha256")][:1] or ["-"])
        opened.extend(
            each for each in found if isinstance(each, Dispute) and each.state == "open" and each not in opened
        )
    elif step == "pay" and last.payable > 0:
        report(house, paid(last, last.payable, transaction=f"0x{number}"))
    elif step == "accept" and last.state in {"issued", "accepted"}:
        accept(house, last)
        house.ask(InstructStatement(last.statement, house.rules, house.now))
    elif step == "return":
        house.ask(ReturnStatement(last.statement, last.payment_until, house.rules, house.now))
