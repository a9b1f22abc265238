"""The clearing house in the process: `start` it, call it, `aclose` it. The HTTP service wraps the same.

Beside what it is asked for, one loop looks after what goes by time: windows that are over, rails' reports, payments to
be handed on, payouts, overdue payers. Several processes may share one store on PostgreSQL; each does all of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import structlog

from farthing.clearing import flows, paying
from farthing.clearing.flows import Desk
from farthing.clearing.intake import read_upload
from farthing.clearing.rails import Rail
from farthing.clearing.rules import Rules
from farthing.clearing.store import Audit, Caller, OpenWindow, Window
from farthing.clearing.usdc import UsdcRail
from farthing.errors import FarthingError, StoreError
from farthing.flow import Effect, Flow, Now, drive, drive_async
from farthing.protocol.clearing import UploadAnswer
from farthing.protocol.facilitator import Facilitator
from farthing.services.clearing.config import (
    ClearingConfig,
    statement_key_of,
    token_of,
    treasury_of,
    urls_of,
)
from farthing.signatures.keys import SignData, SigningKey
from farthing.world.clearing_store import ClearingStore
from farthing.world.facilitator_client import RemoteFacilitator, facilitator_handlers
from farthing.world.jsonrpc import Node, Nodes
from farthing.world.keys import LocalSigner, signer_handlers
from farthing.world.performers import Performer, system_handlers

R = TypeVar("R")

# Payments and payouts that are handed to the facilitator at once: those that meet there share a transaction.
HANDED_AT_ONCE: Final = 100
# Uploads that are read and written at once; more wait in their connections.
UPLOADS_AT_ONCE: Final = 4
_LEASE_BYTES: Final = 12


class ClearingService:
    """A clearing house for one configuration.

    service = ClearingService.from_config(config)
    await service.start()
    ...
    await service.aclose()
    """

    def __init__(
        self,
        *,
        rules: Rules,
        rail: UsdcRail,
        node_urls: tuple[str, ...],
        treasury: LocalSigner,
        statement_key: SigningKey,
        facilitator: Facilitator,
        store: str | Path,
        tick_seconds: float = 15,
        private_domains: tuple[str, ...] = (),
        log: Any = None,
    ) -> None:
        """Wire the parts; nothing is opened before `start`. `facilitator` may be in the process or across HTTP."""
        self.rail = rail
        rails: dict[str, Rail] = {rail.currency: rail}
        self.desk = Desk(rules, rails, statement_key.public_key.thumbprint)
        self.statement_key = statement_key
        self.private_domains = frozenset(private_domains)
        self.log = log if log is not None else structlog.get_logger()
        self._node_urls = node_urls
        self._treasury = treasury
        self._facilitator = facilitator
        self._store_path = store
        self._tick_seconds = tick_seconds
        self._store: ClearingStore | None = None
        self._performer = Performer({})
        self._nodes: Nodes | None = None
        self._looking: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._uploads = asyncio.Semaphore(UPLOADS_AT_ONCE)
        self._working = asyncio.Lock()

    @classmethod
    def from_config(
        cls,
        config: ClearingConfig,
        *,
        environment: Mapping[str, str] | None = None,
        facilitator: Facilitator | None = None,
        log: Any = None,
    ) -> Self:
        """Make the service that a file describes. Raises `ConfigError` and `SignerError`."""
        environment = os.environ if environment is None else environment
        table = config.usdc
        networks, token = token_of(table)
        treasury = treasury_of(table.treasury, environment)
        rail = UsdcRail(
            clearing_network=config.rules.network,
            token=token,
            treasury=treasury.address,
            networks=networks,
            currency=table.currency,
            first_block=table.first_block,
        )
        if facilitator is None:
            secret = environment.get(table.facilitator_token_env, "") if table.facilitator_token_env else ""
            headers = {"Authorization": f"Bearer {secret}"} if secret else None
            facilitator = RemoteFacilitator(table.facilitator, headers=headers)
        return cls(
            rules=config.rules,
            rail=rail,
            node_urls=urls_of(table, environment),
            treasury=treasury,
            statement_key=statement_key_of(config.statement_key, environment),
            facilitator=facilitator,
            store=config.store,
            tick_seconds=config.tick_seconds,
            private_domains=config.private_domains,
            log=log,
        )

    async def start(self) -> None:
        """Open the store, the first window, and begin to look after things. Raises `StoreError`."""
        if self._store is not None:
            return
        self._closing.clear()
        store = await asyncio.to_thread(ClearingStore, self._store_path)
        self._nodes = Nodes({self.rail.token.network: Node(self.rail.token.network, self._node_urls)})
        key = self.statement_key

        def sign(effect: SignData) -> bytes:
            return key.sign(effect.data)

        self._performer = Performer(
            {
                **system_handlers(),
                **store.handlers(),
                **self._nodes.handlers(),
                **signer_handlers(self._treasury),
                **facilitator_handlers(self._facilitator),
                SignData: sign,
            }
        )
        self._store = store
        now_seconds = await self.now()
        await self.ask(OpenWindow(self.desk.rules, now_seconds))
        self._looking = asyncio.create_task(self._look_after(), name="clearing house")

    async def aclose(self) -> None:
        """End the loop after what it is doing, and close."""
        if self._store is None:
            return
        self._closing.set()
        if self._looking is not None:
            await asyncio.gather(self._looking, return_exceptions=True)
            self._looking = None
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

    # Performing

    async def ask(self, effect: Effect[R]) -> R:
        """Perform one effect."""
        if self._store is None:
            message = "The clearing house is not started: await its start() first."
            raise StoreError(message)
        return await self._performer.awaiting(effect)

    async def now(self) -> int:
        """Give the time in Unix seconds."""
        return await self._performer.awaiting(Now())

    async def note(self, caller: Caller, what: str, subject: str, detail: str = "") -> int:
        """Put into the audit log who does what; gives the time of it, in Unix seconds."""
        now_seconds = await self.now()
        await self.ask(Audit(now_seconds, caller.name, what, subject, detail))
        return now_seconds

    async def run(self, flow: Flow[R]) -> R:
        """Run a flow on this loop: one that waits for a node, a facilitator or the store."""
        return await drive_async(flow, self.ask)

    async def work(self, flow: Flow[R]) -> R:
        """Run a flow in a thread: one that reads thousands of lines or checks their signatures."""
        return await asyncio.to_thread(drive, flow, self._performer.blocking)

    async def take(self, body: bytes, payees: frozenset[str], is_own: Callable[[str], bool]) -> UploadAnswer | None:
        """Take an upload of an edge that may bill for `payees`. Raises `RemoteProtocolError` for what can't be read.

        None where its name was used for another upload, or is another edge's.
        """
        async with self._uploads:
            upload = await asyncio.to_thread(read_upload, body, self.desk.rules.network)
            if not is_own(upload.header.edge):
                return None
            return await self.work(flows.take(self.desk, upload, payees))

    def lease_name(self) -> str:
        """Make a name for a lease."""
        return f"le-{secrets.token_hex(_LEASE_BYTES)}"

    # What goes by time

    async def close_window(self, *, force: bool = False) -> Window | None:
        """Close the open window if its time is over, or by force; issue what closed windows have to issue."""
        return await self.work(flows.close(self.desk, force=force))

    async def settle_all(self) -> paying.Round:
        """Look after money once: instruct, read the rail, plan and hand on payouts, suspend who is overdue."""
        async with self._working:
            network = self.rail.token.network
            found = await self.run(paying.reconcile(self.desk, self.rail, network))
            if found.covered:
                self.log.info("paid from the reserve", statements=found.covered)
            if found.borne:
                self.log.info("paid from the reserve for compromised keys", units=found.borne)
            records = await self.run(paying.instruct_accepted(self.desk))
            payouts = await self.run(paying.prepare_payouts(self.desk, self.rail))
            hand = [(each.statement, self.rail.instruct(each)) for each in records]
            hand += [(each.payout, self.rail.pay_out(each)) for each in payouts]
            for begin in range(0, len(hand), HANDED_AT_ONCE):
                await asyncio.gather(*(self._hand_on(*each) for each in hand[begin : begin + HANDED_AT_ONCE]))
            return found

    async def _hand_on(self, name: str, flow: Flow[str]) -> None:
        # Whatever it says proves nothing: the rail's own report does.
        try:
            said = await self.run(flow)
        except FarthingError as error:
            said = f"{type(error).__name__}: {error}"
        self.log.info("handed to the rail", about=name, said=said)

    async def _look_after(self) -> None:
        while not self._closing.is_set():
            for what, job in (("window", self.close_window), ("money", self.settle_all)):
                try:
                    await job()
                except FarthingError as error:
                    self.log.warning("not done, and tried again", what=what, error=str(error))
                except Exception as error:  # noqa: BLE001 - the loop must go on, whatever one round met
                    self.log.error("a round failed", what=what, error=f"{type(error).__name__}: {error}")  # noqa: TRY400
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._tick_seconds):
                    await self._closing.wait()
