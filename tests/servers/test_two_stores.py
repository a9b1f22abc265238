"""S1: two stores of one seller behind one facilitator: the one that was told of the settlement serves, no other."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from farthing_selling import TRANSACTION, found, replaced, success
from selling_town import AMOUNT, Purchase, http_client, town
from wire_cutter import Cut, Cutter, Rule

from farthing.errors import FacilitatorUnavailable
from farthing.protocol.facilitator import Refused, Unknown, digest_of_key
from farthing.seller.states import State
from farthing.world.seller_store import SellerStore

TARGET = "/weather/paris"
FLOWS = pytest.mark.parametrize("flow", ["authorization", "upfront"])


def test_S1_S3_of_two_stores_the_one_whose_wire_was_cut_does_not_serve_what_the_other_served(
    local: Any, tmp_path: Path
) -> None:
    places = [tmp_path / name for name in ("one.sqlite", "other.sqlite")]

    async def run() -> list[Purchase]:
        purchases = []
        async with Cutter(local.facilitator_url) as wire, http_client() as client:
            with town(local, tmp_path) as street:
                one = await street.start(store=str(places[0]))
                other = await street.start(store=str(places[1]), facilitator=wire.url)
                for path in ("/kept", "/upfront"):
                    purchase = await street.offer(client, one.url, path)
                    purchases.append(purchase)
                    wire.rules.append(Rule("POST /settle", Cut.BEFORE_REQUEST))
                    assert not await street.send(client, other.url, purchase)
                    assert await street.send(client, one.url, purchase)
                    # Where it looks the payment up it is settled by now: for the first store.
                    await street.until_the_end(client, [other.url], [purchase])
                    purchase.end = ""
                    await street.until_the_end(client, [other.url], [purchase])
                assert sorted(street.spent().values()) == [1, 1]
                assert street.balance() == 2 * AMOUNT
        return purchases

    for purchase in asyncio.run(run()):
        assert purchase.served == 1, purchase.answers
        assert purchase.end == "settlement-refused"
    books = [SellerStore(place) for place in places]
    assert [row.state for row in books[1].payments()] == [State.REFUSED] * 2
    assert [len(store.ledger()) for store in books] == [2, 0]
    for store in books:
        store.close()


def unknown(shop: Any, flow: str) -> Any:
    """Have a payment be UNKNOWN at a facilitator that takes keys; gives the payment and the key that it came under."""
    shop.seller.price("GET /weather/{city}", "$0.01", payment_flow=flow)
    shop.facilitator.extensions = ("idempotency-key",)
    shop.facilitator.outcomes = [Unknown("unexpected_settle_error")]
    paid = shop.pay("GET", TARGET)
    assert shop.send("GET", TARGET, paid).status == 402
    assert shop.states == ["unknown"]
    ((key, requirements),) = shop.facilitator.settled
    return paid, key, found(requirements, "confirmed")


@FLOWS
def test_S3_what_was_settled_under_our_key_is_served(shop: Any, flow: str) -> None:
    paid, key, status = unknown(shop, flow)
    shop.facilitator.found = replaced(status, idempotency_key_digest=digest_of_key(key))
    got = shop.send("GET", TARGET, paid)
    assert (got.status, got.body, len(shop.facilitator.settled)) == (200, b"sunny", 1)


@FLOWS
def test_S1_what_was_settled_under_another_key_is_not_served(shop: Any, flow: str) -> None:
    paid, key, status = unknown(shop, flow)
    ran = shop.work.ran
    shop.facilitator.found = replaced(status, idempotency_key_digest=digest_of_key(key + "x"))
    for _ in range(2):
        got = shop.send("GET", TARGET, paid)
        assert (got.status, got.header("payment-required")) == (402, "")
    shop.expire_leases()
    shop.seller.care()
    assert (shop.states, shop.work.ran, shop.seller.store.ledger()) == (["refused"], ran, ())
    assert shop.seller.store.payments()[0].transaction == TRANSACTION


def test_S1_the_caretaker_books_nothing_that_another_was_told_of(shop: Any) -> None:
    _, key, status = unknown(shop, "authorization")
    shop.expire_leases()
    shop.facilitator.found = replaced(status, idempotency_key_digest=digest_of_key(key + "x"))
    shop.seller.care()
    assert (shop.states, shop.seller.store.ledger()) == (["refused"], ())


@FLOWS
@pytest.mark.parametrize("told", [True, False])
def test_S1_a_facilitator_that_does_not_say_whose_it_is_is_asked_under_our_key(
    shop: Any, flow: str, *, told: bool
) -> None:
    paid, key, status = unknown(shop, flow)
    shop.facilitator.found = status
    shop.expire_leases()
    shop.seller.care()
    assert shop.states == ["unknown"]
    requirements = shop.facilitator.settled[0][1]
    shop.facilitator.outcomes = [success(requirements) if told else Refused("duplicate_settlement", "", TRANSACTION)]
    got = shop.send("GET", TARGET, paid)
    assert got.status == (200 if told else 402)
    assert [each for each, _ in shop.facilitator.settled] == [key, key]
    assert len(shop.seller.store.ledger()) == int(told)


def test_S1_a_refused_payment_that_was_settled_for_another_stays_refused(shop: Any) -> None:
    shop.seller.price("GET /weather/{city}", "$0.01")
    shop.facilitator.extensions = ("idempotency-key",)
    shop.facilitator.outcomes = [Refused("insufficient_funds")]
    paid = shop.pay("GET", TARGET)
    assert shop.send("GET", TARGET, paid).status == 402
    ((key, requirements),) = shop.facilitator.settled
    shop.facilitator.found = replaced(found(requirements, "final"), idempotency_key_digest=digest_of_key(key + "x"))
    assert shop.send("GET", TARGET, paid).status == 402
    assert (shop.states, shop.facilitator.finds) == (["refused"], 1)


def test_S1_whose_it_is_can_t_be_told_while_the_facilitator_does_not_say_what_it_takes(
    shop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away() -> Any:
        raise FacilitatorUnavailable("away")

    monkeypatch.setattr(shop.facilitator, "supported", away)
    paid, _, status = unknown(shop, "authorization")
    shop.facilitator.found = status
    got = shop.send("GET", TARGET, paid)
    assert (got.status, got.header("retry-after"), shop.states) == (402, "2", ["unknown"])
