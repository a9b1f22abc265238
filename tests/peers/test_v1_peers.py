"""Version 1 both ways, with its own packages: npm `x402-fetch` buys here, `x402-express` sells and settles here.

The chain has the id and the dollar of Base Sepolia, since version 1 knows networks by name; the keys are thrown away.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import httpx2
import peers
import pytest
from x402.http.clients import wrapHttpxWithPayment
from x402.http.utils import encode_payment_signature_header
from x402.schemas.v1 import PaymentRequiredV1

from farthing.clients.httpx import PayingTransport, receipt_of
from farthing.clients.requests import paying_session
from farthing.errors import PaymentRefused
from farthing.networks import KNOWN
from farthing.protocol.codec import decode_settlement
from farthing.services.devnet import start_devnet

if TYPE_CHECKING:
    from tests.local_services import LocalServices, Wallet
    from tests.peers.peers import Shop

NODE = Path(__file__).parents[1] / "node"
NAME = "base-sepolia"
CHAIN_ID = 84532
REPORT = {"report": "fair and warm"}


@pytest.fixture(scope="module")
def sepolia(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServices]:
    """A town on a chain that version 1 has a name for."""
    import local_services  # noqa: PLC0415 - it brings servers, which few tests need

    (dollar,) = KNOWN.tokens(f"eip155:{CHAIN_ID}")
    with (
        start_devnet("py-evm", chain_id=CHAIN_ID, token_address=dollar.address) as devnet,
        local_services.LocalServices(devnet, tmp_path_factory.mktemp("v1")) as services,
    ):
        yield services


@pytest.fixture(scope="module")
def express(sepolia: LocalServices, node_environment: dict[str, str]) -> Iterator[Shop]:
    """A seller with `x402-express`, a process of its own, that verifies and settles with our facilitator."""
    shop = peers.Shop(payee=sepolia.wallet().address)
    terms = {
        "facilitatorUrl": sepolia.facilitator_url,
        "network": NAME,
        "payTo": shop.payee,
        "price": peers.PRICE,
    }
    with subprocess.Popen(
        ["node", "sell_v1.mjs"],
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


def run_node(script: str, environment: dict[str, str], order: dict[str, str]) -> dict[str, Any]:
    """Run a script of tests/node, and give the JSON that it says."""
    ran = subprocess.run(
        ["node", script],
        cwd=NODE,
        env=environment,
        input=json.dumps(order),
        capture_output=True,
        text=True,
        timeout=peers.TIMEOUT_SECONDS,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    answer: dict[str, Any] = json.loads(ran.stdout)
    return answer


def x402_fetch(node_environment: dict[str, str], wallet: Wallet, url: str) -> dict[str, Any]:
    """Buy with npm `x402-fetch`."""
    return run_node("buy_v1.mjs", node_environment, {"url": url, "key": wallet.key, "network": NAME})


@pytest.mark.parametrize("name", peers.OUR_SHOPS)
def test_x402_fetch_buys_from_our_seller(sepolia: LocalServices, node_environment: dict[str, str], name: str) -> None:
    shop = peers.OUR_SHOPS[name](sepolia)
    wallet = sepolia.wallet(usdc="0.05")
    answer = x402_fetch(node_environment, wallet, shop.report)
    assert (answer["status"], json.loads(answer["body"])) == (200, REPORT)
    settled = answer["settled"]
    assert (settled["success"], settled["network"], settled["payer"].lower()) == (True, NAME, wallet.address.lower())
    receipt = sepolia.devnet.rpc("eth_getTransactionReceipt", settled["transaction"])
    assert receipt["status"] == "0x1"
    peers.assert_paid(sepolia, shop, wallet)
    assert sepolia.devnet.usdc_balance(wallet.address) == 50_000 - peers.AMOUNT


@pytest.mark.parametrize("name", ["our ASGI", "our WSGI"])
def test_buyers_of_version_2_are_not_led_astray_by_the_body(
    sepolia: LocalServices, node_environment: dict[str, str], name: str
) -> None:
    """npm `@x402/fetch`, PyPI's httpx client and ours find the header beside it."""
    shop = peers.OUR_SHOPS[name](sepolia)
    wallets = [sepolia.wallet(usdc="0.05") for _ in range(3)]
    bought = run_node("buy.mjs", node_environment, {"url": shop.report, "key": wallets[0].key})
    assert decode_settlement(bought["settled"]).network == f"eip155:{CHAIN_ID}"

    async def official() -> httpx.Response:
        client = peers.official_client(wallets[1])
        async with wrapHttpxWithPayment(client, timeout=peers.TIMEOUT_SECONDS) as http:
            answer: httpx.Response = await http.get(shop.report)
            return answer

    answers = [asyncio.run(official())]
    with (
        peers.our_buyer(sepolia, wallets[2]) as buyer,
        httpx.Client(transport=PayingTransport(buyer), timeout=peers.TIMEOUT_SECONDS) as http,
    ):
        answers.append(http.get(shop.report))
    for answer in answers:
        assert (answer.status_code, answer.json()) == (200, REPORT)
        assert decode_settlement(answer.headers["payment-response"]).success
        assert "x-payment-response" not in answer.headers
    peers.assert_paid(sepolia, shop, *wallets)


def test_x402_fetch_is_told_why_it_was_refused(sepolia: LocalServices, node_environment: dict[str, str]) -> None:
    shop = peers.OUR_SHOPS["our ASGI"](sepolia)
    answer = x402_fetch(node_environment, sepolia.wallet(), shop.report)
    assert answer["status"] == 402
    assert json.loads(answer["body"])["error"] == "insufficient_funds"
    assert answer["settled"] == {
        "success": False, "transaction": "", "network": NAME, "errorReason": "insufficient_funds",
        "payer": answer["settled"]["payer"],
    }  # fmt: skip
    assert shop.served == 0
    assert peers.transfers(sepolia, shop.payee) == []


def test_our_buyers_buy_from_x402_express_which_settles_with_our_facilitator(
    sepolia: LocalServices, express: Shop
) -> None:
    wallets = [sepolia.wallet(usdc="0.05") for _ in range(4)]
    before = served(express)
    for library, wallet in ((httpx, wallets[0]), (httpx2, wallets[1])):
        with (
            peers.our_buyer(sepolia, wallet) as buyer,
            library.Client(transport=PayingTransport(buyer), timeout=peers.TIMEOUT_SECONDS) as http,
        ):
            answer = http.get(express.report)
            assert (answer.status_code, answer.json()) == (200, REPORT)
            assert "payment-required" not in answer.headers
            assert_receipt(sepolia, receipt_of(answer))
            assert [each.state for each in buyer.journal.purchases()] == ["settled"]
    assert asyncio.run(_bought(sepolia, wallets[2], express.report)) == REPORT
    with peers.our_buyer(sepolia, wallets[3]) as buyer, paying_session(buyer) as session:
        assert session.get(express.report, timeout=peers.TIMEOUT_SECONDS).json() == REPORT
        assert [each.state for each in buyer.journal.purchases()] == ["settled"]
    paid = peers.transfers(sepolia, express.payee)
    assert {(wallet.address.lower(), peers.AMOUNT) for wallet in wallets} <= set(paid)
    assert served(express) == before + 4
    assert [sepolia.devnet.usdc_balance(each.address) for each in wallets] == [50_000 - peers.AMOUNT] * 4


async def _bought(local: LocalServices, wallet: Wallet, url: str) -> Any:
    with peers.our_buyer(local, wallet) as buyer:
        transport = PayingTransport(buyer)
        async with httpx2.AsyncClient(transport=transport, timeout=peers.TIMEOUT_SECONDS) as http:
            return (await http.get(url)).json()


def test_B4_the_reason_in_x402_expresss_body_is_told(sepolia: LocalServices, express: Shop) -> None:
    before = served(express)
    with (
        peers.our_buyer(sepolia, sepolia.wallet()) as buyer,
        httpx2.Client(transport=PayingTransport(buyer), timeout=peers.TIMEOUT_SECONDS) as http,
    ):
        with pytest.raises(PaymentRefused) as caught:
            http.get(express.report)
        assert caught.value.reason == "insufficient_funds"
        assert [each.state for each in buyer.journal.purchases()] == ["refused"]
    assert served(express) == before


def test_x402_fetch_buys_from_x402_express_with_our_facilitator_between(
    sepolia: LocalServices, node_environment: dict[str, str], express: Shop
) -> None:
    wallet = sepolia.wallet(usdc="0.05")
    answer = x402_fetch(node_environment, wallet, express.report)
    assert (answer["status"], answer["settled"]["success"], answer["settled"]["network"]) == (200, True, NAME)
    assert peers.transfers(sepolia, express.payee).count((wallet.address.lower(), peers.AMOUNT)) == 1
    assert sepolia.devnet.usdc_balance(wallet.address) == 50_000 - peers.AMOUNT


def signed_payment(shop: Shop, wallet: Wallet) -> str:
    """One payment of version 1, signed by PyPI's client for the offer in the body, as its header."""

    async def story() -> str:
        async with httpx.AsyncClient() as http:
            offer = await http.get(shop.report)
        required = PaymentRequiredV1.model_validate(offer.json())
        return encode_payment_signature_header(await peers.official_client(wallet).create_payment_payload(required))

    return asyncio.run(story())


def test_F1_ten_copies_through_x402_express_get_one_200(sepolia: LocalServices, express: Shop) -> None:
    wallet = sepolia.wallet(usdc="1")
    answers = peers.send_copies(express, signed_payment(express, wallet), 10, header_name="X-PAYMENT")
    assert sorted(answer.status_code for answer in answers) == [200] + [402] * 9
    assert peers.transfers(sepolia, express.payee).count((wallet.address.lower(), peers.AMOUNT)) == 1
    assert sepolia.devnet.usdc_balance(wallet.address) == 1_000_000 - peers.AMOUNT


@pytest.mark.parametrize("name", ["our ASGI", "our WSGI"])
def test_S1_ten_copies_of_one_version_1_payment_get_one_200(sepolia: LocalServices, name: str) -> None:
    shop = peers.OUR_SHOPS[name](sepolia)
    wallet = sepolia.wallet(usdc="1")
    answers = peers.send_copies(shop, signed_payment(shop, wallet), 10, header_name="X-PAYMENT")
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 9
    peers.assert_paid(sepolia, shop, wallet)
    assert all("payment-required" not in answer.headers for answer in answers)


def test_the_facilitator_names_its_kinds_in_both_versions(sepolia: LocalServices) -> None:
    kinds = httpx.get(sepolia.facilitator_url + "/supported").json()["kinds"]
    assert [(each["x402Version"], each["scheme"], each["network"]) for each in kinds] == [
        (2, "exact", f"eip155:{CHAIN_ID}"),
        (1, "exact", NAME),
    ]


def served(shop: Shop) -> int:
    """How often the handler in the other process ran."""
    return int(httpx.get(shop.url + "/served").json())


def assert_receipt(local: LocalServices, receipt: Any) -> None:
    assert receipt is not None
    assert (receipt.state, receipt.response.network) == ("settled", f"eip155:{CHAIN_ID}")
    mined = local.devnet.rpc("eth_getTransactionReceipt", receipt.transaction)
    assert mined["status"] == "0x1"
