"""Windows and statements in the clearing house's store.

Lines are streamed in the order of their ids and written down in runs, so that a window of a million lines takes the
memory of a thousand. A run's content is a function of its lines, which can't change any more: whoever comes second,
after a crash or from another process, finds the same bytes there.
"""

# ruff: noqa: S608 - what is put into statements are names of states, from a table in code, and marks

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any, Final

from farthing.clearing.books import Booking, Books
from farthing.clearing.rules import window_bounds
from farthing.clearing.statements import Builder, Run
from farthing.clearing.states import CLOSED, GRANTED, ISSUED, OPEN, SETTLED, STATEMENT, WINDOW
from farthing.clearing.store import (
    BuildRuns,
    ClosedWindows,
    CloseWindow,
    FindEvidence,
    FindRun,
    FindStatement,
    IssueStatement,
    ListStatements,
    MarkIssued,
    OpenWindow,
    Payer,
    PayersOfWindow,
    PreviousStatement,
    RunRoots,
    StatementRecord,
    Totals,
    Window,
)
from farthing.protocol.statements import StatementLine
from farthing.world.clearing_accounts import SELECT_PAYER, read_payer
from farthing.world.clearing_booking import book
from farthing.world.clearing_reserve import covers_of, guaranteed_amounts
from farthing.world.connection import Connection, Database

# Lines that are fetched at once: some megabytes.
_FETCH: Final = 5_000
_SELECT_WINDOW: Final = "SELECT number, opened_at, closes_at, state, closed_at FROM clearing_windows"
_OPEN_WINDOW: Final = f"""
INSERT INTO clearing_windows (number, opened_at, closes_at, state)
VALUES ((SELECT COALESCE(MAX(number), 0) + 1 FROM clearing_windows), ?, ?, '{OPEN}') ON CONFLICT DO NOTHING
"""
_CLOSE: Final = f"""
UPDATE clearing_windows SET state = '{WINDOW.move("close").target}', closed_at = ?
WHERE state = '{OPEN}' AND (closes_at <= ? OR ?) RETURNING number, opened_at, closes_at, state, closed_at
"""
_ISSUED: Final = f"""
UPDATE clearing_windows SET state = '{WINDOW.move("issue").target}' WHERE number = ? AND state = '{CLOSED}'
"""
_PAYERS: Final = f"""
{SELECT_PAYER} WHERE (
    EXISTS (SELECT 1 FROM clearing_lines l WHERE l.payer = p.payer AND l.window_number = ?)
    OR EXISTS (SELECT 1 FROM clearing_disputes d WHERE d.payer = p.payer AND d.adjusted_in = ?)
) AND NOT EXISTS (SELECT 1 FROM clearing_statements s WHERE s.payer = p.payer AND s.window_number = ?)
ORDER BY p.payer
"""
_LINES: Final = """
SELECT l.commitment, l.payee, l.resource, l.amount, l.committed_at FROM clearing_lines l
WHERE l.payer = ? AND l.window_number = ? AND NOT EXISTS (
    SELECT 1 FROM clearing_rejections r WHERE r.payer = l.payer AND r.commitment = l.commitment
) ORDER BY l.commitment
"""
_ADJUSTED: Final = """
SELECT dispute, statement, line, payee, resource, line_time, amount, reason, state, was_paid
FROM clearing_disputes WHERE payer = ? AND adjusted_in = ? ORDER BY dispute
"""
_INSERT_RUN: Final = """
INSERT INTO clearing_runs (statement, run, first_id, root, body) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING
"""
_PREVIOUS: Final = """
SELECT jws FROM clearing_statements WHERE payer = ? AND window_number < ? ORDER BY window_number DESC LIMIT 1
"""
_INSERT_STATEMENT: Final = f"""
INSERT INTO clearing_statements (statement, payer, window_number, currency, state, count, net, issued_at, due_at,
    dispute_until, reference, jws) VALUES (?, ?, ?, ?, '{ISSUED}', ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING
"""
_INSERT_SHARE: Final = "INSERT INTO clearing_shares (statement, payee, amount, guaranteed) VALUES (?, ?, ?, ?)"
_SETTLE: Final = f"""
UPDATE clearing_statements SET state = '{SETTLED}', settled_at = ?, transaction_hash = ?
WHERE statement = ? AND state IN ({", ".join(f"'{each}'" for each in STATEMENT.move("settle").sources)})
"""
# What each payee gets: its share less what was disputed before the payer accepted, which is held.
_CLEARED: Final = """
SELECT s.payee, s.amount - COALESCE((
    SELECT SUM(d.amount) FROM clearing_disputes d
    WHERE d.statement = s.statement AND d.payee = s.payee AND d.was_paid = 0
), 0) FROM clearing_shares s WHERE s.statement = ? ORDER BY s.payee
"""
_RESTORE_PAYER: Final = f"""
UPDATE clearing_payers SET state = 'active', why = '' WHERE payer = ? AND state = 'suspended' AND why LIKE 'overdue%'
    AND NOT EXISTS (SELECT 1 FROM clearing_statements s
        WHERE s.payer = clearing_payers.payer AND s.state <> '{SETTLED}' AND s.due_at < ?)
"""
_SELECT_STATEMENT: Final = """
SELECT s.statement, s.payer, p.directory, s.window_number, s.currency, s.state, s.count, s.net, s.disputed, s.issued_at,
    s.due_at, s.dispute_until, s.reference, s.jws, s.payment, s.payment_until, s.attempts, s.transaction_hash
FROM clearing_statements s JOIN clearing_payers p ON p.payer = s.payer
"""
_EVIDENCE: Final = """
SELECT u.body, l.position, p.directory FROM clearing_lines l
JOIN clearing_uploads u ON u.upload = l.upload JOIN clearing_payers p ON p.payer = l.payer
WHERE l.payer = ? AND l.commitment = ?
"""


def open_window(at: Connection, effect: OpenWindow) -> Window:
    """Perform `OpenWindow`."""
    query = f"{_SELECT_WINDOW} WHERE state = '{OPEN}'"
    row = at.execute(query).fetchone()
    if row is None:
        bounds = window_bounds(effect.now_seconds, effect.rules.window_seconds)
        at.execute(_OPEN_WINDOW, (effect.now_seconds, bounds[1]))
        row = at.execute(query).fetchone()
    return Window(*row)


def close_window(at: Connection, effect: CloseWindow) -> Window | None:
    """Perform `CloseWindow`: waits for the uploads that are on their way in, and no line falls between two windows."""
    now_seconds = effect.now_seconds
    forced: int | bool = effect.force if not isinstance(at, sqlite3.Connection) else int(effect.force)
    row = at.execute(_CLOSE, (now_seconds, now_seconds, forced)).fetchone()
    if row is None:
        return None
    at.execute(_OPEN_WINDOW, (now_seconds, window_bounds(now_seconds, effect.rules.window_seconds)[1]))
    return Window(*row)


def closed_windows(at: Connection, _effect: ClosedWindows) -> tuple[Window, ...]:
    """Perform `ClosedWindows`."""
    rows = at.execute(f"{_SELECT_WINDOW} WHERE state = '{CLOSED}' ORDER BY number").fetchall()
    return tuple(Window(*row) for row in rows)


def payers_of_window(at: Connection, effect: PayersOfWindow) -> tuple[Payer, ...]:
    """Perform `PayersOfWindow`."""
    return tuple(map(read_payer, at.execute(_PAYERS, (effect.window,) * 3).fetchall()))


def build_runs(database: Database, effect: BuildRuns) -> Totals:
    """Perform `BuildRuns`, in a thread that may take its time: reads over one snapshot, writes a run at a time."""

    def keep(run: Run | None) -> None:
        if run is not None:
            row = (effect.statement, run.number, run.first_id, run.root, run.body)
            # Awaited, so that no more than one run waits.
            database.submit(lambda at: at.execute(_INSERT_RUN, row).rowcount).result()

    def build(at: Connection) -> Totals:
        names = dict(at.execute("SELECT payee, name FROM clearing_payees").fetchall())
        builder = Builder()
        (currency,) = at.execute("SELECT currency FROM clearing_payers WHERE payer = ?", (effect.payer,)).fetchone()
        for row in at.execute(_ADJUSTED, (effect.payer, effect.window)).fetchall():
            keep(_add_adjustment(builder, row, names, currency))
        for commitment, payee, resource, amount, committed_at in _stream(at, (effect.payer, effect.window)):
            text = str(amount)
            name = "sha256:" + bytes(commitment).hex()
            line = StatementLine(name, names[payee], resource, text, text, currency, str(committed_at))
            keep(builder.add(line, payee=payee, share=amount))
        last, totals = builder.finish()
        keep(last)
        return totals

    return database.read(build)


def _add_adjustment(builder: Builder, row: tuple[Any, ...], names: dict[int, str], currency: str) -> Run | None:
    """A dispute that was decided: granted after the payment it is paid back; rejected before it, it is asked for."""
    dispute, statement, line, payee, resource, line_time, amount, reason, state, was_paid = row
    if state == GRANTED:
        charged, share = (-amount if was_paid else 0), 0
    else:
        charged, share = amount, amount
    what = f"{state} {reason}: {line} of {statement}"
    made = StatementLine(
        f"adjustment:{dispute}", names[payee], resource, str(amount), str(charged), currency, line_time, what
    )
    return builder.add(made, payee=payee, share=share)


def _stream(at: Connection, place: tuple[int, int]) -> Iterator[tuple[Any, ...]]:
    if isinstance(at, sqlite3.Connection):
        yield from at.execute(_LINES, place)
        return
    # A cursor of the server's, since a client's holds all rows at once.
    at.execute(f"DECLARE statement_lines NO SCROLL CURSOR FOR {_LINES}", place)
    while rows := at.execute(f"FETCH {_FETCH} FROM statement_lines").fetchall():
        yield from rows
    at.execute("CLOSE statement_lines")


def previous_statement(at: Connection, effect: PreviousStatement) -> str:
    """Perform `PreviousStatement`."""
    row = at.execute(_PREVIOUS, (effect.payer, effect.window)).fetchone()
    return "" if row is None else str(row[0])


def issue_statement(at: Connection, effect: IssueStatement) -> bool:
    """Perform `IssueStatement`. One that asks for nothing is settled at once; one below zero goes to the balance."""
    dates = (effect.issued_at, effect.due_at, effect.dispute_until)
    about = (effect.statement, effect.payer, effect.window, effect.currency, effect.totals.count, effect.net)
    if at.execute(_INSERT_STATEMENT, (*about, *dates, effect.reference, effect.jws)).rowcount != 1:
        return False
    shares = sorted(effect.totals.shares.items())
    guaranteed = guaranteed_amounts(at, effect.payer, shares)
    rows = [(effect.statement, *share, amount) for share, amount in zip(shares, guaranteed, strict=True)]
    at.executemany(_INSERT_SHARE, rows)
    books = Books(effect.rules.network, effect.currency)
    rounded = books.round(effect.statement, effect.payer, effect.rounding)
    book(at, [] if rounded is None else [rounded], effect.issued_at)
    if effect.net < 0:
        book(at, [books.credit_note(effect.statement, effect.payer, -effect.net)], effect.issued_at)
    if effect.net <= 0:
        settle_statement(at, effect.statement, books, "", effect.issued_at)
    return True


def settle_statement(at: Connection, statement: str, books: Books, transaction: str, now_seconds: int) -> bool:
    """Mark a statement settled and clear its payees' shares; False where it was settled before. Its money is booked.

    What the reserve had paid of a share goes back to it, and not to the payee a second time (C6).
    """
    if at.execute(_SETTLE, (now_seconds, transaction, statement)).rowcount != 1:
        return False
    (payer,) = at.execute("SELECT payer FROM clearing_statements WHERE statement = ?", (statement,)).fetchone()
    covered = covers_of(at, statement)
    clearing: list[Booking] = [
        books.refill(statement, payer, payee, amount) for payee, amount in sorted(covered.items())
    ]
    for payee, amount in at.execute(_CLEARED, (statement,)).fetchall():
        rest = int(amount) - covered.get(payee, 0)
        if rest > 0:
            clearing.append(books.clear(statement, payee, rest))
    book(at, clearing, now_seconds)
    at.execute(_RESTORE_PAYER, (payer, now_seconds))
    return True


def mark_issued(at: Connection, effect: MarkIssued) -> bool:
    """Perform `MarkIssued`."""
    return at.execute(_ISSUED, (effect.window,)).rowcount == 1


def find_statement(at: Connection, effect: FindStatement) -> StatementRecord | None:
    """Perform `FindStatement`."""
    row = at.execute(f"{_SELECT_STATEMENT} WHERE s.statement = ?", (effect.statement,)).fetchone()
    return None if row is None else StatementRecord(*row)


def list_statements(at: Connection, effect: ListStatements) -> tuple[StatementRecord, ...]:
    """Perform `ListStatements`."""
    where = "s.statement > ?"
    parameters: list[Any] = [effect.after]
    if effect.payer is not None:
        where += " AND s.payer = ?"
        parameters.append(effect.payer)
    if effect.state:
        where += " AND s.state = ?"
        parameters.append(effect.state)
    query = f"{_SELECT_STATEMENT} WHERE {where} ORDER BY s.statement LIMIT ?"
    return tuple(StatementRecord(*row) for row in at.execute(query, (*parameters, effect.count_max)).fetchall())


def find_run(at: Connection, effect: FindRun) -> bytes | None:
    """Perform `FindRun`."""
    query = "SELECT body FROM clearing_runs WHERE statement = ? AND run = ?"
    row = at.execute(query, (effect.statement, effect.run)).fetchone()
    return None if row is None else bytes(row[0])


def run_roots(at: Connection, effect: RunRoots) -> tuple[tuple[str, bytes], ...]:
    """Perform `RunRoots`."""
    query = "SELECT first_id, root FROM clearing_runs WHERE statement = ? ORDER BY run"
    return tuple((first, bytes(root)) for first, root in at.execute(query, (effect.statement,)).fetchall())


def find_evidence(at: Connection, effect: FindEvidence) -> tuple[bytes, int, str] | None:
    """Find a commitment's upload, its position in it, and its payer's directory."""
    row = at.execute(_EVIDENCE, (effect.payer, effect.commitment)).fetchone()
    return None if row is None else (bytes(row[0]), int(row[1]), str(row[2]))
