"""The submitter: the only writer of a hot wallet. Nonces, signatures, fees; stored first, broadcast after.

Who holds the wallet's lease allocates and signs; a process without it can do no more than send stored bytes again.
"""

from __future__ import annotations

import asyncio
from typing import Final

from farthing.errors import FarthingError, NodeUnavailable, StoreError
from farthing.facilitator.chain import block_call, code_call, count_call, read_count, read_has_code, read_head
from farthing.facilitator.joining import JOINING_CONTRACT, group
from farthing.facilitator.store import (
    AcquireLease,
    Lease,
    LoadBodies,
    LoadFailedPayers,
    LoadLingering,
    LoadOutbox,
    LoadWaiting,
    OpenWallet,
    PaymentRecord,
    PlanTransactions,
    Refused,
    ReleaseLease,
    StopWallet,
)
from farthing.facilitator.verify import INVALID_TRANSACTION_STATE, examine, find_face
from farthing.flow import Now, drive_async
from farthing.mechanisms.interface import Refusal, Spent
from farthing.protocol.codec import decode_payment_json, decode_requirements_json
from farthing.services.facilitator.lane import Lane
from farthing.services.facilitator.limiter import FAILED_MAX, FAILED_SECONDS, REFRESH_SECONDS
from farthing.services.facilitator.sender import Sender

# Payments taken in one go, joined or not: their signing (0.1 ms each) and their broadcast hold the others up for some
# 50 ms.
PLAN_MAX: Final = 256
# Transactions that are open at once; more payments wait on record. A watch asks for each of their receipts.
OUTBOX_MAX: Final = 1_000
# A wallet is stopped for good where the chain counts a foreign transaction so often in a row: each step asks once, and
# a node that lags or lies says something else in between.
FOREIGN_LOOKS: Final = 5
# Section 9 of the specification; the window ran out while the payment waited.
_WINDOW_OVER: Final = "invalid_exact_evm_payload_authorization_valid_before"
_SPENT: Final = "invalid_exact_evm_nonce_already_used"


class Submitter:
    """Keeps the wallet's lease and builds the transactions of one lane; the sender beside it does the rest."""

    def __init__(self, lane: Lane) -> None:
        """Work on `lane`."""
        self._lane = lane
        self._sender = Sender(lane)
        self._renew_at = 0
        # How often in a row the chain counted more transactions of the wallet than there should be.
        self._doubts = 0
        # Until when a wallet is not taken back that was given to another process.
        self._rest_until = 0

    async def run(self) -> None:
        """Work until the lane is closed, then give the lease back."""
        lane = self._lane
        while not lane.closing:
            try:
                await self.step()
            except NodeUnavailable as error:
                lane.log.warning("node unavailable", error=str(error))
                lane.metrics.node_errors.labels(lane.network).inc()
            except FarthingError as error:
                lane.log.warning("the submitter can't work", error=str(error))
                lane.stale = lane.stale or isinstance(error, StoreError)
            except Exception as error:  # noqa: BLE001 - a number that fits no column, a bug: payments wait for this loop
                lane.log_bug("submitter", error)
                # What is in memory may be half done: the next step takes everything over from the store.
                lane.lease = None
            await lane.wait(lane.work, lane.pace.work_seconds)
        if lane.lease is not None:
            lane.lease = None
            await lane.perform(ReleaseLease(lane.network, lane.wallet, lane.owner))

    async def step(self) -> None:
        """Keep the lease, build what waits, and care for what is open."""
        lane = self._lane
        now_seconds = await lane.perform(Now())
        if now_seconds >= lane.limiter.refresh_at:
            await self.refresh_failed(now_seconds)
        # What is written from here on, and lost, makes it stale again.
        stale, lane.stale = lane.stale, False
        if stale:
            # A commit may land after its connection broke. It holds the store's lock until then, and a write waits for
            # that, where a reading does not.
            self._renew_at = 0
        await self._keep_lease(now_seconds)
        if lane.lease is None:
            return
        if stale:
            await self.reload()
        if not lane.stopped:
            room = OUTBOX_MAX - len(lane.entries)
            waiting = await lane.perform(LoadWaiting(lane.network, min(PLAN_MAX, max(room, 0))))
            mine = tuple(record for record in waiting if not lane.leaves_to_others(record.payment_id))
            if mine:
                await self._build(lane.lease, mine, now_seconds)
        await self._sender.care(now_seconds)

    async def refresh_failed(self, now_seconds: int) -> None:
        """Read from the store which payers' calls failed lately, whichever process saw it."""
        limiter = self._lane.limiter
        limiter.refresh_at = now_seconds + REFRESH_SECONDS
        failed = await self._lane.perform(LoadFailedPayers(now_seconds - FAILED_SECONDS, FAILED_MAX))
        limiter.remember(failed)

    # The lease

    async def _keep_lease(self, now_seconds: int) -> None:
        lane = self._lane
        if now_seconds < (self._rest_until if lane.lease is None else self._renew_at):
            return
        until = now_seconds + lane.pace.lease_seconds
        wanting = not self._has_another()
        lease = await lane.perform(AcquireLease(lane.network, lane.wallet, lane.owner, now_seconds, until, wanting))
        lane.metrics.lease_held.labels(lane.network, lane.wallet).set(int(lease.held))
        lane.stopped = lease.stopped
        if not lease.held:
            if lane.lease is not None:
                lane.log.warning("the wallet's lease was lost", epoch=lease.epoch)
            lane.lease = None
            return
        # Asked again: the other one may have been given away in the meantime, and one stays.
        if self._has_another() and now_seconds - lease.wanted_at < lane.pace.lease_seconds:
            await self._share(now_seconds)
            return
        if lane.lease is None or lane.lease.epoch != lease.epoch:
            await self._recover(lease)
            lane.log.info("the wallet's lease is held", epoch=lease.epoch, open_transactions=len(lane.entries))
        lane.lease = lease
        # A third of its time: two renewals may fail before it is over.
        self._renew_at = now_seconds + lane.pace.lease_seconds // 3

    def _has_another(self) -> bool:
        return any(sibling.lease is not None for sibling in self._lane.siblings)

    async def _share(self, now_seconds: int) -> None:
        """Give the wallet to a process that has none, since this one has another; what is open goes with it."""
        lane = self._lane
        lane.log.info("the wallet's lease is given to another process")
        lane.lease = None
        # Long enough for the other one to take it.
        self._rest_until = now_seconds + lane.pace.lease_seconds
        await lane.perform(ReleaseLease(lane.network, lane.wallet, lane.owner))

    async def _recover(self, lease: Lease) -> None:
        """Take over what is on record: whatever process left it, at whatever step."""
        lane = self._lane
        count_answer, head_answer, code_answer = await lane.ask(
            count_call(lane.wallet), block_call("latest"), code_call(JOINING_CONTRACT)
        )
        count = read_count(count_answer)
        head = read_head(head_answer)
        lane.joins = read_has_code(code_answer)
        if head is not None:
            lane.base_fee_wei = head.base_fee_wei
        if lease.next_nonce is None:
            await lane.perform(OpenWallet(lane.network, lane.wallet, lease.epoch, count))
        elif count > lease.next_nonce and not lease.stopped:
            await self._doubt(count, lease.next_nonce)
        self._doubts = 0
        await self.reload()
        lane.recheck = True

    async def _doubt(self, count: int, next_nonce: int) -> None:
        """Stop the wallet where the chain counts more transactions than the outbox, and says so each time it is asked.

        Raises `NodeUnavailable` until then: one wrong answer must not stop a wallet for good.
        """
        self._doubts += 1
        what = f"The chain counts {count} transactions, the outbox {next_nonce}: a foreign one."
        if self._doubts < FOREIGN_LOOKS:
            message = f"{what} The node is asked again."
            raise NodeUnavailable(message)
        await self.stop(what)

    async def reload(self) -> None:
        """Read the open transactions from the store, and have all of them broadcast again."""
        lane = self._lane
        entries = await lane.perform(LoadOutbox(lane.network, lane.wallet, OUTBOX_MAX))
        lane.entries = {entry.nonce: entry for entry in entries}
        self._sender.forget()
        await self.reload_lingering()
        lane.look.set()

    async def reload_lingering(self) -> None:
        """Read the payments from the store that no open transaction of ours follows, another wallet's among them."""
        lane = self._lane
        now_seconds = await lane.perform(Now())
        found = await lane.perform(LoadLingering(lane.network, lane.wallet, now_seconds, OUTBOX_MAX))
        # Another wallet of this process takes up its own.
        others = {sibling.wallet for sibling in lane.siblings if not sibling.stopped}
        lane.lingering = {record.payment_id: record for record in found if record.wallet not in others}

    async def stop(self, reason: str) -> None:
        """Stop the wallet: a transaction that is not ours used its nonce. An operator must find out whose it was."""
        lane = self._lane
        lane.stopped = reason
        lane.log.error("the wallet is stopped", reason=reason)
        await lane.perform(StopWallet(lane.network, lane.wallet, reason))

    # Building

    async def _build(self, lease: Lease, waiting: tuple[PaymentRecord, ...], now_seconds: int) -> None:
        lane = self._lane
        ready: list[PaymentRecord] = []
        expired: list[Refused] = []
        doubtful = [record for record in waiting if not self._is_in_time(record, now_seconds)]
        # At once, so that those that are verified again share one round trip.
        refusals = await asyncio.gather(*(self._too_late(record, now_seconds) for record in doubtful))
        refused_by_id = {record.payment_id: refused for record, refused in zip(doubtful, refusals, strict=True)}
        for record in waiting:
            refused = refused_by_id.get(record.payment_id)
            if refused is None:
                ready.append(record)
            else:
                expired.append(refused)
        if lane.first_fees() is None:
            lane.log.warning("the base fee is over the cap; payments wait", base_fee_wei=lane.base_fee_wei)
            ready.clear()
        if not ready and not expired:
            return
        groups = group(
            ready,
            members_max=lane.desk.limits.joined_payments_max if lane.joins else 1,
            alone=frozenset(record.payment_id for record in ready if lane.limiter.has_failed(record)),
        )
        planned = await lane.perform(
            PlanTransactions(lane.network, lane.wallet, lease.epoch, now_seconds, groups, tuple(expired))
        )
        if planned is None:
            lane.lose_lease()
            return
        for refused in expired:
            lane.metrics.settlements.labels(lane.network, "refused").inc()
            lane.log.info("refused", payment_id=refused.payment_id, reason=refused.reason)
        lane.waiting.wake(refused.payment_id for refused in expired)
        lane.forget(refused.payment_id for refused in expired)
        lane.entries.update({entry.nonce: entry for entry in planned})
        lane.assigned.difference_update(each for entry in planned for each in entry.members)

    def _is_in_time(self, record: PaymentRecord, now_seconds: int) -> bool:
        """Tell whether a payment is new and its window open: nearly all are, and nobody need be asked."""
        return record.attempts == 0 and not self._is_over(record, now_seconds)

    def _is_over(self, record: PaymentRecord, now_seconds: int) -> bool:
        return record.valid_before < now_seconds + self._lane.desk.limits.window_left_min_seconds

    async def _too_late(self, record: PaymentRecord, now_seconds: int) -> Refused | None:
        limits = self._lane.desk.limits
        if self._is_over(record, now_seconds):
            if await self._spent_meanwhile(record):
                return None
            return Refused(record.payment_id, _WINDOW_OVER, "The window closed while the payment waited here.")
        if record.attempts == 0:
            return None
        if record.attempts >= limits.attempts_max:
            what = f"The settling call failed on chain {record.attempts} times."
            return Refused(record.payment_id, INVALID_TRANSACTION_STATE, what)
        return await self._judge_again(record)

    async def _spent_meanwhile(self, record: PaymentRecord) -> bool:
        """Tell whether somebody else's transaction settled it while it waited here (F4), or whether that is not clear.

        Then it is built all the same: its call fails, and the evidence decides as it does for every other.
        """
        lane = self._lane
        member = (await lane.members((record.payment_id,))).get(record.payment_id)
        if member is None:
            return False
        answers = await lane.ask(*member.face.evidence_calls(member.signed, from_block=record.recorded_block))
        try:
            evidence = member.face.judge_evidence(member.signed, answers)
        except NodeUnavailable as error:
            lane.log.warning("no evidence yet", payment_id=record.payment_id, error=str(error))
            return True
        return isinstance(evidence, Spent) and evidence.block_number > record.recorded_block

    async def _judge_again(self, record: PaymentRecord) -> Refused | None:
        """Verify a payment whose call failed once more, before more gas is spent on it."""
        bodies = await self._lane.perform(LoadBodies((record.payment_id,)))
        body = bodies[record.payment_id]
        payment, requirements = decode_payment_json(body.payment), decode_requirements_json(body.requirements)
        flow = examine(self._lane.desk, payment, requirements, settling=True)
        verification = await drive_async(flow, self._lane.perform)
        response = verification.response
        face = find_face(self._lane.desk, requirements)
        if response.is_valid and verification.signed is not None and not isinstance(face, Refusal):
            self._lane.verified_again(record.payment_id, face, verification.signed)
        if response.is_valid or response.invalid_reason == _SPENT:
            # Spent in the meantime: the evidence decides, once another call of ours has failed.
            return None
        return Refused(record.payment_id, response.invalid_reason or "", response.invalid_message or "")
