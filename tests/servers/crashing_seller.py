"""Sellers to be killed: a process that imports once and forks a seller for each line of its input.

`crashing_seller.py FOLDER` reads orders as JSON lines and answers each with one: the seller's process and port. All
sellers share one store. Each runs until it is killed, by its own hand where the order names a place to crash at. One
whose store can't be opened ends at once, and says 0 for its process.
"""

from __future__ import annotations

import asyncio
import collections
import json
import os
import signal
import socket
import sys
import time
import types
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

import farthing.world.postgres  # noqa: F401 - before the forks, each of which would bring it
from farthing.errors import StoreError
from farthing.networks import KNOWN, Token
from farthing.seller import admit, conclude, known, refunding, settling
from farthing.servers import Seller, current_payment, keeping
from farthing.servers.asgi import PaymentMiddleware
from farthing.world import lanes
from farthing.world.crash import CRASH_AT
from farthing.world.facilitator_client import RemoteFacilitator
from farthing.world.keys import LocalSigner

# A test does not wait for minutes until a dead process's lease is over; a settlement takes a second on a busy machine.
LEASE_SECONDS = 5
WINDOW_SECONDS = 20
LEASES = ("WORK_LEASE_SECONDS", "SETTLE_LEASE_SECONDS", "DELIVERY_LEASE_SECONDS")
MODULES: tuple[types.ModuleType, ...] = (admit, conclude, known, refunding, settling, keeping)
IN_PRODUCTION = {
    (module, name): getattr(module, name) for module in MODULES for name in LEASES if hasattr(module, name)
}
HEARTS = {"BEAT_SECONDS": 0.5, "ALIVE_SECONDS": 3, "SURE_SECONDS": 2.0, "JUDGE_SECONDS": 1.0}
# Between two rounds of a caretaker.
PAUSE_SECONDS = 0.3
BODY = b"what was paid for"
# Places that are no effects: in the handler, and between the first byte and the last.
IN_HANDLER, IN_ANSWER = "in:handler", "in:answer"


def shorten_leases() -> None:
    for module in MODULES:
        for name in LEASES:
            if hasattr(module, name):
                setattr(module, name, LEASE_SECONDS)
        if hasattr(module, "HORIZON_SECONDS"):
            setattr(module, "HORIZON_SECONDS", 1)  # noqa: B010 - not every module has it
    for name in ("TURN_SECONDS", "LOOK_AGAIN_SECONDS", "RETRY_SECONDS"):
        setattr(refunding, name, 1)


def shorten_hearts() -> None:
    """Give the leases back that they have in production, and let hearts beat for seconds only."""
    for (module, name), seconds in IN_PRODUCTION.items():
        setattr(module, name, seconds)
    for name, seconds in HEARTS.items():
        setattr(lanes, name, seconds)


def note(path: Path, line: str) -> None:
    """Add a line, whole, whoever else writes."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, f"{line}\n".encode())
    os.close(descriptor)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Counting:
    """Counts the effects that a seller performs, by their names: where it can be killed."""

    def __init__(self, perform: Any) -> None:
        self._perform = perform
        self.counts: collections.Counter[str] = collections.Counter()

    async def __call__(self, effect: Any) -> Any:
        self.counts[type(effect).__name__] += 1
        return await self._perform(effect)


def make_seller(folder: Path, order: dict[str, Any]) -> Seller:
    devnet = order["devnet"]
    token = Token(
        network=devnet["network"],
        address=devnet["usdc"],
        symbol="USDC",
        decimals=6,
        eip712_name="USDC",
        eip712_version="2",
    )
    seller = Seller(
        facilitator=RemoteFacilitator(order["facilitator"], settle_timeout_seconds=order.get("settle_seconds", 60)),
        base_url="http://shop.example",
        store=order.get("store") or folder / "seller.sqlite",
        # Beside PostgreSQL it would be the user's own.
        spool_folder=folder / "responses",
        pay_to=order["pay_to"],
        network=devnet["network"],
        networks=KNOWN.with_token(token),
        refund_signer=LocalSigner.from_hex(order["refund_key"]) if "refund_key" in order else None,
    )
    seller.price("GET /kept", "$0.01")
    # A payment of which only the crashed process knew whether it was to be settled waits until its window is over.
    seller.price("GET /unkept", "$0.01", store_response=False, max_timeout_seconds=WINDOW_SECONDS)
    seller.price("GET /upfront", "$0.01", payment_flow="upfront")
    seller.price("POST /job", "$0.01")
    seller.price("POST /lost", "$0.01", payment_flow="upfront")
    return seller


def make_app(folder: Path, order: dict[str, Any]) -> Any:
    seller = make_seller(folder, order)
    place = order.get("crash_at", "")

    def run() -> None:
        paid = current_payment()
        assert paid is not None
        note(folder / "ran", paid.payment_id)
        if place == IN_HANDLER:
            die()

    async def plain(_: Any) -> PlainTextResponse:
        run()
        await asyncio.sleep(0)
        return PlainTextResponse(BODY)

    async def lost(_: Any) -> PlainTextResponse:
        run()
        await asyncio.sleep(0)
        return PlainTextResponse("it broke", 500)

    async def streamed(_: Any) -> StreamingResponse:
        run()

        async def body() -> Any:
            yield BODY[:4]
            if place == IN_ANSWER:
                die()
            yield BODY[4:]

        return StreamingResponse(body())

    app = Starlette(
        routes=[
            Route("/kept", plain),
            Route("/unkept", plain),
            Route("/upfront", streamed),
            Route("/job", plain, methods=["POST"]),
            Route("/lost", lost, methods=["POST"]),
        ]
    )
    if order.get("count"):
        counting: Any = Counting(seller.performer.awaiting)
        seller.performer = types.SimpleNamespace(awaiting=counting, begin=counting)  # type: ignore[assignment]

        async def counts(_: Any) -> PlainTextResponse:
            said = PlainTextResponse(json.dumps(counting.counts))
            counting.counts.clear()
            return said

        app.router.routes.append(Route("/counts", counts))
    app.add_middleware(PaymentMiddleware, seller=seller)
    return app


def care(folder: Path, order: dict[str, Any]) -> None:
    """Be a caretaker without a shop: for so many rounds, unless it is killed at its place before."""
    seller = make_seller(folder, order)
    for _ in range(order["care"]):
        seller.care()
        time.sleep(PAUSE_SECONDS)
    seller.close()


def serve(folder: Path, order: dict[str, Any]) -> None:
    place = order.get("crash_at", "")
    if place and not place.startswith("in:"):
        os.environ[CRASH_AT] = place
    if order.get("hearts"):
        shorten_hearts()
    if "care" in order:
        os.write(1, (json.dumps({"pid": os.getpid(), "url": ""}) + "\n").encode())
        care(folder, order)
        return
    listening = socket.create_server(("127.0.0.1", 0), backlog=128)
    try:
        app = make_app(folder, order)
    except StoreError:
        os.write(1, json.dumps({"pid": 0, "url": ""}).encode() + b"\n")
        return
    said = {"pid": os.getpid(), "url": f"http://127.0.0.1:{listening.getsockname()[1]}"}
    os.write(1, (json.dumps(said) + "\n").encode())
    uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off")).run([listening])


def main() -> None:
    folder = Path(sys.argv[1])
    shorten_leases()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the killed
    children: list[int] = []
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            try:
                serve(folder, json.loads(line))
            finally:
                os._exit(0)
        children.append(child)
    for child in children:
        try:
            os.kill(child, signal.SIGKILL)
        except ProcessLookupError:
            continue


if __name__ == "__main__":
    main()
