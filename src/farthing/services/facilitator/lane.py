"""A lane: one network with its hot wallet, and what the submitter and the watcher of it share."""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from collections import OrderedDict
from collections.abc import Coroutine, Iterable
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import msgspec

from farthing.errors import NodeUnavailable
from farthing.evm.node import AskNode, NodeCall
from farthing.facilitator.chain import Head
from farthing.facilitator.desk import Desk
from farthing.facilitator.fees import FeeCaps, Fees
from farthing.facilitator.store import Lease, LoadBodies, OutboxEntry, PaymentRecord
from farthing.flow import Effect
from farthing.mechanisms.interface import FacilitatorMechanism, SignedPayment
from farthing.protocol.codec import decode_payment_json, decode_requirements_json
from farthing.services.facilitator.limiter import Limiter
from farthing.services.facilitator.metrics import Metrics
from farthing.services.facilitator.waiting import Waiting

R = TypeVar("R")

# Payments kept parsed: those that are open in this process; beyond it they are read from the store again.
MEMBERS_MAX: Final = 10_000


class Perform(Protocol):
    """Performs an effect: what `Performer.awaiting` is."""

    def __call__(self, effect: Effect[R], /) -> Coroutine[Any, Any, R]:
        """Perform and await."""
        ...


class WalletSigner(Protocol):
    """Signs transactions for the hot wallet."""

    @property
    def address(self) -> str:
        """The wallet's EIP-55 address."""
        ...

    def sign_digest(self, digest: bytes) -> bytes:
        """Sign 32 bytes: `r ‖ s ‖ v`, 65 bytes. Raises `SignerError`."""
        ...


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How often things are looked at, in seconds.

    `lease_seconds` is how long a wallet's lease outlives its process, `work_seconds` how soon work is found that
    another process recorded, `stuck_seconds` after what time a transaction's fee is raised, `rebroadcast_seconds`
    after what time stored bytes are sent again, `idle_seconds` how often the chain is looked at while nothing is
    pending, `finality_seconds` how often blocks are compared for finality, which nobody waits for.
    """

    lease_seconds: int = 6
    work_seconds: float = 0.2
    stuck_seconds: int = 30
    rebroadcast_seconds: int = 10
    idle_seconds: float = 5.0
    finality_seconds: int = 5


class Member(msgspec.Struct, frozen=True):
    """A payment as its mechanism reads it, with the mechanism."""

    face: FacilitatorMechanism
    signed: SignedPayment


class Lane:
    """One network and one wallet, on one event loop. What must outlive the process is in the store, not here."""

    def __init__(
        self,
        *,
        network: str,
        chain_id: int,
        confirmations: int,
        block_time_seconds: float,
        desk: Desk,
        caps: FeeCaps,
        signer: WalletSigner,
        perform: Perform,
        waiting: Waiting,
        limiter: Limiter,
        metrics: Metrics,
        log: Any,
        owner: str,
        pace: Pace,
    ) -> None:
        """Set the lane up; nothing is asked or written yet."""
        self.network = network
        self.chain_id = chain_id
        self.confirmations = confirmations
        self.block_time_seconds = block_time_seconds
        self.desk = desk
        self.caps = caps
        self.signer = signer
        self.wallet = signer.address
        self.perform = perform
        self.waiting = waiting
        self.limiter = limiter
        self.metrics = metrics
        self.log = log.bind(network=network, wallet=signer.address)
        self.owner = owner
        self.pace = pace
        # The wallet's lease while it is held here, and why the wallet must not be used, if so.
        self.lease: Lease | None = None
        self.stopped = ""
        # The outbox that is not DONE, by nonce; and payments IN_BATCH that their own transaction did not spend.
        self.entries: dict[int, OutboxEntry] = {}
        self.lingering: dict[str, PaymentRecord] = {}
        self.head: Head | None = None
        self.final: Head | None = None
        self.base_fee_wei: int | None = None
        # Whether Multicall3 stands on this network, asked once with the lease: without it, nothing is joined.
        self.joins = False
        # A write failed, or happened and its answer was lost: what is in memory may not be what is on record.
        self.stale = False
        # Blocks may have been lost: those of confirmed payments are compared with the chain's.
        self.recheck = True
        self.node_trouble = ""
        # The node said that the wallet has not enough to pay for gas.
        self.unfunded = False
        self.closing = False
        self.work = asyncio.Event()
        self.look = asyncio.Event()
        # The lanes of this process's other wallets on the network, and the payments that came in here for this wallet:
        # the others leave them alone while this one can be used.
        self.siblings: tuple[Lane, ...] = ()
        self.assigned: set[str] = set()
        self._members: OrderedDict[str, Member] = OrderedDict()

    @property
    def usable(self) -> bool:
        """Whether the wallet can settle: its lease is here, it was not stopped, and it can pay for gas."""
        return self.lease is not None and not self.stopped and not self.unfunded

    def leaves_to_others(self, payment_id: str) -> bool:
        """Tell whether a payment that waits is another wallet's here: it came in for that, or this one is empty."""
        others = [lane for lane in self.siblings if lane.usable]
        return bool(others) and (self.unfunded or any(payment_id in lane.assigned for lane in others))

    def note(self, payment_id: str, face: FacilitatorMechanism, signed: SignedPayment, base_fee_wei: int) -> None:
        """Remember a payment that was just read, and the newest base fee, and wake the submitter.

        Whoever brings it again has only read it: what is known from its verification stays.
        """
        if payment_id not in self._members:
            self._remember(payment_id, Member(face, signed))
        self.assigned.add(payment_id)
        if base_fee_wei:
            self.base_fee_wei = base_fee_wei
        self.work.set()

    def verified_again(self, payment_id: str, face: FacilitatorMechanism, signed: SignedPayment) -> None:
        """Build the next attempt from what was found out now: a wallet may have been deployed in between."""
        self._remember(payment_id, Member(face, signed))

    async def members(self, payment_ids: Iterable[str]) -> dict[str, Member]:
        """Give payments as their mechanism reads them, from memory or from the store."""
        wanted = tuple(payment_ids)
        missing = tuple(each for each in wanted if each not in self._members)
        found = {each: self._members[each] for each in wanted if each in self._members}
        if missing:
            for payment_id, body in (await self.perform(LoadBodies(missing))).items():
                requirements = decode_requirements_json(body.requirements)
                face = self.desk.mechanisms.find(requirements.scheme, requirements.network)
                if face is None:
                    self.log.error("payment of a scheme that is not configured any more", payment_id=payment_id)
                    continue
                found[payment_id] = Member(face, face.read(decode_payment_json(body.payment)))
                self._remember(payment_id, found[payment_id])
        return found

    def forget(self, payment_ids: Iterable[str]) -> None:
        """Let go of payments that are over."""
        for payment_id in payment_ids:
            self._members.pop(payment_id, None)
            self.assigned.discard(payment_id)

    def _remember(self, payment_id: str, member: Member) -> None:
        self._members[payment_id] = member
        if len(self._members) > MEMBERS_MAX:
            oldest, _ = self._members.popitem(last=False)
            self.assigned.discard(oldest)

    async def ask(self, *calls: NodeCall) -> tuple[Any, ...]:
        """Ask the node, in one batch. Raises `NodeUnavailable`."""
        try:
            answers = await self.perform(AskNode(self.network, calls))
        except NodeUnavailable as error:
            self.node_trouble = str(error)
            raise
        self.node_trouble = ""
        return answers

    def first_fees(self) -> Fees | None:
        """The fees of a first version, or None where the base fee is not known or over the cap."""
        return None if self.base_fee_wei is None else self.caps.first(self.base_fee_wei)

    def lose_lease(self) -> None:
        """Note that the wallet is somebody else's now."""
        self.log.warning("the wallet's lease was lost")
        self.lease = None

    async def wait(self, event: asyncio.Event, seconds: float) -> None:
        """Wait for `event`, or for `seconds` at most; the event is cleared."""
        if not self.closing:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await event.wait()
        event.clear()

    def log_bug(self, loop: str, error: Exception) -> None:
        """Log an error that nobody expected by its type and place: its words may be anybody's."""
        last = traceback.extract_tb(error.__traceback__)[-1]
        at = f"{Path(last.filename).name}:{last.lineno}"
        self.log.error("a loop failed; it goes on", loop=loop, error=type(error).__name__, at=at)

    def close(self) -> None:
        """Have both loops end after what they are doing now."""
        self.closing = True
        self.work.set()
        self.look.set()
