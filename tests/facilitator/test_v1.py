"""The facilitator serves version 1: all is checked (F7), and success is told once, whichever version asks (F1)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from farthing.networks import KNOWN
from farthing.protocol import versions
from farthing.protocol.messages import PaymentRequired, ResourceInfo
from farthing.services.devnet import Devnet, start_devnet
from farthing.services.facilitator.app import make_app

if TYPE_CHECKING:
    from pathlib import Path

NAME = "base-sepolia"
CHAIN_ID = 84532


@pytest.fixture(scope="module")
def devnet_sepolia() -> Iterator[Devnet]:
    """A chain that version 1 has a name for; its keys are thrown away."""
    (dollar,) = KNOWN.tokens(f"eip155:{CHAIN_ID}")
    with start_devnet("py-evm", chain_id=CHAIN_ID, token_address=dollar.address) as devnet:
        yield devnet


@pytest.fixture
def sepolia(pyevm: Any, devnet_sepolia: Devnet, tmp_path: Path) -> Any:
    """A world on it."""
    return type(pyevm)(devnet_sepolia, tmp_path)


def request_of(payment: Any) -> dict[str, Any]:
    """What a version 1 seller asks about a payment."""
    required = PaymentRequired(ResourceInfo("https://shop.example/a"), (payment.requirements,))
    (offer,) = json.loads(versions.offer_body(required))["accepts"]
    assert offer["network"] == NAME
    said = json.loads(bytes(payment.payload.payload))
    return {
        "x402Version": 1,
        "paymentPayload": {"x402Version": 1, "scheme": "exact", "network": NAME, "payload": said},
        "paymentRequirements": offer,
    }


@asynccontextmanager
async def served(world: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with world.service() as service:
        transport = httpx.ASGITransport(make_app(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://facilitator", timeout=30) as client:
            yield client


def test_F1_success_is_told_once_to_either_version(sepolia: Any) -> None:
    payment = sepolia.payment()

    async def run() -> None:
        async with served(sepolia) as client:
            asked = request_of(payment)
            verdict = await client.post("/verify", json=asked)
            assert verdict.json() == {"isValid": True, "payer": sepolia.payer.address}
            settled = (await client.post("/settle", json=asked)).json()
            assert settled == {
                "success": True, "transaction": settled["transaction"], "network": NAME, "payer": sepolia.payer.address
            }  # fmt: skip
            receipt = sepolia.devnet.rpc("eth_getTransactionReceipt", settled["transaction"])
            assert receipt["status"] == "0x1"
            again = (await client.post("/settle", json=asked)).json()
            assert again == {**settled, "success": False, "errorReason": "duplicate_settlement"}
            newer = (await client.post("/settle", content=payment.body)).json()
            assert (newer["success"], newer["errorReason"]) == (False, "duplicate_settlement")
            assert (newer["network"], newer["transaction"]) == (f"eip155:{CHAIN_ID}", settled["transaction"])

    before = sepolia.balance(sepolia.payee)
    asyncio.run(run())
    assert sepolia.balance(sepolia.payee) - before == int(payment.requirements.amount)


def set_in(*path: str, to: Any) -> Callable[[Any], None]:
    def change(asked: Any) -> None:
        for key in path[:-1]:
            asked = asked[key]
        asked[path[-1]] = to

    return change


OTHER = "0x" + "22" * 20
PAYMENT, REQUIREMENTS = "paymentPayload", "paymentRequirements"
SIGNED = (PAYMENT, "payload", "authorization")
MUTATIONS = {
    "payment's network": (set_in(PAYMENT, "network", to="base"), "invalid_network"),
    "payment's scheme": (set_in(PAYMENT, "scheme", to="upto"), "unsupported_scheme"),
    "network": (set_in(REQUIREMENTS, "network", to="base"), "invalid_network"),
    "unknown network": (set_in(REQUIREMENTS, "network", to="solana"), None),
    "scheme": (set_in(REQUIREMENTS, "scheme", to="upto"), "unsupported_scheme"),
    "amount": (set_in(REQUIREMENTS, "maxAmountRequired", to="1"), "invalid_exact_evm_payload_authorization_value"),
    "payTo": (set_in(REQUIREMENTS, "payTo", to=OTHER), "invalid_exact_evm_payload_recipient_mismatch"),
    "asset": (set_in(REQUIREMENTS, "asset", to=OTHER), None),
    "extra.name": (set_in(REQUIREMENTS, "extra", "name", to="USD Coin"), None),
    "value": (set_in(*SIGNED, "value", to="1"), "invalid_exact_evm_payload_authorization_value"),
    "to": (set_in(*SIGNED, "to", to=OTHER), "invalid_exact_evm_payload_recipient_mismatch"),
    "from": (set_in(*SIGNED, "from", to=OTHER), "invalid_exact_evm_payload_signature"),
    "nonce": (set_in(*SIGNED, "nonce", to="0x" + "33" * 32), "invalid_exact_evm_payload_signature"),
    "validBefore": (set_in(*SIGNED, "validBefore", to="1"), "invalid_exact_evm_payload_authorization_valid_before"),
    "unreadable nonce": (set_in(*SIGNED, "nonce", to="0x33"), "invalid_payload"),
    "unreadable version": (set_in(PAYMENT, "x402Version", to=2), "invalid_x402_version"),
}


def test_F7_each_field_mutated_alone_is_refused_with_its_reason(sepolia: Any) -> None:
    payment = sepolia.payment()

    async def run() -> None:
        async with served(sepolia) as client:
            for field, (change, reason) in MUTATIONS.items():
                asked = request_of(payment)
                change(asked)
                verdict = await client.post("/verify", json=asked)
                assert (verdict.status_code, verdict.json()["isValid"]) == (200, False), field
                said = verdict.json()["invalidReason"]
                assert (said == reason) if reason else said, (field, said)
                outcome = await client.post("/settle", json=asked)
                assert (outcome.json()["success"], outcome.json()["errorReason"]) == (False, said), field
                assert outcome.json()["transaction"] == ""

    asyncio.run(run())
    assert sepolia.balance(sepolia.payee) == 0


def test_A3_what_the_seller_made_wrong_is_a_problem(sepolia: Any) -> None:
    payment = sepolia.payment()
    wrong: dict[str, Callable[[Any], object]] = {
        "$.paymentRequirements.maxAmountRequired": set_in(REQUIREMENTS, "maxAmountRequired", to="1e4"),
        "$.paymentRequirements.payTo": lambda asked: asked[REQUIREMENTS].pop("payTo"),
        "$.paymentRequirements": lambda asked: asked.pop(REQUIREMENTS),
    }

    async def run() -> None:
        async with served(sepolia) as client:
            for path, change in wrong.items():
                asked = request_of(payment)
                change(asked)
                answer = await client.post("/verify", json=asked)
                assert (answer.status_code, answer.json()["path"]) == (400, path)

    asyncio.run(run())
