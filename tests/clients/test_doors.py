"""What every door keeps, over real sockets: httpx2 and httpx, synchronous and asynchronous, and requests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import httpx2
import pytest
import requests
from doors import Fetch, receipt
from shop import (
    NETWORK,
    PAYEE,
    Handler,
    Shop,
    answering,
    cut,
    make_buyer,
    offer,
    required,
    response,
    settle,
)

from farthing.clients import Buyer
from farthing.errors import (
    BodyNotReplayable,
    ConfigError,
    NoAcceptableOffer,
    PaymentRefused,
    PaymentUnknown,
    PolicyRefused,
)
from farthing.mechanisms.interface import SignedPayment
from farthing.protocol.codec import decode_payment


def test_a_purchase(fetch: Fetch, shop: Shop, buyer: Buyer) -> None:
    answer = fetch(buyer, "POST", shop.url + "/thing?x=1", body=b'{"a":1}')
    assert (answer.status_code, answer.text) == (200, "the goods")
    first, second = shop.seen
    assert first.body == second.body == b'{"a":1}'
    assert (first.payment is None, second.payment is None) == (True, False)
    assert first.connection == second.connection
    found = receipt(answer)
    assert found
    assert found.state == "settled"
    (entry,) = buyer.journal.purchases()
    assert (entry.state, entry.delivered, entry.amount) == ("settled", True, 10_000)
    assert (entry.payment_id, entry.transaction) == (found.payment_id, "0x" + "ab" * 32)
    assert shop.transfers == {entry.payment_id: 10_000}


def test_what_is_free_is_not_paid(fetch: Fetch, shop: Shop, buyer: Buyer) -> None:
    shop.plain["/free"] = (200, {}, b"free")
    answer = fetch(buyer, "GET", shop.url + "/free")
    assert answer.text == "free"
    assert receipt(answer) is None
    assert buyer.journal.purchases() == []


@pytest.mark.parametrize(
    ("header", "body", "reason"),
    [
        ({}, b"<h1>Pay here</h1>", "not_x402"),
        ({}, b'{"x402Version": 1, "accepts": []}', "no_offers"),
        ({"PAYMENT_REQUIRED": "no base64!"}, b"", "malformed_offer"),
        ({"PAYMENT_REQUIRED": required()}, b"", "no_offers"),
        ({"PAYMENT_REQUIRED": required(offer(scheme="auth-capture"))}, b"", "no_acceptable_offer"),
        ({"PAYMENT_REQUIRED": required(offer(network="eip155:8453"))}, b"", "no_acceptable_offer"),
        ({"PAYMENT_REQUIRED": required(offer(10**18))}, b"", "price_over_limit"),
    ],
)
def test_B4_a_402_that_cannot_be_paid_is_an_error_and_never_an_answer(  # noqa: PLR0917 - fixtures
    fetch: Fetch, shop: Shop, buyer: Buyer, header: dict[str, str], body: bytes, reason: str
) -> None:
    shop.plain["/thing"] = (402, header, body)
    with pytest.raises((NoAcceptableOffer, PolicyRefused)) as caught:
        fetch(buyer, "GET", shop.url + "/thing")
    assert caught.value.reason == reason
    assert caught.value.advice
    assert len(shop.seen) == 1
    assert buyer.journal.purchases() == []


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"PAYMENT_RESPONSE": response(success=False, transaction="", error_reason="insufficient_funds")},
         "insufficient_funds"),
        ({"PAYMENT_REQUIRED": required(offer(), error="invalid_exact_evm_payload_signature")},
         "invalid_exact_evm_payload_signature"),
    ],
)  # fmt: skip
def test_B4_a_refused_payment_is_an_error_with_offer_and_reason(
    fetch: Fetch, shop: Shop, buyer: Buyer, answer: dict[str, str], reason: str
) -> None:
    shop.behaviours["/thing"] = answering(402, b"{}", **answer)
    with pytest.raises(PaymentRefused) as caught:
        fetch(buyer, "GET", shop.url + "/thing")
    assert caught.value.reason == reason
    assert caught.value.offer == offer()
    (entry,) = buyer.journal.purchases()
    assert (entry.state, entry.payment_id) == ("refused", caught.value.payment_id)


UNKNOWN = {
    "pending": answering(402, PAYMENT_RESPONSE=response(success=False, error_reason="settlement_pending")),
    "prose": answering(402, b"no", PAYMENT_REQUIRED=required(offer(), error="Payment required, my friend")),
    "bare": answering(402),
    "settled": answering(402, PAYMENT_RESPONSE=response()),
    "conflict": answering(409),
    "error": answering(500, b"oops"),
    "gateway": answering(502, b"<html>", PAYMENT_RESPONSE="garbage"),
    "cut": cut,
}


@pytest.mark.parametrize("kind", UNKNOWN)
def test_B1_what_nobody_answered_for_is_unknown_and_presented_again(
    fetch: Fetch, shop: Shop, buyer: Buyer, kind: str
) -> None:
    shop.behaviours["/thing"] = UNKNOWN[kind]
    with pytest.raises(PaymentUnknown) as caught:
        fetch(buyer, "POST", shop.url + "/thing", body=b"one")
    (entry,) = buyer.journal.purchases()
    assert entry.payment_id == caught.value.payment_id
    assert entry.state == ("settled" if kind == "settled" else "unknown")
    shop.behaviours["/thing"] = settle
    # Another body is another purchase; the same request is the same one, and pays with the same payload.
    fetch(buyer, "POST", shop.url + "/thing", body=b"two")
    fetch(buyer, "POST", shop.url + "/thing", body=b"one")
    first, other, again = shop.paid()
    assert first == again
    assert other != first
    assert [each.state for each in buyer.journal.purchases()] == ["settled", "settled"]
    # It is over now, and the next one is a new purchase.
    fetch(buyer, "POST", shop.url + "/thing", body=b"one")
    assert shop.paid()[3] not in {first, other}


def test_B1_a_time_out_after_sending_is_unknown(fetch: Fetch, shop: Shop, buyer: Buyer) -> None:
    def hang(handler: Handler, signed: SignedPayment) -> None:
        shop.transfer(signed)
        shop.stopped.wait(20)

    shop.behaviours["/thing"] = hang
    with pytest.raises(PaymentUnknown) as caught:
        fetch(buyer, "GET", shop.url + "/thing", timeout=0.3)
    assert "Timeout" in caught.value.reason
    assert type(caught.value.__cause__).__name__ == "ReadTimeout"


def test_B1_a_refusal_presents_the_same_payload_while_its_window_is_open(
    fetch: Fetch, shop: Shop, buyer: Buyer
) -> None:
    refusal = response(success=False, transaction="", error_reason="insufficient_funds")
    shop.behaviours["/thing"] = answering(402, PAYMENT_RESPONSE=refusal)
    for _ in range(2):
        with pytest.raises(PaymentRefused):
            fetch(buyer, "GET", shop.url + "/thing")
    shop.behaviours["/thing"] = settle
    assert fetch(buyer, "GET", shop.url + "/thing").status_code == 200
    assert len(set(shop.paid())) == 1
    assert len(shop.transfers) == 1


def test_B5_a_redirect_after_payment_is_returned_and_not_followed(
    fetch: Fetch, shop: Shop, other_shop: Shop, buyer: Buyer
) -> None:
    elsewhere = other_shop.url + "/thing"
    shop.behaviours["/thing"] = answering(302, b"over there", Location=elsewhere)
    answer = fetch(buyer, "GET", shop.url + "/thing", follow=True)
    assert (answer.status_code, answer.headers["Location"]) == (302, elsewhere)
    assert other_shop.seen == []
    (entry,) = buyer.journal.purchases()
    assert (entry.state, entry.delivered) == ("unknown", False)


def test_B5_a_settled_redirect_is_returned_too(fetch: Fetch, shop: Shop, other_shop: Shop, buyer: Buyer) -> None:
    shop.behaviours["/thing"] = answering(307, Location=other_shop.url + "/", PAYMENT_RESPONSE=response())
    answer = fetch(buyer, "POST", shop.url + "/thing", body=b"x", follow=True)
    assert answer.status_code == 307
    assert other_shop.seen == []
    found = receipt(answer)
    assert found
    assert found.state == "settled"


def test_B5_a_redirect_before_payment_is_the_clients_business(
    fetch: Fetch, shop: Shop, other_shop: Shop, tmp_path: Path
) -> None:
    shop.plain["/old"] = (302, {"Location": other_shop.url + "/new"}, b"")
    with make_buyer(tmp_path, hosts=["127.0.0.1"]) as buyer:
        assert fetch(buyer, "GET", shop.url + "/old", follow=True).text == "the goods"
    assert shop.paid() == []
    assert len(other_shop.paid()) == 1


def test_B5_the_payment_stays_in_the_paid_request_alone(fetch: Fetch, shop: Shop, buyer: Buyer) -> None:
    answer = fetch(buyer, "GET", shop.url + "/thing")
    assert "PAYMENT-SIGNATURE" not in answer.request.headers
    with pytest.raises(ConfigError, match="PAYMENT-SIGNATURE"):
        fetch(buyer, "GET", shop.url + "/thing", headers={"Payment-Signature": "x"})


def test_B1_no_door_pays_for_HEAD_unless_told(fetch: Fetch, shop: Shop, buyer: Buyer, tmp_path: Path) -> None:
    with pytest.raises(PolicyRefused) as caught:
        fetch(buyer, "HEAD", shop.url + "/thing")
    assert caught.value.reason == "head_not_paid"
    assert shop.paid() == []
    with make_buyer(tmp_path / "other", pay_head=True) as eager:
        assert fetch(eager, "HEAD", shop.url + "/thing").status_code == 200
    assert len(shop.paid()) == 1


def test_B2_hosts_are_checked_before_anything_is_signed(fetch: Fetch, shop: Shop, tmp_path: Path) -> None:
    with make_buyer(tmp_path, hosts=["*.example.com"]) as buyer, pytest.raises(PolicyRefused) as caught:
        fetch(buyer, "GET", shop.url + "/thing")
    assert caught.value.reason == "host_not_allowed"
    assert len(shop.seen) == 1


def test_B2_a_budget_ends(fetch: Fetch, shop: Shop, tmp_path: Path) -> None:
    with make_buyer(tmp_path, total="$0.025") as buyer:
        for number in range(2):
            fetch(buyer, "GET", f"{shop.url}/thing?{number}")
        with pytest.raises(PolicyRefused) as caught:
            fetch(buyer, "GET", shop.url + "/thing?3")
        assert caught.value.reason == "over_total"
        assert "0.025 USD" in str(caught.value)
    assert sum(shop.transfers.values()) == 20_000


def test_B3_the_cheapest_allowed_offer_is_paid(fetch: Fetch, shop: Shop, buyer: Buyer) -> None:
    shop.offers["/thing"] = (
        offer(900, network="eip155:1"),
        offer(3000),
        offer(2000, extra={"name": "USDC", "version": "2", "paymentFlow": "upfront"}),
        offer(2000),
        offer(1000, extra={"name": "USDC", "version": "2", "paymentFlow": "escrow"}),
    )
    fetch(buyer, "GET", shop.url + "/thing")
    (entry,) = buyer.journal.purchases()
    assert (entry.network, entry.pay_to, entry.amount) == (NETWORK, PAYEE, 2000)


def test_an_answer_without_proof_is_handed_over_and_stays_unknown(fetch: Fetch, shop: Shop, buyer: Buyer) -> None:
    shop.behaviours["/thing"] = answering(200, b"goods", PAYMENT_RESPONSE=response(network="eip155:1"))
    answer = fetch(buyer, "GET", shop.url + "/thing")
    found = receipt(answer)
    assert (answer.text, found and found.state) == ("goods", "unknown")
    fetch(buyer, "GET", shop.url + "/thing")
    # Delivered: the second one is a purchase of its own.
    assert len(set(shop.paid())) == 2
    assert [each.state for each in buyer.journal.purchases()] == ["unknown", "unknown"]


def test_a_failure_after_payment_is_the_sellers_answer(fetch: Fetch, shop: Shop, buyer: Buyer) -> None:
    shop.behaviours["/thing"] = answering(404, b"not here")
    answer = fetch(buyer, "GET", shop.url + "/thing")
    assert (answer.status_code, answer.text) == (404, "not here")
    (entry,) = buyer.journal.purchases()
    assert (entry.state, entry.reason) == ("refused", "http_404")


def test_what_is_owed_is_asked_for_with_the_same_payment(fetch: Fetch, shop: Shop, buyer: Buyer) -> None:
    shop.behaviours["/thing"] = answering(500, b"oops", PAYMENT_RESPONSE=response())
    assert fetch(buyer, "GET", shop.url + "/thing").status_code == 500
    shop.behaviours["/thing"] = settle
    assert fetch(buyer, "GET", shop.url + "/thing").status_code == 200
    assert len(set(shop.paid())) == 1


def test_a_large_402_body_is_not_read_to_its_end(fetch: Fetch, shop: Shop, buyer: Buyer) -> None:
    shop.plain["/thing"] = (402, {}, b"x" * 1_000_000)
    with pytest.raises(NoAcceptableOffer):
        fetch(buyer, "GET", shop.url + "/thing")


def test_extensions_and_offer_are_echoed_as_they_came(fetch: Fetch, shop: Shop, buyer: Buyer) -> None:
    extensions = {"bazaar": {"info": {"a": [1, {"b": None}]}, "schema": {}}}
    shop.plain["/thing"] = (402, {"PAYMENT_REQUIRED": required(offer(), extensions=extensions)}, b"")
    with pytest.raises((PaymentUnknown, PaymentRefused)):
        fetch(buyer, "GET", shop.url + "/thing")
    (header,) = shop.paid()
    payment = decode_payment(header)
    assert payment.extensions == extensions
    assert payment.accepted == offer()
    assert payment.resource
    assert payment.resource.url == "https://shop.example/thing"


def test_B5_a_body_that_can_be_sent_once_is_refused_before_paying(fetch: Fetch, shop: Shop, buyer: Buyer) -> None:
    async def parts_async() -> AsyncIterator[bytes]:
        yield b"once"

    def parts() -> Iterator[bytes]:
        yield b"once"

    body = parts_async() if "async" in fetch.__qualname__ else parts()
    with pytest.raises(BodyNotReplayable) as caught:
        fetch(buyer, "POST", shop.url + "/thing", body=body)
    assert "bytes" in caught.value.advice
    assert shop.paid() == []
    assert buyer.journal.purchases() == []


def test_B1_a_body_that_is_cut_is_asked_for_with_the_same_payment(fetch: Fetch, shop: Shop, buyer: Buyer) -> None:
    def half(handler: Handler, signed: SignedPayment) -> None:
        shop.transfer(signed)
        handler.send_response(200)
        handler.send_header("PAYMENT-RESPONSE", response())
        handler.send_header("Content-Length", "100")
        handler.end_headers()
        handler.wfile.write(b"half of")
        handler.close_connection = True

    shop.behaviours["/thing"] = half
    with pytest.raises((httpx.RemoteProtocolError, httpx2.RemoteProtocolError, requests.RequestException)):
        fetch(buyer, "GET", shop.url + "/thing")
    shop.behaviours["/thing"] = settle
    assert fetch(buyer, "GET", shop.url + "/thing").text == "the goods"
    assert len(set(shop.paid())) == len(shop.transfers) == 1
    (entry,) = buyer.journal.purchases()
    assert (entry.state, entry.delivered) == ("settled", True)
