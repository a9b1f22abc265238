"""Payments of version 1 at both doors: paid like any other, and held to the one offer that they fit (S4)."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from farthing_selling import KEY, NETWORK, PAY_TO, TRANSACTION, CannedFacilitator, Shop, make_seller, pack, sign, unpack

from farthing.evm.signing import SignTypedData
from farthing.flow import Now, RandomBytes, drive
from farthing.mechanisms.exact_evm import ExactEvmBuyer, ExactEvmSeller
from farthing.mechanisms.exact_evm.terms import Terms as TermsOfExact
from farthing.mechanisms.exact_evm.terms import judge_signature, read_terms
from farthing.networks import KNOWN, Networks, Token
from farthing.protocol import versions
from farthing.protocol.facilitator import Refused, Unknown
from farthing.protocol.messages import PaymentPayload, PaymentRequirements, VerifyResponse
from farthing.seller.pricing import Facts, Terms

if TYPE_CHECKING:
    from collections.abc import Iterator

    from farthing_selling import Got

TARGET = "/weather/paris"
HEADER = "X-PAYMENT"
SECOND = "0x" + "11" * 20
NETWORKS = KNOWN.with_token(
    Token(network=NETWORK, address=SECOND, symbol="USDX", decimals=6, eip712_name="USDX", eip712_version="1")
)


class Judging(CannedFacilitator):  # type: ignore[misc] # a module that mypy does not see
    """Judges signatures, as a real one does."""

    def __init__(self, networks: Networks = NETWORKS) -> None:
        super().__init__()
        self.networks = networks
        self.face = ExactEvmSeller(networks)

    async def verify(self, payment: PaymentPayload, requirements: PaymentRequirements) -> VerifyResponse:
        self.verified += 1
        signed = self.face.read(payment)
        terms = read_terms(requirements, self.networks)
        assert isinstance(terms, TermsOfExact)
        refusal = judge_signature(signed.detail, terms.domain)
        reason = None if refusal is None else refusal.reason
        return VerifyResponse(is_valid=refusal is None, invalid_reason=reason, payer=signed.payer)


@pytest.fixture
def facilitator() -> CannedFacilitator:
    return Judging()


@pytest.fixture
def weather(shop: Shop) -> Shop:
    shop.seller.price("GET /weather/{city}", "$0.01", description="The weather")
    return shop


def sign_v1(offer: Got, *, index: int = 0, **changes: Any) -> str:
    """Pay an offer of a 402's body, for real, as a version 1 buyer does."""
    read = versions.read_demand(None, offer.body)
    assert read is not None
    wire, received = read
    assert wire.payment_header == HEADER
    meant = received.offers[index]

    def perform(effect: Any) -> Any:
        if isinstance(effect, Now):
            return int(time.time()) + changes.get("late_seconds", 0)
        if isinstance(effect, RandomBytes):
            return os.urandom(effect.size_bytes)
        assert isinstance(effect, SignTypedData)
        return KEY.sign_typed_data(effect.message)

    buyer = ExactEvmBuyer(NETWORKS)
    prepared = drive(buyer.pay(meant.requirements, payer=KEY.address, nonce=None), perform)
    header: str = wire.pack_payment(received, meant, prepared.payload)
    return header


def pay(shop: Shop, target: str = TARGET, **options: Any) -> list[tuple[str, str]]:
    return [(HEADER, sign_v1(shop.send("GET", target), **options))]


def changed(header: str, change: Callable[[Any], object]) -> str:
    payment = unpack(header)
    change(payment)
    packed: str = pack(payment)
    return packed


def test_a_version_1_payment_is_served_and_settled_once(weather: Shop) -> None:
    paid = pay(weather)
    got = weather.send("GET", TARGET, paid)
    assert (got.status, got.body, weather.work.ran) == (200, b"sunny", 1)
    assert unpack(got.header("x-payment-response")) == {
        "success": True, "transaction": TRANSACTION, "network": "base-sepolia", "payer": ""
    }  # fmt: skip
    assert got.header("payment-response") == ""
    assert got.header("cache-control") == "private"
    assert weather.work.payments[0].network == NETWORK
    assert [requirements.network for _, requirements in weather.facilitator.settled] == [NETWORK]
    assert weather.states == ["delivered"]

    again = weather.send("GET", TARGET, paid)
    assert (again.status, weather.work.ran) == (409, 1)
    assert again.json["transaction"] == TRANSACTION
    assert again.header("payment-required") == ""
    assert len(weather.facilitator.settled) == 1


def test_a_version_1_payment_settles_before_the_work_where_the_route_says_so(shop: Shop) -> None:
    shop.seller.price("GET /up", "$0.01", payment_flow="upfront")
    got = shop.send("GET", "/up", pay(shop, "/up"))
    assert (got.status, got.body) == (200, b"sunny")
    assert unpack(got.header("x-payment-response"))["success"] is True
    assert got.header("payment-response") == ""


def test_S3_a_pending_settlement_is_told_in_the_buyer_s_words_and_without_an_offer(weather: Shop) -> None:
    paid = pay(weather)
    weather.facilitator.outcomes = [Unknown("settlement_pending", "", TRANSACTION)]
    got = weather.send("GET", TARGET, paid)
    assert got.status == 402
    told = unpack(got.header("x-payment-response"))
    assert (told["success"], told["errorReason"], told["transaction"], told["network"]) == (
        False, "settlement_pending", TRANSACTION, "base-sepolia"
    )  # fmt: skip
    assert got.header("payment-required") == got.header("payment-response") == ""
    assert "accepts" not in got.json
    again = weather.send("GET", TARGET, paid)
    assert unpack(again.header("x-payment-response"))["errorReason"] == "settlement_pending"
    assert weather.work.ran == 1


def test_S2_a_refused_settlement_serves_nothing(weather: Shop) -> None:
    weather.facilitator.outcomes = [Refused("insufficient_funds")]
    got = weather.send("GET", TARGET, pay(weather))
    assert (got.status, unpack(got.header("x-payment-response"))["errorReason"]) == (402, "insufficient_funds")
    assert b"sunny" not in got.body


def test_S2_a_handler_that_fails_charges_nothing(weather: Shop) -> None:
    weather.work.status = 500
    weather.work.headers.append(("X-Payment-Response", "forged"))
    got = weather.send("GET", TARGET, pay(weather))
    assert (got.status, got.header("x-payment-response")) == (500, "")
    assert weather.facilitator.settled == []
    assert weather.states == ["void"]


def set_in(*path: str, to: Any) -> Callable[[Any], None]:
    def change(payment: Any) -> None:
        for key in path[:-1]:
            payment = payment[key]
        payment[path[-1]] = to

    return change


AUTHORIZATION = ("payload", "authorization")
MUTATIONS = {
    "scheme": set_in("scheme", to="upto"),
    "network": set_in("network", to="base"),
    "unknown network": set_in("network", to="solana"),
    "CAIP-2 of another network": set_in("network", to="eip155:8453"),
    "from": set_in(*AUTHORIZATION, "from", to="0x" + "22" * 20),
    "to": set_in(*AUTHORIZATION, "to", to="0x" + "22" * 20),
    "value, one less": set_in(*AUTHORIZATION, "value", to="9999"),
    "value, one more": set_in(*AUTHORIZATION, "value", to="10001"),
    "nonce": set_in(*AUTHORIZATION, "nonce", to="0x" + "33" * 32),
    "validAfter": set_in(*AUTHORIZATION, "validAfter", to="1"),
    "validBefore": set_in(*AUTHORIZATION, "validBefore", to=str(int(time.time()) + 50)),
    "signature": set_in("payload", "signature", to="0x" + "44" * 64 + "1b"),
    "longer signature": set_in("payload", "signature", to="0x" + "44" * 96),
}


@pytest.mark.parametrize("field", MUTATIONS)
def test_S4_each_field_mutated_alone_is_refused_before_any_settlement(weather: Shop, field: str) -> None:
    ((name, header),) = pay(weather)
    got = weather.send("GET", TARGET, [(name, changed(header, MUTATIONS[field]))])
    assert got.status == 402, got.body
    told = unpack(got.header("x-payment-response"))
    assert (told["success"], told["transaction"]) == (False, "")
    assert got.json["error"] == told["errorReason"]
    assert weather.work.ran == 0
    assert weather.facilitator.settled == []
    assert weather.states == []
    # And what was signed still pays.
    assert weather.send("GET", TARGET, [(name, header)]).status == 200


def test_S4_a_payment_for_a_cheap_route_is_refused_on_a_dear_one(weather: Shop) -> None:
    weather.seller.price("GET /dear", "$5")
    got = weather.send("GET", "/dear", pay(weather))
    assert (got.status, weather.work.ran, weather.facilitator.settled) == (402, 0, [])
    assert got.json["error"] == "invalid_exact_evm_payload_authorization_value"


def test_S4_between_routes_of_one_price_the_claim_is_the_protection(weather: Shop) -> None:
    weather.seller.price("GET /other", "$0.01")
    paid = pay(weather)
    assert weather.send("GET", TARGET, paid).status == 200
    assert weather.send("GET", "/other", paid).status == 409
    assert (weather.work.ran, len(weather.facilitator.settled)) == (1, 1)


def test_F8_a_payment_that_is_too_old_is_refused_with_the_reason(weather: Shop) -> None:
    got = weather.send("GET", TARGET, pay(weather, late_seconds=-120))
    assert got.status == 402
    assert got.json["error"] == "invalid_exact_evm_payload_authorization_valid_before"
    assert weather.facilitator.verified == 0


# Several offers


@pytest.fixture
def two_tokens(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    """A seller that takes two tokens of one network, at one price and for one payee."""
    facilitator = Judging()
    accepts = [Terms(asset=KNOWN.tokens(NETWORK)[0].address), Terms(asset=SECOND)]
    seller = make_seller(tmp_path, facilitator, networks=NETWORKS, accepts=accepts)
    seller.price("GET /weather/{city}", "$0.01")
    yield Shop(request.param, seller, facilitator)
    seller.close()


BOTH_DOORS = pytest.mark.parametrize("two_tokens", ["asgi", "wsgi"], indirect=True)


@BOTH_DOORS
@pytest.mark.parametrize("index", [0, 1])
def test_S4_a_payment_belongs_to_the_offer_that_its_signature_fits(two_tokens: Shop, index: int) -> None:
    paid = pay(two_tokens, index=index)
    assert two_tokens.send("GET", TARGET, paid).status == 200
    ((_, requirements),) = two_tokens.facilitator.settled
    assert requirements.asset == (KNOWN.tokens(NETWORK)[0].address, SECOND)[index]
    # Later, too, when its window is over, it is known for what it is.
    two_tokens.expire_window()
    again = two_tokens.send("GET", TARGET, paid)
    assert (again.status, again.json["transaction"]) == (409, TRANSACTION)


@BOTH_DOORS
def test_S4_a_payment_that_fits_none_or_several_belongs_to_none(two_tokens: Shop) -> None:
    ((name, header),) = pay(two_tokens)
    for change in (MUTATIONS["to"], MUTATIONS["value, one more"], MUTATIONS["longer signature"]):
        got = two_tokens.send("GET", TARGET, [(name, changed(header, change))])
        assert got.status == 402
        assert unpack(got.header("x-payment-response"))["errorReason"] == "invalid_payment_requirements"
    assert (two_tokens.work.ran, two_tokens.facilitator.verified, two_tokens.facilitator.settled) == (0, 0, [])


def test_a_payment_belongs_to_its_network(tmp_path: Path) -> None:
    facilitator = Judging()
    accepts = [Terms(network="eip155:8453"), Terms(network=NETWORK), Terms(network=NETWORK, price="$0.02")]
    seller = make_seller(tmp_path, facilitator, accepts=accepts)
    seller.price("GET /weather/{city}", "$0.01")
    shop = Shop("asgi", seller, facilitator)
    try:
        for index in range(3):
            assert shop.send("GET", TARGET, pay(shop, index=index)).status == 200
        assert [(each.network, each.amount) for _, each in facilitator.settled] == [
            ("eip155:8453", "10000"),
            (NETWORK, "10000"),
            (NETWORK, "20000"),
        ]
    finally:
        seller.close()


# At the door


def test_two_payments_are_refused_whichever_headers_they_came_in(weather: Shop) -> None:
    offer = weather.send("GET", TARGET)
    first, second = ("PAYMENT-SIGNATURE", sign(offer.header("payment-required"))), (HEADER, sign_v1(offer))
    for headers in ([first, second], [second, first], [second, second]):
        got = weather.send("GET", TARGET, headers)
        assert (got.status, got.header("content-type")) == (400, "application/problem+json")
    assert (weather.work.ran, weather.facilitator.settled) == (0, [])


@pytest.mark.parametrize("header", ["", "no base64!", "e30=", pack([]), pack({"x402Version": 1}), "A" * 20_000])
def test_S10_what_cannot_be_read_is_a_400(weather: Shop, header: str) -> None:
    got = weather.send("GET", TARGET, [(HEADER, header)])
    assert (got.status, got.header("content-type")) == (400, "application/problem+json")
    assert weather.work.ran == 0


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (set_in(*AUTHORIZATION, "value", to="1e4"), "$.payload.authorization.value"),
        (set_in(*AUTHORIZATION, "to", to=PAY_TO.swapcase()), "$.payload.authorization.to"),
        (set_in(*AUTHORIZATION, "nonce", to="0x12"), "$.payload.authorization.nonce"),
        (set_in("x402Version", to=2), "$.x402Version"),
        (set_in("payload", to="x"), "$.payload"),
    ],
)
def test_S10_the_field_at_fault_is_named(weather: Shop, change: Any, field: str) -> None:
    ((name, header),) = pay(weather)
    got = weather.send("GET", TARGET, [(name, changed(header, change))])
    assert (got.status, got.json["field"]) == (400, field)


def test_a_browser_s_script_may_send_and_see_it(weather: Shop) -> None:
    offer = weather.send("GET", TARGET)
    assert "X-PAYMENT-RESPONSE" in offer.header("access-control-expose-headers")
    assert HEADER in offer.header("vary")
    wanted = "x-payment, access-control-expose-headers"
    asked = [("Origin", "https://a.example"), ("Access-Control-Request-Method", "GET"),
             ("Access-Control-Request-Headers", wanted)]  # fmt: skip
    allowed = weather.send("OPTIONS", TARGET, asked).header("access-control-allow-headers").lower()
    assert {each.strip() for each in wanted.split(",")} <= {each.strip() for each in allowed.split(",")}


def test_HEAD_gets_the_offer_and_claims_nothing(weather: Shop) -> None:
    got = weather.send("HEAD", TARGET, pay(weather))
    assert (got.status, weather.work.ran, weather.states) == (402, 0, [])


def test_the_offer_in_the_body_is_computed_for_the_request(shop: Shop) -> None:
    def price(facts: Facts) -> str:
        return "$0.02" if facts.query == "long" else "$0.01"

    shop.seller.price("GET /by-query", price)
    bodies = [shop.send("GET", target) for target in ("/by-query", "/by-query?long")]
    assert [json.loads(each.body)["accepts"][0]["maxAmountRequired"] for each in bodies] == ["10000", "20000"]
    got = shop.send("GET", "/by-query?long", [(HEADER, sign_v1(bodies[0]))])
    assert (got.status, shop.work.ran) == (402, 0)
