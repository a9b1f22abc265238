"""What stands between the application and the server on a paid route: `send`, held or let through."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from farthing.errors import StoreError
from farthing.protocol.versions import RESPONSE_HEADERS
from farthing.seller.conclude import abandon, conclude, delivered, finish, succeeded, undelivered
from farthing.seller.headers import paid_headers
from farthing.seller.settling import lost_lease
from farthing.seller.ticket import Deliver, Refuse, Serve, Ticket
from farthing.servers.asgi_wire import Message, RawHeaders, Replayed, Send, decoded, encoded, raw, send_answer
from farthing.servers.held import HeldBody
from farthing.servers.keeping import KeptRun

if TYPE_CHECKING:
    from farthing.servers.asgi import PaymentMiddleware


class Gate(Protocol):
    """`send` for the application, which lets nothing out that is not paid for."""

    async def __call__(self, message: Message) -> None:
        """Take what the application sends."""
        ...

    async def fail(self) -> None:
        """Let the payment go, where the work ended without a whole answer."""
        ...


class Holding:
    """`send` for a route that settles after the work: nothing of a 2xx leaves before the payment is settled."""

    def __init__(self, door: PaymentMiddleware, ticket: Ticket, receive: Replayed, send: Send) -> None:
        """Hold what is sent for the payment of `ticket`."""
        self._door, self._ticket, self._receive, self._send = door, ticket, receive, send
        self._body = HeldBody(door.seller.store.spool_folder, f"{ticket.payment_id}-{ticket.epoch}")
        self._status = 0
        self._headers: RawHeaders = ()
        self._passing = False
        self._over = False

    async def __call__(self, message: Message) -> None:
        """Take what the application sends."""
        kind = message["type"]
        if self._passing:
            await self._send(message)
        elif kind == "http.response.start" and self._status == 0:
            self._status = message["status"]
            self._headers = raw(message.get("headers", ()))
            if not succeeded(self._status):
                # Nothing is charged for this answer; that is on record before it goes out.
                self._over = self._passing = True
                await self._door.drive(abandon(self._ticket))
                kept = tuple(each for each in decoded(self._headers) if each[0].lower() not in RESPONSE_HEADERS)
                await self._send({**message, "headers": encoded(kept)})
        elif kind == "http.response.body" and self._status and not self._over:
            self._body.write(message.get("body", b""))
            if not message.get("more_body", False):
                self._over = True
                await self._conclude()
        elif kind == "http.response.start" or self._over or kind != "http.response.body":
            # Early hints and debugging aids would tell what is not paid for yet; what follows the end is nothing.
            return

    async def _conclude(self) -> None:
        ticket, folder = self._ticket, self._door.seller.store.spool_folder
        headers = decoded(self._headers)
        if self._body.spooled:
            response = await asyncio.to_thread(self._body.store, self._status, headers, durable=ticket.stores_response)
        else:
            response = self._body.store(self._status, headers)
        conclusion = await self._door.conclude(conclude(ticket, response))
        if isinstance(conclusion, Refuse):
            if not ticket.stores_response:
                self._body.discard()
            await send_answer(self._send, conclusion.answer)
            return
        ticket = conclusion.ticket
        if ticket.stores_response and await self._receive.client_has_gone():
            await self._door.drive(undelivered(ticket))
            return
        await self._door.send_stored(self._headers, Deliver(ticket, response, conclusion.settlement), self._send)
        await self._door.drive(delivered(ticket, spooled=bool(response.spool)))
        if response.spool and not ticket.stores_response:
            (folder / response.spool).unlink(missing_ok=True)

    async def fail(self) -> None:
        """Let the payment go, uncharged, where the work ended without a whole answer."""
        if not self._over:
            self._over = True
            self._body.discard()
            await self._door.drive(abandon(self._ticket))


class Streaming:
    """`send` for a route that settled before the work: a 2xx streams, with the receipt in its head."""

    def __init__(self, door: PaymentMiddleware, verdict: Serve, receive: Replayed, send: Send) -> None:
        """Let what is sent through, and note how it ends."""
        self._door, self._settlement = door, verdict.settlement
        self._receive, self._send = receive, send
        self._over = self._lost = False
        # A part of the answer may have left.
        self._begun = False
        self._run = KeptRun(verdict.ticket, door.seller.performer, door.seller.store.lanes)
        self._keeping = asyncio.ensure_future(self._run.renew())

    async def __call__(self, message: Message) -> None:
        """Take what the application sends. Raises `StoreError` where another process has the run: the stream is cut."""
        kind = message["type"]
        if self._lost or not (self._over or self._run.is_sure() or await self._run.is_ours()):
            await self._lose(kind)
            return
        if kind == "http.response.start":
            ticket = self._run.ticket
            if not succeeded(message["status"]) and not self._over:
                # The payment stays owed; that is on record before the answer goes out.
                self._over = True
                await self._door.drive(finish(ticket, complete=False, begun=self._begun))
            headers = paid_headers(
                decoded(message.get("headers", ())),
                settlement=self._settlement,
                shared_cache=ticket.shared_cache and not self._over,
                wire=ticket.wire,
            )
            message = {**message, "headers": encoded(headers), "trailers": False}
        ends = kind == "http.response.body" and not message.get("more_body", False) and not self._over
        # Servers take what is sent to a client that has gone, and say nothing.
        complete = ends and not await self._receive.client_has_gone()
        begun, self._begun = self._begun, self._begun or bool(message.get("body"))
        await self._send(message)
        if ends:
            self._over = True
            await self._door.drive(finish(self._run.ticket, complete=complete, begun=begun))

    async def _lose(self, kind: str) -> None:
        """Send nothing more, whatever comes: an answer that has not begun is another, and one that has is cut."""
        if self._lost:
            return
        self._lost = True
        if kind != "http.response.start":
            message = f"the run of {self._run.ticket.payment_id} was taken over while this process was silent; it ends"
            raise StoreError(message)
        await send_answer(self._send, lost_lease(self._run.ticket))

    async def fail(self) -> None:
        """Note that the payment is owed still, where the work ended without a whole answer."""
        self._keeping.cancel()
        if not self._over:
            self._over = True
            await self._door.drive(finish(self._run.ticket, complete=False, begun=self._begun))
