"""What the tests with peers share: shops of both houses on loopback, buyers of both, and the chain as the judge."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
from eth_account import Account
from fastapi import FastAPI
from flask import Flask
from x402 import x402Client, x402ClientSync, x402ResourceServer, x402ResourceServerSync
from x402.http import FacilitatorConfig, HTTPFacilitatorClient, HTTPFacilitatorClientSync, PaymentOption, RouteConfig
from x402.http.middleware.fastapi import PaymentMiddlewareASGI
from x402.http.middleware.flask import payment_middleware
from x402.http.utils import decode_payment_required_header, encode_payment_signature_header
from x402.mechanisms.evm import EthAccountSigner
from x402.mechanisms.evm.exact import register_exact_evm_client, register_exact_evm_server
from x402.schemas import AssetAmount

from farthing.buyer import Policy
from farthing.clients import Buyer
from farthing.servers.asgi import PaymentMiddleware
from farthing.servers.seller import Seller
from farthing.servers.wsgi import PaidWSGI
from farthing.world.facilitator_client import RemoteFacilitator
from farthing.world.keys import LocalSigner
from farthing.world.loop import run_blocking

if TYPE_CHECKING:
    from tests.local_services import LocalServices, Wallet

# keccak("Transfer(address,address,uint256)"), as EIP-20 has it.
TRANSFER = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
PRICE = "$0.01"
AMOUNT = 10_000
PATH = "/report"
# One transfer is signed and mined in well under a second; a busy machine takes longer.
TIMEOUT_SECONDS = 60


class Shop(msgspec.Struct):
    """A seller on a socket: whom it pays, how often its handler ran, and how to say so."""

    url: str = ""
    payee: str = ""
    served: int = 0
    # What else happens while the work is done.
    meanwhile: Callable[[], object] | None = None
    # Where the shop is ours: the seller, whose books can be read.
    seller: Any = None
    lock: Any = msgspec.field(default_factory=threading.Lock)

    @property
    def report(self) -> str:
        """The URL that has a price."""
        return self.url + PATH

    def serve(self) -> dict[str, str]:
        """The work."""
        with self.lock:
            self.served += 1
        if self.meanwhile is not None:
            self.meanwhile()
        return {"report": "fair and warm"}


def transfers(local: LocalServices, payee: str) -> list[tuple[str, int]]:
    """Every transfer of the dollar to `payee`, from the chain: payer and atomic units."""
    topics = [TRANSFER, None, "0x" + payee[2:].lower().rjust(64, "0")]
    query = {"address": local.devnet.usdc, "fromBlock": "0x0", "toBlock": "latest", "topics": topics}
    logs = local.devnet.rpc("eth_getLogs", query)
    return [("0x" + log["topics"][1][-40:], int(log["data"], 16)) for log in logs]


def assert_paid(local: LocalServices, shop: Shop, *payers: Wallet) -> None:
    """One transfer of the price from each payer, and the balances that go with it; the handler ran as often."""
    expected = sorted((payer.address.lower(), AMOUNT) for payer in payers)
    assert sorted(transfers(local, shop.payee)) == expected
    assert local.devnet.usdc_balance(shop.payee) == AMOUNT * len(payers)
    assert shop.served == len(payers)


# Shops


def our_shop(
    local: LocalServices, *, wsgi: bool, payment_flow: Any = "authorization", facilitator_url: str = ""
) -> Shop:
    """Our seller, in front of FastAPI or Flask; it settles with our facilitator unless told another's URL."""
    shop = Shop(payee=local.wallet().address)

    facilitator = RemoteFacilitator(facilitator_url or local.facilitator_url)

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await facilitator.aclose()

    def make(url: str) -> Any:
        seller = Seller(
            pay_to=shop.payee,
            network=local.devnet.network,
            facilitator=facilitator,
            base_url=url,
            store=local.path("seller.sqlite3"),
            networks=local.networks,
        )
        shop.seller = seller
        local.at_end(seller.close)
        seller.price(f"GET {PATH}", PRICE, description="A report", payment_flow=payment_flow)
        if wsgi:
            flask = Flask("ours")
            flask.get(PATH)(shop.serve)
            local.at_end(lambda: run_blocking(facilitator.aclose()))
            return PaidWSGI(flask, seller)
        app = FastAPI(lifespan=lifespan)
        app.get(PATH)(shop.serve)
        return PaymentMiddleware(app, seller=seller)

    shop.url = local.serve(make, wsgi=wsgi)
    return shop


def official_routes(local: LocalServices, shop: Shop) -> dict[str, RouteConfig]:
    """The same price, in the official package's words."""
    price = AssetAmount(amount=str(AMOUNT), **local.asset)
    option = PaymentOption(
        scheme="exact",
        pay_to=shop.payee,
        price=price,
        network=local.devnet.network,
        max_timeout_seconds=TIMEOUT_SECONDS,
    )
    return {f"GET {PATH}": RouteConfig(accepts=option, description="A report", mime_type="application/json")}


def official_fastapi(local: LocalServices) -> Shop:
    """PyPI x402's server for FastAPI. It keeps no store."""
    shop = Shop(payee=local.wallet().address)

    def make(_url: str) -> Any:
        config = FacilitatorConfig(url=local.facilitator_url, timeout=TIMEOUT_SECONDS)
        server = register_exact_evm_server(x402ResourceServer(HTTPFacilitatorClient(config)))
        app = FastAPI()
        app.add_middleware(PaymentMiddlewareASGI, routes=official_routes(local, shop), server=server)
        app.get(PATH)(shop.serve)
        return app

    shop.url = local.serve(make)
    return shop


def official_flask(local: LocalServices) -> Shop:
    """PyPI x402's server for Flask. It keeps no store."""
    shop = Shop(payee=local.wallet().address)

    def make(_url: str) -> Any:
        config = FacilitatorConfig(url=local.facilitator_url, timeout=TIMEOUT_SECONDS)
        server = register_exact_evm_server(x402ResourceServerSync(HTTPFacilitatorClientSync(config)))
        app = Flask("theirs")
        payment_middleware(app, official_routes(local, shop), server)
        app.get(PATH)(shop.serve)
        return app

    shop.url = local.serve(make, wsgi=True)
    return shop


OUR_SHOPS: dict[str, Callable[[LocalServices], Shop]] = {
    "our ASGI": lambda local: our_shop(local, wsgi=False),
    "our WSGI": lambda local: our_shop(local, wsgi=True),
    "our ASGI, upfront": lambda local: our_shop(local, wsgi=False, payment_flow="upfront"),
    "our WSGI, upfront": lambda local: our_shop(local, wsgi=True, payment_flow="upfront"),
}
OFFICIAL_SHOPS: dict[str, Callable[[LocalServices], Shop]] = {
    "official FastAPI": official_fastapi,
    "official Flask": official_flask,
}


# Buyers


def our_buyer(local: LocalServices, wallet: Wallet) -> Buyer:
    """Our buyer, which may pay some cents on the devnet."""
    return Buyer(
        signer=LocalSigner(bytes.fromhex(wallet.key[2:])),
        policy=Policy(networks=[local.devnet.network], per_request="$0.05", total="$1"),
        journal=local.path("journal.sqlite3"),
        networks=local.networks,
    )


def _signer(wallet: Wallet) -> EthAccountSigner:
    return EthAccountSigner(Account.from_key(wallet.key))


def official_client(wallet: Wallet) -> x402Client:
    """The official buyer, whose own limits know the tokens of public networks only."""
    return register_exact_evm_client(
        x402Client().set_spend_controls(False), EthAccountSigner(Account.from_key(wallet.key))
    )


def official_client_sync(wallet: Wallet) -> x402ClientSync:
    """The official buyer's synchronous twin."""
    return register_exact_evm_client(
        x402ClientSync().set_spend_controls(False), EthAccountSigner(Account.from_key(wallet.key))
    )


def signed_payment(shop: Shop, wallet: Wallet) -> str:
    """One payment, signed by the official client, as its header."""

    async def story() -> str:
        async with httpx.AsyncClient() as http:
            offer = await http.get(shop.report)
        assert offer.status_code == 402
        required = decode_payment_required_header(offer.headers["payment-required"])
        return encode_payment_signature_header(await official_client(wallet).create_payment_payload(required))

    return asyncio.run(story())


def send_copies(
    shop: Shop, header: str, copies: int, *, header_name: str = "PAYMENT-SIGNATURE"
) -> list[httpx.Response]:
    """Send one payment many times at once."""

    async def story() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=copies)
        async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS, limits=limits) as http:
            requests_ = [http.get(shop.report, headers={header_name: header}) for _ in range(copies)]
            return list(await asyncio.gather(*requests_))

    return asyncio.run(story())
