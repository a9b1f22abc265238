"""The bodies of requests, read within a size, a time, and a room that the callers of one process share.

A place in the room is taken before a byte is read, by what the request announces, and given back when the request has
its answer: a body is in memory while its request waits for the store, and so is what was read out of it. Whoever finds
no place has lost nothing, and is told when to come again. Before a place is taken nothing is held of a body but what
the server reads ahead, 64 KiB a connection (uvicorn's `HIGH_WATER_LIMIT`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

import msgspec
from starlette.requests import ClientDisconnect, Request

# What a request holds beside its body: its task, its headers, its frames. Small ones are thereby bounded in number.
PLACE_MIN_BYTES: Final = 8 * 1024
# For whoever found no place: places are given back within some seconds.
RETRY_AFTER_SECONDS: Final = 2
# A length of more digits is not even read as a number.
_LENGTH_MAX_DIGITS: Final = 12


class RoomLimits(msgspec.Struct, frozen=True):
    """What requests of one process may hold at once, in all and for one caller, and how long one body may take."""

    bytes_max: int
    caller_bytes_max: int
    read_seconds: float


class BodyRefused(Exception):
    """A body that is not taken. `kind` is one of the problems that every service has, `detail` says it in words.

    `malformed-request` (cut off), `body-too-slow`, `body-too-large`; `rate-limited` where the caller's own share is
    used, `unavailable` where the room is full: the same request again, later.
    """

    def __init__(self, kind: str, detail: str) -> None:
        """Say of which kind, and in words."""
        super().__init__(detail)
        self.kind = kind
        self.detail = detail


class BodyRoom:
    """The room of one process. Everything happens on one event loop."""

    def __init__(self, limits: RoomLimits) -> None:
        """Begin empty."""
        self._limits = limits
        self._held_bytes = 0
        self._held_by: dict[str, int] = {}

    @property
    def held_bytes(self) -> int:
        """What is taken now."""
        return self._held_bytes

    @asynccontextmanager
    async def body(self, request: Request, caller: str, max_bytes: int) -> AsyncGenerator[bytes]:
        """Take a place, read the body, and hold both until the block is over. Raises `BodyRefused`."""
        size_bytes = announced_bytes(request, max_bytes)
        held = max(size_bytes, PLACE_MIN_BYTES)
        self._take(caller, held)
        try:
            yield await self._read(request, size_bytes)
        finally:
            self._give_back(caller, held)

    def _take(self, caller: str, held: int) -> None:
        limits, mine = self._limits, self._held_by.get(caller, 0)
        again = f"Nothing was read or done: send the same request again in {RETRY_AFTER_SECONDS} s."
        if mine + held > limits.caller_bytes_max:
            what = f"Your requests under way hold {mine} bytes; one caller's share is {limits.caller_bytes_max}"
            raise BodyRefused("rate-limited", f"{what}. {again}")
        if self._held_bytes + held > limits.bytes_max:
            what = f"The requests under way hold {self._held_bytes} of {limits.bytes_max} bytes"
            raise BodyRefused("unavailable", f"{what}. {again}")
        self._held_bytes += held
        self._held_by[caller] = mine + held

    def _give_back(self, caller: str, held: int) -> None:
        self._held_bytes -= held
        left = self._held_by.pop(caller) - held
        if left:
            self._held_by[caller] = left

    async def _read(self, request: Request, max_bytes: int) -> bytes:
        chunks: list[bytes] = []
        size_bytes = 0
        try:
            async with asyncio.timeout(self._limits.read_seconds):
                async for chunk in request.stream():
                    size_bytes += len(chunk)
                    if size_bytes > max_bytes:
                        raise _too_large(max_bytes)
                    chunks.append(chunk)
        except TimeoutError:
            detail = f"The body had not come within {self._limits.read_seconds:g} seconds."
            raise BodyRefused("body-too-slow", detail) from None
        except ClientDisconnect:
            raise BodyRefused("malformed-request", "The body was cut off.") from None
        return b"".join(chunks)


def announced_bytes(request: Request, max_bytes: int) -> int:
    """Give what a body has by its Content-Length, or could have where none is named. Raises `BodyRefused`."""
    named = request.headers.get("content-length", "")
    if not (named.isascii() and named.isdigit()):
        return max_bytes
    if len(named) > _LENGTH_MAX_DIGITS or int(named) > max_bytes:
        raise _too_large(max_bytes)
    return int(named)


def _too_large(max_bytes: int) -> BodyRefused:
    return BodyRefused("body-too-large", f"The body has over {max_bytes} bytes.")
