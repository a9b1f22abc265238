"""Keeping a run: while the work of a settled payment goes on, its lease is renewed, so that no copy runs beside it.

A stream may take hours, and a client that reads slowly can make any answer take as long as it likes: neither makes
one payment buy two servings (SAFETY S1).
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from farthing.errors import StoreError
from farthing.flow import drive_async
from farthing.seller.conclude import keep
from farthing.seller.settling import SETTLE_LEASE_SECONDS
from farthing.seller.ticket import Ticket
from farthing.world.performers import Performer

# Two renewals may fail before the lease is over.
RENEW_SECONDS: Final = SETTLE_LEASE_SECONDS / 3
# A day: a run that takes longer hangs, and its payment is taken for cut.
RENEWALS_MAX: Final = 1_440


async def keep_running(ticket: Ticket, performer: Performer) -> None:
    """Renew the lease until cancelled, or until the run is over or another's."""
    for _ in range(RENEWALS_MAX):
        await asyncio.sleep(RENEW_SECONDS)
        with contextlib.suppress(StoreError):
            if not await drive_async(keep(ticket), performer.awaiting):
                return
