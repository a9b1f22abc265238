"""S7: with a payment-identifier a repeat gets the earlier answer; the id alone opens nothing."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import farthing_selling as selling
import pytest
from farthing_selling import Shop, make_seller, unpack

from farthing.errors import ConfigError
from farthing.protocol.facilitator import Refused, Unknown
from farthing.protocol.messages import VerifyResponse
from farthing.protocol.payment_identifier import NAME
from farthing.seller import identified

TARGET, OTHER = "/weather/paris", "/weather/rome"
ID = "order_0123456789abcdef"
Headers = list[tuple[str, str]]


@pytest.fixture
def priced(shop: Any) -> Any:
    shop.seller.price("GET /weather/{city}", "$0.01")
    shop.seller.price("POST /order", "$0.01", payment_identifier="required")
    return shop


def pay(shop: Any, target: str = TARGET, identifier: Any = ID, method: str = "GET") -> Headers:
    """Sign for the offer, and echo its extensions with an id."""
    offer = shop.send(method, target)
    assert offer.status == 402
    payment = unpack(selling.sign(offer.header("payment-required")))
    declared = unpack(offer.header("payment-required")).get("extensions", {}).get(NAME, {"info": {}})
    if identifier is not None:
        payment["extensions"] = {NAME: {**declared, "info": {**declared["info"], "id": identifier}}}
    return [("PAYMENT-SIGNATURE", selling.pack(payment))]


def with_identifier(paid: Headers, identifier: str | None) -> Headers:
    """Send the same signed payment under another id, or none."""
    payment = unpack(paid[0][1])
    if identifier is None:
        payment.pop("extensions", None)
    else:
        payment["extensions"] = {NAME: {"info": {"required": False, "id": identifier}}}
    return [("PAYMENT-SIGNATURE", base64.b64encode(json.dumps(payment).encode()).decode())]


def test_S7_the_offer_says_that_ids_are_taken(priced: Any) -> None:
    offered = unpack(priced.send("GET", TARGET).header("payment-required"))
    assert offered["extensions"][NAME]["info"] == {"required": False}
    required = unpack(priced.send("POST", "/order").header("payment-required"))
    assert required["extensions"][NAME]["info"] == {"required": True}


def test_S7_a_repeat_gets_the_earlier_answer_with_its_receipt(priced: Any) -> None:
    priced.work.headers.append(("x-kept", "yes"))
    paid = pay(priced)
    first = priced.send("GET", TARGET, paid)
    assert (first.status, first.body) == (200, b"sunny")
    assert priced.states == ["delivered"]
    priced.work.chunks = [b"rain"]
    for _ in range(3):
        again = priced.send("GET", TARGET, paid)
        assert (again.status, again.body) == (first.status, first.body)
        assert again.header("payment-response") == first.header("payment-response")
        assert again.header("x-kept") == "yes"
        assert again.header("cache-control") == "private"
    assert priced.work.ran == 1
    assert len(priced.facilitator.settled) == 1
    assert priced.states == ["delivered"]


def test_S7_the_id_is_looked_up_before_verification(priced: Any) -> None:
    paid = pay(priced)
    assert priced.send("GET", TARGET, paid).status == 200
    asked = priced.facilitator.verified
    priced.facilitator.verdict = RuntimeError("a settled payment can't be verified again")
    assert priced.send("GET", TARGET, paid).status == 200
    assert priced.send("GET", TARGET, pay(priced)).status == 409
    assert priced.facilitator.verified == asked


def test_S7_a_large_answer_is_given_again_from_its_file(priced: Any) -> None:
    body = b"x" * 200_000
    priced.work.chunks = [body]
    paid = pay(priced)
    for _ in range(2):
        assert priced.send("GET", TARGET, paid).body == body
    assert priced.work.ran == 1


def test_S7_the_same_id_with_another_payment_is_a_409_that_tells_nothing(priced: Any) -> None:
    first = pay(priced)
    assert priced.send("GET", TARGET, first).status == 200
    got = priced.send("GET", TARGET, pay(priced))
    assert got.status == 409
    assert b"sunny" not in got.body
    assert selling.TRANSACTION.encode() not in got.body
    assert (priced.work.ran, len(priced.facilitator.settled)) == (1, 1)
    assert priced.send("GET", TARGET, first).status == 200


def test_S7_the_same_id_with_another_request_is_a_409(priced: Any) -> None:
    paid = pay(priced)
    assert priced.send("GET", TARGET, paid).status == 200
    payment = unpack(paid[0][1])
    payment["resource"]["url"] = selling.BASE_URL + OTHER
    elsewhere = priced.send("GET", OTHER, [("PAYMENT-SIGNATURE", selling.pack(payment))])
    assert (elsewhere.status, priced.work.ran) == (409, 1)
    assert b"sunny" not in elsewhere.body


def test_S7_the_payment_alone_or_with_another_id_gets_nothing_again(priced: Any) -> None:
    paid = pay(priced)
    assert priced.send("GET", TARGET, paid).status == 200
    assert priced.states == ["delivered"]
    for other in (None, "another_0123456789"):
        got = priced.send("GET", TARGET, with_identifier(paid, other))
        assert (got.status, got.json["type"]) == (409, "urn:farthing:problem:payment-used")
    assert priced.send("GET", TARGET, paid).body == b"sunny"


def test_S7_an_id_that_nobody_paid_with_binds_nothing(priced: Any) -> None:
    forged = unpack(pay(priced)[0][1])
    forged["payload"]["signature"] = "0x" + "11" * 65
    priced.facilitator.verdict = selling.VerifyResponse(is_valid=False, invalid_reason="invalid_signature")
    assert priced.send("GET", TARGET, [("PAYMENT-SIGNATURE", selling.pack(forged))]).status == 402
    priced.facilitator.verdict = selling.VerifyResponse(is_valid=True)
    assert priced.send("GET", TARGET, pay(priced)).status == 200


def test_S7_the_scope_is_the_route(priced: Any) -> None:
    assert priced.send("GET", TARGET, pay(priced)).status == 200
    assert priced.send("POST", "/order", pay(priced, "/order", method="POST")).status == 200


def test_S7_the_scope_is_the_payer(priced: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert priced.send("GET", TARGET, pay(priced)).status == 200
    monkeypatch.setattr(selling, "KEY", selling.PrivateKey(bytes.fromhex("22" * 32)))
    assert priced.send("GET", TARGET, pay(priced)).status == 200


@pytest.mark.parametrize("identifier", ["short", "x" * 129, 7, "with space 0123456789", ""])
def test_S7_S10_what_is_no_id_gets_400(priced: Any, identifier: Any) -> None:
    got = priced.send("GET", TARGET, pay(priced, identifier=identifier))
    assert (got.status, got.json["field"]) == (400, f"$.extensions.{NAME}.info.id")
    assert priced.facilitator.verified == 0


def test_S7_required_and_missing_gets_400(priced: Any) -> None:
    got = priced.send("POST", "/order", pay(priced, "/order", None, "POST"))
    assert (got.status, got.json["field"]) == (400, f"$.extensions.{NAME}.info.id")
    assert (priced.work.ran, priced.facilitator.verified) == (0, 0)


def test_S7_the_id_of_work_that_failed_is_free_again(priced: Any) -> None:
    priced.work.status = 500
    assert priced.send("GET", TARGET, pay(priced)).status == 500
    priced.work.status = 200
    assert priced.send("GET", TARGET, pay(priced)).status == 200
    assert priced.states.count("void") == 1


def test_S7_a_pending_payment_is_named_and_then_repeated(priced: Any) -> None:
    priced.facilitator.outcomes = [Unknown("settlement_pending", "", selling.TRANSACTION)]
    paid = pay(priced)
    assert priced.send("GET", TARGET, paid).status == 402
    assert priced.send("GET", TARGET, pay(priced)).status == 409
    priced.facilitator.found = selling.found(priced.facilitator.settled[0][1], "confirmed")
    for _ in range(2):
        assert priced.send("GET", TARGET, paid).body == b"sunny"
    assert priced.work.ran == 1


def test_S7_a_refused_payment_stays_refused_under_its_id(priced: Any) -> None:
    priced.facilitator.outcomes = [Refused("insufficient_funds")]
    paid = pay(priced)
    assert [priced.send("GET", TARGET, paid).status for _ in range(2)] == [402, 402]
    assert priced.send("GET", TARGET, pay(priced)).status == 409


def test_S7_copies_at_once_wait_for_the_first_and_get_its_answer(seller: Any, facilitator: Any) -> None:
    shop = Shop("asgi", seller, facilitator)
    seller.price("GET /weather/{city}", "$0.01")
    paid = pay(shop)

    async def storm() -> list[selling.Got]:
        facilitator.hold = asyncio.Event()
        copies = [asyncio.ensure_future(selling.acall(shop.door, "GET", TARGET, paid)) for _ in range(20)]
        asyncio.get_running_loop().call_later(0.3, facilitator.hold.set)
        return await asyncio.gather(*copies)

    got = asyncio.run(storm())
    assert [(each.status, each.body) for each in got] == [(200, b"sunny")] * 20
    assert len({each.header("payment-response") for each in got}) == 1
    assert (shop.work.ran, len(facilitator.settled)) == (1, 1)


def test_S7_on_two_replicas_of_one_store(tmp_path: Path, facilitator: Any) -> None:
    replicas = [Shop("asgi", make_seller(tmp_path, facilitator), facilitator) for _ in range(2)]
    for replica in replicas:
        replica.seller.price("GET /weather/{city}", "$0.01")
    first, second = replicas
    paid = pay(first)

    async def storm() -> list[selling.Got]:
        doors = [first.door, second.door] * 5
        return await asyncio.gather(*(selling.acall(door, "GET", TARGET, paid) for door in doors))

    got = asyncio.run(storm())
    assert [(each.status, each.body) for each in got] == [(200, b"sunny")] * 10
    assert first.work.ran + second.work.ran == 1
    assert len(facilitator.settled) == 1
    assert second.send("GET", TARGET, pay(second)).status == 409
    for replica in replicas:
        replica.seller.close()


def test_S7_of_two_payments_with_one_id_at_once_one_is_claimed(seller: Any, facilitator: Any) -> None:
    shop = Shop("asgi", seller, facilitator)
    seller.price("GET /weather/{city}", "$0.01")
    payments = [pay(shop) for _ in range(6)]

    async def storm() -> list[int]:
        answers = await asyncio.gather(*(selling.acall(shop.door, "GET", TARGET, paid) for paid in payments))
        return sorted(each.status for each in answers)

    assert asyncio.run(storm()) == [200] + [409] * 5
    assert (shop.work.ran, len(facilitator.settled)) == (1, 1)


def test_S7_who_waits_does_not_wait_for_a_crashed_process(priced: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Crash(BaseException):
        """The process ends."""

    def crash() -> None:
        raise Crash

    paid = pay(priced)
    priced.facilitator.on_settle = crash
    with pytest.raises(Crash):
        priced.send("GET", TARGET, paid)
    monkeypatch.setattr(identified, "WAIT_SECONDS", 0.1)
    got = priced.send("GET", TARGET, paid)
    assert (got.status, got.header("retry-after")) == (409, "2")
    priced.expire_leases()
    priced.facilitator.found = selling.found(priced.facilitator.settled[0][1], "final")
    for _ in range(2):
        got = priced.send("GET", TARGET, paid)
        assert (got.status, got.body, priced.work.ran) == (200, b"sunny", 1)


@pytest.mark.parametrize("options", [{"payment_flow": "upfront"}, {"store_response": False}], ids=str)
def test_S7_a_route_that_keeps_no_response_takes_no_ids(shop: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="keeps no response"):
        shop.seller.price("GET /bad", "$0.01", payment_identifier="required", **options)
    shop.seller.price("GET /weather/{city}", "$0.01", **options)
    assert "extensions" not in unpack(shop.send("GET", TARGET).header("payment-required"))
    paid = pay(shop)
    assert [shop.send("GET", TARGET, paid).status for _ in range(2)] == [200, 409]


def test_a_word_that_says_nothing_is_refused_where_it_is_written(seller: Any) -> None:
    with pytest.raises(ConfigError, match=r"test_identifier\.py.*payment_identifier"):
        seller.price("GET /bad", "$0.01", payment_identifier="maybe")


def test_S7_an_id_that_the_facilitator_knows_of_another_payment_gets_no_new_offer(priced: Any) -> None:
    priced.facilitator.verdict = VerifyResponse(is_valid=False, invalid_reason="payment_identifier_conflict")
    got = priced.send("GET", TARGET, pay(priced))
    assert (got.status, got.header("payment-required")) == (409, "")
    assert (got.json["type"], priced.work.ran) == ("urn:farthing:problem:payment-conflict", 0)
