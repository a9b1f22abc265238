"""The WSGI door: prices on the routes of any WSGI application (Flask, Django, Bottle …), by the synchronous driver.

    app.wsgi_app = PaidWSGI(app.wsgi_app, seller, routes_of=app)     # Flask
    application = PaidWSGI(application, seller)                      # any other

PEP 3333: iterables are closed, `write()` works, `start_response` may be called again with `exc_info` until something
was sent. On a priced route the answer is held until its payment is settled, or passes as it comes where the route
settles before the work.
"""

from __future__ import annotations

import asyncio
import io
import logging
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from http import HTTPStatus
from typing import Final, TypeVar
from urllib.parse import quote
from wsgiref.util import FileWrapper

from farthing.errors import StoreError
from farthing.flow import Flow, drive
from farthing.protocol.versions import RESPONSE_HEADERS, presented_joined
from farthing.seller.answers import Answer, problem
from farthing.seller.conclude import abandon, conclude, delivered, finish, succeeded, undelivered
from farthing.seller.credit import CreditVerdict, OnCredit, conclude_commitment, give_back, sent
from farthing.seller.headers import HeaderList, paid_headers
from farthing.seller.repeats import Repeated, repeated
from farthing.seller.routes import Barred, Free, Preflight, Priced
from farthing.seller.ticket import Deliver, Refuse, Serve, Ticket
from farthing.servers import preflight
from farthing.servers.credit import admit_on_credit, commitment_in, credit_headers, payment_of
from farthing.servers.edge import Edge
from farthing.servers.held import HeldBody, ResponseTooLarge, body_of, body_size
from farthing.servers.keeping import KeptRun
from farthing.servers.marks import Passed, current
from farthing.servers.seller import Seller
from farthing.servers.wsgi_held import App, Environ, ExcInfo, Held, Sending, StartResponse, Unread
from farthing.world.loop import background_loop

T = TypeVar("T")

# Where a handler finds its payment in the environ; a header's name begins with HTTP_, so that none can put it there.
ENVIRON_KEY: Final = "farthing.payment"

log = logging.getLogger("farthing.seller")


class PaidWSGI:
    """The door around a WSGI application."""

    def __init__(self, app: App, seller: Seller, *, routes_of: object | None = None) -> None:
        """Stand around `app`. `routes_of` is the Flask application whose marked handlers are to be found.

        It is found by itself where `app` is a Flask application or its `wsgi_app`.
        """
        self.app = app
        self.seller = seller
        self._is_free = seller.routes.is_free
        self._routes_of = routes_of or getattr(app, "__self__", app)
        self._learnt = False

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Let a request pass, or have it paid."""
        if not self._learnt:
            # Other threads learn too until one has: none lets a request pass before the routes are known.
            self.seller.learn(self._routes_of)
            self._learnt = True
        path = _decoded(environ.get("PATH_INFO", ""))
        root_path = environ.get("SCRIPT_NAME", "")
        # A priced path is seen both as the application sees it and with the prefix under which it is mounted.
        whole = _decoded(root_path) + path if root_path else path
        if self._is_free(whole, root_path and _decoded(root_path)):
            return self.app(environ, start_response)
        return self._priced(environ, start_response, whole, _decoded(root_path))

    def _priced(  # noqa: C901, PLR0911 - one for each thing that a request can turn out to be
        self, environ: Environ, start_response: StartResponse, path: str, root_path: str
    ) -> Iterable[bytes]:
        headers = dict(_request_headers(environ))
        query = environ.get("QUERY_STRING", "")
        method: str = environ["REQUEST_METHOD"]
        head = method.upper() == "HEAD"
        match = self.seller.match(method, path, root_path, query, headers)
        if isinstance(match, Free):
            return self.app(environ, start_response)
        if isinstance(match, Barred):
            return _send(start_response, problem(match.status, "not-taken", match.title, match.detail), head=head)
        if isinstance(match, Preflight):
            return _send(start_response, self._preflight(match, environ, headers))
        wire, payments = presented_joined(headers)
        body = b""
        if payments and match.servable:
            read = _read_body(environ, self.seller.request_body_max_bytes)
            if isinstance(read, Answer):
                return _send(start_response, read)
            body = read
        request = self.seller.request(
            match, method=method, path=path, query=query, headers=headers, payments=payments, wire=wire, body=body
        )
        if isinstance(request, Answer):
            return _send(start_response, request, head=head)
        edge = self.seller.edge
        promised = None if edge is None or not match.servable else commitment_in(request)
        if edge is not None and promised is not None:
            admitting = admit_on_credit(
                self.seller, edge, request, promised, raw_path=_raw_path(environ), pairs=headers.items(), body=body
            )
            return self._on_credit(self.drive(admitting), edge, match, _given(environ, body), start_response)
        verdict = self.drive(self.seller.admit(request, servable=match.servable))
        if isinstance(verdict, Refuse):
            return _send(start_response, verdict.answer, head=head)
        if isinstance(verdict, Deliver):
            return self._deliver(verdict, start_response)
        environ = {**_given(environ, body), ENVIRON_KEY: verdict.ticket.payment}
        if verdict.settlement:
            return self._stream(verdict, match, environ, start_response)
        return self._hold(verdict.ticket, match, environ, start_response)

    def _hold(self, ticket: Ticket, match: Priced, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Run the work whole, settle, and send its answer."""
        folder = self.seller.store.spool_folder
        body = HeldBody(folder, f"{ticket.payment_id}-{ticket.epoch}")
        held = Held(body)
        token = current.set(Passed(ticket.payment, match.route.mark))
        try:
            held.run(self.app, environ)
        except ResponseTooLarge as error:
            body.discard()
            self.drive(abandon(ticket))
            log.warning("%s: %s", match.route.name, error)
            detail = f"The answer is too large to be held until it is settled. Nothing was charged. {error}"
            return _send(start_response, problem(500, "response-too-large", "The answer is too large", detail))
        except BaseException:
            body.discard()
            self.drive(abandon(ticket))
            raise
        finally:
            current.reset(token)
        if not succeeded(held.status):
            self.drive(abandon(ticket))
            response = body.store(held.status, held.headers, durable=False)
            kept = [each for each in held.headers if each[0].lower() not in RESPONSE_HEADERS]
            start_response(held.status_line, kept)
            return Sending(body_of(response, folder), body.discard)
        response = body.store(held.status, held.headers, durable=ticket.stores_response)
        conclusion = self.drive(conclude(ticket, response))
        if isinstance(conclusion, Refuse):
            if not ticket.stores_response:
                body.discard()
            return _send(start_response, conclusion.answer)
        deliver = Deliver(conclusion.ticket, response, conclusion.settlement)
        return self._deliver(deliver, start_response, held.status_line)

    def _on_credit(
        self, admitted: CreditVerdict, edge: Edge, match: Priced, environ: Environ, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Run the work of a commitment whole, put it on record, and send its answer."""
        if isinstance(admitted, Answer):
            pieces = _send(start_response, admitted)
            again = admitted if isinstance(admitted, Repeated) else None
            return pieces if again is None else Sending(iter(pieces), lambda: self.drive(repeated(again)), lambda: None)
        payment = payment_of(admitted)
        body = HeldBody(self.seller.store.spool_folder, f"credit-{secrets.token_hex(8)}")
        held = Held(body)
        token = current.set(Passed(payment, match.route.mark))
        try:
            held.run(self.app, {**environ, ENVIRON_KEY: payment})
            response = body.store(held.status, held.headers, durable=False)
            pieces = body_of(response, self.seller.store.spool_folder)
        except BaseException:
            body.discard()
            self.drive(give_back(admitted))
            raise
        finally:
            current.reset(token)
        if not succeeded(held.status):
            self.drive(give_back(admitted))
            kept = [each for each in held.headers if each[0].lower() not in RESPONSE_HEADERS]
            start_response(held.status_line, kept)
            return Sending(pieces, body.discard)
        whole = None if body.spooled else response.body

        def head(concluded: OnCredit) -> HeaderList:
            return credit_headers(held.headers, admitted, concluded)

        conclusion = self.drive(
            conclude_commitment(admitted, status=held.status, body=whole, signer=edge.signer, head=head)
        )
        if isinstance(conclusion, Answer):
            body.discard()
            return _send(start_response, conclusion)
        start_response(held.status_line, list(head(conclusion)))

        def out() -> None:
            self.drive(sent(admitted))
            body.discard()

        return Sending(pieces, out, body.discard)

    def _deliver(self, verdict: Deliver, start_response: StartResponse, status_line: str = "") -> Iterable[bytes]:
        """Send a held or recorded response."""
        response, ticket, folder = verdict.response, verdict.ticket, self.seller.store.spool_folder
        headers = list(
            paid_headers(
                response.headers, settlement=verdict.settlement, shared_cache=ticket.shared_cache, wire=ticket.wire
            )
        )
        if not any(name.lower() == "content-length" for name, _ in headers) and response.status not in (204, 205):
            headers.append(("Content-Length", str(body_size(response, folder))))
        start_response(status_line or _status_line(response.status), headers)

        def sent() -> None:
            self.drive(delivered(ticket))
            if response.spool and not ticket.stores_response:
                (folder / response.spool).unlink(missing_ok=True)

        def cut() -> None:
            if ticket.stores_response:
                self.drive(undelivered(ticket))

        return Sending(body_of(response, folder), sent, cut)

    def _stream(
        self, verdict: Serve, match: Priced, environ: Environ, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Run the work of a settled payment; its answer passes as it comes."""
        run = _Run(self, verdict, start_response)
        token = current.set(Passed(verdict.ticket.payment, match.route.mark))
        try:
            iterable = self.app(environ, run.start_response)
        except BaseException:
            run.end(complete=False)
            raise
        finally:
            current.reset(token)
        return _Streamed(iterable, run, Passed(verdict.ticket.payment, match.route.mark))

    def _preflight(self, match: Preflight, environ: Environ, headers: dict[str, str]) -> Answer:
        if not preflight.is_preflight(headers):
            return preflight.options_answer(match)
        path = preflight.probe_path(environ.get("PATH_INFO", ""))
        root_path = _decoded(environ.get("SCRIPT_NAME", ""))
        if not self._is_free(root_path + _decoded(path), root_path):
            return preflight.preflight_answer(0, ())
        asked: Environ = {**environ, "PATH_INFO": path, "QUERY_STRING": "", "wsgi.input": io.BytesIO(b"")}
        asked.pop("HTTP_ACCESS_CONTROL_REQUEST_HEADERS", None)
        name = "access-control-request-headers"
        for _, value in preflight.probe_headers([(name, headers[name])] if name in headers else ()):
            asked["HTTP_ACCESS_CONTROL_REQUEST_HEADERS"] = value
        held = Held(Unread())
        held.run(self.app, asked)
        return preflight.preflight_answer(held.status, held.headers)

    def drive(self, flow: Flow[T]) -> T:
        """Run a flow in this thread."""
        return drive(flow, self.seller.performer.blocking)


class _Run:
    """The head of a streamed answer, and the note of how its work ended."""

    def __init__(self, door: PaidWSGI, verdict: Serve, start_response: StartResponse) -> None:
        self._door, self._verdict, self._start_response = door, verdict, start_response
        self._run = KeptRun(verdict.ticket, door.seller.performer, door.seller.store.lanes)
        self._keeping = asyncio.run_coroutine_threadsafe(self._run.renew(), background_loop())
        self._status = 0
        self._over = False
        # A part of a good answer may have left.
        self._begun = False

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], object]:
        self._status = int(status[:3])
        self.check()
        ticket = self._run.ticket
        good = succeeded(self._status)
        if not good:
            self.end(complete=False)
        full = list(
            paid_headers(
                headers,
                settlement=self._verdict.settlement,
                shared_cache=ticket.shared_cache and good,
                wire=ticket.wire,
            )
        )
        if exc_info is not None:
            write = self._start_response(status, full, exc_info)
        else:
            write = self._start_response(status, full)

        def checked(piece: bytes) -> object:
            self.check()
            self.leaves(piece)
            return write(piece)

        return checked

    def check(self) -> None:
        """Raise `StoreError` where another process has the run: nothing more of this one goes out."""
        if self._over or self._run.is_sure():
            return
        if not asyncio.run_coroutine_threadsafe(self._run.is_ours(), background_loop()).result():
            message = f"the run of {self._run.ticket.payment_id} was taken over while this process was silent; it ends"
            raise StoreError(message)

    def leaves(self, piece: bytes) -> None:
        """Note that a piece is handed to the server."""
        self._begun = self._begun or (bool(piece) and succeeded(self._status))

    def end(self, *, complete: bool) -> None:
        self._keeping.cancel()
        if not self._over:
            self._over = True
            good = succeeded(self._status)
            self._door.drive(finish(self._run.ticket, complete=complete and good, begun=self._begun))


class _Streamed:
    """The iterable of a streamed answer: whole when it ran to its end."""

    def __init__(self, iterable: Iterable[bytes], run: _Run, passed: Passed) -> None:
        self._iterable, self._run, self._passed = iterable, run, passed
        self._iterator = iter(iterable)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        # A generator's code runs here, after the application has returned.
        token = current.set(self._passed)
        try:
            piece = next(self._iterator)
            self._run.check()
        except StopIteration:
            self._run.end(complete=True)
            raise
        except BaseException:
            self._run.end(complete=False)
            raise
        else:
            self._run.leaves(piece)
            return piece
        finally:
            current.reset(token)

    def close(self) -> None:
        try:
            close = getattr(self._iterable, "close", None)
            if close is not None:
                close()
        finally:
            self._run.end(complete=False)


def _given(environ: Environ, body: bytes) -> Environ:
    """Give the environ to the application, with the body that was read already."""
    # A server's own wrapper may send a file without its bytes being seen here.
    return {**environ, "wsgi.input": io.BytesIO(body), "wsgi.file_wrapper": FileWrapper}


def _raw_path(environ: Environ) -> str:
    """Give the path as it was sent, where the server tells; else as it is escaped usually (PEP 3333 has no more)."""
    target: str = environ.get("REQUEST_URI") or environ.get("RAW_URI") or ""
    if target.startswith("/"):
        return target.partition("?")[0]
    return quote(_decoded(environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")), safe="/:@!$&'()*+,;=-._~")


def _request_headers(environ: Environ) -> Iterator[tuple[str, str]]:
    for key, value in environ.items():
        if key.startswith("HTTP_"):
            yield key[5:].replace("_", "-").lower(), value


def _read_body(environ: Environ, limit_bytes: int) -> bytes | Answer:
    """Read the whole body, within the limit."""
    length = environ.get("CONTENT_LENGTH") or ""
    stream = environ["wsgi.input"]
    if length.isdecimal() and len(length) <= len(str(limit_bytes)):
        body = stream.read(min(int(length), limit_bytes + 1)) if int(length) else b""
    elif length:
        body = None
    elif environ.get("wsgi.input_terminated"):
        body = stream.read(limit_bytes + 1)
    else:
        body = b""
    if body is None or len(body) > limit_bytes:
        detail = f"A priced route takes a body of at most {limit_bytes} bytes; nothing was charged."
        return problem(413, "body-too-large", "The body is too large", detail)
    return bytes(body)


def _send(start_response: StartResponse, answer: Answer, *, head: bool = False) -> Iterable[bytes]:
    headers = list(answer.headers)
    if answer.status != HTTPStatus.NO_CONTENT:
        headers.append(("content-length", str(len(answer.body))))
    start_response(_status_line(answer.status), headers)
    return [] if head or not answer.body else [answer.body]


def _status_line(status: int) -> str:
    phrase = "Status"
    with suppress(ValueError):
        phrase = HTTPStatus(status).phrase
    return f"{status} {phrase}"


def _decoded(text: str) -> str:
    """Read a path of the environ, whose characters are bytes (PEP 3333), as UTF-8."""
    return text.encode("latin-1", "replace").decode("utf-8", "replace")
