"""The sender: signs what is built, broadcasts what is signed, and replaces or cancels what takes too long.

Every version is stored before it is broadcast, and all versions of one nonce stay on record: any of them may be mined.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from farthing.errors import NodeUnavailable, SignerError
from farthing.evm.addresses import parse_address
from farthing.evm.hexadecimal import write_data
from farthing.evm.node import NodeFailure
from farthing.evm.transactions import Transaction
from farthing.facilitator.chain import broadcast_call
from farthing.facilitator.fees import Fees
from farthing.facilitator.joining import settling_call
from farthing.facilitator.states import BUILT, CANCELLING, SENT, SIGNED
from farthing.facilitator.store import MarkSent, OutboxEntry, SignedVersion, StoreSigned, Version
from farthing.services.facilitator.lane import Lane, Member

# Calls in one broadcast: public endpoints take a hundred or more, and a raw transaction is about a kilobyte.
BROADCAST_MAX: Final = 100
# Bytes in one broadcast, which a few joined transactions of fifty kilobytes would fill: nodes take a megabyte or more.
BROADCAST_MAX_CHARS: Final = 800_000
# A node's own words in the log.
_WORDS_MAX: Final = 200

# What geth, anvil, Erigon and Nethermind say where the wallet can't pay for gas.
_NO_FUNDS: Final = "insufficient funds"


class _Next(msgspec.Struct, frozen=True):
    """The version that is to be signed next."""

    entry: OutboxEntry
    fees: Fees
    cancels: bool = False


class Sender:
    """Cares for the open transactions of one lane."""

    def __init__(self, lane: Lane) -> None:
        """Work on `lane`."""
        self._lane = lane
        # When each open nonce was last broadcast by this process, in Unix seconds.
        self._sent_at: dict[int, int] = {}

    def forget(self) -> None:
        """Take nothing for sent: everything that is open is broadcast again."""
        self._sent_at.clear()

    async def care(self, now_seconds: int) -> None:
        """Sign what is built, send what is signed, and send again, replace or cancel what takes too long."""
        lane = self._lane
        wanted = [await self._next(entry, now_seconds) for entry in lane.entries.values()]
        unsigned = [each for each in wanted if each is not None]
        to_sign = {each.entry.nonce for each in unsigned}
        unsent = [
            entry
            for entry in lane.entries.values()
            if entry.nonce not in to_sign
            and (entry.state == SIGNED or (entry.state in {SENT, CANCELLING} and self._due(entry, now_seconds)))
        ]
        if unsigned:
            unsent += await self._sign(unsigned, now_seconds)
        if unsent:
            await self._broadcast(unsent, now_seconds)
        for nonce in self._sent_at.keys() - lane.entries.keys():
            del self._sent_at[nonce]

    # What is to be signed

    async def _next(self, entry: OutboxEntry, now_seconds: int) -> _Next | None:
        """The version that is to be signed next, or None where there is none."""
        lane = self._lane
        if lane.stopped:
            return None
        if entry.state == BUILT:
            fees = lane.first_fees()
            return None if fees is None else _Next(entry, fees)
        if entry.state not in {SENT, CANCELLING} or not self._stuck(entry, now_seconds):
            return None
        newest, base_fee_wei = entry.versions[-1], lane.base_fee_wei or 0
        before = Fees(newest.max_fee_per_gas, newest.max_priority_fee_per_gas)
        cancels = entry.cancelling or await self._windows_over(entry)
        fees = None if cancels else lane.caps.bump(before, base_fee_wei)
        if fees is None and (cancels or lane.desk.limits.cancel_at_fee_cap):
            cancels = True
            fees = lane.caps.cancel(before, base_fee_wei)
        if fees is not None:
            return _Next(entry, fees, cancels)
        if self._due(entry, now_seconds):
            lane.log.warning("stuck at the fee cap; the stored bytes are sent again", nonce=entry.nonce)
        return None

    async def _windows_over(self, entry: OutboxEntry) -> bool:
        """Tell whether nothing of it can be settled any more, by the chain's clock."""
        head = self._lane.head
        if head is None:
            return False
        members = await self._lane.members(entry.members)
        return len(members) == len(entry.members) and all(
            member.signed.valid_before <= head.time_seconds for member in members.values()
        )

    def _stuck(self, entry: OutboxEntry, now_seconds: int) -> bool:
        return now_seconds - entry.versions[-1].signed_at >= self._lane.pace.stuck_seconds

    def _due(self, entry: OutboxEntry, now_seconds: int) -> bool:
        sent_at = self._sent_at.get(entry.nonce)
        return sent_at is None or now_seconds - sent_at >= self._lane.pace.rebroadcast_seconds

    # Signing

    async def _sign(self, unsigned: list[_Next], now_seconds: int) -> list[OutboxEntry]:
        """Sign versions and store them; those that were stored are to be broadcast, and no others."""
        lane = self._lane
        lease = lane.lease
        if lease is None:
            return []
        members = await lane.members(id_ for each in unsigned if not each.cancels for id_ in each.entry.members)
        versions: list[SignedVersion] = []
        for each in unsigned:
            call = (lane.wallet, b"") if each.cancels else _call(each.entry, members)
            if call is not None:
                versions.append(SignedVersion(each.entry.nonce, self._sign_one(each, call, now_seconds)))
        stored = await lane.perform(StoreSigned(lane.network, lane.wallet, lease.epoch, tuple(versions)))
        if versions and not stored:
            lane.lose_lease()
        signed: list[OutboxEntry] = []
        for nonce, version in ((each.nonce, each.version) for each in versions if each.nonce in stored):
            entry = lane.entries[nonce]
            state = CANCELLING if version.cancels else SIGNED
            entry = msgspec.structs.replace(entry, state=state, versions=(*entry.versions, version))
            lane.entries[nonce] = entry
            signed.append(entry)
            lane.log.info(
                "cancelling" if version.cancels else "signed",
                nonce=nonce,
                version=version.number,
                transaction=version.hash,
                payments=len(entry.members),
            )
        return signed

    def _sign_one(self, wanted: _Next, call: tuple[str, bytes], now_seconds: int) -> Version:
        to, data = call
        # A cancellation keeps the gas limit, which costs nothing: some chains want more than 21,000 for a transfer.
        transaction = Transaction(
            chain_id=self._lane.chain_id,
            nonce=wanted.entry.nonce,
            max_priority_fee_per_gas=wanted.fees.max_priority_fee_per_gas,
            max_fee_per_gas=wanted.fees.max_fee_per_gas,
            gas_limit=wanted.entry.gas_limit,
            to=parse_address(to),
            data=data,
        )
        signed = transaction.with_signature(self._lane.signer.sign_digest(transaction.digest()))
        if signed.sender != parse_address(self._lane.wallet):
            message = "The wallet's signer signed for another address."
            raise SignerError(message)
        return Version(
            number=len(wanted.entry.versions) + 1,
            raw=write_data(signed.raw),
            hash=write_data(signed.hash),
            max_fee_per_gas=transaction.max_fee_per_gas,
            max_priority_fee_per_gas=transaction.max_priority_fee_per_gas,
            signed_at=now_seconds,
            cancels=wanted.cancels,
        )

    # Broadcasting

    async def _broadcast(self, entries: list[OutboxEntry], now_seconds: int) -> None:
        """Send the newest versions. Whatever the node says counts as sent: the chain is asked what became of them."""
        lane = self._lane
        for some in _slices(entries):
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


def _call(entry: OutboxEntry, members: dict[str, Member]) -> tuple[str, bytes] | None:
    """The settling call of all members, in one order whatever version; None where one of them can't be read."""
    found = [members[each] for each in sorted(entry.members) if each in members]
    if len(found) != len(entry.members):
        return None
    return settling_call(tuple(member.face.settlement_call(member.signed) for member in found))


def _slices(entries: list[OutboxEntry]) -> list[list[OutboxEntry]]:
    """Share transactions out over broadcasts, by their number and their size."""
    slices: list[list[OutboxEntry]] = []
    room = 0
    for entry in entries:
        size = len(entry.versions[-1].raw)
        if not slices or size > room or len(slices[-1]) == BROADCAST_MAX:
            slices.append([])
            room = BROADCAST_MAX_CHARS
        slices[-1].append(entry)
        room -= size
    return slices
