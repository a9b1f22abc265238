"""The clearing house's books in its store: rows are only ever inserted, and the database refuses to change them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from farthing.clearing.books import POST, POSTED, Booking
from farthing.errors import StoreError
from farthing.ledger.accounts import PREPAID, RECEIVABLE, RECOURSE, RESERVE, Account
from farthing.world.connection import Connection

_INSERT: Final = """
INSERT INTO clearing_transfers (transfer, kind, pending, debit, credit, amount, about, reverses, booked_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_UPDATE_PAYER: Final = (
    "UPDATE clearing_payers SET owed = owed + ?, prepaid = prepaid + ?, recourse = recourse + ? WHERE payer = ?"
)
_ADD_TO_RESERVE: Final = """
INSERT INTO clearing_reserves (currency, amount) VALUES (?, ?)
ON CONFLICT (currency) DO UPDATE SET amount = clearing_reserves.amount + excluded.amount
"""
_TAKE_FROM_RESERVE: Final = "UPDATE clearing_reserves SET amount = amount - ? WHERE currency = ?"
# Of a payer: the columns of its row, in their order.
_KEPT_BESIDE: Final = (RECEIVABLE, PREPAID, RECOURSE)
_SUSPENSE: Final = """
SELECT amount FROM clearing_movements
WHERE network = ? AND transaction_hash = ? AND log_index = ? AND direction = 'in' AND matched = ''
"""
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

    A booking whose name is taken fails the whole operation: nothing is booked twice. So does one that would take more
    out of a reserve than is in it.
    """
    moved: dict[int, list[int]] = {}
    reserves: dict[str, int] = {}
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
            for account, credited in ((debit, -transfer.amount), (credit, transfer.amount)):
                if account.kind == RESERVE:
                    reserves[account.asset] = reserves.get(account.asset, 0) + credited
                else:
                    _count(moved, account, credited)
    for payer in sorted(moved):
        owed, prepaid, recourse = moved[payer]
        at.execute(_UPDATE_PAYER, (owed, prepaid, recourse, payer))
    for currency, credited in sorted(reserves.items()):
        _move_reserve(at, currency, credited)


def _count(moved: dict[int, list[int]], account: Account, credited: int) -> None:
    if account.kind in _KEPT_BESIDE:
        sums = moved.setdefault(int(account.owner, 16), [0, 0, 0])
        sums[_KEPT_BESIDE.index(account.kind)] += -credited if account.kind == RECEIVABLE else credited


def _move_reserve(at: Connection, currency: str, credited: int) -> None:
    if credited >= 0:
        at.execute(_ADD_TO_RESERVE, (currency, credited))
    elif at.execute(_TAKE_FROM_RESERVE, (-credited, currency)).rowcount != 1:
        message = f"There is no reserve in {currency} to take anything from. Nothing was booked."
        raise StoreError(message)


def in_suspense(at: Connection, place: tuple[str, str, int]) -> int | None:
    """Say how much came in by a movement (network, transaction, log) that pays no statement; None where none did.

    Whether it was given to somebody since, the books say.
    """
    row = at.execute(_SUSPENSE, place).fetchone()
    return None if row is None else int(row[0])


def balance(at: Connection, account: Account) -> int:
    """Sum what is posted on one account: credits less debits."""
    name = account.name
    return int(at.execute(_BALANCE, (name, name, name)).fetchone()[0])


def balances(at: Connection, *, pending: bool = False) -> dict[str, int]:
    """Sum all accounts: what is posted, or what is promised and not resolved."""
    return {name: int(amount) for name, amount in at.execute(_PROMISED if pending else _BALANCES).fetchall()}
