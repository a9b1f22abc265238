"""The facilitator's books: what a look at the chain showed, the ledger that goes with it, and cold queries.

Ledger rows are only ever inserted: a lost block is booked back by a transfer of its own.
"""

# ruff: noqa: S608 - what is put into statements are names of states, from a table in code

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import msgspec

from farthing.facilitator.states import PAYMENT, TRANSACTION
from farthing.facilitator.store import ChainRecorded, Confirmed, Mined, PaymentRecord, RecordChain, Refused
from farthing.ledger.accounts import GAS, NATIVE, PAYEE, PAYER, WALLET, Account, read_account
from farthing.ledger.transfers import Entry, Transfer, balances
from farthing.world.connection import Connection, Database
from farthing.world.facilitator_rows import SELECT_PAYMENT, read_payment, sources
from farthing.world.many_rows import for_list, found, pieces, returned, write

# A page of a list: what a person reads, and what a program takes at once.
PAGE_ROWS_MAX: Final = 1_000

_CONFIRMATIONS: Final = "SELECT confirmations FROM payments WHERE payment_id = ?"
_PAYMENTS_FOR_BOOKS: Final = """
SELECT payment_id, network, asset, payer, pay_to, amount, claimant, told, confirmations FROM payments
WHERE payment_id IN {}
"""
_CONFIRM: Final = f"""
UPDATE payments
SET state = '{PAYMENT.move("confirm").target}', transaction_hash = v.column2, block_number = v.column3,
    block_hash = v.column4, log_index = v.column5, told = v.column6, confirmations = confirmations + 1
FROM (VALUES {{}}) AS v
WHERE payment_id = v.column1 AND state IN {sources(PAYMENT, "confirm")}
RETURNING payment_id
"""
_CONFIRM_COLUMNS: Final = 6
_LOSE: Final = f"""
UPDATE payments
SET state = '{PAYMENT.move("lose").target}', transaction_hash = '', block_number = NULL, block_hash = '',
    log_index = NULL
WHERE payment_id = ? AND state IN {sources(PAYMENT, "lose")}
"""
_RELEASE: Final = f"""
UPDATE payments
SET state = '{PAYMENT.move("release").target}', wallet = NULL, nonce = NULL, attempts = attempts + 1, failed_at = ?,
    failed_alone = failed_alone + CASE WHEN (
        SELECT count(*) FROM transaction_members m
        WHERE m.network = payments.network AND m.wallet = payments.wallet AND m.nonce = payments.nonce
    ) = 1 THEN 1 ELSE 0 END
WHERE payment_id = ? AND state IN {sources(PAYMENT, "release")}
"""
_REFUSE: Final = f"""
UPDATE payments SET state = '{PAYMENT.move("refuse").target}', reason = ?, message = ?, transaction_hash = ?
WHERE payment_id = ? AND state IN {sources(PAYMENT, "refuse")}
"""
_FINALISE: Final = f"""
UPDATE payments SET state = '{PAYMENT.move("finalise").target}'
WHERE state IN {sources(PAYMENT, "finalise")} AND payment_id IN {{}}
"""
_MINE: Final = f"""
UPDATE transactions SET state = '{TRANSACTION.move("mine").target}', hash = ?, block_number = ?, block_hash = ?
WHERE network = ? AND wallet = ? AND nonce = ? AND state IN {sources(TRANSACTION, "mine")}
"""
_FINISH: Final = f"""
UPDATE transactions
SET state = '{TRANSACTION.move("finish").target}', hash = ?, block_number = ?, block_hash = ?, gas_used = ?,
    finishes = finishes + 1
WHERE network = ? AND wallet = ? AND nonce = ? AND state IN {sources(TRANSACTION, "finish")}
RETURNING finishes
"""
_TRANSACTION_FOR_BOOKS: Final = """
SELECT state, hash, finishes FROM transactions WHERE network = ? AND wallet = ? AND nonce = ?
"""
_DROP: Final = f"""
UPDATE transactions
SET state = '{TRANSACTION.move("drop").target}', block_number = NULL, block_hash = '', gas_used = NULL
WHERE network = ? AND wallet = ? AND nonce = ? AND state IN {sources(TRANSACTION, "drop")}
"""
_INSERT_TRANSFER: Final = """
INSERT INTO ledger_transfers (transfer_id, payment_id, transaction_hash, reverses, booked_at) VALUES {}
"""
_TRANSFER_COLUMNS: Final = 5
_INSERT_ENTRY: Final = "INSERT INTO ledger_entries (transfer_id, side, account, amount) VALUES {}"
_ENTRY_COLUMNS: Final = 4
_TRANSFER_BACK: Final = """
SELECT e.side, e.account, e.amount, t.transaction_hash FROM ledger_entries e
JOIN ledger_transfers t ON t.transfer_id = e.transfer_id WHERE e.transfer_id = ?
"""


class Booking(NamedTuple):
    """A transfer with the payment that it is for, if any, and the transaction that made it."""

    transfer: Transfer
    payment_id: str
    transaction: str


def record_chain(at: Connection, effect: RecordChain) -> ChainRecorded:
    """Make the moves of one look at the chain, with their ledger entries; the answer are those that were made."""
    for mined in effect.mined:
        place = (effect.network, effect.wallet, mined.nonce)
        at.execute(_MINE, (mined.transaction, mined.block_number, mined.block_hash, *place))
    for mined in effect.finished:
        _finish(at, effect, mined)
    lost = frozenset(each for each in effect.lost if _lose(at, each, effect.now_seconds))
    for nonce in effect.dropped:
        _drop(at, effect, nonce)
    confirmed = _confirm(at, effect)
    refused = frozenset(each.payment_id for each in effect.refused if _refuse(at, each))
    released = frozenset(
        each for each in effect.released if at.execute(_RELEASE, (effect.now_seconds, each)).rowcount == 1
    )
    for piece in pieces(effect.final):
        at.execute(for_list(_FINALISE, len(piece)), piece)
    return ChainRecorded(confirmed, refused, released, lost)


def _confirm(at: Connection, effect: RecordChain) -> frozenset[str]:
    """Confirm payments that were not yet, and book them; the answer are those."""
    # What was seen of a payment first counts, as it would one by one.
    seen = {each.payment_id: each for each in reversed(effect.confirmed)}
    rows = {row[0]: row[1:] for row in found(at, _PAYMENTS_FOR_BOOKS, tuple(seen))}
    told = {each: int(bool(row[6]) or row[5] in effect.live) for each, row in rows.items()}
    moves = [
        (each.payment_id, each.transaction, each.block_number, each.block_hash, each.log_index, told[each.payment_id])
        for each in seen.values()
        if each.payment_id in rows
    ]
    moved = frozenset(payment_id for (payment_id,) in returned(at, _CONFIRM, _CONFIRM_COLUMNS, moves))
    _book(at, [_transfer(each, rows[each], seen[each]) for each in moved if int(rows[each][4]) > 0], effect.now_seconds)
    return moved


def _transfer(payment_id: str, row: tuple[Any, ...], seen: Confirmed) -> Booking:
    network, asset, payer, pay_to, amount, _, _, confirmations = row
    transfer = Transfer(
        transfer_id=f"{payment_id}:{confirmations + 1}",
        debit=Account(PAYER, network, asset, payer),
        credit=Account(PAYEE, network, asset, pay_to),
        amount=int(amount),
    )
    return Booking(transfer, payment_id, seen.transaction)


def _lose(at: Connection, payment_id: str, now_seconds: int) -> bool:
    row = at.execute(_CONFIRMATIONS, (payment_id,)).fetchone()
    if row is None or at.execute(_LOSE, (payment_id,)).rowcount != 1:
        return False
    _book_back(at, f"{payment_id}:{row[0]}", payment_id, now_seconds)
    return True


def _refuse(at: Connection, refused: Refused) -> bool:
    parameters = (refused.reason, refused.message, refused.transaction, refused.payment_id)
    return at.execute(_REFUSE, parameters).rowcount == 1


def _finish(at: Connection, effect: RecordChain, mined: Mined) -> None:
    place = (effect.network, effect.wallet, mined.nonce)
    parameters = (mined.transaction, mined.block_number, mined.block_hash, mined.gas_used, *place)
    moved = at.execute(_FINISH, parameters).fetchall()
    cost = mined.gas_used * mined.gas_price
    if not moved or cost == 0:
        return
    transfer = Transfer(
        transfer_id=f"gas:{mined.transaction}:{moved[0][0]}",
        debit=Account(WALLET, effect.network, NATIVE, effect.wallet),
        credit=Account(GAS, effect.network, NATIVE, effect.wallet),
        amount=cost,
    )
    _book(at, [Booking(transfer, "", mined.transaction)], effect.now_seconds)


def _drop(at: Connection, effect: RecordChain, nonce: int) -> None:
    place = (effect.network, effect.wallet, nonce)
    row = at.execute(_TRANSACTION_FOR_BOOKS, place).fetchone()
    if row is None or at.execute(_DROP, place).rowcount != 1:
        return
    state, hash_, finishes = row
    if state == TRANSACTION.move("finish").target:
        _book_back(at, f"gas:{hash_}:{finishes}", "", effect.now_seconds)


def _book(at: Connection, bookings: list[Booking], now_seconds: int) -> None:
    transfers = [
        (each.transfer.transfer_id, each.payment_id, each.transaction, each.transfer.reverses, now_seconds)
        for each in bookings
    ]
    write(at, _INSERT_TRANSFER, _TRANSFER_COLUMNS, transfers)
    entries = [entry for each in bookings for entry in each.transfer.entries()]
    rows = [(entry.transfer_id, entry.side, entry.account, str(entry.amount)) for entry in entries]
    write(at, _INSERT_ENTRY, _ENTRY_COLUMNS, rows)


def _book_back(at: Connection, transfer_id: str, payment_id: str, now_seconds: int) -> None:
    rows = at.execute(_TRANSFER_BACK, (transfer_id,)).fetchall()
    if not rows:
        # Nothing was booked: an amount or a gas price of zero.
        return
    accounts = {side: read_account(account) for side, account, _, _ in rows}
    _, _, amount, transaction = rows[0]
    booked = Transfer(transfer_id=transfer_id, debit=accounts["debit"], credit=accounts["credit"], amount=int(amount))
    _book(at, [Booking(booked.reversal(f"{transfer_id}:back"), payment_id, transaction)], now_seconds)


class LedgerRow(msgspec.Struct, frozen=True):
    """One ledger entry with what it belongs to: `account` is `kind/network/asset/owner`, amount in atomic units."""

    transfer_id: str
    payment_id: str
    transaction: str
    reverses: str
    booked_at: int
    side: str
    account: str
    amount: int


class Books:
    """Cold queries over the facilitator's store: for operators, tests and reconciliations, never on the hot path."""

    def __init__(self, database: Database) -> None:
        """Read from `database`."""
        self._database = database

    def payments(self, *, state: str = "", after: str = "", rows_max: int = PAGE_ROWS_MAX) -> tuple[PaymentRecord, ...]:
        """List payments by payment id, a page at a time: `after` is the last id of the page before."""
        query = f"{SELECT_PAYMENT} WHERE p.payment_id > ? AND (? = '' OR p.state = ?) ORDER BY p.payment_id LIMIT ?"
        parameters = (after, state, state, min(rows_max, PAGE_ROWS_MAX))
        return self._database.read(lambda at: tuple(map(read_payment, at.execute(query, parameters).fetchall())))

    def entries(self, payment_id: str | None = None) -> tuple[LedgerRow, ...]:
        """List ledger entries in the order of booking: all, or those of one payment."""
        query = """
        SELECT t.transfer_id, t.payment_id, t.transaction_hash, t.reverses, t.booked_at, e.side, e.account, e.amount
        FROM ledger_transfers t JOIN ledger_entries e ON e.transfer_id = t.transfer_id
        WHERE CAST(? AS TEXT) IS NULL OR t.payment_id = ? ORDER BY t.booked_at, t.transfer_id, e.side DESC
        """
        rows = self._database.read(lambda at: at.execute(query, (payment_id, payment_id)).fetchall())
        return tuple(
            LedgerRow(
                transfer_id=transfer_id,
                payment_id=owner,
                transaction=transaction,
                reverses=reverses,
                booked_at=booked_at,
                side=side,
                account=account,
                amount=int(amount),
            )
            for transfer_id, owner, transaction, reverses, booked_at, side, account, amount in rows
        )

    def balances(self) -> dict[str, int]:
        """Sum the ledger by account name: credits less debits, in atomic units (wei for `native`)."""
        return balances(_entries(self.entries()))

    def totals(self, kind: str) -> dict[tuple[str, str, str], int]:
        """Sum by (network, asset, owner) over the accounts of one kind: `payer`, `payee`, `wallet` or `gas`.

        Positive both for what payers paid and for what payees were paid; asset and owner in lower case.
        """
        sums: dict[tuple[str, str, str], int] = {}
        for name, amount in self.balances().items():
            account = read_account(name)
            if account.kind == kind:
                sums[account.network, account.asset, account.owner] = abs(amount)
        return sums

    def settled(self) -> dict[str, int]:
        """What the ledger says each payment moved: atomic units by payment id, reversals taken off."""
        sums: dict[str, int] = {}
        for row in self.entries():
            if row.payment_id and row.side == "credit":
                sign = -1 if row.reverses else 1
                sums[row.payment_id] = sums.get(row.payment_id, 0) + sign * row.amount
        return sums


def _entries(rows: Iterable[LedgerRow]) -> Iterable[Entry]:
    for row in rows:
        side: Any = row.side
        yield Entry(row.transfer_id, row.account, side, row.amount)
