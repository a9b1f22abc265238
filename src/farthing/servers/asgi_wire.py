"""What the ASGI door reads and writes of a request: its body, its headers, whether its client is there still."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from functools import lru_cache
from typing import Any, Final, TypeAlias

from farthing.protocol.wire import Wire
from farthing.seller.answers import Answer, problem
from farthing.seller.headers import paid_headers

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
HeaderList: TypeAlias = tuple[tuple[str, str], ...]
RawHeaders: TypeAlias = tuple[tuple[bytes, bytes], ...]

# Heads of paid answers, which on most routes are the same but for the length: a hundred kilobytes or so.
HEADS_MAX: Final = 256
# The server whose requests say without being asked that their client has gone.
_TELLS: Final = "uvicorn."


class Replayed:
    """`receive` for the application: the body that was read already, then what the server says."""

    def __init__(self, body: bytes | None, receive: Receive) -> None:
        """Replay `body`, if there is one, before `receive`."""
        self._body = body
        self._receive = receive
        self._gone = False

    async def __call__(self) -> Message:
        """Give the next message."""
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
        if self._gone:
            return True
        owner = getattr(self._receive, "__self__", None)
        told = getattr(owner, "disconnected", None)
        if isinstance(told, bool) and type(owner).__module__.startswith(_TELLS):
            return told
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


async def read_body(receive: Receive, headers: dict[str, str], limit_bytes: int) -> bytes | Answer | None:
    """Read the whole body, within the limit; None where the client has gone."""
    announced = headers.get("content-length", "")
    if announced.isdecimal() and (len(announced) > len(str(limit_bytes)) or int(announced) > limit_bytes):
        return _too_large(limit_bytes)
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        body = bytes(message.get("body", b""))
        return _too_large(limit_bytes) if len(body) > limit_bytes else body
    pieces = bytearray()
    while message["type"] != "http.disconnect":
        pieces += message.get("body", b"")
        if len(pieces) > limit_bytes:
            return _too_large(limit_bytes)
        if not message.get("more_body", False):
            return bytes(pieces)
        message = await receive()
    return None


def _too_large(limit_bytes: int) -> Answer:
    detail = f"A priced route takes a body of at most {limit_bytes} bytes; nothing was charged."
    return problem(413, "body-too-large", "The body is too large", detail)


async def send_answer(send: Send, answer: Answer, *, head: bool = False) -> None:
    """Send an answer of the seller's own."""
    headers = answer.headers
    if answer.status != 204:  # noqa: PLR2004 - No Content has no length (RFC 9110, section 8.6)
        headers = (*headers, ("content-length", str(len(answer.body))))
    await send({"type": "http.response.start", "status": answer.status, "headers": encoded(headers)})
    await send({"type": "http.response.body", "body": b"" if head else answer.body, "more_body": False})


def encoded(headers: HeaderList) -> list[tuple[bytes, bytes]]:
    """Write headers as ASGI has them."""
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def decoded(headers: Iterable[tuple[bytes, bytes]]) -> HeaderList:
    """Read headers of ASGI."""
    return tuple([(bytes(name).decode("latin-1"), bytes(value).decode("latin-1")) for name, value in headers])


def paid_head(
    headers: RawHeaders, *, settlement: str, shared_cache: bool, wire: Wire, length: int | None
) -> list[tuple[bytes, bytes]]:
    """Write the head of a paid answer: `seller.headers.paid_headers`, remembered, and the length where none is said.

    `length` is None where the body is not known as a whole.
    """
    head, says_length = _head(headers, shared_cache)
    name, value = wire.settlement_header(settlement)
    made = [*head, (name.encode("latin-1"), value.encode("latin-1"))] if settlement else list(head)
    if length is not None and not says_length:
        made.append((b"content-length", b"%d" % length))
    return made


@lru_cache(maxsize=HEADS_MAX)
def _head(headers: RawHeaders, shared_cache: bool) -> tuple[RawHeaders, bool]:  # noqa: FBT001 - a key
    made = tuple(encoded(paid_headers(decoded(headers), settlement="", shared_cache=shared_cache)))
    return made, any(name in (b"content-length", b"transfer-encoding") for name, _ in made)


def raw(headers: Iterable[tuple[bytes, bytes]]) -> RawHeaders:
    """Hold the headers that an application gives, whatever it gives them in."""
    return tuple([(bytes(name), bytes(value)) for name, value in headers])
