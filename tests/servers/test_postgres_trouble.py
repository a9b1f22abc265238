"""S1, S2, S6 over PostgreSQL: a server that is away, killed, full, read-only or locked charges nobody for nothing."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import farthing_selling as selling
import pytest
import server_trouble
from farthing_selling import CannedFacilitator, Shop, make_seller, replaced

from farthing.protocol.facilitator import digest_of_key
from farthing.world import postgres_connection

if TYPE_CHECKING:
    from tests.postgres_server import PostgresServer

TARGET = "/weather/paris"
# A row of it is made and changed with every payment.
TABLE = "seller_state"
FLOWS = ("authorization", "upfront")
# Every session ends with it, and nothing is put in order: one that outlived it for a moment might still commit. The
# server itself is killed by SIGKILL in `test_crash`.
AT_ONCE = signal.SIGQUIT
# Each time that the payment comes again it is one step further, and no purchase has more steps than this.
TIMES_MAX = 5


@pytest.fixture(params=["asgi", "wsgi"])
def shop(request: pytest.FixtureRequest, tmp_path: Path, postgres_url: str) -> Iterator[Shop]:
    """A seller behind each door, whose store is on the server; its facilitator takes keys."""
    facilitator = CannedFacilitator()
    facilitator.extensions = ("idempotency-key",)
    seller = make_seller(tmp_path, facilitator, store=postgres_url, spool_folder=tmp_path / "responses")
    yield Shop(request.param, seller, facilitator)
    seller.close()


def priced(shop: Shop, flow: str) -> list[tuple[str, str]]:
    shop.seller.price("GET /weather/{city}", "$0.01", payment_flow=flow)
    paid: list[tuple[str, str]] = shop.pay("GET", TARGET)
    return paid


def nothing_sold(shop: Shop, paid: list[tuple[str, str]]) -> None:
    """It is said that the books can't be written, and when to come again; with no offer to pay once more."""
    got = shop.send("GET", TARGET, paid)
    assert (got.status, got.json["type"]) == (503, "urn:farthing:problem:store-unavailable")
    assert int(got.header("retry-after")) > 0
    assert got.header("payment-required") == ""
    assert b"sunny" not in got.body


def sold_once(shop: Shop, paid: list[tuple[str, str]]) -> None:
    """The same payment is served when all is well again, by the seller as it stands: settled once, run once."""
    for _ in range(TIMES_MAX):
        shop.expire_leases()
        if shop.facilitator.settled:
            key, requirements = shop.facilitator.settled[0]
            status = selling.found(requirements, "confirmed")
            shop.facilitator.found = replaced(status, idempotency_key_digest=digest_of_key(key))
        got = shop.send("GET", TARGET, paid)
        if got.status == 200:
            break
        assert got.header("payment-required") == ""
    assert (got.status, got.body) == (200, b"sunny")
    assert len(shop.facilitator.settled) == len(shop.seller.store.ledger()) == 1
    assert shop.send("GET", TARGET, paid).status == 409


@pytest.mark.parametrize("flow", FLOWS)
def test_S1_S2_a_server_that_is_away_serves_and_charges_nothing(
    shop: Shop, postgres_server: PostgresServer, flow: str
) -> None:
    paid = priced(shop, flow)
    postgres_server.stop(AT_ONCE)
    try:
        nothing_sold(shop, paid)
        assert (shop.work.ran, len(shop.facilitator.settled)) == (0, 0)
    finally:
        postgres_server.start()
    sold_once(shop, paid)
    assert shop.work.ran == 1


@pytest.mark.parametrize(("flow", "where"), [*((each, "settlement") for each in FLOWS), ("authorization", "work")])
def test_S2_S6_a_server_that_is_killed_in_the_work_or_in_the_settlement_loses_and_doubles_nothing(
    shop: Shop, postgres_server: PostgresServer, flow: str, where: str
) -> None:
    paid = priced(shop, flow)
    if where == "work":
        shop.work.on_run = partial(postgres_server.stop, AT_ONCE)
    else:
        shop.facilitator.on_settle = partial(postgres_server.stop, AT_ONCE)
    nothing_sold(shop, paid)
    assert len(shop.facilitator.settled) == (where == "settlement")
    shop.work.on_run = shop.facilitator.on_settle = lambda: None
    postgres_server.start()
    sold_once(shop, paid)
    # What was settled is answered from the record; an answer that could not be recorded is made again.
    assert shop.work.ran == (2 if where == "work" else 1)


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("trouble", server_trouble.ALL)
def test_S1_S2_a_server_that_is_full_or_read_only_or_locked_serves_and_charges_nothing(
    shop: Shop, postgres_url: str, monkeypatch: pytest.MonkeyPatch, trouble: server_trouble.Trouble, flow: str
) -> None:
    shorten(monkeypatch, shop)
    paid = priced(shop, flow)
    with trouble(postgres_url, TABLE):
        nothing_sold(shop, paid)
        assert (shop.work.ran, len(shop.facilitator.settled)) == (0, 0)
    sold_once(shop, paid)
    assert shop.work.ran == 1


def shorten(monkeypatch: pytest.MonkeyPatch, shop: Shop) -> None:
    """Have the seller wait a moment for locks and statements, and not the half minute of a busy day."""
    monkeypatch.setattr(postgres_connection, "STATEMENT_TIMEOUT_SECONDS", 1)
    # Opened anew, with what is said now.
    shop.seller.store._database._drop()


def test_S1_a_lock_that_is_given_up_in_time_is_waited_for(shop: Shop, postgres_url: str) -> None:
    paid = priced(shop, "authorization")
    with contextlib.ExitStack() as held:
        held.enter_context(server_trouble.locked(postgres_url, TABLE))
        threading.Timer(0.5, held.pop_all().close).start()
        got = shop.send("GET", TARGET, paid)
    assert (got.status, shop.work.ran, len(shop.facilitator.settled)) == (200, 1, 1)
