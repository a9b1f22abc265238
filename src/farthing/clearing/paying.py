"""Money: statements handed to their rail, rails' reports booked, payees paid out, payers suspended who don't pay.

Guaranteed payees of who doesn't pay are paid from the reserve.

One round is `work`. It may be cut anywhere and run by several processes: promises are booked before a rail is told, the
rail's reports are booked once each, and what a nonce stands for the chain settles once.
"""

from __future__ import annotations

from typing import Final

import msgspec

from farthing.clearing.compromise import PayBorne
from farthing.clearing.flows import Desk
from farthing.clearing.guarantee import CoverDefaults
from farthing.clearing.rails import Rail, RailReport
from farthing.clearing.settlement import (
    FindScan,
    InstructStatement,
    OpenPayouts,
    PayoutRecord,
    PlanPayouts,
    RecordMovements,
    ReturnStatement,
    StoreSignedPayout,
    SuspendOverdue,
)
from farthing.clearing.states import ACCEPTED, INSTRUCTED, SIGNED
from farthing.clearing.store import LapseLeases, ListStatements, StatementRecord
from farthing.flow import Flow, Now

# Of one round: what is left goes with the next.
STATEMENTS_MAX: Final = 500
PAYOUTS_MAX: Final = 200
# Looks at a chain that is far behind, before the other work has its turn.
REPORTS_MAX: Final = 20


class Round(msgspec.Struct, frozen=True):
    """What a round found to do: for the log, and for the caller that hands things on."""

    settled: tuple[str, ...]
    returned: tuple[str, ...]
    suspended: tuple[str, ...]
    covered: tuple[str, ...] = ()
    borne: int = 0


def read_rail(desk: Desk, rail: Rail, network: str) -> Flow[tuple[RailReport, tuple[str, ...]]]:
    """Book what a rail reports, until there is no more or enough; the last report, and all that was settled."""
    settled: tuple[str, ...] = ()
    next_block = yield from FindScan(network)
    report = yield from rail.report(next_block)
    for _ in range(REPORTS_MAX):
        now_seconds = yield from Now()
        settled += yield from RecordMovements(
            network, rail.currency, report.movements, report.next_block, desk.rules, now_seconds
        )
        if report.complete:
            break
        report = yield from rail.report(report.next_block)
    return report, settled


def reconcile(desk: Desk, rail: Rail, network: str) -> Flow[Round]:
    """Read the rail's books, take back what can't settle any more, suspend who is overdue, and pay from the reserve."""
    report, settled = yield from read_rail(desk, rail, network)
    returned: list[str] = []
    now_seconds = yield from Now()
    for record in (yield from ListStatements(state=INSTRUCTED, count_max=STATEMENTS_MAX)):
        # Evidence, not a refusal: the rail's own books are complete beyond the end of the authorisation.
        over = report.complete and record.currency == rail.currency and record.payment_until < report.time_seconds
        if over and (yield from ReturnStatement(record.statement, record.payment_until, desk.rules, now_seconds)):
            returned.append(record.statement)
    suspended = yield from SuspendOverdue(desk.rules, now_seconds)
    yield from LapseLeases(now_seconds, desk.rules.late_limit_seconds)
    covered: tuple[str, ...] = ()
    if report.complete:
        # Not by our clock alone: a payment may be in blocks that were not read yet.
        read_until = min(now_seconds, report.time_seconds)
        covered = yield from CoverDefaults(rail.currency, desk.rules, read_until, now_seconds)
    borne = yield from PayBorne(rail.currency, desk.rules, now_seconds)
    return Round(settled, tuple(returned), suspended, covered, borne)


def instruct_accepted(desk: Desk) -> Flow[tuple[StatementRecord, ...]]:
    """Book promises for what payers accepted; the answer is all that is to be handed to its rail (again)."""
    now_seconds = yield from Now()
    for record in (yield from ListStatements(state=ACCEPTED, count_max=STATEMENTS_MAX)):
        if record.payment:
            yield from InstructStatement(record.statement, desk.rules, now_seconds)
    return (yield from ListStatements(state=INSTRUCTED, count_max=STATEMENTS_MAX))


def prepare_payouts(desk: Desk, rail: Rail) -> Flow[tuple[PayoutRecord, ...]]:
    """Decide and sign payouts; the answer is all that is to be handed to the rail (again)."""
    now_seconds = yield from Now()
    yield from PlanPayouts(rail.currency, desk.rules, now_seconds)
    for payout in (yield from OpenPayouts(PAYOUTS_MAX)):
        # Signed once and open: the same bytes again. Over: the same nonce, so that only one of the two can settle.
        if payout.currency == rail.currency and payout.valid_until <= now_seconds:
            fit = yield from rail.authorise(payout)
            yield from StoreSignedPayout(payout.payout, fit.payment, fit.until)
    return tuple(
        payout
        for payout in (yield from OpenPayouts(PAYOUTS_MAX))
        if payout.state == SIGNED and payout.currency == rail.currency
    )
