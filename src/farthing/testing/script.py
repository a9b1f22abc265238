"""A script: which of its modes a stand-in plays for the next request, and what it does when the script is over."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Final, Generic, TypeVar

M = TypeVar("M", bound=Enum)

# A script is read by people: one that is longer is a mistake.
SCRIPT_MAX_MODES: Final = 10_000


class Script(Generic[M]):
    """Modes in turn, then `then` for ever. One mode alone is played for ever. Safe to use from several threads."""

    def __init__(self, modes: M | Iterable[M], *, then: M) -> None:
        """Take a mode for ever, or modes in turn and what comes after them. Raises `ValueError` for over 10,000."""
        self._modes: list[M] = [] if isinstance(modes, Enum) else list(modes)
        self._then = modes if isinstance(modes, Enum) else then
        if len(self._modes) > SCRIPT_MAX_MODES:
            message = f"A script has {len(self._modes)} modes; the limit is {SCRIPT_MAX_MODES}. Give one mode for ever."
            raise ValueError(message)
        self._lock = threading.Lock()
        self._next = 0

    def next(self) -> M:
        """Give the mode of the next request."""
        with self._lock:
            index = self._next
            self._next += 1
        return self._modes[index] if index < len(self._modes) else self._then

    @property
    def left(self) -> int:
        """How many of the modes are still to be played."""
        with self._lock:
            return max(0, len(self._modes) - self._next)


class Faults:
    """Faults that look random and are not: the same seed gives the same scripts, in the order in which they are asked.

    with HostileSeller(shop_url, faults.script(SellerMode, 20)) as seller: ...
    """

    def __init__(self, seed: int) -> None:
        """Take the seed; a failing test prints it."""
        self.seed = seed
        # What the pytest plugin was given, of which `seed` is made for each test.
        self.session_seed = seed
        self._random = random.Random(seed)  # noqa: S311 - to be repeated is what it is for

    def __repr__(self) -> str:
        return f"Faults(seed={self.seed})"

    def script(self, modes: type[M] | Sequence[M], length: int, *, behave: M | None = None, one_in: int = 2) -> list[M]:
        """Draw `length` modes: on average one in `one_in` misbehaves, the others are `behave` (by default the first).

        Raises `ValueError` for a chance that is none.
        """
        pool: list[M] = list(modes)
        good = pool[0] if behave is None else behave
        bad = [each for each in pool if each is not good]
        if one_in < 1 or not bad:
            message = "Faults.script wants one_in of 1 or more, and a mode beside the one that behaves."
            raise ValueError(message)
        return [self._random.choice(bad) if self._random.randrange(one_in) == 0 else good for _ in range(length)]
