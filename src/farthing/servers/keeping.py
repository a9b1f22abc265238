"""Keeping a run: while the work of a settled payment goes on, its lease is renewed, so that no copy runs beside it.

A stream may take hours, and a client that reads slowly can make any answer take as long as it likes: neither makes
one payment buy two servings (SAFETY S1). Nor does a process that stood still for so long that it may have been taken
for dead: it sends no other byte before the store has said that the run is its own still (decision 023).
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from farthing.errors import StoreError
from farthing.flow import drive_async
from farthing.seller.conclude import keep
from farthing.seller.settling import SETTLE_LEASE_SECONDS
from farthing.seller.silence import still_ours
from farthing.seller.states import State
from farthing.seller.ticket import Ticket
from farthing.world.lanes import Lanes
from farthing.world.performers import Performer

# Two renewals may fail before the lease is over.
RENEW_SECONDS: Final = SETTLE_LEASE_SECONDS / 3
# A day: a run that takes longer hangs, and its payment is taken for cut.
RENEWALS_MAX: Final = 1_440
# While the store is away a stream stands still, and asks so often; after that it is cut.
ASK_SECONDS: Final = 1.0
ASKS_MAX: Final = SETTLE_LEASE_SECONDS


class KeptRun:
    """The run of a settled payment, by the process that began it. `ticket` is the one to end it with."""

    def __init__(self, ticket: Ticket, performer: Performer, lanes: Lanes) -> None:
        """Keep the run of `ticket`; nothing is asked yet."""
        self.ticket = ticket
        self._performer, self._lanes = performer, lanes
        self._number = ticket.claim
        self._lost = False
        self._asking = asyncio.Lock()

    async def renew(self) -> None:
        """Renew the lease until cancelled, or until the run is over or another's."""
        for _ in range(RENEWALS_MAX):
            await asyncio.sleep(RENEW_SECONDS)
            with contextlib.suppress(StoreError):
                ticket = self.ticket
                if not await drive_async(keep(ticket), self._performer.awaiting) and ticket is self.ticket:
                    self._lost = True
                    return

    def is_sure(self) -> bool:
        """Tell, without asking anybody, that the run is this process's; False where that is to be asked."""
        return not self._lost and self._lanes.holds(self._number)

    async def is_ours(self) -> bool:
        """Find out whether the run is this process's, and wait where the store can't say. False: send nothing more."""
        async with self._asking:
            for _ in range(ASKS_MAX):
                if self._lost or self._lanes.ended or self.is_sure():
                    break
                with contextlib.suppress(StoreError):
                    # Drawn before the store is asked: a silence between that and the next byte makes it old again.
                    number = self._lanes.next()
                    ours = await drive_async(
                        still_ours(self.ticket, State.RUNNING, number=self._number), self._performer.awaiting
                    )
                    self._lost = ours is None
                    self.ticket, self._number = ours or self.ticket, number
                    continue
                await asyncio.sleep(ASK_SECONDS)
            return self.is_sure()
