"""B1 with a buyer that is killed: SIGKILL at every durable step and between every two, and at random: paid once.

Each place kills a process of its own; then the same purchase is made again, and shop, journal and budget are compared.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from forking import KILLED, Forking
from shop import SELLER, Handler, Shop, open_shop, response, settle

from farthing.clients import Journal
from farthing.mechanisms.interface import SignedPayment
from farthing.protocol.codec import decode_payment

SCRIPT = Path(__file__).with_name("buying_process.py")
PRICE = 10**16
# Seeded, so that a failure can be repeated.
RANDOM_KILLS = 20
RANDOM_SEED = 402

FIRST = ("FindOpen", "Reserve", "SignTypedData", "RecordPayment", "RecordOutcome")
AGAIN = ("FindOpen", "PresentAgain", "RecordOutcome")
RENEWED = ("FindOpen", "SignTypedData", "RenewPayment", "RecordOutcome")


def places(steps: tuple[str, ...]) -> list[str]:
    return [f"{when}:{step}" for step in steps for when in ("before", "after")]


class Buying:
    """Processes that buy one thing, one after the other."""

    def __init__(self, folder: Path, shop: Shop) -> None:
        self.folder, self.shop = folder, shop
        self.forking = Forking(SCRIPT)
        self.number = 0

    def fresh(self) -> None:
        """Another purchase, with a journal of its own."""
        self.number += 1
        self.shop.seen.clear()
        self.shop.transfers.clear()
        self.shop.behaviours.clear()

    def buy(self, **order: Any) -> Any:
        """Have a process buy; how it ended."""
        return self.forking.order({"journal": str(self.path), "url": f"{self.shop.url}/thing", **order})

    @property
    def path(self) -> Path:
        return self.folder / f"journal-{self.number}.sqlite"

    def compare(self) -> None:
        """One payment: by what left, what moved, what is on record, and what the budget says."""
        nonces = {SELLER.read(decode_payment(header)).detail.message.nonce for header in self.shop.paid()}
        assert len(nonces) == 1
        assert list(self.shop.transfers.values()) == [10_000]
        journal = Journal(self.path)
        try:
            kept = [each for each in journal.purchases() if each.state != "released"]
            assert [(each.state, each.delivered) for each in kept] == [("settled", True)]
            assert journal.used() == PRICE
        finally:
            journal.close()


@pytest.fixture(scope="module")
def buying(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Buying]:
    with open_shop() as shop:
        made = Buying(tmp_path_factory.mktemp("crash"), shop)
        yield made
        made.forking.close()


def until_done(buying: Buying, **order: Any) -> Any:
    """Buy again until the resource comes: a place in the budget that a dead process held is given back by its age."""
    for _ in range(3):
        done = buying.buy(**order)
        if done["said"] == "200 settled":
            return done
    # Reserved by the dead one, and nothing was signed: taken back after a minute.
    return buying.buy(**order | {"clock": order.get("clock", 0) + 61})


@pytest.mark.parametrize("place", places(FIRST))
def test_B1_killed_at_any_step_of_a_purchase_it_is_paid_once(buying: Buying, place: str) -> None:
    buying.fresh()
    assert buying.buy(crash_at=place)["exit"] == KILLED
    assert until_done(buying)["said"] == "200 settled"
    buying.compare()


@pytest.mark.parametrize("place", places(AGAIN))
def test_B1_killed_while_a_payment_is_presented_again_it_is_paid_once(buying: Buying, place: str) -> None:
    buying.fresh()
    buying.shop.behaviours["/thing"] = lambda handler, _signed: handler.answer(500)
    assert buying.buy()["said"] == "PaymentUnknown"
    assert buying.buy(crash_at=place)["exit"] == KILLED
    buying.shop.behaviours.clear()
    assert buying.buy()["said"] == "200 settled"
    buying.compare()


@pytest.mark.parametrize("place", places(RENEWED))
def test_B1_killed_while_a_payment_is_signed_anew_it_is_paid_once(buying: Buying, place: str) -> None:
    buying.fresh()
    # Signed by a clock that is two minutes slow, so that its window is over by the right one.
    assert buying.buy(clock=-120)["said"] == "PaymentRefused"
    assert buying.buy(crash_at=place)["exit"] == KILLED
    assert until_done(buying)["said"] == "200 settled"
    buying.compare()


@pytest.mark.parametrize("when", ["before the money moves", "after the money moved", "in the body"])
def test_B1_killed_while_the_seller_works_it_is_paid_once(buying: Buying, when: str) -> None:
    buying.fresh()

    def kill(handler: Handler, signed: SignedPayment) -> None:
        if when != "before the money moves":
            handler.shop.transfer(signed)
        if when == "in the body":
            handler.send_response(200)
            handler.send_header("PAYMENT-RESPONSE", response())
            handler.send_header("Content-Length", "100")
            handler.end_headers()
            handler.wfile.write(b"half of")
            handler.wfile.flush()
            time.sleep(0.05)  # for it to be read; too short a time makes it the case before
        os.kill(buying.forking.pid, signal.SIGKILL)

    buying.shop.behaviours["/thing"] = kill
    # The process is named before it has asked for anything: starting a client takes longer than reading a line.
    assert buying.buy()["exit"] == KILLED
    buying.shop.behaviours["/thing"] = settle
    assert buying.buy()["said"] == "200 settled"
    buying.compare()


def test_B1_killed_at_random_again_and_again_it_is_paid_once(
    buying: Buying, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = random.Random(RANDOM_SEED)  # noqa: S311 - a seed to repeat by
    flights = 0
    buying.fresh()
    started = time.monotonic()
    assert buying.buy()["said"] == "200 settled"
    # As long as one takes on this machine now, so that the kills fall anywhere in it.
    seconds = min(time.monotonic() - started, 1.0)
    for _ in range(RANDOM_KILLS // 4):
        buying.fresh()
        for _ in range(4):
            buying.buy(kill_after_seconds=chosen.uniform(0, 1.2 * seconds))
            flights += bool(buying.shop.paid())
        if not _is_delivered(buying):
            assert until_done(buying)["said"] == "200 settled"
        # What was delivered just before a kill is over; then what follows is another purchase.
        journal = Journal(buying.path)
        try:
            signed = [each for each in journal.purchases() if each.payment_id]
            assert len([each for each in signed if not each.delivered]) == 0
            assert len(buying.shop.transfers) == len(signed) == journal.used() // PRICE == 1
        finally:
            journal.close()
    assert flights > 0
    with capsys.disabled():
        print(f"\nbuyer, killed at random {RANDOM_KILLS} times, {flights} after a payment had left: 0 doubled, 0 lost")


def _is_delivered(buying: Buying) -> bool:
    if not buying.path.exists():
        return False
    journal = Journal(buying.path)
    try:
        return any(each.delivered for each in journal.purchases())
    finally:
        journal.close()


def test_B1_on_a_full_disk_nothing_leaves_that_is_not_on_record(buying: Buying) -> None:
    buying.fresh()
    Journal(buying.path).close()
    assert buying.buy(file_bytes=4096)["said"] == "StoreError"
    assert buying.shop.paid() == []
    assert until_done(buying)["said"] == "200 settled"
    buying.compare()
