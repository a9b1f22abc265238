"""S2, S3, S4, S6, S8, S10, S11: what no change at the seller may break, through both doors, by both drivers."""

from __future__ import annotations

import copy
import json
from typing import Any

import farthing_selling as selling
import pytest
from farthing_selling import TRANSACTION, found, pack, success, unpack
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farthing.errors import FacilitatorUnavailable
from farthing.protocol.facilitator import Refused, Unknown, read_settlement
from farthing.protocol.messages import SettlementResponse, VerifyResponse
from farthing.seller.pricing import Amount, Facts, Terms
from farthing.servers.seller import OfferTooLarge

ROUTE = "GET /weather/{city}"
TARGET = "/weather/paris"


@pytest.fixture
def priced(shop: Any) -> Any:
    shop.seller.price(ROUTE, "$0.01")
    return shop


# S2: nothing is served on a settlement that did not succeed; nothing is charged when the handler fails.

GOOD = json.dumps({"success": True, "transaction": TRANSACTION, "network": selling.NETWORK}).encode()
NOT_SETTLED = [
    (502, b"<html>Bad Gateway</html>"),
    (503, GOOD),
    (500, GOOD),
    (200, GOOD[:40]),
    (200, b"All good, money's in the post."),
    (200, b'"success"'),
    (200, b'{"success": "true", "transaction": "0x1", "network": "eip155:84532"}'),
    (200, b'{"success": true, "transaction": "", "network": "eip155:84532"}'),
    (200, b'{"success": true, "transaction": "0x01", "network": "eip155:1"}'),
    (200, b'{"success": false, "errorReason": "settlement_pending", "transaction": "0x01", "network": "eip155:84532"}'),
    (200, b'{"success": false, "errorReason": "insufficient_funds", "transaction": "", "network": "eip155:84532"}'),
    (404, b'{"detail": "Not Found"}'),
]


@pytest.mark.parametrize(("status", "body"), NOT_SETTLED)
@pytest.mark.parametrize("flow", ["authorization", "upfront"])
def test_S2_nothing_is_served_on_a_settlement_that_did_not_succeed(
    shop: Any, flow: Any, status: int, body: bytes
) -> None:
    shop.seller.price(ROUTE, "$0.01", payment_flow=flow)
    shop.facilitator.outcomes = [read_settlement(status, body)]
    got = shop.buy("GET", TARGET)
    assert got.status == 402
    assert b"sunny" not in got.body
    assert got.header("payment-required") == ""
    assert unpack(got.header("payment-response"))["success"] is False
    assert shop.seller.store.ledger() == ()
    assert shop.states in (["unknown"], ["refused"])


@pytest.mark.parametrize("flow", ["authorization", "upfront"])
def test_S2_a_facilitator_that_breaks_is_not_believed(shop: Any, flow: Any) -> None:
    shop.seller.price(ROUTE, "$0.01", payment_flow=flow)
    shop.facilitator.outcomes = [RuntimeError("cut")]
    got = shop.buy("GET", TARGET)
    assert got.status == 402
    assert shop.states == ["unknown"]
    assert b"sunny" not in got.body


@pytest.mark.parametrize("status", [199 + 101, 301, 304, 400, 404, 500, 503])
def test_S2_nothing_is_charged_when_the_handler_fails(priced: Any, status: int) -> None:
    priced.work.status = status
    priced.work.headers = [("location", "/elsewhere"), ("set-cookie", "a=1"), ("set-cookie", "b=2")]
    got = priced.buy("GET", TARGET)
    assert got.status == status
    assert got.body == b"sunny"
    assert [value for name, value in got.headers if name == "set-cookie"] == ["a=1", "b=2"]
    assert got.header("payment-response") == ""
    assert priced.facilitator.settled == []
    assert priced.states == ["void"]


@pytest.mark.parametrize("after", [-1, 0, 1])
def test_S2_nothing_is_charged_when_the_handler_raises(priced: Any, after: int) -> None:
    priced.work.error, priced.work.error_after = RuntimeError("broken"), after
    paid = priced.pay("GET", TARGET)
    with pytest.raises(RuntimeError, match="broken"):
        priced.send("GET", TARGET, paid)
    assert priced.facilitator.settled == []
    assert priced.states == ["void"]
    priced.work.error = None
    assert priced.send("GET", TARGET, paid).status == 200
    assert len(priced.facilitator.settled) == 1


def test_S2_upfront_a_failed_handler_leaves_the_payment_owed(shop: Any) -> None:
    shop.seller.price(ROUTE, "$0.01", payment_flow="upfront")
    paid = shop.pay("GET", TARGET)
    shop.work.status = 500
    assert shop.send("GET", TARGET, paid).status == 500
    assert shop.states == ["owed"]
    shop.work.status, shop.work.error = 200, RuntimeError("broken")
    with pytest.raises(RuntimeError, match="broken"):
        shop.send("GET", TARGET, paid)
    shop.work.error = None
    got = shop.send("GET", TARGET, paid)
    assert (got.status, got.body) == (200, b"sunny")
    assert unpack(got.header("payment-response"))["transaction"] == TRANSACTION
    assert len(shop.facilitator.settled) == 1
    assert shop.states == ["delivered"]
    assert len(shop.seller.store.ledger()) == 1


def test_S2_upfront_runs_are_bounded_and_end_in_a_refund(shop: Any) -> None:
    shop.seller.price(ROUTE, "$0.01", payment_flow="upfront")
    paid = shop.pay("GET", TARGET)
    shop.work.status = 500
    assert [shop.send("GET", TARGET, paid).status for _ in range(4)] == [500, 500, 500, 409]
    assert shop.states == ["refund_due"]
    assert shop.send("GET", TARGET, paid).json["transaction"] == TRANSACTION


def test_S2_upfront_a_route_that_is_not_idempotent_runs_once(shop: Any) -> None:
    shop.seller.price("POST /order", "$0.01", payment_flow="upfront")
    paid = shop.pay("POST", "/order")
    shop.work.status = 500
    assert shop.send("POST", "/order", paid).status == 500
    assert shop.send("POST", "/order", paid).status == 409
    assert (shop.states, shop.work.ran) == (["refund_due"], 1)


def test_a_facilitator_that_is_away_is_no_verdict(priced: Any) -> None:
    priced.facilitator.verdict = FacilitatorUnavailable("away")
    got = priced.buy("GET", TARGET)
    assert got.status == 503
    assert int(got.header("retry-after")) > 0
    assert got.header("content-type") == "application/problem+json"
    assert (priced.work.ran, priced.states) == (0, [])
    priced.facilitator.verdict = VerifyResponse(is_valid=False, invalid_reason="unexpected_verify_error")
    assert priced.buy("GET", TARGET).status == 503


def test_a_payment_that_the_facilitator_refuses_is_offered_again_and_writes_nothing(priced: Any) -> None:
    priced.facilitator.verdict = VerifyResponse(is_valid=False, invalid_reason="insufficient_funds")
    got = priced.buy("GET", TARGET)
    assert got.status == 402
    assert "insufficient_funds" in unpack(got.header("payment-required"))["error"]
    assert unpack(got.header("payment-response"))["errorReason"] == "insufficient_funds"
    assert (priced.work.ran, priced.states) == (0, [])


# S3 and S6: pending, unknown, crashed.


def test_S3_a_pending_settlement_is_served_once_when_it_is_confirmed(priced: Any) -> None:
    priced.facilitator.outcomes = [Unknown("settlement_pending", "", TRANSACTION)]
    paid = priced.pay("GET", TARGET)
    first = priced.send("GET", TARGET, paid)
    requirements = priced.facilitator.settled[0][1]
    for got in (first, priced.send("GET", TARGET, paid)):
        assert got.status == 402
        assert got.header("payment-required") == ""
        assert int(got.header("retry-after")) > 0
        settlement = unpack(got.header("payment-response"))
        priced.facilitator.found = found(requirements, "in_batch")
        assert settlement["errorReason"] == "settlement_pending"
        assert settlement["transaction"] == TRANSACTION
        assert got.json["paymentId"].startswith("pay_")
    priced.facilitator.found = found(requirements, "confirmed")
    got = priced.send("GET", TARGET, paid)
    assert (got.status, got.body) == (200, b"sunny")
    assert unpack(got.header("payment-response"))["transaction"] == TRANSACTION
    assert priced.send("GET", TARGET, paid).status == 409
    assert priced.work.ran == 1
    assert len(priced.facilitator.settled) == 1
    assert len(priced.seller.store.ledger()) == 1


@pytest.mark.parametrize(
    "change",
    [{"amount": "1"}, {"pay_to": "0x" + "99" * 20}, {"asset": "0x" + "99" * 20}, {"network": "eip155:1"}],
    ids=lambda change: str(*change),
)
def test_S3_evidence_for_another_payment_is_none(priced: Any, change: dict[str, str]) -> None:
    priced.facilitator.outcomes = [Unknown("unexpected_settle_error")]
    paid = priced.pay("GET", TARGET)
    priced.send("GET", TARGET, paid)
    requirements = priced.facilitator.settled[0][1]
    status = found(requirements, "confirmed")
    priced.facilitator.found = selling.replaced(status, **change)
    assert priced.send("GET", TARGET, paid).status == 402
    assert priced.states == ["unknown"]


def test_S3_a_refusal_after_unknown_counts_only_with_evidence(priced: Any) -> None:
    priced.facilitator.outcomes = [Unknown("unexpected_settle_error"), Refused("invalid_transaction_state")]
    paid = priced.pay("GET", TARGET)
    priced.send("GET", TARGET, paid)
    # This facilitator takes no keys and knows no payments: it is not asked to settle again.
    assert priced.send("GET", TARGET, paid).status == 402
    assert len(priced.facilitator.settled) == 1
    assert priced.states == ["unknown"]
    priced.facilitator.found = found(priced.facilitator.settled[0][1], "refused", "")
    assert priced.send("GET", TARGET, paid).status == 402
    assert priced.states == ["refused"]


def test_S3_a_facilitator_that_takes_keys_is_asked_again_under_the_same_key(priced: Any) -> None:
    priced.facilitator.extensions = ("idempotency-key",)
    priced.facilitator.outcomes = [Unknown("unexpected_settle_error"), success()]
    paid = priced.pay("GET", TARGET)
    priced.send("GET", TARGET, paid)
    got = priced.send("GET", TARGET, paid)
    assert (got.status, got.body, priced.work.ran) == (200, b"sunny", 1)
    assert len({key for key, _ in priced.facilitator.settled}) == 1
    assert len(priced.seller.store.ledger()) == 1


def test_a_duplicate_settlement_is_a_question_to_the_one_who_holds_the_claim(priced: Any) -> None:
    priced.facilitator.outcomes = [Refused("duplicate_settlement", "", TRANSACTION)]
    got = priced.buy("GET", TARGET)
    assert got.status == 402
    assert priced.states == ["unknown"]
    assert unpack(got.header("payment-response"))["transaction"] == TRANSACTION


def test_S6_the_response_is_on_record_before_the_settlement_and_delivered_after_a_crash(priced: Any) -> None:
    class Crash(BaseException):
        """The process ends."""

    seen: list[str] = []

    def crash() -> None:
        seen.extend(priced.states)
        raise Crash

    paid = priced.pay("GET", TARGET)
    priced.facilitator.on_settle = crash
    with pytest.raises(Crash):
        priced.send("GET", TARGET, paid)
    assert seen == ["settling"]
    priced.facilitator.on_settle = lambda: None
    assert priced.send("GET", TARGET, paid).status == 409
    priced.expire_leases()
    requirements = priced.facilitator.settled[0][1]
    priced.facilitator.found = found(requirements, "final")
    got = priced.send("GET", TARGET, paid)
    assert (got.status, got.body, priced.work.ran) == (200, b"sunny", 1)
    assert len(priced.facilitator.settled) == 1


def test_S6_a_route_that_keeps_no_response_ends_in_a_refund(shop: Any) -> None:
    shop.seller.price(ROUTE, "$0.01", store_response=False)
    paid = shop.pay("GET", TARGET)
    shop.facilitator.outcomes = [Unknown("unexpected_settle_error")]
    assert shop.send("GET", TARGET, paid).status == 402
    shop.facilitator.found = found(shop.facilitator.settled[0][1], "final")
    got = shop.send("GET", TARGET, paid)
    assert (got.status, got.json["transaction"]) == (409, TRANSACTION)
    assert shop.states == ["refund_due"]
    assert len(shop.seller.store.ledger()) == 1


def test_a_route_that_keeps_no_response_serves_and_voids_alike(shop: Any) -> None:
    shop.seller.price(ROUTE, "$0.01", store_response=False)
    assert shop.buy("GET", TARGET).body == b"sunny"
    assert shop.states == ["delivered"]
    shop.work.status = 404
    paid = shop.pay("GET", TARGET)
    assert shop.send("GET", TARGET, paid).status == 404
    assert sorted(shop.states) == ["delivered", "void"]
    shop.work.status = 200
    assert shop.send("GET", TARGET, paid).status == 200


@pytest.mark.parametrize(("method", "state"), [("GET", 200), ("POST", 409)])
def test_a_crash_in_the_handler_voids_an_idempotent_route_and_aborts_another(
    shop: Any, method: str, state: int
) -> None:
    shop.seller.price("GET,POST /work", "$0.01")

    class Crash(BaseException):
        """The process ends."""

    paid = shop.pay(method, "/work")
    signed = selling.read(paid[0][1])
    shop.seller.store.make_claim(selling.claim_of(signed, shop.seller, method, "/work")).result()
    assert shop.send(method, "/work", paid).status == 409
    shop.expire_leases()
    got = shop.send(method, "/work", paid)
    assert got.status == state
    assert shop.states == (["delivered"] if state == 200 else ["aborted"])


# S4: a payment is held to what it was made for.

MUTATIONS: dict[str, Any] = {
    "scheme": "upto",
    "network": "eip155:8453",
    "amount": "9999",
    "asset": "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913",
    "payTo": "0x857b06519E91e3A54538791bDbb0E22373e36b66",
    "maxTimeoutSeconds": 61,
    "extra": {"name": "USDC", "version": "3"},
}


@pytest.mark.parametrize("member", list(MUTATIONS))
def test_S4_each_member_of_accepted_mutated_alone_is_refused(priced: Any, member: str) -> None:
    payment = unpack(priced.pay("GET", TARGET)[0][1])
    payment["accepted"][member] = MUTATIONS[member]
    got = priced.send("GET", TARGET, [("PAYMENT-SIGNATURE", pack(payment))])
    assert got.status == 402
    assert unpack(got.header("payment-required"))["accepts"][0]["amount"] == "10000"
    assert (priced.work.ran, priced.facilitator.verified, priced.states) == (0, 0, [])


AUTHORIZATION = {
    "from": "0x857b06519E91e3A54538791bDbb0E22373e36b66",
    "to": "0x857b06519E91e3A54538791bDbb0E22373e36b66",
    "value": "9999",
    "validAfter": "1",
    "validBefore": "99999999999",
    "nonce": "0x" + "00" * 32,
}


@pytest.mark.parametrize("member", list(AUTHORIZATION))
def test_S4_each_signed_member_mutated_alone_is_refused(priced: Any, member: str) -> None:
    """Even where the facilitator says yes to everything, without a word about whom it means."""
    payment = unpack(priced.pay("GET", TARGET)[0][1])
    payment["payload"]["authorization"][member] = AUTHORIZATION[member]
    got = priced.send("GET", TARGET, [("PAYMENT-SIGNATURE", pack(payment))])
    assert got.status == 402
    assert (priced.work.ran, priced.states) == (0, [])


@pytest.mark.parametrize("payer", [None, "", "0x857b06519E91e3A54538791bDbb0E22373e36b66", "the payer's own"])
def test_S4_a_signature_that_is_not_the_payers_own_takes_a_verdict_about_this_payer(priced: Any, payer: Any) -> None:
    """Where the payer is a contract, only the facilitator can tell; it must say that it did."""
    payment = unpack(priced.pay("GET", TARGET)[0][1])
    own = payment["payload"]["authorization"]["from"]
    payment["payload"]["signature"] = "0x" + "01" * 65
    priced.facilitator.verdict = VerifyResponse(
        is_valid=True, payer=own.lower() if payer == "the payer's own" else payer
    )
    got = priced.send("GET", TARGET, [("PAYMENT-SIGNATURE", pack(payment))])
    good = payer == "the payer's own"
    assert (got.status, priced.work.ran) == ((200, 1) if good else (402, 0))
    if not good:
        assert unpack(got.header("payment-response"))["errorReason"] == "invalid_exact_evm_payload_signature"
        assert priced.states == []


@pytest.mark.parametrize(
    "url",
    [
        "https://api.example.com/weather/rome",
        "https://api.example.com/weather/paris?units=c",
        "https://api.example.com/weather/paris/",
        "https://evil.example/weather/paris",
        "http://api.example.com/weather/paris",
        "https://api.example.com:8443/weather/paris",
        "https://user@api.example.com/weather/paris",
        "https://api.example.com/weather/paris#x",
        "/weather/paris",
        "",
    ],
)
def test_S4_a_payment_for_another_resource_is_refused(priced: Any, url: str) -> None:
    payment = unpack(priced.pay("GET", TARGET)[0][1])
    payment["resource"]["url"] = url
    got = priced.send("GET", TARGET, [("PAYMENT-SIGNATURE", pack(payment))])
    assert got.status == 402
    assert (priced.work.ran, priced.facilitator.verified) == (0, 0)


def test_S4_the_host_header_has_no_say(priced: Any) -> None:
    offer = priced.send("GET", TARGET, [("X-Forwarded-Host", "evil.example"), ("Forwarded", "host=evil.example")])
    assert unpack(offer.header("payment-required"))["resource"]["url"] == selling.BASE_URL + TARGET


@pytest.mark.parametrize("change", ["lower", "upper", "host", "no resource", "more extra"])
def test_S4_what_differs_without_a_difference_passes(priced: Any, change: str) -> None:
    payment = unpack(priced.pay("GET", TARGET)[0][1])
    accepted = payment["accepted"]
    if change == "lower":
        accepted["asset"], accepted["payTo"] = accepted["asset"].lower(), accepted["payTo"].lower()
    elif change == "upper":
        accepted["asset"] = "0x" + accepted["asset"][2:].upper()
    elif change == "host":
        payment["resource"]["url"] = "HTTPS://API.example.com:443/weather/%70aris"
    elif change == "no resource":
        del payment["resource"]
    else:
        accepted["extra"]["more"] = True
    assert priced.send("GET", TARGET, [("PAYMENT-SIGNATURE", pack(payment))]).status == 200


def test_S4_a_payment_for_a_cheap_route_method_or_query_buys_nothing_dear(shop: Any) -> None:
    def by_query(facts: Facts) -> str:
        return "$1" if "size=large" in facts.query else "$0.01"

    shop.seller.price("GET /cheap", "$0.01")
    shop.seller.price("GET /dear", "$1")
    shop.seller.price("POST /cheap", "$1")
    shop.seller.price("GET /photo", by_query)
    for cheap, dear in (
        (("GET", "/cheap"), ("GET", "/dear")),
        (("GET", "/cheap"), ("POST", "/cheap")),
        (("GET", "/photo"), ("GET", "/photo?size=large")),
    ):
        for with_resource in (True, False):
            paid = shop.pay(*cheap, with_resource=with_resource)
            assert shop.send(*dear, paid).status == 402
    assert (shop.work.ran, shop.facilitator.verified) == (0, 0)
    assert shop.buy("GET", "/photo?size=large").status == 200
    assert shop.facilitator.settled[0][1].amount == "1000000"


def test_S4_between_routes_of_one_price_the_claim_protects(shop: Any) -> None:
    shop.seller.price("GET /a", "$0.01")
    shop.seller.price("GET /b", "$0.01")
    paid = shop.pay("GET", "/a", with_resource=False)
    assert shop.send("GET", "/a", paid).status == 200
    assert shop.send("GET", "/b", paid).status == 409
    assert shop.work.ran == 1


def test_S4_another_body_is_another_request(shop: Any) -> None:
    shop.seller.price("POST /echo", "$0.01")
    paid = shop.pay("POST", "/echo")
    assert shop.send("POST", "/echo", paid, body=b"one").status == 200
    assert shop.work.bodies == [b"one"]
    other = shop.send("POST", "/echo", paid, body=b"two")
    assert other.status == 409
    assert other.json["type"].endswith("payment-conflict")


def test_several_offers_each_with_its_own_terms(shop: Any) -> None:
    shop.seller.price(
        "GET /many",
        "$0.01",
        accepts=[
            Terms(),
            Terms(network="eip155:8453", pay_to="0x857b06519E91e3A54538791bDbb0E22373e36b66", price="$0.02"),
            Terms(price=Amount(5, "USDC")),
        ],
    )
    offer = unpack(shop.send("GET", "/many").header("payment-required"))
    assert [(each["network"], each["amount"]) for each in offer["accepts"]] == [
        ("eip155:84532", "10000"),
        ("eip155:8453", "20000"),
        ("eip155:84532", "5"),
    ]
    paid = shop.pay("GET", "/many", index=1)
    assert shop.send("GET", "/many", paid).status == 200
    assert shop.facilitator.settled[0][1].network == "eip155:8453"


# S8: a paid answer is private, whole, and streams where it can.


@pytest.mark.parametrize(
    ("said", "sent"),
    [
        (None, "private"),
        ("public, max-age=60", "private, max-age=60"),
        ("s-maxage=600, max-age=60", "private, max-age=60"),
        ('Public, private="x, y", S-MaxAge=1', "private"),
        ("no-store", "no-store"),
        ("private, max-age=5", "private, max-age=5"),
    ],
)
@pytest.mark.parametrize("flow", ["authorization", "upfront"])
def test_S8_a_paid_answer_is_private(shop: Any, flow: Any, said: str | None, sent: str) -> None:
    shop.seller.price(ROUTE, "$0.01", payment_flow=flow)
    if said is not None:
        shop.work.headers.append(("Cache-Control", said))
    shop.work.headers += [("CDN-Cache-Control", "public"), ("Surrogate-Control", "max-age=9")]
    got = shop.buy("GET", TARGET)
    assert got.status == 200
    assert got.header("cache-control") == sent
    assert got.header("cdn-cache-control") == ""
    assert got.header("surrogate-control") == ""
    assert "PAYMENT-SIGNATURE" in got.header("vary")
    assert "PAYMENT-RESPONSE" in got.header("access-control-expose-headers")


def test_S8_shared_caches_may_have_it_where_the_route_says_so(shop: Any) -> None:
    shop.seller.price(ROUTE, "$0.01", shared_cache=True)
    shop.work.headers.append(("cache-control", "public, s-maxage=600"))
    assert shop.buy("GET", TARGET).header("cache-control") == "public, s-maxage=600"


@pytest.mark.parametrize("flow", ["authorization", "upfront"])
def test_S8_status_and_all_headers_survive(shop: Any, flow: Any) -> None:
    shop.seller.price(ROUTE, "$0.01", payment_flow=flow)
    shop.work.status = 201
    shop.work.headers += [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("Location", "/x"), ("X-Latin", "\xe9")]
    shop.work.headers += [("PAYMENT-RESPONSE", "forged"), ("Vary", "Accept-Language")]
    got = shop.buy("GET", TARGET)
    assert got.status == 201
    assert [value for name, value in got.headers if name.lower() == "set-cookie"] == ["a=1", "b=2"]
    assert (got.header("location"), got.header("x-latin")) == ("/x", "\xe9")
    assert unpack(got.header("payment-response"))["success"] is True
    assert "Accept-Language" in got.header("vary")


def test_S8_nothing_leaves_before_the_settlement(priced: Any) -> None:
    priced.facilitator.outcomes = [Refused("insufficient_funds")]
    got = priced.buy("GET", TARGET)
    assert got.status == 402
    assert [message for message in got.messages if message.get("body") == b"sun"] == []


@pytest.mark.parametrize("size", [70_000, 300_000])
def test_a_large_response_is_spooled_and_the_file_goes(priced: Any, size: int) -> None:
    priced.work.chunks = [b"x" * 10_000] * (size // 10_000)
    folder = priced.seller.store.spool_folder
    spooled: list[int] = []
    priced.facilitator.on_settle = lambda: spooled.extend(each.stat().st_size for each in folder.iterdir())
    got = priced.buy("GET", TARGET)
    assert (got.status, len(got.body), got.header("content-length")) == (200, size, str(size))
    assert spooled == [size]
    priced.seller.store.flush()
    assert list(folder.iterdir()) == []


def test_a_response_over_the_bound_is_not_charged(priced: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("farthing.servers.held.RESPONSE_MAX_BYTES", 100)
    priced.work.chunks = [b"x" * 60] * 2
    got = priced.buy("GET", TARGET)
    assert got.status == 500
    assert got.json["type"].endswith("response-too-large")
    assert (priced.facilitator.settled, priced.states) == ([], ["void"])


# S10: bad input gets 400 that names the field, never 500 and never content.


def _with(path: str, value: Any) -> Any:
    def change(payment: Any) -> None:
        *parents, last = path.split(".")
        for parent in parents:
            payment = payment[parent]
        payment[last] = value

    return change


BAD = [
    ("accepted.amount", " 10000 ", "$.accepted.amount"),
    ("accepted.amount", "010000", "$.accepted.amount"),
    ("accepted.amount", "1e4", "$.accepted.amount"),
    ("accepted.amount", "-1", "$.accepted.amount"),
    ("accepted.amount", str(2**256), "$.accepted"),
    ("accepted.amount", "\uff11\uff10\uff10\uff10\uff10", "$.accepted.amount"),
    ("accepted.amount", 10000, "$.accepted.amount"),
    ("accepted.payTo", "0x209693bc6afc0C5328bA36FaF03C514EF312287C", "$.accepted.payTo"),
    ("accepted.asset", "0x036cbD53842c5426634e7929541eC2318f3dCF7e", "$.accepted.asset"),
    ("accepted", None, "$.accepted"),
    ("accepted", [], "$.accepted"),
    ("payload", "x", "$.payload"),
    ("payload.authorization", {}, "$.payload.authorization"),
    ("payload.authorization.value", "1e4", "$.payload.authorization.value"),
    ("payload.authorization.nonce", "0x12", "$.payload.authorization.nonce"),
    ("payload.authorization.from", "0x12", "$.payload.authorization.from"),
    ("payload.signature", 5, "$.payload.signature"),
    ("x402Version", "2", "$.x402Version"),
    ("resource", 7, "$.resource"),
    ("resource.url", "http://[::1", "$.resource.url"),
]


@pytest.mark.parametrize(("path", "value", "field"), BAD)
def test_S10_a_bad_field_is_named(priced: Any, path: str, value: Any, field: str) -> None:
    payment = unpack(priced.pay("GET", TARGET)[0][1])
    _with(path, value)(payment)
    got = priced.send("GET", TARGET, [("PAYMENT-SIGNATURE", pack(payment))])
    assert (got.status, got.header("content-type")) == (400, "application/problem+json")
    assert got.json["field"].startswith(field)
    assert (priced.work.ran, priced.facilitator.verified) == (0, 0)


@pytest.mark.parametrize(
    "header",
    [
        "!!!",
        "e30",
        "",
        " ",
        pack([]),
        pack("x"),
        pack(None),
        selling.pack_raw(b"not json"),
        selling.pack_raw(b"[" * 9_000),
        selling.pack_raw(b'{"x402Version":2'),
        selling.pack_raw(b"\xff\xfe"),
        "A" * 16_385,
        "A" * 1_000_000,
        "\xe9\xe8",
    ],
)
def test_S10_what_is_no_payment_gets_400(priced: Any, header: str) -> None:
    got = priced.send("GET", TARGET, [("PAYMENT-SIGNATURE", header)])
    assert got.status == 400
    assert got.json["detail"]
    assert len(got.body) < 2_000
    assert priced.work.ran == 0


def test_S10_several_payments_get_400(priced: Any) -> None:
    paid = priced.pay("GET", TARGET) + priced.pay("GET", TARGET)
    got = priced.send("GET", TARGET, paid)
    assert got.status == 400
    assert (priced.work.ran, priced.facilitator.verified) == (0, 0)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_S10_any_json_in_place_of_any_member_is_answered(priced: Any, data: Any) -> None:
    payment = selling.payment_for(priced)
    paths = list(selling.paths_of(payment))
    path = data.draw(st.sampled_from(paths))
    junk = st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=40) | st.floats(allow_nan=False),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=6,
    )
    changed = copy.deepcopy(payment)
    _with(path, data.draw(junk))(changed)
    if changed == payment:
        return
    ran = priced.work.ran
    got = priced.send("GET", TARGET, [("PAYMENT-SIGNATURE", pack(changed))])
    assert got.status in {400, 402} or (got.status in {200, 409} and path.startswith(("accepted.extra", "resource")))
    assert priced.work.ran == ran or got.status == 200


def test_S10_a_body_over_the_bound_gets_413(shop: Any) -> None:
    shop.seller.price("POST /echo", "$0.01")
    shop.seller.request_body_max_bytes = 10
    got = shop.send("POST", "/echo", shop.pay("POST", "/echo"), body=b"x" * 11)
    assert got.status == 413
    assert shop.states == []


# S11: the 402 itself stays small.


def test_S11_the_offer_stays_small_and_a_long_address_is_refused(priced: Any) -> None:
    got = priced.send("GET", TARGET + "?q=" + "x" * 1_900)
    assert got.status == 402
    assert len(got.header("payment-required")) < 8_192
    assert priced.send("GET", TARGET + "?q=" + "x" * 3_000).status == 414


def test_S11_a_route_whose_offer_would_be_large_warns_at_start_up(seller: Any) -> None:
    with pytest.warns(OfferTooLarge, match=r"test_money\.py:\d+.*GET /big"):
        seller.price("GET /big", "$0.01", description="x" * 4_000)


# What people see.


def test_a_browser_gets_a_page_and_a_program_gets_json(priced: Any) -> None:
    browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
    got = priced.send("GET", TARGET + "?q=<script>alert(1)</script>", [("Accept", browser)])
    assert got.status == 402
    assert got.header("content-type") == "text/html; charset=utf-8"
    assert got.header("payment-required")
    assert "script-src" not in got.header("content-security-policy")
    assert "default-src 'none'" in got.header("content-security-policy")
    page = got.body.decode()
    assert "0.01 USDC" in page
    assert "<script" not in page
    for accept in ("application/json", "*/*", "", "application/json, text/html;q=0.5", "text/plain"):
        got = priced.send("GET", TARGET, [("Accept", accept)])
        assert got.header("content-type") == "application/json"
        assert len(got.json["accepts"]) == 1


def test_the_callable_price_that_fails_is_answered_and_charges_nothing(shop: Any) -> None:
    shop.seller.price("GET /x", lambda _: "$0.00000001")
    got = shop.send("GET", "/x")
    assert (got.status, got.header("content-type")) == (500, "application/problem+json")


def test_a_success_for_another_amount_is_not_believed(priced: Any) -> None:
    settlement = SettlementResponse(success=True, transaction=TRANSACTION, network=selling.NETWORK, amount="1")
    priced.facilitator.outcomes = [selling.Settled(settlement)]
    assert priced.buy("GET", TARGET).status == 402
    assert priced.states == ["unknown"]


def test_A4_no_problem_shows_a_signature(priced: Any) -> None:
    paid = priced.pay("GET", TARGET)
    signature = unpack(paid[0][1])["payload"]["signature"]
    assert priced.send("GET", TARGET, paid).status == 200
    again = priced.send("GET", TARGET, paid)
    assert signature[2:40] not in again.body.decode()


def test_an_unknown_payment_that_never_arrived_is_closed_when_its_window_is_long_over(shop: Any) -> None:
    shop.seller.price(ROUTE, "$0.01", store_response=False)
    paid = shop.pay("GET", TARGET)
    shop.facilitator.outcomes = [Unknown("unexpected_settle_error")]
    assert shop.send("GET", TARGET, paid).status == 402
    assert shop.send("GET", TARGET, paid).status == 402
    assert shop.states == ["unknown"]
    shop.expire_window()
    got = shop.send("GET", TARGET, paid)
    assert (got.status, got.header("payment-required")) == (402, "")
    assert shop.states == ["closed"]
    assert shop.send("GET", TARGET, paid).header("payment-required")
    assert shop.seller.store.ledger() == ()


def test_a_refused_payment_is_offered_anew_when_its_window_is_long_over(priced: Any) -> None:
    priced.facilitator.outcomes = [Refused("insufficient_funds")]
    paid = priced.pay("GET", TARGET)
    for _ in range(2):
        got = priced.send("GET", TARGET, paid)
        assert (got.status, got.header("payment-required")) == (402, "")
        assert unpack(got.header("payment-response"))["errorReason"] == "insufficient_funds"
    assert len(priced.facilitator.settled) == 1
    priced.expire_window()
    assert priced.send("GET", TARGET, paid).header("payment-required")
    assert priced.states == ["closed"]


@pytest.mark.parametrize("store_response", [True, False])
def test_A1_a_response_that_nobody_will_get_is_not_kept(shop: Any, *, store_response: bool) -> None:
    shop.seller.price(ROUTE, "$0.01", store_response=store_response)
    shop.work.chunks = [b"x" * 100_000]
    folder = shop.seller.store.spool_folder
    spooled: list[int] = []
    shop.facilitator.on_settle = lambda: spooled.append(len(list(folder.iterdir())))
    shop.facilitator.outcomes = [Refused("insufficient_funds")]
    paid = shop.pay("GET", TARGET)
    assert shop.send("GET", TARGET, paid).status == 402
    if store_response:
        # Kept as long as somebody may settle it still.
        assert len(list(folder.iterdir())) == 1
        shop.expire_window()
        assert shop.send("GET", TARGET, paid).header("payment-required")
    shop.seller.store.flush()
    assert spooled == [1]
    assert list(folder.iterdir()) == []
