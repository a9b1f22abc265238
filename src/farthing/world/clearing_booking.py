"""The clearing house's books in its store: rows are only ever inserted, and the database refuses to change them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from farthing.clearing.books import POST, POSTED, Booking
from farthing.ledger.accounts import PREPAID, RECEIVABLE, Account
from farthing.world.connection import Connection

_INSERT: Final = """
INSERT INTO clearing_transfers (transfer, kind, pending, debit, credit, amount, about, reverses, booked_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_UPDATE_PAYER: Final = "UPDATE clearing_payers SET owed = owed + ?, prepaid = prepaid + ? WHERE payer = ?"
_FIND: Final = "SELECT debit, credit, amount, about FROM clearing_transfers WHERE transfer = ?"
_BALANCE: Final = """
SELECT COALESCE(SUM(CASE WHEN credit = ? THEN amount ELSE -amount END), 0) FROM clearing_transfers
WHERE (credit = ? OR debit = ?) AND kind IN ('posted', 'post')
"""
_BALANCES: Final = """
SELECT account, SUM(amount) FROM (
    SELECT credit AS account, amount FROM clearing_transfers WHERE kind IN ('posted', 'post')
    UNION ALL SELECT debit, -amount FROM clearing_transfers WHERE kind IN ('posted', 'post')
) AS entries GROUP BY account
"""
_PROMISED: Final = """
SELECT account, SUM(amount) FROM (
    SELECT credit AS account, amount, transfer FROM clearing_transfers WHERE kind = 'pending'
    UNION ALL SELECT debit, -amount, transfer FROM clearing_transfers WHERE kind = 'pending'
) AS promises
WHERE NOT EXISTS (SELECT 1 FROM clearing_transfers AS ended WHERE ended.pending = promises.transfer)
GROUP BY account
"""


def book(at: Connection, bookings: Iterable[Booking], now_seconds: int) -> None:
    """Insert bookings, and move what payers' rows say along with them: in the order of payers, for the locks' sake.

    A booking whose name is taken fails the whole operation: nothing is booked twice.
    """
    moved: dict[int, list[int]] = {}
    for each in bookings:
        transfer = each.transfer
        debit, credit = transfer.debit, transfer.credit
        at.execute(
            _INSERT,
            (
                transfer.transfer_id,
                each.kind,
                each.pending,
                debit.name,
                credit.name,
                transfer.amount,
                each.about,
                transfer.reverses,
                now_seconds,
            ),
        )
        if each.kind in (POSTED, POST):
            _count(moved, debit, -transfer.amount)
            _count(moved, credit, transfer.amount)
    for payer in sorted(moved):
        owed, prepaid = moved[payer]
        at.execute(_UPDATE_PAYER, (owed, prepaid, payer))


def _count(moved: dict[int, list[int]], account: Account, credited: int) -> None:
    if account.kind == RECEIVABLE:
        moved.setdefault(int(account.owner, 16), [0, 0])[0] -= credited
    elif account.kind == PREPAID:
        moved.setdefault(int(account.owner, 16), [0, 0])[1] += credited


def balance(at: Connection, account: Account) -> int:
    """Sum what is posted on one account: credits less debits."""
    name = account.name
    return int(at.execute(_BALANCE, (name, name, name)).fetchone()[0])


def balances(at: Connection, *, pending: bool = False) -> dict[str, int]:
    """Sum all accounts: what is posted, or what is promised and not resolved."""
    return {name: int(amount) for name, amount in at.execute(_PROMISED if pending else _BALANCES).fetchall()}
