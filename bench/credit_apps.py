"""The site that is paid on credit in the bench: a real edge, whose clearing house is canned and in the process."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Any

from bench.apps import BASE_URL, PAID_PATH, bare
from farthing.protocol.clearing import (
    EdgeStarted,
    Lease,
    LeaseClose,
    LeaseClosed,
    LeaseRequest,
    UploadAnswer,
)
from farthing.seller.pricing import Terms
from farthing.servers import edge as edge_module
from farthing.servers.asgi import PaymentMiddleware
from farthing.servers.edge import Edge
from farthing.servers.seller import Seller
from farthing.signatures import DirectoryKey, PublicKey, SigningKey
from farthing.world.directories import KnownKey

if TYPE_CHECKING:
    from pathlib import Path

NETWORK = "clearing:bench"
PAYEE = "site.example"
AGENT_ORIGIN = "https://crawler.example"
AGENT_KEY = SigningKey(bytes(range(32)))
SELLER_KEY = SigningKey(bytes(range(1, 33)))


class CannedClearing:
    """Grants all that is asked for, and takes every upload."""

    def __init__(self, _url: str, _token: str) -> None:
        """Need neither."""
        self._numbers = itertools.count(1)

    async def start(self, edge: str) -> EdgeStarted:
        """Begin."""
        return EdgeStarted(edge, 1, NETWORK, 900, 900)

    async def has_account(self, _payer: str) -> bool:
        """Know everybody."""
        return True

    async def lease(self, request: LeaseRequest) -> Lease:
        """Grant."""
        name = f"le-{next(self._numbers)}"
        return Lease(name, request.edge, 1, request.payer, request.amount, request.currency, request.seconds)

    async def close_lease(self, close: LeaseClose) -> LeaseClosed:
        """Take back."""
        return LeaseClosed(close.lease, closed=True)

    async def upload(self, _body: bytes) -> tuple[UploadAnswer, bytes]:
        """Take."""
        return UploadAnswer("edge", 1, 1, "w", 1), b"{}"

    async def greet(self) -> None:
        """Answer."""

    async def aclose(self) -> None:
        """Close nothing."""


class _Keys:
    """One agent's key, known from the first request on."""

    def known(self, agent: str, key_id: str) -> PublicKey | None:
        return AGENT_KEY.public_key if (agent, key_id) == (AGENT_ORIGIN, AGENT_KEY.public_key.thumbprint) else None

    def is_fresh(self, _agent: str, _key_id: str) -> bool:
        return True

    def archived(self, agent: str, _key_id: str) -> KnownKey:
        return KnownKey(agent, DirectoryKey(AGENT_KEY.public_key), now_seconds(), b"{}", "", "")

    async def find(self, agent: str, key_id: str) -> PublicKey | None:
        return self.known(agent, key_id)


def on_credit(folder: Path) -> Any:
    """A site behind an edge: signature checked, log durable, receipt signed."""
    folder.mkdir(parents=True, exist_ok=True)
    setattr(edge_module, "ClearingClient", CannedClearing)  # noqa: B010 - the module does not export it
    edge = Edge(
        "edge",
        network=NETWORK,
        clearing_house="http://127.0.0.1:9",
        token="token",  # noqa: S106 - nobody asks for it
        signer=SELLER_KEY,
        store=folder / "edge.sqlite3",
        keys=_Keys(),
    )
    seller = Seller(
        base_url=BASE_URL,
        store=folder / "seller.sqlite3",
        accepts=[Terms(scheme="batch-settlement", network=NETWORK, pay_to=PAYEE)],
        edge=edge,
    )
    seller.price(f"GET {PAID_PATH}", "$0.001")
    return PaymentMiddleware(bare(folder), seller=seller)


def now_seconds() -> int:
    """The time of the requests."""
    return int(time.time())
