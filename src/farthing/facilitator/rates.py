"""How much may be asked for in a while: quotas by name, in bounded memory, without a clock.

Gas is our money, and a node's time is paid for: nobody gets more of either than the configuration says (SAFETY F6).
Nothing unverified counts against the payer that it names, so that junk locks no payer out.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable
from typing import Final

from farthing.flow import Effect

# A period is counted in so many parts: what was used stays counted for a sixth of it too long at most.
_PARTS: Final = 6
# Names remembered at once, some 300 bytes each. Beyond it the one that took nothing for longest begins anew.
NAMES_MAX: Final = 20_000


class Quota:
    """At most `amount_max` of something in any `period_seconds`, for each name."""

    def __init__(self, amount_max: int, period_seconds: int, *, names_max: int = NAMES_MAX) -> None:
        """Begin with nothing used."""
        self.amount_max = amount_max
        self.period_seconds = period_seconds
        self._names_max = names_max
        self._part_seconds = period_seconds / _PARTS
        # What each name used, by the number of the part, oldest first.
        self._used: OrderedDict[Hashable, dict[int, int]] = OrderedDict()

    def __len__(self) -> int:
        """Count the names that are remembered."""
        return len(self._used)

    def wait_seconds(self, name: Hashable, now_seconds: float, amount: int = 1) -> int:
        """Say how long `name` has to wait until `amount` fits: 0 where it does now. Takes nothing."""
        if amount > self.amount_max:
            return self.period_seconds
        used = self._used.get(name)
        if used is None or sum(used.values()) + amount <= self.amount_max:
            return 0
        part = int(now_seconds / self._part_seconds)
        # Any period touches the part that runs and the six before it, at most.
        counted = {each: count for each, count in used.items() if each >= part - _PARTS}
        over = sum(counted.values()) + amount - self.amount_max
        if over <= 0:
            return 0
        for each, count in counted.items():
            over -= count
            if over <= 0:
                return max(1, math.ceil((each + _PARTS + 1) * self._part_seconds - now_seconds))
        return self.period_seconds

    def take(self, name: Hashable, now_seconds: float, amount: int = 1) -> None:
        """Count `amount` for `name`, whether it fits or not."""
        part = int(now_seconds / self._part_seconds)
        used = self._used.setdefault(name, {})
        for old in [each for each in used if each < part - _PARTS]:
            del used[old]
        used[part] = used.get(part, 0) + amount
        self._used.move_to_end(name)
        if len(self._used) > self._names_max:
            self._used.popitem(last=False)


class CheckLimits(Effect[None], frozen=True):
    """See that payer and caller have room for one payment more; takes nothing. Raises `RateLimited`."""

    network: str
    caller: str
    payer: str


class CountPayment(Effect[None], frozen=True):
    """Count a payment that was verified, with the gas that it may take, for payer and caller. Raises `RateLimited`."""

    network: str
    caller: str
    payer: str
    gas_limit: int
