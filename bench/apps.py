"""The applications that are measured over HTTP: one route with a price and one without, bare and behind our door."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from bench.canned import CannedChain, CannedFacilitator, MemoryStore
from bench.purchases import OFFER, RESOURCE, key
from farthing.facilitator.fees import FeeCaps
from farthing.networks import KNOWN, Network
from farthing.servers.asgi import PaymentMiddleware
from farthing.servers.seller import Seller
from farthing.services.facilitator import service as facilitator_service

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.requests import Request

BASE_URL, _, _NAME = RESOURCE.url.rpartition("/")
PAID_PATH = "/" + _NAME
FREE_PATH = "/free"
WORK: dict[str, object] = {"report": {"weather": "sunny", "temperature": 70}}
# The chain is canned, and its blocks come when they are looked for: this is how often the watcher looks.
_BLOCK_TIME_MILLISECONDS = 200


async def work(_request: Request) -> JSONResponse:
    """The handler: as little work as there is."""
    return JSONResponse(WORK)


def bare(_folder: Path) -> Any:
    """The limit: a Starlette `Route` with a `JSONResponse`."""
    return Starlette(routes=[Route(PAID_PATH, work), Route(FREE_PATH, work)])


def fastapi(_folder: Path) -> Any:
    """The same in FastAPI, without anything before it."""
    from fastapi import FastAPI  # noqa: PLC0415 - only who serves it needs it

    app = FastAPI()

    async def handler() -> dict[str, object]:
        return WORK

    app.get(PAID_PATH)(handler)
    app.get(FREE_PATH)(handler)
    return app


def priced_seller(folder: Path, facilitator: Any, *, store_response: bool = True) -> Seller:
    """A seller with a price on the paid route, and its store in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    seller = Seller(
        facilitator=facilitator,
        base_url=BASE_URL,
        store=folder / "seller.sqlite3",
        pay_to=OFFER.pay_to,
        network=OFFER.network,
    )
    seller.price(
        f"GET {PAID_PATH}",
        "$0.01",
        description=RESOURCE.description,
        mime_type=RESOURCE.mime_type,
        max_timeout_seconds=OFFER.max_timeout_seconds,
        store_response=store_response,
    )
    return seller


def farthing(folder: Path) -> Any:
    """Our seller with a canned facilitator, its store on disk, the response stored."""
    return PaymentMiddleware(bare(folder), seller=priced_seller(folder, CannedFacilitator()))


def farthing_unstored(folder: Path) -> Any:
    """The same, on a route that gives the stored response up."""
    return PaymentMiddleware(bare(folder), seller=priced_seller(folder, CannedFacilitator(), store_response=False))


def farthing_storeless(folder: Path) -> Any:
    """The same with its store in memory: the flows alone."""
    seller = priced_seller(folder, CannedFacilitator())
    seller.performer = seller.performer.with_(MemoryStore().handlers())
    return PaymentMiddleware(bare(folder), seller=seller)


def verified(folder: Path) -> Any:
    """Our seller and our facilitator in one process, real but for the node: claim, outcome and outbox on disk."""
    return _verified(folder, store_response=True)


def verified_unstored(folder: Path) -> Any:
    """The same, on a route that gives the stored response up."""
    return _verified(folder, store_response=False)


def _verified(folder: Path, *, store_response: bool) -> Any:
    folder.mkdir(parents=True, exist_ok=True)
    # The service makes its nodes itself; here they are in the process.
    setattr(facilitator_service, "Nodes", CannedChain)  # noqa: B010 - the module does not export it
    known = KNOWN.find(OFFER.network)
    assert known is not None
    network = Network(
        caip2=known.caip2,
        name=known.name,
        confirmations=known.confirmations,
        block_time_milliseconds=_BLOCK_TIME_MILLISECONDS,
    )
    facilitator = facilitator_service.FacilitatorService(
        networks=KNOWN.with_network(network),
        assets=frozenset({(OFFER.network, OFFER.asset.lower())}),
        node_urls={OFFER.network: ("http://127.0.0.1:9",)},
        signers=(_Wallet(),),
        store=folder / "facilitator.sqlite3",
        caps=FeeCaps(10**10, 10**6),
    )
    seller = priced_seller(folder, facilitator, store_response=store_response)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncGenerator[None]:
        async with facilitator:
            yield

    app = Starlette(routes=[Route(PAID_PATH, work), Route(FREE_PATH, work)], lifespan=lifespan)
    return PaymentMiddleware(app, seller=seller)


class _Wallet:
    """The hot wallet: a key that is worth nothing."""

    def __init__(self) -> None:
        self._key = key(0)

    @property
    def address(self) -> str:
        """Its address."""
        return self._key.address

    def sign_digest(self, digest: bytes) -> bytes:
        """Sign."""
        return self._key.sign_digest(digest)
