"""The watcher: one look at the chain for everything that is pending, and what it showed, recorded in one commit.

It follows payments by their identity: our own transaction's receipt is only the first place to look.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from farthing.errors import FarthingError, NodeUnavailable, StoreError
from farthing.facilitator.chain import (
    Head,
    Receipt,
    block_call,
    count_call,
    read_count,
    read_final_head,
    read_head,
    read_receipt,
    receipt_call,
)
from farthing.facilitator.judge import Release, Verdict, judge_other, judge_own
from farthing.facilitator.states import IN_BATCH, MINED, SENT
from farthing.facilitator.store import (
    ChainRecorded,
    Confirmed,
    FindRecords,
    LoadConfirmed,
    LoadDone,
    Mined,
    OutboxEntry,
    PaymentRecord,
    RecordChain,
    Refused,
)
from farthing.flow import Now
from farthing.services.facilitator.lane import Lane
from farthing.services.facilitator.submitter import Submitter

# Receipts in one look; the oldest transactions come first, since the later ones wait for them.
RECEIPTS_MAX: Final = 500
# Payments, and transactions, whose blocks are compared with the chain's in one go.
BLOCKS_MAX: Final = 1_000
# Payments whose evidence is looked for in one look: four calls each.
EVIDENCE_MAX: Final = 50
# A nonce that is used on chain while none of its versions has a receipt is somebody else's after so many blocks: one
# node of several may know the block and not yet the receipt.
FOREIGN_BLOCKS: Final = 3
# The pace of looks while something is pending: from a fortieth of the block time up to half of it.
_LOOK_MIN_SECONDS: Final = 0.01
_LOOK_MAX_SECONDS: Final = 2.0
_LOOK_FACTOR: Final = 1.5


class _Seen:
    """What one look gathers before it is recorded."""

    def __init__(self) -> None:
        self.mined: list[Mined] = []
        self.finished: list[Mined] = []
        self.dropped: list[int] = []
        self.confirmed: list[Confirmed] = []
        self.refused: list[Refused] = []
        self.released: list[str] = []
        # Members that their own transaction did not spend.
        self.unspent: list[str] = []


class Watcher:
    """Follows the payments and transactions of one lane on chain."""

    def __init__(self, lane: Lane, submitter: Submitter) -> None:
        """Watch for `lane`; `submitter` reloads the outbox when blocks were lost."""
        self._lane = lane
        self._submitter = submitter
        # Nonces that the chain counts as used without a receipt of ours, and the height at which that showed first.
        self._suspects: dict[int, int] = {}
        self._finality_at = 0
        # The last payment that was compared for finality, where more wait behind it.
        self._final_after: tuple[int, str] = (-1, "")
        # The lingering payments by the look that asked for them last.
        self._judged: dict[str, int] = {}

    async def run(self) -> None:
        """Look until the lane is closed: often while something is pending, seldom otherwise."""
        lane = self._lane
        shortest = min(max(lane.block_time_seconds / 40, _LOOK_MIN_SECONDS), _LOOK_MAX_SECONDS)
        longest = min(max(lane.block_time_seconds / 2, shortest), _LOOK_MAX_SECONDS)
        delay = shortest
        while not lane.closing:
            try:
                if lane.lease is not None:
                    await self.look()
            except NodeUnavailable as error:
                lane.log.warning("node unavailable", error=str(error))
                lane.metrics.node_errors.labels(lane.network).inc()
            except FarthingError as error:
                lane.log.warning("the watcher can't work", error=str(error))
                lane.stale = lane.stale or isinstance(error, StoreError)
            except Exception as error:  # noqa: BLE001 - a number that fits no column, a bug: payments wait for this loop
                lane.log_bug("watcher", error)
            pending = bool(lane.entries or lane.lingering)
            if lane.look.is_set():
                delay = shortest
            await lane.wait(lane.look, delay if pending else lane.pace.idle_seconds)
            delay = min(delay * _LOOK_FACTOR, longest) if pending else shortest

    async def look(self) -> None:
        """Look at the chain once, in one batch, and record what it showed."""
        lane = self._lane
        entries = _first(sorted(lane.entries.values(), key=lambda entry: entry.nonce), RECEIPTS_MAX)
        hashes = [(entry, version.hash) for entry in entries for version in entry.versions]
        before = lane.head
        answers = await lane.ask(
            block_call("latest"),
            block_call("finalized"),
            count_call(lane.wallet),
            block_call("latest" if before is None else before.number),
            *(receipt_call(hash_) for _, hash_ in hashes),
        )
        head, behind = read_head(answers[0]), read_head(answers[3])
        if head is None:
            message = "The node has no latest block."
            raise NodeUnavailable(message)
        if before is not None and (behind is None or behind.hash != before.hash):
            lane.log.warning("blocks were lost", height=before.number)
            lane.recheck = True
        lane.final = read_final_head(answers[1])
        lane.base_fee_wei = head.base_fee_wei
        receipts: dict[int, Receipt] = {}
        for (entry, hash_), answer in zip(hashes, answers[4:], strict=True):
            receipt = read_receipt(answer)
            if receipt is not None and _belongs(receipt, hash_, head):
                receipts[entry.nonce] = receipt
        await self._record(head, entries, receipts, read_count(answers[2]), news=before is None or head != before)
        lane.head = head
        now_seconds = await lane.perform(Now())
        if lane.recheck or now_seconds >= self._finality_at:
            self._finality_at = now_seconds + lane.pace.finality_seconds
            await self.compare_blocks(now_seconds)
            await self._submitter.reload_lingering()

    async def _record(
        self, head: Head, entries: list[OutboxEntry], receipts: dict[int, Receipt], count: int, *, news: bool
    ) -> None:
        lane = self._lane
        seen = _Seen()
        members = await lane.members(each for entry in entries if entry.nonce in receipts for each in entry.members)
        for entry in entries:
            receipt = receipts.get(entry.nonce)
            if receipt is None:
                self._without_receipt(entry, head, count, seen)
                continue
            self._suspects.pop(entry.nonce, None)
            if head.number - receipt.block_number + 1 < lane.confirmations:
                self._below_depth(entry, receipt, seen)
                continue
            seen.finished.append(receipt.mined(entry.nonce))
            for payment_id in entry.members:
                member = members.get(payment_id)
                confirmed = None
                if member is not None:
                    confirmed = judge_own(member.face, member.signed, payment_id, receipt)
                if confirmed is not None:
                    seen.confirmed.append(confirmed)
                else:
                    seen.unspent.append(payment_id)
        await self._judge_by_identity(head, seen, news=news)
        await self._commit(seen)
        await self._stop_on_foreign(head)

    def _without_receipt(self, entry: OutboxEntry, head: Head, count: int, seen: _Seen) -> None:
        if entry.state == MINED and entry.block_number is not None and head.number >= entry.block_number:
            seen.dropped.append(entry.nonce)
        if not entry.versions or count <= entry.nonce:
            self._suspects.pop(entry.nonce, None)
        elif entry.nonce not in self._suspects:
            # A block between two answers of one batch looks like this, too. By the next look its receipt is there.
            self._suspects[entry.nonce] = head.number
        else:
            # Whoever used the nonce: what counts is what became of the members.
            seen.unspent.extend(each for each in entry.members if each not in self._lane.lingering)

    def _below_depth(self, entry: OutboxEntry, receipt: Receipt, seen: _Seen) -> None:
        if entry.state != MINED:
            seen.mined.append(receipt.mined(entry.nonce))
        elif entry.block_hash != receipt.block_hash:
            # In another block than before: SENT again, and MINED by the next look.
            seen.dropped.append(entry.nonce)

    # By the identity

    async def _judge_by_identity(self, head: Head, seen: _Seen, *, news: bool) -> None:
        """Find out by which transaction, if any, payments were spent that ours did not spend."""
        lane = self._lane
        fresh = await lane.perform(FindRecords(tuple(seen.unspent))) if seen.unspent else ()
        # What another wallet has taken up in the meantime is followed there.
        fresh = tuple(each for each in fresh if each.state == IN_BATCH and each.wallet == lane.wallet)
        lane.lingering.update({record.payment_id: record for record in fresh})
        # All of them again where there is a new block, or one that was not judged yet.
        waiting = tuple(lane.lingering.values()) if news or lane.lingering.keys() - self._judged.keys() else fresh
        records = in_turn((record for record in waiting if record.state == IN_BATCH), self._judged, EVIDENCE_MAX)
        look = max(self._judged.values(), default=0) + 1
        self._judged = {each: at for each, at in self._judged.items() if each in lane.lingering}
        self._judged.update((record.payment_id, look) for record in records)
        if not records:
            return
        members = await lane.members(record.payment_id for record in records)
        asked = [
            (
                record,
                members[record.payment_id],
                members[record.payment_id].face.evidence_calls(
                    members[record.payment_id].signed, from_block=record.recorded_block
                ),
            )
            for record in records
            if record.payment_id in members
        ]
        answers = await lane.ask(*(call for _, _, calls in asked for call in calls))
        at = 0
        for record, member, calls in asked:
            some = answers[at : at + len(calls)]
            at += len(calls)
            try:
                evidence = member.face.judge_evidence(member.signed, some)
            except NodeUnavailable as error:
                lane.log.warning("no evidence yet", payment_id=record.payment_id, error=str(error))
                continue
            verdict = judge_other(
                record,
                evidence,
                head=head,
                final=lane.final,
                depth=lane.confirmations,
                window_left_min_seconds=lane.desk.limits.window_left_min_seconds,
            )
            self._take(verdict, record, seen)

    def _take(self, verdict: Verdict | None, record: PaymentRecord, seen: _Seen) -> None:
        if isinstance(verdict, Confirmed):
            seen.confirmed.append(verdict)
        elif isinstance(verdict, Refused):
            seen.refused.append(verdict)
        elif isinstance(verdict, Release) and not self._in_flight(record, seen):
            seen.released.append(record.payment_id)

    def _in_flight(self, record: PaymentRecord, seen: _Seen) -> bool:
        """Tell whether a transaction of ours may still spend it: then it is not built again."""
        if record.wallet != self._lane.wallet or record.nonce not in self._lane.entries:
            return False
        return all(mined.nonce != record.nonce for mined in seen.finished)

    async def _stop_on_foreign(self, head: Head) -> None:
        lane = self._lane
        self._suspects = {nonce: height for nonce, height in self._suspects.items() if nonce in lane.entries}
        foreign = [nonce for nonce, height in self._suspects.items() if head.number - height >= FOREIGN_BLOCKS]
        if foreign and not lane.stopped:
            await self._submitter.stop(f"Nonce {min(foreign)} was used by a transaction that is not ours.")

    # Recording

    async def _commit(self, seen: _Seen) -> None:
        lane = self._lane
        moved = RecordChain(
            network=lane.network,
            wallet=lane.wallet,
            now_seconds=await lane.perform(Now()),
            live=lane.waiting.live(each.payment_id for each in seen.confirmed),
            mined=tuple(seen.mined),
            finished=tuple(seen.finished),
            dropped=tuple(seen.dropped),
            confirmed=tuple(seen.confirmed),
            released=tuple(seen.released),
            refused=tuple(seen.refused),
        )
        if moved.empty:
            return
        recorded = await lane.perform(moved)
        if recorded.released:
            # Before they are built again, and before those that wait beside them are.
            await self._submitter.refresh_failed(moved.now_seconds)
            for payment_id in recorded.released & lane.lingering.keys():
                lane.limiter.tried_again(lane.lingering[payment_id])
        for mined in seen.finished:
            lane.entries.pop(mined.nonce, None)
        for mined in seen.mined:
            self._set(mined.nonce, state=MINED, block_number=mined.block_number, block_hash=mined.block_hash)
        for nonce in seen.dropped:
            self._set(nonce, state=SENT, block_number=None, block_hash="")
        await self._tell(seen, recorded)

    async def _tell(self, seen: _Seen, recorded: ChainRecorded) -> None:
        lane = self._lane
        over = recorded.confirmed | recorded.refused
        lane.metrics.settlements.labels(lane.network, "settled").inc(len(recorded.confirmed))
        for confirmed in seen.confirmed:
            if confirmed.payment_id in recorded.confirmed:
                lane.log.info(
                    "settled",
                    payment_id=confirmed.payment_id,
                    transaction=confirmed.transaction,
                    block_number=confirmed.block_number,
                )
        for refused in seen.refused:
            if refused.payment_id in recorded.refused:
                lane.metrics.settlements.labels(lane.network, "refused").inc()
                lane.log.info("refused", payment_id=refused.payment_id, reason=refused.reason)
        for payment_id in over | recorded.released:
            lane.lingering.pop(payment_id, None)
        if recorded.released:
            lane.log.warning("the settling call failed; tried again", payments=sorted(recorded.released))
            lane.work.set()
        lane.forget(over)
        waited = lane.waiting.waited(over)
        if not waited:
            return
        try:
            # Read together for all who wait, as each of them would find its own.
            records = await lane.perform(FindRecords(waited))
            lane.waiting.tell(records)
        finally:
            lane.waiting.wake(waited)

    def _set(self, nonce: int, **changes: Any) -> None:
        entry = self._lane.entries.get(nonce)
        if entry is not None:
            self._lane.entries[nonce] = msgspec.structs.replace(entry, **changes)

    # Lost blocks and final ones

    async def compare_blocks(self, now_seconds: int) -> None:
        """Compare the blocks of confirmed payments with the chain's: lost ones go back to work, finalised are final."""
        lane = self._lane
        above = -1 if lane.final is None else lane.final.number
        confirmed = await self._load_final(now_seconds, above)
        done: tuple[OutboxEntry, ...] = ()
        if lane.recheck:
            # A chain loses its newest blocks: where none of those is lost, no older one is.
            newest = await lane.perform(LoadConfirmed(lane.network, lane.wallet, now_seconds, BLOCKS_MAX))
            confirmed = tuple({each.payment_id: each for each in (*confirmed, *newest)}.values())
            done = await lane.perform(LoadDone(lane.network, lane.wallet, above, BLOCKS_MAX))
        heights = sorted(_heights(confirmed) | _heights(done))
        answers = await lane.ask(*(block_call(height) for height in heights)) if heights else ()
        blocks = {height: read_head(answer) for height, answer in zip(heights, answers, strict=True)}
        lost = tuple(each.payment_id for each in confirmed if _is_lost(blocks, each.block_number, each.block_hash))
        dropped = tuple(each.nonce for each in done if _is_lost(blocks, each.block_number, each.block_hash))
        # A height that the chain has not reached again decides nothing yet; and behind what is lost more may be.
        lane.recheck = lane.recheck and (any(block is None for block in blocks.values()) or bool(lost or dropped))
        final = tuple(
            each.payment_id
            for each in confirmed
            if (each.block_number or 0) <= above
            and blocks.get(each.block_number or 0) is not None
            and each.payment_id not in lost
        )
        if not (lost or dropped or final):
            return
        await lane.perform(
            RecordChain(
                network=lane.network,
                wallet=lane.wallet,
                now_seconds=now_seconds,
                lost=lost,
                dropped=dropped,
                final=final,
            )
        )
        if lost or dropped:
            lane.log.warning("blocks were lost; payments are back at work", payments=list(lost), nonces=list(dropped))
            lane.metrics.lost.labels(lane.network).inc(len(lost))
            await self._submitter.reload()
            lane.work.set()

    async def _load_final(self, now_seconds: int, above: int) -> tuple[PaymentRecord, ...]:
        """Load a page of what may be final; what a node says nothing of keeps none behind it waiting."""
        lane = self._lane
        found = await lane.perform(
            LoadConfirmed(lane.network, lane.wallet, now_seconds, BLOCKS_MAX, upto_block=above, after=self._final_after)
        )
        self._final_after = (-1, "")
        if len(found) == BLOCKS_MAX:
            self._final_after = (found[-1].block_number or 0, found[-1].payment_id)
            # The next page at the next look, which comes at once.
            self._finality_at = 0
            lane.look.set()
        return found


def in_turn(records: Iterable[PaymentRecord], judged: Mapping[str, int], count_max: int) -> tuple[PaymentRecord, ...]:
    """Give those that were asked for longest ago: what can't be decided yet keeps nobody else waiting."""
    return tuple(sorted(records, key=lambda record: judged.get(record.payment_id, 0))[:count_max])


def _first(entries: Iterable[OutboxEntry], receipts_max: int) -> list[OutboxEntry]:
    """Give the oldest entries whose receipts one look may ask for; of the others it learns nothing."""
    first: list[OutboxEntry] = []
    for entry in entries:
        receipts_max -= len(entry.versions)
        if receipts_max < 0 and first:
            break
        first.append(entry)
    return first


def _belongs(receipt: Receipt, transaction: str, head: Head) -> bool:
    """Tell whether a receipt is that of `transaction`, in a block of this chain as far as the same answers show it.

    Raises `NodeUnavailable` for another transaction's: believed, it would end the outbox's entry. One that stands in
    another block of the head's height comes from another fork; the next look shows which of the two holds.
    """
    if receipt.transaction != transaction:
        message = f"The node sent the receipt of {receipt.transaction} where that of {transaction} was asked for."
        raise NodeUnavailable(message)
    return receipt.block_number != head.number or receipt.block_hash == head.hash


def _heights(rows: Iterable[PaymentRecord] | Sequence[OutboxEntry]) -> set[int]:
    return {row.block_number for row in rows if row.block_number is not None}


def _is_lost(blocks: dict[int, Head | None], number: int | None, hash_: str) -> bool:
    block = blocks.get(number) if number is not None else None
    return block is not None and block.hash != hash_
