"""S1, S2, F8, A2: a store that is full or locked, clocks that are wrong, and addresses that strangers name."""

from __future__ import annotations

import base64
import json
import socket
import sqlite3
import threading
from typing import Any

import farthing_selling as selling
import pytest
from farthing_selling import unpack

from farthing.errors import StoreError
from farthing.flow import Now
from farthing.seller.store import Advance, MakeClaim

TARGET = "/weather/paris"
SKEW_SECONDS = 600
# Pages that the store has already hold this many payments at most.
PURCHASES_MAX = 100


def priced(shop: Any, **options: Any) -> Any:
    shop.seller.price("GET /weather/{city}", "$0.01", **options)
    return shop


def perform(shop: Any, kind: type[Any], handler: Any) -> Any:
    """Have the seller perform an effect in another way; gives the way that it was performed before."""
    handlers = shop.seller.performer._handlers
    before, handlers[kind] = handlers[kind], handler
    return before


@pytest.mark.parametrize("flow", ["authorization", "upfront"])
def test_S2_a_full_store_serves_and_charges_nothing(shop: Any, flow: str) -> None:
    priced(shop, payment_flow=flow)
    limit(shop, pages=0)
    served = 0
    paid = shop.pay("GET", TARGET)
    while (got := shop.send("GET", TARGET, paid)).status == 200 and served < PURCHASES_MAX:
        served += 1
        paid = shop.pay("GET", TARGET)
    assert got.status == 503
    assert b"sunny" not in got.body
    assert int(got.header("retry-after")) > 0
    # What could be recorded was served and charged; the last one was not charged, whether or not it ran.
    assert len(shop.facilitator.settled) - served in {0, 1}
    assert len(shop.seller.store.ledger()) == served
    limit(shop, pages=100_000)
    shop.expire_leases()
    if len(shop.facilitator.settled) > served:  # the settlement itself was on record, and its outcome was not
        shop.facilitator.found = selling.found(shop.facilitator.settled[-1][1], "confirmed")
    assert shop.send("GET", TARGET, paid).status == 200
    assert len(shop.seller.store.ledger()) == len(shop.facilitator.settled) == served + 1


def limit(shop: Any, *, pages: int) -> None:
    """Let the file have this many pages more than it has."""

    def set_limit(connection: Any) -> None:
        now = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {now + pages}")

    shop.seller.store._database.submit(set_limit).result()


def test_S2_a_store_that_fills_after_the_work_serves_nothing_unrecorded(shop: Any) -> None:
    priced(shop)
    paid = shop.pay("GET", TARGET)
    before = perform(shop, Advance, full)
    got = shop.send("GET", TARGET, paid)
    assert (got.status, len(shop.facilitator.settled)) == (503, 0)
    assert b"sunny" not in got.body
    perform(shop, Advance, before)
    shop.expire_leases()
    assert shop.send("GET", TARGET, paid).status == 200
    assert len(shop.facilitator.settled) == 1


def full(_effect: Any) -> Any:
    message = "The store is full."
    raise StoreError(message)


def test_S2_a_settlement_that_cant_be_recorded_is_not_served_and_is_found_again(shop: Any) -> None:
    priced(shop)
    paid = shop.pay("GET", TARGET)
    before: list[Any] = []
    shop.facilitator.on_settle = lambda: before.append(perform(shop, Advance, full))
    got = shop.send("GET", TARGET, paid)
    assert (got.status, got.json["transaction"]) == (503, selling.TRANSACTION)
    assert b"sunny" not in got.body
    perform(shop, Advance, before[0])
    shop.expire_leases()
    shop.facilitator.found = selling.found(shop.facilitator.settled[0][1], "confirmed")
    got = shop.send("GET", TARGET, paid)
    assert (got.status, got.body, shop.work.ran, len(shop.facilitator.settled)) == (200, b"sunny", 1, 1)


def test_S1_a_store_that_is_locked_waits_its_turn(shop: Any) -> None:
    priced(shop)
    paid = shop.pay("GET", TARGET)
    other = sqlite3.connect(shop.seller.store._database.path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    threading.Timer(0.5, other.rollback).start()
    got = shop.send("GET", TARGET, paid)
    assert (got.status, shop.work.ran, len(shop.facilitator.settled)) == (200, 1, 1)
    other.close()


@pytest.mark.parametrize("skew_seconds", [SKEW_SECONDS, -SKEW_SECONDS])
def test_F8_a_clock_that_is_ten_minutes_off_charges_nothing_and_says_so(shop: Any, skew_seconds: int) -> None:
    priced(shop)
    paid = shop.pay("GET", TARGET)
    true = shop.seller.performer._handlers[Now]
    perform(shop, Now, lambda effect: true(effect) + skew_seconds)
    got = shop.send("GET", TARGET, paid)
    assert (got.status, shop.work.ran, len(shop.facilitator.settled)) == (402, 0, 0)
    settlement = unpack(got.header("payment-response"))
    assert "valid_before" in settlement["errorReason"] or "valid_after" in settlement["errorReason"]
    assert "clock" in settlement["errorMessage"]
    perform(shop, Now, true)
    assert shop.send("GET", TARGET, paid).status == 200


@pytest.mark.parametrize("skew_seconds", [SKEW_SECONDS, -SKEW_SECONDS])
def test_S1_a_clock_that_jumps_while_a_payment_is_served_doubles_nothing(shop: Any, skew_seconds: int) -> None:
    priced(shop)
    paid = shop.pay("GET", TARGET)
    true = shop.seller.performer._handlers[Now]
    shop.work.on_run = lambda: perform(shop, Now, lambda effect: true(effect) + skew_seconds)
    assert shop.send("GET", TARGET, paid).status == 200
    assert shop.send("GET", TARGET, paid).status == 409
    shop.seller.care()
    assert (shop.work.ran, len(shop.facilitator.settled), len(shop.seller.store.ledger())) == (1, 1, 1)


def test_A2_no_address_that_a_payment_names_is_fetched(shop: Any) -> None:
    """Each text of a payment is made an address of a server that would tell of a visit."""
    priced(shop)
    header = shop.pay("GET", TARGET)[0][1]
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.setblocking(False)  # noqa: FBT003 - its only argument
        url = f"http://127.0.0.1:{trap.getsockname()[1]}/"
        payment = unpack(header)
        payment["extensions"] = {"any": {"info": {"url": url}, "schema": {"$ref": url, "$schema": url}}}
        payment["resource"].update(url=url, description=url, mimeType=url)
        payment["accepted"]["extra"].update(url=url, callback=url)
        for path in list(selling.paths_of(payment)):
            changed = json.loads(json.dumps(payment))
            *parents, last = path.split(".")
            place = changed
            for each in parents:
                place = place[each]
            if isinstance(place[last], str):
                place[last] = url
            sent = base64.b64encode(json.dumps(changed).encode()).decode()
            assert shop.send("GET", TARGET, [("PAYMENT-SIGNATURE", sent)]).status in {400, 402}
        with pytest.raises(BlockingIOError):
            trap.accept()


def test_S1_a_claim_that_the_store_refuses_runs_nothing(shop: Any) -> None:
    priced(shop)
    paid = shop.pay("GET", TARGET)
    before = perform(shop, MakeClaim, full)
    assert shop.send("GET", TARGET, paid).status == 503
    assert (shop.work.ran, len(shop.facilitator.settled)) == (0, 0)
    perform(shop, MakeClaim, before)
    assert shop.send("GET", TARGET, paid).status == 200


def test_S10_a_good_payment_in_too_large_a_header_gets_400(shop: Any) -> None:
    priced(shop)
    payment = unpack(shop.pay("GET", TARGET)[0][1])
    payment["padding"] = "x" * 16_384
    got = shop.send("GET", TARGET, [("PAYMENT-SIGNATURE", selling.pack(payment))])
    assert (got.status, got.json["type"]) == (400, "urn:farthing:problem:malformed-payment")
    assert (shop.work.ran, shop.facilitator.verified) == (0, 0)
