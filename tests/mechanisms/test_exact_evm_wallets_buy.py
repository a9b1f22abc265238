"""A contract wallet buys: buyer, seller and facilitator over HTTP, with the owner's 65 bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from exact_evm_market import Market
from exact_evm_wallets import deploy_wallet
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from farthing.buyer.policy import Policy
from farthing.clients.buyer import Buyer
from farthing.clients.httpx import PayingTransport
from farthing.errors import PaymentRefused
from farthing.evm.signatures import PrivateKey
from farthing.evm.signing import TypedMessage
from farthing.servers.asgi import PaymentMiddleware
from farthing.servers.seller import Seller
from farthing.world.facilitator_client import RemoteFacilitator

if TYPE_CHECKING:
    from tests.local_services import LocalServices

PAYEE = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"


class OwnersSigner:
    """Signs for a contract wallet with its owner's key."""

    def __init__(self, wallet: str, owner: PrivateKey) -> None:
        self.address = wallet
        self.owner = owner

    def sign_typed_data(self, message: TypedMessage) -> bytes:
        return self.owner.sign_typed_data(message)


@pytest.mark.parametrize("signs", [True, False])
def test_a_contract_wallet_buys_over_http(local: LocalServices, signs: bool) -> None:  # noqa: FBT001 - a parameter of pytest's
    market = Market(local.devnet)
    wallet = deploy_wallet(market, market.key.address)
    local.devnet.faucet(wallet, usdc=1)
    ran: list[str] = []

    async def work(_request: Any) -> PlainTextResponse:
        ran.append("work")
        return PlainTextResponse("sunny")

    def shop(url: str) -> Any:
        seller = Seller(
            pay_to=PAYEE,
            network=local.devnet.network,
            facilitator=RemoteFacilitator(local.facilitator_url),
            base_url=url,
            store=local.path("seller.sqlite"),
            networks=local.networks,
        )
        seller.price("GET /work", "$0.01")
        local.at_end(seller.close)
        return PaymentMiddleware(Starlette(routes=[Route("/work", work)]), seller=seller)

    url = local.serve(shop)
    buyer = Buyer(
        signer=OwnersSigner(wallet, market.key if signs else PrivateKey(b"\x51" * 32)),
        policy=Policy(networks=[local.devnet.network], hosts=["127.0.0.1"], per_request="$0.05", total="$1"),
        journal=local.path("journal.sqlite"),
        networks=local.networks,
    )
    before = local.devnet.usdc_balance(wallet)
    with httpx2.Client(transport=PayingTransport(buyer), timeout=60) as client:
        if signs:
            assert client.get(f"{url}/work").text == "sunny"
        else:
            with pytest.raises(PaymentRefused) as refused:
                client.get(f"{url}/work")
            assert refused.value.reason == "invalid_exact_evm_payload_signature"
    assert (ran, before - local.devnet.usdc_balance(wallet)) == ((["work"], 10_000) if signs else ([], 0))
