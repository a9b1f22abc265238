"""The auditor's SQL in the journal, named, and its operations: each a function of a connection (`journal_rows`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from farthing.buyer.audit_records import (
    AuditedStatement,
    BilledPromise,
    BillLines,
    FindAudited,
    House,
    LineDispute,
    MarkDisputesSent,
    MarkSettled,
    MayLeave,
    NewestAudited,
    OverLimit,
    PinHouse,
    RaisedDispute,
    RecordAudit,
    RecordStatementPayment,
    ReserveStatement,
    TakeAdjustment,
    UnsentDisputes,
)
from farthing.buyer.journal import Stopped
from farthing.flow import Effect
from farthing.world.connection import Connection, Database
from farthing.world.journal_rows import COLUMNS, read_promise, read_purchase

_PIN: Final = """
INSERT INTO pinned_houses (network, key_id, treasury, rail_network, asset, pinned_at) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (network) DO NOTHING
"""
_HOUSE: Final = "SELECT network, key_id, treasury, rail_network, asset FROM pinned_houses WHERE network = ?"
_BILL: Final = "UPDATE purchases SET billed_in = ? WHERE payment_id = ? AND promise <> '' AND billed_in = ''"
_BILLED: Final = f"""
SELECT {COLUMNS}, promise, receipt, billed_in FROM purchases WHERE payment_id = ? AND promise <> ''
"""  # noqa: S608 - constants of this module
_ADJUST: Final = """
UPDATE audited_disputes SET adjusted_in = ? WHERE network = ? AND dispute = ? AND adjusted_in = ''
"""
_DISPUTE: Final = """
SELECT statement, line, reason, amount, adjusted_in FROM audited_disputes WHERE network = ? AND dispute = ?
"""
_STATEMENT_COLUMNS: Final = """
network, statement, payer, digest, closed_at, owed, disputes_sent, state, account, amount, payment, valid_before,
transaction_hash
"""
_FIND: Final = f"""
SELECT {_STATEMENT_COLUMNS} FROM audited_statements WHERE network = ? AND statement = ?
"""  # noqa: S608 - constants of this module
_NEWEST: Final = f"""
SELECT {_STATEMENT_COLUMNS} FROM audited_statements WHERE network = ? AND payer = ? AND closed_at < ?
ORDER BY closed_at DESC, statement DESC LIMIT 1
"""  # noqa: S608 - likewise
_INSERT: Final = f"""
INSERT INTO audited_statements ({_STATEMENT_COLUMNS}, audited_at, signed_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, '', '0', '', 0, '', ?, 0)
ON CONFLICT (network, statement) DO UPDATE
SET owed = excluded.owed, disputes_sent = excluded.disputes_sent, state = excluded.state
WHERE audited_statements.state = 'refused' AND audited_statements.digest = excluded.digest
"""  # noqa: S608 - likewise
_INSERT_DISPUTE: Final = """
INSERT INTO audited_disputes (network, dispute, statement, line, reason, amount, evidence, adjusted_in)
VALUES (?, ?, ?, ?, ?, ?, ?, '') ON CONFLICT (network, dispute) DO NOTHING
"""
_DISPUTES: Final = """
SELECT line, reason, amount, evidence FROM audited_disputes WHERE network = ? AND statement = ? ORDER BY line
"""
_SENT: Final = "UPDATE audited_statements SET disputes_sent = 1 WHERE network = ? AND statement = ?"
# A statement that was signed stays in the window in which it was signed; each is counted once.
_TAKEN: Final = """
SELECT amount FROM audited_statements
WHERE signed_at > ? AND state IN ('reserved', 'signed', 'settled') AND NOT (network = ? AND statement = ?)
"""
_RESERVE: Final = """
UPDATE audited_statements
SET state = CASE WHEN payment = '' THEN 'reserved' ELSE state END, account = ?, signed_at = ?,
    amount = CASE WHEN payment = '' THEN ? ELSE amount END
WHERE network = ? AND statement = ? AND state IN ('audited', 'reserved', 'signed') AND (payment = '' OR account = ?)
"""
# The account is that of the first payment for ever: with another one the nonce would be another right.
_RECORD: Final = """
UPDATE audited_statements SET state = 'signed', amount = ?, payment = ?, valid_before = ?, signed_at = ?
WHERE network = ? AND statement = ? AND account = ? AND valid_before = ? AND state IN ('reserved', 'signed')
"""
_SETTLE: Final = """
UPDATE audited_statements SET state = 'settled', transaction_hash = ?
WHERE network = ? AND statement = ? AND state <> 'settled'
"""
# For people: a page.
_LIST: Final = f"""
SELECT {_STATEMENT_COLUMNS} FROM audited_statements ORDER BY closed_at, network, statement LIMIT ?
"""  # noqa: S608 - constants of this module


def pin_house(connection: Connection, effect: PinHouse) -> House:
    """Perform `PinHouse`."""
    house = effect.house
    row = (house.network, house.key_id, house.treasury, house.rail_network, house.asset, effect.now_seconds)
    connection.execute(_PIN, row)
    return House(*connection.execute(_HOUSE, (house.network,)).fetchone())


def bill_lines(connection: Connection, effect: BillLines) -> tuple[BilledPromise | None, ...]:
    """Perform `BillLines`."""
    connection.executemany(_BILL, [(effect.statement, each) for each in effect.payment_ids])
    return tuple(_read_billed(connection.execute(_BILLED, (each,)).fetchone()) for each in effect.payment_ids)


def _read_billed(row: tuple[Any, ...] | None) -> BilledPromise | None:
    if row is None:
        return None
    *columns, promise, receipt, billed_in = row
    signed = read_promise(promise)
    if signed is None:
        return None
    evidence = signed.evidence
    purchase = read_purchase(tuple(columns))
    return BilledPromise(purchase, signed.promise_id, evidence.base, evidence.signature, bool(receipt), billed_in)


def take_adjustment(connection: Connection, effect: TakeAdjustment) -> RaisedDispute | None:
    """Perform `TakeAdjustment`."""
    connection.execute(_ADJUST, (effect.statement, effect.network, effect.dispute))
    row = connection.execute(_DISPUTE, (effect.network, effect.dispute)).fetchone()
    if row is None:
        return None
    statement, line, reason, amount, adjusted_in = row
    return RaisedDispute(statement, line, reason, int(amount), adjusted_in)


def find_audited(connection: Connection, effect: FindAudited) -> AuditedStatement | None:
    """Perform `FindAudited`."""
    return _read(connection.execute(_FIND, (effect.network, effect.statement)).fetchone())


def newest_audited(connection: Connection, effect: NewestAudited) -> AuditedStatement | None:
    """Perform `NewestAudited`."""
    return _read(connection.execute(_NEWEST, (effect.network, effect.payer, effect.closed)).fetchone())


def list_audited(connection: Connection, count_max: int) -> list[AuditedStatement]:
    """List what was audited, oldest first."""
    rows = connection.execute(_LIST, (count_max,)).fetchall()
    return [each for each in map(_read, rows) if each is not None]


def _read(row: tuple[Any, ...] | None) -> AuditedStatement | None:
    if row is None:
        return None
    network, statement, payer, digest, closed, owed, sent, state, account, amount, payment, valid_before, hashed = row
    return AuditedStatement(
        network=network,
        statement=statement,
        payer=payer,
        digest=digest,
        closed=closed,
        owed=int(owed),
        disputes_sent=bool(sent),
        state=state,
        account=account,
        amount=int(amount),
        payment=payment,
        valid_before=valid_before,
        transaction=hashed,
    )


def record_audit(connection: Connection, effect: RecordAudit) -> AuditedStatement:
    """Perform `RecordAudit`."""
    made = effect.entry
    row = (made.network, made.statement, made.payer, made.digest, made.closed, str(made.owed), int(made.disputes_sent))
    if connection.execute(_INSERT, (*row, made.state, effect.now_seconds)).rowcount == 1:
        for name, each in effect.disputes:
            facts = (each.line, each.reason, str(each.amount), each.evidence)
            connection.execute(_INSERT_DISPUTE, (made.network, name, made.statement, *facts))
    found = _read(connection.execute(_FIND, (made.network, made.statement)).fetchone())
    return made if found is None else found


def unsent_disputes(connection: Connection, effect: UnsentDisputes) -> tuple[LineDispute, ...]:
    """Perform `UnsentDisputes`."""
    rows = connection.execute(_DISPUTES, (effect.network, effect.statement)).fetchall()
    return tuple(LineDispute(line, reason, int(amount), evidence) for line, reason, amount, evidence in rows)


def mark_disputes_sent(connection: Connection, effect: MarkDisputesSent) -> bool:
    """Perform `MarkDisputesSent`."""
    return connection.execute(_SENT, (effect.network, effect.statement)).rowcount == 1


def reserve_statement(connection: Connection, effect: ReserveStatement) -> bool | OverLimit:
    """Perform `ReserveStatement`; the connection holds the write lock, so that no two see the same sum."""
    place = (effect.network, effect.statement)
    rows = connection.execute(_TAKEN, (effect.now_seconds - effect.window_seconds, *place)).fetchall()
    used = sum(int(amount) for (amount,) in rows)
    if used + effect.amount > effect.window_limit:
        return OverLimit(used, effect.window_limit)
    row = (effect.account, effect.now_seconds, str(effect.amount), *place, effect.account)
    return connection.execute(_RESERVE, row).rowcount == 1


def record_statement_payment(connection: Connection, effect: RecordStatementPayment) -> bool:
    """Perform `RecordStatementPayment`."""
    signed = (str(effect.amount), effect.payment, effect.valid_before, effect.now_seconds)
    place = (effect.network, effect.statement, effect.account, effect.instead_of)
    return connection.execute(_RECORD, (*signed, *place)).rowcount == 1


def mark_settled(connection: Connection, effect: MarkSettled) -> bool:
    """Perform `MarkSettled`."""
    return connection.execute(_SETTLE, (effect.transaction, effect.network, effect.statement)).rowcount == 1


def statement_handlers(
    database: Database, stop: Callable[[Connection], Stopped | None]
) -> Mapping[type[Effect[Any]], Callable[[Any], Any]]:
    """Handlers of all of these. `stop` looks at the kill switch, in the same transaction as what it may forbid."""

    def written(operation: Callable[[Connection, Any], Any]) -> Callable[[Any], Any]:
        return lambda effect: database.submit(partial(_run, operation, effect))

    def unless_stopped(operation: Callable[[Connection, Any], Any]) -> Callable[[Any], Any]:
        return written(lambda connection, effect: stop(connection) or operation(connection, effect))

    return {
        PinHouse: written(pin_house),
        BillLines: written(bill_lines),
        TakeAdjustment: written(take_adjustment),
        FindAudited: written(find_audited),
        NewestAudited: written(newest_audited),
        RecordAudit: written(record_audit),
        UnsentDisputes: written(unsent_disputes),
        MarkDisputesSent: written(mark_disputes_sent),
        ReserveStatement: unless_stopped(reserve_statement),
        RecordStatementPayment: unless_stopped(record_statement_payment),
        MayLeave: unless_stopped(lambda _connection, _effect: True),
        MarkSettled: written(mark_settled),
    }


def _run(operation: Callable[[Connection, Any], Any], effect: Any, connection: Connection) -> Any:
    return operation(connection, effect)
