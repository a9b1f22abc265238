"""A server that misbehaves on purpose, at the level of bytes."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Self

import pytest

HANG = b"<hang>"


class RawServer:
    """Answers the nth request with the nth of `answers` (the last one again and again), then closes the connection.

    An answer is bytes, sent as they are; b"" cuts the connection; `HANG` says nothing until the server ends.
    A tuple is sent whole by whole, with the connection cut after it.
    """

    HANG = HANG

    def __init__(self, *answers: bytes) -> None:
        self.answers = answers
        self.requests: list[bytes] = []
        self.bodies: list[bytes] = []
        self.url = ""
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            head = await reader.readuntil(b"\r\n\r\n")
            lengths = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
            body = await reader.readexactly(int(lengths[0].split(b":")[1])) if lengths else b""
            self.requests.append(head)
            self.bodies.append(body)
            answer = self.answers[min(len(self.requests), len(self.answers)) - 1]
            if answer == HANG:
                await asyncio.Event().wait()
            writer.write(answer)
            await writer.drain()
        writer.close()

    @staticmethod
    def answer(status: int, body: bytes, *headers: str, length: int | None = None) -> bytes:
        """Write an answer down, by default with the right length."""
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body) if length is None else length}", *headers]
        return "\r\n".join([*lines, "", ""]).encode() + body


@pytest.fixture
def raw_server() -> type[RawServer]:
    return RawServer
