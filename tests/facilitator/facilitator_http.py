"""The facilitator behind a real socket, for the tests of this folder."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from farthing.services.facilitator.auth import Tokens
from farthing.services.facilitator.server import serve
from farthing.services.facilitator.service import FacilitatorService


@asynccontextmanager
async def served(service: FacilitatorService, tokens: Tokens | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """The service behind a real socket, on a free port."""
    url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(
        serve(service, tokens=tokens or Tokens({}), host="127.0.0.1", port=0, ready=url.set_result, signals=False)
    )
    running.add_done_callback(
        lambda ended: None if url.done() else url.set_exception(ended.exception() or SystemExit())
    )
    await url
    try:
        async with httpx.AsyncClient(base_url=url.result(), timeout=30) as client:
            yield client
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await service.aclose()
