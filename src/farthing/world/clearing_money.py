"""Disputes, payments and payouts in the clearing house's store.

C6: only what a rail reports marks a statement settled; each movement that it reports is booked once, whoever reads it.
"""

# ruff: noqa: S608 - what is put into statements are names of states, from a table in code, and marks

from __future__ import annotations

import hashlib
from typing import Any, Final

from farthing.clearing.books import Booking, Books, resolve
from farthing.clearing.rules import Rules, owner_of, payer_key
from farthing.clearing.settlement import (
    AcceptStatement,
    AssignSuspense,
    DecideDispute,
    InstructStatement,
    ListDisputes,
    Movement,
    OpenDisputes,
    OpenPayouts,
    PayFromBalance,
    PayoutRecord,
    PlanPayouts,
    RecordMovements,
    ReturnStatement,
    StoreSignedPayout,
    SuspendOverdue,
)
from farthing.clearing.states import (
    ACCEPTED,
    GRANTED,
    INSTRUCTED,
    ISSUED,
    OPEN,
    PAYOUT,
    PLANNED,
    REJECTED,
    SETTLED,
    STATEMENT,
    SUSPENDED,
)
from farthing.clearing.store import FindStatement, StatementRecord
from farthing.evm.references import payout_reference
from farthing.protocol.statements import NOT_DELIVERED, Dispute
from farthing.world.clearing_booking import balance, book, in_suspense
from farthing.world.clearing_intake import open_window_number
from farthing.world.clearing_reserve import covers_of, may_spend
from farthing.world.clearing_statements import find_statement, settle_statement
from farthing.world.connection import Connection

# Of a line's hash, in a dispute's name: 96 bits keep a statement's lines apart.
_DISPUTE_DIGITS: Final = 24
_SOURCES = {
    name: ", ".join(f"'{each}'" for each in STATEMENT.move(name).sources) for name in ("accept", "instruct", "return")
}
_SELECT_DISPUTE: Final = """
SELECT d.dispute, d.statement, d.line, p.name, d.reason, d.amount, d.state, d.opened_at, d.note
FROM clearing_disputes d JOIN clearing_payees p ON p.payee = d.payee
"""
_INSERT_DISPUTE: Final = """
INSERT INTO clearing_disputes (dispute, statement, payer, payee, line, resource, line_time, amount, reason, evidence,
    state, was_paid, opened_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING
"""
# Of a statement that is not paid yet: what is disputed is not asked for.
_HOLD: Final = f"UPDATE clearing_statements SET disputed = disputed + ? WHERE statement = ? AND state <> '{SETTLED}'"
_LOCK_STATEMENT: Final = "UPDATE clearing_statements SET state = state WHERE statement = ?"
_WAS_SENT: Final = """
SELECT 1 FROM clearing_lines l WHERE l.payer = ? AND l.commitment = ? AND (l.flags % 2 = 1 OR EXISTS (
    SELECT 1 FROM clearing_sent s WHERE s.payer = l.payer AND s.commitment = l.commitment))
"""
_UNDER_WAY: Final = f"SELECT COALESCE(SUM(amount), 0) FROM clearing_payouts WHERE payee = ? AND state <> '{SETTLED}'"
_DECIDE: Final = f"""
UPDATE clearing_disputes SET state = ?, decided_at = ?, note = ?,
    -- A charge that stands and was paid changes nothing.
    adjusted_in = CASE WHEN was_paid = 1 AND ? = 0 THEN NULL ELSE ? END
WHERE dispute = ? AND state = '{OPEN}'
RETURNING statement, payer, payee, amount, was_paid
"""
_ACCEPT: Final = f"""
UPDATE clearing_statements SET state = '{ACCEPTED}', payment = ?, payment_until = ?
WHERE statement = ? AND state IN ({_SOURCES["accept"]}) AND disputed = ?
"""
_INSTRUCT: Final = f"""
UPDATE clearing_statements SET state = '{INSTRUCTED}', attempts = attempts + 1
WHERE statement = ? AND state IN ({_SOURCES["instruct"]}) AND payment <> ''
"""
_RETURN: Final = f"""
UPDATE clearing_statements SET state = '{ACCEPTED}', payment = '', payment_until = 0
WHERE statement = ? AND state IN ({_SOURCES["return"]}) AND payment_until = ?
"""
_TAKE_BALANCE: Final = "UPDATE clearing_payers SET prepaid = prepaid WHERE payer = ? AND prepaid >= ?"
_INSERT_MOVEMENT: Final = """
INSERT INTO clearing_movements (network, transaction_hash, log_index, block_number, direction, counterparty, amount,
    reference, matched, seen_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING
"""
_STATEMENT_OF: Final = f"SELECT statement FROM clearing_statements WHERE reference = ? AND state <> '{SETTLED}'"
_PAYOUT_OF: Final = f"SELECT payout, payee, amount FROM clearing_payouts WHERE reference = ? AND state <> '{SETTLED}'"
_SETTLE_PAYOUT: Final = f"""
UPDATE clearing_payouts SET state = '{PAYOUT.move("settle").target}', settled_at = ?, transaction_hash = ?
WHERE payout = ? AND state <> '{SETTLED}'
"""
_SCANNED: Final = """
INSERT INTO clearing_scans (network, next_block) VALUES (?, ?)
ON CONFLICT (network) DO UPDATE SET next_block = excluded.next_block
WHERE clearing_scans.next_block < excluded.next_block
"""
_CREDITED: Final = "SELECT credit FROM clearing_transfers WHERE transfer = ?"
_PAYABLE_PAYEES: Final = f"""
SELECT payee, name, address, (SELECT COUNT(*) FROM clearing_payouts o WHERE o.payee = p.payee)
FROM clearing_payees p WHERE currency = ? AND proved_at IS NOT NULL AND address <> ''
    AND NOT EXISTS (SELECT 1 FROM clearing_payouts o WHERE o.payee = p.payee AND o.state <> '{SETTLED}')
ORDER BY payee
"""
_INSERT_PAYOUT: Final = f"""
INSERT INTO clearing_payouts (payout, payee, currency, amount, address, reference, state, planned_at)
VALUES (?, ?, ?, ?, ?, ?, '{PLANNED}', ?) ON CONFLICT DO NOTHING
"""
_OPEN_PAYOUTS: Final = f"""
SELECT o.payout, o.payee, p.name, o.currency, o.amount, o.address, o.reference, o.state, o.payment, o.valid_until,
    o.transaction_hash
FROM clearing_payouts o JOIN clearing_payees p ON p.payee = o.payee WHERE o.state <> '{SETTLED}'
ORDER BY o.planned_at, o.payout LIMIT ?
"""
_SIGN_PAYOUT: Final = f"""
UPDATE clearing_payouts SET state = '{PAYOUT.move("sign").target}', payment = ?, valid_until = ?
WHERE payout = ? AND state <> '{SETTLED}' AND valid_until < ?
"""
_SUSPEND: Final = f"""
UPDATE clearing_payers SET state = '{SUSPENDED}', why = 'overdue: a statement is unpaid'
WHERE state = 'active' AND EXISTS (SELECT 1 FROM clearing_statements s
    WHERE s.payer = clearing_payers.payer AND s.state <> '{SETTLED}' AND s.due_at < ?)
RETURNING directory
"""


def _read_dispute(row: tuple[Any, ...]) -> Dispute:
    dispute, statement, line, payee, reason, amount, state, opened_at, note = row
    return Dispute(dispute, statement, line, payee, reason, str(amount), state, opened_at, note)


def _find_dispute(at: Connection, dispute: str) -> Dispute | None:
    row = at.execute(f"{_SELECT_DISPUTE} WHERE d.dispute = ?", (dispute,)).fetchone()
    return None if row is None else _read_dispute(row)


def list_disputes(at: Connection, effect: ListDisputes) -> tuple[Dispute, ...]:
    """Perform `ListDisputes`."""
    where, parameters = "d.dispute > ?", [effect.after]
    for column, value in (("d.statement", effect.statement), ("d.state", effect.state)):
        if value:
            where += f" AND {column} = ?"
            parameters.append(value)
    query = f"{_SELECT_DISPUTE} WHERE {where} ORDER BY d.dispute LIMIT ?"
    return tuple(map(_read_dispute, at.execute(query, (*parameters, effect.count_max)).fetchall()))


def open_disputes(at: Connection, effect: OpenDisputes) -> tuple[Dispute, ...] | str:
    """Perform `OpenDisputes`: each line once; what the edge never sent is granted at once (PROTOCOL).

    But for what its payee was paid out: payer and payee may be one person, and the house would pay the two of them.
    Not while a payment is under way, whose sum is fixed: only what was paid may be paid back (C6).
    """
    at.execute(_LOCK_STATEMENT, (effect.statement,))
    record = find_statement(at, FindStatement(effect.statement))
    if record is None:
        return "not_found"
    # By another process's clock it was over, and the reserve has paid for what can't be disputed any more.
    if effect.now_seconds > record.dispute_until or covers_of(at, effect.statement):
        return "too_late"
    was_paid = record.state == SETTLED
    if record.payment and not was_paid:
        return "payment_under_way"
    books = Books(effect.rules.network, record.currency)
    opened: list[Dispute] = []
    spare: dict[int, int] = {}
    for asked, line in effect.lines:
        dispute = f"{effect.statement}.{hashlib.sha256(asked.id.encode()).hexdigest()[:_DISPUTE_DIGITS]}"
        amount = int(line["charged"])
        payee = _payee_of(at, line["payee"])
        row = (dispute, effect.statement, record.payer, payee, asked.id, line["resource"], line["time"], amount)
        what = (asked.reason, asked.evidence, OPEN, int(was_paid), effect.now_seconds)
        if amount > 0 and at.execute(_INSERT_DISPUTE, (*row, *what)).rowcount == 1:
            if not was_paid:
                at.execute(_HOLD, (amount, effect.statement))
            # Paid out is paid out: where a payee would be below zero for it, an operator decides.
            spare[payee] = _spare(at, books, payee, spare.get(payee)) - amount if was_paid else 0
            book(at, [books.hold(dispute, payee, amount, was_paid=was_paid)], effect.now_seconds)
            unsent = asked.reason == NOT_DELIVERED and not _was_sent(at, record.payer, asked.id)
            if unsent and spare[payee] >= 0:
                granted = DecideDispute(
                    dispute, granted=True, note="never sent", rules=effect.rules, now_seconds=effect.now_seconds
                )
                decide_dispute(at, granted)
        found = _find_dispute(at, dispute)
        if found is not None:
            opened.append(found)
    if not was_paid:
        _settle_if_nothing_is_left(at, effect, books)
    return tuple(opened)


def _settle_if_nothing_is_left(at: Connection, effect: OpenDisputes, books: Books) -> None:
    """Settle a statement of which all is disputed: no rail moves nothing, and nobody is overdue with it."""
    record = find_statement(at, FindStatement(effect.statement))
    if record is None or record.payable > 0:
        return
    if record.payable < 0:
        note = books.credit_note(record.statement, record.payer, -record.payable)
        book(at, [note], effect.now_seconds)
    settle_statement(at, record.statement, books, "", effect.now_seconds)


def _spare(at: Connection, books: Books, payee: int, known: int | None) -> int:
    """Sum what a payee gets and no payout has been decided for; `known` is what is left of it, once summed."""
    if known is not None:
        return known
    return balance(at, books.cleared(payee)) - int(at.execute(_UNDER_WAY, (payee,)).fetchone()[0])


def _payee_of(at: Connection, name: str) -> int:
    return int(at.execute("SELECT payee FROM clearing_payees WHERE name = ?", (name,)).fetchone()[0])


def _was_sent(at: Connection, payer: int, line: str) -> bool:
    if not line.startswith("sha256:"):
        return True
    return at.execute(_WAS_SENT, (payer, bytes.fromhex(line[7:]))).fetchone() is not None


def decide_dispute(at: Connection, effect: DecideDispute) -> Dispute | None:
    """Perform `DecideDispute`. It is an adjustment on the statement of the window that is open now."""
    window = open_window_number(at)
    state = GRANTED if effect.granted else REJECTED
    decided = (state, effect.now_seconds, effect.note, int(effect.granted), window, effect.dispute)
    row = at.execute(_DECIDE, decided).fetchone()
    if row is None:
        return None
    _, payer, payee, amount, was_paid = row
    (currency,) = at.execute("SELECT currency FROM clearing_payers WHERE payer = ?", (payer,)).fetchone()
    books = Books(effect.rules.network, currency)
    if effect.granted:
        booking = books.grant(effect.dispute, payer, payee, amount)
    else:
        booking = books.release(effect.dispute, payee, amount, was_paid=bool(was_paid))
    book(at, [booking], effect.now_seconds)
    return _find_dispute(at, effect.dispute)


# Payments


def accept_statement(at: Connection, effect: AcceptStatement) -> bool:
    """Perform `AcceptStatement`."""
    row = (effect.payment, effect.payment_until, effect.statement, effect.disputed)
    return at.execute(_ACCEPT, row).rowcount == 1


def _promise(record: StatementRecord, rules: Rules) -> Booking:
    books = Books(rules.network, record.currency)
    return books.instruct(record.statement, record.payer, record.payable, record.attempts)


def instruct_statement(at: Connection, effect: InstructStatement) -> StatementRecord | None:
    """Perform `InstructStatement`."""
    if at.execute(_INSTRUCT, (effect.statement,)).rowcount != 1:
        return None
    record = find_statement(at, FindStatement(effect.statement))
    if record is not None:
        book(at, [_promise(record, effect.rules)], effect.now_seconds)
    return record


def return_statement(at: Connection, effect: ReturnStatement) -> bool:
    """Perform `ReturnStatement`."""
    if at.execute(_RETURN, (effect.statement, effect.payment_until)).rowcount != 1:
        return False
    record = find_statement(at, FindStatement(effect.statement))
    if record is not None:
        book(at, [resolve(_promise(record, effect.rules), settled=False)], effect.now_seconds)
    return True


def pay_from_balance(at: Connection, effect: PayFromBalance) -> bool:
    """Perform `PayFromBalance`: the balance is the rail, and this its report."""
    at.execute(_LOCK_STATEMENT, (effect.statement,))
    record = find_statement(at, FindStatement(effect.statement))
    if record is None or record.state not in {ISSUED, ACCEPTED} or record.payable <= 0:
        return False
    if at.execute(_TAKE_BALANCE, (record.payer, record.payable)).rowcount != 1:
        return False
    if not may_spend(at, record.payer, record.statement, record.payable):
        return False
    books = Books(effect.rules.network, record.currency)
    book(at, [books.spend_prepaid(record.statement, record.payer, record.payable)], effect.now_seconds)
    return settle_statement(at, record.statement, books, "prepaid", effect.now_seconds)


def record_movements(at: Connection, effect: RecordMovements) -> tuple[str, ...]:
    """Perform `RecordMovements`."""
    settled: list[str] = []
    for movement in effect.movements:
        matched = _match(at, movement)
        row = (movement.network, movement.transaction, movement.log_index, movement.block_number)
        about = ("in" if movement.incoming else "out", movement.counterparty, movement.amount, movement.reference)
        if at.execute(_INSERT_MOVEMENT, (*row, *about, matched, effect.now_seconds)).rowcount != 1:
            continue
        books = Books(effect.rules.network, effect.currency)
        if not matched:
            name = f"{movement.network}:{movement.transaction}:{movement.log_index}"
            book(at, [books.suspend(name, movement.amount, incoming=movement.incoming)], effect.now_seconds)
        elif movement.incoming:
            _receive(at, matched, movement, effect)
            settled.append(matched)
        else:
            _paid_out(at, matched, movement, effect)
            settled.append(matched)
    at.execute(_SCANNED, (effect.network, effect.next_block))
    return tuple(settled)


def _match(at: Connection, movement: Movement) -> str:
    """Find what a movement settles, by its nonce alone; empty where that is nothing, or not for this amount."""
    if not movement.reference:
        return ""
    if movement.incoming:
        row = at.execute(_STATEMENT_OF, (movement.reference,)).fetchone()
        if row is not None:
            at.execute(_LOCK_STATEMENT, row)
        record = None if row is None else find_statement(at, FindStatement(row[0]))
        return "" if record is None or record.payable != movement.amount else record.statement
    row = at.execute(_PAYOUT_OF, (movement.reference,)).fetchone()
    return "" if row is None or row[2] != movement.amount else str(row[0])


def _receive(at: Connection, statement: str, movement: Movement, effect: RecordMovements) -> None:
    record = find_statement(at, FindStatement(statement))
    if record is None:  # pragma: no cover - it was matched a statement ago
        return
    books = Books(effect.rules.network, record.currency)
    if record.state == INSTRUCTED:
        booking = resolve(_promise(record, effect.rules), settled=True)
    else:
        booking = books.receive(statement, record.payer, movement.amount)
    book(at, [booking], effect.now_seconds)
    settle_statement(at, statement, books, movement.transaction, effect.now_seconds)


def _paid_out(at: Connection, payout: str, movement: Movement, effect: RecordMovements) -> None:
    _, payee, amount = at.execute(_PAYOUT_OF, (movement.reference,)).fetchone()
    if at.execute(_SETTLE_PAYOUT, (effect.now_seconds, movement.transaction, payout)).rowcount == 1:
        promise = Books(effect.rules.network, effect.currency).pay_out(payout, payee, amount)
        book(at, [resolve(promise, settled=True)], effect.now_seconds)


def assign_suspense(at: Connection, effect: AssignSuspense) -> bool:
    """Perform `AssignSuspense`; a second one fails by the name of its booking.

    Money of one currency is given to no account of another: it is in suspense where it was booked.
    """
    place = (effect.network, effect.transaction, effect.log_index)
    amount = in_suspense(at, place)
    payer = payer_key(effect.directory)
    account = at.execute("SELECT currency FROM clearing_payers WHERE payer = ?", (payer,)).fetchone()
    name = ":".join(map(str, place))
    taken = at.execute("SELECT 1 FROM clearing_transfers WHERE transfer = ?", (f"assign:{name}",)).fetchone()
    if amount is None or account is None or taken is not None:
        return False
    books = Books(effect.rules.network, account[0])
    booking = books.suspend(name, amount, incoming=True)
    came_in = at.execute(_CREDITED, (booking.transfer.transfer_id,)).fetchone()
    if came_in is None or came_in[0] != books.suspense.name:
        return False
    book(at, [books.assign(name, payer, amount)], effect.now_seconds)
    return True


# Payouts


def plan_payouts(at: Connection, effect: PlanPayouts) -> tuple[str, ...]:
    """Perform `PlanPayouts`: the unique indexes see to it that two processes plan one."""
    books = Books(effect.rules.network, effect.currency)
    planned: list[str] = []
    for payee, _, address, count in at.execute(_PAYABLE_PAYEES, (effect.currency,)).fetchall():
        amount = balance(at, books.cleared(payee))
        if amount < effect.rules.payout_min:
            continue
        payout = f"po-{int(count) + 1:06d}-{owner_of(payee)}"
        reference = payout_reference(effect.rules.network, payout)
        row = (payout, payee, effect.currency, amount, address, reference, effect.now_seconds)
        if at.execute(_INSERT_PAYOUT, row).rowcount == 1:
            book(at, [books.pay_out(payout, payee, amount)], effect.now_seconds)
            planned.append(payout)
    return tuple(planned)


def open_payouts(at: Connection, effect: OpenPayouts) -> tuple[PayoutRecord, ...]:
    """Perform `OpenPayouts`."""
    return tuple(PayoutRecord(*row) for row in at.execute(_OPEN_PAYOUTS, (effect.count_max,)).fetchall())


def store_signed_payout(at: Connection, effect: StoreSignedPayout) -> bool:
    """Perform `StoreSignedPayout`: a later authorisation replaces an earlier one, never the other way."""
    row = (effect.payment, effect.valid_until, effect.payout, effect.valid_until)
    return at.execute(_SIGN_PAYOUT, row).rowcount == 1


def suspend_overdue(at: Connection, effect: SuspendOverdue) -> tuple[str, ...]:
    """Perform `SuspendOverdue`."""
    before = effect.now_seconds - effect.rules.grace_seconds
    return tuple(row[0] for row in at.execute(_SUSPEND, (before,)).fetchall())
