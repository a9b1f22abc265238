"""One request as a server hands it to an application, whose body comes when the test lets it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

DEADLINE_SECONDS = 10


class RawRequest:
    """A request that is under way from when it is made: needs a running loop."""

    def __init__(
        self, app: Any, path: str, *, token: str = "", content: bytes = b"", length: int | None = None
    ) -> None:
        """Announce `length` bytes (None: not at all), whatever `content` has."""
        self.reading = asyncio.Event()
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self._content = content
        self._may_come = asyncio.Event()
        self._gone = False
        given = {"authorization": f"Bearer {token}"} if token else {}
        given |= {} if length is None else {"content-length": str(length)}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }
        self._task: asyncio.Task[None] = asyncio.create_task(app(scope, self._receive, self._send))

    @property
    def was_read(self) -> bool:
        """Whether the application has asked for the body."""
        return self.reading.is_set()

    @property
    def problem(self) -> dict[str, Any]:
        """The problem details of the answer."""
        assert self.headers["content-type"] == "application/problem+json", self.body
        found: dict[str, Any] = json.loads(self.body)
        return found

    async def until_read(self) -> RawRequest:
        """Wait until the application asks for the body."""
        reading = asyncio.create_task(self.reading.wait())
        await asyncio.wait([reading, self._task], return_when=asyncio.FIRST_COMPLETED)
        reading.cancel()
        assert self.was_read, (self.status, self.body)
        return self

    async def answered(self, *, gone: bool = False) -> RawRequest:
        """Let the body come, or the caller go away, and wait for the answer."""
        self._gone = gone
        self._may_come.set()
        return await self.refused()

    async def refused(self) -> RawRequest:
        """Wait for the answer to a request whose body does not come."""
        # Whoever waits for a body that does not come fails here, and does not hang.
        await asyncio.wait_for(self._task, DEADLINE_SECONDS)
        return self

    async def _receive(self) -> dict[str, Any]:
        self.reading.set()
        await self._may_come.wait()
        if self._gone:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": self._content, "more_body": False}

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            self.body += message.get("body", b"")
