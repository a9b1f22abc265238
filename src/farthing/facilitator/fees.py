"""EIP-1559 fees under an absolute cap: of a first version, and of a replacement. All in wei a unit of gas."""

from __future__ import annotations

from typing import Final

import msgspec

# The base fee grows by an eighth a block at most: twice the current one lasts for six full blocks.
_BASE_FEE_FACTOR: Final = 2
# Nodes take a replacement from ten per cent on; an eighth more leaves no doubt after rounding.
_BUMP_DIVISOR: Final = 8
# What a cancellation may offer, by the cap: nodes want more for it than the version at the cap that it replaces, and
# its 21,000 gas at twice the fee cost less than a settlement's 80,000 at the fee itself.
CANCEL_CAP_FACTOR: Final = 2


class Fees(msgspec.Struct, frozen=True):
    """What a transaction offers, in wei a unit of gas."""

    max_fee_per_gas: int
    max_priority_fee_per_gas: int


class FeeCaps(msgspec.Struct, frozen=True):
    """The most that is ever offered, and the tip that is offered first, in wei a unit of gas."""

    max_fee_per_gas: int
    priority_fee_per_gas: int

    def first(self, base_fee_wei: int) -> Fees | None:
        """Fees for a first version, or None where the base fee is over the cap: then payments wait."""
        if base_fee_wei >= self.max_fee_per_gas:
            return None
        wanted = _BASE_FEE_FACTOR * base_fee_wei + self.priority_fee_per_gas
        max_fee = min(self.max_fee_per_gas, wanted)
        return Fees(max_fee, min(self.priority_fee_per_gas, max_fee))

    def bump(self, before: Fees, base_fee_wei: int) -> Fees | None:
        """Fees for a replacement, or None where the cap leaves no room for one."""
        max_fee = max(_bumped(before.max_fee_per_gas), _BASE_FEE_FACTOR * base_fee_wei + self.priority_fee_per_gas)
        max_fee = min(max_fee, self.max_fee_per_gas)
        if max_fee < _bumped(before.max_fee_per_gas):
            return None
        priority = max(_bumped(before.max_priority_fee_per_gas), self.priority_fee_per_gas)
        return None if priority > max_fee else Fees(max_fee, priority)

    def cancel(self, before: Fees, base_fee_wei: int) -> Fees | None:
        """Fees for a cancellation in the place of `before`, up to twice the cap; None where that leaves no room."""
        doubled = FeeCaps(CANCEL_CAP_FACTOR * self.max_fee_per_gas, self.priority_fee_per_gas)
        return doubled.bump(before, base_fee_wei)


def _bumped(fee: int) -> int:
    return fee + fee // _BUMP_DIVISOR + 1
