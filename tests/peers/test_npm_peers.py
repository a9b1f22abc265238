"""npm's version 2 both ways: `@x402/fetch` buys here, `@x402/express` and `@x402/hono` sell and settle here."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import peers
import pytest

from farthing.clients.httpx import PayingTransport
from farthing.clients.requests import paying_session
from farthing.protocol.codec import decode_settlement

if TYPE_CHECKING:
    from tests.local_services import LocalServices
    from tests.peers.peers import Shop

NODE = Path(__file__).parents[1] / "node"


@pytest.fixture(params=["sell.mjs", "sell_hono.mjs"], ids=["express", "hono"])
def npm_shop(request: pytest.FixtureRequest, local: LocalServices, node_environment: dict[str, str]) -> Iterator[Shop]:
    """A seller with `@x402/express` or `@x402/hono`, a process of its own, that settles with our facilitator."""
    shop = peers.Shop(payee=local.wallet().address)
    terms = {
        "facilitatorUrl": local.facilitator_url,
        "scheme": "exact",
        "network": local.devnet.network,
        "payTo": shop.payee,
        "price": {"amount": str(peers.AMOUNT), **local.asset},
    }
    with subprocess.Popen(
        ["node", request.param],
        cwd=NODE,
        env=node_environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(terms) + "\n")
        process.stdin.flush()
        shop.url = json.loads(process.stdout.readline())["url"]
        yield shop
        # The end of its standard input ends it.
        process.communicate(timeout=peers.TIMEOUT_SECONDS)


@pytest.mark.parametrize("name", ["our ASGI", "our WSGI"])
def test_npm_fetch_buys_from_our_seller(local: LocalServices, node_environment: dict[str, str], name: str) -> None:
    shop = peers.OUR_SHOPS[name](local)
    wallet = local.wallet(usdc="0.05")
    ran = subprocess.run(
        ["node", "buy.mjs"],
        cwd=NODE,
        env=node_environment,
        input=json.dumps({"url": shop.report, "key": wallet.key}),
        capture_output=True,
        text=True,
        timeout=peers.TIMEOUT_SECONDS,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    answer = json.loads(ran.stdout)
    assert (answer["status"], json.loads(answer["body"])) == (200, {"report": "fair and warm"})
    assert decode_settlement(answer["settled"]).success
    peers.assert_paid(local, shop, wallet)


def test_our_buyers_buy_from_an_npm_server(local: LocalServices, npm_shop: Shop) -> None:
    first, second = local.wallet(usdc="0.05"), local.wallet(usdc="0.05")
    with (
        peers.our_buyer(local, first) as buyer,
        httpx2.Client(transport=PayingTransport(buyer), timeout=peers.TIMEOUT_SECONDS) as http,
    ):
        answer = http.get(npm_shop.report)
        assert (answer.status_code, answer.json()) == (200, {"report": "fair and warm"})
        assert decode_settlement(answer.headers["payment-response"]).success
    with peers.our_buyer(local, second) as buyer, paying_session(buyer) as session:
        assert session.get(npm_shop.report, timeout=peers.TIMEOUT_SECONDS).json() == {"report": "fair and warm"}
    payers = sorted((each.address.lower(), peers.AMOUNT) for each in (first, second))
    assert sorted(peers.transfers(local, npm_shop.payee)) == payers
    assert local.devnet.usdc_balance(first.address) == 50_000 - peers.AMOUNT


def test_F1_ten_copies_through_an_npm_server_get_one_200(local: LocalServices, npm_shop: Shop) -> None:
    wallet = local.wallet(usdc="1")
    answers = peers.send_copies(npm_shop, peers.signed_payment(npm_shop, wallet), 10)
    assert sorted(answer.status_code for answer in answers) == [200] + [402] * 9
    assert peers.transfers(local, npm_shop.payee) == [(wallet.address.lower(), peers.AMOUNT)]
    assert local.devnet.usdc_balance(wallet.address) == 1_000_000 - peers.AMOUNT
