"""The httpx door, over real sockets: httpx2 and httpx, synchronous and asynchronous."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from shop import Shop, make_buyer, open_shop

from farthing.clients import Buyer
from farthing.clients.httpx import PayingTransport, receipt_of

Fetch = Callable[..., Any]


def fetch_sync(library: Any) -> Fetch:
    def fetch(buyer: Buyer, method: str, url: str, **options: Any) -> Any:
        client_options = {name: options.pop(name) for name in ("follow_redirects", "timeout") if name in options}
        with library.Client(transport=PayingTransport(buyer), **client_options) as client:
            return client.request(method, url, **options)

    return fetch


def fetch_async(library: Any) -> Fetch:
    def fetch(buyer: Buyer, method: str, url: str, **options: Any) -> Any:
        client_options = {name: options.pop(name) for name in ("follow_redirects", "timeout") if name in options}

        async def run() -> Any:
            async with library.AsyncClient(transport=PayingTransport(buyer), **client_options) as client:
                return await client.request(method, url, **options)

        return asyncio.run(run())

    return fetch


DOORS = {
    "httpx2": fetch_sync(httpx2), "httpx2-async": fetch_async(httpx2),
    "httpx": fetch_sync(httpx), "httpx-async": fetch_async(httpx),
}  # fmt: skip


@pytest.fixture(params=list(DOORS))
def fetch(request: pytest.FixtureRequest) -> Fetch:
    return DOORS[request.param]


@pytest.fixture
def shop() -> Iterator[Shop]:
    with open_shop() as opened:
        yield opened


@pytest.fixture
def buyer(tmp_path: Path) -> Iterator[Buyer]:
    with make_buyer(tmp_path) as made:
        yield made


def test_a_purchase(fetch: Fetch, shop: Shop, buyer: Buyer) -> None:
    answer = fetch(buyer, "POST", shop.url + "/thing?x=1", json={"a": 1})
    assert (answer.status_code, answer.text) == (200, "the goods")
    first, second = shop.seen
    assert first.body == second.body == b'{"a":1}'
    assert (first.payment is None, second.payment is None) == (True, False)
    assert first.connection == second.connection
    receipt = receipt_of(answer)
    assert receipt
    assert receipt.state == "settled"
    (entry,) = buyer.journal.purchases()
    assert (entry.state, entry.delivered, entry.amount) == ("settled", True, 10_000)
    assert entry.payment_id == receipt.payment_id
    assert shop.transfers == {entry.payment_id: 10_000}
