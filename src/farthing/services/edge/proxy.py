"""Passes requests on to the site behind, and its answers back: streamed both ways, without what belongs to one hop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from farthing.protocol.versions import REQUEST_HEADERS
from farthing.servers.asgi_wire import Message, Receive, Scope, Send

# Connections to the site behind, over all requests.
CONNECTIONS_MAX: Final = 512
CONNECT_TIMEOUT_SECONDS: Final = 5.0
_CHUNK_BYTES: Final = 65_536
# RFC 9110, section 7.6.1, and those that HTTP/1.1 writes anew for each hop.
_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
# What a site behind believes of its gate alone.
_OURS: Final = frozenset({"forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"})
_PAYMENT: Final = frozenset(each.lower() for each in REQUEST_HEADERS)


class Proxy:
    """An ASGI application: whatever the site behind answers. Opened and closed by the server's lifespan."""

    def __init__(self, url: str, *, public: str, timeout_seconds: float) -> None:
        """Pass on to `url`; `public` is the site's public base, of which the site behind is told scheme and host."""
        self._url = url.rstrip("/")
        self._public = URL(public)
        self._timeout_seconds = timeout_seconds
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008, "reason": "not passed on"})
            return
        target = f"{self._url}{(scope.get('raw_path') or b'/').decode('latin-1')}"
        query = scope.get("query_string", b"").decode("latin-1")
        url = URL(f"{target}?{query}" if query else target, encoded=True)
        try:
            async with self._client().request(
                scope["method"],
                url,
                headers=self._headers(scope),
                data=_body(receive) if _has_body(scope) else None,
                allow_redirects=False,
            ) as response:
                await self._answer(response, send)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            await _trouble(send, 502, b"The site behind this gate can't be reached.\n")
        except TimeoutError:
            await _trouble(send, 504, b"The site behind this gate takes too long.\n")

    async def aclose(self) -> None:
        """Close the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=CONNECT_TIMEOUT_SECONDS, sock_read=self._timeout_seconds
                ),
                trust_env=False,
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            )
        return self._session

    def _headers(self, scope: Scope) -> CIMultiDict[str]:
        headers: CIMultiDict[str] = CIMultiDict()
        pairs = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]
        dropped = _HOP | _OURS | _PAYMENT | {"host", "content-length"} | _named(pairs)
        for name, value in pairs:
            if name not in dropped:
                headers.add(name, value)
        length = dict(pairs).get("content-length")
        if length is not None and _has_body(scope):
            headers["Content-Length"] = length
        client = scope.get("client")
        headers["X-Forwarded-Proto"] = self._public.scheme
        headers["X-Forwarded-Host"] = self._public.authority
        if client:
            headers["X-Forwarded-For"] = str(client[0])
        return headers

    async def _answer(self, response: aiohttp.ClientResponse, send: Send) -> None:
        pairs = [(name.lower().decode("latin-1"), value.decode("latin-1")) for name, value in response.raw_headers]
        dropped = _HOP | _named(pairs)
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs if name not in dropped]
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        held: bytes | None = None
        # One piece behind, so that a short answer goes on as one whole body.
        async for piece in response.content.iter_chunked(_CHUNK_BYTES):
            if held is not None:
                await send({"type": "http.response.body", "body": held, "more_body": True})
            held = piece
        await send({"type": "http.response.body", "body": held or b"", "more_body": False})


def _named(pairs: list[tuple[str, str]]) -> frozenset[str]:
    """The headers that `Connection` names: they belong to this hop."""
    return frozenset(each.strip().lower() for name, value in pairs if name == "connection" for each in value.split(","))


def _has_body(scope: Scope) -> bool:
    return any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])


async def _body(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message: Message = await receive()
        if message["type"] != "http.request":
            return
        yield message.get("body", b"")
        if not message.get("more_body", False):
            return


async def _trouble(send: Send, status: int, text: bytes) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text, "more_body": False})
