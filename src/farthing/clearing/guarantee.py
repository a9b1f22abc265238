"""The guarantee: an account in reserve, and what the clearing house asks of its store about it.

By default payees are paid when payers have paid. A payee that an operator guarantees is paid for its share of a
statement out of the reserve, once the payer is in default: unpaid beyond due date and grace, and beyond the date until
which it could dispute, so that nothing is paid for that might turn out not to be owed. The payer owes the same as
before; what it pays then refills the reserve. Each effect is one transaction, as those of `farthing.clearing.store`.
"""

from __future__ import annotations

from typing import Final

import msgspec

from farthing.clearing.rules import Rules
from farthing.flow import Effect

# Shares that one transaction covers: what is left goes with the next round.
COVERS_MAX: Final = 500


class Reserve(msgspec.Struct, frozen=True):
    """How the reserve of a currency stands, in atomic units.

    `amount` is in it, `recourse` is what payers owe to it. `guaranteed` is what it may have to pay for statements that
    are issued and not paid; of that, `uncovered` is in default already, and waits for more to be in it.
    """

    currency: str
    amount: int
    recourse: int
    guaranteed: int
    uncovered: int


class GuaranteePayee(Effect[bool], frozen=True):
    """Guarantee a payee's shares of the statements that are issued from now on, or no more; False for no such payee."""

    name: str
    guaranteed: bool


class FundReserve(Effect[bool], frozen=True):
    """Move money that came and is in suspense to the reserve; False where it is not there (any more)."""

    network: str
    transaction: str
    log_index: int
    currency: str
    rules: Rules
    now_seconds: int


class TakeReserve(Effect[str], frozen=True):
    """Move money out of the reserve to what a payee, an account of the operator's own, is paid out next.

    What may have to be paid for statements that are issued stays in it.
    `request` names the taking: the same again takes nothing more. The answer is empty where it is done, else why not:
    `unknown_payee`, `too_much`, or `request_reused`.
    """

    request: str
    payee: str
    amount: int
    rules: Rules
    now_seconds: int


class CoverDefaults(Effect[tuple[str, ...]], frozen=True):
    """Pay guaranteed shares of statements in default, the oldest first, as far as the reserve reaches.

    `read_until` is the time up to which the rail's books were read to their end: what is unpaid as of then is. The
    answer names the statements.
    """

    currency: str
    rules: Rules
    read_until: int
    now_seconds: int


class FindReserve(Effect[Reserve], frozen=True):
    """Say how the reserve of a currency stands, at a time."""

    currency: str
    rules: Rules
    now_seconds: int
