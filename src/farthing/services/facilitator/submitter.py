"""The submitter: the only writer of a hot wallet. Nonces, signatures, fees; stored first, broadcast after.

Who holds the wallet's lease allocates and signs; a process without it can do no more than send stored bytes again.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from farthing.errors import FarthingError, NodeUnavailable, SignerError
from farthing.evm.addresses import parse_address
from farthing.evm.hexadecimal import write_data
from farthing.evm.node import NodeFailure
from farthing.evm.transactions import Transaction
from farthing.facilitator.chain import block_call, broadcast_call, count_call, read_count, read_head
from farthing.facilitator.fees import Fees
from farthing.facilitator.states import BUILT, IN_BATCH, SENT, SIGNED
from farthing.facilitator.store import (
    AcquireLease,
    Lease,
    LoadBodies,
    LoadOpenPayments,
    LoadOutbox,
    LoadWaiting,
    MarkSent,
    OpenWallet,
    OutboxEntry,
    PaymentRecord,
    PlanTransactions,
    Refused,
    ReleaseLease,
    SignedVersion,
    StopWallet,
    StoreSigned,
    Version,
)
from farthing.facilitator.verify import INVALID_TRANSACTION_STATE, examine
from farthing.flow import Now, drive_async
from farthing.protocol.codec import decode_payment_json, decode_requirements_json
from farthing.services.facilitator.lane import Lane

# Transactions built in one go: their signing (0.1 ms each) and their broadcast hold the others up for some 50 ms.
PLAN_MAX: Final = 256
# Transactions that are open at once; more payments wait on record. A watch asks for each of their receipts.
OUTBOX_MAX: Final = 1_000
# Calls in one broadcast: public endpoints take a hundred or more, and a raw transaction is about a kilobyte.
BROADCAST_MAX: Final = 100
# A node's own words in the log.
_WORDS_MAX: Final = 200

# What geth, anvil, Erigon and Nethermind say where the wallet can't pay for gas.
_NO_FUNDS: Final = "insufficient funds"

# Section 9 of the specification; the window ran out while the payment waited.
_WINDOW_OVER: Final = "invalid_exact_evm_payload_authorization_valid_before"
_SPENT: Final = "invalid_exact_evm_nonce_already_used"


class Submitter:
    """Builds, signs, stores and broadcasts the transactions of one lane."""

    def __init__(self, lane: Lane) -> None:
        """Work on `lane`."""
        self._lane = lane
        self._renew_at = 0
        # When each open nonce was last broadcast by this process, in Unix seconds.
        self._sent_at: dict[int, int] = {}

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
        await self._keep_lease(now_seconds)
        if lane.lease is None:
            return
        if not lane.stopped:
            room = OUTBOX_MAX - len(lane.entries)
            waiting = await lane.perform(LoadWaiting(lane.network, min(PLAN_MAX, max(room, 0))))
            if waiting:
                await self._build(lane.lease, waiting, now_seconds)
        await self._care(now_seconds)

    # The lease

    async def _keep_lease(self, now_seconds: int) -> None:
        lane = self._lane
        if lane.lease is not None and now_seconds < self._renew_at:
            return
        until = now_seconds + lane.pace.lease_seconds
        lease = await lane.perform(AcquireLease(lane.network, lane.wallet, lane.owner, now_seconds, until))
        lane.metrics.lease_held.labels(lane.network).set(int(lease.held))
        lane.stopped = lease.stopped
        if not lease.held:
            if lane.lease is not None:
                lane.log.warning("the wallet's lease was lost", epoch=lease.epoch)
            lane.lease = None
            return
        if lane.lease is None or lane.lease.epoch != lease.epoch:
            await self._recover(lease)
            lane.log.info("the wallet's lease is held", epoch=lease.epoch, open_transactions=len(lane.entries))
        lane.lease = lease
        # A third of its time: two renewals may fail before it is over.
        self._renew_at = now_seconds + lane.pace.lease_seconds // 3

    async def _recover(self, lease: Lease) -> None:
        """Take over what is on record: whatever process left it, at whatever step."""
        lane = self._lane
        count_answer, head_answer = await lane.ask(count_call(lane.wallet), block_call("latest"))
        count = read_count(count_answer)
        head = read_head(head_answer)
        if head is not None:
            lane.base_fee_wei = head.base_fee_wei
        if lease.next_nonce is None:
            await lane.perform(OpenWallet(lane.network, lane.wallet, lease.epoch, count))
        elif count > lease.next_nonce and not lease.stopped:
            await self.stop(f"The chain counts {count} transactions, the outbox {lease.next_nonce}: a foreign one.")
        await self.reload()
        lane.recheck = True

    async def reload(self) -> None:
        """Read the open transactions from the store, and have all of them broadcast again."""
        lane = self._lane
        entries = await lane.perform(LoadOutbox(lane.network, lane.wallet, OUTBOX_MAX))
        lane.entries = {entry.nonce: entry for entry in entries}
        self._sent_at.clear()
        await self.reload_lingering()
        lane.look.set()

    async def reload_lingering(self) -> None:
        """Read the payments from the store that no open transaction of ours follows, another wallet's among them."""
        lane = self._lane
        now_seconds = await lane.perform(Now())
        found = await lane.perform(LoadOpenPayments(lane.network, lane.wallet, IN_BATCH, now_seconds, OUTBOX_MAX))
        lane.lingering = {record.payment_id: record for record in found}

    async def stop(self, reason: str) -> None:
        """Stop the wallet: a transaction that is not ours used its nonce. An operator must find out whose it was."""
        lane = self._lane
        lane.stopped = reason
        lane.log.error("the wallet is stopped", reason=reason)
        await lane.perform(StopWallet(lane.network, lane.wallet, reason))

    # Building

    async def _build(self, lease: Lease, waiting: tuple[PaymentRecord, ...], now_seconds: int) -> None:
        lane = self._lane
        ready: list[str] = []
        expired: list[Refused] = []
        for record in waiting:
            refused = await self._too_late(record, now_seconds)
            if refused is None:
                ready.append(record.payment_id)
            else:
                expired.append(refused)
        if self._first_fees() is None:
            lane.log.warning("the base fee is over the cap; payments wait", base_fee_wei=lane.base_fee_wei)
            ready.clear()
        if not ready and not expired:
            return
        planned = await lane.perform(
            PlanTransactions(lane.network, lane.wallet, lease.epoch, now_seconds, tuple(ready), tuple(expired))
        )
        if planned is None:
            self._lose_lease()
            return
        for refused in expired:
            lane.metrics.settlements.labels(lane.network, "refused").inc()
            lane.log.info("refused", payment_id=refused.payment_id, reason=refused.reason)
        lane.waiting.resolve(refused.payment_id for refused in expired)
        lane.entries.update({entry.nonce: entry for entry in planned})

    async def _too_late(self, record: PaymentRecord, now_seconds: int) -> Refused | None:
        limits = self._lane.desk.limits
        if record.valid_before < now_seconds + limits.window_left_min_seconds:
            return Refused(record.payment_id, _WINDOW_OVER, "The window closed while the payment waited here.")
        if record.attempts == 0:
            return None
        if record.attempts >= limits.attempts_max:
            what = f"The settling call failed on chain {record.attempts} times."
            return Refused(record.payment_id, INVALID_TRANSACTION_STATE, what)
        return await self._judge_again(record)

    async def _judge_again(self, record: PaymentRecord) -> Refused | None:
        """Verify a payment whose call failed once more, before more gas is spent on it."""
        bodies = await self._lane.perform(LoadBodies((record.payment_id,)))
        body = bodies[record.payment_id]
        payment, requirements = decode_payment_json(body.payment), decode_requirements_json(body.requirements)
        flow = examine(self._lane.desk, payment, requirements, settling=True)
        response = (await drive_async(flow, self._lane.perform)).response
        if response.is_valid or response.invalid_reason == _SPENT:
            # Spent in the meantime: the evidence decides, once another call of ours has failed.
            return None
        return Refused(record.payment_id, response.invalid_reason or "", response.invalid_message or "")

    def _first_fees(self) -> Fees | None:
        base_fee_wei = self._lane.base_fee_wei
        return None if base_fee_wei is None else self._lane.caps.first(base_fee_wei)

    def _lose_lease(self) -> None:
        self._lane.log.warning("the wallet's lease was lost")
        self._lane.lease = None

    # Open transactions

    async def _care(self, now_seconds: int) -> None:
        """Sign what is built, send what is signed, and send again or replace what takes too long."""
        lane = self._lane
        unsigned = [(entry, fees) for entry in lane.entries.values() if (fees := self._fees_of(entry, now_seconds))]
        to_sign = {entry.nonce for entry, _ in unsigned}
        unsent = [
            entry
            for entry in lane.entries.values()
            if entry.nonce not in to_sign
            and (entry.state == SIGNED or (entry.state == SENT and self._due(entry, now_seconds)))
        ]
        if unsigned:
            unsent += await self._sign(unsigned, now_seconds)
        if unsent:
            await self._broadcast(unsent, now_seconds)
        for nonce in self._sent_at.keys() - lane.entries.keys():
            del self._sent_at[nonce]

    def _fees_of(self, entry: OutboxEntry, now_seconds: int) -> Fees | None:
        """The fees of the version that is to be signed next, or None where there is none to be signed."""
        if self._lane.stopped:
            return None
        if entry.state == BUILT:
            return self._first_fees()
        if entry.state != SENT or not self._stuck(entry, now_seconds):
            return None
        fees = self._bumped(entry)
        if fees is None and self._due(entry, now_seconds):
            self._lane.log.warning("stuck at the fee cap; the stored bytes are sent again", nonce=entry.nonce)
        return fees

    def _stuck(self, entry: OutboxEntry, now_seconds: int) -> bool:
        return now_seconds - entry.versions[-1].signed_at >= self._lane.pace.stuck_seconds

    def _due(self, entry: OutboxEntry, now_seconds: int) -> bool:
        sent_at = self._sent_at.get(entry.nonce)
        return sent_at is None or now_seconds - sent_at >= self._lane.pace.rebroadcast_seconds

    def _bumped(self, entry: OutboxEntry) -> Fees | None:
        newest = entry.versions[-1]
        before = Fees(newest.max_fee_per_gas, newest.max_priority_fee_per_gas)
        return self._lane.caps.bump(before, self._lane.base_fee_wei or 0)

    async def _sign(self, unsigned: list[tuple[OutboxEntry, Fees]], now_seconds: int) -> list[OutboxEntry]:
        """Sign versions and store them; those that were stored are to be broadcast, and no others."""
        lane = self._lane
        lease = lane.lease
        if lease is None:
            return []
        members = await lane.members(each for entry, _ in unsigned for each in entry.members)
        versions: list[SignedVersion] = []
        for entry, fees in unsigned:
            member = members.get(entry.members[0])
            if member is None:
                continue
            to, data = member.face.settlement_call(member.signed)
            transaction = Transaction(
                chain_id=lane.chain_id,
                nonce=entry.nonce,
                max_priority_fee_per_gas=fees.max_priority_fee_per_gas,
                max_fee_per_gas=fees.max_fee_per_gas,
                gas_limit=entry.gas_limit,
                to=parse_address(to),
                data=data,
            )
            versions.append(SignedVersion(entry.nonce, self._sign_one(transaction, entry, now_seconds)))
        stored = await lane.perform(StoreSigned(lane.network, lane.wallet, lease.epoch, tuple(versions)))
        if versions and not stored:
            self._lose_lease()
        signed: list[OutboxEntry] = []
        for nonce, version in ((each.nonce, each.version) for each in versions if each.nonce in stored):
            entry = lane.entries[nonce]
            entry = msgspec.structs.replace(entry, state=SIGNED, versions=(*entry.versions, version))
            lane.entries[nonce] = entry
            signed.append(entry)
            lane.log.info("signed", nonce=nonce, version=version.number, transaction=version.hash)
        return signed

    def _sign_one(self, transaction: Transaction, entry: OutboxEntry, now_seconds: int) -> Version:
        signed = transaction.with_signature(self._lane.signer.sign_digest(transaction.digest()))
        if signed.sender != parse_address(self._lane.wallet):
            message = "The wallet's signer signed for another address."
            raise SignerError(message)
        return Version(
            number=len(entry.versions) + 1,
            raw=write_data(signed.raw),
            hash=write_data(signed.hash),
            max_fee_per_gas=transaction.max_fee_per_gas,
            max_priority_fee_per_gas=transaction.max_priority_fee_per_gas,
            signed_at=now_seconds,
        )

    async def _broadcast(self, entries: list[OutboxEntry], now_seconds: int) -> None:
        """Send the newest versions. Whatever the node says counts as sent: the chain is asked what became of them."""
        lane = self._lane
        for start in range(0, len(entries), BROADCAST_MAX):
            some = entries[start : start + BROADCAST_MAX]
            answers: tuple[Any, ...] = ()
            try:
                answers = await lane.ask(*(broadcast_call(entry.versions[-1].raw) for entry in some))
            except NodeUnavailable as error:
                lane.log.warning("broadcast without an answer; counted as sent", error=str(error))
            for entry, answer in zip(some, answers, strict=False):
                self._hear(entry, answer)
            for entry in some:
                self._sent_at[entry.nonce] = now_seconds
                # The watcher may have seen it in a block, or done with it, while the node answered.
                latest = lane.entries.get(entry.nonce)
                if latest is not None and latest.state == SIGNED:
                    lane.entries[entry.nonce] = msgspec.structs.replace(latest, state=SENT)
            lane.look.set()
            await lane.perform(MarkSent(lane.network, lane.wallet, tuple(entry.nonce for entry in some)))

    def _hear(self, entry: OutboxEntry, answer: Any) -> None:
        lane = self._lane
        if not isinstance(answer, NodeFailure):
            lane.unfunded = False
            return
        lane.unfunded = lane.unfunded or _NO_FUNDS in answer.message.lower()
        lane.log.info("the node did not take a transaction", nonce=entry.nonce, words=answer.message[:_WORDS_MAX])
