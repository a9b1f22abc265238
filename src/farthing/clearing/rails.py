"""A rail: how a statement is paid and payees are paid out. `docs/adding-a-rail.md` walks through one.

A rail has four things to say: on which terms a statement can be paid, whether a payment fits them, what its own books
report, and how a payout is authorised. What it is *told* proves nothing: only its report settles (SAFETY C6).
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from farthing.clearing.settlement import Movement, PayoutRecord
from farthing.clearing.store import StatementRecord
from farthing.flow import Flow
from farthing.protocol.messages import PaymentPayload
from farthing.protocol.statements import RailTerms


class FitPayment(msgspec.Struct, frozen=True):
    """A payment that fits a statement: its JSON for the record, and when its authorisation ends (Unix seconds)."""

    payment: str
    until: int


class UnfitPayment(msgspec.Struct, frozen=True):
    """A payment that does not: a stable code, and words."""

    reason: str
    detail: str


class RailReport(msgspec.Struct, frozen=True):
    """What a rail's books say: movements since the last report, which end before `next_block`, as of `time_seconds`.

    All that was authorised until before `time_seconds` and is in no report will never settle.
    """

    network: str
    movements: tuple[Movement, ...]
    next_block: int
    time_seconds: int
    complete: bool


class Rail(Protocol):
    """How money moves in one currency. All of it flows and pure functions; effects are the rail's own."""

    @property
    def name(self) -> str:
        """The name in a statement's terms."""
        ...

    @property
    def currency(self) -> str:
        """The currency of the accounts that are paid by it."""
        ...

    def terms(self, statement: str, valid_before: int) -> RailTerms:
        """Say how a statement can be paid: its reference is the statement's alone."""
        ...

    def fit(self, payment: PaymentPayload, record: StatementRecord, *, now_seconds: int) -> FitPayment | UnfitPayment:
        """Judge a payment, without asking anybody."""
        ...

    def instruct(self, record: StatementRecord) -> Flow[str]:
        """Hand a statement's payment on, once more or for the first time; the answer is for the log alone."""
        ...

    def report(self, next_block: int | None) -> Flow[RailReport]:
        """Read the rail's books from where they were read last (None: for the first time)."""
        ...

    def authorise(self, payout: PayoutRecord) -> Flow[FitPayment]:
        """Sign a payout; of all that is ever signed for it only one can settle."""
        ...

    def pay_out(self, payout: PayoutRecord) -> Flow[str]:
        """Hand a signed payout on; the answer is for the log alone."""
        ...
