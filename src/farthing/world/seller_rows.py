"""The rows of the seller's store: all its SQL, named, and the operations that a batch does with it.

A claim is an insert that happens once, a move is an update on (state, epoch), and the number of rows affected is the
answer. Both are joint operations: one statement for all that a batch holds of a kind (`docs/decisions/010`).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec

from farthing.errors import StoreError
from farthing.seller.following import Followed
from farthing.seller.identified import FREE
from farthing.seller.states import PaymentFlow, State
from farthing.seller.store import (
    Advance,
    Claim,
    Claimed,
    IdentifierTaken,
    Known,
    LedgerEntry,
    SellerPayment,
    Stale,
    StoredResponse,
)
from farthing.world.connection import Connection
from farthing.world.many_rows import for_list, for_rows, pieces, write

_NEWEST: Final = "(SELECT claim FROM seller_claim WHERE payment_id = ? ORDER BY epoch DESC LIMIT 1)"
LOOK_UP: Final = (
    "SELECT c.payment_id, c.fingerprint, c.request_print, s.state, s.epoch, s.lease_until, c.valid_before, c.flow, "
    "c.idempotent, c.stores_response, s.runs, s.settlement_tx, s.reason, c.network, c.payer, "
    "COALESCE(l.receipt, ''), c.claim, s.mover FROM seller_claim AS c JOIN seller_state AS s ON s.claim = c.claim "
    "LEFT JOIN seller_ledger AS l ON l.claim = c.claim AND l.settlement_tx = s.settlement_tx "
    "WHERE c.payment_id = ? ORDER BY c.epoch DESC LIMIT 1"
)
FIND_CLAIM: Final = "SELECT claim FROM seller_claim WHERE payment_id = ? ORDER BY epoch DESC LIMIT 1"
CLAIM_COLUMNS: Final = 16
CLAIM: Final = (
    "INSERT INTO seller_claim (claim, payment_id, epoch, fingerprint, request_print, valid_before, flow, idempotent, "
    "stores_response, network, asset, payer, pay_to, amount, resource, claimed_at) VALUES {} "
    "ON CONFLICT (payment_id, epoch) DO NOTHING"
)
CLAIMED: Final = "SELECT claim FROM seller_claim WHERE claim IN {}"
STATE_COLUMNS: Final = 4
STATE: Final = (
    "INSERT INTO seller_state (claim, state, epoch, lease_until, runs, settlement_tx, reason, mover) "
    "SELECT v.column1, v.column2, v.column3, v.column4, 0, '', '', 0 FROM (VALUES {}) AS v"
)
STANDING: Final = "SELECT state, epoch FROM seller_state WHERE claim = ?"
MOVE_COLUMNS: Final = 10
MOVE: Final = (
    "UPDATE seller_state SET state = v.column4, epoch = seller_state.epoch + v.column5, lease_until = v.column6, "
    "runs = runs + v.column7, settlement_tx = CASE WHEN v.column8 = '' THEN settlement_tx ELSE v.column8 END, "
    "reason = CASE WHEN v.column9 = '' THEN reason ELSE v.column9 END, mover = v.column10 "
    "FROM (VALUES {}) AS v "
    "WHERE seller_state.claim = v.column1 AND seller_state.state = v.column2 AND seller_state.epoch = v.column3"
)
MOVED: Final = "SELECT mover FROM seller_state WHERE claim IN {}"
RESPONSE_COLUMNS: Final = 5
KEEP_RESPONSE: Final = (
    "INSERT INTO seller_response (claim, status, headers, body, spool) VALUES {} "
    "ON CONFLICT (claim) DO UPDATE SET status = excluded.status, headers = excluded.headers, "
    "body = excluded.body, spool = excluded.spool"
)
FETCH_RESPONSE: Final = f"SELECT status, headers, body, spool FROM seller_response WHERE claim = {_NEWEST}"  # noqa: S608 - a constant
FIND_SPOOL: Final = "SELECT spool FROM seller_response WHERE claim = ?"
DROP_RESPONSE: Final = "DELETE FROM seller_response WHERE claim IN {}"
POST_COLUMNS: Final = 10
POST: Final = (
    "INSERT INTO seller_ledger (claim, settlement_tx, payment_id, network, asset, debit, credit, amount, posted_at, "
    "receipt) VALUES {}"
)
LIST: Final = (
    "SELECT * FROM (SELECT c.payment_id, s.state, c.network, c.asset, c.payer, c.pay_to, c.amount, c.resource, "
    "s.settlement_tx, s.reason, c.claimed_at FROM seller_claim AS c JOIN seller_state AS s ON s.claim = c.claim "
    "WHERE NOT EXISTS (SELECT 1 FROM seller_claim AS later "
    "WHERE later.payment_id = c.payment_id AND later.epoch > c.epoch) "
    "UNION ALL SELECT payment_id, state, network, asset, payer, pay_to, amount, resource, settlement_tx, reason, "
    "claimed_at FROM seller_archive) AS listed "
    "WHERE (state = ? OR ? = '') ORDER BY claimed_at DESC, payment_id LIMIT ?"
)
# What is found is nobody's any more, whatever its lease says; `{}` is the condition that its owner is dead.
STALE: Final = (
    "SELECT c.payment_id, c.fingerprint, c.request_print, s.state, s.epoch, 0, c.valid_before, c.flow, "
    "c.idempotent, c.stores_response, s.runs, s.settlement_tx, s.reason, c.network, c.payer, '', c.claim, "
    "c.asset, c.pay_to, c.amount FROM seller_state AS s JOIN seller_claim AS c ON c.claim = s.claim "
    "WHERE (s.lease_until < ? AND (s.state IN ('claimed', 'settling', 'unknown', 'running') "
    "OR (s.state = 'refused' AND c.valid_before < ?))) "
    "OR (s.state IN ('claimed', 'settling', 'running') AND {}) ORDER BY s.lease_until, s.claim LIMIT ?"
)
OVER: Final = (
    "SELECT c.claim, c.payment_id, r.spool FROM seller_claim AS c JOIN seller_state AS s ON s.claim = c.claim "
    "LEFT JOIN seller_response AS r ON r.claim = c.claim "
    "WHERE s.state IN ('void', 'aborted', 'closed', 'refunded') AND c.valid_before < ? "
    "AND NOT EXISTS (SELECT 1 FROM seller_claim AS other "
    "WHERE other.payment_id = c.payment_id AND other.valid_before >= ?) ORDER BY c.claim LIMIT ?"
)
DELIVERED_OVER: Final = (
    "SELECT c.claim, c.payment_id, r.spool FROM seller_claim AS c JOIN seller_state AS s ON s.claim = c.claim "
    "LEFT JOIN seller_response AS r ON r.claim = c.claim "
    "WHERE s.state = 'delivered' AND c.claim IN {} AND c.valid_before < ? "
    "AND NOT EXISTS (SELECT 1 FROM seller_claim AS other "
    "WHERE other.payment_id = c.payment_id AND other.valid_before >= ?)"
)
FOLLOWED: Final = (
    "SELECT c.claim, c.payment_id, s.state, s.epoch, c.valid_before, c.network, c.asset, c.payer, c.pay_to, c.amount, "
    "s.settlement_tx, CASE WHEN l.claim IS NULL THEN 0 ELSE 1 END, CASE WHEN back.claim IS NULL THEN 0 ELSE 1 END "
    "FROM seller_state AS s JOIN seller_claim AS c ON c.claim = s.claim "
    "LEFT JOIN seller_ledger AS l ON l.claim = c.claim AND l.settlement_tx = s.settlement_tx "
    "LEFT JOIN seller_ledger AS back ON back.claim = c.claim AND back.settlement_tx = 'lost:' || s.settlement_tx "
    "WHERE s.lease_until < ? AND c.valid_before < ? AND c.claim > ? "
    "AND (s.state IN ('delivered', 'unknown_delivered', 'unknown_settled') "
    "OR (s.state = 'settled' AND s.reason <> 'followed')) ORDER BY c.claim LIMIT ?"
)
ARCHIVE: Final = (
    "INSERT INTO seller_archive (claim, payment_id, epoch, state, fingerprint, request_print, valid_before, network, "
    "asset, payer, pay_to, amount, resource, settlement_tx, reason, claimed_at) "
    "SELECT c.claim, c.payment_id, c.epoch, s.state, c.fingerprint, c.request_print, c.valid_before, c.network, "
    "c.asset, c.payer, c.pay_to, c.amount, c.resource, s.settlement_tx, s.reason, c.claimed_at "
    "FROM seller_claim AS c JOIN seller_state AS s ON s.claim = c.claim WHERE c.claim IN {}"
)
FORGET: Final = tuple(
    f"DELETE FROM {table} WHERE claim IN {{}}"  # noqa: S608 - constants
    for table in ("seller_response", "seller_refund", "seller_state", "seller_claim")
)
FREE_IDENTIFIERS: Final = (
    "DELETE FROM seller_identifier WHERE payment_id IN {} "
    "AND NOT EXISTS (SELECT 1 FROM seller_claim AS c WHERE c.payment_id = seller_identifier.payment_id)"
)
IS_SPOOLED: Final = "SELECT 1 FROM seller_response WHERE spool = ? LIMIT 1"
TERMS: Final = "SELECT asset, pay_to, amount FROM seller_claim WHERE claim = ?"
LEDGER: Final = (
    "SELECT network, asset, debit, credit, amount, settlement_tx, posted_at FROM seller_ledger "
    "ORDER BY posted_at, claim"
)

FIND_IDENTIFIER: Final = "SELECT payment_id FROM seller_identifier WHERE scope = ?"
BIND_IDENTIFIER: Final = (
    "INSERT INTO seller_identifier (scope, payment_id) VALUES (?, ?) "
    "ON CONFLICT (scope) DO UPDATE SET payment_id = excluded.payment_id"
)

NAME_STORE: Final = "INSERT INTO seller_fact (fact, value) VALUES ('name', ?) ON CONFLICT (fact) DO NOTHING"
STORE_NAME: Final = "SELECT value FROM seller_fact WHERE fact = 'name'"

# No two stores draw the same name.
NAME_SIZE_BYTES: Final = 16
# States in which a lease says that somebody works on the payment. Elsewhere it is a turn, of seconds.
OWNED: Final = frozenset({State.CLAIMED, State.SETTLING, State.RUNNING, State.SETTLED})
# A response that nobody will be given is not kept: it would only take room.
NOTHING_TO_DELIVER: Final = frozenset({State.CLOSED, State.REFUND_DUE, State.VOID, State.ABORTED, State.LOSS})
_DROPS_RESPONSE: Final = NOTHING_TO_DELIVER | {State.DELIVERED}
# 64-bit columns: a window that ends later than that never ends.
_FOREVER: Final = 2**62


class NewClaim(NamedTuple):
    """A claim under the number that it will have."""

    claim: int
    wanted: Claim


class Move(NamedTuple):
    """A move of the claim `claim`; `mover` is a number that no other move has."""

    claim: int
    mover: int
    wanted: Advance


def claim_together(connection: Connection, items: list[NewClaim]) -> list[Claimed | Known]:
    """Claim payments that were never claimed: for each the claim, or what is known, where another was first."""
    rows = [_claim_row(each, 1) for each in items]
    won = None
    if write(connection, CLAIM, CLAIM_COLUMNS, rows) != len(items):
        won = {
            row[0]
            for piece in pieces([each.claim for each in items])
            for row in connection.execute(for_list(CLAIMED, len(piece)), piece)
        }
    made = [each for each in items if won is None or each.claim in won]
    states = [(each.claim, each.wanted.state.value, 1, each.wanted.lease_until) for each in made]
    write(connection, STATE, STATE_COLUMNS, states)
    return [
        Claimed(1, each.claim) if won is None or each.claim in won else _found(connection, each.wanted.payment_id)
        for each in items
    ]


def claim_again(connection: Connection, item: NewClaim, over: Known) -> Claimed | Known:
    """Claim a payment whose earlier claim came to nothing, if that still stands as it was found."""
    if connection.execute(STANDING, (over.claim,)).fetchone() != (over.state.value, over.epoch):
        return _found(connection, item.wanted.payment_id)
    epoch = over.epoch + 1
    if write(connection, CLAIM, CLAIM_COLUMNS, [_claim_row(item, epoch)]) != 1:
        return _found(connection, item.wanted.payment_id)
    state = (item.claim, item.wanted.state.value, epoch, item.wanted.lease_until)
    write(connection, STATE, STATE_COLUMNS, [state])
    return Claimed(epoch, item.claim)


def claim_identified(connection: Connection, item: NewClaim, over: Known | None) -> Claimed | Known | IdentifierTaken:
    """Claim a payment and bind its payment-identifier in one step, unless another payment has it that may count."""
    scope, payment_id = item.wanted.identifier, item.wanted.payment_id
    row = connection.execute(FIND_IDENTIFIER, (scope,)).fetchone()
    if row is not None and row[0] != payment_id:
        other = connection.execute(LOOK_UP, (row[0],)).fetchone()
        if other is not None and known(other).state not in FREE:
            return IdentifierTaken()
    claimed = claim_together(connection, [item])[0] if over is None else claim_again(connection, item, over)
    if isinstance(claimed, Claimed):
        connection.execute(BIND_IDENTIFIER, (scope, payment_id))
    return claimed


def _claim_row(item: NewClaim, epoch: int) -> tuple[Any, ...]:
    wanted = item.wanted
    return (
        item.claim,
        wanted.payment_id,
        epoch,
        wanted.fingerprint,
        wanted.request_print,
        min(wanted.valid_before, _FOREVER),
        wanted.flow.value,
        int(wanted.idempotent),
        int(wanted.stores_response),
        wanted.network,
        wanted.asset,
        wanted.payer,
        wanted.pay_to,
        str(wanted.amount),
        wanted.resource,
        wanted.claimed_at,
    )


def _found(connection: Connection, payment_id: str) -> Known:
    row = connection.execute(LOOK_UP, (payment_id,)).fetchone()
    if row is None:
        message = f"{payment_id} was claimed and is gone; the seller's rows are never deleted by hand."
        raise StoreError(message)
    return known(row)


def move_together(connection: Connection, items: list[Move]) -> list[bool]:
    """Move claims that are still where they were, and keep what goes with each; tells which were moved."""
    answers: list[bool] = []
    for piece in pieces(items):
        values = [value for each in piece for value in _move_row(each)]
        done = connection.execute(for_rows(MOVE, MOVE_COLUMNS, len(piece)), values).rowcount
        if done == len(piece):
            answers += [True] * done
        else:
            # Of two moves of one claim one was made; whose it was is written in its row.
            rows = connection.execute(for_list(MOVED, len(piece)), [each.claim for each in piece])
            movers = {row[0] for row in rows}
            answers += [each.mover in movers for each in piece]
    moved = [each for each, is_moved in zip(items, answers, strict=True) if is_moved]
    write(connection, KEEP_RESPONSE, RESPONSE_COLUMNS, [row for each in moved for row in _response_rows(each)])
    write(connection, POST, POST_COLUMNS, [row for each in moved for row in _ledger_rows(each)])
    dropped = [each.claim for each in moved if each.wanted.target in _DROPS_RESPONSE and not each.wanted.keep]
    for claims in pieces(dropped):
        connection.execute(for_list(DROP_RESPONSE, len(claims)), claims)
    return answers


def move_spooled(connection: Connection, item: Move) -> str | None:
    """Move a claim after which its response may go; gives the spool file that goes with it, or None for no move."""
    row = connection.execute(FIND_SPOOL, (item.claim,)).fetchone()
    if not move_together(connection, [item])[0]:
        return None
    return "" if row is None else str(row[0])


def _move_row(item: Move) -> tuple[Any, ...]:
    wanted = item.wanted
    return (
        item.claim,
        wanted.source.value,
        wanted.epoch,
        wanted.target.value,
        int(wanted.take_over),
        wanted.lease_until,
        int(wanted.run),
        wanted.transaction,
        wanted.reason,
        item.mover,
    )


def _response_rows(item: Move) -> Iterator[tuple[Any, ...]]:
    kept = item.wanted.response
    if kept is not None:
        yield item.claim, kept.status, msgspec.json.encode(kept.headers).decode(), kept.body, kept.spool


def _ledger_rows(item: Move) -> Iterator[tuple[Any, ...]]:
    entry = item.wanted.entry
    if entry is not None:
        yield (
            item.claim,
            entry.transaction,
            item.wanted.payment_id,
            entry.network,
            entry.asset,
            entry.payer,
            entry.pay_to,
            str(entry.amount),
            entry.posted_at,
            item.wanted.receipt,
        )


def archive(connection: Connection, valid_before: int, limit: int, delivered: tuple[int, ...]) -> tuple[int, list[str]]:
    """Move payments that are over into the archive; gives how many, and the spool files that may go."""
    over = connection.execute(OVER, (valid_before, valid_before, limit)).fetchall()
    for final in pieces(delivered[:limit]):
        values = (*final, valid_before, valid_before)
        over += connection.execute(for_list(DELIVERED_OVER, len(final)), values).fetchall()
    for piece in pieces(over):
        claims = [row[0] for row in piece]
        for sql in (ARCHIVE, *FORGET):
            connection.execute(for_list(sql, len(claims)), claims)
        connection.execute(for_list(FREE_IDENTIFIERS, len(piece)), [row[1] for row in piece])
    return len(over), [row[2] for row in over if row[2]]


def stale(row: tuple[Any, ...]) -> Stale:
    """Read a row of `STALE`."""
    return Stale(known=known(row[:17]), asset=row[17], pay_to=row[18], amount=int(row[19]))


def followed(row: tuple[Any, ...]) -> Followed:
    """Read a row of `FOLLOWED`."""
    return Followed(
        claim=row[0],
        payment_id=row[1],
        state=State(row[2]),
        epoch=row[3],
        valid_before=row[4],
        network=row[5],
        asset=row[6],
        payer=row[7],
        pay_to=row[8],
        amount=int(row[9]),
        transaction=row[10],
        is_booked=bool(row[11]) and not row[12],
        was_taken_back=bool(row[12]),
    )


def name_store(connection: Connection) -> str:
    """Give the store's name, which is drawn when it is opened for the first time."""
    connection.execute(NAME_STORE, (secrets.token_hex(NAME_SIZE_BYTES),))
    return str(connection.execute(STORE_NAME).fetchone()[0])


def owner(row: tuple[Any, ...]) -> int:
    """Give the number of a row of `LOOK_UP` whose drawer has its lease: the last move's, or the claim's own."""
    return int(row[17] or row[16])


def known(row: tuple[Any, ...]) -> Known:
    """Read a row of `LOOK_UP`."""
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
        claim=row[16],
    )


def payment(row: tuple[Any, ...]) -> SellerPayment:
    """Read a row of `LIST`."""
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


def entry(row: tuple[Any, ...]) -> LedgerEntry:
    """Read a row of `LEDGER`."""
    return LedgerEntry(
        network=row[0],
        asset=row[1],
        payer=row[2],
        pay_to=row[3],
        amount=int(row[4]),
        transaction=row[5],
        posted_at=row[6],
    )


_headers_decoder = msgspec.json.Decoder(tuple[tuple[str, str], ...])


def response(row: tuple[Any, ...]) -> StoredResponse:
    """Read a row of `FETCH_RESPONSE`."""
    return StoredResponse(row[0], _headers_decoder.decode(row[1]), bytes(row[2]), row[3])
