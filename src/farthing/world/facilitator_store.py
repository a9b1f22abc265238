"""The facilitator's store: payments and who is told of them. The outbox and the books have files beside it.

Every move is one conditional statement whose condition on the state comes from `farthing.facilitator.states`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from farthing.facilitator.states import CONFIRMED, IN_BATCH, PAYMENT
from farthing.facilitator.store import (
    AcquireLease,
    CountPayments,
    FailedPayer,
    FindIdentified,
    FindRecord,
    FindRecordByTransaction,
    FindRecords,
    GivePlaceUp,
    IdentifierTaken,
    LoadBodies,
    LoadConfirmed,
    LoadDone,
    LoadFailedPayers,
    LoadLingering,
    LoadOutbox,
    LoadWaiting,
    MarkSent,
    OpenWallet,
    PaymentBody,
    PaymentRecord,
    PlanTransactions,
    RecordChain,
    RecordPayment,
    ReleaseLease,
    StopWallet,
    StoreSigned,
    TakePlace,
    Tell,
)
from farthing.flow import Effect
from farthing.world import facilitator_outbox as outbox
from farthing.world.connection import Connection
from farthing.world.database import off_the_loop, open_database
from farthing.world.facilitator_books import Books, record_chain
from farthing.world.facilitator_rows import SELECT_PAYMENT, read_payment
from farthing.world.many_rows import returned, write
from farthing.world.marks import among
from farthing.world.pending import Pending

E = TypeVar("E", bound=Effect[Any])
R = TypeVar("R")

_SELECT_ONE_PAYMENT: Final = SELECT_PAYMENT + " WHERE p.payment_id = ?"

_INSERT_PAYMENT: Final = """
INSERT INTO payments (
    payment_id, state, scheme, network, asset, payer, pay_to, amount, valid_before, fingerprint, requirements_print,
    created_at, recorded_block, gas_limit, alone, caller, idempotency_key, claimant, claim_until
) VALUES {}
ON CONFLICT (payment_id) DO NOTHING RETURNING payment_id
"""
_PAYMENT_COLUMNS: Final = 19
_INSERT_BODY: Final = "INSERT INTO payment_bodies (payment_id, payment, requirements) VALUES {}"
_BODY_COLUMNS: Final = 3
# An id is free again where the payment that had it was refused. Of two payments with one id at once, in whatever
# processes, one is bound: the statement of the other meets its row.
_BIND_IDENTIFIER: Final = """
INSERT INTO payment_identifiers (scope, payment_id) VALUES (?, ?)
ON CONFLICT (scope) DO UPDATE SET payment_id = excluded.payment_id
WHERE payment_identifiers.payment_id = excluded.payment_id OR EXISTS (
    SELECT 1 FROM payments p WHERE p.payment_id = payment_identifiers.payment_id AND p.state = 'refused'
)
"""
_FIND_IDENTIFIED: Final = """
SELECT i.payment_id FROM payment_identifiers i
LEFT JOIN payments p ON p.payment_id = i.payment_id
WHERE i.scope = ? AND (p.state IS NULL OR p.state <> 'refused')
"""
# A payment recorded under an idempotency key is told to that key alone, so that its place is never free.
_TAKE_PLACE: Final = """
UPDATE payments
SET claimant = ?, claim_until = ?, idempotency_key = ?,
    told = CASE WHEN state IN ('confirmed', 'final') THEN 1 ELSE 0 END
WHERE payment_id = ? AND caller = ? AND idempotency_key = '' AND told = 0 AND (claimant = '' OR claim_until < ?)
"""
_GIVE_PLACE_UP: Final = """
UPDATE payments SET claimant = '', claim_until = 0 WHERE payment_id = ? AND claimant = ? AND told = 0
"""
_TELL: Final = "UPDATE payments SET told = 1 WHERE payment_id = ? AND claimant = ? AND state IN ('confirmed', 'final')"

_COUNT_MEMBERS: Final = """
SELECT count(*) FROM transaction_versions v
JOIN transaction_members m ON m.network = v.network AND m.wallet = v.wallet AND m.nonce = v.nonce
WHERE v.hash = ?
"""

# Of a wallet that nobody works with: it was stopped, or taken out of the configuration, or its process is gone.
_ORPHANED: Final = """
(p.wallet <> ? AND NOT EXISTS (
    SELECT 1 FROM wallets w
    WHERE w.network = p.network AND w.wallet = p.wallet AND w.stopped = '' AND w.until_at >= ?
))
"""


class FacilitatorStore:
    """Performs the facilitator's store effects: over a file that a machine's processes share, or over PostgreSQL."""

    def __init__(self, store: str | Path) -> None:
        """Open `store`, a path or URL (`farthing.world.database`), or make the file. Raises `StoreError`."""
        self.database = open_database(store, family="facilitator")

    def close(self) -> None:
        """Finish what was submitted, and close."""
        self.database.close()

    @property
    def books(self) -> Books:
        """The cold queries: the ledger, its totals, and lists of payments."""
        return Books(self.database)

    def handlers(self) -> Mapping[type[Effect[Any]], Callable[[Any], Any]]:
        """Give the handlers for a `Performer`."""
        return {
            FindRecord: off_the_loop(self.database, self._find_record),
            FindRecords: self._reading(_find_records),
            FindRecordByTransaction: self._reading(_find_by_transaction),
            LoadBodies: self._reading(_load_bodies),
            LoadWaiting: self._reading(_load_waiting),
            LoadDone: self._reading(outbox.load_done),
            LoadOutbox: self._reading(outbox.load_outbox),
            LoadLingering: self._reading(_load_lingering),
            LoadConfirmed: self._reading(_load_confirmed),
            LoadFailedPayers: self._reading(_load_failed_payers),
            CountPayments: self._reading(_count_payments),
            FindIdentified: self._reading(_find_identified),
            RecordPayment: partial(self.database.join, _record_payments),
            TakePlace: self._writing(_take_place),
            GivePlaceUp: self._writing(_give_place_up),
            Tell: self._writing(_tell),
            AcquireLease: self._writing(outbox.acquire_lease),
            ReleaseLease: self._writing(outbox.release_lease),
            OpenWallet: self._writing(outbox.open_wallet),
            StopWallet: self._writing(outbox.stop_wallet),
            PlanTransactions: self._writing(outbox.plan_transactions),
            StoreSigned: self._writing(outbox.store_signed),
            MarkSent: self._writing(outbox.mark_sent),
            RecordChain: self._writing(record_chain),
        }

    def _find_record(self, effect: FindRecord) -> PaymentRecord | None:
        # Asked for by every settlement, before it verifies.
        rows = self.database.fetch(_SELECT_ONE_PAYMENT, (effect.payment_id,))
        return read_payment(rows[0]) if rows else None

    def _reading(self, query: Callable[[Connection, E], R]) -> Callable[[E], R | Pending[R]]:
        return off_the_loop(self.database, lambda effect: self.database.read(lambda at: query(at, effect)))

    def _writing(self, step: Callable[[Connection, E], R]) -> Callable[[E], Pending[R]]:
        def each(at: Connection, effects: list[E]) -> list[R]:
            return [step(at, effect) for effect in effects]

        # Joined, so that what one turn of the event loop asks for is one batch.
        return lambda effect: self.database.join(each, effect)


def find_payment(at: Connection, payment_id: str) -> PaymentRecord | None:
    """Find a payment by its id."""
    row = at.execute(_SELECT_ONE_PAYMENT, (payment_id,)).fetchone()
    return None if row is None else read_payment(row)


def _find_records(at: Connection, effect: FindRecords) -> tuple[PaymentRecord, ...]:
    found: list[PaymentRecord] = []
    for marks, some in among(effect.payment_ids):
        rows = at.execute(f"{SELECT_PAYMENT} WHERE p.payment_id IN {marks}", some)
        found += map(read_payment, rows)
    return tuple(found)


def _find_by_transaction(at: Connection, effect: FindRecordByTransaction) -> PaymentRecord | None:
    # A transaction of several payments, ours or somebody else's, is the name of none of them: whoever asks for its own,
    # which may have failed in it, must not be told of another's.
    if at.execute(_COUNT_MEMBERS, (effect.transaction,)).fetchone() > (1,):
        return None
    rows = at.execute(SELECT_PAYMENT + " WHERE p.transaction_hash = ? LIMIT 2", (effect.transaction,)).fetchall()
    if not rows:
        rows = at.execute(
            SELECT_PAYMENT
            + " JOIN transaction_versions v ON v.network = p.network AND v.wallet = p.wallet AND v.nonce = p.nonce"
            " WHERE v.hash = ?",
            (effect.transaction,),
        ).fetchall()
    return read_payment(rows[0]) if len(rows) == 1 else None


def _load_bodies(at: Connection, effect: LoadBodies) -> dict[str, PaymentBody]:
    bodies: dict[str, PaymentBody] = {}
    for marks, some in among(effect.payment_ids):
        query = f"SELECT payment_id, payment, requirements FROM payment_bodies WHERE payment_id IN {marks}"  # noqa: S608 - marks only
        for payment_id, payment, requirements in at.execute(query, some):
            bodies[payment_id] = PaymentBody(payment.encode(), requirements.encode())
    return bodies


def _load_waiting(at: Connection, effect: LoadWaiting) -> tuple[PaymentRecord, ...]:
    waiting = "p.network = ? AND p.state IN ('received', 'ready')"
    query = f"{SELECT_PAYMENT} WHERE {waiting} ORDER BY p.created_at, p.payment_id LIMIT ?"
    return tuple(map(read_payment, at.execute(query, (effect.network, effect.count_max))))


def _load_lingering(at: Connection, effect: LoadLingering) -> tuple[PaymentRecord, ...]:
    # A wallet's own payment whose transaction is still open is followed by that transaction.
    chosen = f"p.network = ? AND p.state = '{IN_BATCH}' AND ((p.wallet = ? AND t.state = 'done') OR {_ORPHANED})"
    query = f"{SELECT_PAYMENT} WHERE {chosen} ORDER BY p.created_at LIMIT ?"
    parameters = (effect.network, effect.wallet, effect.wallet, effect.now_seconds, effect.count_max)
    return tuple(map(read_payment, at.execute(query, parameters)))


def _load_confirmed(at: Connection, effect: LoadConfirmed) -> tuple[PaymentRecord, ...]:
    chosen = f"p.network = ? AND p.state = '{CONFIRMED}' AND (p.wallet = ? OR {_ORPHANED})"
    parameters: tuple[str | int, ...] = (effect.network, effect.wallet, effect.wallet, effect.now_seconds)
    order = "p.block_number DESC, p.payment_id DESC"
    if effect.upto_block is not None:
        chosen += " AND p.block_number <= ? AND (p.block_number, p.payment_id) > (?, ?)"
        parameters = (*parameters, effect.upto_block, *effect.after)
        order = "p.block_number, p.payment_id"
    query = f"{SELECT_PAYMENT} WHERE {chosen} ORDER BY {order} LIMIT ?"
    return tuple(map(read_payment, at.execute(query, (*parameters, effect.count_max))))


def _load_failed_payers(at: Connection, effect: LoadFailedPayers) -> tuple[FailedPayer, ...]:
    query = """
    SELECT network, payer, sum(failed_alone) FROM payments WHERE failed_at > 0 AND failed_at >= ?
    GROUP BY network, payer ORDER BY max(failed_at) DESC LIMIT ?
    """
    rows = at.execute(query, (effect.since_seconds, effect.count_max)).fetchall()
    return tuple(FailedPayer(network, payer, alone) for network, payer, alone in rows)


def _count_payments(at: Connection, _effect: CountPayments) -> dict[str, int]:
    # The states that are indexed: those that are over are counted by the metrics' counters as they happen.
    query = """
    SELECT state, count(*) FROM payments WHERE state IN ('received', 'ready') GROUP BY state
    UNION ALL
    SELECT state, count(*) FROM payments WHERE state IN ('in_batch', 'confirmed') GROUP BY state
    """
    return dict(at.execute(query).fetchall())


def _find_identified(at: Connection, effect: FindIdentified) -> str | None:
    row = at.execute(_FIND_IDENTIFIED, (effect.scope,)).fetchone()
    return None if row is None else str(row[0])


def _record_payments(at: Connection, effects: list[RecordPayment]) -> list[PaymentRecord | IdentifierTaken]:
    """Put payments on record that are not yet; the answers are what is on record of each."""
    bound = [each for each in effects if _bind(at, each)]
    made = {row[0] for row in returned(at, _INSERT_PAYMENT, _PAYMENT_COLUMNS, [_row(each.record) for each in bound])}
    bodies: list[tuple[str, str, str]] = []
    answers: dict[int, PaymentRecord] = {}
    for each in bound:
        payment_id = each.record.payment_id
        if payment_id in made:
            # Of two of one batch the first one's row was inserted.
            made.discard(payment_id)
            bodies.append((payment_id, each.body.payment.decode(), each.body.requirements.decode()))
            answers[id(each)] = each.record
        else:
            answers[id(each)] = _known(at, payment_id)
    write(at, _INSERT_BODY, _BODY_COLUMNS, bodies)
    return [answers.get(id(each), IdentifierTaken()) for each in effects]


def _bind(at: Connection, effect: RecordPayment) -> bool:
    """Bind a payment's identifier, where it has one; False where another payment has it that may count."""
    if not effect.identifier:
        return True
    return at.execute(_BIND_IDENTIFIER, (effect.identifier, effect.record.payment_id)).rowcount == 1


def _row(record: PaymentRecord) -> tuple[Any, ...]:
    return (
        record.payment_id,
        PAYMENT.start,
        record.scheme,
        record.network,
        record.asset,
        record.payer,
        record.pay_to,
        str(record.amount),
        record.valid_before,
        record.fingerprint,
        record.requirements_print,
        record.created_at,
        record.recorded_block,
        record.gas_limit,
        int(record.alone),
        record.caller,
        record.idempotency_key,
        record.claimant,
        record.claim_until,
    )


def _take_place(at: Connection, effect: TakePlace) -> PaymentRecord | None:
    taken = at.execute(
        _TAKE_PLACE,
        (
            effect.claimant,
            effect.claim_until,
            effect.idempotency_key,
            effect.payment_id,
            effect.caller,
            effect.now_seconds,
        ),
    ).rowcount
    return _known(at, effect.payment_id) if taken else None


def _give_place_up(at: Connection, effect: GivePlaceUp) -> bool:
    return at.execute(_GIVE_PLACE_UP, (effect.payment_id, effect.claimant)).rowcount == 1


def _tell(at: Connection, effect: Tell) -> bool:
    return at.execute(_TELL, (effect.payment_id, effect.claimant)).rowcount == 1


def _known(at: Connection, payment_id: str) -> PaymentRecord:
    record = find_payment(at, payment_id)
    if record is None:  # pragma: no cover - rows of payments are never deleted
        message = f"{payment_id} was on record a statement ago"
        raise LookupError(message)
    return record
