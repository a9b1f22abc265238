"""The 402 that is remembered is the one that would be made: for the same request, at fixed prices, and no other."""

from __future__ import annotations

from typing import Any

import pytest
from farthing_selling import buy, call, unpack

from farthing.servers.asgi import PaymentMiddleware
from farthing.servers.seller import Seller

PATH = "/weather/paris"


class Work:
    """An application that counts."""

    def __init__(self) -> None:
        self.ran = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.ran += 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"sunny"})


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def door(seller: Seller, work: Work) -> PaymentMiddleware:
    seller.price("GET,POST /weather/{city}", "$0.01")
    return PaymentMiddleware(work, seller=seller)


def test_the_second_answer_is_the_first(door: Any, work: Work) -> None:
    first, second = call(door, "GET", PATH), call(door, "GET", PATH)
    assert first.status == second.status == 402
    assert (first.headers, first.body) == (second.headers, second.body)
    assert work.ran == 0


def test_each_address_and_method_has_its_own(door: Any) -> None:
    for _ in range(2):
        for target in (PATH, PATH + "?units=c", "/weather/rome"):
            got = call(door, "GET", target)
            assert unpack(got.header("payment-required"))["resource"]["url"] == "https://api.example.com" + target
        assert call(door, "PUT", PATH).status != 402
        assert call(door, "HEAD", PATH).body == b""


def test_who_pays_is_served(door: Any, work: Work) -> None:
    call(door, "GET", PATH)
    assert buy(door, "GET", PATH).status == 200
    assert work.ran == 1


@pytest.mark.parametrize("name", ["payment-signature", "Payment-Signature", "X-PAYMENT"])
def test_a_payment_that_can_not_be_read_is_not_taken_for_none(door: Any, name: str) -> None:
    call(door, "GET", PATH)
    assert call(door, "GET", PATH, [(name, "junk!")]).status == 400


def test_S5_a_method_override_is_refused_as_before(door: Any) -> None:
    call(door, "GET", PATH)
    assert call(door, "GET", PATH, [("x-http-method-override", "POST")]).status == 400
    assert call(door, "GET", PATH + "?_method=POST").status == 400


def test_a_browser_gets_its_page(door: Any) -> None:
    call(door, "GET", PATH)
    assert "text/html" in call(door, "GET", PATH, [("accept", "text/html")]).header("content-type")
    assert "json" in call(door, "GET", PATH).header("content-type")


def test_a_callable_price_is_asked_each_time(seller: Seller, work: Work) -> None:
    asked: list[str] = []

    def price(facts: Any) -> str:
        asked.append(facts.path)
        return f"$0.0{len(asked)}"

    seller.price("GET /dear", price)
    door = PaymentMiddleware(work, seller=seller)
    amounts = [unpack(call(door, "GET", "/dear").header("payment-required"))["accepts"][0]["amount"] for _ in "12"]
    assert amounts == ["10000", "20000"]


def test_a_route_that_is_priced_later_counts(door: Any, seller: Seller) -> None:
    call(door, "GET", PATH)
    seller.price(f"GET {PATH}", "$0.05")
    assert unpack(call(door, "GET", PATH).header("payment-required"))["accepts"][0]["amount"] == "50000"


def test_what_stands_before_the_door_may_change_its_copy(door: Any) -> None:
    async def changing(scope: Any, receive: Any, send: Any) -> None:
        async def changed(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append((b"x-before", b"1"))
            await send(message)

        await door(scope, receive, changed)

    for _ in range(3):
        assert call(changing, "GET", PATH).header("x-before") == "1"


def test_A1_what_is_remembered_is_bounded(door: Any) -> None:
    for number in range(600):
        assert call(door, "GET", f"/weather/{number}").status == 402
    assert len(door._unpaid._answers) <= 256
    assert call(door, "GET", "/weather/" + "x" * 600).status == 402
    assert len(door.seller.routes._remembered) <= 1024
