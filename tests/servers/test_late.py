"""S3, S6: what becomes of payments of which nobody heard in time: found out by who asks, and by the caretaker."""

from __future__ import annotations

from typing import Any

import pytest
from farthing_selling import TRANSACTION, found, unpack

from farthing.errors import FacilitatorUnavailable
from farthing.protocol.facilitator import Refused

TARGET = "/weather/paris"
FLOWS = pytest.mark.parametrize("flow", ["authorization", "upfront"])


def priced(shop: Any, flow: str = "authorization", **options: Any) -> Any:
    shop.seller.price("GET /weather/{city}", "$0.01", payment_flow=flow, **options)
    return shop


@FLOWS
def test_S3_a_refused_payment_that_settled_after_all_is_served_once(shop: Any, flow: str) -> None:
    priced(shop, flow)
    shop.facilitator.outcomes = [Refused("insufficient_funds")]
    paid = shop.pay("GET", TARGET)
    assert shop.send("GET", TARGET, paid).status == 402
    assert shop.states == ["refused"]
    shop.facilitator.found = found(shop.facilitator.settled[0][1], "confirmed")
    got = shop.send("GET", TARGET, paid)
    assert (got.status, got.body) == (200, b"sunny")
    assert unpack(got.header("payment-response"))["transaction"] == TRANSACTION
    assert shop.send("GET", TARGET, paid).status == 409
    assert (shop.work.ran, len(shop.facilitator.settled), len(shop.seller.store.ledger())) == (1, 1, 1)


def test_S6_a_refused_payment_that_settled_after_all_and_has_no_response_is_owed(shop: Any) -> None:
    priced(shop, store_response=False)
    shop.facilitator.outcomes = [Refused("insufficient_funds")]
    paid = shop.pay("GET", TARGET)
    assert shop.send("GET", TARGET, paid).status == 402
    shop.facilitator.found = found(shop.facilitator.settled[0][1], "final")
    got = shop.send("GET", TARGET, paid)
    assert (got.status, got.json["transaction"], shop.states) == (409, TRANSACTION, ["refund_due"])
    assert len(shop.seller.store.ledger()) == 1


@pytest.mark.parametrize("reason", ["duplicate_settlement", "invalid_exact_evm_nonce_already_used"])
def test_S1_what_another_was_told_of_is_not_served_here(shop: Any, reason: str) -> None:
    priced(shop)
    shop.facilitator.extensions = ("idempotency-key",)
    shop.facilitator.outcomes = [Refused(reason, "", TRANSACTION)]
    paid = shop.pay("GET", TARGET)
    assert shop.send("GET", TARGET, paid).status == 402
    shop.facilitator.found = found(shop.facilitator.settled[0][1], "confirmed")
    assert shop.send("GET", TARGET, paid).status == 402
    assert (shop.states, shop.facilitator.finds) == (["refused"], 0)


def test_A1_a_refused_payment_is_looked_up_in_turns(shop: Any) -> None:
    priced(shop)
    shop.facilitator.outcomes = [Refused("insufficient_funds")]
    paid = shop.pay("GET", TARGET)
    for _ in range(10):
        assert shop.send("GET", TARGET, paid).status == 402
    assert shop.facilitator.finds <= 2


def test_S3_a_lookup_that_fails_is_no_verdict(shop: Any) -> None:
    priced(shop)
    shop.facilitator.outcomes = [Refused("insufficient_funds")]
    paid = shop.pay("GET", TARGET)
    shop.send("GET", TARGET, paid)
    shop.facilitator.found = FacilitatorUnavailable("away")
    got = shop.send("GET", TARGET, paid)
    assert (got.status, got.header("payment-required"), shop.states) == (402, "", ["refused"])
