"""S3: what became of a payment whose facilitator does not tell, by the chain: settled, not settled, or not known."""

from __future__ import annotations

import asyncio
import base64
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from farthing_selling import KEY, TRANSACTION, CannedFacilitator, Shop, make_seller, unpack

from farthing.errors import FacilitatorUnavailable, NodeUnavailable
from farthing.evm.signing import SignTypedData
from farthing.flow import Now, drive
from farthing.mechanisms.exact_evm import ExactEvmBuyer
from farthing.mechanisms.interface import Traced
from farthing.protocol.codec import decode_payment_required, encode_payment
from farthing.protocol.facilitator import Settled, Unknown
from farthing.seller.looking import LookOnChain
from farthing.servers.looking import Looking
from farthing.world.facilitator_client import RemoteFacilitator

TARGET = "/weather/paris"
FLOWS = pytest.mark.parametrize("flow", ["authorization", "upfront"])
SETTLED = Traced(verdict="settled", says="settled", transaction=TRANSACTION, block_number=7)


class Mute(CannedFacilitator):  # type: ignore[misc] # typed as any here
    """Settles on a real chain by a real facilitator, and is cut off before it can tell; has no `/payments`, no keys."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.remote = RemoteFacilitator(url)

    async def verify(self, payment: Any, requirements: Any) -> Any:
        return await self.remote.verify(payment, requirements)

    async def settle(self, payment: Any, requirements: Any, *, idempotency_key: str) -> Any:
        assert isinstance(await self.remote.settle(payment, requirements, idempotency_key=idempotency_key), Settled)
        self.settled.append((idempotency_key, requirements))
        return Unknown("unexpected_settle_error")

    async def find(self, payment_id: str) -> Any:
        raise FacilitatorUnavailable(payment_id)


@pytest.fixture
def real(local: Any, tmp_path: Path) -> Iterator[Shop]:
    """A seller on the devnet, with a node of its own."""
    made = make_seller(
        tmp_path,
        facilitator := Mute(local.facilitator_url),
        pay_to=local.wallet().address,
        network=local.devnet.network,
        networks=local.networks,
        nodes={local.devnet.network: [local.devnet.url, local.devnet.url]},
    )
    local.devnet.faucet(KEY.address, usdc=1)
    made.price("GET /weather/{city}", "$0.01")
    made.price("GET /now", "$0.01", payment_flow="upfront")
    yield Shop("asgi", made, facilitator)
    made.close()


def sign(local: Any, required: str) -> list[tuple[str, str]]:
    offers = decode_payment_required(required)

    def perform(effect: Any) -> Any:
        if isinstance(effect, Now):
            return int(time.time())
        assert isinstance(effect, SignTypedData)
        return KEY.sign_typed_data(effect.message)

    flow = ExactEvmBuyer(local.networks).pay(
        offers.offers[0].requirements, payer=KEY.address, nonce=secrets.token_bytes(32)
    )
    payment = encode_payment(
        accepted=offers.offers[0].raw,
        payload=drive(flow, perform).payload,
        resource=offers.resource_raw,
        extensions=None,
    )
    return [("PAYMENT-SIGNATURE", base64.b64encode(payment).decode())]


@pytest.mark.parametrize("target", [TARGET, "/now"])
def test_S3_what_the_chain_shows_settled_and_final_is_served_once(local: Any, real: Shop, target: str) -> None:
    paid = sign(local, real.send("GET", target).header("payment-required"))
    got = real.send("GET", target, paid)
    assert (got.status, got.header("payment-required")) == (402, "")
    assert real.states == ["unknown"]
    local.devnet.mine(70)
    got = real.send("GET", target, paid)
    assert (got.status, got.body) == (200, b"sunny"), got.body
    receipt = local.devnet.rpc("eth_getTransactionReceipt", unpack(got.header("payment-response"))["transaction"])
    assert int(receipt["status"], 16) == 1
    assert real.send("GET", target, paid).status == 409
    assert (real.work.ran, len(real.seller.store.ledger()), len(real.facilitator.settled)) == (1, 1, 1)


def unknown(shop: Any, shown: Any, flow: str = "authorization", **options: Any) -> Any:
    """Have a payment be UNKNOWN, its facilitator away, and the chain show this."""
    shop.seller.price("GET /weather/{city}", "$0.01", payment_flow=flow, **options)
    shop.facilitator.outcomes = [Unknown("unexpected_settle_error")]
    shop.facilitator.found = FacilitatorUnavailable("has no /payments")
    shop.looks = []

    async def look(effect: LookOnChain) -> Any:
        shop.looks.append(effect)
        await asyncio.sleep(0)
        return shown

    shop.seller.performer = shop.seller.performer.with_({LookOnChain: look})
    shop.door = type(shop)(shop.kind, shop.seller, shop.facilitator).door
    paid = shop.pay("GET", TARGET)
    assert shop.send("GET", TARGET, paid).status == 402
    assert shop.states == ["unknown"]
    return paid


@pytest.mark.parametrize(
    ("shown", "reason"),
    [
        (Traced(verdict="not_settled", says="unused"), "invalid_exact_evm_payload_authorization_valid_before"),
        (Traced(verdict="not_settled", says="cancelled", transaction="0xc"), "invalid_exact_evm_nonce_already_used"),
    ],
)
def test_S3_what_the_chain_shows_not_settled_is_refused(shop: Any, shown: Traced, reason: str) -> None:
    paid = unknown(shop, shown)
    got = shop.send("GET", TARGET, paid)
    assert (got.status, got.header("payment-required")) == (402, "")
    (row,) = shop.seller.store.payments()
    assert (str(row.state), row.reason, row.transaction) == ("refused", reason, shown.transaction)


@pytest.mark.parametrize("shown", [None, Traced(verdict="open", says="its window is open")])
def test_S3_what_the_chain_does_not_show_stays_unknown(shop: Any, shown: Any) -> None:
    paid = unknown(shop, shown)
    got = shop.send("GET", TARGET, paid)
    assert (got.status, got.header("retry-after"), shop.states) == (402, "2", ["unknown"])
    (effect,) = shop.looks
    # No window is longer than the offer's 60 seconds.
    assert 0 <= time.time() - effect.recorded_at < 60
    assert shop.seller.store.ledger() == ()


@FLOWS
def test_S1_where_the_facilitator_takes_keys_the_chain_does_not_say_whose_settlement_it_was(
    shop: Any, flow: str
) -> None:
    shop.facilitator.extensions = ("idempotency-key",)
    paid = unknown(shop, SETTLED, flow)
    got = shop.send("GET", TARGET, paid)
    assert (got.status, shop.states, shop.seller.store.ledger()) == (402, ["unknown"], ())
    assert unpack(got.header("payment-response"))["transaction"] == TRANSACTION


def test_S6_what_the_chain_shows_settled_and_has_no_response_is_owed(shop: Any) -> None:
    paid = unknown(shop, SETTLED, store_response=False)
    got = shop.send("GET", TARGET, paid)
    assert (got.status, got.json["transaction"], shop.states) == (409, TRANSACTION, ["refund_due"])


@pytest.mark.parametrize("other", [NodeUnavailable("away"), Traced(verdict="open", says="open"), SETTLED])
def test_S3_two_nodes_that_disagree_show_nothing(shop: Any, monkeypatch: pytest.MonkeyPatch, other: Any) -> None:
    paid = unknown(shop, None)
    shop.send("GET", TARGET, paid)
    (effect,) = shop.looks
    network = effect.payment.accepted.network
    looking = Looking({network: ["http://one.example", "http://other.example"]})

    async def ask(_tracer: Any, _signed: Any, node: str, _recorded_at: int) -> Traced:
        await asyncio.sleep(0)
        if node.endswith("#1") and isinstance(other, Exception):
            raise other
        return other if node.endswith("#1") else SETTLED

    monkeypatch.setattr(looking, "_ask", ask)
    found = asyncio.run(looking.look(effect))
    assert found == (SETTLED if other is SETTLED else None)
    assert asyncio.run(Looking({}).look(effect)) is None
