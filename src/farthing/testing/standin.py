"""The socket of a stand-in: hands each request to whoever misbehaves, and can send, cut, drip, hold or forward.

It stands before a real server (`upstream`), since only a real one really settles. HTTP/1.1, one thread a connection, on
loopback only.
"""

from __future__ import annotations

import contextlib
import http.client
import select
import socket
import threading
import time
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, ClassVar, Final, Self
from urllib.parse import urlsplit

import msgspec

from farthing.errors import ConfigError

_HOST: Final = "127.0.0.1"
# A seller's settlement waits for blocks, so the one who forwards it waits longer than any client does.
UPSTREAM_TIMEOUT_SECONDS: Final = 90.0
# What is held is held until the client goes away or the stand-in ends; a client that waits for ever is let go.
HOLD_MAX_SECONDS: Final = 120.0
# How often somebody who holds looks whether the client is still there.
_LOOK_SECONDS: Final = 0.02
# Of a request's body; payments travel in headers.
BODY_MAX_BYTES: Final = 4 * 1024 * 1024
# Requests seen are kept for the test to look at; a load of millions belongs elsewhere.
SEEN_MAX: Final = 100_000
_HOP_BY_HOP: Final = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "host", "content-length", "date",
     "server", "proxy-connection"}
)  # fmt: skip
_BACKLOG: Final = 256

Headers = tuple[tuple[str, str], ...]


class Answer(msgspec.Struct, frozen=True):
    """An HTTP answer: status, headers without those of the connection, and the whole body."""

    status: int
    headers: Headers = ()
    body: bytes = b""

    def header(self, name: str) -> str:
        """A header's value; empty where there is none."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), "")

    def with_header(self, name: str, value: str | None) -> Answer:
        """A copy with this header in the place of those of its name; None takes them out."""
        kept = tuple((key, old) for key, old in self.headers if key.lower() != name.lower())
        return Answer(self.status, kept if value is None else (*kept, (name, value)), self.body)


class Seen(msgspec.Struct, frozen=True):
    """One request as the stand-in saw it; `mode` is the name of the mode that it met, empty where it was let pass."""

    method: str
    path: str
    headers: Headers
    body: bytes
    mode: str = ""

    def header(self, name: str) -> str:
        """A header's value; empty where there is none."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), "")


class Exchange:
    """One request, and all that may be done to it."""

    def __init__(self, handler: _Handler, request: Seen) -> None:
        self._handler = handler
        self.request = request

    def forward(self, *, without: Iterable[str] = ()) -> Answer:
        """Send the request to the real server and give its answer, whole; `without` names headers to leave out.

        Raises `OSError` and `http.client.HTTPException` where that one does not answer.
        """
        return self._handler.stand_in.ask_upstream(self.request, frozenset(name.lower() for name in without))

    def send(self, answer: Answer) -> None:
        """Send an answer as a server does."""
        self._handler.wfile.write(_head(answer) + (b"" if self.request.method == "HEAD" else answer.body))

    def send_part(self, answer: Answer, *, body_bytes: int) -> None:
        """Send the head, which promises the whole body, and that much of it; then cut."""
        self._handler.wfile.write(_head(answer) + answer.body[:body_bytes])
        self.cut()

    def send_part_of_head(self, answer: Answer) -> None:
        """Send the first half of the head, then cut."""
        head = _head(answer)
        self._handler.wfile.write(head[: len(head) // 2])
        self.cut()

    def drip(self, answer: Answer, *, pause_seconds: float) -> None:
        """Send an answer byte by byte, with a pause after each."""
        for byte in _head(answer) + answer.body:
            self._handler.wfile.write(bytes([byte]))
            if self._handler.stand_in.ending.wait(pause_seconds):
                self.cut()
                return

    def cut(self) -> None:
        """End the connection here and now."""
        self._handler.close_connection = True
        with contextlib.suppress(OSError):
            self._handler.connection.shutdown(socket.SHUT_RDWR)

    def hold(self) -> None:
        """Say nothing until the client goes away, the stand-in ends or two minutes have passed; then cut."""
        deadline = time.monotonic() + HOLD_MAX_SECONDS
        connection = self._handler.connection
        while time.monotonic() < deadline and not self._handler.stand_in.ending.is_set():
            readable, _, _ = select.select([connection], [], [], _LOOK_SECONDS)
            if readable:
                break  # the client hung up: on this connection it has nothing else to say
        self.cut()


class StandIn:
    """Listens on a free port of loopback, and gives each request to `answer`. A context manager."""

    def __init__(self, upstream_url: str, answer: Callable[[Exchange], object]) -> None:
        """Stand before the server at `upstream_url`. Raises `ConfigError` for what is no http URL."""
        self._upstream = urlsplit(upstream_url)
        if self._upstream.scheme != "http" or self._upstream.hostname is None:
            message = f"A stand-in stands before a server on http://host:port, not {upstream_url!r}."
            raise ConfigError(message)
        self._answer = answer
        self._lock = threading.Lock()
        self._seen: list[Seen] = []
        self.ending = threading.Event()
        self._server = _Server((_HOST, 0), type("_BoundHandler", (_Handler,), {"stand_in": self}))
        self.url = f"http://{_HOST}:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_LOOK_SECONDS,), name="stand-in", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.ending.set()
        self._server.shutdown()
        self._server.server_close()

    def seen(self) -> tuple[Seen, ...]:
        """The requests so far, in their order, up to 100,000."""
        with self._lock:
            return tuple(self._seen)

    def note(self, request: Seen) -> None:
        """Keep a request for `seen`."""
        with self._lock:
            if len(self._seen) < SEEN_MAX:
                self._seen.append(request)

    def serve(self, handler: _Handler, request: Seen) -> None:
        """Answer one request."""
        exchange = Exchange(handler, request)
        try:
            self._answer(exchange)
        except (BrokenPipeError, ConnectionError):
            exchange.cut()  # the client went away, which is what some modes are there for

    def ask_upstream(self, request: Seen, without: frozenset[str]) -> Answer:
        """Forward one request on a connection of its own."""
        up = self._upstream
        connection = http.client.HTTPConnection(up.hostname or _HOST, up.port or 80, timeout=UPSTREAM_TIMEOUT_SECONDS)
        try:
            # Packed answers could not be truncated where their text should break.
            left_out = _HOP_BY_HOP | without | {"accept-encoding"}
            headers = {name: value for name, value in request.headers if name.lower() not in left_out}
            headers["Accept-Encoding"] = "identity"
            connection.request(request.method, up.path.rstrip("/") + request.path, request.body or None, headers)
            got = connection.getresponse()
            kept = tuple((name, value) for name, value in got.getheaders() if name.lower() not in _HOP_BY_HOP)
            return Answer(got.status, kept, got.read())
        finally:
            connection.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = _BACKLOG
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Answers go out in one write; without this the second of two small ones waits for the first one's receipt.
    disable_nagle_algorithm = True
    stand_in: ClassVar[StandIn]

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Keep quiet."""

    def _serve(self) -> None:
        body = self._body()
        self.stand_in.serve(self, Seen(self.command, self.path, tuple(self.headers.items()), body))

    def _body(self) -> bytes:
        if "chunked" in (self.headers.get("Transfer-Encoding") or "").lower():
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(min(size, BODY_MAX_BYTES))
                self.rfile.readline()
            self.rfile.readline()
            return body
        return self.rfile.read(min(int(self.headers.get("Content-Length") or 0), BODY_MAX_BYTES))

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _serve  # noqa: N815 - the base class's


def _head(answer: Answer) -> bytes:
    reason = http.client.responses.get(answer.status, "Whatever")
    lines = [f"HTTP/1.1 {answer.status} {reason}"]
    lines += [f"{name}: {value}" for name, value in answer.headers]
    lines += [f"Content-Length: {len(answer.body)}", "", ""]
    return "\r\n".join(lines).encode("latin-1")
