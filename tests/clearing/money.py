"""What the tests of the money say: close, dispute, decide, report, pay."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from town import DOLLAR, NOON, Crawler, House, leaves, pack

from farthing.clearing import flows
from farthing.clearing.settlement import (
    AcceptStatement,
    DecideDispute,
    Movement,
    PayoutRecord,
    PlanPayouts,
    RecordMovements,
)
from farthing.clearing.store import FindStatement, ListStatements, StatementRecord
from farthing.protocol.statements import Dispute, DisputedLine

CHAIN = "eip155:84532"


def issued(house: House, crawler: Crawler, count: int = 3, *, sequence: int = 1, **line: Any) -> StatementRecord:
    """Close a window with some lines of a dollar each."""
    lines = [crawler.commit(f"/{sequence}/{number}", amount=DOLLAR, **line) for number in range(count)]
    house.upload(pack([crawler.record, *lines], sequence=sequence))
    house.run(flows.close(house.desk, force=True))
    records: tuple[StatementRecord, ...] = house.ask(ListStatements())
    return records[-1]


def line_ids(house: House, record: StatementRecord) -> list[str]:
    return [json.loads(each)["id"] for each in leaves(house, record.statement)]


def dispute(house: House, record: StatementRecord, lines: Iterable[str], reason: str = "not_authorized") -> Any:
    return house.run(flows.dispute(house.desk, record, tuple(DisputedLine(each, reason) for each in lines)))


def decide(house: House, dispute: Dispute, *, granted: bool) -> Any:
    return house.ask(DecideDispute(dispute.dispute, granted=granted, note="", rules=house.rules, now_seconds=house.now))


def report(house: House, *movements: Movement, next_block: int = 100) -> Any:
    return house.ask(RecordMovements(CHAIN, "USD", movements, next_block, house.rules, house.now))


def paid(record: StatementRecord, amount: int, *, transaction: str = "0xaa", log_index: int = 1) -> Movement:
    return came(transaction, amount, record.reference, log_index=log_index)


def came(transaction: str, amount: int, reference: str = "", *, log_index: int = 1) -> Movement:
    return Movement(
        CHAIN, transaction, log_index, 50, incoming=True, counterparty="0xP", amount=amount, reference=reference
    )


def went(transaction: str, payout: PayoutRecord, amount: int | None = None) -> Movement:
    amount = payout.amount if amount is None else amount
    place = (CHAIN, transaction, 1, 60)
    return Movement(*place, incoming=False, counterparty=payout.address, amount=amount, reference=payout.reference)


def look(house: House, record: StatementRecord) -> StatementRecord:
    found = house.ask(FindStatement(record.statement))
    assert isinstance(found, StatementRecord)
    return found


def accept(house: House, record: StatementRecord, until: int = NOON + 1_000_000) -> StatementRecord:
    assert house.ask(AcceptStatement(record.statement, '{"payment":1}', until, look(house, record).disputed))
    return look(house, record)


def balanced(house: House, crawler: Crawler) -> None:
    """C1: all accounts together are nothing, and what rows say beside the books is what the books say."""
    balances = house.balances()
    assert sum(balances.values()) == 0
    assert house.payer(crawler).owed == -house.total("receivable")


def cleared(house: House, crawler: Crawler) -> StatementRecord:
    record = issued(house, crawler)
    report(house, paid(record, 3 * DOLLAR))
    return record


def plan(house: House) -> Any:
    return house.ask(PlanPayouts("USD", house.rules, house.now))
