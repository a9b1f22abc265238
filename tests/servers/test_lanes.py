"""A process that died is known to be dead within a minute; one that was silent for a while serves nothing it lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from crashing_seller import IN_ANSWER, IN_HANDLER
from farthing_selling import CannedFacilitator, Shop, found, make_seller
from selling_town import http_client, town

from farthing.errors import StoreError
from farthing.flow import drive
from farthing.protocol.facilitator import Unknown
from farthing.seller.known import move_on
from farthing.seller.settling import SETTLE_LEASE_SECONDS
from farthing.seller.states import PaymentFlow, State
from farthing.seller.store import Advance, Claim, Claimed, FindStale, Known, LookUp, MakeClaim
from farthing.servers import caretaking
from farthing.world import lanes
from farthing.world.pending import Pending
from farthing.world.performers import Performer, system_handlers
from farthing.world.seller_store import SellerStore

TARGET = "/weather/paris"
PAID = "pay_1"
FLOWS = pytest.mark.parametrize("flow", ["authorization", "upfront"])


class Time:
    """Passes for all processes and for their store's engine when it is told to; hearts beat when they are told."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.stores: list[SellerStore] = []

    def instant(self) -> lanes.Instant:
        return lanes.Instant(self.now, self.now)

    def passes(self, seconds: int) -> None:
        """Let nobody's heart beat for so long."""
        self.now += seconds
        self.write("UPDATE seller_lane SET alive_until = alive_until - ?", seconds)

    def goes_on(self, seconds: int, *alive: SellerStore) -> None:
        """Let the hearts of these beat meanwhile."""
        for _ in range(0, seconds, BEAT_SECONDS):
            self.passes(BEAT_SECONDS)
            for each in alive:
                each.lanes.beat().result()

    def write(self, sql: str, *values: int) -> None:
        self.stores[0]._database.submit(lambda connection: connection.execute(sql, values)).result()


BEAT_SECONDS = int(lanes.BEAT_SECONDS)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    made = Time()
    monkeypatch.setattr(lanes, "instant", made.instant)
    monkeypatch.setattr(lanes, "BEAT_SECONDS", 1e6)
    return made


@pytest.fixture
def replicas(clock: Time, store_url: str) -> Iterator[tuple[SellerStore, SellerStore]]:
    """Two processes' stores on one database; they have been there for long enough to judge each other."""
    one, other = SellerStore(store_url), SellerStore(store_url)
    clock.stores += [one, other]
    for each in (one, other):
        each.lanes.start()
    clock.goes_on(15, one, other)
    yield one, other
    one.close()
    other.close()


def claim(state: State) -> Claim:
    return Claim(
        payment_id=PAID,
        fingerprint="f",
        request_print="r",
        state=State.SETTLING if state is not State.CLAIMED else state,
        lease_until=int(time.time()) + SETTLE_LEASE_SECONDS,
        valid_before=int(time.time()) + 60,
        flow=PaymentFlow.UPFRONT if state is State.RUNNING else PaymentFlow.AUTHORIZATION,
        idempotent=True,
        stores_response=True,
        network="eip155:1",
        asset="0xa",
        payer="0xb",
        pay_to="0xc",
        amount=5,
        resource="https://x/",
        claimed_at=1,
    )


def own(store: SellerStore, state: State) -> Claimed:
    """Have a process work on a payment, under a lease of minutes."""
    claimed = store.make_claim(MakeClaim(claim(state))).result()
    assert isinstance(claimed, Claimed)
    if state in {State.RUNNING, State.SETTLED}:
        until = int(time.time()) + SETTLE_LEASE_SECONDS
        move = Advance(PAID, 1, State.SETTLING, state, lease_until=until, claim=claimed.claim)
        assert store.advance(move).result()
    return claimed


def is_free(store: SellerStore) -> bool:
    """Whether another process may go on with the payment; those that move by themselves are found by its caretaker."""
    known = store.look_up(LookUp(PAID))
    assert known is not None
    stale = store.find_stale(FindStale(int(time.time()), 0, 10))
    free = known.lease_until == 0
    assert len(stale) == (free and known.state is not State.SETTLED)
    return free


@pytest.mark.parametrize("state", [State.CLAIMED, State.SETTLING, State.RUNNING, State.SETTLED])
def test_S6_what_a_killed_process_had_is_free_within_a_minute(
    clock: Time, replicas: tuple[SellerStore, SellerStore], state: State
) -> None:
    one, other = replicas
    own(one, state)
    waited = 0
    while not is_free(other):
        clock.goes_on(BEAT_SECONDS, other)
        waited += BEAT_SECONDS
        assert waited < 60
    assert waited >= lanes.ALIVE_SECONDS
    # Then a round that moves it, and one that looks up what became of it.
    assert waited + 2 * caretaking.ROUND_SECONDS < 60


@pytest.mark.parametrize("state", [State.CLAIMED, State.SETTLING, State.RUNNING, State.SETTLED])
def test_S1_what_a_process_has_that_lives_stays_its_own(
    clock: Time, replicas: tuple[SellerStore, SellerStore], state: State
) -> None:
    one, other = replicas
    claimed = own(one, state)
    for _ in range(24):
        clock.goes_on(BEAT_SECONDS, one, other)
        assert not is_free(other)
        assert one.lanes.holds(claimed.claim)


def test_S1_five_beats_may_be_missed(clock: Time, replicas: tuple[SellerStore, SellerStore]) -> None:
    one, other = replicas
    claimed = own(one, State.CLAIMED)
    clock.goes_on(25, other)
    assert not is_free(other)
    # The process itself asks before others take it for dead.
    assert not one.lanes.holds(claimed.claim)
    one.lanes.beat().result()
    clock.goes_on(25, other)
    assert not is_free(other)


def test_S1_after_an_outage_of_the_store_nobody_is_taken_for_dead(
    clock: Time, replicas: tuple[SellerStore, SellerStore]
) -> None:
    one, other = replicas
    own(one, State.RUNNING)
    clock.passes(600)
    assert not is_free(other)
    other.lanes.beat().result()
    assert not is_free(other)
    clock.goes_on(BEAT_SECONDS, one, other)
    clock.goes_on(BEAT_SECONDS, one, other)
    assert not is_free(other)


def test_S1_who_has_just_started_takes_nobody_for_dead(
    clock: Time, replicas: tuple[SellerStore, SellerStore], store_url: str
) -> None:
    own(replicas[0], State.RUNNING)
    clock.passes(600)
    third = SellerStore(store_url)
    third.lanes.start()
    assert not is_free(third)
    clock.goes_on(BEAT_SECONDS, third)
    assert not is_free(third)
    clock.goes_on(BEAT_SECONDS, third)
    assert is_free(third)
    third.close()


def test_S6_a_process_that_ends_in_order_leaves_its_payments_at_once(
    replicas: tuple[SellerStore, SellerStore],
) -> None:
    one, other = replicas
    own(one, State.RUNNING)
    assert not is_free(other)
    one.close()
    assert is_free(other)


def test_S1_a_lane_that_says_nothing_keeps_its_leases(clock: Time, replicas: tuple[SellerStore, SellerStore]) -> None:
    one, other = replicas
    own(one, State.RUNNING)
    clock.write("DELETE FROM seller_lane")
    clock.goes_on(120, other)
    assert not is_free(other)


def test_S1_a_lane_is_forgotten_when_all_its_leases_are_long_over(
    clock: Time, replicas: tuple[SellerStore, SellerStore], store_url: str
) -> None:
    one, other = replicas
    own(one, State.CLAIMED)
    for days, left in ((0, 3), (2, 1)):
        clock.passes(days * 86_400 + 100)
        third = SellerStore(store_url)
        third.lanes.start()
        assert other._database.fetch("SELECT count(*) FROM seller_lane") == [(left,)]
        third.close()


@pytest.mark.parametrize(("steady", "wall"), [(0, lanes.SURE_SECONDS), (lanes.SURE_SECONDS, 0)])
def test_S1_of_its_two_clocks_a_process_believes_the_one_that_has_gone_further(
    clock: Time, replicas: tuple[SellerStore, SellerStore], monkeypatch: pytest.MonkeyPatch, steady: float, wall: float
) -> None:
    """One stands still while the machine is suspended, the other may be set back."""
    claimed = own(replicas[0], State.CLAIMED)
    assert replicas[0].lanes.holds(claimed.claim)
    monkeypatch.setattr(lanes, "instant", lambda: lanes.Instant(clock.now + steady, clock.now + wall))
    assert not replicas[0].lanes.holds(claimed.claim)


def test_S1_who_said_that_it_does_no_more_is_sure_of_nothing(replicas: tuple[SellerStore, SellerStore]) -> None:
    claimed = own(replicas[0], State.CLAIMED)
    replicas[0].lanes.end()
    assert not replicas[0].lanes.holds(claimed.claim)


def test_S1_a_forked_process_is_not_sure_of_what_its_parent_has(
    replicas: tuple[SellerStore, SellerStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed = own(replicas[0], State.CLAIMED)
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: 0)
        assert not replicas[0].lanes.holds(claimed.claim)
    assert replicas[0].lanes.holds(claimed.claim)


# A process that was silent for a while, and comes back.


class Street:
    """A shop whose process may fall silent, and a second process on its store."""

    def __init__(self, kind: str, folder: Path, clock: Time, store: str) -> None:
        self.clock = clock
        facilitator = CannedFacilitator()
        self.shop = Shop(kind, make_seller(folder, facilitator, store=store, spool_folder=folder), facilitator)
        self.other = SellerStore(store)
        clock.stores += [self.shop.seller.store, self.other]
        for each in clock.stores:
            each.lanes.start()
        clock.goes_on(15, *clock.stores)

    def close(self) -> None:
        self.shop.seller.close()
        self.other.close()

    def silence(self) -> None:
        """Let the shop's heart stand still for longer than it is taken for alive."""
        self.clock.goes_on(40, self.other)

    def lose(self) -> None:
        """Let it be taken for dead, and have its payments moved on."""
        self.silence()
        self.move()

    def move(self) -> None:
        performer = Performer({**system_handlers(), **self.other.handlers()})
        now_seconds = int(time.time())
        (stale,) = self.other.find_stale(FindStale(now_seconds, 0, 10))
        assert drive(move_on(stale.known, now_seconds=now_seconds), performer.blocking)


@pytest.fixture(params=["asgi", "wsgi"])
def street(request: pytest.FixtureRequest, tmp_path: Path, clock: Time, store_url: str) -> Iterator[Street]:
    made = Street(request.param, tmp_path, clock, store_url)
    yield made
    made.close()


class Broken(list[bytes]):
    """Chunks between the first two of which something happens."""

    def __init__(self, between: Callable[[], None]) -> None:
        super().__init__([b"sun", b"ny"])
        self.between = between

    def __iter__(self) -> Iterator[bytes]:
        yield b"sun"
        self.between()
        yield b"ny"


@pytest.mark.parametrize("stores", [True, False])
def test_S1_S2_who_lost_its_payment_in_its_work_settles_and_serves_nothing(street: Street, *, stores: bool) -> None:
    shop = street.shop
    shop.seller.price("GET /weather/{city}", "$0.01", store_response=stores)
    shop.work.on_run = street.lose
    got = shop.buy("GET", TARGET)
    assert (got.status, got.json["type"]) == (409, "urn:farthing:problem:payment-in-progress")
    assert (shop.facilitator.settled, shop.seller.store.ledger()) == ([], ())
    assert shop.states == ["void" if stores else "unknown"]


@pytest.mark.parametrize("stores", [True, False])
def test_S1_who_was_silent_in_its_work_and_lost_nothing_serves(street: Street, *, stores: bool) -> None:
    shop = street.shop
    shop.seller.price("GET /weather/{city}", "$0.01", store_response=stores)
    shop.work.on_run = street.silence
    got = shop.buy("GET", TARGET)
    assert (got.status, got.body, len(shop.facilitator.settled)) == (200, b"sunny", 1)
    assert shop.states == ["delivered"]


@FLOWS
@pytest.mark.parametrize("stores", [True, False])
def test_S1_S2_who_lost_its_payment_while_it_was_settled_serves_nothing(
    street: Street, flow: Any, *, stores: bool
) -> None:
    shop = street.shop
    shop.seller.price("GET /weather/{city}", "$0.01", payment_flow=flow, store_response=stores)
    shop.facilitator.on_settle = street.lose
    got = shop.buy("GET", TARGET)
    assert (got.status, got.json["type"]) == (409, "urn:farthing:problem:payment-in-progress")
    assert (shop.states, shop.work.ran, shop.seller.store.ledger()) == (["unknown"], int(flow == "authorization"), ())


@FLOWS
def test_S1_who_was_silent_while_it_was_settled_and_lost_nothing_serves(street: Street, flow: Any) -> None:
    shop = street.shop
    shop.seller.price("GET /weather/{city}", "$0.01", payment_flow=flow)
    shop.facilitator.on_settle = street.silence
    got = shop.buy("GET", TARGET)
    assert (got.status, got.body, shop.states) == (200, b"sunny", ["delivered"])


def when_settled(street: Street, event: Callable[[], None]) -> None:
    """Have something happen once when a payment is on record as settled, and nothing of its answer is out."""
    inner = street.shop.seller.store.advance
    happened: list[bool] = []

    def advance(effect: Advance) -> Pending[bool]:
        done: Pending[bool] = inner(effect)
        if effect.target is State.SETTLED and not happened:
            happened.append(done.result())
            event()
        return done

    street.shop.seller.performer = street.shop.seller.performer.with_({Advance: advance})


def deliver_elsewhere(street: Street) -> None:
    street.silence()
    (row,) = street.other.payments()
    known = street.other.look_up(LookUp(row.payment_id))
    assert known is not None
    assert (known.state, known.lease_until) == (State.SETTLED, 0)
    until = int(time.time()) + SETTLE_LEASE_SECONDS
    move = Advance(known.payment_id, known.epoch, State.SETTLED, State.SETTLED, lease_until=until, take_over=True)
    assert street.other.advance(move).result()


def test_S1_S6_who_lost_the_delivery_of_what_it_settled_sends_nothing(street: Street) -> None:
    shop = street.shop
    shop.seller.price("GET /weather/{city}", "$0.01")
    paid = shop.pay("GET", TARGET)
    when_settled(street, lambda: deliver_elsewhere(street))
    got = shop.send("GET", TARGET, paid)
    assert (got.status, got.json["type"]) == (409, "urn:farthing:problem:payment-in-progress")
    assert (shop.states, len(shop.facilitator.settled)) == (["settled"], 1)


@pytest.mark.parametrize("lost", [True, False])
def test_S1_S6_who_lost_the_delivery_of_what_was_kept_sends_nothing(street: Street, *, lost: bool) -> None:
    shop = street.shop
    shop.seller.price("GET /weather/{city}", "$0.01")
    shop.facilitator.outcomes = [Unknown("unexpected_settle_error")]
    paid = shop.pay("GET", TARGET)
    assert shop.send("GET", TARGET, paid).status == 402
    shop.facilitator.found = found(shop.facilitator.settled[0][1], "confirmed")
    event = (lambda: deliver_elsewhere(street)) if lost else street.silence
    when_settled(street, event)
    got = shop.send("GET", TARGET, paid)
    assert got.status == (409 if lost else 200)
    assert (shop.states, shop.work.ran) == (["settled" if lost else "delivered"], 1)


def test_S1_upfront_a_stream_that_was_taken_over_is_cut(street: Street) -> None:
    shop = street.shop
    shop.seller.price("GET /weather/{city}", "$0.01", payment_flow="upfront")
    shop.work.chunks = Broken(street.lose)
    paid = shop.pay("GET", TARGET)
    with pytest.raises(StoreError, match="taken over"):
        shop.send("GET", TARGET, paid)
    assert shop.states == ["owed"]
    shop.work.chunks = [b"again"]
    got = shop.send("GET", TARGET, paid)
    assert (got.status, got.body, shop.work.ran, len(shop.facilitator.settled)) == (200, b"again", 2, 1)


def test_S1_upfront_a_stream_that_was_silent_goes_on_under_a_new_epoch(street: Street) -> None:
    shop = street.shop
    seen: list[Known] = []
    shop.seller.price("GET /weather/{city}", "$0.01", payment_flow="upfront")

    def silent() -> None:
        street.silence()
        (row,) = shop.seller.store.payments()
        known = street.other.look_up(LookUp(row.payment_id))
        assert known is not None
        seen.append(known)

    shop.work.chunks = Broken(silent)
    got = shop.buy("GET", TARGET)
    assert (got.status, got.body, shop.states) == (200, b"sunny", ["delivered"])
    # Who found it free in between, and comes after, moves nothing.
    assert seen[0].lease_until == 0
    now = street.other.look_up(LookUp(seen[0].payment_id))
    assert now is not None
    assert now.epoch > seen[0].epoch


def test_S1_a_heart_that_beats_again_in_time_is_no_proof_that_nothing_was_lost(street: Street) -> None:
    shop = street.shop
    shop.seller.price("GET /weather/{city}", "$0.01", payment_flow="upfront")

    def lose() -> None:
        street.lose()
        shop.seller.store.lanes.beat().result()

    shop.work.chunks = Broken(lose)
    with pytest.raises(StoreError, match="taken over"):
        shop.buy("GET", TARGET)


def test_S1_upfront_an_application_that_goes_on_after_the_cut_is_not_heard(street: Street) -> None:
    shop = street.shop
    shop.seller.price("GET /weather/{city}", "$0.01", payment_flow="upfront")

    async def stubborn(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        street.lose()
        for _ in range(2):
            with contextlib.suppress(StoreError):
                await send({"type": "http.response.body", "body": b"more", "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def writing(environ: Any, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", [])
        street.lose()
        for _ in range(2):
            with contextlib.suppress(StoreError):
                write(b"more")
        return []

    if shop.kind == "asgi":
        shop.door.app = stubborn
    else:
        shop.door.app = writing
    got = shop.buy("GET", TARGET)
    assert (got.body, shop.states) == (b"", ["owed"])


def test_S1_upfront_a_run_that_was_lost_before_it_began_to_answer_is_answered_so(street: Street) -> None:
    shop = street.shop
    shop.seller.price("GET /weather/{city}", "$0.01", payment_flow="upfront")
    shop.work.on_run = street.lose
    paid = shop.pay("GET", TARGET)
    if shop.kind == "asgi":
        got = shop.send("GET", TARGET, paid)
        assert (got.status, got.json["type"]) == (409, "urn:farthing:problem:payment-in-progress")
    else:
        with pytest.raises(StoreError, match="taken over"):
            shop.send("GET", TARGET, paid)
    assert shop.states == ["owed"]


# Real processes, with the leases of production and quicker hearts.

PLACES = (
    ("/kept", IN_HANDLER),
    ("/job", IN_HANDLER),
    ("/kept", "after:Settle#1"),
    ("/unkept", "after:Settle#1"),
    ("/upfront", "after:Settle#1"),
    ("/upfront", IN_ANSWER),
)


def test_S1_S6_killed_under_the_leases_of_production_payments_go_on_all_the_same(
    local: Any, tmp_path: Path, store_url: str
) -> None:
    with town(local, tmp_path, store=store_url, hearts=True) as shops:

        async def run() -> Any:
            async with http_client() as client:
                seller = await shops.start()
                purchases = [await shops.offer(client, seller.url, path) for path, _ in PLACES]
                seller.kill()
                for purchase, (_, place) in zip(purchases, PLACES, strict=True):
                    seller = await shops.start(crash_at=place)
                    assert not await shops.send(client, seller.url, purchase)
                    await seller.ended()
                workers = [await shops.start() for _ in range(2)]
                await shops.until_the_end(client, [each.url for each in workers], purchases)
                return shops.count(purchases), [each.end for each in purchases]

        counted, ends = asyncio.run(run())
    assert (counted.lost, counted.doubled, counted.free) == (0, 0, 0)
    assert ends == ["served", "payment-aborted", "served", "refund-due", "served", "served"]
