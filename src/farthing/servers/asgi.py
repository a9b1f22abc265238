"""The ASGI door: a middleware that puts prices on the routes of any ASGI application (Starlette, FastAPI, Litestar …).

    app.add_middleware(PaymentMiddleware, seller=seller)     # Starlette, FastAPI
    app = PaymentMiddleware(app, seller=seller)              # any other

Pure ASGI (version 3). An unpriced request passes through as it came. On a priced route the answer is held until its
payment is settled, or streams where the route settles before the work; a websocket on a priced path is refused.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, MutableMapping
from typing import Any, Final, TypeAlias, TypeVar, cast

from farthing.flow import Flow, drive_async
from farthing.protocol.versions import RESPONSE_HEADERS, presented
from farthing.seller.answers import Answer, problem
from farthing.seller.conclude import abandon, conclude, delivered, finish, not_begun, succeeded, undelivered
from farthing.seller.headers import paid_headers
from farthing.seller.routes import Barred, Free, Preflight, Priced
from farthing.seller.ticket import Conclusion, Deliver, Refuse, Release, Serve, Ticket, Verdict
from farthing.servers import preflight
from farthing.servers.held import HeldBody, ResponseTooLarge, body_of, body_size
from farthing.servers.keeping import keep_running
from farthing.servers.marks import Passed, current
from farthing.servers.seller import Seller
from farthing.servers.unpaid import Asked, UnpaidAnswers

T = TypeVar("T")

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
# Frameworks write the types of the three arguments in their own ways.
App: TypeAlias = Callable[..., Awaitable[None]]
HeaderList: TypeAlias = tuple[tuple[str, str], ...]

# Where a handler finds its payment in the scope; no header can put anything there.
SCOPE_KEY: Final = "farthing.payment"
# Policy violation (RFC 6455, section 7.4.1); before the handshake it is a 403.
_WEBSOCKET_REFUSED: Final = 1008
# Extensions by which a body could leave the application without being seen here (trailers, pathsend, zerocopysend …).
_BODY_EXTENSIONS: Final = "http.response."

log = logging.getLogger("farthing.seller")
# Conclusions whose request was cancelled: they are kept from being collected until they are done.
_tasks: set[asyncio.Task[Any]] = set()


class PaymentMiddleware:
    """The door around an ASGI application."""

    def __init__(self, app: App, *, seller: Seller) -> None:
        """Stand around `app` and take payments for `seller`."""
        self.app = app
        self.seller = seller
        self._is_free = seller.routes.is_free
        self._unpaid = UnpaidAnswers(seller.routes)
        self._learnt = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass, or have it paid."""
        if not self._learnt:
            self._learn(scope)
        kind = scope["type"]
        if kind not in ("http", "websocket") or self._is_free(scope["path"], scope.get("root_path", "")):
            await self.app(scope, receive, send)
        elif kind == "websocket":
            await _refuse_websocket(receive, send)
        else:
            await self._priced(scope, receive, send)

    def _learn(self, scope: Scope) -> None:
        self._learnt = True
        self.seller.learn(scope.get("app") or scope.get("litestar_app") or self.app)

    async def _priced(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = self._unpaid.asked(scope)
        if asked is None or not await self._unpaid.sent(asked, send):
            await self._judged(scope, receive, send, asked)

    async def _judged(self, scope: Scope, receive: Receive, send: Send, asked: Asked | None) -> None:
        pairs = tuple((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"])
        headers = dict(pairs)
        path, root_path = scope["path"], scope.get("root_path", "")
        query = scope.get("query_string", b"").decode("latin-1")
        method: str = scope["method"]
        match = self.seller.match(method, path, root_path, query, headers)
        if isinstance(match, Free):
            await self.app(scope, receive, send)
            return
        if isinstance(match, Barred):
            await _send_answer(send, problem(match.status, "not-taken", match.title, match.detail))
            return
        if isinstance(match, Preflight):
            await self._preflight(match, scope, headers, receive, send)
            return
        wire, payments = presented(pairs)
        body = b""
        if payments and match.servable:
            read = await _read_body(receive, headers, self.seller.request_body_max_bytes)
            if read is None:
                return  # the client has gone before it had said all
            if isinstance(read, Answer):
                await _send_answer(send, read)
                return
            body = read
        request = self.seller.request(
            match, method=method, path=path, query=query, headers=headers, payments=payments, wire=wire, body=body
        )
        if isinstance(request, Answer):
            await _send_answer(send, request, head=method == "HEAD")
            return
        admitting = self.seller.admit(request, servable=match.servable)
        verdict = await (self._uncut(admitting, _orphaned_verdict) if payments else self.drive(admitting))
        if isinstance(verdict, Refuse):
            self._unpaid.keep(asked, match.route, verdict.answer)
            await _send_answer(send, verdict.answer, head=method == "HEAD")
        elif isinstance(verdict, Deliver):
            await self._deliver(verdict, receive, send)
        else:
            await self._serve(verdict, match, scope, _Replayed(body, receive), send)

    async def _serve(self, verdict: Serve, match: Priced, scope: Scope, receive: _Replayed, send: Send) -> None:
        """Run the work with the payment in its scope."""
        payment = verdict.ticket.payment
        offered = cast("dict[str, Any]", scope.get("extensions") or {})
        extensions = {name: value for name, value in offered.items() if not name.startswith(_BODY_EXTENSIONS)}
        scope = {**scope, "extensions": extensions, SCOPE_KEY: payment}
        gate: _Holding | _Streaming
        if verdict.settlement:
            if await receive.client_has_gone():
                await self.note(not_begun(verdict.ticket))
                return
            gate = _Streaming(self, verdict, receive, send)
        else:
            gate = _Holding(self, verdict.ticket, receive, send)
        token = current.set(Passed(payment, match.route.mark))
        try:
            await self.app(scope, receive, gate)
        except ResponseTooLarge as error:
            await gate.fail()
            log.warning("%s: %s", match.route.name, error)
            detail = f"The answer is too large to be held until it is settled. Nothing was charged. {error}"
            await _send_answer(send, problem(500, "response-too-large", "The answer is too large", detail))
        except BaseException:
            await gate.fail()
            raise
        else:
            await gate.fail()  # where the application returned without a whole answer
        finally:
            current.reset(token)

    async def _deliver(self, verdict: Deliver, receive: Receive, send: Send) -> None:
        """Send a response from the record."""
        response, ticket = verdict.response, verdict.ticket
        if await _Replayed(None, receive).client_has_gone():
            await self.note(undelivered(ticket))
            return
        headers = paid_headers(
            response.headers, settlement=verdict.settlement, shared_cache=ticket.shared_cache, wire=ticket.wire
        )
        await self.send_stored(headers, verdict, send)
        await self.drive(delivered(ticket))

    async def send_stored(self, headers: HeaderList, verdict: Deliver, send: Send) -> None:
        """Send a held or recorded body under `headers`."""
        response, folder = verdict.response, self.seller.store.spool_folder
        if not any(name.lower() in ("content-length", "transfer-encoding") for name, _ in headers) and (
            response.status not in (204, 205)
        ):
            headers = (*headers, ("content-length", str(body_size(response, folder))))
        await send({"type": "http.response.start", "status": response.status, "headers": _encoded(headers)})
        for chunk in body_of(response, folder):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _preflight(
        self, match: Preflight, scope: Scope, headers: dict[str, str], receive: Receive, send: Send
    ) -> None:
        """Answer OPTIONS on a priced path; what the application says of CORS, it is asked elsewhere (`preflight`)."""
        if not preflight.is_preflight(headers):
            await _send_answer(send, preflight.options_answer(match))
            return
        path = preflight.probe_path(scope["path"])
        start: list[Message] = []
        if self._is_free(path, scope.get("root_path", "")):
            asked = {
                **scope,
                "path": path,
                "raw_path": path.encode("utf-8", "replace"),
                "query_string": b"",
                "headers": [
                    (name.encode("latin-1"), value.encode("latin-1"))
                    for name, value in preflight.probe_headers(
                        (name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]
                    )
                ],
            }

            async def collect(message: Message) -> None:
                if message["type"] == "http.response.start":
                    start.append(message)

            await self.app(asked, receive, collect)
        status = cast("int", start[0]["status"]) if start else 0
        said = _decoded(start[0].get("headers", ())) if start else ()
        await _send_answer(send, preflight.preflight_answer(status, said))

    async def drive(self, flow: Flow[T]) -> T:
        """Run a flow in this task."""
        return await drive_async(flow, self.seller.performer.awaiting)

    async def _uncut(self, flow: Flow[T], orphaned: Callable[[T], Flow[Any] | None]) -> T:
        """Run a flow in a task of its own, so that a request that is cancelled can't cut it (SAFETY S9).

        `orphaned` says what follows where nobody waits for its answer any more.
        """
        return await uncut(self.drive(flow), lambda answer: _after(self, orphaned(answer)))

    async def conclude(self, flow: Flow[Conclusion]) -> Conclusion:
        """Settle, whether or not the client waits; who has gone gets the answer by asking again."""
        return await self._uncut(
            flow, lambda answer: undelivered(answer.ticket) if isinstance(answer, Release) else None
        )

    async def note(self, flow: Flow[Any]) -> None:
        """Put something on record, whether or not the client waits."""
        await self._uncut(flow, lambda _: None)


async def _after(door: PaymentMiddleware, flow: Flow[Any] | None) -> None:
    if flow is not None:
        await door.drive(flow)


def _orphaned_verdict(verdict: Verdict) -> Flow[Any] | None:
    """Give a claim back whose request was cancelled before its work began."""
    if isinstance(verdict, Serve):
        return not_begun(verdict.ticket) if verdict.settlement else abandon(verdict.ticket)
    return undelivered(verdict.ticket) if isinstance(verdict, Deliver) else None


async def uncut(work: Coroutine[Any, Any, T], orphaned: Callable[[T], Coroutine[Any, Any, None]]) -> T:
    """Run `work` in a task of its own to its end; where its caller is cancelled, `orphaned` takes its answer."""
    task = asyncio.get_running_loop().create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:

        async def take_over() -> None:
            await orphaned(await task)

        follower = asyncio.ensure_future(take_over())
        _tasks.add(follower)
        follower.add_done_callback(_forget)
        raise


def _forget(task: asyncio.Task[Any]) -> None:
    _tasks.discard(task)
    if not task.cancelled() and task.exception() is not None:
        log.error("a payment's conclusion failed after its client had gone", exc_info=task.exception())


class _Replayed:
    """`receive` for the application: the body that was read already, then what the server says."""

    def __init__(self, body: bytes | None, receive: Receive) -> None:
        self._body = body
        self._receive = receive
        self._gone = False

    async def __call__(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        return await self._ask()

    async def _ask(self) -> Message:
        message = await self._receive()
        self._gone = self._gone or message["type"] == "http.disconnect"
        return message

    async def client_has_gone(self) -> bool:
        """Tell whether the server knows that the client has gone, without waiting for it."""
        if not self._gone:
            asking = asyncio.ensure_future(self._ask())
            # Two turns of the loop, for whoever stands between the server and us; asyncio.wait takes as many.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            if not asking.done():
                asking.cancel()
                await asyncio.sleep(0)
            if not asking.done():
                await asyncio.wait({asking})
        return self._gone


class _Holding:
    """`send` for a route that settles after the work: nothing of a 2xx leaves before the payment is settled."""

    def __init__(self, door: PaymentMiddleware, ticket: Ticket, receive: _Replayed, send: Send) -> None:
        self._door, self._ticket, self._receive, self._send = door, ticket, receive, send
        self._body = HeldBody(door.seller.store.spool_folder, f"{ticket.payment_id}-{ticket.epoch}")
        self._status = 0
        self._headers: HeaderList = ()
        self._passing = False
        self._over = False

    async def __call__(self, message: Message) -> None:
        kind = message["type"]
        if self._passing:
            await self._send(message)
        elif kind == "http.response.start" and self._status == 0:
            self._status = message["status"]
            self._headers = _decoded(message.get("headers", ()))
            if not succeeded(self._status):
                # Nothing is charged for this answer; that is on record before it goes out.
                self._over = self._passing = True
                await self._door.note(abandon(self._ticket))
                kept = tuple(each for each in self._headers if each[0].lower() not in RESPONSE_HEADERS)
                await self._send({**message, "headers": _encoded(kept)})
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
        if self._body.spooled:
            response = await asyncio.to_thread(
                self._body.store, self._status, self._headers, durable=ticket.stores_response
            )
        else:
            response = self._body.store(self._status, self._headers)
        conclusion = await self._door.conclude(conclude(ticket, response))
        if isinstance(conclusion, Refuse):
            if not ticket.stores_response:
                self._body.discard()
            await _send_answer(self._send, conclusion.answer)
            return
        if ticket.stores_response and await self._receive.client_has_gone():
            await self._door.note(undelivered(ticket))
            return
        headers = paid_headers(
            self._headers, settlement=conclusion.settlement, shared_cache=ticket.shared_cache, wire=ticket.wire
        )
        await self._door.send_stored(headers, Deliver(ticket, response, conclusion.settlement), self._send)
        await self._door.drive(delivered(ticket))
        if response.spool and not ticket.stores_response:
            (folder / response.spool).unlink(missing_ok=True)

    async def fail(self) -> None:
        """Let the payment go, uncharged, where the work ended without a whole answer."""
        if not self._over:
            self._over = True
            self._body.discard()
            await self._door.note(abandon(self._ticket))


class _Streaming:
    """`send` for a route that settled before the work: a 2xx streams, with the receipt in its head."""

    def __init__(self, door: PaymentMiddleware, verdict: Serve, receive: _Replayed, send: Send) -> None:
        self._door, self._ticket, self._settlement = door, verdict.ticket, verdict.settlement
        self._receive, self._send = receive, send
        self._over = False
        self._keeping = asyncio.ensure_future(keep_running(self._ticket, door.seller.performer))

    async def __call__(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            if not succeeded(message["status"]) and not self._over:
                # The payment stays owed; that is on record before the answer goes out.
                self._over = True
                await self._door.note(finish(self._ticket, complete=False))
            headers = paid_headers(
                _decoded(message.get("headers", ())),
                settlement=self._settlement,
                shared_cache=self._ticket.shared_cache and not self._over,
                wire=self._ticket.wire,
            )
            message = {**message, "headers": _encoded(headers), "trailers": False}
        ends = kind == "http.response.body" and not message.get("more_body", False) and not self._over
        # Servers take what is sent to a client that has gone, and say nothing.
        complete = ends and not await self._receive.client_has_gone()
        await self._send(message)
        if ends:
            self._over = True
            await self._door.drive(finish(self._ticket, complete=complete))

    async def fail(self) -> None:
        """Note that the payment is owed still, where the work ended without a whole answer."""
        self._keeping.cancel()
        if not self._over:
            self._over = True
            await self._door.note(finish(self._ticket, complete=False))


async def _read_body(receive: Receive, headers: dict[str, str], limit_bytes: int) -> bytes | Answer | None:
    """Read the whole body, within the limit; None where the client has gone."""
    announced = headers.get("content-length", "")
    if announced.isdecimal() and (len(announced) > len(str(limit_bytes)) or int(announced) > limit_bytes):
        return _too_large(limit_bytes)
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if len(body) > limit_bytes:
            return _too_large(limit_bytes)
        if not message.get("more_body", False):
            return bytes(body)


def _too_large(limit_bytes: int) -> Answer:
    detail = f"A priced route takes a body of at most {limit_bytes} bytes; nothing was charged."
    return problem(413, "body-too-large", "The body is too large", detail)


async def _refuse_websocket(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.close", "code": _WEBSOCKET_REFUSED, "reason": "payment required: use HTTP"})


async def _send_answer(send: Send, answer: Answer, *, head: bool = False) -> None:
    headers = answer.headers
    if answer.status != 204:  # noqa: PLR2004 - No Content has no length (RFC 9110, section 8.6)
        headers = (*headers, ("content-length", str(len(answer.body))))
    await send({"type": "http.response.start", "status": answer.status, "headers": _encoded(headers)})
    await send({"type": "http.response.body", "body": b"" if head else answer.body, "more_body": False})


def _encoded(headers: HeaderList) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def _decoded(headers: Iterable[tuple[bytes, bytes]]) -> HeaderList:
    return tuple((bytes(name).decode("latin-1"), bytes(value).decode("latin-1")) for name, value in headers)
