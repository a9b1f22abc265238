"""The edge, wired: what a seller needs to be paid by commitments, in each of its processes.

    edge = Edge(
        "shop", network="clearing:example", clearing_house="https://clearing.example.com", token=…,
        signer=signing_key, store="edge.sqlite",
    )
    on_credit = Terms(scheme="batch-settlement", network="clearing:example", pay_to="shop.example")
    seller = Seller(accepts=[on_credit], edge=edge, …)

Verifies without asking anybody, logs durably, and passes the log on in the background. Several processes may share one
store: each takes a label of its own (`shop`, `shop.2`, …), under which it holds leases and uploads.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import msgspec

from farthing.errors import ConfigError, FarthingError, MaybeWritten, RemoteProtocolError, StoreError
from farthing.flow import Effect
from farthing.mechanisms.batch_credit import pack_kept
from farthing.mechanisms.batch_credit.verify import NONCE_KEPT_SECONDS
from farthing.networks import Networks, Token
from farthing.protocol.clearing import DECIMALS, KeyRecord, Label, fits_upload
from farthing.seller.credit import Commit, CommitBound, FetchKey, GiveBack, NoteSent, NotTaken, TakeCommitment, Taken
from farthing.servers.edge_repeats import Repeats
from farthing.signatures.keys import MessageSigner, PublicKey
from farthing.world.clearing_client import ClearingClient
from farthing.world.edge_answers import AnswerRoom
from farthing.world.edge_credit import LEASE_AMOUNT_DEFAULT, LEASE_SECONDS_DEFAULT, CreditPool
from farthing.world.edge_store import EdgeStore, LoggedLine
from farthing.world.edge_uploads import UPLOAD_EVERY_SECONDS, Uploader
from farthing.world.filelock import FileLock
from farthing.world.loop import background_loop
from farthing.world.pending import Pending
from farthing.world.store_url import is_postgres, sqlite_path

T = TypeVar("T")

# With the clearing house away for longer nothing is taken on credit any more.
OFFLINE_LIMIT_SECONDS: Final = 900.0
# Keys that this process knows to be archived; as many as the reader of directories keeps.
ARCHIVED_MAX: Final = 10_000
# Processes that share one store: workers of one machine.
PROCESSES_MAX: Final = 64
# How often it is looked whether a process ended with commitments that nobody passes on.
ADOPT_EVERY_SECONDS: Final = 60.0
# What an ending process waits for the clearing house to take what is left; the next one uploads it otherwise.
CLOSE_SECONDS: Final = 5.0
CURRENCY_DEFAULT: Final = "USD"
# How names of clearing networks begin.
CREDIT_PREFIX: Final = "clearing:"

log = logging.getLogger("farthing.edge")


class ArchivedKey(Protocol):
    """A key with the directory's answer that held it."""

    def record(self) -> KeyRecord:
        """Write it as edges upload it."""
        ...


class KeySource(Protocol):
    """Where keys of agents come from: `farthing.world.directories.Directories`."""

    def known(self, origin: str, key_id: str) -> PublicKey | None:
        """Give a key that is known and may be used now, without asking anybody."""
        ...

    def is_fresh(self, origin: str, key_id: str) -> bool:
        """Tell whether the key was seen in its directory lately."""
        ...

    def archived(self, origin: str, key_id: str) -> ArchivedKey | None:
        """Give a key as it was found."""
        ...

    async def find(self, origin: str, key_id: str) -> PublicKey | None:
        """Give a key, asking its directory where it is not known, or not seen lately."""
        ...


class Edge:
    """Takes commitments for the payees of one clearing network. Raises `ConfigError` and `StoreError`.

    Args:
        name: the edge's name at the clearing house, which its token is for.
        network: the clearing network, like `clearing:example`.
        clearing_house: its URL.
        token: the edge's bearer token.
        signer: the Ed25519 key that signs receipts; it stands in the seller's key directory.
        store: the log: a path, or a URL of PostgreSQL.
        keys: where agents' keys come from: `Directories()`, which reads their key directories under guard.
        currency: that of all prices here.
        lease_amount: what is asked for at once, in atomic units (a millionth): what a payer's traffic may be worth in
            the time of a lease.
        lease_seconds: how long a lease lasts at most.
        offline_limit_seconds: for how long the edge serves on with the clearing house away.
        upload_every_seconds: how often what was logged is passed on.
    """

    def __init__(
        self,
        name: str,
        *,
        network: str,
        clearing_house: str,
        token: str,
        signer: MessageSigner,
        store: str | Path,
        keys: KeySource,
        currency: str = CURRENCY_DEFAULT,
        lease_amount: int = LEASE_AMOUNT_DEFAULT,
        lease_seconds: int = LEASE_SECONDS_DEFAULT,
        offline_limit_seconds: float = OFFLINE_LIMIT_SECONDS,
        upload_every_seconds: float = UPLOAD_EVERY_SECONDS,
    ) -> None:
        """Open the store and begin to pass on what is left of earlier lives."""
        if not network.startswith(CREDIT_PREFIX):
            message = f"The network of an edge is a clearing network, like 'clearing:example', not {network!r}."
            raise ConfigError(message)
        try:
            msgspec.convert(name, Label)
        except msgspec.ValidationError:
            message = f"The edge's name is 1 to 64 letters, digits, dots, dashes and underscores, not {name[:80]!r}."
            raise ConfigError(message) from None
        self.name, self.network, self.currency = name, network, currency
        self.clearing_house = clearing_house
        self.signer = signer
        self._token, self._path, self._keys = token, store, keys
        self._lease_amount, self._lease_seconds = lease_amount, lease_seconds
        self._offline_limit_seconds = offline_limit_seconds
        self._upload_every_seconds = upload_every_seconds
        self._lock = threading.Lock()
        self._life: _Life | None = None
        self._closed = False
        self._looking: set[tuple[str, str]] = set()
        self._living()

    def __repr__(self) -> str:
        """Name it; token and key stay unseen."""
        return f"Edge({self.name!r}, network={self.network!r}, clearing_house={self.clearing_house!r})"

    def with_currency(self, networks: Networks) -> Networks:
        """Give a table of networks that knows what prices on the clearing network are in."""
        money = Token(
            network=self.network,
            address=self.currency,
            symbol=self.currency,
            decimals=DECIMALS,
            eip712_name="",
            eip712_version="",
            currency=self.currency,
        )
        return networks.with_token(money)

    def known(self, agent: str, key_id: str) -> PublicKey | None:
        """Give an agent's key, without waiting for anybody; one not seen lately is looked for meanwhile.

        One that its directory held beside another, or that came by a renewal, is not known before it is archived here:
        the clearing house bills nothing by a key whose record it does not have.
        """
        if (agent, key_id) not in self._living().archived:
            return None
        key = self._keys.known(agent, key_id)
        if key is not None and not self._keys.is_fresh(agent, key_id):
            self._look_again(agent, key_id)
        return key

    def handlers(self) -> dict[type[Effect[Any]], Callable[[Any], Any]]:
        """Give the handlers of the edge's effects, for a `Performer`."""
        return {
            FetchKey: self._fetch_key,
            TakeCommitment: self._take,
            GiveBack: self._give_back,
            Commit: self._commit,
            NoteSent: self._note_sent,
            **Repeats(self._living).handlers(),
        }

    def behind(self) -> int:
        """Count the commitments of this process that the clearing house does not have yet."""
        return self._living().store.behind()

    @property
    def offline_seconds(self) -> float:
        """How long ago the clearing house answered last."""
        return self._living().pool.offline_seconds

    def close(self, timeout_seconds: float = CLOSE_SECONDS) -> None:
        """Pass on what is left, give the leases back, and close. What can't be passed on stays in the store."""
        with self._lock:
            self._closed = True
            life, self._life = self._life, None
        if life is not None and life.process == os.getpid():
            life.close(timeout_seconds)

    def parts(self) -> _Parts:
        """What a life is made of."""
        return _Parts(
            self._path,
            self._token,
            self._lease_amount,
            self._lease_seconds,
            self._offline_limit_seconds,
            self._upload_every_seconds,
        )

    # Performing

    async def _fetch_key(self, effect: FetchKey) -> PublicKey | None:
        life = self._living()
        # Only who has an account makes this process fetch anything (SAFETY A2).
        if not await asyncio.wrap_future(life.pool.knows(effect.agent)):
            return None
        key = await self._keys.find(effect.agent, effect.key_id)
        archived = self._keys.archived(effect.agent, effect.key_id)
        if key is None or archived is None:
            return None
        record = archived.record()
        if not fits_upload(record):
            message = f"the key directory of {effect.agent} is larger than a clearing house archives"
            raise RemoteProtocolError(message)
        # The archive is written before the first line that needs it.
        await asyncio.to_thread(life.store.add_key(record).result)
        if len(life.archived) >= ARCHIVED_MAX:
            life.archived.clear()  # each is looked up again, and found
        life.archived.add((effect.agent, effect.key_id))
        return key

    def _look_again(self, agent: str, key_id: str) -> None:
        asked = (agent, key_id)
        with self._lock:
            if asked in self._looking:
                return
            self._looking.add(asked)

        async def look() -> None:
            try:
                await self._keys.find(agent, key_id)
            finally:
                with self._lock:
                    self._looking.discard(asked)

        _spawn(look())

    def _take(self, effect: TakeCommitment) -> Taken | NotTaken | Future[Taken | NotTaken]:
        return self._living().pool.take(effect.commitment, int(time.time()))

    def _give_back(self, effect: GiveBack) -> None:
        self._living().pool.give_back(effect.commitment, effect.taken)

    def _commit(self, effect: Commit) -> Pending[bool]:
        life = self._living()
        return life.append(effect, life.store.log)

    def _note_sent(self, effect: NoteSent) -> None:
        with contextlib.suppress(StoreError):
            self._living().store.note_sent(effect.payer, effect.commitment_id, effect.expires)

    def _living(self) -> _Life:
        """This process's part; a forked process begins a life of its own."""
        life = self._life
        if life is not None and life.process == os.getpid():
            return life
        with self._lock:
            if self._closed:
                message = f"The edge {self.name} is closed."
                raise StoreError(message)
            if self._life is None or self._life.process != os.getpid():
                self._life = _Life(self)
            return self._life


class _Life:
    """What one process has of an edge: its label, its part of the log, its leases, and what passes things on."""

    def __init__(self, edge: Edge) -> None:
        self.process = os.getpid()
        parts = edge.parts()
        # Keys whose records are in this store: (agent, thumbprint).
        self.archived: set[tuple[str, str]] = set()
        self._slot, label = _take_label(parts.path, edge.name)
        self.store = EdgeStore(parts.path, label)
        loop = background_loop()
        self._client = ClearingClient(edge.clearing_house, parts.token)
        making = self._make_uploader(parts, self._client, self.store)
        self._uploader = asyncio.run_coroutine_threadsafe(making, loop).result()
        self.pool = CreditPool(
            self._uploader.ask_lease,
            self._uploader.ask_account,
            _spawn,
            offline_limit_seconds=parts.offline_limit_seconds,
            lease_amount=parts.lease_amount,
        )
        self._uploader.pool = self.pool
        self.room = AnswerRoom()
        for payer, nonce, commitment_id, expires in self.store.recent(int(time.time()) - NONCE_KEPT_SECONDS):
            self.pool.remember(payer, nonce, commitment_id, expires)
        self._edge, self._parts = edge, parts
        self._task = asyncio.run_coroutine_threadsafe(self._uploader.run(), loop)
        self._adopting = asyncio.run_coroutine_threadsafe(self._adopt(), loop)

    def append(self, effect: Commit | CommitBound, write: Callable[[LoggedLine], Pending[T]]) -> Pending[T]:
        """Have a commitment written into the log, and its nonce and its price kept or given back by what became of it.

        `write` answers as one of the two effects does.
        """
        commitment, taken = effect.commitment, effect.taken

        def note(done: Pending[Any]) -> None:
            trouble = done.exception()
            if trouble is None and done.result() != "taken":
                self.pool.commit(commitment, taken, is_new=done.result() in {True, "committed"})
            else:
                self.pool.give_back(commitment, taken, maybe_written=isinstance(trouble, MaybeWritten))

        try:
            pending = write(self._logged(effect))
        except Exception:
            # The queue is full, say: nothing waits for an answer that would give it back.
            self.pool.give_back(commitment, taken)
            raise
        pending.add_done_callback(note)
        return pending

    def _logged(self, effect: Commit | CommitBound) -> LoggedLine:
        """Write a commitment as the log has it."""
        commitment, line = effect.commitment, effect.line
        if self.pool.is_over(effect.taken, commitment.signed.payer):
            line = msgspec.structs.replace(line, lapsed=True)
        return LoggedLine(
            payer=line.payer,
            id=commitment.commitment_id,
            nonce=commitment.profile.nonce,
            expires=line.expires,
            lease=effect.taken.lease,
            amount=commitment.signed.amount,
            key_id=line.key,
            line=pack_kept(line),
        )

    async def _adopt(self) -> None:
        """Pass on what processes left that ended before they could, and whose label nobody took again."""
        while True:
            for number in range(1, PROCESSES_MAX + 1):
                label = _label(self._edge.name, number)
                try:
                    if label != self.store.edge and await asyncio.to_thread(self.store.is_left, label):
                        await self._catch_up(number, label)
                except FarthingError as error:
                    log.warning("what %s left is passed on later: %s", label, error)
            await asyncio.sleep(ADOPT_EVERY_SECONDS)

    async def _catch_up(self, number: int, label: str) -> None:
        lock = FileLock(_lock_path(self._parts.path, self._edge.name, number))
        try:
            if not lock.try_acquire():
                return  # it lives
            store = await asyncio.to_thread(EdgeStore, self._parts.path, label)
            try:
                client = ClearingClient(self._edge.clearing_house, self._parts.token)
                await (await self._make_uploader(self._parts, client, store)).catch_up()
            finally:
                await asyncio.to_thread(store.close)
        finally:
            lock.close()

    async def _make_uploader(self, parts: _Parts, client: ClearingClient, store: EdgeStore) -> Uploader:
        # Its events belong to the background loop.
        return Uploader(
            client,
            store,
            lease_seconds=parts.lease_seconds,
            upload_every_seconds=parts.upload_every_seconds,
            now_seconds=lambda: int(time.time()),
        )

    def close(self, timeout_seconds: float) -> None:
        try:
            left = _spawn(self._uploader.finish(timeout_seconds)).result(timeout_seconds + 1)
            if left:
                log.warning("%d commitments wait in %s for the next start", left, self.store.edge)
        except (TimeoutError, FarthingError) as error:
            log.warning("the edge ends with commitments that wait for the next start: %s", error)
        self._task.cancel()
        self._adopting.cancel()
        self.store.close()
        self._slot.close()


class _Parts(msgspec.Struct, frozen=True):
    """What a process needs to begin its life of an edge."""

    path: str | Path
    token: str
    lease_amount: int
    lease_seconds: int
    offline_limit_seconds: float
    upload_every_seconds: float


def _take_label(store: str | Path, name: str) -> tuple[FileLock, str]:
    """Take the first label that no living process of this machine has: `shop`, `shop.2` … It goes with the process."""
    for number in range(1, PROCESSES_MAX + 1):
        lock = FileLock(_lock_path(store, name, number))
        if lock.try_acquire():
            return lock, _label(name, number)
        lock.close()
    message = f"{PROCESSES_MAX} processes of {name} share a store already; start no more, or give others another name."
    raise StoreError(message)


def _label(name: str, number: int) -> str:
    return name if number == 1 else f"{name}.{number}"


def _lock_path(store: str | Path, name: str, number: int) -> Path:
    if is_postgres(store):
        # The database is somewhere else: machines that share it have a name each (docs/edge.md).
        digest = hashlib.sha256(f"{os.fspath(store)}\n{name}".encode()).hexdigest()[:32]
        return Path(tempfile.gettempdir()) / f"farthing-edge-{digest}.{number}.lock"
    path = Path(sqlite_path(store)).absolute()
    if not path.parent.is_dir():
        raise StoreError(f"The folder {path.parent} of the edge's store does not exist: make it, or give another path.")
    return path.with_name(f"{path.name}.{number}.lock")


def _spawn(coroutine: Coroutine[Any, Any, T]) -> Future[T]:
    return asyncio.run_coroutine_threadsafe(coroutine, background_loop())
