"""The caretaker: one thread a process that cares, now and then, for payments that nobody asks for (`seller.caring`)."""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import Final

import msgspec

from farthing.errors import FarthingError
from farthing.flow import drive
from farthing.seller.caring import care
from farthing.seller.refunding import RefundDesk, refund_round
from farthing.servers.refunds import RefundSigners
from farthing.world.performers import Performer
from farthing.world.seller_store import SellerStore

# A payment whose process died waits until its lane is over (`farthing.world.lanes`), then for one round that moves it,
# and for one that looks up what became of it: less than a minute in all.
ROUND_SECONDS: Final = 10.0
# The first round soon after the start: a restart is when there is most to care for.
FIRST_SECONDS: Final = 5.0
# Files of responses that no payment has: the work that writes one longer than this is over, one way or the other.
SPOOL_SECONDS: Final = 3_600.0

log = logging.getLogger("farthing.seller")


class Refunding(msgspec.Struct, frozen=True):
    """What refunds are made with, and by whom they are signed."""

    desk: RefundDesk
    signers: RefundSigners


class Caretaker:
    """Cares for the payments of one store. All processes on a store may have one: each move is made once."""

    def __init__(self, store: SellerStore, performer: Performer, refunding: Refunding) -> None:
        """Take store and performer; nothing runs yet."""
        self._store, self._performer, self._refunding = store, performer, refunding
        # Behind which claims the next pages begin, of what is owed and of what was settled.
        self._refunds_after = self._followed_after = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._process = 0

    def start(self) -> None:
        """Start in this process, if it has not been. A forked process needs a start of its own."""
        with self._lock:
            if self._process == os.getpid() or self._closing.is_set():
                return
            self._process = os.getpid()
            threading.Thread(target=self._run, name="farthing-caretaker", daemon=True).start()

    def close(self) -> None:
        """Let no other round begin."""
        self._closing.set()

    def round(self) -> int:
        """Care once, now, in this thread; gives how many payments were touched. Raises `FarthingError`."""
        cared = drive(care(followed_after=self._followed_after), self._performer.blocking)
        self._followed_after = cared.followed_after
        for lost in cared.losses:
            log.error("%s was served, and its settlement is lost for good: booked as a loss", lost)
        return cared.touched + self._refund() if self._refunding.signers.any else cared.touched

    def _refund(self) -> int:
        flow = refund_round(self._refunding.desk, after=self._refunds_after)
        made = drive(flow, self._performer.blocking)
        self._refunds_after = made.next_after
        for paid in made.refunded:
            log.info("%s was refunded by %s", paid.payment_id, paid.transaction)
        for each in made.troubles:
            log.warning("the refund of %s waits, and is tried again: %s", each.payment_id, each.why)
        return len(made.refunded)

    def _run(self) -> None:
        pause, swept = FIRST_SECONDS, False
        while not self._closing.wait(pause):
            pause = ROUND_SECONDS
            try:
                if not swept:
                    self._store.sweep_spool(older_than=time.time() - SPOOL_SECONDS)
                    swept = True
                self.round()
            except FarthingError as error:
                if not self._closing.is_set():
                    log.warning("payments that nobody asks for could not be cared for now: %s", error)
            except Exception:
                if not self._closing.is_set():
                    log.exception("caring for payments failed")
