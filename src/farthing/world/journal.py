"""The buyer's journal over SQLite: performs the effects of `farthing.buyer.journal`, and answers cold questions.

One file is shared by the threads and processes of a machine. Each effect is one operation of the database's writer,
which holds the file's write lock from its first read on: no two reservations see the same budget.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final

import msgspec

from farthing.buyer.journal import (
    WINDOW_GRACE_SECONDS,
    FindOpen,
    OpenPayment,
    OverBudget,
    Purchase,
    RecordOutcome,
    RecordPayment,
    Release,
    Reserve,
    Reserved,
    State,
)
from farthing.errors import StoreError
from farthing.flow import Effect
from farthing.world.sqlite import Database, load_migrations

# Lapsed reservations and closed windows that one reservation takes back: bounded, so that none waits long. What is
# left counts against the budget until the next one, which errs on the safe side.
_SWEEP_MAX: Final = 64
# Open payments of one request that are looked at; more than a few are never open.
_OPEN_MAX: Final = 64
PAGE_MAX: Final = 1000

_OPEN_STATES: Final = "('sent', 'unknown', 'refused', 'settled')"
# A settled payment whose answer was a failure is presented again while its window is open: the seller may owe the work.
_FIND_OPEN: Final = f"""
SELECT purchase_id, payment_id, header, network, payer, state, valid_before, owner FROM purchases
WHERE request_print = ? AND payer = ? AND delivered = 0 AND state IN {_OPEN_STATES}
  AND (state IN ('sent', 'unknown') OR valid_before + {WINDOW_GRACE_SECONDS} > ?)
ORDER BY created_at, purchase_id LIMIT {_OPEN_MAX}
"""  # noqa: S608 - constants of this module
_RESERVED: Final = f"SELECT purchase_id, owner FROM purchases WHERE state = 'reserved' LIMIT {_SWEEP_MAX}"  # noqa: S608
_LAPSED: Final = f"""
SELECT purchase_id FROM purchases WHERE state = 'refused' AND valid_before + {WINDOW_GRACE_SECONDS} <= ?
ORDER BY valid_before LIMIT {_SWEEP_MAX}
"""  # noqa: S608 - constants of this module
_INSERT: Final = """
INSERT INTO purchases (
    purchase_id, state, delivered, owner, created_at, updated_at, method, url, host, request_print, payer, scheme,
    network, asset, pay_to, amount, currency, value, scopes, fingerprint, header, valid_before, transaction_hash, reason
) VALUES (?, 'reserved', 0, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '', '', 0, '', '')
"""
_RECORD_PAYMENT: Final = """
UPDATE purchases
SET state = 'sent', payment_id = ?, fingerprint = ?, header = ?, valid_before = ?, updated_at = ?
WHERE purchase_id = ? AND state = 'reserved' AND owner = ?
"""
_GIVE_BACK: Final = """
UPDATE purchases SET state = ?, reason = CASE WHEN reason = '' THEN ? ELSE reason END, updated_at = ?
WHERE purchase_id = ? AND state = ?
"""
# Unknown is left for settled alone, and settled is left for nothing.
_OUTCOME: Final = """
UPDATE purchases
SET state = ?, transaction_hash = CASE WHEN ? = '' THEN transaction_hash ELSE ? END, reason = ?, updated_at = ?
WHERE purchase_id = ? AND (state = 'sent' OR (state IN ('unknown', 'refused', 'closed') AND ? = 'settled')
                           OR (state = 'refused' AND ? = 'unknown'))
"""
_DELIVERED: Final = "UPDATE purchases SET delivered = 1, updated_at = ? WHERE purchase_id = ?"
_ABANDON: Final = """
UPDATE purchases SET state = 'unknown', reason = 'cut' WHERE purchase_id = ? AND state = 'sent' AND owner = ?
"""
_STATE: Final = "SELECT state FROM purchases WHERE purchase_id = ?"
_ACCOUNT: Final = "SELECT currency, value, scopes FROM purchases WHERE purchase_id = ?"
_USED: Final = "SELECT value FROM budgets WHERE scope = ? AND currency = ?"
_SET_USED: Final = """
INSERT INTO budgets (scope, currency, value) VALUES (?, ?, ?)
ON CONFLICT (scope, currency) DO UPDATE SET value = excluded.value
"""
_COLUMNS: Final = """
purchase_id, state, delivered, created_at, method, url, host, payer, scheme, network, asset, pay_to, amount, currency,
payment_id, valid_before, transaction_hash, reason
"""
_PAGE: Final = f"""
SELECT {_COLUMNS} FROM purchases WHERE created_at > ? OR (created_at = ? AND purchase_id > ?)
ORDER BY created_at, purchase_id LIMIT ?
"""  # noqa: S608 - constants of this module
_BY_PAYMENT: Final = f"SELECT {_COLUMNS} FROM purchases WHERE payment_id = ?"  # noqa: S608
_BY_ID: Final = f"SELECT {_COLUMNS} FROM purchases WHERE purchase_id = ?"  # noqa: S608

# Purchases that a door of this process is working on now, in whichever journal. What is sent and not among them was cut.
_under_way: set[str] = set()
_under_way_lock = threading.Lock()


class AssetTotal(msgspec.Struct, frozen=True):
    """What was paid in one asset, in atomic units, and in how many purchases.

    `settled` has proof; `unknown` may have settled (also what is under way); `refused` may still, until its window ends.
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
            RecordPayment: partial(self._submit, _record_payment),
            Release: partial(self._submit, _release),
            RecordOutcome: partial(self._submit, _record_outcome),
        }

    def begin(self, purchase_id: str) -> None:
        """Say that this process works on the purchase, so that nobody takes it for cut. `Reserve` says it itself."""
        with _under_way_lock:
            _under_way.add(purchase_id)

    def end(self, purchase_id: str) -> None:
        """Say that the door is done with it, however it ended."""
        with _under_way_lock:
            _under_way.discard(purchase_id)

    def abandon(self, purchase_id: str) -> None:
        """Have a purchase that was cut marked unknown, without waiting: what is only sent means the same to us."""
        self.end(purchase_id)
        owner = _this_process()
        self._database.submit(lambda connection: connection.execute(_ABANDON, (purchase_id, owner)).rowcount)

    def purchases(self, *, after: Purchase | None = None, limit: int = PAGE_MAX) -> list[Purchase]:
        """List purchases, oldest first, a page of at most `limit` (1,000) after the purchase `after`."""
        start = (after.created_at, after.created_at, after.purchase_id) if after else (-1, -1, "")
        rows = self._database.read(lambda c: c.execute(_PAGE, (*start, min(limit, PAGE_MAX))).fetchall())
        return [_purchase(row) for row in rows]

    def all_purchases(self) -> Iterator[Purchase]:
        """Go through all purchases, oldest first, a page at a time."""
        page = self.purchases()
        while page:
            yield from page
            page = self.purchases(after=page[-1])

    def find(self, payment_id: str) -> Purchase | None:
        """Find a purchase by its payment id; None where the journal has none."""
        row = self._database.read(lambda c: c.execute(_BY_PAYMENT, (payment_id,)).fetchone())
        return _purchase(row) if row else None

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
        return self._database.read(lambda c: _used(c, scope, currency))

    def mark_settled(self, payment_id: str, *, transaction: str) -> Purchase:
        """Take a person's word that `transaction` settled the payment, and that its purchase is over."""
        return self._submit(_mark, (payment_id, "settled", transaction, "marked by hand", _now())).result()

    def mark_unspent(self, payment_id: str, *, evidence: str) -> Purchase:
        """Take a person's word that the payment can't settle any more, and give its place in the budget back.

        Only where the authorisation was cancelled, or is unused in a finalised block past `valid_before`: raises
        `StoreError` while its window is open.
        """
        return self._submit(_mark, (payment_id, "closed", "", evidence, _now())).result()

    def _find_open(self, effect: FindOpen) -> OpenPayment | None:
        return self._database.read(lambda c: _open_payment(c, effect.request_print, effect.payer, effect.now_seconds))

    def _take_place(self, effect: Reserve) -> Future[Any]:
        # Before the row is written: from then on another thread may find it, and must not take it for cut.
        self.begin(effect.purchase_id)
        future = self._submit(_reserve, effect)
        future.add_done_callback(lambda done: None if _is_reserved(done) else self.end(effect.purchase_id))
        return future

    def _submit(self, operation: Callable[[sqlite3.Connection, Any], Any], argument: Any) -> Future[Any]:
        return self._database.submit(lambda connection: operation(connection, argument))


def _is_reserved(done: Future[Any]) -> bool:
    return not done.cancelled() and done.exception() is None and isinstance(done.result(), Reserved)


def _reserve(connection: sqlite3.Connection, effect: Reserve) -> Reserved | OverBudget | OpenPayment:
    found = _open_payment(connection, effect.request_print, effect.payer, effect.now_seconds)
    if found is not None:
        return found
    _sweep(connection, effect.now_seconds)
    used = {limit.scope: _used(connection, limit.scope, effect.currency) for limit in effect.limits}
    for limit in effect.limits:
        if limit.limit_value is not None and used[limit.scope] + effect.value > limit.limit_value:
            return OverBudget(limit, used[limit.scope])
    for scope, value in used.items():
        connection.execute(_SET_USED, (scope, effect.currency, str(value + effect.value)))
    scopes = msgspec.json.encode(list(used)).decode()
    now = effect.now_seconds
    row = (effect.method, effect.url, effect.host, effect.request_print, effect.payer, effect.scheme, effect.network)
    money = (effect.asset, effect.pay_to, str(effect.amount), effect.currency, str(effect.value), scopes)
    connection.execute(_INSERT, (effect.purchase_id, _this_process(), now, now, *row, *money))
    return Reserved()


def _record_payment(connection: sqlite3.Connection, effect: RecordPayment) -> bool:
    signed = (effect.payment_id, effect.fingerprint, effect.header, effect.valid_before, effect.now_seconds)
    return connection.execute(_RECORD_PAYMENT, (*signed, effect.purchase_id, _this_process())).rowcount == 1


def _release(connection: sqlite3.Connection, effect: Release) -> bool:
    return _give_back(connection, effect.purchase_id, "reserved", "released", effect.reason, effect.now_seconds)


def _record_outcome(connection: sqlite3.Connection, effect: RecordOutcome) -> State:
    before = _state(connection, effect.purchase_id)
    outcome, transaction, now = effect.outcome, effect.transaction, effect.now_seconds
    moved = connection.execute(
        _OUTCOME, (outcome, transaction, transaction, effect.reason, now, effect.purchase_id, outcome, outcome)
    ).rowcount
    if moved and before == "closed":
        _count(connection, effect.purchase_id, 1)
    if effect.delivered:
        connection.execute(_DELIVERED, (now, effect.purchase_id))
    return _state(connection, effect.purchase_id)


def _mark(connection: sqlite3.Connection, argument: tuple[str, State, str, str, int]) -> Purchase:
    payment_id, state, transaction, why, now_seconds = argument
    row = connection.execute(_BY_PAYMENT, (payment_id,)).fetchone()
    if row is None:
        message = f"The journal has no payment {payment_id!a}."
        raise StoreError(message)
    found = _purchase(row)
    if state == "settled":
        if found.state == "closed":
            _count(connection, found.purchase_id, 1)
        columns = "state = 'settled', delivered = 1, transaction_hash = ?, reason = ?, updated_at = ?"
        query = f"UPDATE purchases SET {columns} WHERE purchase_id = ?"  # noqa: S608 - constants
        connection.execute(query, (transaction, why, now_seconds, found.purchase_id))
    else:
        if found.state not in {"unknown", "refused", "sent"}:
            message = (
                f"Payment {payment_id} is {found.state}; only one that is unknown or refused can be marked unspent."
            )
            raise StoreError(message)
        if now_seconds < found.valid_before + WINDOW_GRACE_SECONDS:
            message = (
                f"The authorisation of payment {payment_id} can be used until {found.valid_before} (Unix time); mark it "
                f"{WINDOW_GRACE_SECONDS} s later, when a finalised block past that time shows it unused."
            )
            raise StoreError(message)
        _give_back(connection, found.purchase_id, found.state, "closed", why, now_seconds)
    return _purchase(connection.execute(_BY_ID, (found.purchase_id,)).fetchone())


def _open_payment(
    connection: sqlite3.Connection, request_print: str, payer: str, now_seconds: int
) -> OpenPayment | None:
    for *found, owner in connection.execute(_FIND_OPEN, (request_print, payer, now_seconds)):
        payment = OpenPayment(**dict(zip(OpenPayment.__struct_fields__, found, strict=True)))
        # A payment that somebody alive is waiting for is another purchase of the same thing, and no open one.
        if payment.state != "sent" or not _is_under_way(payment.purchase_id, owner):
            return payment
    return None


def _sweep(connection: sqlite3.Connection, now_seconds: int) -> None:
    for purchase_id, owner in connection.execute(_RESERVED).fetchall():
        # Its payload never left: it would be `sent`.
        if not _is_under_way(purchase_id, owner):
            _give_back(connection, purchase_id, "reserved", "released", "cut", now_seconds)
    for (purchase_id,) in connection.execute(_LAPSED, (now_seconds,)).fetchall():
        _give_back(connection, purchase_id, "refused", "closed", "", now_seconds)


def _give_back(
    connection: sqlite3.Connection, purchase_id: str, before: State, after: State, reason: str, now_seconds: int
) -> bool:
    moved = connection.execute(_GIVE_BACK, (after, reason, now_seconds, purchase_id, before)).rowcount == 1
    if moved:
        _count(connection, purchase_id, -1)
    return moved


def _count(connection: sqlite3.Connection, purchase_id: str, times: int) -> None:
    currency, value, scopes = connection.execute(_ACCOUNT, (purchase_id,)).fetchone()
    for scope in msgspec.json.decode(scopes, type=list[str]):
        used = _used(connection, scope, currency) + times * int(value)
        connection.execute(_SET_USED, (scope, currency, str(used)))


def _used(connection: sqlite3.Connection, scope: str, currency: str) -> int:
    row = connection.execute(_USED, (scope, currency)).fetchone()
    return int(row[0]) if row else 0


def _state(connection: sqlite3.Connection, purchase_id: str) -> State:
    row = connection.execute(_STATE, (purchase_id,)).fetchone()
    if row is None:
        message = f"The journal has no purchase {purchase_id!a}; was its file replaced?"
        raise StoreError(message)
    state: State = row[0]
    return state


def _purchase(row: tuple[Any, ...]) -> Purchase:
    facts = dict(zip(Purchase.__struct_fields__, row, strict=True))
    return Purchase(**facts | {"delivered": bool(facts["delivered"]), "amount": int(facts["amount"])})


def _now() -> int:
    return int(time.time())


def _make_private(path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        message = f"The journal {path} can't be opened: {error.strerror}. Name a file in a folder that can be written."
        raise StoreError(message) from error


def _is_under_way(purchase_id: str, owner: str) -> bool:
    if owner != _this_process():
        return _is_alive(owner)
    with _under_way_lock:
        return purchase_id in _under_way


def _this_process() -> str:
    return _owner(os.getpid())


@lru_cache(maxsize=2)  # this process, and after a fork its parent
def _owner(pid: int) -> str:
    return f"{pid}:{_started(pid)}"


def _is_alive(owner: str) -> bool:
    """Tell whether the process that wrote `owner` still runs.

    A process of another container can't be seen and counts as dead: then its payment is presented again, which can't
    pay twice.
    """
    pid_text, _, started = owner.partition(":")
    pid = int(pid_text)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OSError):
        pass
    return _started(pid) == started


def _started(pid: int) -> str:
    # The start in clock ticks since boot: a process id that was given away again is another process. Linux only;
    # elsewhere the id alone must do.
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:
        return ""
    # The second field is the command's name in parentheses, which may hold anything; starttime is the 22nd.
    return f"{stat.rpartition(')')[2].split()[19]}@{boot.strip()}"
