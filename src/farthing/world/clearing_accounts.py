"""Accounts, tokens, edges and credit leases in the clearing house's store."""

# ruff: noqa: S105, S608 - tokens are kept as hashes; what is put into statements are names of states, from a table in code, and marks

from __future__ import annotations

from typing import Any, Final

from farthing.clearing.rules import payee_key, payer_key, room, warns
from farthing.clearing.states import ACTIVE, LEASE, OPEN
from farthing.clearing.store import (
    AddToken,
    Audit,
    Caller,
    CloseLease,
    FindPayee,
    FindPayer,
    FindToken,
    GrantLease,
    LapseLeases,
    LeaseRefused,
    Payee,
    Payer,
    ProvePayee,
    RegisterPayee,
    RegisterPayer,
    RevokeToken,
    SetPayerState,
    StartEdge,
)
from farthing.protocol.clearing import KEY_CACHE_SECONDS, Lease, LeaseClosed
from farthing.world.clearing_compromise import compromised_of
from farthing.world.connection import INTEGER_MAX, Connection

SELECT_PAYER: Final = """
SELECT p.payer, p.directory, p.currency, p.state, p.why, p.credit_limit, p.owed, p.prepaid, COALESCE((
    SELECT SUM(CASE WHEN l.amount > l.spent THEN l.amount - l.spent ELSE 0 END)
    FROM clearing_leases l WHERE l.payer = p.payer AND l.state = 'open'
), 0), p.recourse FROM clearing_payers p
"""
SELECT_PAYEE: Final = (
    "SELECT payee, name, domain, currency, address, challenge, proved_at, guaranteed FROM clearing_payees"
)
_INSERT_PAYER: Final = f"""
INSERT INTO clearing_payers (payer, directory, currency, state, credit_limit, created_at)
VALUES (?, ?, ?, '{ACTIVE}', ?, ?)
ON CONFLICT (payer) DO UPDATE SET credit_limit = excluded.credit_limit
WHERE clearing_payers.currency = excluded.currency
"""
_INSERT_PAYEE: Final = """
INSERT INTO clearing_payees (payee, name, domain, currency, address, challenge, created_at) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (payee) DO UPDATE SET domain = excluded.domain, address = excluded.address,
    proved_at = CASE WHEN clearing_payees.domain = excluded.domain AND clearing_payees.address = excluded.address
        THEN clearing_payees.proved_at END,
    challenge = CASE WHEN clearing_payees.domain = excluded.domain AND clearing_payees.address = excluded.address
        THEN clearing_payees.challenge ELSE excluded.challenge END
WHERE clearing_payees.currency = excluded.currency
"""
_PROVE: Final = "UPDATE clearing_payees SET proved_at = ? WHERE payee = ? AND challenge = ?"
_SET_STATE: Final = "UPDATE clearing_payers SET state = ?, why = ? WHERE payer = ?"
_KEEP_TOKEN: Final = """
INSERT INTO clearing_tokens (digest, name, role, subject, created_at) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING
"""
_REVOKE: Final = "UPDATE clearing_tokens SET revoked_at = ? WHERE name = ? AND revoked_at IS NULL"
_FIND_TOKEN: Final = "SELECT name, role, subject FROM clearing_tokens WHERE digest = ? AND revoked_at IS NULL"
_AUDIT: Final = "INSERT INTO clearing_audit (at, who, what, subject, detail) VALUES (?, ?, ?, ?, ?)"
_START_EDGE: Final = """
INSERT INTO clearing_edges (edge, epoch, started_at) VALUES (?, 1, ?)
ON CONFLICT (edge) DO UPDATE SET epoch = clearing_edges.epoch + 1, started_at = excluded.started_at
RETURNING epoch
"""
_EPOCH: Final = "SELECT epoch FROM clearing_edges WHERE edge = ?"
# A row that is written holds its lock: of two processes one sees what the other granted.
_LOCK_PAYER: Final = "UPDATE clearing_payers SET owed = owed WHERE payer = ?"
_FIND_LEASE: Final = """
SELECT l.lease, l.edge, l.epoch, p.directory, l.amount, p.currency, l.seconds
FROM clearing_leases l JOIN clearing_payers p ON p.payer = l.payer WHERE l.edge = ? AND l.epoch = ? AND l.request = ?
"""
_INSERT_LEASE: Final = f"""
INSERT INTO clearing_leases (lease, edge, epoch, request, payer, amount, seconds, granted_at, expires_at, state)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, '{OPEN}')
"""
_LEASE_COUNTS: Final = "SELECT state, lines, spent FROM clearing_leases WHERE lease = ? AND edge = ?"
_CLOSE_LEASE: Final = f"""
UPDATE clearing_leases SET state = '{LEASE.move("close").target}', closed_at = ?
WHERE lease = ? AND edge = ? AND state = '{OPEN}' AND lines = ? AND spent = ?
"""
_LAPSE: Final = f"""
UPDATE clearing_leases SET state = '{LEASE.move("lapse").target}', closed_at = ?
WHERE state = '{OPEN}' AND expires_at < ?
"""


def read_payer(row: tuple[Any, ...]) -> Payer:
    """Read a row of `SELECT_PAYER`."""
    key, directory, currency, state, why, credit_limit, owed, prepaid, leased, recourse = row
    return Payer(key, directory, currency, state, why, credit_limit, owed, prepaid, int(leased), recourse)


def find_payer(at: Connection, effect: FindPayer) -> Payer | None:
    """Perform `FindPayer`."""
    row = at.execute(f"{SELECT_PAYER} WHERE p.payer = ?", (payer_key(effect.directory),)).fetchone()
    return None if row is None else read_payer(row)


def find_payee(at: Connection, effect: FindPayee) -> Payee | None:
    """Perform `FindPayee`."""
    row = at.execute(f"{SELECT_PAYEE} WHERE payee = ?", (payee_key(effect.name),)).fetchone()
    return None if row is None else Payee(*row)


def register_payer(at: Connection, effect: RegisterPayer) -> Payer | None:
    """Perform `RegisterPayer`."""
    row = (payer_key(effect.directory), effect.directory, effect.currency, effect.credit_limit, effect.now_seconds)
    if at.execute(_INSERT_PAYER, row).rowcount != 1:
        return None
    return find_payer(at, FindPayer(effect.directory))


def register_payee(at: Connection, effect: RegisterPayee) -> Payee | None:
    """Perform `RegisterPayee`."""
    place = (effect.domain, effect.currency, effect.address, effect.challenge, effect.now_seconds)
    if at.execute(_INSERT_PAYEE, (payee_key(effect.name), effect.name, *place)).rowcount != 1:
        return None
    return find_payee(at, FindPayee(effect.name))


def prove_payee(at: Connection, effect: ProvePayee) -> bool:
    """Perform `ProvePayee`."""
    return at.execute(_PROVE, (effect.now_seconds, payee_key(effect.name), effect.challenge)).rowcount == 1


def set_payer_state(at: Connection, effect: SetPayerState) -> bool:
    """Perform `SetPayerState`."""
    return at.execute(_SET_STATE, (effect.state, effect.why, payer_key(effect.directory))).rowcount == 1


def add_token(at: Connection, effect: AddToken) -> bool:
    """Perform `AddToken`."""
    row = (effect.digest, effect.name, effect.role, effect.subject, effect.now_seconds)
    return at.execute(_KEEP_TOKEN, row).rowcount == 1


def revoke_token(at: Connection, effect: RevokeToken) -> bool:
    """Perform `RevokeToken`."""
    return at.execute(_REVOKE, (effect.now_seconds, effect.name)).rowcount == 1


def find_token(at: Connection, effect: FindToken) -> Caller | None:
    """Perform `FindToken`."""
    row = at.execute(_FIND_TOKEN, (effect.digest,)).fetchone()
    return None if row is None else Caller(*row)


def audit(at: Connection, effect: Audit) -> None:
    """Perform `Audit`."""
    at.execute(_AUDIT, (effect.now_seconds, effect.who, effect.what, effect.subject, effect.detail))


def start_edge(at: Connection, effect: StartEdge) -> int:
    """Perform `StartEdge`."""
    return int(at.execute(_START_EDGE, (effect.edge, effect.now_seconds)).fetchone()[0])


def grant_lease(at: Connection, effect: GrantLease) -> Lease | LeaseRefused:
    """Perform `GrantLease`: C4, the payer's row is locked before its leases are added up."""
    asked = effect.request
    payer = payer_key(asked.payer)
    locked = at.execute(_LOCK_PAYER, (payer,)).rowcount == 1
    account = find_payer(at, FindPayer(asked.payer)) if locked else None
    if account is None:
        return LeaseRefused("unknown_payer", f"{asked.payer} has no account here.")
    epoch = at.execute(_EPOCH, (asked.edge,)).fetchone()
    if epoch is None or epoch[0] != asked.epoch:
        return LeaseRefused("fenced", f"Epoch {asked.epoch} of the edge is not its current one: start it anew.")
    credit = {"credit_limit": account.credit_limit, "prepaid": account.prepaid, "owed": account.owed}
    known = at.execute(_FIND_LEASE, (asked.edge, asked.epoch, asked.request)).fetchone()
    if known is not None:
        lease, edge, since, directory, amount, currency, seconds = known
        warn = warns(**credit, leased=account.leased)
        told = compromised_of(at, directory)
        return Lease(lease, edge, since, directory, str(amount), currency, seconds, warn, told)
    why = _refuse(account, asked.currency)
    if why is not None:
        return why
    free = room(**credit, leased=account.leased)
    amount = min(int(asked.amount), effect.rules.lease_amount_max, free)
    if amount <= 0:
        return LeaseRefused("over_limit", f"{asked.payer} has used its credit of {account.credit_limit}.")
    # Whoever spends under it knows of the payer's compromised keys in time: no longer than that.
    seconds = min(asked.seconds, effect.rules.lease_seconds_max, KEY_CACHE_SECONDS)
    begin = effect.now_seconds
    row = (effect.lease, asked.edge, asked.epoch, asked.request, payer, amount, seconds, begin, begin + seconds)
    at.execute(_INSERT_LEASE, row)
    warn = warns(**credit, leased=account.leased + amount)
    told = compromised_of(at, asked.payer)
    return Lease(effect.lease, asked.edge, asked.epoch, asked.payer, str(amount), asked.currency, seconds, warn, told)


def _refuse(account: Payer, currency: str) -> LeaseRefused | None:
    if account.state != ACTIVE:
        return LeaseRefused("suspended", f"{account.directory} is suspended: {account.why}.")
    if account.currency != currency:
        return LeaseRefused("wrong_currency", f"{account.directory} has its account in {account.currency}.")
    return None


def close_lease(at: Connection, effect: CloseLease) -> LeaseClosed | None:
    """Perform `CloseLease`."""
    close = effect.close
    place = (close.lease, effect.edge)
    total = min(int(close.total), INTEGER_MAX)  # no lease has spent as much
    if at.execute(_CLOSE_LEASE, (effect.now_seconds, *place, close.count, total)).rowcount == 1:
        return LeaseClosed(close.lease, closed=True)
    row = at.execute(_LEASE_COUNTS, place).fetchone()
    if row is None:
        return None
    state, lines, _ = row
    return LeaseClosed(close.lease, closed=state != OPEN, missing=max(0, close.count - lines))


def lapse_leases(at: Connection, effect: LapseLeases) -> int:
    """Perform `LapseLeases`."""
    before = effect.now_seconds - effect.late_limit_seconds
    return at.execute(_LAPSE, (effect.now_seconds, before)).rowcount
