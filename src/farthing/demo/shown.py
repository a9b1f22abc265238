"""Transports that show what goes over the wire: each sends with the library's own, and tells the story."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

import httpx2
import requests
from requests.adapters import HTTPAdapter

from farthing.demo.story import Story

Settled = Callable[[str], None]


class Wire:
    """Tells the story of requests and answers. `settled` is handed a PAYMENT-RESPONSE before its answer is shown."""

    def __init__(self, story: Story, settled: Settled) -> None:
        """Tell it to `story`."""
        self._story = story
        self._settled = settled

    def request(self, method: str, url: str, headers: Mapping[str, str]) -> None:
        """Show a request as it leaves."""
        self._story.request(method, url, _lower(headers))

    def response(self, status: int, headers: Mapping[str, str]) -> None:
        """Show an answer as it comes; what was settled for it is shown first."""
        lower = _lower(headers)
        settlement = lower.get("payment-response")
        if settlement is not None:
            self._settled(settlement)
        self._story.response(status, HTTPStatus(status).phrase, lower)


class ShownTransport(httpx2.BaseTransport, httpx2.AsyncBaseTransport):
    """httpx2's transport, shown."""

    def __init__(self, wire: Wire) -> None:
        """Show on `wire`."""
        self._wire = wire
        self._blocking = httpx2.HTTPTransport()
        self._awaiting = httpx2.AsyncHTTPTransport()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send and show."""
        self._wire.request(request.method, str(request.url), request.headers)
        response = self._blocking.handle_request(request)
        self._wire.response(response.status_code, response.headers)
        return response

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send and show."""
        self._wire.request(request.method, str(request.url), request.headers)
        response = await self._awaiting.handle_async_request(request)
        self._wire.response(response.status_code, response.headers)
        return response

    def close(self) -> None:
        """Close the blocking face."""
        self._blocking.close()

    async def aclose(self) -> None:
        """Close the awaiting face."""
        await self._awaiting.aclose()


class ShownAdapter(HTTPAdapter):
    """requests' adapter, shown."""

    def __init__(self, wire: Wire) -> None:
        """Show on `wire`."""
        super().__init__()
        self._wire = wire

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        """Send and show."""
        self._wire.request(request.method or "GET", request.url or "", request.headers)
        response = super().send(request, *args, **kwargs)
        self._wire.response(response.status_code, response.headers)
        return response


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
