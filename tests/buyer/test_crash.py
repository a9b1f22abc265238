"""B1 with a buyer that is killed: SIGKILL at every durable step and between every two, and at random: paid once.

Each place kills a process of its own; then the same purchase is made again, and shop, journal and budget are compared.
Over both engines; the server of the one is killed, too.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from forking import KILLED, Forking
from postgres_server import schema
from shop import SELLER, Handler, Shop, open_shop, response, settle

from farthing.clients import Journal
from farthing.mechanisms.interface import SignedPayment
from farthing.protocol.codec import decode_payment

if TYPE_CHECKING:
    from tests.postgres_server import PostgresServer

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
    """Processes that buy one thing, one after the other; their journals are files, or lie on the server."""

    def __init__(self, folder: Path, shop: Shop, server: PostgresServer | None = None) -> None:
        self.folder, self.shop, self.server = folder, shop, server
        self.database = "" if server is None else server.database()
        self.journal = ""
        self.forking = Forking(SCRIPT)
        self.number = self.killed = self.in_flight = 0

    def close(self) -> None:
        self.forking.close()
        # Each purchase was compared, or its test has failed.
        engine = "postgres" if self.server else "sqlite"
        print(f"\n{engine}: {self.number} purchases, {self.killed} buyers killed, {self.in_flight} after they had paid")

    def fresh(self) -> None:
        """Another purchase, with a journal of its own."""
        self.number += 1
        name = f"journal_{self.number}"
        self.journal = schema(self.database, name) if self.database else str(self.folder / f"{name}.sqlite")
        self.shop.seen.clear()
        self.shop.transfers.clear()
        self.shop.behaviours.clear()

    def buy(self, **order: Any) -> Any:
        """Have a process buy; how it ended."""
        done = self.forking.order({"journal": self.journal, "url": f"{self.shop.url}/thing", **order})
        self.killed += done["exit"] == KILLED
        self.in_flight += done["exit"] == KILLED and bool(self.shop.paid())
        return done

    def compare(self) -> None:
        """One payment: by what left, what moved, what is on record, and what the budget says."""
        nonces = {SELLER.read(decode_payment(header)).detail.message.nonce for header in self.shop.paid()}
        assert len(nonces) == 1
        assert list(self.shop.transfers.values()) == [10_000]
        journal = Journal(self.journal)
        try:
            kept = [each for each in journal.purchases() if each.state != "released"]
            assert [(each.state, each.delivered) for each in kept] == [("settled", True)]
            assert journal.used() == PRICE
        finally:
            journal.close()


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def buying(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Buying]:
    server = request.getfixturevalue("postgres_server") if request.param == "postgres" else None
    with open_shop() as shop:
        made = Buying(tmp_path_factory.mktemp("crash"), shop, server)
        yield made
        made.close()


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


def test_B1_killed_at_random_again_and_again_it_is_paid_once(buying: Buying) -> None:
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
        journal = Journal(buying.journal)
        try:
            signed = [each for each in journal.purchases() if each.payment_id]
            assert len([each for each in signed if not each.delivered]) == 0
            assert len(buying.shop.transfers) == len(signed) == journal.used() // PRICE == 1
        finally:
            journal.close()
    assert flights > 0


def _is_delivered(buying: Buying) -> bool:
    journal = Journal(buying.journal)
    try:
        return any(each.delivered for each in journal.purchases())
    finally:
        journal.close()


def test_B1_where_nothing_can_be_recorded_nothing_leaves(buying: Buying) -> None:
    """A disk that is full, or a server that is away."""
    buying.fresh()
    Journal(buying.journal).close()
    if buying.server is None:
        # Of an error of the disk itself SQLite can't say how much of a commit it met.
        assert buying.buy(file_bytes=4096)["said"] in {"StoreError", "MaybeWritten"}
    else:
        buying.server.stop(signal.SIGKILL)
        try:
            assert buying.buy()["said"] == "StoreError"
        finally:
            buying.server.start()
    assert buying.shop.paid() == []
    assert until_done(buying)["said"] == "200 settled"
    buying.compare()


@pytest.mark.parametrize("buying", ["postgres"], indirect=True)
@pytest.mark.parametrize("settled", [False, True])
def test_B1_a_journal_whose_server_is_killed_while_the_seller_works_is_paid_once(
    buying: Buying, *, settled: bool
) -> None:
    buying.fresh()
    server = buying.server
    assert server is not None

    def kill(handler: Handler, signed: SignedPayment) -> None:
        # Every session ends with it; one that outlived it for a moment might still write.
        server.stop(signal.SIGQUIT)
        if settled:
            settle(handler, signed)
        else:
            handler.answer(500)

    buying.shop.behaviours["/thing"] = kill
    assert buying.buy()["said"] in {"PaymentUnknown", "StoreError", "200 settled"}
    buying.shop.behaviours["/thing"] = settle
    server.start()
    assert buying.buy()["said"] == "200 settled"
    buying.compare()
