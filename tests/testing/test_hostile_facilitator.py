"""SAFETY S2 and S3 before a facilitator that misbehaves on cue: nothing is served on what did not clearly settle."""

from __future__ import annotations

import base64
import json
import ssl
from typing import Any, Literal

import httpx2
import pytest

from farthing.testing import Account, Books, FacilitatorMode, HostileFacilitator, Town
from farthing.testing.town import GOODS, Shop

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
# What holds does so until the seller gives up.
SETTLE_TIMEOUT_SECONDS = 0.5
VERIFY_TIMEOUT_SECONDS = 2.0
# Each time it is asked within that, on a machine that may be busy.
ASKED_MAX = 20
MISBEHAVING = [mode for mode in FacilitatorMode if mode is not FacilitatorMode.BEHAVE and not mode.lies]
# Of a verification these say `isValid: true` in good form.
VALID = {FacilitatorMode.OTHER_NETWORK, FacilitatorMode.NO_TRANSACTION}
LYING = [mode for mode in FacilitatorMode if mode.lies]


class Customer:
    """Signs one payment for a shop, and presents it as often as it is told to."""

    def __init__(self, town: Town, shop: Shop) -> None:
        self.account: Account = town.account(usdc=1)
        self._url = shop.price_url
        self._headers: dict[str, str] = {}
        self._town = town

    def ask(self) -> httpx2.Response:
        if not self._headers:
            self._headers = {"PAYMENT-SIGNATURE": self._sign()}
        return httpx2.get(self._url, headers=self._headers, verify=NO_TLS, timeout=20)

    def _sign(self) -> str:
        from farthing.buyer import PaymentDemand, describe_request  # noqa: PLC0415 - here alone
        from farthing.clients.buyer import Exchange  # noqa: PLC0415 - likewise

        offer = httpx2.get(self._url, verify=NO_TLS)
        with self._town.buyer(self.account) as buyer, Exchange(buyer, describe_request("GET", self._url, b"")) as deal:
            demand = PaymentDemand(offer.headers["PAYMENT-REQUIRED"], b"")
            return deal.blocking(deal.pay(demand)).header


def response_of(answer: httpx2.Response) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(base64.b64decode(answer.headers["PAYMENT-RESPONSE"]))
    return found


@pytest.mark.parametrize("flow", ["authorization", "upfront"])
@pytest.mark.parametrize("mode", MISBEHAVING, ids=lambda mode: mode.name)
def test_S2_nothing_is_served_on_a_settlement_that_did_not_clearly_succeed(
    town: Town, books: Books, mode: FacilitatorMode, flow: Literal["authorization", "upfront"]
) -> None:
    with HostileFacilitator(town.facilitator_url, mode) as facilitator:
        shop = town.shop(
            facilitator_url=facilitator.url, payment_flow=flow, settle_timeout_seconds=SETTLE_TIMEOUT_SECONDS
        )
        customer = Customer(town, shop)
        answer = customer.ask()
        assert answer.status_code == 402
        assert GOODS not in answer.content
        assert "PAYMENT-REQUIRED" not in answer.headers  # an offer would be paid by many, and that may be the second
        assert response_of(answer)["success"] is False
        assert facilitator.count("/settle") == 1
        if flow == "upfront":
            assert shop.served == 0
        # However long it goes on, and then a facilitator that behaves: one payment, and one serving.
        answers = [customer.ask()]
        facilitator.play()
        while answers[-1].content != GOODS and len(answers) < ASKED_MAX:
            answers.append(customer.ask())
        answers.append(customer.ask())
        assert {each.status_code for each in answers} <= {402, 409, 503, 200}
        # Evidence against a refusal is looked for in the seller's own time. Who comes again with its payment-identifier
        # is given the earlier answer again: the work was done once.
        goods = [each.content for each in answers].count(GOODS)
        assert goods or mode is FacilitatorMode.REFUSED_AFTER_SETTLING
        assert shop.served <= 1
        books.assert_paid(shop.payee, "0.01", times=1)


@pytest.mark.parametrize("mode", LYING, ids=lambda mode: mode.name)
def test_a_lie_in_good_form_is_believed_and_the_chain_tells(town: Town, books: Books, mode: FacilitatorMode) -> None:
    """The limit of S2: a seller asks no node, so its facilitator is trusted with a well-formed success."""
    with HostileFacilitator(town.facilitator_url, mode) as facilitator:
        shop = town.shop(facilitator_url=facilitator.url)
        assert Customer(town, shop).ask().content == GOODS
    books.assert_paid(shop.payee, "0.01" if mode.settles else 0)


@pytest.mark.parametrize("mode", [mode for mode in MISBEHAVING if mode not in VALID], ids=lambda mode: mode.name)
def test_F3_a_verification_that_was_not_clearly_answered_is_no_verdict(town: Town, mode: FacilitatorMode) -> None:
    with HostileFacilitator(town.facilitator_url, verify=[mode]) as facilitator:
        shop = town.shop(facilitator_url=facilitator.url, verify_timeout_seconds=VERIFY_TIMEOUT_SECONDS)
        customer = Customer(town, shop)
        answer = customer.ask()
        assert answer.status_code == (402 if mode is FacilitatorMode.REFUSED_AFTER_SETTLING else 503)
        assert GOODS not in answer.content
        assert facilitator.count("/settle") == 0
        assert customer.ask().content == GOODS


def test_S1_S7_copies_behind_a_facilitator_that_cuts_are_served_once(town: Town, books: Books) -> None:
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - here alone

    with HostileFacilitator(town.facilitator_url, [FacilitatorMode.CUT_AFTER_SETTLING]) as facilitator:
        shop = town.shop(facilitator_url=facilitator.url)
        customer = Customer(town, shop)
        customer.ask()
        with ThreadPoolExecutor(5) as pool:
            answers = [future.result() for future in [pool.submit(customer.ask) for _ in range(10)]]
    # Each has the payment's identifier, so that each may have the one answer; whoever asks meanwhile comes again.
    assert {answer.status_code for answer in answers if answer.content != GOODS} <= {402, 409}
    assert GOODS in [answer.content for answer in answers]
    assert shop.served == 1
    books.assert_paid(shop.payee, "0.01", times=1)


def test_what_is_no_verification_or_settlement_passes_and_is_counted(town: Town) -> None:
    with HostileFacilitator(town.facilitator_url, FacilitatorMode.PROSE) as facilitator:
        kinds = httpx2.get(facilitator.url + "/supported", verify=NO_TLS).json()["kinds"]
        assert {kind["scheme"] for kind in kinds} >= {"exact"}
        assert facilitator.count("/supported") == 1
        assert facilitator.seen()[0].mode == ""


def test_every_mode_says_what_it_is() -> None:
    assert all(mode.__doc__ and mode.__doc__.endswith(".") for mode in FacilitatorMode)
    assert len({mode.__doc__ for mode in FacilitatorMode}) == len(FacilitatorMode)
