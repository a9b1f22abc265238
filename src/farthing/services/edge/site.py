"""The site as visitors meet it: priced routes behind the gate, the rest passed on, what is well-known served."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

import msgspec

from farthing.seller.pricing import Terms
from farthing.servers.asgi import PaymentMiddleware
from farthing.servers.asgi_wire import Receive, Scope, Send
from farthing.servers.edge import Edge
from farthing.servers.seller import Seller
from farthing.services.edge.config import EdgeConfig, receipt_key_of, token_of
from farthing.services.edge.proxy import Proxy
from farthing.signatures.messages import normal_authority
from farthing.world.directories import Directories, DirectoryServer
from farthing.world.store_url import is_postgres

# Where a clearing house looks for a payee's proof.
PROOF_PATH: Final = "/.well-known/farthing-clearing"
# Says how the edge is, for whoever watches it; not passed on.
HEALTH_PATH: Final = "/.well-known/farthing-edge"


class Site:
    """An ASGI application."""

    def __init__(self, config: EdgeConfig, *, edge: Edge, seller: Seller, directory: DirectoryServer) -> None:
        """Join the parts."""
        self.edge = edge
        self._seller = seller
        self._directory = directory
        self._challenge = config.clearing.challenge
        self._proxy = Proxy(
            config.upstream.url, public=config.base_url, timeout_seconds=config.upstream.timeout_seconds
        )
        self._gate = PaymentMiddleware(self._proxy, seller=seller)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or the lifespan."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        well_known = self._well_known(scope) if scope["type"] == "http" else None
        if well_known is None:
            await self._gate(scope, receive, send)
            return
        status, lines, body = well_known
        headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in lines]
        headers.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    def _well_known(self, scope: Scope) -> tuple[int, tuple[tuple[str, str], ...], bytes] | None:
        path, method = scope["path"], scope["method"]
        if path == PROOF_PATH and self._challenge and method in {"GET", "HEAD"}:
            text = f"{self._challenge}\n".encode()
            return 200, (("Content-Type", "text/plain; charset=utf-8"),), b"" if method == "HEAD" else text
        if path == HEALTH_PATH:
            health = {"waiting": self.edge.behind(), "offlineSeconds": int(self.edge.offline_seconds)}
            return 200, (("Content-Type", "application/json"),), msgspec.json.encode(health)
        return self._directory.answer(method, path)

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self._proxy.aclose()
                await send({"type": "lifespan.shutdown.complete"})
                return

    def close(self) -> None:
        """Pass on what is left, and close."""
        self.edge.close()
        self._seller.close()


def make_site(config: EdgeConfig, *, base_url: str = "", environment: Mapping[str, str] | None = None) -> Site:
    """Make what a file describes; `base_url` goes before the file's. Raises `ConfigError` and `StoreError`."""
    clearing = config.clearing
    config = msgspec.structs.replace(config, base_url=base_url or config.base_url)
    signer = receipt_key_of(config.receipts, environment)
    edge = Edge(
        config.name,
        network=clearing.network,
        clearing_house=clearing.url,
        token=token_of(clearing, environment),
        signer=signer,
        store=config.store,
        keys=Directories(allowed=config.directories.allowed, require_signed=config.directories.require_signed),
        currency=clearing.currency,
        lease_amount=clearing.lease_amount,
        lease_seconds=clearing.lease_seconds,
        offline_limit_seconds=clearing.offline_limit_seconds,
    )
    seller = Seller(
        base_url=config.base_url,
        store=_sellers_store(config.store),
        accepts=[Terms(scheme="batch-settlement", network=clearing.network, pay_to=clearing.payee)],
        edge=edge,
    )
    for each in config.route:
        seller.price(each.route, each.price, description=each.description, payment_identifier=each.payment_identifier)
    base = urlsplit(config.base_url)
    directory = DirectoryServer(normal_authority(base.netloc, base.scheme), [signer])
    return Site(config, edge=edge, seller=seller, directory=directory)


def _sellers_store(store: str) -> str:
    """The seller's own store, of which promises need nothing: beside the log, or in the same database."""
    return store if is_postgres(store) else f"{store}.seller"
