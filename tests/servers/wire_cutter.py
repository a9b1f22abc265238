"""A wire that is cut on cue: a proxy of HTTP/1.1 that ends a connection before, in or after a message, either way."""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections import deque
from typing import NamedTuple, Self
from urllib.parse import urlsplit

# A head longer than this is nobody's here.
HEAD_MAX_BYTES = 65_536


class Cut(enum.StrEnum):
    """Where the wire is cut: the request is what goes to the server, the answer what comes from it."""

    BEFORE_REQUEST = "before the request"
    IN_REQUEST = "in the request"
    AFTER_REQUEST = "after the request"
    BEFORE_ANSWER = "before the answer"
    IN_ANSWER = "in the answer"
    AFTER_ANSWER = "after the answer"


class Rule(NamedTuple):
    """Cut the next exchange whose request line has `words` in it; None lets it pass."""

    words: str
    cut: Cut | None


class Cutter:
    """Stands before the server at `url`. `rules` are taken in their order, each once; without any it lets all pass."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self.rules: deque[Rule] = deque()
        self.done: list[Rule] = []
        self.url = ""
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=HEAD_MAX_BYTES)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there: asyncio.StreamWriter | None = None
        with contextlib.suppress(OSError, EOFError):
            answers, there = await asyncio.open_connection(self._host, self._port, limit=HEAD_MAX_BYTES)
            while await self._exchange(reader, writer, answers, there):
                continue
        for each in (writer, there):
            if each is not None:
                each.transport.abort()

    async def _exchange(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        answers: asyncio.StreamReader,
        there: asyncio.StreamWriter,
    ) -> bool:
        """Carry one request and its answer; False where the wire was cut."""
        request = await _message(reader)
        cut = self._cut_of(request)
        if cut is Cut.BEFORE_REQUEST:
            return False
        there.write(request[: len(request) // 2] if cut is Cut.IN_REQUEST else request)
        await there.drain()
        if cut in {Cut.IN_REQUEST, Cut.AFTER_REQUEST}:
            # What was sent is there before the end of the connection is.
            await asyncio.sleep(0.05)
            return False
        answer = await _message(answers)
        if cut is Cut.BEFORE_ANSWER:
            return False
        writer.write(answer[: len(answer) // 2] if cut is Cut.IN_ANSWER else answer)
        await writer.drain()
        if cut in {Cut.IN_ANSWER, Cut.AFTER_ANSWER}:
            writer.close()
            return False
        return True

    def _cut_of(self, request: bytes) -> Cut | None:
        line = request.partition(b"\r\n")[0].decode("latin-1")
        if self.rules and self.rules[0].words in line:
            rule = self.rules.popleft()
            self.done.append(rule)
            return rule.cut
        return None


async def _message(reader: asyncio.StreamReader) -> bytes:
    """Read one whole message: head, and a body by its length or in chunks."""
    head = await reader.readuntil(b"\r\n\r\n")
    headers = {
        name.strip().lower(): value.strip().lower()
        for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
    }
    if headers.get(b"transfer-encoding") == b"chunked":
        body = b""
        while True:
            size = await reader.readuntil(b"\r\n")
            chunk = await reader.readexactly(int(size, 16) + 2)
            body += size + chunk
            if int(size, 16) == 0:
                return head + body
    return head + await reader.readexactly(int(headers.get(b"content-length", b"0")))
