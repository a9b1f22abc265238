"""The two facilitators of the bench `settle`, each over HTTP on a chain that runs: ours, and the official package's."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.requests import Request

# The chain and the hot wallet's key, as the parent names them.
URL, NETWORK, USDC, KEY = "BENCH_CHAIN_URL", "BENCH_CHAIN_NETWORK", "BENCH_CHAIN_USDC", "BENCH_WALLET_KEY"


def ours(folder: Path) -> Any:
    """`farthing facilitator`, as its configuration makes it."""
    from farthing.services.facilitator.app import make_app  # noqa: PLC0415 - only who serves it needs it
    from farthing.services.facilitator.config import load_config  # noqa: PLC0415 - likewise
    from farthing.services.facilitator.service import FacilitatorService  # noqa: PLC0415 - likewise

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "farthing.toml"
    path.write_text(_config(folder), "utf-8")
    service = FacilitatorService.from_config(load_config(path))
    inner = make_app(service)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncGenerator[None]:
        async with service:
            yield

    around = Starlette(lifespan=lifespan)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await (around if scope["type"] == "lifespan" else inner)(scope, receive, send)

    return app


def official(_folder: Path) -> Any:
    """A facilitator made from PyPI `x402`, as its own examples make one."""
    from x402.facilitator import x402Facilitator  # noqa: PLC0415 - slow, and per process
    from x402.mechanisms.evm import FacilitatorWeb3Signer  # noqa: PLC0415 - likewise
    from x402.mechanisms.evm.exact import register_exact_evm_facilitator  # noqa: PLC0415 - likewise
    from x402.schemas import PaymentPayload, PaymentRequirements  # noqa: PLC0415 - likewise

    facilitator: Any = x402Facilitator()
    signer = FacilitatorWeb3Signer(private_key=os.environ[KEY], rpc_url=os.environ[URL])
    register_exact_evm_facilitator(facilitator, signer, networks=os.environ[NETWORK])

    async def settle(request: Request) -> JSONResponse:
        body = await request.json()
        payment = PaymentPayload.model_validate(body["paymentPayload"])
        requirements = PaymentRequirements.model_validate(body["paymentRequirements"])
        found = await facilitator.settle(payment, requirements)
        return JSONResponse(found.model_dump(by_alias=True, exclude_none=True))

    return Starlette(routes=[Route("/settle", settle, methods=["POST"])])


def _config(folder: Path) -> str:
    return f"""
store = "{folder / "facilitator.sqlite3"}"
[wallet]
key_env = "{KEY}"
[server]
port = 0
[[network]]
id = "{os.environ[NETWORK]}"
rpc_urls = ["{os.environ[URL]}"]
[[network.token]]
address = "{os.environ[USDC]}"
symbol = "USDC"
decimals = 6
eip712_name = "USDC"
eip712_version = "2"
"""
