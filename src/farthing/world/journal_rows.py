"""The journal's SQL, named, and its operations: each a function of a connection that holds the write lock."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from farthing.buyer.journal import (
    PROMISE_GRACE_SECONDS,
    WINDOW_GRACE_SECONDS,
    ListOpen,
    OpenEntry,
    OpenPayment,
    OverBudget,
    PayeeChanged,
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
    State,
    Stopped,
    TakeApproval,
    TooFast,
)
from farthing.buyer.policy import fold_asset
from farthing.errors import StoreError
from farthing.protocol.clearing import Signed
from farthing.world.connection import Connection
from farthing.world.processes import is_under_way, this_process

# Reservations of dead processes that one reservation takes back: bounded, so that none waits long. What is left counts
# against the budget until the next one, which errs on the safe side.
_SWEEP_MAX: Final = 64
# A reservation without a payment is older than this only where its signer is slow or its process is gone.
_RESERVATION_SECONDS: Final = 60
# Open payments of one request that are looked at; more than a few are never open.
_OPEN_MAX: Final = 64

_OPEN_STATES: Final = "('sent', 'unknown', 'refused', 'settled')"
# Open until the resource came, or until there is evidence that it can't settle any more: no clock is evidence. A
# settled payment without its resource is open too, since the seller owes the work and a second one would pay twice.
_FIND_OPEN: Final = f"""
SELECT purchase_id, payment_id, header, network, payer, state, valid_before, asset, pay_to, amount, promise,
       delivered, owner
FROM purchases
WHERE request_print = ? AND payer = ? AND delivered <> 1 AND state IN {_OPEN_STATES}
  AND (promise = '' OR valid_before > ?) AND purchase_id <> ?
ORDER BY created_at, purchase_id LIMIT {_OPEN_MAX}
"""  # noqa: S608 - constants of this module
# What takes part in a rate: whatever was signed, or is about to be.
_COUNT_RECENT: Final = """
SELECT COUNT(*) FROM (
    SELECT purchase_id FROM purchases WHERE created_at > ? AND state <> 'released' LIMIT ?
) AS recent
"""
_PAYEES: Final = "SELECT pay_to FROM payees WHERE authority = ? AND network = ? ORDER BY pinned_at, pay_to"
_PIN: Final = """
INSERT INTO payees (authority, network, pay_to, purchase_id, pinned_at) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (authority, network, pay_to) DO NOTHING
"""
_PAID_TO: Final = "SELECT network, pay_to FROM purchases WHERE purchase_id = ?"
_UNPIN: Final = "DELETE FROM payees WHERE purchase_id = ?"
_STOPPED: Final = "SELECT reason FROM switches WHERE name = 'stop'"
STOP: Final = """
INSERT INTO switches (name, reason, set_at) VALUES ('stop', ?, ?)
ON CONFLICT (name) DO UPDATE SET reason = excluded.reason, set_at = excluded.set_at
"""
RESUME: Final = "DELETE FROM switches WHERE name = 'stop'"
APPROVE: Final = """
INSERT INTO approvals (approval_id, approved_at, expires_at, used_by) VALUES (?, ?, ?, '')
ON CONFLICT (approval_id) DO UPDATE
SET approved_at = excluded.approved_at, expires_at = excluded.expires_at, used_by = ''
"""
_TAKE_APPROVAL: Final = "UPDATE approvals SET used_by = ? WHERE approval_id = ? AND used_by = '' AND expires_at >= ?"
_RESERVED: Final = f"""
SELECT purchase_id, owner FROM purchases WHERE state = 'reserved' AND created_at <= ? LIMIT {_SWEEP_MAX}
"""  # noqa: S608 - constants of this module
_INSERT: Final = """
INSERT INTO purchases (
    purchase_id, state, delivered, owner, created_at, updated_at, method, url, host, request_print, payer, scheme,
    network, asset, pay_to, amount, currency, value, scopes, fingerprint, header, valid_before, transaction_hash, reason
) VALUES (?, 'reserved', 0, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '', '', 0, '', '')
"""
_RECORD_PAYMENT: Final = """
UPDATE purchases
SET state = 'sent', payment_id = ?, fingerprint = ?, header = ?, valid_before = ?, promise = ?, updated_at = ?
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
# Its purchase goes on as another one. It stays refused, and keeps its place in the budget.
_SUPERSEDE: Final = "UPDATE purchases SET delivered = 1, updated_at = ? WHERE purchase_id = ? AND state = 'refused'"
_RECEIPT: Final = "UPDATE purchases SET receipt = ? WHERE purchase_id = ?"
# 1: the caller has the resource. 2: its answer came, and the body is still on its way to the caller: whoever dies
# before the end has not delivered it, and the same request presents the same payment.
_DELIVERED_WHOLE: Final = 1
_HANDING_OVER: Final = 2
_DELIVERED: Final = "UPDATE purchases SET delivered = ?, owner = ?, updated_at = ? WHERE purchase_id = ?"
HANDED_OVER: Final = f"""
UPDATE purchases SET delivered = {_DELIVERED_WHOLE} WHERE purchase_id = ? AND delivered = {_HANDING_OVER}
"""  # noqa: S608 - constants of this module
# The caller has not got the answer: what was sent is unknown, and what was settled is asked for with the same payment.
ABANDON: Final = """
UPDATE purchases
SET state = CASE WHEN state = 'sent' THEN 'unknown' ELSE state END, delivered = 0, reason = 'cut'
WHERE purchase_id = ? AND state IN ('sent', 'unknown', 'refused', 'settled')
"""
# What was refused counts as sent again, for good if need be; what was sent by somebody who is gone is unknown.
_PRESENT_AGAIN: Final = f"""
UPDATE purchases
SET state = CASE WHEN state = 'refused' THEN 'sent' WHEN state = 'sent' THEN 'unknown' ELSE state END, owner = ?
WHERE purchase_id = ? AND delivered <> 1 AND state IN {_OPEN_STATES}
"""  # noqa: S608 - constants of this module
# A second payload of the same right: the first one's place in the budget is its own, too.
_RENEW: Final = """
UPDATE purchases
SET state = CASE WHEN state = 'refused' THEN 'sent' WHEN state = 'sent' THEN 'unknown' ELSE state END, owner = ?,
    fingerprint = ?, header = ?, valid_before = ?, updated_at = ?
WHERE purchase_id = ? AND payment_id = ? AND valid_before = ? AND delivered <> 1
  AND state IN ('sent', 'unknown', 'refused')
"""
# Evidence ends what nobody knew, and puts right what somebody said; settled is left for nothing.
_EVIDENCE: Final = """
UPDATE purchases
SET state = ?, transaction_hash = CASE WHEN ? = '' THEN transaction_hash ELSE ? END, evidence = ?, updated_at = ?
WHERE purchase_id = ? AND state IN ('sent', 'unknown', 'refused', 'closed', 'settled')
  AND (state <> 'settled' OR ? = 'settled')
"""
_STATE: Final = "SELECT state FROM purchases WHERE purchase_id = ?"
_ACCOUNT: Final = "SELECT currency, value, scopes FROM purchases WHERE purchase_id = ?"
_USED: Final = "SELECT value FROM budgets WHERE scope = ? AND currency = ?"
_SET_USED: Final = """
INSERT INTO budgets (scope, currency, value) VALUES (?, ?, ?)
ON CONFLICT (scope, currency) DO UPDATE SET value = excluded.value
"""
COLUMNS: Final = """
purchase_id, state, delivered, created_at, method, url, host, payer, scheme, network, asset, pay_to, amount, currency,
payment_id, valid_before, transaction_hash, reason, evidence
"""
# What is listed at once of payments without an end: their signed payloads are a kilobyte or two each.
_OPEN_PAGE: Final = 100
_LIST_OPEN: Final = f"""
SELECT {COLUMNS}, header, request_print, owner FROM purchases
WHERE state IN ('sent', 'unknown', 'refused') AND (created_at > ? OR (created_at = ? AND purchase_id > ?))
  AND promise = ''
ORDER BY created_at, purchase_id LIMIT {_OPEN_PAGE}
"""  # noqa: S608 - constants of this module
SELECT_PAGE: Final = f"""
SELECT {COLUMNS} FROM purchases WHERE created_at > ? OR (created_at = ? AND purchase_id > ?)
ORDER BY created_at, purchase_id LIMIT ?
"""  # noqa: S608 - constants of this module
SELECT_PROMISES: Final = f"""
SELECT {COLUMNS}, promise, receipt FROM purchases
WHERE promise <> '' AND (created_at > ? OR (created_at = ? AND purchase_id > ?))
ORDER BY created_at, purchase_id LIMIT ?
"""  # noqa: S608 - constants of this module
_PROMISE: Final = "SELECT promise, billed_in FROM purchases WHERE purchase_id = ?"
_DISPUTED: Final = "SELECT 1 FROM audited_disputes WHERE network = ? AND statement = ? AND line = ?"
SELECT_BY_PAYMENT: Final = f"SELECT {COLUMNS} FROM purchases WHERE payment_id = ?"  # noqa: S608
SELECT_HEADER: Final = "SELECT header FROM purchases WHERE payment_id = ?"
_BY_ID: Final = f"SELECT {COLUMNS} FROM purchases WHERE purchase_id = ?"  # noqa: S608


class Mark(msgspec.Struct, frozen=True):
    """A person's word on a payment that nobody answered for."""

    payment_id: str
    state: State
    transaction: str
    why: str
    now_seconds: int


def reserve(connection: Connection, effect: Reserve) -> Reserved | OverBudget | OpenPayment | PayeeChanged | TooFast:
    """Take a place in the budgets, all of them or none."""
    found = open_payment(connection, effect.request_print, effect.payer, effect.now_seconds, effect.instead_of)
    if found is not None:
        return found
    _sweep(connection, effect.now_seconds)
    pay_to = fold_asset(effect.pay_to)
    if effect.authority and not effect.payee_known:
        pinned = [row[0] for row in connection.execute(_PAYEES, (effect.authority, effect.network)).fetchall()]
        known = (*effect.payees, *pinned)
        if known and pay_to not in known:
            return PayeeChanged(known)
    if effect.rate is not None:
        since = effect.now_seconds - effect.rate.seconds
        (count,) = connection.execute(_COUNT_RECENT, (since, effect.rate.count_max)).fetchone()
        if count >= effect.rate.count_max:
            return TooFast(effect.rate)
    used = {limit.scope: used_value(connection, limit.scope, effect.currency) for limit in effect.limits}
    for limit in effect.limits:
        if limit.limit_value is not None and used[limit.scope] + effect.value > limit.limit_value:
            return OverBudget(limit, used[limit.scope])
    for scope, value in used.items():
        connection.execute(_SET_USED, (scope, effect.currency, str(value + effect.value)))
    scopes = msgspec.json.encode(list(used)).decode()
    now = effect.now_seconds
    row = (effect.method, effect.url, effect.host, effect.request_print, effect.payer, effect.scheme, effect.network)
    money = (effect.asset, effect.pay_to, str(effect.amount), effect.currency, str(effect.value), scopes)
    connection.execute(_INSERT, (effect.purchase_id, this_process(), now, now, *row, *money))
    if effect.authority:
        connection.execute(_PIN, (effect.authority, effect.network, pay_to, effect.purchase_id, now))
    return Reserved()


def record_payment(connection: Connection, effect: RecordPayment) -> bool:
    """Put a signed payload on record; False where its reservation is gone."""
    promise = "" if effect.promise is None else msgspec.json.encode(effect.promise).decode()
    signed = (effect.payment_id, effect.fingerprint, effect.header, effect.valid_before, promise, effect.now_seconds)
    if connection.execute(_RECORD_PAYMENT, (*signed, effect.purchase_id, this_process())).rowcount != 1:
        return False
    if effect.instead_of:
        connection.execute(_SUPERSEDE, (effect.now_seconds, effect.instead_of))
    if effect.authority:
        # Once more: whoever pinned it first may have given its place back meanwhile, and the pin with it.
        network, pay_to = connection.execute(_PAID_TO, (effect.purchase_id,)).fetchone()
        pin = (effect.authority, network, fold_asset(pay_to), effect.purchase_id, effect.now_seconds)
        connection.execute(_PIN, pin)
    return True


def stop_reason(connection: Connection) -> Stopped | None:
    """Say whether the kill switch is on."""
    row = connection.execute(_STOPPED).fetchone()
    return Stopped(row[0]) if row else None


def take_approval(connection: Connection, effect: TakeApproval) -> bool:
    """Use an approval up; False where there is none to use."""
    taken = connection.execute(_TAKE_APPROVAL, (effect.purchase_id, effect.approval_id, effect.now_seconds))
    return taken.rowcount == 1


def renew_payment(connection: Connection, effect: RenewPayment) -> bool:
    """Put a second payload on record; False where the payment is not open any more, or not the one that was seen."""
    signed = (this_process(), effect.fingerprint, effect.header, effect.valid_before, effect.now_seconds)
    which = (effect.purchase_id, effect.payment_id, effect.instead_of)
    return connection.execute(_RENEW, (*signed, *which)).rowcount == 1


def list_open(connection: Connection, effect: ListOpen) -> tuple[OpenEntry, ...]:
    """List payments without an end, a page."""
    after = effect.after
    start = (after.created_at, after.created_at, after.purchase_id) if after else (-1, -1, "")
    entries: list[OpenEntry] = []
    for row in connection.execute(_LIST_OPEN, start).fetchall():
        *columns, header, request_print, owner = row
        purchase = read_purchase(tuple(columns))
        waiting = purchase.state == "sent" and is_under_way(purchase.purchase_id, owner)
        entries.append(OpenEntry(purchase, header, request_print, waiting))
    return tuple(entries)


def record_evidence(connection: Connection, effect: RecordEvidence) -> State:
    """Record what evidence says, and keep the budgets in step."""
    before = _state(connection, effect.purchase_id)
    said = (effect.state, effect.transaction, effect.transaction, effect.evidence, effect.now_seconds)
    moved = connection.execute(_EVIDENCE, (*said, effect.purchase_id, effect.state)).rowcount == 1
    after = _state(connection, effect.purchase_id)
    if moved and (before == "closed") != (after == "closed"):
        _count(connection, effect.purchase_id, 1 if before == "closed" else -1)
    return after


def present_again(connection: Connection, effect: PresentAgain) -> bool:
    """Record that a payment leaves once more; False where it is not open any more."""
    return connection.execute(_PRESENT_AGAIN, (this_process(), effect.purchase_id)).rowcount == 1


def release(connection: Connection, effect: Release) -> bool:
    """Give a reservation back."""
    return _give_back(connection, effect.purchase_id, "reserved", "released", effect.reason, effect.now_seconds)


def record_outcome(connection: Connection, effect: RecordOutcome) -> State:
    """Record what became of a payment, and say which state it has now."""
    before = _state(connection, effect.purchase_id)
    outcome, transaction, now = effect.outcome, effect.transaction, effect.now_seconds
    moved = connection.execute(
        _OUTCOME, (outcome, transaction, transaction, effect.reason, now, effect.purchase_id, outcome, outcome)
    ).rowcount
    if moved and before == "closed":
        _count(connection, effect.purchase_id, 1)
    if effect.delivered:
        delivered = _HANDING_OVER if effect.handing_over else _DELIVERED_WHOLE
        connection.execute(_DELIVERED, (delivered, this_process(), now, effect.purchase_id))
    if effect.receipt is not None:
        connection.execute(_RECEIPT, (msgspec.json.encode(effect.receipt).decode(), effect.purchase_id))
    return _state(connection, effect.purchase_id)


def mark(connection: Connection, order: Mark) -> Purchase:
    """Do as the person says, where the state allows it. Raises `StoreError`."""
    payment_id, now_seconds = order.payment_id, order.now_seconds
    row = connection.execute(SELECT_BY_PAYMENT, (payment_id,)).fetchone()
    if row is None:
        message = f"The journal has no payment {payment_id!a}."
        raise StoreError(message)
    found = read_purchase(row)
    if order.state == "settled":
        if found.state == "closed":
            _count(connection, found.purchase_id, 1)
        columns = "state = 'settled', delivered = 1, transaction_hash = ?, reason = ?, updated_at = ?"
        query = f"UPDATE purchases SET {columns} WHERE purchase_id = ?"  # noqa: S608 - constants
        connection.execute(query, (order.transaction, order.why, now_seconds, found.purchase_id))
    else:
        if found.state not in {"unknown", "refused", "sent"}:
            message = (
                f"Payment {payment_id} is {found.state}; only one that is unknown or refused can be marked unspent."
            )
            raise StoreError(message)
        promise, billed_in = connection.execute(_PROMISE, (found.purchase_id,)).fetchone()
        _see_unbilled(connection, found, read_promise(promise), billed_in)
        grace_seconds = PROMISE_GRACE_SECONDS if promise else WINDOW_GRACE_SECONDS
        if now_seconds < found.valid_before + grace_seconds:
            shows = "no statement lists it" if promise else "a finalised block past that time shows it unused"
            message = (
                f"The authorisation of payment {payment_id} can be used until {found.valid_before} (Unix time); mark "
                f"it {grace_seconds} s later, when {shows}."
            )
            raise StoreError(message)
        _give_back(connection, found.purchase_id, found.state, "closed", order.why, now_seconds)
    return read_purchase(connection.execute(_BY_ID, (found.purchase_id,)).fetchone())


def _see_unbilled(connection: Connection, found: Purchase, promise: Promise | None, billed_in: str) -> None:
    """See that no statement asks for a promise, or that the line is disputed. Raises `StoreError`."""
    if promise is None or not billed_in:
        return
    place = (found.network, billed_in, promise.promise_id)
    if connection.execute(_DISPUTED, place).fetchone() is None:
        message = (
            f"The statement {billed_in} bills payment {found.payment_id}, and the line is not disputed: it is owed."
        )
        raise StoreError(message)


def open_payment(
    connection: Connection, request_print: str, payer: str, now_seconds: int, instead_of: str = ""
) -> OpenPayment | None:
    """Find the oldest open payment of a request, but for the one that another takes the place of."""
    for *found, delivered, owner in connection.execute(_FIND_OPEN, (request_print, payer, now_seconds, instead_of)):
        facts: dict[str, Any] = dict(zip(OpenPayment.__struct_fields__, found, strict=True))
        facts["amount"] = int(facts["amount"])
        facts["promise"] = read_promise(facts["promise"])
        payment = OpenPayment(**facts)
        # A payment that somebody alive is waiting for, or whose answer somebody is reading just now, is another
        # purchase of the same thing, and no open one.
        at_work = payment.state == "sent" or delivered == _HANDING_OVER
        if not at_work or not is_under_way(payment.purchase_id, owner):
            return payment
    return None


def _sweep(connection: Connection, now_seconds: int) -> None:
    for purchase_id, owner in connection.execute(_RESERVED, (now_seconds - _RESERVATION_SECONDS,)).fetchall():
        # Its payload never left: it would be `sent`.
        if not is_under_way(purchase_id, owner):
            _give_back(connection, purchase_id, "reserved", "released", "cut", now_seconds)


def _give_back(  # noqa: PLR0917 - a row, from where to where
    connection: Connection, purchase_id: str, before: State, after: State, reason: str, now_seconds: int
) -> bool:
    moved = connection.execute(_GIVE_BACK, (after, reason, now_seconds, purchase_id, before)).rowcount == 1
    if moved:
        _count(connection, purchase_id, -1)
    if moved and after == "released":
        # Nobody was paid, so nobody was pinned.
        connection.execute(_UNPIN, (purchase_id,))
    return moved


def _count(connection: Connection, purchase_id: str, times: int) -> None:
    currency, value, scopes = connection.execute(_ACCOUNT, (purchase_id,)).fetchone()
    for scope in msgspec.json.decode(scopes, type=list[str]):
        used = used_value(connection, scope, currency) + times * int(value)
        connection.execute(_SET_USED, (scope, currency, str(used)))


def used_value(connection: Connection, scope: str, currency: str) -> int:
    """Read what a budget has used and reserved."""
    row = connection.execute(_USED, (scope, currency)).fetchone()
    return int(row[0]) if row else 0


def _state(connection: Connection, purchase_id: str) -> State:
    row = connection.execute(_STATE, (purchase_id,)).fetchone()
    if row is None:
        message = f"The journal has no purchase {purchase_id!a}; was its file replaced?"
        raise StoreError(message)
    state: State = row[0]
    return state


def read_promise(text: str) -> Promise | None:
    """Read what was signed together with a request; None where nothing was."""
    return msgspec.json.decode(text, type=Promise) if text else None


def read_receipt(text: str) -> Signed | None:
    """Read a seller's receipt; None where there is none."""
    return msgspec.json.decode(text, type=Signed) if text else None


def read_purchase(row: tuple[Any, ...]) -> Purchase:
    """Read a row of the page's columns."""
    facts: dict[str, Any] = dict(zip(Purchase.__struct_fields__, row, strict=True))
    facts["delivered"], facts["amount"] = facts["delivered"] == _DELIVERED_WHOLE, int(facts["amount"])
    facts["payment_id"] = facts["payment_id"] or ""  # none yet: nothing is signed
    return Purchase(**facts)
