"""What an auditor asks a clearing house, as effects."""

from __future__ import annotations

from typing import Final

import msgspec

from farthing.errors import FarthingError
from farthing.flow import Effect
from farthing.protocol.statements import (
    Dispute,
    DisputedLine,
    StatementAnswer,
    StatementPayment,
    StatementStatus,
)
from farthing.signatures.keys import PublicKey

# Of one read of a statement's lines: some hundred kilobytes.
LEAVES_AT_ONCE: Final = 1_000


class HouseAway(FarthingError):
    """The clearing house gave no clear answer: it is away, busy, or in trouble. Nothing is known to have happened."""


class HouseRefused(FarthingError):
    """The clearing house said no. `reason` is its code, `status` that of HTTP."""

    def __init__(self, message: str, *, reason: str, status: int) -> None:
        """Hold the code and the status."""
        super().__init__(message)
        self.reason = reason
        self.status = status


class LeafPage(msgspec.Struct, frozen=True):
    """Some leaves of a statement as they came; `next_offset` is where the next ones begin, None at the end."""

    leaves: tuple[bytes, ...]
    next_offset: int | None


class FetchKeys(Effect[tuple[PublicKey, ...]], frozen=True):
    """Ask for the keys that sign statements."""


class ListStatuses(Effect[tuple[StatementStatus, ...]], frozen=True):
    """List the payer's statements, oldest first, a page after the id `after`."""

    after: str


class FetchStatement(Effect[StatementAnswer], frozen=True):
    """Ask for a statement. Raises `HouseAway` and `HouseRefused`, as all of these."""

    statement: str


class FetchLines(Effect[None], frozen=True):
    """Keep a statement's lines at hand (on disk, since there may be a million), up to a limit of `max_bytes`."""

    statement: str
    max_bytes: int


class ReadLeaves(Effect[LeafPage], frozen=True):
    """Read some of the lines that are at hand, from an offset in bytes."""

    statement: str
    offset: int


class SendDisputes(Effect[tuple[Dispute, ...]], frozen=True):
    """Dispute lines of a statement. Sent again, a line stays disputed once."""

    statement: str
    lines: tuple[DisputedLine, ...]


class SendStatementPayment(Effect[StatementStatus], frozen=True):
    """Accept a statement and pay it: the payment that is on record. Sent again, it is the same acceptance."""

    statement: str
    payment: StatementPayment
