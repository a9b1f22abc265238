"""Sellers of version 1, by every door: paid once, judged by header or body, and only where no header offers."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from doors import receipt
from shop import Handler, Shop, answering, offer, open_shop, required, response, settle

from farthing.errors import ConfigError, NoAcceptableOffer, PaymentRefused, PaymentUnknown, PolicyRefused
from farthing.protocol import versions
from farthing.protocol.messages import PaymentPayload, PaymentRequired, PaymentRequirements, ResourceInfo

if TYPE_CHECKING:
    from doors import Fetch

    from farthing.clients import Buyer
    from farthing.mechanisms.interface import SignedPayment

V1 = versions.VERSIONS[1]


def body_of(*offers: PaymentRequirements, error: str = "X-PAYMENT header is required") -> bytes:
    """The body of a seller's 402."""
    return versions.offer_body(PaymentRequired(ResourceInfo("https://shop.example/thing"), offers, error=error))


def told(**facts: Any) -> str:
    """An X-PAYMENT-RESPONSE header."""
    return V1.settlement_header(response(**facts))[1]


class OldHandler(Handler):  # type: ignore[misc] # a module that mypy does not see
    """Speaks version 1 alone."""

    payment_header = "X-PAYMENT"

    def demand(self, path: str) -> None:
        """Offer in the body."""
        self.answer(402, body_of(*self.shop.offers.get(path, (offer(),))))

    def decode(self, path: str, payment: str) -> PaymentPayload:
        """Read a payment, which must belong to the one offer."""
        assert self.headers.get("PAYMENT-SIGNATURE") is None
        (decoded,) = V1.read_payments(payment, self.shop.offers.get(path, (offer(),)))
        return decoded


def settle_v1(handler: Handler, signed: SignedPayment) -> None:
    """Take the money and serve."""
    handler.shop.transfer(signed)
    handler.answer(200, b"the goods", X_PAYMENT_RESPONSE=told(payer=signed.payer))


@pytest.fixture
def old_shop() -> Iterator[Shop]:
    with open_shop(OldHandler) as opened:
        opened.behaviours["/thing"] = settle_v1
        yield opened


def test_a_purchase(fetch: Fetch, old_shop: Shop, buyer: Buyer) -> None:
    answer = fetch(buyer, "GET", old_shop.url + "/thing")
    assert (answer.status_code, answer.content) == (200, b"the goods")
    assert list(old_shop.transfers.values()) == [10_000]
    (entry,) = buyer.journal.purchases()
    assert (entry.state, entry.delivered, entry.network) == ("settled", True, "eip155:84532")
    proof = receipt(answer)
    assert proof is not None
    assert proof.response is not None
    assert (proof.state, proof.response.network) == ("settled", "eip155:84532")


def test_B1_what_nobody_answered_for_is_presented_again_in_its_own_header(
    fetch: Fetch, old_shop: Shop, buyer: Buyer
) -> None:
    old_shop.behaviours["/thing"] = answering(502, b"<html>")
    with pytest.raises(PaymentUnknown):
        fetch(buyer, "GET", old_shop.url + "/thing")
    old_shop.behaviours["/thing"] = settle_v1
    assert fetch(buyer, "GET", old_shop.url + "/thing").status_code == 200
    first, again = old_shop.paid()
    assert first == again
    assert [each.state for each in buyer.journal.purchases()] == ["settled"]


@pytest.mark.parametrize("zipped", [False, True])
def test_B4_a_refusal_in_the_body_is_told(fetch: Fetch, old_shop: Shop, buyer: Buyer, *, zipped: bool) -> None:
    body = body_of(offer(), error="insufficient_funds")
    refusal = answering(402, gzip.compress(body), Content_Encoding="gzip") if zipped else answering(402, body)
    old_shop.behaviours["/thing"] = refusal
    with pytest.raises(PaymentRefused) as caught:
        fetch(buyer, "GET", old_shop.url + "/thing")
    assert caught.value.reason == "insufficient_funds"


@pytest.mark.parametrize(
    "behaviour",
    [
        answering(402, body_of(offer(), error="Unable to find matching payment requirements")),
        answering(402, body_of(offer(), error="unexpected_verify_error")),
        answering(402, b"<html>"),
        answering(402, X_PAYMENT_RESPONSE=told(success=False, error_reason="settlement_pending")),
        answering(409, b""),
    ],
)
def test_B1_whatever_is_no_clear_refusal_is_unknown(fetch: Fetch, old_shop: Shop, buyer: Buyer, behaviour: Any) -> None:
    old_shop.behaviours["/thing"] = behaviour
    with pytest.raises(PaymentUnknown):
        fetch(buyer, "GET", old_shop.url + "/thing")
    assert [each.state for each in buyer.journal.purchases()] == ["unknown"]


@pytest.mark.parametrize("proof", [{}, {"X_PAYMENT_RESPONSE": "garbage"}, {"PAYMENT_RESPONSE": response()},
                                   {"X_PAYMENT_RESPONSE": told(network="eip155:8453")}])  # fmt: skip
def test_B4_an_answer_without_proof_in_its_own_header_is_unknown(
    old_shop: Shop, buyer: Buyer, fetch: Fetch, proof: dict[str, str]
) -> None:
    old_shop.behaviours["/thing"] = answering(200, b"the goods", **proof)
    assert fetch(buyer, "GET", old_shop.url + "/thing").content == b"the goods"
    assert [each.state for each in buyer.journal.purchases()] == ["unknown"]


def test_B3_a_body_beside_a_header_is_ignored(fetch: Fetch, shop: Shop, buyer: Buyer) -> None:
    headers = {"PAYMENT_REQUIRED": required(offer(20_000_000))}
    shop.plain["/thing"] = (402, headers, body_of(offer(1)))
    with pytest.raises(PolicyRefused):
        fetch(buyer, "GET", shop.url + "/thing")
    assert shop.paid() == []


def test_B2_the_policy_decides_as_for_any_other(fetch: Fetch, old_shop: Shop, buyer: Buyer) -> None:
    for path, offered in {"/dear": offer(20_000_000), "/elsewhere": offer(network="eip155:8453")}.items():
        old_shop.offers[path] = (offered,)
        with pytest.raises((PolicyRefused, NoAcceptableOffer)):
            fetch(buyer, "GET", old_shop.url + path)
    unknown = json.loads(body_of(offer()))
    unknown["accepts"][0]["network"] = "solana"
    old_shop.plain["/unknown"] = (402, {}, json.dumps(unknown).encode())
    with pytest.raises(NoAcceptableOffer) as caught:
        fetch(buyer, "GET", old_shop.url + "/unknown")
    assert "solana" in str(caught.value)
    assert old_shop.paid() == []


def test_B3_the_cheapest_is_paid(fetch: Fetch, old_shop: Shop, buyer: Buyer) -> None:
    old_shop.plain["/thing"] = (402, {}, body_of(offer(30_000), offer(20_000), offer(network="eip155:8453", amount=1)))
    with pytest.raises(PaymentUnknown):  # this one asks for money for ever
        fetch(buyer, "GET", old_shop.url + "/thing")
    (entry,) = buyer.journal.purchases()
    assert entry.amount == 20_000


def test_a_request_that_brings_a_payment_of_its_own_is_refused(fetch: Fetch, shop: Shop, buyer: Buyer) -> None:
    with pytest.raises(ConfigError, match="X-PAYMENT"):
        fetch(buyer, "GET", shop.url + "/thing", headers={"X-Payment": "mine"})
    shop.behaviours["/thing"] = settle
    assert fetch(buyer, "GET", shop.url + "/thing").status_code == 200
