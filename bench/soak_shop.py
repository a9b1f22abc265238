"""One worker of the soak's seller: `python -m bench.soak_shop SOCKET`, with an `Opening` as JSON on standard input.

It serves one priced route on a listening socket that it inherits, says `ready` when it does, and ends with its input.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from farthing.networks import KNOWN, Token
from farthing.servers.asgi import PaymentMiddleware
from farthing.servers.seller import Seller
from farthing.world.facilitator_client import RemoteFacilitator

PATH = "/weather"
PRICE = "$0.001"
AMOUNT = 1_000


class Opening(msgspec.Struct, frozen=True):
    """What a worker must know."""

    facilitator_url: str
    network: str
    usdc: str
    pay_to: str
    base_url: str
    store: str


async def _work(_request: Request) -> JSONResponse:
    return JSONResponse({"sky": "clear", "wind": "west"})


def main(descriptor: int) -> None:
    """Serve until standard input ends."""
    opening = msgspec.json.decode(sys.stdin.buffer.readline(), type=Opening)
    token = Token(
        network=opening.network,
        address=opening.usdc,
        symbol="USDC",
        decimals=6,
        eip712_name="USDC",
        eip712_version="2",
    )
    seller = Seller(
        pay_to=opening.pay_to,
        network=opening.network,
        facilitator=RemoteFacilitator(opening.facilitator_url),
        base_url=opening.base_url,
        store=opening.store,
        networks=KNOWN.with_token(token),
    )
    seller.price(f"GET {PATH}", PRICE, description="The weather now")
    app = PaymentMiddleware(Starlette(routes=[Route(PATH, _work)]), seller=seller)
    listening = socket.socket(fileno=descriptor)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, lifespan="on"))

    def follow() -> None:
        while not server.started:
            time.sleep(0.01)
        print("ready", flush=True)
        sys.stdin.buffer.read()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=follow, daemon=True).start()
    server.run(sockets=[listening])


if __name__ == "__main__":
    main(int(sys.argv[1]))
