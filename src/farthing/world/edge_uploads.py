"""What an edge passes on to its clearing house, in the background: commitments, notes, keys; and leases given back.

An upload is fixed in the log before it is sent, and sent again as it is until it is answered: the clearing house takes
it once. What goes wrong is logged and tried again, ever more slowly; nothing is dropped.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
import random
from collections.abc import Callable
from typing import Final

import msgspec

from farthing.mechanisms.batch_credit import unpack_kept, written_out
from farthing.mechanisms.batch_credit.verify import NONCE_KEPT_SECONDS
from farthing.protocol.clearing import (
    UPLOAD_LINES_MAX,
    UPLOAD_MAX_BYTES,
    Commitment,
    KeyRecord,
    Lease,
    LeaseClose,
    LeaseRequest,
    Sent,
    UploadHeader,
)
from farthing.world.clearing_client import ClearingAway, ClearingClient, ClearingRefused
from farthing.world.edge_credit import CreditPool, lease_request_name
from farthing.world.edge_store import EdgeStore, UploadRecord, Waiting

# What waits is uploaded so often, and at once when an upload is full.
UPLOAD_EVERY_SECONDS: Final = 2.0
# With nothing to say, the clearing house is asked whether it is there: the offline limit counts from its answers.
GREET_EVERY_SECONDS: Final = 30.0
RETRY_FIRST_SECONDS: Final = 0.5
RETRY_MAX_SECONDS: Final = 30.0
PRUNE_EVERY_SECONDS: Final = 60.0
# Payers whose question is remembered: beyond, what was granted and not heard of returns with the late limit.
UNANSWERED_MAX: Final = 10_000
# An upload that unpacks to more is split. What doesn't compress (a payer chooses its own payment's bytes) must still
# be under what the clearing house takes, with one line, a key, and the notes beyond.
_UNPACKED_BYTES: Final = UPLOAD_MAX_BYTES * 3 // 4
# gzip's levels beyond cost twice the time for some percent.
_GZIP_LEVEL: Final = 4

_commitment_decoder = msgspec.json.Decoder(Commitment)

log = logging.getLogger("farthing.edge")


class Uploader:
    """The background part of one edge. All of it runs on one loop."""

    def __init__(
        self,
        client: ClearingClient,
        store: EdgeStore,
        *,
        lease_seconds: int,
        upload_every_seconds: float,
        now_seconds: Callable[[], int],
    ) -> None:
        """Upload what `store` holds to `client`."""
        self._upload_every_seconds = upload_every_seconds
        self._client, self._store = client, store
        self._lease_seconds = lease_seconds
        self._now = now_seconds
        self.pool: CreditPool | None = None
        self._started = asyncio.Event()
        self._nudged = asyncio.Event()
        self._working = asyncio.Lock()
        self._closing = False
        self._epoch = 0
        self._keys_known: set[tuple[str, str]] = set()
        # Of payers whose question for a lease had no answer: epoch, the question's name, and when it was asked first.
        self._unanswered: dict[str, tuple[int, str, float]] = {}
        self._retry_seconds = RETRY_FIRST_SECONDS
        self._last_contact = 0.0
        self._pruned = 0.0
        self._lapsed: set[str] = set()

    # Credit

    async def ask_account(self, payer: str) -> bool:
        """Tell whether a payer has an account. Raises `ClearingRefused` and `ClearingAway`."""
        found = await self._client.has_account(payer)
        self._in_contact()
        return found

    async def ask_lease(self, payer: str, currency: str, amount: int) -> tuple[Lease, float]:
        """Get a lease, on record before it is used, and for how many seconds it has been asked for.

        A question that had no answer is asked again under its name: what was granted then is this lease, and counts
        from then. Another name would leave its credit with nobody until the late limit is over.

        Raises `ClearingRefused` and `ClearingAway`.
        """
        try:
            async with asyncio.timeout(RETRY_MAX_SECONDS / 6):
                await self._started.wait()
        except TimeoutError:
            raise ClearingAway("The clearing house has not answered since this edge began.") from None
        now = asyncio.get_running_loop().time()
        epoch, name, asked_at = self._unanswered.pop(payer, (0, "", 0.0))
        if epoch != self._epoch:
            name, asked_at = lease_request_name(), now
        request = LeaseRequest(
            self._store.edge,
            self._epoch,
            name,
            payer,
            str(amount),
            currency,
            self._lease_seconds,
        )
        try:
            lease = await self._client.lease(request)
        except ClearingRefused as error:
            self._in_contact()
            if error.reason == "fenced":
                log.warning("another process has begun a life of this edge; asking for a new one")
                self._started.clear()
                self.nudge()
            raise
        except BaseException:
            if len(self._unanswered) < UNANSWERED_MAX:
                self._unanswered[payer] = (request.epoch, name, asked_at)
            raise
        self._in_contact()
        await asyncio.to_thread(self._store.add_lease(lease.lease, lease.epoch, payer, int(lease.amount)).result)
        if lease.warn:
            log.warning("%s has used four fifths of its credit", payer)
        return lease, asyncio.get_running_loop().time() - asked_at

    # The loop

    def nudge(self) -> None:
        """Have the loop look at once. Called on the loop."""
        self._nudged.set()

    async def run(self) -> None:
        """Pass things on until `finish`."""
        while not self._closing:
            try:
                await self._round()
                self._retry_seconds = RETRY_FIRST_SECONDS
                pause = self._upload_every_seconds
            except ClearingAway as error:
                # A busy house says when; what it says is no reason to stay away for hours.
                asked_seconds = min(error.retry_after_seconds, RETRY_MAX_SECONDS)
                pause = max(self._backed_off(), asked_seconds)
                log.warning("%s Trying again in %.1f s; %d commitments wait.", error, pause, self._behind())
            except ClearingRefused as error:
                log.error("%s Nothing is lost; trying again in %.1f s.", error, self._retry_seconds)  # noqa: TRY400
                pause = self._backed_off()
            except Exception:
                log.exception("an upload failed; trying again in %.1f s", self._retry_seconds)
                pause = self._backed_off()
            self._nudged.clear()
            try:
                async with asyncio.timeout(pause):
                    await self._nudged.wait()
            except TimeoutError:
                continue

    async def catch_up(self) -> None:
        """Pass on once what waits, for a process that has ended. Raises `ClearingAway` and `ClearingRefused`."""
        try:
            await self._round()
        finally:
            await self._client.aclose()

    async def finish(self, timeout_seconds: float) -> int:
        """Pass on what waits, give the leases back, and end; gives how many commitments still wait."""
        self._closing = True
        self.nudge()
        if self.pool is not None:
            self._lapsed.update(self.pool.all_leases())
        try:
            async with asyncio.timeout(timeout_seconds):
                while self._behind():
                    await self._round()
                await self._close_leases()
        except (TimeoutError, ClearingAway, ClearingRefused) as error:
            log.warning("not all was passed on before the end: %s", error)
        await self._client.aclose()
        return self._behind()

    def _backed_off(self) -> float:
        pause = self._retry_seconds * random.uniform(0.8, 1.2)  # noqa: S311 - so that edges don't come together
        self._retry_seconds = min(self._retry_seconds * 2, RETRY_MAX_SECONDS)
        return pause

    def _behind(self) -> int:
        return self._store.behind()

    def _in_contact(self) -> None:
        self._last_contact = asyncio.get_running_loop().time()
        if self.pool is not None:
            self.pool.in_contact()

    async def _round(self) -> None:
        # The end of an edge is a round of its own: two at once would make one upload twice.
        async with self._working:
            await self._work()

    async def _work(self) -> None:
        if not self._started.is_set():
            said = await self._client.start(self._store.edge)
            self._epoch = said.epoch
            if self.pool is not None:
                self.pool.drop()
            self._in_contact()
            self._started.set()
        while True:
            upload = await asyncio.to_thread(self._store.pending_upload) or await self._make_upload()
            if upload is None:
                break
            await self._send(upload)
        await self._close_leases()
        loop_time = asyncio.get_running_loop().time()
        if loop_time - self._last_contact > GREET_EVERY_SECONDS:
            await self._client.greet()
            self._in_contact()
        if loop_time - self._pruned > PRUNE_EVERY_SECONDS:
            self._pruned = loop_time
            before = self._now() - NONCE_KEPT_SECONDS
            await asyncio.to_thread(self._store.prune(before).result)

    async def _make_upload(self) -> UploadRecord | None:
        made = await asyncio.to_thread(self._build)
        if made is not None:
            await asyncio.to_thread(self._store.add_upload(made).result)
        return made

    def _build(self) -> UploadRecord | None:
        lines, notes, last_seq, last_note = self._store.waiting(UPLOAD_LINES_MAX // 3)
        if not lines and not notes:
            return None
        sequence = self._store.next_sequence(self._epoch)
        header = UploadHeader(self._store.edge, self._epoch, sequence)
        parts = [msgspec.json.encode(header)]
        sent = {note.seq for note in notes}
        merged: set[int] = set()
        size_bytes = 0
        for line in lines:
            if size_bytes > _UNPACKED_BYTES:
                break
            added = [*self._key_of(line), upload_line(line.line, sent=line.seq in sent)]
            size_bytes += sum(map(len, added))
            parts += added
            merged.add(line.seq)
            last_seq = line.seq
        for note in notes:
            if note.seq > last_seq:
                break  # its line comes with the next upload, and the note in it
            if note.seq not in merged:
                parts.append(msgspec.json.encode(Sent(note.payer, note.id)))
            last_note = note.note
        if len(parts) == 1:
            return None  # there are notes alone that wait for their lines
        body = gzip.compress(b"\n".join(parts) + b"\n", _GZIP_LEVEL, mtime=0)
        if len(body) > UPLOAD_MAX_BYTES:
            log.error("an upload has %d bytes; the limit is %d", len(body), UPLOAD_MAX_BYTES)
        return UploadRecord(self._epoch, sequence, last_seq, last_note, self._now(), body)

    def _key_of(self, line: Waiting) -> list[bytes]:
        named = (line.payer, line.key_id)
        if named in self._keys_known:
            return []
        self._keys_known.add(named)
        record: KeyRecord | None = self._store.find_key(line.payer, line.key_id)
        return [] if record is None else [msgspec.json.encode(record)]

    async def _send(self, upload: UploadRecord) -> None:
        answer, raw = await self._client.upload(upload.body)
        self._in_contact()
        await asyncio.to_thread(self._store.acknowledge(upload, raw).result)
        for refused in answer.refused:
            log.error("the clearing house will not bill %s: %s (%s)", refused.id, refused.reason, refused.detail)

    async def _close_leases(self) -> None:
        """Give back what is over and whose every line is uploaded; of earlier lives too."""
        if self.pool is not None:
            self._lapsed.update(self.pool.lapsed())
        for lease in await asyncio.to_thread(self._store.open_leases):
            over = lease.lease in self._lapsed or lease.epoch != self._epoch
            if not over or not await asyncio.to_thread(self._store.lease_is_uploaded, lease.lease):
                continue
            close = LeaseClose(lease.lease, 0, lease.count, str(lease.spent), self._store.edge)
            try:
                closed = await self._client.close_lease(close)
            except ClearingRefused as error:
                log.error("the lease %s can't be given back: %s", lease.lease, error)  # noqa: TRY400
                continue
            self._in_contact()
            if closed.closed:
                await asyncio.to_thread(self._store.close_lease(lease.lease).result)
                self._lapsed.discard(lease.lease)


def upload_line(logged: bytes, *, sent: bool) -> bytes:
    """Write a line of the log as it is uploaded: what an older version logged is JSON as it was uploaded then."""
    if not logged.startswith(b"{"):
        return msgspec.json.encode(written_out(unpack_kept(logged), sent=sent))
    if not sent:
        return logged
    return msgspec.json.encode(msgspec.structs.replace(_commitment_decoder.decode(logged), sent=True))
