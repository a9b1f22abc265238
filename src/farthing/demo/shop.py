"""The demo's seller, a process of its own: a FastAPI application and a Flask one, each behind its door, on one store.

It reads one JSON line on standard input (`Opening`), writes one on standard output when it serves (`Opened`), and ends
when standard input does, however its parent died.
"""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Annotated

import msgspec
import uvicorn
from fastapi import Depends, FastAPI
from fastapi.responses import StreamingResponse
from flask import Flask
from werkzeug.serving import WSGIRequestHandler, make_server

from farthing.demo.child import end_with_stdin
from farthing.networks import KNOWN, Networks, Token
from farthing.seller.pricing import Facts
from farthing.servers.fastapi import Payment, PaymentMiddleware, payment
from farthing.servers.seller import Seller
from farthing.servers.wsgi import PaidWSGI
from farthing.world.facilitator_client import RemoteFacilitator

_HOST = "127.0.0.1"
_BACKLOG = 128
_PRICE_OF_A_DAY = Decimal("0.001")
_DAYS_MAX = 14
_REPORT = ("Wind turns west by noon.", "Rain over the coast.", "Clear by evening.")


class Opening(msgspec.Struct, frozen=True):
    """What the shop must know before it opens. `folder` is where its store goes."""

    facilitator_url: str
    network: str
    usdc: str
    pay_to: str
    folder: str


class Opened(msgspec.Struct, frozen=True):
    """Where the shop serves."""

    asgi_url: str
    wsgi_url: str


def networks_with(network: str, usdc: str) -> Networks:
    """Give the known networks and the devnet's own USDC."""
    token = Token(network=network, address=usdc, symbol="USDC", decimals=6, eip712_name="USDC", eip712_version="2")
    return KNOWN.with_token(token)


def price_of_days(facts: Facts) -> Decimal:
    """Price a forecast by its length: a callable price is computed for the offer, and again for the payment."""
    days = facts.params["days"]
    asked = int(days) if days.isascii() and days.isdigit() and len(days) <= len(str(_DAYS_MAX)) else _DAYS_MAX
    return _PRICE_OF_A_DAY * min(max(asked, 1), _DAYS_MAX)


def fastapi_app(seller: Seller) -> FastAPI:
    """Make the asynchronous shop: three ways to price a route."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(PaymentMiddleware, seller=seller)
    seller.price("GET /forecast/{days}", price_of_days, description="A forecast, by the day")
    seller.price("GET /report", "$0.01", payment_flow="upfront", description="Today's report, streamed")

    @app.get("/weather/{city}")
    @seller.paid("$0.001", description="The weather now")
    async def weather(city: str, paid: Annotated[Payment, Depends(payment)]) -> dict[str, str]:
        return {"city": city, "sky": "clear", "paid_by": paid.payer}

    @app.get("/forecast/{days}")
    async def forecast(days: int) -> dict[str, list[str]]:
        return {"days": [f"day {day}: fair" for day in range(1, min(days, _DAYS_MAX) + 1)]}

    @app.get("/report")
    def report() -> StreamingResponse:
        def lines() -> Iterator[str]:
            for line in _REPORT:
                yield line + " "

        return StreamingResponse(lines(), media_type="text/plain")

    return app


def flask_app(seller: Seller) -> Flask:
    """Make the synchronous shop."""
    app = Flask("farthing-demo")
    app.wsgi_app = PaidWSGI(app.wsgi_app, seller)  # type: ignore[method-assign] # Flask's documented way to wrap
    seller.price("GET /quote", "$0.015", description="A quote to live by")

    @app.get("/quote")
    def quote() -> dict[str, str]:
        return {"quote": "A penny saved is a penny earned; a farthing, four times as often."}

    return app


class _Quiet(WSGIRequestHandler):
    """The demo shows requests itself."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing."""


def main() -> None:
    """Open the shop, and keep it open until standard input ends."""
    told = sys.stdin.buffer.readline()
    if not told:
        return  # the demo ended before there was anything to sell
    opening = msgspec.json.decode(told, type=Opening)
    networks = networks_with(opening.network, opening.usdc)
    facilitator = RemoteFacilitator(opening.facilitator_url)
    sockets = [_listen(), _listen()]
    urls = [f"http://{_HOST}:{each.getsockname()[1]}" for each in sockets]
    sellers = [
        Seller(
            pay_to=opening.pay_to,
            network=opening.network,
            facilitator=facilitator,
            base_url=url,
            store=Path(opening.folder) / "seller.sqlite",
            networks=networks,
        )
        for url in urls
    ]
    wsgi = make_server(_HOST, 0, flask_app(sellers[1]), threaded=True, request_handler=_Quiet, fd=sockets[1].fileno())
    threading.Thread(target=wsgi.serve_forever, name="wsgi", daemon=True).start()
    server = uvicorn.Server(uvicorn.Config(fastapi_app(sellers[0]), log_level="warning", lifespan="on"))
    end_with_stdin()
    sys.stdout.buffer.write(msgspec.json.encode(Opened(*urls)) + b"\n")
    sys.stdout.flush()
    server.run(sockets=[sockets[0]])


def _listen() -> socket.socket:
    listener = socket.create_server((_HOST, 0), backlog=_BACKLOG)
    listener.set_inheritable(True)
    return listener


if __name__ == "__main__":
    main()
