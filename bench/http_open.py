"""`http_open`: what the middleware adds to a request that has no price, in the process; its share over HTTP beside it.

The application behind is empty: what is measured is the way through the door and back.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import harness
from bench.apps import FREE_PATH, PAID_PATH
from bench.figure import Figure
from bench.http_rounds import Contender, measure, same, to_note
from bench.load import request_bytes
from bench.serving import Server, cores, on_core

TARGET_MICROSECONDS = 2.0
# A seller of some size: the more routes have a price, the longer it could take to see that one has none.
_ROUTES = 10


class Calls:
    """An ASGI application that is called directly, on a running loop."""

    def __init__(self, app: Any) -> None:
        """Call `app`."""
        self._app = app

    def run(self, count: int) -> float:
        """Call it `count` times; the CPU seconds of all."""
        return asyncio.run(self._run(count))

    async def _run(self, count: int) -> float:
        app = self._app
        names = (line.split(b": ", 1) for line in request_bytes(FREE_PATH).split(b"\r\n")[1:] if line)
        headers = [(name.lower(), value) for name, value in names]

        async def receive() -> dict[str, object]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(_: dict[str, object]) -> None:
            return None

        scopes = [_scope(headers) for _ in range(count)]
        gc.collect()
        gc.disable()
        try:
            before = time.process_time()
            for scope in scopes:
                await app(scope, receive, send)
            return time.process_time() - before
        finally:
            gc.enable()


def _scope(headers: list[tuple[bytes, bytes]]) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": FREE_PATH,
        "raw_path": FREE_PATH.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 80),
    }


async def empty(_scope: Any, _receive: Any, send: Any) -> None:
    """The application behind the door: an empty answer."""
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def bare() -> Calls:
    """Without a middleware."""
    return Calls(empty)


def official() -> Calls:
    """Behind the official package's."""
    from bench.official_apps import canned, wrapped  # noqa: PLC0415 - it takes seconds to import

    return Calls(wrapped(empty, canned()))


def ours(folder: Path) -> Calls:
    """Behind ours."""
    from bench.apps import priced_seller  # noqa: PLC0415 - likewise
    from bench.canned import CannedFacilitator  # noqa: PLC0415 - likewise
    from farthing.servers.asgi import PaymentMiddleware  # noqa: PLC0415 - likewise

    seller = priced_seller(folder, CannedFacilitator())
    for number in range(1, _ROUTES):
        seller.price(f"GET {PAID_PATH}/{number}/{{item}}", "$0.01")
    return Calls(PaymentMiddleware(empty, seller=seller))


def run() -> list[Figure]:
    """Measure."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="farthing-bench-")))
        with on_core(cores()[0]):
            found = harness.measure({"bare": bare(), "ours": ours(folder / "direct"), "official": official()})

        def serve(module: str, name: str) -> Contender:
            return Contender(stack.enter_context(Server(module, name, folder / name)), same(FREE_PATH), 200)

        served = measure(
            {
                "bare": serve("bench.apps", "bare"),
                "ours": serve("bench.apps", "farthing"),
                "official": serve("bench.official_apps", "official"),
                "FastAPI": serve("bench.apps", "fastapi"),
            }
        )
    return [
        Figure(
            name="http_open",
            ours=found["ours"] - found["bare"],
            unit="µs added",
            better="lower",
            official=found["official"] - found["bare"],
            target=TARGET_MICROSECONDS,
            target_is="ours",
            notes=(to_note(served, "bare"),),
        )
    ]
