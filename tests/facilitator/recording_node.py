"""A JSON-RPC node in front of a devnet that records each HTTP request's methods, and can be broken on purpose."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Self

import msgspec
from aiohttp import web

from farthing.services.devnet import Devnet


class RecordingNode:
    """`async with RecordingNode(devnet) as node:` — `node.url`, `node.batches`, `node.broken`, `node.lie`."""

    def __init__(self, devnet: Devnet) -> None:
        self.devnet = devnet
        self.batches: list[list[str]] = []
        # 503 to whatever is asked; and a method whose answer is lost on the way, and after it all others.
        self.broken = False
        # What is answered to whatever is asked, and how long every answer takes.
        self.instead: web.Response | None = None
        self.delay_seconds = 0.0
        self.swallow: str = ""
        # Called with each batch's calls before they go on to the devnet.
        self.before: Callable[[list[dict[str, Any]]], None] = lambda _calls: None
        # Called with each call and its result; what it gives is answered in the result's place.
        self.lie: Callable[[dict[str, Any], Any], Any] = lambda _call, result: result

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/", self._answer)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        calls = msgspec.json.decode(body)
        calls = calls if isinstance(calls, list) else [calls]
        methods = [call["method"] for call in calls]
        self.batches.append(methods)
        self.before(calls)
        if self.delay_seconds:
            await asyncio.sleep(self.delay_seconds)
        if self.instead is not None:
            return web.Response(body=self.instead.body, status=self.instead.status)
        if self.broken:
            return web.Response(status=503, text="out of order")
        # Broken before the devnet hears of it: another request that is on its way must not see what it did.
        swallowed = self.swallow in methods
        self.broken = swallowed
        answer = await asyncio.to_thread(self.devnet.post, body)
        if swallowed:
            return web.Response(status=502, text="lost on the way")
        if self.broken:
            return web.Response(status=503, text="out of order")
        by_id = {call["id"]: call for call in calls}
        for reply in answer if isinstance(answer, list) else [answer]:
            if reply.get("result") is not None:
                reply["result"] = self.lie(by_id[reply["id"]], reply["result"])
        return web.Response(body=msgspec.json.encode(answer), content_type="application/json")
