"""What the clearing house asks of its store about money: disputes, payments, rails' reports, payouts.

Each effect is one transaction of the database, as those of `farthing.clearing.store`.
"""

from __future__ import annotations

import msgspec

from farthing.clearing.rules import Rules
from farthing.clearing.store import StatementRecord
from farthing.flow import Effect
from farthing.protocol.statements import Dispute, DisputedLine


class PayoutRecord(msgspec.Struct, frozen=True):
    """A payout as it stands. `payment` is the JSON of the treasury's authorisation."""

    payout: str
    payee: int
    name: str
    currency: str
    amount: int
    address: str
    reference: str
    state: str
    payment: str
    valid_until: int
    transaction: str


# Disputes


class OpenDisputes(Effect[tuple[Dispute, ...] | str], frozen=True):
    """Dispute lines of a statement: hold them; the answer is a reason where none can be disputed.

    `found` gives each line's payee, resource, time and charge, as the statement has it.
    """

    statement: str
    lines: tuple[tuple[DisputedLine, dict[str, str]], ...]
    rules: Rules
    now_seconds: int


class DecideDispute(Effect[Dispute | None], frozen=True):
    """Grant or reject an open dispute; None where there is no such."""

    dispute: str
    granted: bool
    note: str
    rules: Rules
    now_seconds: int


class ListDisputes(Effect[tuple[Dispute, ...]], frozen=True):
    """List disputes: of a statement, or all in one state; a page at a time by id."""

    statement: str = ""
    state: str = ""
    after: str = ""
    count_max: int = 100


# Money


class AcceptStatement(Effect[bool], frozen=True):
    """Put a payer's payment on record; False where the statement is past that, or its disputes have changed."""

    statement: str
    payment: str
    payment_until: int
    disputed: int


class InstructStatement(Effect[StatementRecord | None], frozen=True):
    """Promise the payment in the books before the rail is asked; None where the statement is not accepted."""

    statement: str
    rules: Rules
    now_seconds: int


class ReturnStatement(Effect[bool], frozen=True):
    """The rail reports that the payment that was open until `payment_until` can't settle any more: void the promise.

    False where there is another payment by now.
    """

    statement: str
    payment_until: int
    rules: Rules
    now_seconds: int


class PayFromBalance(Effect[bool], frozen=True):
    """Pay a statement out of the payer's prepaid balance; False where it does not reach.

    What guaranteed shares of its other statements count on is not spent.
    """

    statement: str
    rules: Rules
    now_seconds: int


class Movement(msgspec.Struct, frozen=True):
    """Money that moved on a rail: `reference` is the nonce of its authorisation, empty for a plain transfer."""

    network: str
    transaction: str
    log_index: int
    block_number: int
    incoming: bool
    counterparty: str
    amount: int
    reference: str


class RecordMovements(Effect[tuple[str, ...]], frozen=True):
    """Book what a rail reports, each movement once, and remember how far it was read; the answer is what it settled."""

    network: str
    currency: str
    movements: tuple[Movement, ...]
    next_block: int
    rules: Rules
    now_seconds: int


class FindScan(Effect[int | None], frozen=True):
    """Say from which block on a network is to be read; None at the beginning."""

    network: str


class AssignSuspense(Effect[bool], frozen=True):
    """Give money in suspense to a payer's balance; False where it is not there (any more), or in another currency."""

    network: str
    transaction: str
    log_index: int
    directory: str
    rules: Rules
    now_seconds: int


class PlanPayouts(Effect[tuple[str, ...]], frozen=True):
    """Decide payouts for what is cleared: one for each proved payee that has none under way; the answer names them."""

    currency: str
    rules: Rules
    now_seconds: int


class OpenPayouts(Effect[tuple[PayoutRecord, ...]], frozen=True):
    """Give the payouts that are not settled."""

    count_max: int


class StoreSignedPayout(Effect[bool], frozen=True):
    """Keep the treasury's authorisation before anybody is given it."""

    payout: str
    payment: str
    valid_until: int


class SuspendOverdue(Effect[tuple[str, ...]], frozen=True):
    """Suspend payers with a statement unpaid beyond its due date and the grace; the answer names them."""

    rules: Rules
    now_seconds: int
