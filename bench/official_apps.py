"""The official package's FastAPI server (PyPI `x402`) on the same work; it keeps nothing on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from x402 import x402ResourceServer
from x402.facilitator import x402Facilitator
from x402.http import PaymentOption, RouteConfig
from x402.http.middleware.fastapi import PaymentMiddlewareASGI
from x402.mechanisms.evm.exact import register_exact_evm_server
from x402.mechanisms.evm.exact.facilitator import ExactEvmScheme
from x402.mechanisms.evm.types import TransactionReceipt
from x402.schemas import AssetAmount, SettleResponse, SupportedKind, SupportedResponse, VerifyResponse

from bench.apps import FREE_PATH, PAID_PATH, WORK
from bench.purchases import CHAIN_ID, OFFER, RESOURCE, key

if TYPE_CHECKING:
    from pathlib import Path

_TRANSACTION = "0x" + "ab" * 32


class _Canned:
    """A facilitator that says yes to everything."""

    async def verify(self, *_: Any, **__: Any) -> VerifyResponse:
        return VerifyResponse(is_valid=True, payer=key(0).address)

    async def settle(self, *_: Any, **__: Any) -> SettleResponse:
        return SettleResponse(success=True, transaction=_TRANSACTION, network=OFFER.network, payer=key(0).address)

    def get_supported(self) -> SupportedResponse:
        return SupportedResponse(kinds=[SupportedKind(x402_version=2, scheme="exact", network=OFFER.network)])


class _Signer:
    """What the package asks of a node and a wallet, answered at once; it need not even sign a transaction."""

    def get_addresses(self) -> list[str]:
        return [key(0).address]

    def get_chain_id(self) -> int:
        return CHAIN_ID

    def get_code(self, address: str) -> bytes:
        # The asset is a contract, the payer is none.
        return b"\x60" if address == OFFER.asset else b""

    def read_contract(self, *_: Any) -> None:
        return None

    def write_contract(self, *_: Any, **__: Any) -> str:
        return _TRANSACTION

    def wait_for_transaction_receipt(self, tx_hash: str) -> TransactionReceipt:
        return TransactionReceipt(status=1, block_number=1, tx_hash=tx_hash)


def official(_folder: Path) -> Any:
    """The package's middleware with a canned facilitator."""
    return _app(_Canned())


def official_verified(_folder: Path) -> Any:
    """The package's middleware with the package's facilitator in the process, real but for the node."""
    facilitator: Any = x402Facilitator()
    facilitator.register([OFFER.network], ExactEvmScheme(signer=_Signer()))  # type: ignore[arg-type]
    return _app(facilitator)


def canned() -> Any:
    """A facilitator that says yes to everything."""
    return _Canned()


def wrapped(app: Any, facilitator: Any) -> Any:
    """Put the package's middleware around an application."""
    server = register_exact_evm_server(x402ResourceServer(facilitator))
    price = AssetAmount(amount=OFFER.amount, asset=OFFER.asset, extra=dict(OFFER.extra or {}))
    option = PaymentOption(
        scheme=OFFER.scheme,
        pay_to=OFFER.pay_to,
        price=price,
        network=OFFER.network,
        max_timeout_seconds=OFFER.max_timeout_seconds,
    )
    config = RouteConfig(accepts=option, description=RESOURCE.description, mime_type=RESOURCE.mime_type)
    return PaymentMiddlewareASGI(app, routes={f"GET {PAID_PATH}": config}, server=server)


def _app(facilitator: Any) -> Any:
    app = FastAPI()

    async def handler() -> dict[str, object]:
        return WORK

    app.get(PAID_PATH)(handler)
    app.get(FREE_PATH)(handler)
    return wrapped(app, facilitator)
