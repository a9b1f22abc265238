"""PyPI `x402`'s clients of a facilitator, async and not, against `farthing facilitator` with a bearer token."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import local_services
import peers
import pytest
from x402.http import FacilitatorConfig, HTTPFacilitatorClient, HTTPFacilitatorClientSync
from x402.http.facilitator_client_base import CreateHeadersAuthProvider
from x402.http.utils import decode_payment_signature_header

if TYPE_CHECKING:
    from tests.local_services import LocalServices, Wallet
    from tests.peers.peers import Shop

TOKEN = "the-token-of-a-shop-with-an-official-server"
OPERATIONS = ["verify", "settle", "supported"]
CLIENTS = {"async": HTTPFacilitatorClient, "sync": HTTPFacilitatorClientSync}


class GuardedServices(local_services.LocalServices):  # type: ignore[misc] # found on sys.path, not by mypy
    """The town, with a facilitator that asks for a token."""

    def facilitator_config(self, store: str = "") -> str:
        digest = hashlib.sha256(TOKEN.encode()).hexdigest()
        tokens = f'port = 0\n[[server.tokens]]\nname = "shop"\nsha256 = "{digest}"\n'
        return str(super().facilitator_config(store)).replace("port = 0\n", tokens)


@pytest.fixture(scope="module")
def guarded(local: LocalServices, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServices]:
    """The town of the session, and a guarded facilitator in it."""
    with GuardedServices(local.devnet, tmp_path_factory.mktemp("guarded")) as services:
        yield services


@pytest.fixture(scope="module")
def shop(local: LocalServices) -> Shop:
    """Somebody whose offers are signed for."""
    shop: Shop = peers.our_shop(local, wsgi=False)
    return shop


class Client:
    """Either official client, called alike."""

    def __init__(self, kind: str, config: FacilitatorConfig | dict[str, Any]) -> None:
        self._client = CLIENTS[kind](config)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)

        def call(*arguments: Any) -> Any:
            return (
                asyncio.run(self._awaited(method, arguments))
                if inspect.iscoroutinefunction(method)
                else method(*arguments)
            )

        return call

    async def _awaited(self, method: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        # Each call has an event loop of its own, and connections belong to a loop.
        assert isinstance(self._client, HTTPFacilitatorClient)
        try:
            return await method(*arguments)
        finally:
            await self._client.aclose()


def create_headers() -> dict[str, dict[str, str]]:
    """What `create_headers` gives: headers for each endpoint."""
    return {operation: {"Authorization": f"Bearer {TOKEN}"} for operation in OPERATIONS}


def with_provider(url: str) -> FacilitatorConfig:
    """The token by an auth provider."""
    return FacilitatorConfig(url=url, auth_provider=CreateHeadersAuthProvider(create_headers))


def with_function(url: str) -> dict[str, Any]:
    """The token by `create_headers`, as hosted facilitators have it configured."""
    return {"url": url, "create_headers": create_headers}


def payment_of(shop: Shop, wallet: Wallet) -> tuple[Any, Any]:
    """A payment of the official client and the requirements that it is for."""
    payload: Any = decode_payment_signature_header(peers.signed_payment(shop, wallet))
    return payload, payload.accepted


@pytest.mark.parametrize("config", [with_provider, with_function], ids=["auth_provider", "create_headers"])
@pytest.mark.parametrize("kind", CLIENTS)
def test_the_official_client_verifies_and_settles_with_its_token(
    guarded: LocalServices, shop: Shop, kind: str, config: Callable[[str], Any]
) -> None:
    client = Client(kind, config(guarded.facilitator_url))
    wallet = guarded.wallet(usdc="0.05")
    before = len(peers.transfers(guarded, shop.payee))
    supported = client.get_supported()
    assert (2, "exact", guarded.devnet.network) in {
        (each.x402_version, each.scheme, each.network) for each in supported.kinds
    }
    assert list(supported.signers) == ["eip155:*"]

    payload, requirements = payment_of(shop, wallet)
    verdict = client.verify(payload, requirements)
    assert (verdict.is_valid, verdict.payer.lower()) == (True, wallet.address.lower())
    assert len(peers.transfers(guarded, shop.payee)) == before
    settled = client.settle(payload, requirements)
    assert (settled.success, settled.network) == (True, guarded.devnet.network)
    assert guarded.devnet.rpc("eth_getTransactionReceipt", settled.transaction)["status"] == "0x1"
    assert len(peers.transfers(guarded, shop.payee)) == before + 1
    assert guarded.devnet.usdc_balance(wallet.address) == 50_000 - peers.AMOUNT

    again = client.settle(payload, requirements)
    assert (again.success, again.error_reason) == (False, "duplicate_settlement")
    assert again.transaction == settled.transaction
    used = client.verify(payload, requirements)
    assert (used.is_valid, used.invalid_reason) == (False, "invalid_exact_evm_nonce_already_used")
    assert guarded.devnet.usdc_balance(wallet.address) == 50_000 - peers.AMOUNT


@pytest.mark.parametrize("kind", CLIENTS)
def test_the_official_client_sends_raw_bytes(guarded: LocalServices, shop: Shop, kind: str) -> None:
    client = Client(kind, with_function(guarded.facilitator_url))
    wallet = guarded.wallet(usdc="0.05")
    raw = [each.model_dump_json(by_alias=True, exclude_none=True).encode() for each in payment_of(shop, wallet)]
    assert client.verify_from_bytes(*raw).is_valid
    assert client.settle_from_bytes(*raw).success
    assert guarded.devnet.usdc_balance(wallet.address) == 50_000 - peers.AMOUNT


@pytest.mark.parametrize("kind", CLIENTS)
def test_the_official_client_reads_our_refusals(guarded: LocalServices, shop: Shop, kind: str) -> None:
    client = Client(kind, with_function(guarded.facilitator_url))
    poor = guarded.wallet()
    payload, requirements = payment_of(shop, poor)
    before = len(peers.transfers(guarded, shop.payee))
    verdict = client.verify(payload, requirements)
    assert (verdict.is_valid, verdict.invalid_reason) == (False, "insufficient_funds")
    outcome = client.settle(payload, requirements)
    assert (outcome.success, outcome.error_reason, outcome.transaction) == (False, "insufficient_funds", "")
    assert len(peers.transfers(guarded, shop.payee)) == before


@pytest.mark.parametrize("kind", CLIENTS)
def test_the_official_client_without_the_token_settles_nothing(guarded: LocalServices, shop: Shop, kind: str) -> None:
    def wrong() -> dict[str, dict[str, str]]:
        return {operation: {"Authorization": "Bearer of-somebody-else"} for operation in OPERATIONS}

    wallet = guarded.wallet(usdc="0.05")
    payment = payment_of(shop, wallet)
    for config in ({"url": guarded.facilitator_url}, {"url": guarded.facilitator_url, "create_headers": wrong}):
        client = Client(kind, config)
        # What is supported is for all to know; the rest is not. The official client raises for any other status.
        assert client.get_supported().kinds
        for ask in (client.verify, client.settle):
            with pytest.raises(ValueError, match="401"):
                ask(*payment)
    assert guarded.devnet.usdc_balance(wallet.address) == 50_000
