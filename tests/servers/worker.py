"""A worker process of a seller, for tests with two: `worker.py FOLDER FLOW STORE`; says its port, ends with stdin."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import farthing_selling as selling
import uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from farthing.servers.asgi import PaymentMiddleware


def note(path: Path, line: str) -> None:
    """Add a line, whole, whoever else writes."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, f"{line}\n".encode())
    os.close(descriptor)


def main() -> None:
    folder, flow, store = Path(sys.argv[1]), *sys.argv[2:4]
    facilitator = selling.CannedFacilitator()
    facilitator.on_settle = lambda: note(folder / "settled", str(os.getpid()))
    seller = selling.make_seller(folder, facilitator, store=store, spool_folder=folder)
    seller.price("GET /once", "$0.01", payment_flow=flow)

    async def once(_: Any) -> PlainTextResponse:
        note(folder / "ran", str(os.getpid()))
        await asyncio.sleep(0)
        return PlainTextResponse("once")

    app = Starlette(routes=[Route("/once", once)])
    app.add_middleware(PaymentMiddleware, seller=seller)
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(256)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))

    def watch() -> None:
        sys.stdin.read()
        server.should_exit = True

    threading.Thread(target=watch, daemon=True).start()
    print(listening.getsockname()[1], flush=True)
    server.run([listening])


if __name__ == "__main__":
    main()
