"""The refunds of the seller's store: rows, their SQL, and the effects of `farthing.seller.refunds` upon them.

Each step is one conditional statement, and the number of rows affected is the answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from farthing.flow import Effect
from farthing.seller.refunds import (
    FindRefundsDue,
    PostponeRefund,
    RecordRefund,
    RefundDue,
    RefundRecord,
    TakeRefundTurn,
)
from farthing.seller.states import PaymentFlow
from farthing.world.connection import Connection, Database
from farthing.world.database import off_the_loop
from farthing.world.pending import Pending

_DUE: Final = (
    "SELECT c.claim, c.payment_id, s.epoch, c.flow, c.network, c.asset, c.payer, c.pay_to, c.amount, c.resource, "
    "s.settlement_tx, COALESCE(l.posted_at, 0), r.signer, r.payment, r.valid_before, r.series, r.turn_at, r.note "
    "FROM seller_state AS s JOIN seller_claim AS c ON c.claim = s.claim "
    "LEFT JOIN seller_ledger AS l ON l.claim = c.claim AND l.settlement_tx = s.settlement_tx "
    "LEFT JOIN seller_refund AS r ON r.claim = c.claim "
    "WHERE s.state = 'refund_due' AND s.reason <> 'answer_cut' AND c.claim > ? AND COALESCE(r.turn_at, 0) <= ? "
    "ORDER BY c.claim LIMIT ?"
)
_BEGIN: Final = (
    "INSERT INTO seller_refund (claim, signer, payment, valid_before, series, turn_at, note) "
    "VALUES (?, ?, '', 0, 0, ?, '') ON CONFLICT (claim) DO NOTHING"
)
_TAKE: Final = "UPDATE seller_refund SET turn_at = ? WHERE claim = ? AND turn_at = ?"
_RECORD: Final = (
    "UPDATE seller_refund SET signer = ?, payment = ?, valid_before = ?, series = ? "
    "WHERE claim = ? AND payment = ? AND valid_before = ? AND series = ?"
)
_POSTPONE: Final = "UPDATE seller_refund SET turn_at = ?, note = ? WHERE claim = ? AND turn_at = ?"
_UNDER_WAY: Final = (
    "SELECT c.payment_id, r.signer, r.payment, r.valid_before, r.series, r.turn_at, r.note "
    "FROM seller_refund AS r JOIN seller_claim AS c ON c.claim = r.claim "
    "JOIN seller_state AS s ON s.claim = r.claim WHERE s.state = 'refund_due' ORDER BY r.claim LIMIT ?"
)


class SellerRefunds:
    """The refunds that a seller's store holds."""

    def __init__(self, database: Database) -> None:
        """Take the store's database."""
        self._database = database

    def handlers(self) -> dict[type[Effect[Any]], Callable[[Any], Any]]:
        """Give the handlers of the effects, for a `Performer`."""
        return {
            FindRefundsDue: off_the_loop(self._database, self.find_due),
            TakeRefundTurn: self.take_turn,
            RecordRefund: self.record,
            PostponeRefund: self.postpone,
        }

    def find_due(self, effect: FindRefundsDue) -> tuple[RefundDue, ...]:
        """Find what is owed and nobody has a turn at, on a connection for reading."""
        values = (effect.after, effect.now_seconds, effect.limit)
        return tuple(_due(row) for row in self._database.fetch(_DUE, values))

    def take_turn(self, effect: TakeRefundTurn) -> Pending[bool]:
        """Take the turn at a refund, if nobody has taken it since it was found."""
        if effect.found is None:
            return self._step(_BEGIN, (effect.claim, effect.signer, effect.until))
        return self._step(_TAKE, (effect.until, effect.claim, effect.found.turn_at))

    def record(self, effect: RecordRefund) -> Pending[bool]:
        """Put what was signed on record, in place of what was there."""
        over, new = effect.over, effect.record
        there = ("", 0, 0) if over is None else (over.payment.decode(), over.valid_before, over.series)
        made = (new.signer, new.payment.decode(), new.valid_before, new.series)
        return self._step(_RECORD, (*made, effect.claim, *there))

    def postpone(self, effect: PostponeRefund) -> Pending[bool]:
        """Give a turn back that is still held."""
        return self._step(_POSTPONE, (effect.until, effect.note, effect.claim, effect.turn_at))

    def under_way(self, *, limit: int) -> dict[str, RefundRecord]:
        """Give by payment id what is on record of refunds that are due still, at most `limit`."""
        return {row[0]: _record(row[1:]) for row in self._database.fetch(_UNDER_WAY, (limit,))}

    def _step(self, sql: str, values: tuple[Any, ...]) -> Pending[bool]:
        def run(connection: Connection) -> bool:
            return connection.execute(sql, values).rowcount == 1

        return self._database.submit(run)


def _due(row: tuple[Any, ...]) -> RefundDue:
    return RefundDue(
        claim=row[0],
        payment_id=row[1],
        epoch=row[2],
        flow=PaymentFlow(row[3]),
        network=row[4],
        asset=row[5],
        payer=row[6],
        pay_to=row[7],
        amount=int(row[8]),
        resource=row[9],
        transaction=row[10],
        settled_at=row[11],
        record=None if row[12] is None else _record(row[12:]),
    )


def _record(row: tuple[Any, ...]) -> RefundRecord:
    signer, payment, valid_before, series, turn_at, note = row
    return RefundRecord(signer, payment.encode(), valid_before, series, turn_at, note)
