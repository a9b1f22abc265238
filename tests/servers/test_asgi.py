from __future__ import annotations

import asyncio
import json
from typing import Any

import farthing_selling as selling
import pytest
from farthing_selling import acall, buy, call, sign, unpack

from farthing.seller.states import State
from farthing.servers.asgi import PaymentMiddleware


class Handler:
    """A bare application: answers what it is told to, and counts."""

    def __init__(self) -> None:
        self.ran = 0
        self.status = 200
        self.headers: list[tuple[bytes, bytes]] = [(b"content-type", b"text/plain")]
        self.chunks: list[bytes] = [b"sunny"]
        self.payments: list[Any] = []
        self.error: Exception | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.ran += 1
        self.payments.append(scope.get("farthing.payment"))
        if self.error is not None:
            raise self.error
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        for chunk in self.chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


@pytest.fixture
def handler() -> Handler:
    return Handler()


@pytest.fixture
def door(seller: Any, handler: Handler) -> PaymentMiddleware:
    seller.price("GET /weather/{city}", "$0.01", description="The weather", mime_type="text/plain")
    return PaymentMiddleware(handler, seller=seller)


def test_an_unpriced_path_passes(door: Any, handler: Handler) -> None:
    got = call(door, "GET", "/free")
    assert (got.status, got.body, handler.ran) == (200, b"sunny", 1)


def test_an_unpaid_request_gets_the_offer(door: Any, handler: Handler) -> None:
    got = call(door, "GET", "/weather/paris?units=c")
    assert got.status == 402
    assert handler.ran == 0
    offer = unpack(got.header("payment-required"))
    assert json.loads(got.body) == offer
    assert offer["x402Version"] == 2
    assert offer["resource"]["url"] == "https://api.example.com/weather/paris?units=c"
    (accepts,) = offer["accepts"]
    assert accepts["amount"] == "10000"
    assert accepts["extra"] == {"name": "USDC", "version": "2"}
    assert got.header("cache-control") == "no-store"


def test_a_paid_request_is_served_and_settled_once(door: Any, handler: Handler, facilitator: Any, seller: Any) -> None:
    got = buy(door, "GET", "/weather/paris")
    assert (got.status, got.body) == (200, b"sunny")
    assert unpack(got.header("payment-response"))["transaction"] == selling.TRANSACTION
    assert len(facilitator.settled) == 1
    assert handler.ran == 1
    (payment,) = handler.payments
    assert payment.amount == 10_000
    assert payment.payer == selling.address()
    (row,) = seller.store.payments()
    assert row.payment_id == payment.payment_id
    (entry,) = seller.store.ledger()
    assert (entry.amount, entry.transaction) == (10_000, selling.TRANSACTION)


def test_a_used_payment_is_refused_naming_it(door: Any, handler: Handler, facilitator: Any, seller: Any) -> None:
    offer = call(door, "GET", "/weather/paris")
    paid = [("PAYMENT-SIGNATURE", sign(offer.header("payment-required")))]
    assert call(door, "GET", "/weather/paris", paid).status == 200
    again = call(door, "GET", "/weather/paris", paid)
    assert again.status == 409
    assert again.json["paymentId"].startswith("pay_")
    assert again.json["transaction"] == selling.TRANSACTION
    assert handler.ran == 1
    assert len(facilitator.settled) == 1
    seller.store.flush()
    assert [row.state for row in seller.store.payments()] == [State.DELIVERED]


def test_copies_at_once_share_a_verification_and_run_once(door: Any, handler: Handler, facilitator: Any) -> None:
    async def storm() -> list[Any]:
        offer = await acall(door, "GET", "/weather/paris")
        paid = [("PAYMENT-SIGNATURE", sign(offer.header("payment-required")))]
        return await asyncio.gather(*(acall(door, "GET", "/weather/paris", paid) for _ in range(50)))

    got = asyncio.run(storm())
    assert sorted(each.status for each in got) == [200] + [409] * 49
    assert handler.ran == 1
    assert facilitator.verified == 1
    assert len(facilitator.settled) == 1
    assert all(each.json["paymentId"].startswith("pay_") for each in got if each.status == 409)
