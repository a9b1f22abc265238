"""The reserve in the clearing house's store: funded, drawn on for payers in default, refilled when they pay.

C6: what is in it stands in a row of its own as well, which the database does not let go below zero; and a step of a
cover is a key, so that it is paid once, whoever comes second.
"""

# ruff: noqa: S608 - what is put into statements are names of states, from a table in code, and marks

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from farthing.clearing.books import Booking, Books
from farthing.clearing.guarantee import (
    COVERS_MAX,
    CoverDefaults,
    FindReserve,
    FundReserve,
    GuaranteePayee,
    Reserve,
    TakeReserve,
)
from farthing.clearing.rules import Rules, payee_key
from farthing.clearing.states import SETTLED
from farthing.world.clearing_booking import book, in_suspense
from farthing.world.connection import Connection

_GUARANTEE: Final = "UPDATE clearing_payees SET guaranteed = ? WHERE payee = ?"
# A row that is written holds its lock: of two processes one sees what the other took.
_LOCK_RESERVE: Final = "UPDATE clearing_reserves SET amount = amount WHERE currency = ?"
_AMOUNT: Final = "SELECT amount FROM clearing_reserves WHERE currency = ?"
_BOOKED: Final = "SELECT credit, amount FROM clearing_transfers WHERE transfer = ?"
_PAYEE: Final = "SELECT payee, currency FROM clearing_payees WHERE payee = ?"
# A share without what is disputed of it, which comes with a later statement if it is owed; and of it, what a guarantee
# may have to pay, or has paid.
_UNDISPUTED: Final = """
s.amount - COALESCE((
    SELECT SUM(d.amount) FROM clearing_disputes d
    WHERE d.statement = s.statement AND d.payee = s.payee AND d.was_paid = 0
), 0)
"""
_STANDS: Final = f"CASE WHEN s.guaranteed < {_UNDISPUTED} THEN s.guaranteed ELSE {_UNDISPUTED} END"
# What a payer was given credit for: its limit and its balance; and of it, what is guaranteed of statements that it has
# not paid, but for one.
_PLEDGED: Final = f"""
SELECT p.credit_limit + p.prepaid, COALESCE((
    SELECT SUM({_STANDS}) FROM clearing_shares s JOIN clearing_statements t ON t.statement = s.statement
    WHERE t.payer = p.payer AND t.state <> '{SETTLED}' AND t.statement <> ?
), 0) FROM clearing_payers p WHERE p.payer = ?
"""
_GUARANTEED_PAYEES: Final = "SELECT payee FROM clearing_payees WHERE guaranteed = 1"
# Of each guaranteed share that is not paid, what is left to cover: not what is disputed, nor more than the guarantee.
_OPEN: Final = f"""
SELECT o.statement, o.payer, o.payee, o.steps, o.due_at, o.dispute_until,
    CASE WHEN o.guaranteed < o.undisputed THEN o.guaranteed ELSE o.undisputed END - o.covered AS amount
FROM (
    SELECT s.statement, t.payer, s.payee, t.due_at, t.dispute_until, s.guaranteed, {_UNDISPUTED} AS undisputed,
    COALESCE((
        SELECT SUM(c.amount) FROM clearing_covers c WHERE c.statement = s.statement AND c.payee = s.payee
    ), 0) AS covered, (
        SELECT COUNT(*) FROM clearing_covers c WHERE c.statement = s.statement AND c.payee = s.payee
    ) AS steps
    FROM clearing_statements t JOIN clearing_shares s ON s.statement = t.statement
    WHERE t.state <> '{SETTLED}' AND t.currency = ? AND s.guaranteed > 0
) AS o
"""
_DUE: Final = f"""
SELECT statement, payer, payee, steps, amount FROM ({_OPEN}) AS due
WHERE amount > 0 AND due_at < ? AND dispute_until < ? ORDER BY due_at, statement, payee LIMIT ?
"""
_STANDING: Final = f"""
SELECT COALESCE(SUM(amount), 0), COALESCE(SUM(CASE WHEN due_at < ? AND dispute_until < ? THEN amount ELSE 0 END), 0)
FROM ({_OPEN}) AS due WHERE amount > 0
"""
_RECOURSE: Final = "SELECT COALESCE(SUM(recourse), 0) FROM clearing_payers WHERE currency = ?"
_INSERT_COVER: Final = """
INSERT INTO clearing_covers (statement, payee, step, amount, covered_at) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING
"""
_COVERED: Final = "SELECT payee, SUM(amount) FROM clearing_covers WHERE statement = ? GROUP BY payee"


def guarantee_payee(at: Connection, effect: GuaranteePayee) -> bool:
    """Perform `GuaranteePayee`."""
    return at.execute(_GUARANTEE, (int(effect.guaranteed), payee_key(effect.name))).rowcount == 1


def guaranteed_amounts(at: Connection, payer: int, shares: Iterable[tuple[int, int]]) -> list[int]:
    """Say how much of each share (payee and amount) is guaranteed: all together no more than the payer's credit.

    What an edge serves beyond the credit that the house gave is the edge's risk, whoever it bills it to.
    """
    guaranteed = {payee for (payee,) in at.execute(_GUARANTEED_PAYEES).fetchall()}
    if not guaranteed:
        return [0 for _ in shares]
    left = max(0, _vouched(at, payer))
    amounts: list[int] = []
    for payee, share in shares:
        amounts.append(max(0, min(share, left)) if payee in guaranteed else 0)
        left -= amounts[-1]
    return amounts


def may_spend(at: Connection, payer: int, statement: str, amount: int) -> bool:
    """Say whether a payer may pay this statement from its balance: what guarantees of others count on stays there.

    Payer and payee may be one person: the balance would come back as a payout, and the reserve pay what it stood for.
    """
    return _vouched(at, payer, but_for=statement) >= amount


def _vouched(at: Connection, payer: int, *, but_for: str = "") -> int:
    """Say what is left of a payer's credit beside what is guaranteed of its unpaid statements, but for one of them."""
    vouched, pledged = at.execute(_PLEDGED, (but_for, payer)).fetchone()
    return int(vouched) - int(pledged)


def _lock(at: Connection, currency: str) -> int:
    """Hold the reserve's row until this transaction ends; what is in it."""
    at.execute(_LOCK_RESERVE, (currency,))
    return _amount(at, currency)


def _amount(at: Connection, currency: str) -> int:
    row = at.execute(_AMOUNT, (currency,)).fetchone()
    return 0 if row is None else int(row[0])


def unpledged(at: Connection, currency: str, rules: Rules, now_seconds: int) -> int:
    """Hold the reserve's row, and say what is in it beyond what it guarantees of issued statements."""
    amount = _lock(at, currency)
    guaranteed, _ = _standing(at, currency, rules, now_seconds)
    return amount - guaranteed


def _standing(at: Connection, currency: str, rules: Rules, now_seconds: int) -> tuple[int, int]:
    """Sum what is guaranteed of issued statements, and what of it is in default and not covered."""
    row = at.execute(_STANDING, (now_seconds - rules.grace_seconds, now_seconds, currency)).fetchone()
    return int(row[0]), int(row[1])


def fund_reserve(at: Connection, effect: FundReserve) -> bool:
    """Perform `FundReserve`; a second one fails by the name of its booking, as money that was given to a payer does."""
    place = (effect.network, effect.transaction, effect.log_index)
    amount = in_suspense(at, place)
    booking = None if amount is None else _books(effect).fund(":".join(map(str, place)), amount)
    if booking is None or at.execute(_BOOKED, (booking.transfer.transfer_id,)).fetchone() is not None:
        return False
    book(at, [booking], effect.now_seconds)
    return True


def take_reserve(at: Connection, effect: TakeReserve) -> str:
    """Perform `TakeReserve`: what is guaranteed of issued statements stays in, or it would be no guarantee."""
    row = at.execute(_PAYEE, (payee_key(effect.payee),)).fetchone()
    if row is None:
        return "unknown_payee"
    payee, currency = row
    booking = Books(effect.rules.network, currency).take(effect.request, payee, effect.amount)
    left = unpledged(at, currency, effect.rules, effect.now_seconds)
    known = at.execute(_BOOKED, (booking.transfer.transfer_id,)).fetchone()
    if known is not None:
        same = (booking.transfer.credit.name, effect.amount)
        return "" if (known[0], int(known[1])) == same else "request_reused"
    if effect.amount > left:
        return "too_much"
    book(at, [booking], effect.now_seconds)
    return ""


def cover_defaults(at: Connection, effect: CoverDefaults) -> tuple[str, ...]:
    """Perform `CoverDefaults`: the last share that the reserve reaches for may be covered in part, the rest waits."""
    left = _lock(at, effect.currency)
    if left == 0:
        return ()
    books = _books(effect)
    bookings: list[Booking] = []
    covered: list[str] = []
    before = (effect.read_until - effect.rules.grace_seconds, effect.read_until)
    for statement, payer, payee, steps, due in at.execute(_DUE, (effect.currency, *before, COVERS_MAX)).fetchall():
        amount, step = min(int(due), left), int(steps) + 1
        if amount == 0:
            break
        if at.execute(_INSERT_COVER, (statement, payee, step, amount, effect.now_seconds)).rowcount == 1:
            bookings += books.cover(statement, payer, payee, amount, step)
            covered.append(statement)
            left -= amount
    book(at, bookings, effect.now_seconds)
    return tuple(dict.fromkeys(covered))


def covers_of(at: Connection, statement: str) -> dict[int, int]:
    """Sum what was paid out of the reserve for a statement, by payee."""
    return {payee: int(amount) for payee, amount in at.execute(_COVERED, (statement,)).fetchall()}


def find_reserve(at: Connection, effect: FindReserve) -> Reserve:
    """Perform `FindReserve`."""
    guaranteed, uncovered = _standing(at, effect.currency, effect.rules, effect.now_seconds)
    (recourse,) = at.execute(_RECOURSE, (effect.currency,)).fetchone()
    amount = _amount(at, effect.currency)
    return Reserve(effect.currency, amount, int(recourse), guaranteed, uncovered)


def _books(effect: Any) -> Books:
    return Books(effect.rules.network, effect.currency)
