"""A virtual clock: one time for the chain and for the parties, moved when a test says so.

    clock = VirtualClock(devnet)
    clock.attach(buyer, seller)
    clock.advance(3_600)         # an hour later, on the chain and for both

It runs on with the wall clock between two advances, as the devnet's own does, so that windows and leases end as usual.
"""

from __future__ import annotations

import threading
import time
from typing import Any, Final, Protocol

from farthing.flow import Effect, Now
from farthing.services.devnet import Devnet
from farthing.world.performers import Performer

# A year: chain and parties keep their arithmetic, and no scheme's window is longer.
ADVANCE_MAX_SECONDS: Final = 31_536_000


class HasPerformer(Protocol):
    """A party whose effects are performed by a table: a `Buyer`, a `Seller`."""

    performer: Performer


class VirtualClock:
    """Answers `Now` for the parties attached to it, moved together with a devnet. Safe to use from several threads."""

    def __init__(self, devnet: Devnet | None = None) -> None:
        """Begin at the wall clock's time; `devnet` moves along where one is given."""
        self._devnet = devnet
        self._lock = threading.Lock()
        self.ahead_seconds = 0

    def __repr__(self) -> str:
        return f"VirtualClock(ahead_seconds={self.ahead_seconds})"

    @property
    def now(self) -> int:
        """The time in whole Unix seconds."""
        return int(time.time()) + self.ahead_seconds

    def advance(self, seconds: int) -> None:
        """Move on; the chain gets a block that shows it. Raises `ValueError` for going back, or over a year at once."""
        if not 0 <= seconds <= ADVANCE_MAX_SECONDS:
            message = f"A clock is advanced by 0 to {ADVANCE_MAX_SECONDS} seconds, not by {seconds}."
            raise ValueError(message)
        with self._lock:
            self.ahead_seconds += seconds
            if self._devnet is not None:
                self._devnet.increase_time(seconds)
                self._devnet.mine()

    def attach(self, *parties: HasPerformer) -> None:
        """Let these parties' `Now` be answered here, from their next flow on."""
        for party in parties:
            party.performer = party.performer.with_(self.handlers())

    def handlers(self) -> dict[type[Effect[Any]], Any]:
        """The handler of `Now`, for a `Performer` of one's own."""
        return {Now: self._now}

    def _now(self, _effect: Now) -> int:
        return self.now
