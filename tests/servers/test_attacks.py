"""S1, S2, S3, S5, S9: ways to be served twice, charged twice or let in free that were open once."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import farthing_selling as selling
import pytest
from farthing_selling import acall, buy, found, sign, unpack, wcall

from farthing.protocol.codec import decode_payment
from farthing.protocol.facilitator import Refused, Unknown, Verify
from farthing.protocol.messages import VerifyResponse
from farthing.seller.pricing import Facts
from farthing.seller.states import State
from farthing.seller.store import LookUp
from farthing.servers import keeping
from farthing.servers.asgi import PaymentMiddleware
from farthing.servers.marks import Unpaid
from farthing.servers.seller import Seller
from farthing.servers.verifying import Verifying
from farthing.servers.wsgi import PaidWSGI
from farthing.world.pending import Pending
from farthing.world.performers import Performer

TARGET = "/weather/paris"
DEADLINE_SECONDS = 10.0


# S3: the price of a callable has changed, or the seller was configured anew, between the payment and its repeat.


@pytest.fixture
def repriced(shop: Any) -> Callable[[str], None]:
    prices = ["$0.01"]

    def price(_: Facts) -> str:
        return prices[-1]

    shop.seller.price("GET /weather/{city}", price)
    return prices.append


def test_S3_a_price_that_has_changed_offers_nothing_while_the_payment_may_settle(shop: Any, repriced: Any) -> None:
    shop.facilitator.outcomes = [Unknown("settlement_pending", "", selling.TRANSACTION)]
    paid = shop.pay("GET", TARGET)
    assert shop.send("GET", TARGET, paid).status == 402
    repriced("$0.02")
    again = shop.send("GET", TARGET, paid)
    assert again.status == 402
    assert again.header("payment-required") == ""
    assert unpack(again.header("payment-response"))["transaction"] == selling.TRANSACTION
    shop.facilitator.found = found(shop.facilitator.settled[0][1], "confirmed")
    assert shop.send("GET", TARGET, paid).body == b"sunny"
    assert shop.send("GET", TARGET, paid).status == 409
    assert [entry.amount for entry in shop.seller.store.ledger()] == [10_000]
    assert (len(shop.facilitator.settled), shop.work.ran) == (1, 1)


def test_S3_a_payment_at_yesterdays_price_is_settled_again_for_what_was_signed(shop: Any, repriced: Any) -> None:
    shop.facilitator.extensions = ("idempotency-key",)
    shop.facilitator.outcomes = [Unknown("unexpected_settle_error"), selling.success()]
    paid = shop.pay("GET", TARGET)
    assert shop.send("GET", TARGET, paid).status == 402
    repriced("$0.02")
    assert shop.send("GET", TARGET, paid).body == b"sunny"
    assert [terms.amount for _, terms in shop.facilitator.settled] == ["10000", "10000"]
    assert len({key for key, _ in shop.facilitator.settled}) == 1


def test_S4_a_payment_at_yesterdays_price_claims_nothing(shop: Any, repriced: Any) -> None:
    paid = shop.pay("GET", TARGET)
    repriced("$0.02")
    assert shop.send("GET", TARGET, paid).header("payment-required")
    repriced("$0.01")
    shop.work.status = 500
    assert shop.send("GET", TARGET, paid).status == 500
    repriced("$0.02")
    # It was given back uncharged: today's price counts for it.
    assert shop.send("GET", TARGET, paid).header("payment-required")
    assert (shop.work.ran, shop.states) == (1, ["void"])


# S1: two machines, each with a store of its own, behind one facilitator, with one payee and one price.


class TellsOnce(selling.CannedFacilitator):  # type: ignore[misc] # a module that mypy does not see
    """Keeps F1: success is told to the first caller, and again under that caller's key alone."""

    def __init__(self) -> None:
        super().__init__()
        self.extensions = ("idempotency-key",)
        self.told: dict[str, str] = {}

    async def settle(self, payment: Any, requirements: Any, *, idempotency_key: str) -> Any:
        outcome = await super().settle(payment, requirements, idempotency_key=idempotency_key)
        self.found = found(requirements, "confirmed")
        told = self.told.setdefault(bytes(payment.payload).hex(), idempotency_key)
        return outcome if told == idempotency_key else Refused("duplicate_settlement", "", selling.TRANSACTION)


@pytest.mark.parametrize("flow", ["authorization", "upfront"])
@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_S1_of_two_stores_behind_one_facilitator_one_serves_a_payment(tmp_path: Path, kind: str, flow: Any) -> None:
    facilitator = TellsOnce()
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder in folders:
        folder.mkdir()
    sellers = [selling.make_seller(folder, facilitator) for folder in folders]
    shops = [selling.Shop(kind, seller, facilitator) for seller in sellers]
    for shop in shops:
        shop.seller.price("GET /weather/{city}", "$0.01", payment_flow=flow)
    paid = shops[0].pay("GET", TARGET)
    assert shops[0].send("GET", TARGET, paid).body == b"sunny"
    for _ in range(3):
        got = shops[1].send("GET", TARGET, paid)
        assert (got.status, got.header("payment-required")) == (402, "")
        assert got.json["transaction"] == selling.TRANSACTION
        shops[1].expire_leases()
    assert (shops[1].states, shops[1].seller.store.ledger()) == (["refused"], ())
    for seller in sellers:
        seller.close()


def test_S1_a_store_settles_under_one_name_in_all_its_processes(tmp_path: Path) -> None:
    facilitator = selling.CannedFacilitator()
    sellers = [selling.make_seller(tmp_path, facilitator) for _ in range(2)]
    assert sellers[0].store.name == sellers[1].store.name != ""
    for seller in sellers:
        seller.close()
    again = selling.make_seller(tmp_path, facilitator)
    assert again.store.name == sellers[0].store.name
    again.close()


# S5: the method override of a query, however its name is written.


@pytest.mark.parametrize("query", ["_method=DELETE", "a=b&_METHOD=DELETE", "%5Fmethod=DELETE", "%5f%6dethod=DELETE"])
def test_S5_a_method_in_the_query_is_seen_in_any_spelling(shop: Any, query: str) -> None:
    shop.seller.price("DELETE /item", "$0.01")
    assert shop.send("POST", f"/item?{query}").status == 400
    assert shop.work.ran == 0
    # What is a value, and no member's name, is nobody's business.
    assert shop.send("POST", "/item?next=%26_method%3DDELETE&_methods=1").status == 200


# S1: a run that takes longer than its lease is one run all the same.


def _lease(seller: Seller) -> int:
    (row,) = seller.store.payments()
    known = seller.store.look_up(LookUp(row.payment_id))
    assert known is not None
    return known.lease_until


def _expire(seller: Seller) -> None:
    seller.store._database.submit(lambda at: at.execute("UPDATE seller_state SET lease_until = 0")).result()


def test_S1_upfront_a_long_stream_is_served_once(
    seller: Seller, facilitator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "RENEW_SECONDS", 0.01)
    seller.price("GET /stream", "$0.01", payment_flow="upfront")
    ran: list[int] = []

    async def run() -> Any:
        go_on = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            ran.append(1)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"one", "more_body": True})
            await go_on.wait()
            await send({"type": "http.response.body", "body": b"two", "more_body": False})

        door = PaymentMiddleware(app, seller=seller)
        offer = await acall(door, "GET", "/stream")
        paid = [("PAYMENT-SIGNATURE", sign(offer.header("payment-required")))]
        first = asyncio.create_task(acall(door, "GET", "/stream", paid))
        while not ran:  # noqa: ASYNC110 - an application has no events
            await asyncio.sleep(0)
        _expire(seller)
        async with asyncio.timeout(DEADLINE_SECONDS):
            while _lease(seller) == 0:  # noqa: ASYNC110 - a file has no events
                await asyncio.sleep(0.001)
        copy = await acall(door, "GET", "/stream", paid)
        go_on.set()
        return await first, copy

    first, copy = asyncio.run(run())
    assert (first.body, copy.status, len(ran)) == (b"onetwo", 409, 1)
    seller.store.flush()
    assert [row.state for row in seller.store.payments()] == [State.DELIVERED]


def test_S1_upfront_a_slow_reader_of_wsgi_is_served_once(
    seller: Seller, facilitator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "RENEW_SECONDS", 0.01)
    seller.price("GET /x", "$0.01", payment_flow="upfront")
    ran: list[int] = []

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        ran.append(1)
        start_response("200 OK", [])
        yield b"one"
        yield b"two"

    door = PaidWSGI(app, seller)
    paid = [("PAYMENT-SIGNATURE", sign(wcall(door, "GET", "/x").header("payment-required")))]
    facts = {"REQUEST_METHOD": "GET", "PATH_INFO": "/x", "wsgi.input": io.BytesIO()}
    environ = {**facts, "HTTP_PAYMENT_SIGNATURE": paid[0][1]}
    reading: Any = iter(door(environ, lambda *_: bytes))
    assert next(reading) == b"one"
    _expire(seller)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while _lease(seller) == 0:
        assert time.monotonic() < deadline, "the lease was not renewed"
        threading.Event().wait(0.001)
    assert wcall(door, "GET", "/x", paid).status == 409
    assert list(reading) == [b"two"]
    reading.close()
    assert wcall(door, "GET", "/x", paid).status == 409
    assert ran == [1]
    seller.store.flush()
    assert [row.state for row in seller.store.payments()] == [State.DELIVERED]


# S9: a client that goes away during the settlement of a route that settles before the work.


@pytest.mark.parametrize("how", ["cancelled", "seen"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_S9_upfront_a_client_that_goes_away_during_settlement_gets_its_run_on_a_resend(
    seller: Seller, facilitator: Any, method: str, how: str
) -> None:
    seller.price("GET,POST /x", "$0.01", payment_flow="upfront")
    work = selling.Work()
    door = PaymentMiddleware(work.asgi, seller=seller)

    async def run() -> Any:
        offer = await acall(door, method, "/x")
        paid = [("PAYMENT-SIGNATURE", sign(offer.header("payment-required")))]
        if how == "seen":
            gone = asyncio.Event()
            facilitator.on_settle = gone.set
            assert (await acall(door, method, "/x", paid, gone=gone)).messages == []
        else:
            facilitator.hold = asyncio.Event()
            first = asyncio.create_task(acall(door, method, "/x", paid))
            while not facilitator.settled:  # noqa: ASYNC110 - the facilitator knows no loop
                await asyncio.sleep(0)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            facilitator.hold.set()
            while [row.state for row in seller.store.payments()] != [State.OWED]:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0)
        assert work.ran == 0
        return await acall(door, method, "/x", paid)

    got = asyncio.run(asyncio.wait_for(run(), DEADLINE_SECONDS))
    assert (got.status, got.body) == (200, b"sunny")
    assert (len(facilitator.settled), work.ran) == (1, 1)


def test_S9_upfront_a_stream_whose_client_goes_away_stays_owed(seller: Seller, facilitator: Any) -> None:
    seller.price("GET /x", "$0.01", payment_flow="upfront")
    gone = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        gone.set()
        await send({"type": "http.response.body", "body": b"two", "more_body": False})

    async def run() -> Any:
        door = PaymentMiddleware(app, seller=seller)
        offer = await acall(door, "GET", "/x")
        paid = [("PAYMENT-SIGNATURE", sign(offer.header("payment-required")))]
        await acall(door, "GET", "/x", paid, gone=gone)
        assert [row.state for row in seller.store.payments()] == [State.OWED]
        return await acall(door, "GET", "/x", paid)

    assert asyncio.run(run()).body == b"onetwo"
    assert len(facilitator.settled) == 1


def test_S9_a_client_that_goes_away_twice_gets_the_stored_answer_the_third_time(
    seller: Seller, facilitator: Any
) -> None:
    seller.price("GET /x", "$0.01")
    door = PaymentMiddleware(selling.Work().asgi, seller=seller)

    async def run() -> Any:
        gone = asyncio.Event()
        gone.set()
        offer = await acall(door, "GET", "/x")
        paid = [("PAYMENT-SIGNATURE", sign(offer.header("payment-required")))]
        for _ in range(2):
            assert (await acall(door, "GET", "/x", paid, gone=gone)).messages == []
        return await acall(door, "GET", "/x", paid)

    got = asyncio.run(run())
    assert (got.status, got.body) == (200, b"sunny")
    assert len(facilitator.settled) == 1


# S2: what belonged to a 200 does not go out with the error page that took its place.


@pytest.mark.parametrize("size", [9, 100_000])
def test_S2_an_error_page_does_not_begin_with_what_was_to_be_paid_for(
    seller: Seller, facilitator: Any, size: int
) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"s" * size
        start_response("500 Broken", [], (RuntimeError, RuntimeError(), None))
        yield b"sorry"

    seller.price("GET /x", "$0.01")
    got = buy(PaidWSGI(app, seller), "GET", "/x", caller=wcall)
    assert (got.status, got.body) == (500, b"sorry")
    assert facilitator.settled == []


# What copies share, and what threads wait for.


def test_S1_a_copy_that_is_cancelled_takes_no_verification_away(shop: Any) -> None:
    shop.seller.price("GET /weather/{city}", "$0.01")
    payload = decode_payment(shop.pay("GET", TARGET)[0][1])
    verifying = Verifying(shop.facilitator, set)

    async def run() -> VerifyResponse:
        leading = asyncio.ensure_future(verifying.verify(Verify(payload, payload.accepted)))
        asked = verifying.verify(Verify(payload, payload.accepted))
        assert isinstance(asked, Pending)
        copy = asyncio.ensure_future(Performer({Verify: lambda _: asked}).awaiting(Verify(payload, payload.accepted)))
        await asyncio.sleep(0)
        copy.cancel()
        answer: VerifyResponse = await leading
        return answer

    assert asyncio.run(run()).is_valid


def test_S5_no_thread_passes_before_the_routes_are_learnt(seller: Seller) -> None:
    reading, go_on = threading.Event(), threading.Event()

    @seller.paid("$0.01")
    def handler() -> bytes:
        return b"secret"

    def rules() -> Iterator[Any]:
        reading.set()
        go_on.wait(DEADLINE_SECONDS)
        yield SimpleNamespace(methods={"GET"}, rule="/x", endpoint="x")

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [handler()]

    flask = SimpleNamespace(url_map=SimpleNamespace(iter_rules=rules), view_functions={"x": handler})
    door = PaidWSGI(app, seller, routes_of=flask)
    statuses: list[int] = []

    def ask() -> None:
        try:
            statuses.append(wcall(door, "GET", "/x").status)
        except Unpaid:
            statuses.append(500)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    threads[0].start()
    assert reading.wait(DEADLINE_SECONDS)
    threads[1].start()
    threads[1].join(0.05)
    go_on.set()
    for thread in threads:
        thread.join(DEADLINE_SECONDS)
    assert statuses == [402, 402]
