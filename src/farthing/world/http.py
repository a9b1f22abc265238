"""Outgoing HTTP of the services and sellers: bounded in size, time and connections, without redirects or cookies.

What goes wrong is told in two kinds, since after one of them a payment may have moved:

```
HttpTrouble
├── RequestNotSent      no connection: not a byte of the request left this machine
└── NoAnswer            the request may have arrived, and no whole answer came back
```
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import weakref
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from farthing.errors import ConfigError, FarthingError
from farthing.world.urls import check_url, is_loopback, origin_of

__all__ = [
    "HttpAnswer",
    "HttpClient",
    "HttpTrouble",
    "NoAnswer",
    "RequestNotSent",
    "check_url",
    "is_loopback",
    "origin_of",
]

# A facilitator or a node on the other side of the world shakes hands in well under a second.
CONNECT_TIMEOUT_SECONDS = 5.0
# Connections at once, over all hosts: a process asks one facilitator and a few nodes; more wait for a free one.
CONNECTIONS_MAX = 100
# An idle connection is dropped before uvicorn's five seconds: one that the server closes while a request is under way
# leaves a settlement unknown for nothing.
KEEPALIVE_SECONDS = 3.0
# Of an answer's status line and of each of its headers; what we ask has no use for more.
HEADER_MAX_BYTES = 16_384

# RFC 9110, section 15.3.1.
_OK = 200
# RFC 9110, section 5.5: CR, LF and NUL end or break a field.
_UNSENDABLE = re.compile(r"[\r\n\0]")


class HttpTrouble(FarthingError):
    """A request without a whole answer. The message names host and cause, never the path, which may hold a key."""


class RequestNotSent(HttpTrouble):
    """No connection came about (refused, no such host, TLS, time): the request did not leave this machine."""


class NoAnswer(HttpTrouble):
    """The request may have arrived; what came back was late, cut, too large or not HTTP."""


class HttpAnswer(msgspec.Struct, frozen=True):
    """A whole answer. `headers` are found by name in any case."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def media_type(self) -> str:
        """The Content-Type without parameters, lower case; empty where there is none."""
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()


class HttpClient:
    """Sends requests over connections that are kept, one pool for each event loop that uses it.

    A pool is closed by `aclose()`, together with its loop, or when nobody has the client any more. Safe to share
    between loops and threads.
    """

    def __init__(self, *, resolver: Callable[[], AbstractResolver] | None = None) -> None:
        """Open nothing yet: a pool belongs to the loop that asks first. `resolver` makes what looks names up."""
        self._resolver = resolver
        self._pools: dict[asyncio.AbstractEventLoop, _Pool] = {}
        # Holds the sessions, too: collected together with the client, they would complain before they were closed.
        weakref.finalize(self, _close_all, self._pools).atexit = False

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        timeout_seconds: float,
        max_bytes: int,
        sink: Callable[[bytes], object] | None = None,
    ) -> HttpAnswer:
        """Send one request and read its whole answer, whatever its status; a redirect is an answer like others.

        With a `sink` the body of a 200 goes there, part by part, and the answer holds none: for what is too large to
        be held. It has come whole where no error is raised.

        Raises `RequestNotSent` or `NoAnswer` (also when the body is over `max_bytes`, or compressed unasked), and
        `ConfigError` for a header that can't be sent.
        """
        host = origin_of(url)
        sent = _checked(headers or {})
        timeout = aiohttp.ClientTimeout(
            total=timeout_seconds,
            # Half of a short time, so that a connection that hangs is told from an answer that is late.
            connect=min(timeout_seconds / 2, CONNECT_TIMEOUT_SECONDS),
            ceil_threshold=float("inf"),
        )
        try:
            session = await self._session()
            async with session.request(
                method,
                URL(url, encoded=True),
                data=body or None,
                headers=sent,
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                return await _read(response, host, max_bytes, sink)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise RequestNotSent(f"No connection to {host}: {_cause(error)}.") from None
        except TimeoutError:
            raise NoAnswer(f"No whole answer from {host} within {timeout_seconds:g} seconds.") from None
        except aiohttp.InvalidURL:
            raise ConfigError(f"The URL at {host} can't be read.") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise NoAnswer(f"No whole answer from {host}: {_cause(error)}.") from None

    async def aclose(self) -> None:
        """Close the connections of the running loop. A later request opens new ones."""
        pool = self._pools.get(asyncio.get_running_loop())
        if pool is not None:
            await pool.keeper.aclose()

    async def _session(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        pool = self._pools.get(loop)
        if pool is None:
            pool = self._pools[loop] = _Pool(self._resolver, self._pools)
            # A loop closes its asynchronous generators before it ends (`asyncio.run`, uvicorn), and so the session.
            await anext(pool.keeper)
        return pool.session


class _Pool:
    """A session and the generator that closes it."""

    def __init__(
        self, resolver: Callable[[], AbstractResolver] | None, pools: dict[asyncio.AbstractEventLoop, _Pool]
    ) -> None:
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=CONNECTIONS_MAX,
                keepalive_timeout=KEEPALIVE_SECONDS,
                resolver=None if resolver is None else resolver(),
                # What was judged a while ago may be another address now.
                use_dns_cache=resolver is None,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            max_line_size=HEADER_MAX_BYTES,
            max_field_size=HEADER_MAX_BYTES,
            trust_env=False,
        )
        self.keeper = _keep(self.session, pools)


async def _keep(
    session: aiohttp.ClientSession, pools: dict[asyncio.AbstractEventLoop, _Pool]
) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        pools.pop(asyncio.get_running_loop(), None)
        await session.close()


# Closings under way: a loop alone does not keep a task.
_closing: set[asyncio.Task[None]] = set()


def _close_all(pools: dict[asyncio.AbstractEventLoop, _Pool]) -> None:
    """Close what a client had that is gone, each pool on its own loop; a loop that ended has closed its own."""
    for loop, pool in list(pools.items()):
        with contextlib.suppress(RuntimeError):  # it was closed meanwhile
            loop.call_soon_threadsafe(_close_soon, loop, pool)


def _close_soon(loop: asyncio.AbstractEventLoop, pool: _Pool) -> None:
    task = loop.create_task(pool.keeper.aclose())
    _closing.add(task)
    task.add_done_callback(_closing.discard)


def _checked(headers: Mapping[str, str]) -> CIMultiDict[str]:
    for name, value in headers.items():
        if _UNSENDABLE.search(name) or _UNSENDABLE.search(value):
            raise ConfigError(f"The header {name[:40]!a} holds a line's end or another control character.")
    return CIMultiDict({"Accept-Encoding": "identity", **headers})


async def _read(
    response: aiohttp.ClientResponse, host: str, max_bytes: int, sink: Callable[[bytes], object] | None
) -> HttpAnswer:
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise NoAnswer(f"{host} sent a body in {encoding[:32]!r}, which was not asked for.")
    parts: list[bytes] = []
    take = parts.append if sink is None or response.status != _OK else sink
    size_bytes = 0
    async for part in response.content.iter_any():
        size_bytes += len(part)
        if size_bytes > max_bytes:
            response.close()
            raise NoAnswer(f"{host} sent a body of more than {max_bytes} bytes.")
        take(part)
    return HttpAnswer(response.status, response.headers, b"".join(parts))


def _cause(error: BaseException) -> str:
    """Name the trouble. aiohttp's own words may hold the whole URL, so only the system's are repeated."""
    system: Any = getattr(error, "os_error", error)
    words = getattr(system, "strerror", None)
    name = type(error).__name__
    return f"{name} ({words})" if isinstance(words, str) and "://" not in words else name
