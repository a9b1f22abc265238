"""The outbox: wallet leases, nonces, and signed transactions stored before they are broadcast.

A nonce is allocated and a version stored only while the wallet's lease has the caller's epoch: a process that lost its
lease finds no row to change.
"""

# ruff: noqa: S608 - what is put into statements are names of states, from a table in code

from __future__ import annotations

from typing import Any, Final

from farthing.facilitator.joining import joined_gas_limit
from farthing.facilitator.states import PAYMENT, TRANSACTION
from farthing.facilitator.store import (
    AcquireLease,
    Lease,
    LoadDone,
    LoadOutbox,
    MarkSent,
    OpenWallet,
    OutboxEntry,
    PlanTransactions,
    Refused,
    ReleaseLease,
    StopWallet,
    StoreSigned,
    Version,
)
from farthing.world.connection import Connection
from farthing.world.facilitator_rows import sources
from farthing.world.many_rows import for_list, pieces, write

_TAKE_LEASE: Final = """
INSERT INTO wallets (network, wallet, owner, epoch, until_at) VALUES (?, ?, ?, 1, ?)
ON CONFLICT (network, wallet) DO UPDATE
SET epoch = wallets.epoch + CASE WHEN wallets.owner = excluded.owner THEN 0 ELSE 1 END,
    wanted_at = CASE WHEN wallets.owner = excluded.owner THEN wallets.wanted_at ELSE 0 END,
    owner = excluded.owner, until_at = excluded.until_at
WHERE wallets.owner = excluded.owner OR wallets.owner = '' OR wallets.until_at < ?
"""
_READ_WALLET: Final = """
SELECT owner, epoch, first_nonce, stopped, wanted_at FROM wallets WHERE network = ? AND wallet = ?
"""
_WANT_WALLET: Final = "UPDATE wallets SET wanted_at = ? WHERE network = ? AND wallet = ? AND owner <> ?"
_NONCE_MAX: Final = "SELECT max(nonce) FROM transactions WHERE network = ? AND wallet = ?"
_RELEASE_LEASE: Final = """
UPDATE wallets SET owner = '', until_at = 0 WHERE network = ? AND wallet = ? AND owner = ?
"""
_OPEN_WALLET: Final = """
UPDATE wallets SET first_nonce = ? WHERE network = ? AND wallet = ? AND epoch = ? AND first_nonce IS NULL
"""
_STOP_WALLET: Final = "UPDATE wallets SET stopped = ? WHERE network = ? AND wallet = ? AND stopped = ''"
_UNDER_LEASE: Final = "SELECT 1 FROM wallets WHERE network = ? AND wallet = ? AND epoch = ? AND stopped = ''"

# By payment id: SQLite would go through all that waits on a network, were the network a term that an index has.
_JOIN: Final = f"""
UPDATE payments SET state = '{PAYMENT.move("join").target}', wallet = ?, nonce = ?
WHERE NOT network <> ? AND state IN {sources(PAYMENT, "admit", "join")} AND payment_id IN {{}}
RETURNING payment_id, gas_limit
"""
_EXPIRE: Final = f"""
UPDATE payments SET state = '{PAYMENT.move("expire").target}', reason = ?, message = ?
WHERE payment_id = ? AND state IN {sources(PAYMENT, "expire")}
"""
_INSERT_TRANSACTION: Final = f"""
INSERT INTO transactions (network, wallet, nonce, state, lease_epoch, gas_limit, created_at)
VALUES (?, ?, ?, '{TRANSACTION.start}', ?, ?, ?)
"""
_INSERT_MEMBER: Final = "INSERT INTO transaction_members (network, wallet, nonce, payment_id) VALUES {}"
_MEMBER_COLUMNS: Final = 4
_MOVE_SIGNED: Final = """
UPDATE transactions SET state = ?, hash = ?, lease_epoch = ?
WHERE network = ? AND wallet = ? AND nonce = ? AND state IN %s
"""
_MOVES_SIGNED: Final = {name: _MOVE_SIGNED % sources(TRANSACTION, name) for name in ("sign", "replace", "cancel")}
_INSERT_VERSION: Final = """
INSERT INTO transaction_versions (
    network, wallet, nonce, version, raw, hash, max_fee_per_gas, max_priority_fee_per_gas, signed_at, cancels
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_MARK_SENT: Final = f"""
UPDATE transactions SET state = '{TRANSACTION.move("send").target}'
WHERE network = ? AND wallet = ? AND nonce = ? AND state IN {sources(TRANSACTION, "send")}
"""
_OPEN_TRANSACTIONS: Final = """
SELECT nonce, state, gas_limit, block_number, block_hash FROM transactions
WHERE network = ? AND wallet = ? AND state <> 'done' ORDER BY nonce LIMIT ?
"""
_VERSIONS: Final = """
SELECT v.nonce, v.version, v.raw, v.hash, v.max_fee_per_gas, v.max_priority_fee_per_gas, v.signed_at,
       v.cancels
FROM transactions t
JOIN transaction_versions v ON v.network = t.network AND v.wallet = t.wallet AND v.nonce = t.nonce
WHERE t.network = ? AND t.wallet = ? AND t.state <> 'done' AND t.nonce <= ? ORDER BY v.nonce, v.version
"""
_MEMBERS: Final = """
SELECT m.nonce, m.payment_id FROM transactions t
JOIN transaction_members m ON m.network = t.network AND m.wallet = t.wallet AND m.nonce = t.nonce
WHERE t.network = ? AND t.wallet = ? AND t.state <> 'done' AND t.nonce <= ? ORDER BY m.nonce, m.payment_id
"""
_DONE: Final = """
SELECT nonce, state, gas_limit, block_number, block_hash FROM transactions
WHERE network = ? AND wallet = ? AND state = 'done' AND block_number > ? ORDER BY nonce DESC LIMIT ?
"""


def acquire_lease(at: Connection, effect: AcquireLease) -> Lease:
    """Take or renew a wallet's lease; the answer says who has it."""
    wallet = (effect.network, effect.wallet)
    at.execute(_TAKE_LEASE, (*wallet, effect.owner, effect.until_seconds, effect.now_seconds))
    if effect.wanting:
        at.execute(_WANT_WALLET, (effect.now_seconds, *wallet, effect.owner))
    owner, epoch, first_nonce, stopped, wanted_at = at.execute(_READ_WALLET, wallet).fetchone()
    return Lease(owner == effect.owner, epoch, first_nonce, _next_nonce(at, wallet, first_nonce), stopped, wanted_at)


def _next_nonce(at: Connection, wallet: tuple[str, str], first_nonce: int | None) -> int | None:
    (highest,) = at.execute(_NONCE_MAX, wallet).fetchone()
    return first_nonce if highest is None else highest + 1


def release_lease(at: Connection, effect: ReleaseLease) -> None:
    """Give the lease back."""
    at.execute(_RELEASE_LEASE, (effect.network, effect.wallet, effect.owner))


def open_wallet(at: Connection, effect: OpenWallet) -> bool:
    """Note the first nonce, once."""
    parameters = (effect.first_nonce, effect.network, effect.wallet, effect.epoch)
    return at.execute(_OPEN_WALLET, parameters).rowcount == 1


def stop_wallet(at: Connection, effect: StopWallet) -> None:
    """Note why the wallet must not be used."""
    at.execute(_STOP_WALLET, (effect.reason, effect.network, effect.wallet))


def expire_payment(at: Connection, refused: Refused) -> bool:
    """Refuse a payment that waited too long."""
    return at.execute(_EXPIRE, (refused.reason, refused.message, refused.payment_id)).rowcount == 1


def plan_transactions(at: Connection, effect: PlanTransactions) -> tuple[OutboxEntry, ...] | None:
    """Build a transaction for each group in which somebody still waits, with the next nonces. None: no lease."""
    wallet = (effect.network, effect.wallet)
    if at.execute(_UNDER_LEASE, (*wallet, effect.epoch)).fetchone() is None:
        return None
    for refused in effect.expired:
        expire_payment(at, refused)
    _, _, first_nonce, _, _ = at.execute(_READ_WALLET, wallet).fetchone()
    nonce = _next_nonce(at, wallet, first_nonce)
    if nonce is None:
        return ()
    built: list[OutboxEntry] = []
    for payment_ids in effect.groups:
        gas_limits: dict[str, int] = {}
        for piece in pieces(payment_ids):
            values = (effect.wallet, nonce, effect.network, *piece)
            gas_limits.update(at.execute(for_list(_JOIN, len(piece)), values).fetchall())
        # In the order of the group, whatever order a database tells them in.
        joined = {each: gas_limits[each] for each in payment_ids if each in gas_limits}
        if not joined:
            continue
        gas_limit = joined_gas_limit(joined.values())
        at.execute(_INSERT_TRANSACTION, (*wallet, nonce, effect.epoch, gas_limit, effect.now_seconds))
        write(at, _INSERT_MEMBER, _MEMBER_COLUMNS, [(*wallet, nonce, payment_id) for payment_id in joined])
        built.append(OutboxEntry(nonce=nonce, state=TRANSACTION.start, gas_limit=gas_limit, members=tuple(joined)))
        nonce += 1
    return tuple(built)


def store_signed(at: Connection, effect: StoreSigned) -> frozenset[int]:
    """Store signed versions under the lease; the answer are the nonces that took theirs."""
    wallet = (effect.network, effect.wallet)
    if at.execute(_UNDER_LEASE, (*wallet, effect.epoch)).fetchone() is None:
        return frozenset()
    stored: set[int] = set()
    for signed in effect.versions:
        version = signed.version
        name = "cancel" if version.cancels else "sign" if version.number == 1 else "replace"
        target = TRANSACTION.move(name).target
        if at.execute(_MOVES_SIGNED[name], (target, version.hash, effect.epoch, *wallet, signed.nonce)).rowcount != 1:
            continue
        at.execute(
            _INSERT_VERSION,
            (
                *wallet,
                signed.nonce,
                version.number,
                version.raw,
                version.hash,
                str(version.max_fee_per_gas),
                str(version.max_priority_fee_per_gas),
                version.signed_at,
                int(version.cancels),
            ),
        )
        stored.add(signed.nonce)
    return frozenset(stored)


def mark_sent(at: Connection, effect: MarkSent) -> None:
    """Note that these were broadcast."""
    at.executemany(_MARK_SENT, [(effect.network, effect.wallet, nonce) for nonce in effect.nonces])


def load_outbox(at: Connection, effect: LoadOutbox) -> tuple[OutboxEntry, ...]:
    """Load what is not DONE, oldest first, with versions and members."""
    wallet = (effect.network, effect.wallet)
    rows = at.execute(_OPEN_TRANSACTIONS, (*wallet, effect.count_max)).fetchall()
    if not rows:
        return ()
    last: int = rows[-1][0]
    versions: dict[int, list[Version]] = {}
    for nonce, *fields in at.execute(_VERSIONS, (*wallet, last)):
        versions.setdefault(nonce, []).append(_read_version(fields))
    members: dict[int, list[str]] = {}
    for nonce, payment_id in at.execute(_MEMBERS, (*wallet, last)):
        members.setdefault(nonce, []).append(payment_id)
    return tuple(
        OutboxEntry(
            nonce=nonce,
            state=state,
            gas_limit=gas_limit,
            members=tuple(members.get(nonce, ())),
            versions=tuple(versions.get(nonce, ())),
            block_number=block_number,
            block_hash=block_hash,
        )
        for nonce, state, gas_limit, block_number, block_hash in rows
    )


def load_done(at: Connection, effect: LoadDone) -> tuple[OutboxEntry, ...]:
    """Load what is DONE above a height: nonces and blocks only."""
    rows = at.execute(_DONE, (effect.network, effect.wallet, effect.above_block, effect.count_max))
    return tuple(
        OutboxEntry(nonce=nonce, state=state, gas_limit=gas, members=(), block_number=number, block_hash=hash_)
        for nonce, state, gas, number, hash_ in rows
    )


def _read_version(fields: list[Any]) -> Version:
    number, raw, hash_, max_fee, max_priority_fee, signed_at, cancels = fields
    return Version(number, raw, hash_, int(max_fee), int(max_priority_fee), signed_at, bool(cancels))
