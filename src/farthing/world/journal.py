"""The buyer's journal: performs the effects of `farthing.buyer.journal`, and answers cold questions.

One file of SQLite is shared by the threads and processes of a machine, PostgreSQL by any number of machines. Each
effect is one operation of the database's writer, which holds the store's write lock from its first read on: no two
reservations see the same budget.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from farthing.buyer.audit_records import AuditedStatement
from farthing.buyer.journal import (
    FindOpen,
    ListOpen,
    OpenEntry,
    OpenPayment,
    PresentAgain,
    Promise,
    Purchase,
    RecordEvidence,
    RecordOutcome,
    RecordPayment,
    Release,
    RenewPayment,
    Reserve,
    Reserved,
    Stopped,
    TakeApproval,
)
from farthing.buyer.policy import APPROVAL_DEFAULT_SECONDS
from farthing.errors import StoreError
from farthing.flow import Effect
from farthing.protocol.clearing import Signed
from farthing.world import processes
from farthing.world.connection import Connection
from farthing.world.database import is_remote, off_the_loop, open_database
from farthing.world.journal_rows import (
    ABANDON,
    APPROVE,
    HANDED_OVER,
    RESUME,
    SELECT_BY_PAYMENT,
    SELECT_HEADER,
    SELECT_PAGE,
    SELECT_PROMISES,
    STOP,
    Mark,
    list_open,
    mark,
    open_payment,
    present_again,
    read_promise,
    read_purchase,
    read_receipt,
    record_evidence,
    record_outcome,
    record_payment,
    release,
    renew_payment,
    reserve,
    stop_reason,
    take_approval,
    used_value,
)
from farthing.world.pending import Pending
from farthing.world.statement_rows import list_audited, statement_handlers
from farthing.world.store_url import is_postgres, shown, sqlite_path

# Of one answer to a cold question: some megabytes.
PAGE_MAX: Final = 1000


class AssetTotal(msgspec.Struct, frozen=True):
    """What was paid in one asset, in atomic units, and in how many purchases.

    `settled` has proof; `unknown` may have settled, or is under way; `refused` may still settle until its window ends.
    """

    network: str
    asset: str
    settled: int = 0
    unknown: int = 0
    refused: int = 0
    settled_count: int = 0
    unknown_count: int = 0
    refused_count: int = 0


class Promised(msgspec.Struct, frozen=True):
    """A purchase on credit: the entry, what was signed with its request, and the seller's receipt where one came."""

    purchase: Purchase
    promise: Promise
    receipt: Signed | None


class Journal:
    """The buyer's write-ahead record. Give it to every buyer that shares a budget; close it at the end.

    `purchases()`, `find()` and `totals()` ask; `mark_settled` and `mark_unspent` take a person's evidence for a payment
    that nobody answered for. The file is made for its owner alone, since it holds signed payments.
    """

    def __init__(self, store: str | Path, *, stop_file: str | Path | None = None) -> None:
        """Open the journal's file (`~` is the home directory), or make it; or take a URL (`farthing.world.database`).

        While `stop_file` exists, nobody who shares this journal pays; by default the journal's name with `.stop` added,
        and none beside PostgreSQL. Raises `StoreError`.
        """
        self.place = shown(store)
        self.stop_file: Path | None = None if stop_file is None else Path(stop_file).expanduser()
        if not is_postgres(store):
            path = sqlite_path(store)
            _make_private(path)
            self.stop_file = self.stop_file or Path(f"{path}.stop")
        self._database = open_database(store, family="buyer")
        self._noted: Pending[Any] | None = None

    def __repr__(self) -> str:
        """Name the file, or the database without its password."""
        return f"Journal({self.place!r})"

    def close(self) -> None:
        """Finish what was submitted, and close the file."""
        self._database.close()

    def handlers(self) -> Mapping[type[Effect[Any]], Callable[[Any], Any]]:
        """Handlers of the journal's effects, for a `Performer`."""
        return {
            FindOpen: self._find_open,
            Reserve: self._take_place,
            PresentAgain: partial(self._leave_again, present_again),
            RenewPayment: partial(self._leave_again, renew_payment),
            RecordPayment: self._record,
            TakeApproval: partial(self._submit, take_approval),
            Release: partial(self._submit, release),
            RecordOutcome: partial(self._submit, record_outcome),
            ListOpen: off_the_loop(self._database, self._list_open),
            RecordEvidence: partial(self._submit, record_evidence),
        }

    def audit_handlers(self) -> Mapping[type[Effect[Any]], Callable[[Any], Any]]:
        """Handlers of the auditor's effects (`farthing.buyer.audit_records`), for a `Performer`."""
        return statement_handlers(self._database, self._stop)

    def audited(self, *, limit: int = PAGE_MAX) -> list[AuditedStatement]:
        """List the statements that were audited, and what was signed for each, oldest first."""
        return self._database.read(lambda connection: list_audited(connection, min(limit, PAGE_MAX)))

    def stop(self, reason: str = "stopped by hand") -> None:
        """Throw the kill switch: from now on nothing is signed, and no payment leaves, in any process of this journal.

        What has left can still settle. `resume()` takes it back; so does removing `stop_file`, where that is used.
        """
        self._database.submit(lambda connection: connection.execute(STOP, (reason, _now())).rowcount).result()

    def resume(self) -> None:
        """Take `stop()` back. A `stop_file` stays: whoever made it removes it."""
        self._database.submit(lambda connection: connection.execute(RESUME).rowcount).result()

    def stopped(self) -> str:
        """Say who or what stops all payments, or nothing where they may go on."""
        found = self._database.read(self._stop)
        return found.reason if found is not None else ""

    def approve(self, approval_id: str, *, seconds: int = APPROVAL_DEFAULT_SECONDS) -> None:
        """Agree ahead to the one request and offer that a `PolicyRefused` named by this id: for so long, and once."""
        now = _now()
        row = (approval_id, now, now + seconds)
        self._database.submit(lambda connection: connection.execute(APPROVE, row).rowcount).result()

    def begin(self, purchase_id: str) -> None:
        """Say that this process works on the purchase, so that nobody takes it for cut. `Reserve` says it itself."""
        processes.begin(purchase_id)

    def end(self, purchase_id: str) -> None:
        """Say that the door is done with it, however it ended."""
        processes.end(purchase_id)

    def abandon(self, purchase_id: str) -> None:
        """Have a purchase that was cut marked so, without waiting: the same request presents the same payment.

        What was only sent is unknown; what was settled, and did not reach the caller, stays open for its window.
        """
        self.end(purchase_id)
        self._database.submit(lambda connection: connection.execute(ABANDON, (purchase_id,)).rowcount)

    def delivered(self, purchase_id: str) -> None:
        """Note that the caller has the whole answer, without waiting: a lost note costs a payment presented again."""
        future = self._database.submit(lambda connection: connection.execute(HANDED_OVER, (purchase_id,)).rowcount)
        # Not before: with neither note nor process it would pass for cut.
        future.add_done_callback(lambda _: self.end(purchase_id))
        self._noted = future

    def purchases(self, *, after: Purchase | None = None, limit: int = PAGE_MAX) -> list[Purchase]:
        """List purchases, oldest first, a page of at most `limit` (1,000) after the purchase `after`."""
        self._see_notes()
        start = (after.created_at, after.created_at, after.purchase_id) if after else (-1, -1, "")
        rows = self._database.read(lambda c: c.execute(SELECT_PAGE, (*start, min(limit, PAGE_MAX))).fetchall())
        return [read_purchase(row) for row in rows]

    def all_purchases(self) -> Iterator[Purchase]:
        """Go through all purchases, oldest first, a page at a time."""
        page = self.purchases()
        while page:
            yield from page
            page = self.purchases(after=page[-1])

    def promises(self, *, after: Purchase | None = None, limit: int = PAGE_MAX) -> list[Promised]:
        """List purchases on credit with what was signed and the seller's receipt, a page like `purchases()`."""
        self._see_notes()
        start = (after.created_at, after.created_at, after.purchase_id) if after else (-1, -1, "")
        rows = self._database.read(lambda c: c.execute(SELECT_PROMISES, (*start, min(limit, PAGE_MAX))).fetchall())
        found: list[Promised] = []
        for *columns, promise, receipt in rows:
            signed = read_promise(promise)
            if signed is not None:
                found.append(Promised(read_purchase(tuple(columns)), signed, read_receipt(receipt)))
        return found

    def find(self, payment_id: str) -> Purchase | None:
        """Find a purchase by its payment id; None where the journal has none."""
        self._see_notes()
        row = self._database.read(lambda c: c.execute(SELECT_BY_PAYMENT, (payment_id,)).fetchone())
        return read_purchase(row) if row else None

    def header_of(self, payment_id: str) -> str:
        """The signed payment as it was last sent, or would have been; empty where the journal has none."""
        row = self._database.read(lambda c: c.execute(SELECT_HEADER, (payment_id,)).fetchone())
        return str(row[0]) if row else ""

    def totals(self) -> list[AssetTotal]:
        """Add up what was paid, asset by asset."""
        totals: dict[tuple[str, str], AssetTotal] = {}
        kinds = {"settled": "settled", "refused": "refused", "unknown": "unknown", "sent": "unknown"}
        for each in self.all_purchases():
            kind = kinds.get(each.state)
            if kind is None:
                continue
            key = (each.network, each.asset)
            total = totals.get(key) or AssetTotal(*key)
            more = {kind: getattr(total, kind) + each.amount, f"{kind}_count": getattr(total, f"{kind}_count") + 1}
            totals[key] = msgspec.structs.replace(total, **more)
        return list(totals.values())

    def used(self, scope: str = "total", currency: str = "USD") -> int:
        """What a budget has used and reserved, in units of 10^-18 of `currency`."""
        return self._database.read(lambda c: used_value(c, scope, currency))

    def mark_settled(self, payment_id: str, *, transaction: str) -> Purchase:
        """Take a person's word that `transaction` settled the payment, and that its purchase is over."""
        purchase: Purchase = self._submit(mark, Mark(payment_id, "settled", transaction, "by hand", _now())).result()
        return purchase

    def mark_unspent(self, payment_id: str, *, evidence: str) -> Purchase:
        """Take a person's word that the payment can't settle any more, and give its place in the budget back.

        Only where the authorisation was cancelled, or is unused in a finalised block past `valid_before`: raises
        `StoreError` while its window is open.
        """
        purchase: Purchase = self._submit(mark, Mark(payment_id, "closed", "", evidence, _now())).result()
        return purchase

    def _see_notes(self) -> None:
        # What this process noted without waiting is seen by what it asks next.
        if self._noted is not None:
            with contextlib.suppress(StoreError):
                self._noted.result()

    def list_open(self, after: Purchase | None = None) -> tuple[OpenEntry, ...]:
        """List the payments that nobody knows the end of, oldest first, a page after the purchase `after`."""
        return self._list_open(ListOpen(after))

    def _list_open(self, effect: ListOpen) -> tuple[OpenEntry, ...]:
        return self._database.read(lambda connection: list_open(connection, effect))

    def _find_open(self, effect: FindOpen) -> OpenPayment | Pending[Any] | None:
        def look(connection: Connection) -> OpenPayment | None:
            return open_payment(connection, effect.request_print, effect.payer, effect.now_seconds)

        # A reader's view is older than what it then hears of who is busy: a purchase that ends in between would pass
        # for one that was cut. The writer, which alone records how one ends, looks again; nearly always there is none.
        if not is_remote(self._database) and self._database.read(look) is None:
            return None
        return self._database.submit(look)

    def _stop(self, connection: Connection) -> Stopped | None:
        if self.stop_file is not None and self.stop_file.exists():
            return Stopped(f"the file {self.stop_file} is there")
        return stop_reason(connection)

    def _leave_again(self, operation: Callable[[Connection, Any], bool], effect: Any) -> Pending[Any]:
        self.begin(effect.purchase_id)
        future = self._database.submit(lambda connection: self._stop(connection) or operation(connection, effect))
        future.add_done_callback(lambda done: None if _holds(done, answer=True) else self.end(effect.purchase_id))
        return future

    def _record(self, effect: RecordPayment) -> Pending[Any]:
        def record(connection: Connection) -> bool | Stopped:
            stopped = self._stop(connection)
            if stopped is None:
                return record_payment(connection, effect)
            release(connection, Release(effect.purchase_id, "stopped", effect.now_seconds))
            return stopped

        return self._database.submit(record)

    def _take_place(self, effect: Reserve) -> Pending[Any]:
        # Before the row is written: from then on another thread may find it, and must not take it for cut.
        self.begin(effect.purchase_id)
        future = self._database.submit(lambda connection: self._stop(connection) or reserve(connection, effect))
        future.add_done_callback(lambda done: None if _holds(done, answer=Reserved()) else self.end(effect.purchase_id))
        return future

    def _submit(self, operation: Callable[[Connection, Any], Any], argument: Any) -> Pending[Any]:
        return self._database.submit(lambda connection: operation(connection, argument))


def _holds(done: Pending[Any], *, answer: object) -> bool:
    return done.exception() is None and done.result() == answer


def _now() -> int:
    return int(time.time())


def _make_private(path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        message = f"The journal {path} can't be opened: {error.strerror}. Name a file in a folder that can be written."
        raise StoreError(message) from error
