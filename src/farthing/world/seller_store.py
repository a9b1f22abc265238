"""The seller's store over SQLite: every effect of `farthing.seller.store` is one atomic step here.

All SQL stands at the top, named. Each is a single statement for SQLite and PostgreSQL alike; a move is conditional on
state and epoch, and the number of rows affected is the answer.
"""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final

import msgspec

from farthing.errors import StoreError
from farthing.flow import Effect
from farthing.seller.states import PaymentFlow, State, allowed
from farthing.seller.store import (
    Advance,
    Claimed,
    FetchResponse,
    Known,
    LedgerEntry,
    LookUp,
    MakeClaim,
    MarkDelivered,
    SellerPayment,
    StoredResponse,
)
from farthing.world.sqlite import Database, load_migrations

_COLUMNS: Final = (
    "payment_id, fingerprint, request_print, state, epoch, lease_until, valid_before, flow, idempotent, "
    "stores_response, runs, settlement_tx, reason, network, payer, receipt"
)
LOOK_UP: Final = f"SELECT {_COLUMNS} FROM seller_payment WHERE payment_id = ?"  # noqa: S608 - no value of anybody's
CLAIM: Final = (
    "INSERT INTO seller_payment (payment_id, fingerprint, request_print, state, epoch, lease_until, valid_before, "
    "flow, idempotent, stores_response, runs, network, asset, payer, pay_to, amount, resource, settlement_tx, reason, "
    "receipt, claimed_at) VALUES (?, ?, ?, ?, 1, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?, '', '', '', ?) "
    "ON CONFLICT (payment_id) DO NOTHING"
)
CLAIM_AGAIN: Final = (
    "UPDATE seller_payment SET fingerprint = ?, request_print = ?, state = ?, epoch = epoch + 1, lease_until = ?, "
    "valid_before = ?, flow = ?, idempotent = ?, stores_response = ?, runs = 0, network = ?, asset = ?, payer = ?, "
    "pay_to = ?, amount = ?, resource = ?, settlement_tx = '', reason = '', receipt = '', claimed_at = ? "
    "WHERE payment_id = ? AND state = ? AND epoch = ?"
)
ADVANCE: Final = (
    "UPDATE seller_payment SET state = ?, epoch = epoch + ?, lease_until = ?, runs = runs + ?, "
    "settlement_tx = CASE WHEN ? = '' THEN settlement_tx ELSE ? END, "
    "reason = CASE WHEN ? = '' THEN reason ELSE ? END, "
    "receipt = CASE WHEN ? = '' THEN receipt ELSE ? END "
    "WHERE payment_id = ? AND state = ? AND epoch = ?"
)
KEEP_RESPONSE: Final = (
    "INSERT INTO seller_response (payment_id, status, headers, body, spool) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT (payment_id) DO UPDATE SET status = excluded.status, headers = excluded.headers, "
    "body = excluded.body, spool = excluded.spool"
)
FETCH_RESPONSE: Final = "SELECT status, headers, body, spool FROM seller_response WHERE payment_id = ?"
FIND_SPOOL: Final = "SELECT spool FROM seller_response WHERE payment_id = ?"
DROP_RESPONSE: Final = "DELETE FROM seller_response WHERE payment_id = ?"
POST: Final = (
    "INSERT INTO seller_ledger (payment_id, settlement_tx, network, asset, debit, credit, amount, posted_at) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
LIST: Final = (
    "SELECT payment_id, state, network, asset, payer, pay_to, amount, resource, settlement_tx, reason, claimed_at "
    "FROM seller_payment WHERE state = ? OR ? = '' ORDER BY claimed_at DESC, payment_id LIMIT ?"
)
LEDGER: Final = (
    "SELECT network, asset, debit, credit, amount, settlement_tx, posted_at FROM seller_ledger "
    "ORDER BY posted_at, payment_id"
)

NAME_STORE: Final = "INSERT INTO seller_fact (fact, value) VALUES ('name', ?) ON CONFLICT (fact) DO NOTHING"
STORE_NAME: Final = "SELECT value FROM seller_fact WHERE fact = 'name'"

# No two stores draw the same name.
NAME_SIZE_BYTES: Final = 16
# A page of the books that a person reads; whoever wants more asks the file.
LIST_MAX: Final = 1_000

# A response that nobody will be given is not kept: it would only take room.
_NOTHING_TO_DELIVER: Final = frozenset({State.REFUSED, State.CLOSED, State.REFUND_DUE, State.VOID, State.ABORTED})

_headers_decoder = msgspec.json.Decoder(tuple[tuple[str, str], ...])


class SellerStore:
    """The seller's books in one SQLite file, shared by all processes that open it."""

    def __init__(self, path: str | Path) -> None:
        """Open or make the file. Large responses are spooled in the folder `<path>.responses` beside it."""
        self._database = Database(path, migrations=load_migrations("seller"))
        self.name = self._database.submit(_name).result()
        self.spool_folder = Path(f"{path}.responses")

    def close(self) -> None:
        """Close the file; what was submitted is written first."""
        self._database.close()

    def handlers(self) -> dict[type[Effect[Any]], Callable[[Any], Any]]:
        """Give the handlers of the store's effects, for a `Performer`."""
        return {
            LookUp: self.look_up,
            MakeClaim: self.make_claim,
            Advance: self.advance,
            FetchResponse: self.fetch_response,
            MarkDelivered: self.mark_delivered,
        }

    def look_up(self, effect: LookUp) -> Known | None:
        """Find what is known of a payment, on a connection for reading."""
        rows = self._database.fetch(LOOK_UP, (effect.payment_id,))
        return _known(rows[0]) if rows else None

    def make_claim(self, effect: MakeClaim) -> Future[Claimed | Known]:
        """Claim a payment, or give what is known of it."""
        return self._database.submit(lambda connection: _claim(connection, effect))

    def advance(self, effect: Advance) -> Future[bool]:
        """Move a payment along the table of `farthing.seller.states`, if it is still where it was."""
        if not allowed(effect.source, effect.target):
            message = f"the seller's table has no move from {effect.source} to {effect.target}"
            raise StoreError(message)
        if effect.target not in _NOTHING_TO_DELIVER:
            return self._database.submit(lambda connection: _advance(connection, effect))
        kept = self.fetch_response(FetchResponse(effect.payment_id))
        moved = self._database.submit(lambda connection: _advance_and_drop(connection, effect))
        if kept is not None and kept.spool:
            moved.add_done_callback(lambda done: self._unspool_if(done, kept.spool))
        return moved

    def fetch_response(self, effect: FetchResponse) -> StoredResponse | None:
        """Fetch a kept response; None also where its spool file has gone."""
        rows = self._database.fetch(FETCH_RESPONSE, (effect.payment_id,))
        if not rows:
            return None
        status, headers, body, spool = rows[0]
        if spool and not (self.spool_folder / spool).is_file():
            return None
        return StoredResponse(status, _headers_decoder.decode(headers), bytes(body), spool)

    def mark_delivered(self, effect: MarkDelivered) -> None:
        """Note a delivery without waiting for the note to be durable, and drop the response that it was about."""
        with contextlib.suppress(StoreError):
            noted = self._database.submit(lambda connection: _delivered(connection, effect), awaited=False)
            noted.add_done_callback(self._unspool)

    def flush(self) -> None:
        """Wait until all that was noted so far is durable."""
        self._database.submit(_nothing).result()

    def payments(self, state: State | None = None, *, limit: int = LIST_MAX) -> tuple[SellerPayment, ...]:
        """List the newest payments, of one state or of all; at most `LIST_MAX`."""
        wanted = "" if state is None else state.value
        rows = self._database.read(
            lambda connection: connection.execute(LIST, (wanted, wanted, min(limit, LIST_MAX))).fetchall()
        )
        return tuple(_payment(row) for row in rows)

    def ledger(self) -> tuple[LedgerEntry, ...]:
        """Give the ledger's entries in the order of their posting."""
        query = (
            "SELECT network, asset, debit, credit, amount, settlement_tx, posted_at FROM seller_ledger ORDER BY rowid"
        )
        rows = self._database.read(lambda connection: connection.execute(query).fetchall())
        return tuple(_entry(row) for row in rows)

    def _unspool_if(self, moved: Future[bool], name: str) -> None:
        with contextlib.suppress(Exception):
            if moved.result():
                (self.spool_folder / name).unlink()

    def _unspool(self, noted: Future[str]) -> None:
        with contextlib.suppress(Exception):  # a file that stays costs room, not money
            name = noted.result()
            if name:
                (self.spool_folder / name).unlink()


def _name(connection: sqlite3.Connection) -> str:
    """Give the store's name, which is drawn when it is opened for the first time."""
    connection.execute(NAME_STORE, (secrets.token_hex(NAME_SIZE_BYTES),))
    return str(connection.execute(STORE_NAME).fetchone()[0])


def _find(connection: sqlite3.Connection, payment_id: str) -> Known | None:
    row = connection.execute(LOOK_UP, (payment_id,)).fetchone()
    return None if row is None else _known(row)


def _known(row: tuple[Any, ...]) -> Known:
    return Known(
        payment_id=row[0],
        fingerprint=row[1],
        request_print=row[2],
        state=State(row[3]),
        epoch=row[4],
        lease_until=row[5],
        valid_before=row[6],
        flow=PaymentFlow(row[7]),
        idempotent=bool(row[8]),
        stores_response=bool(row[9]),
        runs=row[10],
        transaction=row[11],
        reason=row[12],
        network=row[13],
        payer=row[14],
        receipt=row[15],
    )


def _payment(row: tuple[Any, ...]) -> SellerPayment:
    return SellerPayment(
        payment_id=row[0],
        state=State(row[1]),
        network=row[2],
        asset=row[3],
        payer=row[4],
        pay_to=row[5],
        amount=int(row[6]),
        resource=row[7],
        transaction=row[8],
        reason=row[9],
        claimed_at=row[10],
    )


def _entry(row: tuple[Any, ...]) -> LedgerEntry:
    return LedgerEntry(
        network=row[0],
        asset=row[1],
        payer=row[2],
        pay_to=row[3],
        amount=int(row[4]),
        transaction=row[5],
        posted_at=row[6],
    )


def _claim(connection: sqlite3.Connection, effect: MakeClaim) -> Claimed | Known:
    claim, over = effect.claim, effect.over
    # 64-bit columns: a window that ends later than that never ends.
    valid_before = min(claim.valid_before, 2**62)
    head = (claim.fingerprint, claim.request_print, claim.state.value)
    middle = (claim.lease_until, valid_before, claim.flow.value, int(claim.idempotent), int(claim.stores_response))
    tail = (claim.network, claim.asset, claim.payer, claim.pay_to, str(claim.amount), claim.resource, claim.claimed_at)
    if over is None:
        done = connection.execute(CLAIM, (claim.payment_id, *head, *middle, *tail)).rowcount
        epoch = 1
    else:
        here = (claim.payment_id, over.state.value, over.epoch)
        done = connection.execute(CLAIM_AGAIN, (*head, *middle, *tail, *here)).rowcount
        epoch = over.epoch + 1
    if done == 1:
        return Claimed(epoch)
    found = _find(connection, claim.payment_id)
    if found is None:
        message = f"{claim.payment_id} was claimed and is gone; the seller's rows are never deleted by hand."
        raise StoreError(message)
    return found


def _advance(connection: sqlite3.Connection, effect: Advance) -> bool:
    done = connection.execute(
        ADVANCE,
        (
            effect.target.value,
            int(effect.take_over),
            effect.lease_until,
            int(effect.run),
            effect.transaction,
            effect.transaction,
            effect.reason,
            effect.reason,
            effect.receipt,
            effect.receipt,
            effect.payment_id,
            effect.source.value,
            effect.epoch,
        ),
    ).rowcount
    if done != 1:
        return False
    if effect.response is not None:
        kept = effect.response
        headers = msgspec.json.encode(kept.headers).decode()
        connection.execute(KEEP_RESPONSE, (effect.payment_id, kept.status, headers, kept.body, kept.spool))
    if effect.entry is not None:
        entry = effect.entry
        row = (entry.transaction, entry.network, entry.asset, entry.payer, entry.pay_to, str(entry.amount))
        connection.execute(POST, (effect.payment_id, *row, entry.posted_at))
    return True


def _advance_and_drop(connection: sqlite3.Connection, effect: Advance) -> bool:
    moved = _advance(connection, effect)
    if moved:
        connection.execute(DROP_RESPONSE, (effect.payment_id,))
    return moved


def _nothing(_connection: sqlite3.Connection) -> None:
    return None


def _delivered(connection: sqlite3.Connection, effect: MarkDelivered) -> str:
    """Note the delivery; gives the spool file that may go."""
    moved = Advance(effect.payment_id, effect.epoch, effect.source, State.DELIVERED)
    if not _advance(connection, moved):
        return ""
    row = connection.execute(FIND_SPOOL, (effect.payment_id,)).fetchone()
    if row is None:
        return ""
    connection.execute(DROP_RESPONSE, (effect.payment_id,))
    return str(row[0])
