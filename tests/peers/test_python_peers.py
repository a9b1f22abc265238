"""PyPI `x402` in every other place: its servers, its clients, and ours, with real settlement on the devnet."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import httpx
import httpx2
import peers
import pytest
import requests
from x402.http.clients import wrapHttpxWithPayment, wrapRequestsWithPayment
from x402.http.utils import decode_payment_required_header, decode_payment_response_header

from farthing.clients.httpx import PayingTransport
from farthing.clients.requests import paying_session
from farthing.protocol.codec import decode_settlement

if TYPE_CHECKING:
    from tests.local_services import LocalServices, Wallet
    from tests.peers.peers import Shop

# A buyer's way to a URL: what came back, as status, PAYMENT-RESPONSE and body.
Answer = tuple[int, str, dict[str, Any]]
Fetch = Callable[["LocalServices", "Wallet", str], Answer]


def official_httpx(_local: LocalServices, wallet: Wallet, url: str) -> Answer:
    async def story() -> Answer:
        client = peers.official_client(wallet)
        async with wrapHttpxWithPayment(client, timeout=peers.TIMEOUT_SECONDS) as http:
            answer = await http.get(url)
            return answer.status_code, answer.headers.get("payment-response", ""), answer.json()

    return asyncio.run(story())


def official_requests(_local: LocalServices, wallet: Wallet, url: str) -> Answer:
    with wrapRequestsWithPayment(requests.Session(), peers.official_client_sync(wallet)) as session:
        answer = session.get(url, timeout=peers.TIMEOUT_SECONDS)
        return answer.status_code, answer.headers.get("payment-response", ""), answer.json()


def our_httpx(library: Any) -> Fetch:
    def fetch(local: LocalServices, wallet: Wallet, url: str) -> Answer:
        with (
            peers.our_buyer(local, wallet) as buyer,
            library.Client(transport=PayingTransport(buyer), timeout=peers.TIMEOUT_SECONDS) as http,
        ):
            answer = http.get(url)
            return answer.status_code, answer.headers.get("payment-response", ""), answer.json()

    return fetch


def our_async_httpx(library: Any) -> Fetch:
    def fetch(local: LocalServices, wallet: Wallet, url: str) -> Answer:
        async def story() -> Answer:
            with peers.our_buyer(local, wallet) as buyer:
                transport = PayingTransport(buyer)
                async with library.AsyncClient(transport=transport, timeout=peers.TIMEOUT_SECONDS) as http:
                    answer = await http.get(url)
                    return answer.status_code, answer.headers.get("payment-response", ""), answer.json()

        return asyncio.run(story())

    return fetch


def our_requests(local: LocalServices, wallet: Wallet, url: str) -> Answer:
    with peers.our_buyer(local, wallet) as buyer, paying_session(buyer) as session:
        answer = session.get(url, timeout=peers.TIMEOUT_SECONDS)
        return answer.status_code, answer.headers.get("payment-response", ""), answer.json()


OFFICIAL_BUYERS: dict[str, Fetch] = {"official httpx": official_httpx, "official requests": official_requests}
OUR_BUYERS: dict[str, Fetch] = {
    "our httpx": our_httpx(httpx),
    "our httpx2": our_httpx(httpx2),
    "our async httpx2": our_async_httpx(httpx2),
    "our requests": our_requests,
}
PAIRS = [
    *((buyer, shop) for buyer in OFFICIAL_BUYERS for shop in peers.OUR_SHOPS),
    *((buyer, shop) for buyer in OUR_BUYERS for shop in peers.OFFICIAL_SHOPS),
    ("our httpx2", "our ASGI"),
    ("our requests", "our WSGI, upfront"),
]


@pytest.fixture(scope="module")
def shops(local: LocalServices) -> Callable[[str], Shop]:
    """Each shop once, opened when first asked for. What it sold before is forgotten."""
    makers = {**peers.OUR_SHOPS, **peers.OFFICIAL_SHOPS}
    return lambda name: makers[name](local)


@pytest.mark.parametrize(("buyer", "shop"), PAIRS, ids=[f"{buyer} buys from {shop}" for buyer, shop in PAIRS])
def test_a_purchase_between_the_houses(
    local: LocalServices, shops: Callable[[str], Shop], buyer: str, shop: str
) -> None:
    opened = shops(shop)
    wallet = local.wallet(usdc="0.05")
    status, settled, body = {**OFFICIAL_BUYERS, **OUR_BUYERS}[buyer](local, wallet, opened.report)
    assert (status, body) == (200, {"report": "fair and warm"})
    assert_settled(local, settled, wallet)
    peers.assert_paid(local, opened, wallet)
    assert local.devnet.usdc_balance(wallet.address) == 50_000 - peers.AMOUNT


def assert_settled(local: LocalServices, header: str, wallet: Wallet) -> None:
    """Both packages read the receipt alike, and the chain knows its transaction."""
    ours, theirs = decode_settlement(header), decode_payment_response_header(header)
    assert ours.success
    assert theirs.success
    assert ours.transaction == theirs.transaction
    assert ours.network == local.devnet.network
    assert (ours.payer or "").lower() == wallet.address.lower()
    receipt = local.devnet.rpc("eth_getTransactionReceipt", ours.transaction)
    assert receipt["status"] == "0x1"


@pytest.mark.parametrize("maker", [peers.official_fastapi, peers.official_flask], ids=["FastAPI", "Flask"])
def test_F1_ten_copies_through_the_official_server_get_one_200(
    local: LocalServices, maker: Callable[[LocalServices], Shop]
) -> None:
    """The official servers keep no store: what holds the ten apart is our facilitator alone."""
    shop = maker(local)
    wallet = local.wallet(usdc="1")
    header = peers.signed_payment(shop, wallet)
    answers = peers.send_copies(shop, header, 10)
    assert sorted(answer.status_code for answer in answers) == [200] + [402] * 9
    assert peers.transfers(local, shop.payee) == [(wallet.address.lower(), peers.AMOUNT)]
    assert local.devnet.usdc_balance(wallet.address) == 1_000_000 - peers.AMOUNT
    settled = next(decode_settlement(each.headers["payment-response"]) for each in answers if each.status_code == 200)
    for answer in answers:
        if answer.status_code == 402:
            refused = decode_settlement(answer.headers["payment-response"])
            assert (refused.success, refused.error_reason) == (False, "duplicate_settlement")
            assert refused.transaction == settled.transaction

    # And a day later it is the same; only that now the facilitator's verification says so before the work.
    ran = shop.served
    late = peers.send_copies(shop, header, 1)[0]
    assert late.status_code == 402
    assert len(peers.transfers(local, shop.payee)) == 1
    assert shop.served <= ran + 1


@pytest.mark.parametrize("name", ["our ASGI", "our WSGI"])
def test_S1_ten_copies_to_our_seller_get_one_200(local: LocalServices, name: str) -> None:
    shop = peers.OUR_SHOPS[name](local)
    wallet = local.wallet(usdc="1")
    answers = peers.send_copies(shop, peers.signed_payment(shop, wallet), 10)
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 9
    peers.assert_paid(local, shop, wallet)
    assert all("payment-required" not in answer.headers for answer in answers)


def test_the_official_client_is_told_why_it_was_refused(local: LocalServices) -> None:
    shop = peers.OUR_SHOPS["our ASGI"](local)
    poor = local.wallet()
    answer = peers.send_copies(shop, peers.signed_payment(shop, poor), 1)[0]
    assert answer.status_code == 402
    required = decode_payment_required_header(answer.headers["payment-required"])
    assert "insufficient_funds" in json.dumps(required.model_dump())
    assert shop.served == 0
    assert peers.transfers(local, shop.payee) == []
