"""The seller's store: every effect of `farthing.seller.store` is one atomic step here.

The rows and their SQL stand in `farthing.world.seller_rows`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from farthing.errors import StoreError
from farthing.flow import Effect
from farthing.seller.following import FindFollowed, Followed
from farthing.seller.states import State, allowed
from farthing.seller.store import (
    Advance,
    Archive,
    Claimed,
    FetchResponse,
    FindIdentifier,
    FindStale,
    Holds,
    IdentifierTaken,
    Known,
    LedgerEntry,
    LookUp,
    MakeClaim,
    MarkDelivered,
    SellerPayment,
    Stale,
    StoredResponse,
)
from farthing.world import seller_rows as rows
from farthing.world.database import off_the_loop, open_database
from farthing.world.lanes import Lanes
from farthing.world.pending import Pending
from farthing.world.seller_refunds import SellerRefunds
from farthing.world.seller_rows import Move, NewClaim
from farthing.world.store_url import is_postgres, sqlite_path

# A page of the books that a person reads; whoever wants more asks the file.
LIST_MAX: Final = 1_000


class SellerStore:
    """The seller's books, shared by all processes that open them: one SQLite file, or a database of PostgreSQL."""

    def __init__(self, store: str | Path, *, spool_folder: str | Path | None = None) -> None:
        """Open `store`, a path or URL (`farthing.world.database`), or make the file.

        Large responses are spooled in `spool_folder`: by default the folder `<path>.responses` beside a file, and one
        of the user's own beside PostgreSQL. What another machine is to deliver lies in a folder that both share.
        """
        self._database = open_database(store, family="seller")
        self.name = self._database.submit(rows.name_store).result()
        self.spool_folder = Path(spool_folder).expanduser() if spool_folder else _spool_folder(store, self.name)
        self.lanes = Lanes(self._database, is_postgres=is_postgres(store))
        self.refunds = SellerRefunds(self._database)

    def close(self) -> None:
        """Close the file; what was submitted is written first, and that this process works on nothing any more."""
        self.lanes.end()
        self._database.close()

    def handlers(self) -> dict[type[Effect[Any]], Callable[[Any], Any]]:
        """Give the handlers of the store's effects, for a `Performer`."""
        return {
            LookUp: off_the_loop(self._database, self.look_up),
            FindIdentifier: off_the_loop(self._database, self.find_identifier),
            MakeClaim: self.make_claim,
            Holds: self.holds,
            Advance: self.advance,
            FetchResponse: off_the_loop(self._database, self.fetch_response),
            MarkDelivered: self.mark_delivered,
            FindStale: off_the_loop(self._database, self.find_stale),
            FindFollowed: off_the_loop(self._database, self.find_followed),
            Archive: self.archive,
            **self.refunds.handlers(),
        }

    def look_up(self, effect: LookUp) -> Known | None:
        """Find what is known of a payment, on a connection for reading."""
        found = self._database.fetch(rows.LOOK_UP, (effect.payment_id,))
        if not found:
            return None
        known = rows.known(found[0])
        if known.lease_until and known.state in rows.OWNED and self.lanes.is_dead(rows.owner(found[0])):
            # Who moves it on what is seen here names its epoch; a process that was not dead draws a new one first.
            return msgspec.structs.replace(known, lease_until=0)
        return known

    def holds(self, effect: Holds) -> bool | Pending[bool]:
        """Tell whether this process can't have been taken for dead; where it can, have it known first that it lives."""
        if self.lanes.holds(effect.number):
            return True
        told = Pending[bool]()

        def finish(beaten: Pending[None]) -> None:
            error = beaten.exception()
            if error is None:
                told.resolve(answer=False)
            else:
                told.fail(error)

        self.lanes.beat().add_done_callback(finish)
        return told

    def find_identifier(self, effect: FindIdentifier) -> str | None:
        """Find the payment that has a payment-identifier, on a connection for reading."""
        found = self._database.fetch(rows.FIND_IDENTIFIER, (effect.scope,))
        return str(found[0][0]) if found else None

    def make_claim(self, effect: MakeClaim) -> Pending[Claimed | Known] | Pending[Claimed | Known | IdentifierTaken]:
        """Claim a payment, or give what is known of it."""
        wanted, over = NewClaim(self.lanes.next(), effect.claim), effect.over
        if effect.claim.identifier:
            return self._database.submit(lambda connection: rows.claim_identified(connection, wanted, over))
        if over is None:
            return self._database.join(rows.claim_together, wanted)
        return self._database.submit(lambda connection: rows.claim_again(connection, wanted, over))

    def advance(self, effect: Advance) -> Pending[bool]:
        """Move a payment along the table of `farthing.seller.states`, if it is still where it was."""
        if not allowed(effect.source, effect.target):
            message = f"the seller's table has no move from {effect.source} to {effect.target}"
            raise StoreError(message)
        if effect.receipt and effect.entry is None:
            message = "a receipt is kept with its entry in the ledger; give both"
            raise StoreError(message)
        if effect.target in rows.NOTHING_TO_DELIVER:
            return self._drop(effect)
        return self._database.join(rows.move_together, self._move(effect))

    def fetch_response(self, effect: FetchResponse) -> StoredResponse | None:
        """Fetch a kept response; None also where its spool file has gone."""
        found = self._database.fetch(rows.FETCH_RESPONSE, (effect.payment_id,))
        if not found:
            return None
        response = rows.response(found[0])
        if response.spool and not (self.spool_folder / response.spool).is_file():
            return None
        return response

    def _drop(self, effect: Advance) -> Pending[bool]:
        move, moved = self._move(effect), Pending[bool]()

        def finish(done: Pending[str | None]) -> None:
            error = done.exception()
            if error is not None:
                moved.fail(error)
                return
            self._unspool(done)
            moved.resolve(done.result() is not None)

        self._database.submit(lambda connection: rows.move_spooled(connection, move)).add_done_callback(finish)
        return moved

    def mark_delivered(self, effect: MarkDelivered) -> None:
        """Note a delivery without waiting for the note to be durable, and drop the response that it was about."""
        advance = Advance(
            effect.payment_id, effect.epoch, effect.source, State.DELIVERED, claim=effect.claim, keep=effect.keep
        )
        with contextlib.suppress(StoreError):
            move = self._move(advance)
            if not effect.spooled or effect.keep:
                self._database.join(rows.move_together, move, awaited=False)
                return
            noted = self._database.submit(lambda connection: rows.move_spooled(connection, move), awaited=False)
            noted.add_done_callback(self._unspool)

    def find_stale(self, effect: FindStale) -> tuple[Stale, ...]:
        """Find payments that nobody works on, on a connection for reading."""
        condition, judged = self.lanes.judging()
        values = (effect.now_seconds, effect.closing_before, *judged, effect.limit)
        return tuple(rows.stale(row) for row in self._database.fetch(rows.STALE.format(condition), values))

    def find_followed(self, effect: FindFollowed) -> tuple[Followed, ...]:
        """Find settled payments that are not known to be final, on a connection for reading."""
        values = (effect.now_seconds, effect.closing_before, effect.after, effect.limit)
        return tuple(rows.followed(row) for row in self._database.fetch(rows.FOLLOWED, values))

    def archive(self, effect: Archive) -> Pending[int]:
        """Move payments that are over out of the way, and drop the files of their responses."""
        count = Pending[int]()

        def finish(done: Pending[tuple[int, list[str]]]) -> None:
            error = done.exception()
            if error is not None:
                count.fail(error)
                return
            moved, spools = done.result()
            for name in spools:
                with contextlib.suppress(OSError):  # a file that stays costs room, not money
                    (self.spool_folder / name).unlink()
            count.resolve(moved)

        self._database.submit(
            lambda connection: rows.archive(connection, effect.valid_before, effect.limit, effect.delivered)
        ).add_done_callback(finish)
        return count

    def sweep_spool(self, *, older_than: float) -> int:
        """Remove the files of responses that no payment has, left behind by crashes: those last written before this.

        `older_than` is in Unix seconds. Gives how many.
        """
        removed = 0
        for path in self.spool_folder.iterdir() if self.spool_folder.is_dir() else ():
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < older_than and not self._database.fetch(rows.IS_SPOOLED, (path.name,)):
                    path.unlink()
                    removed += 1
        return removed

    def flush(self) -> None:
        """Wait until all that was noted so far is durable."""
        self._database.submit(_nothing).result()

    def payments(self, state: State | None = None, *, limit: int = LIST_MAX) -> tuple[SellerPayment, ...]:
        """List the newest payments, of one state or of all; at most `LIST_MAX`."""
        wanted = "" if state is None else state.value
        found = self._database.fetch(rows.LIST, (wanted, wanted, min(limit, LIST_MAX)))
        return tuple(rows.payment(row) for row in found)

    def ledger(self) -> tuple[LedgerEntry, ...]:
        """Give the ledger's entries in the order of their posting."""
        return tuple(rows.entry(row) for row in self._database.fetch(rows.LEDGER))

    def refunded(self, payment_id: str, transaction: str, *, posted_at: int) -> bool:
        """Book that what a REFUND_DUE payment moved was paid back by `transaction`: state and ledger in one step.

        `posted_at` in Unix seconds. False: no refund is due of it, or one was booked already. Raises `StoreError` where
        the transaction has no name.
        """
        if not transaction:
            message = f"the refund of {payment_id} has no transaction; name the one that paid it back"
            raise StoreError(message)
        found = self.look_up(LookUp(payment_id))
        if found is None or found.state is not State.REFUND_DUE:
            return False
        asset, pay_to, amount = self._database.fetch(rows.TERMS, (found.claim,))[0]
        entry = LedgerEntry(
            network=found.network,
            asset=asset,
            payer=pay_to,
            pay_to=found.payer,
            amount=int(amount),
            transaction=transaction,
            posted_at=posted_at,
        )
        refund = Advance(
            payment_id,
            found.epoch,
            State.REFUND_DUE,
            State.REFUNDED,
            take_over=True,
            transaction=transaction,
            entry=entry,
            claim=found.claim,
        )
        return self.advance(refund).result()

    def _move(self, effect: Advance) -> Move:
        claim = effect.claim
        if claim == 0:
            found = self._database.fetch(rows.FIND_CLAIM, (effect.payment_id,))
            claim = found[0][0] if found else 0
        return Move(claim, self.lanes.next(), effect)

    def _unspool(self, noted: Pending[str | None]) -> None:
        with contextlib.suppress(Exception):  # a file that stays costs room, not money
            name = noted.result()
            if name:
                (self.spool_folder / name).unlink()


def _spool_folder(store: str | Path, name: str) -> Path:
    if not is_postgres(store):
        return Path(f"{sqlite_path(store)}.responses")
    # Not among temporary files: an answer that is paid for survives the machine's restart.
    shared = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(shared).expanduser() / "farthing" / "responses" / name


def _nothing(_connection: Any) -> None:
    return None
