"""Purchases of one thing at once: none of them takes another's payment for one that was cut (SAFETY B1)."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from shop import NETWORK, SIGNER, offer, required, response

from farthing.buyer import PaidAnswer, PaymentDemand, Policy, describe_request
from farthing.buyer.journal import FindOpen, PresentAgain
from farthing.clients import Buyer
from farthing.clients.buyer import Exchange
from farthing.world import journal_rows
from farthing.world.processes import is_under_way

DEMAND = PaymentDemand(required(offer(10_000)))
PROOF = PaidAnswer(200, response())
REQUEST = describe_request("GET", "https://shop.example/thing", b"")


@pytest.fixture
def buyer(tmp_path: Path) -> Iterator[Buyer]:
    with Buyer(signer=SIGNER, policy=Policy(networks=[NETWORK], total="$100"), journal=tmp_path / "journal") as made:
        yield made


def buy(buyer: Buyer) -> str:
    with Exchange(buyer, REQUEST) as exchange:
        paid = exchange.blocking(exchange.pay(DEMAND))
        exchange.blocking(exchange.conclude(PROOF))
        return paid.payment_id


def test_B1_a_purchase_that_ends_while_it_is_looked_at_was_not_cut(
    buyer: Buyer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row was read as sent; before anyone asks who is busy with it, its answer is on record and its door done."""
    with Exchange(buyer, REQUEST) as first:
        paid = first.blocking(first.pay(DEMAND))
        ended: list[str] = []

        def ends_now(work: str, owner: str) -> bool:
            if not ended:
                ended.append(work)
                first.blocking(first.conclude(PROOF))
                buyer.journal.end(paid.purchase_id)
            return is_under_way(work, owner)

        monkeypatch.setattr(journal_rows, "is_under_way", ends_now)
        effect = FindOpen(REQUEST.request_print, buyer.payer)
        assert buyer.performer.blocking(effect) is None
        assert ended == [paid.purchase_id]
    assert buy(buyer) != paid.payment_id


def test_B1_a_payment_whose_resource_was_delivered_is_not_presented_again(buyer: Buyer) -> None:
    with Exchange(buyer, REQUEST) as first:
        paid = first.blocking(first.pay(DEMAND))
        first.blocking(first.conclude(PROOF))
    assert buyer.performer.blocking(PresentAgain(paid.purchase_id)) is False


def test_B1_many_purchases_of_one_thing_at_once_are_as_many_payments(buyer: Buyer) -> None:
    with ThreadPoolExecutor(16) as pool:
        payments = list(pool.map(lambda _number: buy(buyer), range(200)))
    assert len(set(payments)) == 200
