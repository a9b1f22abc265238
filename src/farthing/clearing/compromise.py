"""Compromised keys: what the clearing house asks of its store when a key's owner says that somebody else may have it.

A key is declared once, and what was declared first stands. Edges are told with their next lease, and take nothing
under the key from then on: all of them within `KEY_CACHE_SECONDS`, since no lease lasts longer. What was committed
until then is billed. What was committed later, by work that took its time or a clock that is fast, is the *network's
risk*: the payer never owes it, and the payee has it from the reserve. Whoever was told and takes such a promise all the
same has it from nobody: a line counts only within a lease from before, so that the risk is no more than these leases.
"""

from __future__ import annotations

from typing import Final

import msgspec

from farthing.clearing.rules import Rules
from farthing.flow import Effect
from farthing.protocol.clearing import KEY_CACHE_SECONDS

# What one transaction pays of what the network bears: what is left goes with the next round.
BORNE_MAX: Final = 500


class CompromisedKey(msgspec.Struct, frozen=True):
    """A key that was declared. `since` is when it was compromised, as its owner says; `declared_at` when we were told.

    For money the second counts: an owner that could set the first would get rid of what it owes.
    """

    directory: str
    thumbprint: str
    since: int
    declared_at: int
    declared_by: str

    @property
    def billed_until(self) -> int:
        """Lines that were committed later are the network's risk."""
        return self.declared_at + KEY_CACHE_SECONDS


class DeclareCompromised(Effect[CompromisedKey | str], frozen=True):
    """Put a declaration on record; the first one stands, and is the answer to all others.

    Why not, else: `unknown_payer` or `too_many_keys`.
    """

    directory: str
    thumbprint: str
    since: int
    declared_by: str
    now_seconds: int


class FindCompromised(Effect[tuple[CompromisedKey, ...]], frozen=True):
    """Give a payer's declared keys, by thumbprint."""

    directory: str


class PayBorne(Effect[int], frozen=True):
    """Pay what the network bears out of the reserve, the oldest first, as far as it reaches beyond what it guarantees.

    Only what was checked line by line with its window. The answer is the sum.
    """

    currency: str
    rules: Rules
    now_seconds: int
