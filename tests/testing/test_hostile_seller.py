"""SAFETY B1 and B4 before a seller that misbehaves on cue, with real settlement; and the stand-in itself."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
import requests

from farthing.clients import Buyer
from farthing.clients.httpx import PayingTransport, receipt_of
from farthing.clients.requests import paying_session
from farthing.errors import ConfigError, PaymentError
from farthing.testing import Books, HostileSeller, SellerMode, Town
from farthing.testing.town import GOODS

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
# What holds does so until the client goes; settling takes some hundredths of a second.
TIMEOUT_SECONDS = 1.0
# Where an answer comes, a machine may be busy.
PATIENCE_SECONDS = 20.0
ATTEMPTS = 4


def through_httpx2(buyer: Buyer, url: str, timeout: float = PATIENCE_SECONDS) -> tuple[int, bytes]:
    transport = PayingTransport(buyer, inner=httpx2.HTTPTransport(verify=NO_TLS))
    with httpx2.Client(transport=transport, timeout=timeout) as client:
        answer = client.get(url)
        return answer.status_code, answer.content


def through_requests(buyer: Buyer, url: str, timeout: float = PATIENCE_SECONDS) -> tuple[int, bytes]:
    with paying_session(buyer) as session:
        answer = session.get(url, timeout=timeout, allow_redirects=False)
        return answer.status_code, answer.content


Fetch = Callable[[Buyer, str, float], tuple[int, bytes]]


def patience(mode: SellerMode) -> float:
    return TIMEOUT_SECONDS if "TIMEOUT" in mode.name else PATIENCE_SECONDS


def ask_again(fetch: Fetch, buyer: Buyer, url: str, timeout: float = PATIENCE_SECONDS) -> list[Any]:
    """Ask as a program does that wants the thing and knows nothing of payments: until it gets a 2xx."""
    told: list[Any] = []
    for _ in range(ATTEMPTS):
        try:
            status, _ = fetch(buyer, url, timeout)
        except (PaymentError, httpx2.HTTPError, requests.RequestException) as error:
            told.append(error)
        else:
            told.append(status)
            if status == 200:
                break
    return told


@pytest.mark.parametrize("mode", list(SellerMode), ids=lambda mode: mode.name)
def test_B1_one_purchase_is_paid_once_whatever_the_seller_does(town: Town, books: Books, mode: SellerMode) -> None:
    shop = town.shop()
    with HostileSeller(shop.url, [mode] * 2) as seller, town.buyer() as buyer:
        told = ask_again(through_httpx2, buyer, seller.url + shop.path, patience(mode))
        assert len(seller.payments()) == 1
        assert [each.mode for each in seller.paid_requests()][:2] == [mode.name] * min(2, len(told))
        assert 402 not in told  # B4
        came = books.transfers(payer=buyer.payer)
        assert len(came) <= 1
        if mode.settles:
            books.assert_paid(shop.payee, "0.01", times=1)


@pytest.mark.parametrize(
    "mode",
    [
        SellerMode.CUT_IN_BODY,
        SellerMode.TIMEOUT_AFTER_SETTLING,
        SellerMode.SECOND_402_AFTER_SETTLING,
        SellerMode.OVERSIZED_HEADER,
        SellerMode.REDIRECT,
    ],
    ids=lambda mode: mode.name,
)
def test_B1_the_same_through_requests(town: Town, books: Books, mode: SellerMode) -> None:
    shop = town.shop()
    with HostileSeller(shop.url, [mode] * 2) as seller, town.buyer() as buyer:
        assert 402 not in ask_again(through_requests, buyer, seller.url + shop.path, patience(mode))
        assert len(seller.payments()) == 1
        books.assert_paid(shop.payee, "0.01", times=1)


@pytest.mark.parametrize("mode", [each for each in SellerMode if not each.settles], ids=lambda mode: mode.name)
def test_a_mode_that_settles_nothing_moves_nothing(town: Town, books: Books, mode: SellerMode) -> None:
    shop = town.shop()
    with HostileSeller(shop.url, mode) as seller, town.buyer() as buyer:
        ask_again(through_httpx2, buyer, seller.url + shop.path, patience(mode))
    assert books.transfers(payer=buyer.payer) == ()
    assert shop.served == 0


def test_B1_faults_drawn_by_a_seed_never_cost_twice(town: Town, books: Books) -> None:
    from farthing.testing import Faults  # noqa: PLC0415 - shown where it is used

    quick = [each for each in SellerMode if "TIMEOUT" not in each.name and each is not SellerMode.SLOW_DRIP]
    shop = town.shop()
    script = Faults(402).script(quick, 40)
    assert script == Faults(402).script(quick, 40) != Faults(403).script(quick, 40)
    with HostileSeller(shop.url, script) as seller, town.buyer() as buyer:
        for number in range(8):
            ask_again(through_httpx2, buyer, f"{seller.url}{shop.path}?n={number}")
        paid = len(books.transfers(payer=buyer.payer))
        # Answers without proof count as delivered, so one URL is one purchase.
        assert paid <= len(seller.payments()) == 8


def test_it_misbehaves_as_often_as_it_is_told_and_then_behaves(town: Town) -> None:
    shop = town.shop()
    with HostileSeller(shop.url, [SellerMode.ERROR_BEFORE] * 2) as seller, town.buyer() as buyer:
        url = seller.url + shop.path
        assert httpx2.get(url, verify=NO_TLS).status_code == 402
        told = ask_again(through_httpx2, buyer, url)
        assert told[2:] == [200]
        assert [each.mode for each in seller.paid_requests()] == ["ERROR_BEFORE", "ERROR_BEFORE", "BEHAVE"]
        assert [bool(each.mode) for each in seller.seen()].count(False) == 4
        seller.play(SellerMode.PROSE)
        assert through_httpx2(buyer, url)[1].startswith(b"Thank you")
        assert seller.paid_requests()[-1].mode == "PROSE"


def test_what_passes_is_the_real_sellers_answer(town: Town) -> None:
    shop = town.shop()
    transport_of = httpx2.HTTPTransport
    with HostileSeller(shop.url) as seller, town.buyer() as buyer:
        transport = PayingTransport(buyer, inner=transport_of(verify=NO_TLS))
        with httpx2.Client(transport=transport) as client:
            answer = client.get(seller.url + shop.path)
            assert (answer.status_code, answer.content) == (200, GOODS)
            receipt = receipt_of(answer)
            assert receipt is not None
            assert receipt.state == "settled"
            assert client.get(seller.url + "/nothing-priced").content == GOODS


def test_a_stand_in_wants_a_server_that_it_can_reach() -> None:
    for url in ("https://shop.example", "shop.example", ""):
        with pytest.raises(ConfigError, match="http://host:port"):
            HostileSeller(url)


def test_every_mode_says_what_it_is_and_is_played() -> None:
    assert all(mode.__doc__ and mode.__doc__.endswith(".") for mode in SellerMode)
    assert len({mode.__doc__ for mode in SellerMode}) == len(SellerMode)
