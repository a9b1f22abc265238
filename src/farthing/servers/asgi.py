"""The ASGI door: a middleware that puts prices on the routes of any ASGI application (Starlette, FastAPI, Litestar …).

    app.add_middleware(PaymentMiddleware, seller=seller)     # Starlette, FastAPI
    app = PaymentMiddleware(app, seller=seller)              # any other

Pure ASGI (version 3). An unpriced request passes through as it came. On a priced route the answer is held until its
payment is settled, or streams where the route settles before the work; a websocket on a priced path is refused.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias, TypeVar, cast

from farthing.flow import Flow
from farthing.protocol.versions import presented
from farthing.seller.answers import Answer, problem
from farthing.seller.conclude import abandon, delivered, not_begun, undelivered
from farthing.seller.payment import Payment
from farthing.seller.request import Request
from farthing.seller.routes import Barred, Free, Preflight, Priced
from farthing.seller.ticket import Conclusion, Deliver, Refuse, Release, Serve, Verdict
from farthing.servers import preflight
from farthing.servers.asgi_wire import (
    Message,
    RawHeaders,
    Receive,
    Replayed,
    Scope,
    Send,
    decoded,
    encoded,
    paid_head,
    read_body,
    send_answer,
)
from farthing.servers.credit import (
    HeldHead,
    admit_on_credit,
    commitment_in,
    given_back,
    payment_of,
    raw_path_of,
    send_instead,
)
from farthing.servers.gates import Gate, Holding, Streaming
from farthing.servers.held import ResponseTooLarge, body_of, body_size
from farthing.servers.marks import Passed, current
from farthing.servers.seller import Seller
from farthing.servers.uncut import uncut
from farthing.servers.unpaid import Asked, UnpaidAnswers

T = TypeVar("T")

# Frameworks write the types of the three arguments in their own ways.
App: TypeAlias = Callable[..., Awaitable[None]]

# Where a handler finds its payment in the scope; no header can put anything there.
SCOPE_KEY: Final = "farthing.payment"
# Policy violation (RFC 6455, section 7.4.1); before the handshake it is a 403.
_WEBSOCKET_REFUSED: Final = 1008
# No Content and Reset Content have no length (RFC 9110, sections 8.6 and 15.3.6).
_WITHOUT_LENGTH: Final = frozenset({204, 205})
# Extensions by which a body could leave the application without being seen here (trailers, pathsend, zerocopysend …).
_BODY_EXTENSIONS: Final = "http.response."

log = logging.getLogger("farthing.seller")


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

    async def _judged(  # noqa: PLR0911 - one for each thing that a request can turn out to be
        self, scope: Scope, receive: Receive, send: Send, asked: Asked | None
    ) -> None:
        pairs = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]
        headers = dict(pairs)
        path, root_path = scope["path"], scope.get("root_path", "")
        query = scope.get("query_string", b"").decode("latin-1")
        method: str = scope["method"]
        match = self.seller.match(method, path, root_path, query, headers)
        if isinstance(match, Free):
            await self.app(scope, receive, send)
            return
        if isinstance(match, Barred):
            await send_answer(send, problem(match.status, "not-taken", match.title, match.detail))
            return
        if isinstance(match, Preflight):
            await self._preflight(match, scope, headers, receive, send)
            return
        wire, payments = presented(pairs)
        body = b""
        if payments and match.servable:
            read = await read_body(receive, headers, self.seller.request_body_max_bytes)
            if read is None:
                return  # the client has gone before it had said all
            if isinstance(read, Answer):
                await send_answer(send, read)
                return
            body = read
        request = self.seller.request(
            match, method=method, path=path, query=query, headers=headers, payments=payments, wire=wire, body=body
        )
        if isinstance(request, Answer):
            await send_answer(send, request, head=method == "HEAD")
            return
        replayed = Replayed(body, receive)
        edge = self.seller.edge
        promised = None if edge is None or not match.servable else commitment_in(request)
        if edge is None or promised is None:
            await self._paid(request, match, asked, scope, replayed, send)
            return
        on_credit = await uncut(
            admit_on_credit(self.seller, edge, request, promised, raw_path=raw_path_of(scope), pairs=pairs, body=body),
            self.seller.performer,
            given_back,
        )
        if isinstance(on_credit, Answer):
            await send_instead(self, on_credit, replayed, send)
        else:
            gate = HeldHead(self, edge.signer, on_credit, replayed, send)
            await self._work(gate, payment_of(on_credit), match, scope, replayed, send)

    async def _paid(  # noqa: PLR0917 - what a door hands on
        self, request: Request, match: Priced, asked: Asked | None, scope: Scope, receive: Replayed, send: Send
    ) -> None:
        """Have a request paid at once, or offer."""
        admitting = self.seller.admit(request, servable=match.servable)
        verdict = await uncut(admitting, self.seller.performer, _orphaned_verdict)
        if isinstance(verdict, Refuse):
            self._unpaid.keep(asked, match.route, verdict.answer)
            await send_answer(send, verdict.answer, head=request.method == "HEAD")
        elif isinstance(verdict, Deliver):
            await self._deliver(verdict, receive, send)
        else:
            await self._serve(verdict, match, scope, receive, send)

    async def _serve(self, verdict: Serve, match: Priced, scope: Scope, receive: Replayed, send: Send) -> None:
        """Run the work of a payment that was verified, or is settled."""
        gate: Holding | Streaming
        if verdict.settlement:
            if await receive.client_has_gone():
                await self.drive(not_begun(verdict.ticket))
                return
            gate = Streaming(self, verdict, receive, send)
        else:
            gate = Holding(self, verdict.ticket, receive, send)
        await self._work(gate, verdict.ticket.payment, match, scope, receive, send)

    async def _work(  # noqa: PLR0917 - what a door hands on
        self, gate: Gate, payment: Payment, match: Priced, scope: Scope, receive: Replayed, send: Send
    ) -> None:
        """Run the application behind `gate`, with the payment in its scope."""
        offered = cast("dict[str, Any]", scope.get("extensions") or {})
        extensions = {name: value for name, value in offered.items() if not name.startswith(_BODY_EXTENSIONS)}
        scope = {**scope, "extensions": extensions, SCOPE_KEY: payment}
        token = current.set(Passed(payment, match.route.mark))
        try:
            await self.app(scope, receive, gate)
        except ResponseTooLarge as error:
            await gate.fail()
            log.warning("%s: %s", match.route.name, error)
            detail = f"The answer is too large to be held until it is settled. Nothing was charged. {error}"
            await send_answer(send, problem(500, "response-too-large", "The answer is too large", detail))
        except BaseException:
            await gate.fail()
            raise
        else:
            await gate.fail()  # where the application returned without a whole answer
        finally:
            current.reset(token)

    async def _deliver(self, verdict: Deliver, receive: Replayed, send: Send) -> None:
        """Send a response from the record."""
        response, ticket = verdict.response, verdict.ticket
        if await receive.client_has_gone():
            await self.drive(undelivered(ticket))
            return
        await self.send_stored(tuple(encoded(response.headers)), verdict, send)
        await self.drive(delivered(ticket))

    async def send_stored(self, headers: RawHeaders, verdict: Deliver, send: Send) -> None:
        """Send a held or recorded body; `headers` are those that the handler gave."""
        response, ticket, folder = verdict.response, verdict.ticket, self.seller.store.spool_folder
        head = paid_head(
            headers,
            settlement=verdict.settlement,
            shared_cache=ticket.shared_cache,
            wire=ticket.wire,
            length=None if response.status in _WITHOUT_LENGTH else body_size(response, folder),
        )
        await send({"type": "http.response.start", "status": response.status, "headers": head})
        if response.spool:
            for chunk in body_of(response, folder):
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": response.body, "more_body": False})

    async def _preflight(
        self, match: Preflight, scope: Scope, headers: dict[str, str], receive: Receive, send: Send
    ) -> None:
        """Answer OPTIONS on a priced path; what the application says of CORS, it is asked elsewhere (`preflight`)."""
        if not preflight.is_preflight(headers):
            await send_answer(send, preflight.options_answer(match))
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
        said = decoded(start[0].get("headers", ())) if start else ()
        await send_answer(send, preflight.preflight_answer(status, said))

    async def drive(self, flow: Flow[T]) -> T:
        """Run a flow to its end; a request that is cancelled can't cut it (SAFETY S9)."""
        return await uncut(flow, self.seller.performer)

    async def conclude(self, flow: Flow[Conclusion]) -> Conclusion:
        """Settle, whether or not the client waits; who has gone gets the answer by asking again."""
        return await uncut(flow, self.seller.performer, _orphaned_conclusion)


def _orphaned_conclusion(answer: Conclusion) -> Flow[Any] | None:
    return undelivered(answer.ticket) if isinstance(answer, Release) else None


def _orphaned_verdict(verdict: Verdict) -> Flow[Any] | None:
    """Give a claim back whose request was cancelled before its work began."""
    if isinstance(verdict, Serve):
        return not_begun(verdict.ticket) if verdict.settlement else abandon(verdict.ticket)
    return undelivered(verdict.ticket) if isinstance(verdict, Deliver) else None


async def _refuse_websocket(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.close", "code": _WEBSOCKET_REFUSED, "reason": "payment required: use HTTP"})
