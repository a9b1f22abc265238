"""The buyer's journal over SQLite: performs the effects of `farthing.buyer.journal`, and answers cold questions.

One file is shared by the threads and processes of a machine. Each effect is one operation of the database's writer,
which holds the file's write lock from its first read on: no two reservations see the same budget.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from farthing.buyer.journal import (
    FindOpen,
    OpenPayment,
    PresentAgain,
    Purchase,
    RecordOutcome,
    RecordPayment,
    Release,
    Reserve,
    Reserved,
)
from farthing.errors import StoreError
from farthing.flow import Effect
from farthing.world import processes
from farthing.world.journal_rows import (
    ABANDON,
    SELECT_BY_PAYMENT,
    SELECT_PAGE,
    Mark,
    mark,
    open_payment,
    present_again,
    read_purchase,
    record_outcome,
    record_payment,
    release,
    reserve,
    used_value,
)
from farthing.world.sqlite import Database, load_migrations

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


class Journal:
    """The buyer's write-ahead record. Give it to every buyer that shares a budget; close it at the end.

    `purchases()`, `find()` and `totals()` ask; `mark_settled` and `mark_unspent` take a person's evidence for a payment
    that nobody answered for. The file is made for its owner alone, since it holds signed payments.
    """

    def __init__(self, path: str | Path) -> None:
        """Open the journal's file (`~` is the home directory), or make it. Raises `StoreError`."""
        self.path = Path(path).expanduser()
        _make_private(self.path)
        self._database = Database(self.path, migrations=load_migrations("buyer"))

    def __repr__(self) -> str:
        """Name the file."""
        return f"Journal({str(self.path)!r})"

    def close(self) -> None:
        """Finish what was submitted, and close the file."""
        self._database.close()

    def handlers(self) -> Mapping[type[Effect[Any]], Callable[[Any], Any]]:
        """Handlers of the journal's effects, for a `Performer`."""
        return {
            FindOpen: self._find_open,
            Reserve: self._take_place,
            PresentAgain: self._present_again,
            RecordPayment: partial(self._submit, record_payment),
            Release: partial(self._submit, release),
            RecordOutcome: partial(self._submit, record_outcome),
        }

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

    def purchases(self, *, after: Purchase | None = None, limit: int = PAGE_MAX) -> list[Purchase]:
        """List purchases, oldest first, a page of at most `limit` (1,000) after the purchase `after`."""
        start = (after.created_at, after.created_at, after.purchase_id) if after else (-1, -1, "")
        rows = self._database.read(lambda c: c.execute(SELECT_PAGE, (*start, min(limit, PAGE_MAX))).fetchall())
        return [read_purchase(row) for row in rows]

    def all_purchases(self) -> Iterator[Purchase]:
        """Go through all purchases, oldest first, a page at a time."""
        page = self.purchases()
        while page:
            yield from page
            page = self.purchases(after=page[-1])

    def find(self, payment_id: str) -> Purchase | None:
        """Find a purchase by its payment id; None where the journal has none."""
        row = self._database.read(lambda c: c.execute(SELECT_BY_PAYMENT, (payment_id,)).fetchone())
        return read_purchase(row) if row else None

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

    def _find_open(self, effect: FindOpen) -> OpenPayment | Future[Any] | None:
        def look(connection: sqlite3.Connection) -> OpenPayment | None:
            return open_payment(connection, effect.request_print, effect.payer, effect.now_seconds)

        # A reader's view is older than what it then hears of who is busy: a purchase that ends in between would pass
        # for one that was cut. The writer, which alone records how one ends, looks again; nearly always there is none.
        return None if self._database.read(look) is None else self._database.submit(look)

    def _present_again(self, effect: PresentAgain) -> Future[Any]:
        self.begin(effect.purchase_id)
        return self._submit(present_again, effect)

    def _take_place(self, effect: Reserve) -> Future[Any]:
        # Before the row is written: from then on another thread may find it, and must not take it for cut.
        self.begin(effect.purchase_id)
        future = self._submit(reserve, effect)
        future.add_done_callback(lambda done: None if _is_reserved(done) else self.end(effect.purchase_id))
        return future

    def _submit(self, operation: Callable[[sqlite3.Connection, Any], Any], argument: Any) -> Future[Any]:
        return self._database.submit(lambda connection: operation(connection, argument))


def _is_reserved(done: Future[Any]) -> bool:
    return not done.cancelled() and done.exception() is None and isinstance(done.result(), Reserved)


def _now() -> int:
    return int(time.time())


def _make_private(path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        message = f"The journal {path} can't be opened: {error.strerror}. Name a file in a folder that can be written."
        raise StoreError(message) from error
