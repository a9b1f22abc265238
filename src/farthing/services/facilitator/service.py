"""The facilitator in the process: `start` it, hand it to a seller, `aclose` it. The HTTP service wraps the same."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import secrets
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from farthing.errors import ConfigError, FacilitatorUnavailable, NodeError, RemoteProtocolError, StoreError
from farthing.evm.addresses import checksum_address, parse_address
from farthing.facilitator.answers import outcome_of, status_of
from farthing.facilitator.desk import Desk, Limits
from farthing.facilitator.fees import FeeCaps
from farthing.facilitator.identified import examine_for
from farthing.facilitator.rates import CheckLimits, CountPayment
from farthing.facilitator.settle import AwaitOutcome, Call, settle
from farthing.facilitator.states import CONFIRMED, FINAL, IN_BATCH, READY, RECEIVED, REFUSED
from farthing.facilitator.store import CountPayments, FindRecord, FindRecordByTransaction, FindRecords, PaymentRecord
from farthing.facilitator.verify import find_face
from farthing.flow import Effect, Flow, drive_async
from farthing.mechanisms.exact_evm import ExactEvmFacilitator
from farthing.mechanisms.interface import Refusal
from farthing.mechanisms.registry import Registry
from farthing.networks import Networks
from farthing.protocol.facilitator import PAYMENTS_MAX, Outcome, PaymentStatus, Unknown
from farthing.protocol.messages import (
    PaymentPayload,
    PaymentRequirements,
    SettlementResponse,
    SupportedResponse,
    VerifyResponse,
)
from farthing.services.facilitator.checking import check_nodes
from farthing.services.facilitator.config import (
    Config,
    assets_of,
    factories_of,
    fee_caps,
    networks_of,
    signers_of,
    urls_of,
)
from farthing.services.facilitator.lane import Lane, Pace, WalletSigner
from farthing.services.facilitator.limiter import Limiter
from farthing.services.facilitator.logs import library_log
from farthing.services.facilitator.metrics import Metrics
from farthing.services.facilitator.submitter import Submitter
from farthing.services.facilitator.waiting import Waiting, within
from farthing.services.facilitator.watcher import Watcher
from farthing.world.facilitator_books import Books
from farthing.world.facilitator_store import FacilitatorStore
from farthing.world.jsonrpc import Node, Nodes
from farthing.world.performers import Handlers, Performer, system_handlers

R = TypeVar("R")

# The caller's name of sellers in the process, for idempotency keys and the place of a payment.
IN_PROCESS: Final = "in-process"
OVER: Final = frozenset({CONFIRMED, FINAL, REFUSED})
# How often payments are looked up whose outcome another process may have recorded, in seconds: with the lease there is
# hardly any, without it all of them are.
_FOLLOW_SECONDS: Final = 0.1
_FOLLOW_WITH_LEASE_SECONDS: Final = 1.0
_FOLLOW_MAX: Final = 500
# At the end the loops finish what they are doing: a node that does not answer may take as long as its time-out.
_CLOSE_SECONDS: Final = 15.0
_SECRET_BYTES: Final = 8


class FacilitatorService:
    """A facilitator for one configuration. Implements `farthing.protocol.facilitator.Facilitator`.

        service = FacilitatorService.from_config(config)
        await service.start()
        ...
        await service.aclose()

    It lives on the event loop that `start` ran on; calls from other loops are carried over to it.
    """

    def __init__(
        self,
        *,
        networks: Networks,
        assets: frozenset[tuple[str, str]],
        node_urls: Mapping[str, tuple[str, ...]],
        signers: tuple[WalletSigner, ...],
        store: str | Path,
        caps: FeeCaps,
        limits: Limits | None = None,
        factories: Mapping[str, tuple[str, ...]] | None = None,
        pace: Pace | None = None,
        log: Any = None,
    ) -> None:
        """Wire the parts; nothing is opened before `start`. `node_urls` gives each network its node's URLs.

        `factories` may be called to deploy a payer's wallet (ERC-6492), by network.
        Payments are spread over `signers`, the hot wallets; each has a nonce sequence of its own on each network.
        """
        self.metrics = Metrics()
        self.waiting = Waiting()
        self.log = log if log is not None else library_log()
        self.networks = networks
        self.lanes: tuple[Lane, ...] = ()
        self._node_urls = dict(node_urls)
        self._signers = signers
        self._store_place = store
        # Who answers the clock, where it is not the host's; read by `start`.
        self.clock: Handlers = {}
        self._caps = caps
        self._pace = pace or Pace()
        face = ExactEvmFacilitator(networks, sender=signers[0].address, factories=factories)
        self.desk = Desk(
            mechanisms=Registry([face]),
            assets=assets,
            limits=limits or Limits(),
            signers={"eip155:*": tuple(signer.address for signer in signers)},
        )
        self.limiter = Limiter(self.desk.limits)
        # One incarnation of one process: what leases and claims are held by.
        self._name = f"{os.getpid()}-{secrets.token_hex(_SECRET_BYTES)}"
        self._calls = itertools.count(1)
        self._store: FacilitatorStore | None = None
        self._nodes: Nodes | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._settling: set[asyncio.Task[Any]] = set()
        self._closing = asyncio.Event()

    @classmethod
    def from_config(
        cls,
        config: Config,
        *,
        environment: Mapping[str, str] | None = None,
        signers: tuple[WalletSigner, ...] = (),
        log: Any = None,
        pace: Pace | None = None,
    ) -> FacilitatorService:
        """Make a facilitator from a configuration. Raises `ConfigError` and `SignerError`."""
        source = os.environ if environment is None else environment
        networks = networks_of(config)
        return cls(
            networks=networks,
            assets=assets_of(config, networks),
            node_urls={table.id: urls_of(table, source) for table in config.network},
            signers=signers or signers_of(config, source),
            store=config.store,
            caps=fee_caps(config),
            limits=config.limits,
            factories=factories_of(config),
            pace=pace,
            log=log,
        )

    # Life

    def drain(self) -> None:
        """Answer the calls that wait with what is known; those that come are put on record and answered at once."""
        self._closing.set()
        self.waiting.close()

    async def start(self) -> None:
        """Open store and nodes, and start the loops. Raises `StoreError` and `ConfigError`."""
        if self._store is not None:
            return
        self._closing.clear()
        self.waiting.open()
        self._loop = asyncio.get_running_loop()
        self._store = await asyncio.to_thread(FacilitatorStore, self._store_place)
        self._nodes = Nodes({network: Node(network, urls) for network, urls in self._node_urls.items()})
        handlers = {**system_handlers(), **self.clock, **self._store.handlers(), **self._nodes.handlers()}
        performer = Performer(handlers)
        self._perform = performer.with_(
            {
                AwaitOutcome: self._await_outcome,
                CheckLimits: self.limiter.check,
                CountPayment: self.limiter.count,
            }
        ).awaiting
        self.lanes = tuple(self._lane(network, signer) for network in self._node_urls for signer in self._signers)
        for lane in self.lanes:
            lane.siblings = tuple(each for each in self._lanes_of(lane.network) if each is not lane)
            submitter = Submitter(lane)
            name = f"{lane.network} {lane.wallet}"
            self._tasks.append(asyncio.create_task(submitter.run(), name=f"submitter {name}"))
            self._tasks.append(asyncio.create_task(Watcher(lane, submitter).run(), name=f"watcher {name}"))
        self._tasks.append(asyncio.create_task(self._follow(), name="follow"))

    async def aclose(self) -> None:
        """Finish what is under way, give the leases back, and close. Payments on record go on at the next start."""
        if self._store is None:
            return
        self.drain()
        for lane in self.lanes:
            lane.close()
        if self._tasks:
            _, unfinished = await asyncio.wait(self._tasks, timeout=_CLOSE_SECONDS)
            for task in unfinished:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        for task in list(self._settling):
            task.cancel()
        await asyncio.gather(*self._settling, return_exceptions=True)
        self._tasks.clear()
        if self._nodes is not None:
            await self._nodes.aclose()
        store, self._store = self._store, None
        await asyncio.to_thread(store.close)

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Close."""
        await self.aclose()

    @property
    def books(self) -> Books:
        """The ledger and lists of payments: cold queries."""
        return self._opened().books

    def _lanes_of(self, network: str) -> tuple[Lane, ...]:
        return tuple(lane for lane in self.lanes if lane.network == network)

    def _lane(self, network: str, signer: WalletSigner) -> Lane:
        known = self.networks.find(network)
        if known is None:
            message = f"{network} is in no table of networks."
            raise ConfigError(message)
        return Lane(
            network=network,
            chain_id=known.chain_id,
            confirmations=known.confirmations,
            block_time_seconds=known.block_time_milliseconds / 1000,
            desk=self.desk,
            caps=self._caps,
            signer=signer,
            perform=self._perform,
            waiting=self.waiting,
            limiter=self.limiter,
            metrics=self.metrics,
            log=self.log,
            owner=self._name,
            pace=self._pace,
        )

    def _opened(self) -> FacilitatorStore:
        if self._store is None:
            message = "The facilitator is not started: await its start() first."
            raise FacilitatorUnavailable(message)
        return self._store

    # What sellers call

    async def supported(self) -> SupportedResponse:
        """Say which kinds are settled here."""
        return self.desk.supported()

    async def verify(self, payment: PaymentPayload, requirements: PaymentRequirements) -> VerifyResponse:
        """Judge a payment without committing to anything. Raises `FacilitatorUnavailable`, never a false verdict."""
        return await self.verify_for(IN_PROCESS, payment, requirements)

    async def verify_for(
        self, caller: str, payment: PaymentPayload, requirements: PaymentRequirements
    ) -> VerifyResponse:
        """Judge for `caller` (a bearer token's name). Raises `RateLimited`, and what `verify` raises."""
        if self.limiter.looks_at_verifications:
            self._check_verifications(caller, payment, requirements)
        try:
            verification = await self._drive(examine_for(self.desk, caller, payment, requirements))
        except (NodeError, StoreError) as error:
            self.metrics.verifications.labels("unavailable").inc()
            raise FacilitatorUnavailable(str(error)) from error
        response, signed = verification.response, verification.signed
        if response.is_valid and signed is not None:
            self.limiter.verified(caller, signed.payer)
        (self.metrics.valid if response.is_valid else self.metrics.invalid).inc()
        self.log.debug(
            "verified",
            payment_id=signed.payment_id if signed is not None else "",
            valid=response.is_valid,
            reason=response.invalid_reason or "",
            payer=response.payer or "",
        )
        return response

    def _check_verifications(self, caller: str, payment: PaymentPayload, requirements: PaymentRequirements) -> None:
        """Refuse a payer that is over its limit before a node is asked; what can't be read is judged elsewhere."""
        face = find_face(self.desk, requirements)
        if not isinstance(face, Refusal):
            with contextlib.suppress(RemoteProtocolError):
                self.limiter.check_verification(caller, face.read(payment).payer)

    async def settle(
        self, payment: PaymentPayload, requirements: PaymentRequirements, *, idempotency_key: str
    ) -> Outcome:
        """Settle a payment. Trouble on the way is `Unknown`, not an exception and not a refusal."""
        try:
            response = await self.settle_as(IN_PROCESS, payment, requirements, idempotency_key=idempotency_key)
        except FacilitatorUnavailable as error:
            return Unknown("unexpected_settle_error", str(error))
        return outcome_of(response)

    async def settle_as(
        self, caller: str, payment: PaymentPayload, requirements: PaymentRequirements, *, idempotency_key: str = ""
    ) -> SettlementResponse:
        """Settle for `caller` (a bearer token's name), as the wire tells it. Raises `FacilitatorUnavailable`.

        A caller that is cancelled has lost its answer, not its payment: what was begun goes on.
        """
        if len(self.waiting) >= self.desk.limits.open_payments_max:
            message = "Too many payments are being settled; try again in a moment."
            raise FacilitatorUnavailable(message)
        call = Call(caller, f"{self._name}-{next(self._calls)}", idempotency_key)
        flow = settle(self.desk, payment, requirements, call)
        try:
            return await self._drive(flow, to_the_end=True)
        except (NodeError, StoreError) as error:
            raise FacilitatorUnavailable(str(error)) from error

    async def find(self, payment_id: str) -> PaymentStatus | None:
        """Say what became of a payment (a payment id or a transaction hash). Raises `FacilitatorUnavailable`."""
        by_id = payment_id.startswith("pay_")
        effect = FindRecord(payment_id) if by_id else FindRecordByTransaction(payment_id.lower())
        record = await self._look_up(effect)
        if record is None:
            return None
        heights = [lane.head.number for lane in self._lanes_of(record.network) if lane.head is not None]
        return status_of(record, head_number=max(heights, default=None))

    async def find_many(self, payment_ids: tuple[str, ...]) -> tuple[PaymentStatus, ...]:
        """Say what became of these payments, at most `PAYMENTS_MAX`. Raises `FacilitatorUnavailable`."""
        records = await self._look_up(FindRecords(payment_ids[:PAYMENTS_MAX]))
        return tuple(map(status_of, records))

    async def _look_up(self, effect: Effect[R]) -> R:
        self._opened()
        try:
            return await self._on_loop(self._perform(effect))
        except StoreError as error:
            raise FacilitatorUnavailable(str(error)) from error

    async def health(self) -> dict[str, Any]:
        """What `/healthz` shows: node, store and wallets of each network. `ok` is False where something is broken."""
        networks: dict[str, Any] = {}
        for network in self._node_urls:
            lanes = self._lanes_of(network)
            networks[network] = {
                "node": not any(lane.node_trouble for lane in lanes),
                "head": max((lane.head.number for lane in lanes if lane.head is not None), default=None),
                "wallets": [
                    {
                        "wallet": checksum_address(parse_address(lane.wallet)),
                        "lease": lane.lease is not None,
                        "stopped": lane.stopped,
                        "unfunded": lane.unfunded,
                        "open_transactions": len(lane.entries),
                    }
                    for lane in lanes
                ],
            }
        counts: dict[str, int] | None
        try:
            counts = await self._on_loop(self._perform(CountPayments()))
        except StoreError:
            counts = None
        ok = counts is not None and all(
            each["node"] and not any(wallet["stopped"] or wallet["unfunded"] for wallet in each["wallets"])
            for each in networks.values()
        )
        return {"ok": ok, "store": counts is not None, "payments": counts or {}, "networks": networks}

    async def measure(self) -> None:
        """Set the gauges that are read from the store. Raises `FacilitatorUnavailable`."""
        counts = await self._look_up(CountPayments())
        for state in (RECEIVED, READY, IN_BATCH, CONFIRMED):
            self.metrics.open_payments.labels(state).set(counts.get(state, 0))
        self.metrics.waiting_calls.set(len(self.waiting))

    async def check_nodes(self) -> dict[str, str]:
        """Ask each node for its chain: an empty text where it is the configured one, else what is wrong."""
        return await check_nodes(self._node_urls)

    # Performing

    async def _drive(self, flow: Flow[R], *, to_the_end: bool = False) -> R:
        self._opened()
        driven = drive_async(flow, self._perform)
        if not to_the_end:
            return await self._on_loop(driven)
        return await self._on_loop(self._shielded(driven))

    async def _shielded(self, work: Coroutine[Any, Any, R]) -> R:
        task = asyncio.create_task(work)
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)
        return await asyncio.shield(task)

    async def _on_loop(self, work: Coroutine[Any, Any, R]) -> R:
        if self._loop is None or asyncio.get_running_loop() is self._loop:
            return await work
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    async def _await_outcome(self, effect: AwaitOutcome) -> PaymentRecord | None:
        """Perform `AwaitOutcome`: have the lane's submitter work, and wait for the watcher's news."""
        # The wallet that has the least to do, of those that can settle; without one, others do it, by the store.
        lanes = self._lanes_of(effect.network)
        lane = min(lanes, key=lambda each: (not each.usable, len(each.assigned)))
        face = self.desk.mechanisms.find(effect.scheme, effect.network)
        if face is not None:
            lane.note(effect.payment_id, face, effect.signed, effect.base_fee_wei)
        over = self.waiting.enter(effect.payment_id, effect.claimant)
        try:
            record = None if effect.fresh else await self._perform(FindRecord(effect.payment_id))
            if record is None or record.state not in OVER:
                record = await within(over, effect.seconds) or await self._perform(FindRecord(effect.payment_id))
        finally:
            self.waiting.leave(effect.payment_id, effect.claimant)
        if record is not None and record.state in OVER:
            # Whoever settled it: another process, another wallet, or this one before it was noted here.
            lane.forget((effect.payment_id,))
        return record

    async def _follow(self) -> None:
        """Look payments up that somebody waits for here and another process may have settled: one query for all."""
        while not self._closing.is_set():
            leased = all(lane.lease is not None for lane in self.lanes)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FOLLOW_WITH_LEASE_SECONDS if leased else _FOLLOW_SECONDS):
                    await self._closing.wait()
            waiting = self.waiting.payment_ids[:_FOLLOW_MAX]
            if not waiting:
                continue
            try:
                records = await self._perform(FindRecords(waiting))
            except StoreError as error:
                self.log.warning("the store can't be read", error=str(error))
                continue
            self.waiting.tell(record for record in records if record.state in OVER)
