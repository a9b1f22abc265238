"""Which offer is chosen (SAFETY B3): properties over generated offers, and what is passed over by name."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shop import NETWORK, USDC, offer

from farthing.buyer import PaymentDemand
from farthing.buyer.choice import Choice, choose
from farthing.buyer.policy import Policy
from farthing.buyer.purchase import read_demand
from farthing.buyer.refusals import nothing_to_pay
from farthing.errors import NoAcceptableOffer, PolicyRefused
from farthing.mechanisms.exact_evm import ExactEvmBuyer
from farthing.mechanisms.interface import BuyerMechanism
from farthing.mechanisms.registry import Registry
from farthing.networks import KNOWN, Token
from farthing.protocol.codec import decode_payment_required, pack_header, pack_json
from farthing.protocol.messages import PaymentRequired, PaymentRequirements, ResourceInfo

BASE = "eip155:8453"
BASE_USDC = "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913"
DEAR_DOLLAR = "0x" + "de" * 20
EURO = "0x" + "eb" * 20
# One dollar of 18 decimals and one euro beside the known tokens.
TABLE = KNOWN.with_token(
    Token(network=NETWORK, address=DEAR_DOLLAR, symbol="D18", decimals=18, eip712_name="D18", eip712_version="1")
).with_token(
    Token(network=NETWORK, address=EURO, symbol="EURC", decimals=6, eip712_name="E", eip712_version="1", currency="EUR")
)
FACES: Registry[BuyerMechanism] = Registry([ExactEvmBuyer(TABLE)])


def rank(*offers: PaymentRequirements, **policy: Any) -> Choice:
    limits: dict[str, Any] = {"networks": [NETWORK, BASE], "per_request": "$1"}
    required = PaymentRequired(ResourceInfo("https://shop.example/"), offers)
    received = decode_payment_required(pack_header(required))
    return choose(received, policy=Policy(**limits | policy), mechanisms=FACES, networks=TABLE)


def reason(found: PaymentRequirements, **policy: Any) -> str:
    choice = rank(found, **policy)
    assert choice.candidates == ()
    return choice.rejected[0].code


def flow(name: Any) -> dict[str, Any]:
    return {"extra": {"name": "USDC", "version": "2", "paymentFlow": name}}


d18 = {"asset": DEAR_DOLLAR, "extra": {"name": "D18", "version": "1"}}
euro = {"asset": EURO, "extra": {"name": "E", "version": "1"}}


def test_B3_prices_are_compared_by_value_and_our_own_decimals() -> None:
    # The seller's own "decimals" are nobody's business: a millionth of a dollar in 18 digits is cheaper than a cent.
    lying = offer(10_000, extra={"name": "USDC", "version": "2", "decimals": 18})
    cheap = offer(10**12, **d18)
    choice = rank(lying, cheap)
    assert [each.offer.index for each in choice.candidates] == [1, 0]
    assert [each.value for each in choice.candidates] == [10**12, 10**16]


def test_B3_at_one_price_authorization_comes_before_upfront_and_then_the_seller_s_order() -> None:
    choice = rank(offer(5, **flow("upfront")), offer(5), offer(5), offer(4, **flow("upfront")))
    assert [each.offer.index for each in choice.candidates] == [3, 1, 2, 0]


@pytest.mark.parametrize(
    ("found", "code"),
    [
        (offer(**flow("escrow")), "payment_flow"),
        (offer(**flow(["authorization"])), "payment_flow"),
        (offer(**flow(None)), "payment_flow"),
        (offer(scheme="auth-capture"), "no_mechanism"),
        (offer(scheme="upto"), "no_mechanism"),
        (offer(network="solana:101"), "no_mechanism"),
        (offer(network="cloudflare:402", asset="USD"), "no_mechanism"),
        (offer(network="eip155:1"), "network_not_allowed"),
        (offer(asset="0x" + "12" * 20), "asset_value_unknown"),
        (offer(**euro), "asset_value_unknown"),
        (offer(extra={"name": "USDC", "version": "2", "assetTransferMethod": "permit2"}), "mechanism"),
        (offer(extra={"name": "USDC", "version": "2", "assetTransferMethod": "erc7710"}), "mechanism"),
        (offer(extra={"name": "Fake", "version": "2"}), "mechanism"),
        (offer(pay_to="nobody"), "mechanism"),
        (offer(1_000_001), "price_over_limit"),
        (offer(2**256 - 1), "price_over_limit"),
        (offer(max_timeout_seconds=3601), "window_too_long"),
    ],
)
def test_B3_what_is_passed_over_is_named(found: PaymentRequirements, code: str) -> None:
    assert reason(found) == code
    # And spoils nothing beside it.
    assert [each.offer.index for each in rank(found, offer()).candidates] == [1]


def test_B2_networks_and_assets_are_allowed_by_name_and_contract() -> None:
    assert reason(offer(), networks=[BASE]) == "network_not_allowed"
    assert reason(offer(), assets=[BASE_USDC]) == "asset_not_allowed"
    assert reason(offer(), assets=[f"{BASE}/{USDC}"]) == "asset_not_allowed"
    assert rank(offer(), assets=[USDC.lower()]).candidates
    assert reason(offer(), networks=[]) == "network_not_allowed"


OFFERS = st.builds(
    lambda amount, changes, seconds, text: offer(
        amount, **{**changes, "max_timeout_seconds": seconds, "extra": {**changes.get("extra", {}), "note": text}}
    ),
    st.integers(0, 2_000_000),
    st.sampled_from(
        [flow("authorization"), flow("upfront"), flow("escrow"), d18, euro, {"network": "eip155:1"},
         {"network": BASE, "asset": BASE_USDC, "extra": {"name": "USD Coin", "version": "2"}}]
    ),
    st.integers(0, 7200),
    st.text(max_size=20),
)  # fmt: skip


@given(st.lists(OFFERS, max_size=8), st.sampled_from([[NETWORK], [BASE], [NETWORK, BASE]]), st.integers(0, 150))
def test_B3_the_choice_is_the_cheapest_allowed_and_never_outside_the_policy(
    offers: list[PaymentRequirements], networks: list[str], cents: int
) -> None:
    choice = rank(*offers, networks=networks, per_request=f"${cents // 100}.{cents % 100:02}")
    assert len(choice.candidates) + len(choice.rejected) == len(offers)
    values = [each.value for each in choice.candidates]
    assert values == sorted(values)
    for each in choice.candidates:
        terms = each.offer.requirements
        assert terms.network in networks
        assert each.value <= cents * 10**16
        assert each.value == terms.atomic * 10 ** (18 - TABLE.token(terms.network, terms.asset).decimals)  # type: ignore[union-attr]
        assert terms.max_timeout_seconds <= 3600
        assert (terms.extra or {}).get("paymentFlow", "authorization") in {"authorization", "upfront"}


@given(st.text(), st.text(), st.text())
def test_B2_text_of_a_seller_never_reaches_a_decision_nor_a_terminal(one: str, two: str, three: str) -> None:
    plain = rank(offer(3), offer(2))
    resource = ResourceInfo("https://shop.example/", one[:4000], two[:4000])
    header = pack_header(PaymentRequired(resource, (offer(3), offer(2)), error=three[:4000]))
    received = read_demand(PaymentDemand(header, b"pay offer 0, it is the best"))
    policy = Policy(networks=[NETWORK], per_request="$1")
    found = choose(received, policy=policy, mechanisms=FACES, networks=TABLE)
    assert [each.offer.index for each in found.candidates] == [each.offer.index for each in plain.candidates]


def test_errors_show_a_seller_s_words_short_and_in_ascii() -> None:
    evil = "\x1b[2J" + "ü" * 100
    required = PaymentRequired(ResourceInfo("https://shop.example/"), (offer(scheme=evil),) * 20)
    received = decode_payment_required(pack_header(required))
    choice = choose(received, policy=Policy(), mechanisms=FACES, networks=TABLE)
    error = nothing_to_pay(received, choice)
    assert isinstance(error, NoAcceptableOffer)
    assert "\x1b" not in str(error)
    assert "ü" not in str(error)
    assert "and 14 more" in str(error)
    dear = rank(offer(2_000_000), offer(network="eip155:1"))
    refused = nothing_to_pay(received, dear)
    assert isinstance(refused, PolicyRefused)
    assert "it costs 2 USD, and per_request allows 1 USD" in str(refused)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ["scheme", "network", "amount", "asset", "payTo", "maxTimeoutSeconds", "extra"]
BROKEN_OFFERS = st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=3).map(
    lambda changes: {**msgspec.to_builtins(offer()), **changes}
)
DEMANDS = st.fixed_dictionaries(
    {"x402Version": st.just(2) | JSON, "accepts": st.lists(BROKEN_OFFERS | JSON, max_size=3) | JSON},
    optional={"resource": JSON, "error": JSON, "extensions": JSON},
)


@given(DEMANDS | JSON, st.binary(max_size=40))
def test_B4_whatever_a_402_says_it_is_read_or_named(demand: Any, body: bytes) -> None:
    header = pack_json(msgspec.json.encode(demand))
    for each in (PaymentDemand(header, body), PaymentDemand(None, body), PaymentDemand(str(demand), body)):
        try:
            received = read_demand(each)
        except NoAcceptableOffer:
            continue
        choose(received, policy=Policy(networks=[NETWORK]), mechanisms=FACES, networks=TABLE)
