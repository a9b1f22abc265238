"""What became of a payment, by the evidence on chain alone, and whether the ledger says the same. Nothing is guessed.

For operators: a running service finds all of it out by itself. This looks at store and chain from outside, changes
nothing, and says what it saw.
"""

from __future__ import annotations

from typing import Final

import msgspec

from farthing.facilitator.chain import Head
from farthing.facilitator.states import CONFIRMED, FINAL, REFUSED
from farthing.facilitator.store import PaymentRecord
from farthing.mechanisms.interface import Evidence, Spent, SpentOtherwise

SETTLED: Final = "settled"
NOT_SETTLED: Final = "not_settled"
COULD_NOT: Final = "could_not"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What was found out about one payment: `verdict` is `settled`, `not_settled` or `could_not`.

    `booked` is what the ledger says was moved, reversals taken off, in atomic units; `agrees` whether that, and the
    state on record, is what the chain shows. `final` says that no reorganisation can change the evidence any more.
    """

    record: PaymentRecord
    verdict: str
    why: str
    transaction: str = ""
    block_number: int | None = None
    log_index: int | None = None
    final: bool = False
    booked: int = 0
    agrees: bool = True


def find_out(
    record: PaymentRecord, evidence: Evidence, *, head: Head, final: Head | None, depth: int, booked: int
) -> Finding:
    """Judge one payment by its evidence, and compare with what is on record and in the ledger."""
    finding = _by_evidence(record, evidence, head=head, final=final, depth=depth)
    in_books = record.state in {CONFIRMED, FINAL}
    expected = record.amount if in_books else 0
    contradicted = NOT_SETTLED if in_books else SETTLED if record.state == REFUSED else ""
    agrees = booked == expected and finding.verdict != contradicted
    return msgspec.structs.replace(finding, booked=booked, agrees=agrees)


def could_not(record: PaymentRecord, why: str, *, booked: int) -> Finding:
    """Say why it could not be found out; what the ledger holds is told all the same."""
    expected = record.amount if record.state in {CONFIRMED, FINAL} else 0
    return Finding(record=record, verdict=COULD_NOT, why=why, booked=booked, agrees=booked == expected)


def _by_evidence(record: PaymentRecord, evidence: Evidence, *, head: Head, final: Head | None, depth: int) -> Finding:
    if isinstance(evidence, Spent):
        return _spent(record, evidence, head=head, final=final, depth=depth)
    if isinstance(evidence, SpentOtherwise):
        if evidence.block_number is not None and head.number - evidence.block_number + 1 < depth:
            why = f"Spent otherwise, in a block that is not {depth} deep yet."
            return Finding(record=record, verdict=COULD_NOT, why=why, transaction=evidence.transaction)
        return Finding(
            record=record,
            verdict=NOT_SETTLED,
            why="The right was cancelled, or spent by another transfer than the one that was signed.",
            transaction=evidence.transaction,
            block_number=evidence.block_number,
            final=_is_final(evidence.block_number, final),
        )
    if final is not None and final.time_seconds >= record.valid_before:
        why = f"Unspent in the finalised block {final.number}, which is past validBefore."
        return Finding(record=record, verdict=NOT_SETTLED, why=why, block_number=final.number, final=True)
    if head.time_seconds >= record.valid_before:
        why = f"Unspent, its window over; no finalised block is past validBefore ({record.valid_before}) yet."
    else:
        why = f"Unspent in block {head.number}; it may be settled until {record.valid_before}."
    return Finding(record=record, verdict=COULD_NOT, why=why)


def _spent(record: PaymentRecord, spent: Spent, *, head: Head, final: Head | None, depth: int) -> Finding:
    verdict, why = SETTLED, "AuthorizationUsed with the matching Transfer."
    if head.number - spent.block_number + 1 < depth:
        verdict, why = COULD_NOT, f"Spent as signed, in a block that is not {depth} deep yet."
    elif spent.block_number <= record.recorded_block:
        verdict, why = NOT_SETTLED, "Spent as signed, before it was brought here: that was another sale."
    return Finding(
        record=record,
        verdict=verdict,
        why=why,
        transaction=spent.transaction,
        block_number=spent.block_number,
        log_index=spent.log_index,
        final=_is_final(spent.block_number, final),
    )


def _is_final(block_number: int | None, final: Head | None) -> bool:
    return block_number is not None and final is not None and block_number <= final.number
