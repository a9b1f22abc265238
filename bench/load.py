"""Load: requests sent over keep-alive connections as fast as they are answered, from a core of our own.

The generator does little more than write prepared bytes and look for the end of an answer: a client that parsed what
it gets would be slower than the servers that are measured.
"""

from __future__ import annotations

import asyncio
import functools
import re
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Requests under way at once: enough that group commits find company, as they do at a busy seller's.
CONNECTIONS = 64
# A server that is silent for this long has lost a request.
TIMEOUT_SECONDS = 60.0

_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_END = b"\r\n\r\n"
_SHOWN_BYTES = 600


class UnexpectedAnswer(Exception):
    """The server did other work than the one that is measured."""


class _Connection(asyncio.Protocol):
    """One keep-alive connection: the next request leaves when the last answer is whole."""

    def __init__(self, requests: Iterator[bytes], status: int, done: asyncio.Future[None]) -> None:
        self._requests, self._status, self._done = requests, status, done
        self._answer = b""
        self._length = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def start(self) -> None:
        """Send the first request."""
        self._next()

    def data_received(self, data: bytes) -> None:
        answer = self._answer = self._answer + data if self._answer else data
        if self._length < 0:
            end = answer.find(_END)
            if end < 0:
                return
            head = answer[: end + 2]
            status, length = _STATUS.match(head), _LENGTH.search(head)
            if status is None or int(status[1]) != self._status or length is None:
                self._fail(UnexpectedAnswer(answer[:_SHOWN_BYTES].decode("latin-1")))
                return
            self._length = end + len(_END) + int(length[1])
        if len(answer) >= self._length:
            self._answer, self._length = b"", -1
            self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(UnexpectedAnswer(f"the server closed the connection: {exc}"))

    def close(self) -> None:
        """Close it."""
        self._transport.close()

    def _next(self) -> None:
        request = next(self._requests, None)
        if request is not None:
            self._transport.write(request)
        elif not self._done.done():
            self._done.set_result(None)

    def _fail(self, error: Exception) -> None:
        if not self._done.done():
            self._done.set_exception(error)


def send_all(port: int, requests: Sequence[bytes], *, status: int, connections: int = CONNECTIONS) -> float:
    """Send every request to 127.0.0.1:`port` and give the seconds that it took; each answer must have `status`."""
    import uvloop  # noqa: PLC0415 - only who sends needs it

    return uvloop.run(_send_all(port, requests, status, connections))


async def _send_all(port: int, requests: Sequence[bytes], status: int, connections: int) -> float:
    loop = asyncio.get_running_loop()
    waiting = iter(requests)
    opened: list[_Connection] = []
    over: list[asyncio.Future[None]] = []
    for _ in range(min(connections, len(requests))):
        done: asyncio.Future[None] = loop.create_future()
        connection = _Connection(waiting, status, done)
        await loop.create_connection(functools.partial(_same, connection), "127.0.0.1", port)
        opened.append(connection)
        over.append(done)
    before = time.perf_counter()
    for connection in opened:
        connection.start()
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await asyncio.gather(*over)
        return time.perf_counter() - before
    finally:
        for connection in opened:
            connection.close()


def _same(connection: _Connection) -> _Connection:
    return connection


def request_bytes(path: str, payment: str = "") -> bytes:
    """Write a GET as a program sends it; `payment` is the value of PAYMENT-SIGNATURE."""
    head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/json\r\nUser-Agent: bench\r\n"
    return (head + (f"PAYMENT-SIGNATURE: {payment}\r\n" if payment else "") + "\r\n").encode("ascii")


def post_bytes(path: str, body: bytes) -> bytes:
    """Write a POST of JSON."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode("ascii") + body
