"""Every door under one name: send a request with a buyer, get the answer, whatever library and manner."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

import httpx
import httpx2
import requests

from farthing.clients import Buyer, Receipt
from farthing.clients.httpx import PayingTransport, receipt_of
from farthing.clients.requests import paying_session
from farthing.clients.requests import receipt_of as requests_receipt_of

# Shops speak plain HTTP, and reading the system's certificates takes 0.1 s.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

# (buyer, method, url, body, follow redirects, time-out in seconds) → the answer, read to its end.
Fetch = Callable[..., Any]


def through_httpx(library: Any) -> Fetch:
    def fetch(
        buyer: Buyer, method: str, url: str, *, body: Any = None, follow: bool = False, timeout: float = 20, **more: Any
    ) -> Any:
        transport = PayingTransport(buyer, inner=library.HTTPTransport(verify=NO_TLS))
        with library.Client(transport=transport, follow_redirects=follow, timeout=timeout) as client:
            return client.request(method, url, content=body, **more)

    return fetch


def through_httpx_async(library: Any) -> Fetch:
    async def run(
        buyer: Buyer, method: str, url: str, *, body: Any = None, follow: bool = False, wait: float = 20, **more: Any
    ) -> Any:
        transport = PayingTransport(buyer, inner=library.AsyncHTTPTransport(verify=NO_TLS))
        async with library.AsyncClient(transport=transport, follow_redirects=follow, timeout=wait) as client:
            return await client.request(method, url, content=body, **more)

    def fetch(*arguments: Any, timeout: float = 20, **options: Any) -> Any:
        return asyncio.run(run(*arguments, wait=timeout, **options))

    return fetch


def through_requests(
    buyer: Buyer, method: str, url: str, *, body: Any = None, follow: bool = False, timeout: float = 20, **more: Any
) -> Any:
    with paying_session(buyer) as session:
        return session.request(method, url, data=body, allow_redirects=follow, timeout=timeout, **more)


DOORS: dict[str, Fetch] = {
    "httpx2": through_httpx(httpx2),
    "httpx2-async": through_httpx_async(httpx2),
    "httpx": through_httpx(httpx),
    "httpx-async": through_httpx_async(httpx),
    "requests": through_requests,
}


def receipt(answer: Any) -> Receipt | None:
    """What was paid for an answer, whichever door it came through."""
    return requests_receipt_of(answer) if isinstance(answer, requests.Response) else receipt_of(answer)
