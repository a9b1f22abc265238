"""C4: credit limits hold over all edges together, to the size of the leases that are out."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from town import DOLLAR, NOON, Crawler, House, pack

from farthing.clearing.rules import Rules, room, round_net
from farthing.clearing.store import CloseLease, LapseLeases, LeaseRefused, SetPayerState, StartEdge
from farthing.protocol.clearing import Lease, LeaseClose, LeaseClosed

RULES = Rules(network="clearing:test", lease_amount_max=100 * DOLLAR)


def close(house: House, lease: Lease, count: int, total: int) -> Any:
    asked = LeaseClose(lease.lease, 1, count, str(total))
    return house.ask(CloseLease(lease.edge, asked, house.now))


def test_C4_two_edges_share_one_credit(new_house: Callable[..., House]) -> None:
    house, crawler = new_house(RULES), Crawler()
    house.open(crawler, credit=10 * DOLLAR)
    house.ask(StartEdge("edge-2", NOON))
    first = house.lease(crawler, 6 * DOLLAR)
    second = house.lease(crawler, 6 * DOLLAR, edge="edge-2")
    third = house.lease(crawler, DOLLAR, request="r2")
    assert (first.amount, second.amount) == (str(6 * DOLLAR), str(4 * DOLLAR))
    assert (first.warn, second.warn) == (False, True)
    assert isinstance(third, LeaseRefused)
    assert third.reason == "over_limit"


def test_C4_leases_by_two_processes_at_once_stay_within_the_limit(new_house: Callable[..., House]) -> None:
    crawler = Crawler()
    houses = [new_house(RULES), new_house(RULES)]
    houses[0].open(crawler, credit=10 * DOLLAR)
    granted: list[int] = []

    def ask(house: House, name: str) -> None:
        for number in range(20):
            lease = house.lease(crawler, DOLLAR, request=f"{name}-{number}")
            if isinstance(lease, Lease):
                granted.append(int(lease.amount))

    threads = [threading.Thread(target=ask, args=(house, str(name))) for name, house in enumerate(houses)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sum(granted) == 10 * DOLLAR


def test_C4_a_request_that_comes_again_gets_the_same_lease(new_house: Callable[..., House]) -> None:
    house, crawler = new_house(RULES), Crawler()
    house.open(crawler, credit=10 * DOLLAR)
    assert house.lease(crawler, 6 * DOLLAR) == house.lease(crawler, 6 * DOLLAR)
    assert house.payer(crawler).leased == 6 * DOLLAR


def test_C4_what_was_accrued_counts_and_what_a_lease_spent_counts_once(new_house: Callable[..., House]) -> None:
    house, crawler = new_house(RULES), Crawler()
    house.open(crawler, credit=10 * DOLLAR)
    lease = house.lease(crawler, 6 * DOLLAR)
    lines = [crawler.commit(f"/{number}", amount=DOLLAR, lease=lease.lease) for number in range(5)]
    house.upload(pack([crawler.record, *lines]))
    payer = house.payer(crawler)
    assert (payer.owed, payer.leased) == (5 * DOLLAR, DOLLAR)
    assert house.lease(crawler, 9 * DOLLAR, request="r2").amount == str(4 * DOLLAR)


def test_C4_a_lease_that_expired_counts_until_its_edge_closes_it(new_house: Callable[..., House]) -> None:
    house, crawler = new_house(RULES), Crawler()
    house.open(crawler, credit=10 * DOLLAR)
    lease = house.lease(crawler, 10 * DOLLAR)
    house.now += 3_600
    assert house.ask(LapseLeases(house.now, RULES.late_limit_seconds)) == 0
    assert isinstance(house.lease(crawler, DOLLAR, request="r2"), LeaseRefused)
    assert close(house, lease, 0, 0) == LeaseClosed(lease.lease, closed=True)
    assert house.lease(crawler, DOLLAR, request="r3").amount == str(DOLLAR)


def test_C4_a_lease_is_closed_only_with_all_its_lines_here(new_house: Callable[..., House]) -> None:
    house, crawler = new_house(RULES), Crawler()
    house.open(crawler, credit=10 * DOLLAR)
    lease = house.lease(crawler, 6 * DOLLAR)
    lines = [crawler.commit(f"/{number}", amount=DOLLAR, lease=lease.lease) for number in range(3)]
    house.upload(pack([crawler.record, *lines[:2]]))
    assert close(house, lease, 3, 3 * DOLLAR) == LeaseClosed(lease.lease, closed=False, missing=1)
    assert house.payer(crawler).leased == 4 * DOLLAR
    house.upload(pack(lines[2:], sequence=2))
    assert close(house, lease, 3, 3 * DOLLAR + 1).closed is False
    assert close(house, lease, 3, 3 * DOLLAR).closed is True
    assert close(house, lease, 3, 3 * DOLLAR).closed is True
    assert house.payer(crawler).leased == 0


def test_C4_a_lease_that_nobody_closes_returns_after_the_late_limit(new_house: Callable[..., House]) -> None:
    house, crawler = new_house(RULES), Crawler()
    house.open(crawler, credit=10 * DOLLAR)
    house.lease(crawler, 10 * DOLLAR)
    house.now += 60 + RULES.late_limit_seconds
    assert house.ask(LapseLeases(house.now, RULES.late_limit_seconds)) == 0
    house.now += 1
    assert house.ask(LapseLeases(house.now, RULES.late_limit_seconds)) == 1
    assert house.payer(crawler).leased == 0


def test_C4_a_commitment_beyond_its_lease_is_owed_all_the_same(new_house: Callable[..., House]) -> None:
    house, crawler = new_house(RULES), Crawler()
    house.open(crawler, credit=DOLLAR)
    lease = house.lease(crawler, DOLLAR)
    lines = [
        crawler.commit(f"/{n}", amount=DOLLAR, lease=lease.lease, over_lease=n > 0, lapsed=n > 1) for n in range(3)
    ]
    assert house.upload(pack([crawler.record, *lines])).accepted == 3
    payer = house.payer(crawler)
    assert (payer.owed, payer.leased) == (3 * DOLLAR, 0)
    assert house.lease(crawler, 1, request="r2").reason == "over_limit"


def test_C4_a_line_spends_its_own_payers_lease_alone(new_house: Callable[..., House]) -> None:
    """Else one payer's pages free another one's credit, which is then given out twice."""
    house, crawler, other = new_house(), Crawler(), Crawler("https://other.example", b"\x0b" * 32)
    house.open(crawler, other, credit=10 * DOLLAR)
    lease = house.lease(crawler, 10 * DOLLAR)
    house.upload(pack([other.record, other.commit("/a", amount=6 * DOLLAR, lease=lease.lease)]))
    assert house.payer(crawler).leased == 10 * DOLLAR
    assert house.lease(crawler, DOLLAR, request="r2").reason == "over_limit"
    assert house.payer(other).owed == 6 * DOLLAR


def test_C4_an_older_life_of_an_edge_gets_no_lease_and_its_uploads_count(new_house: Callable[..., House]) -> None:
    house, crawler = new_house(RULES), Crawler()
    house.open(crawler)
    assert house.ask(StartEdge("edge-1", NOON)) == 2
    assert house.lease(crawler, DOLLAR).reason == "fenced"
    assert house.lease(crawler, DOLLAR, epoch=2).amount == str(DOLLAR)
    assert house.upload(pack([crawler.record, crawler.commit()])).accepted == 1


@pytest.mark.parametrize("directory", ["https://crawler.example", "https://nobody.example"])
def test_C4_who_is_suspended_or_unknown_gets_no_lease(new_house: Callable[..., House], directory: str) -> None:
    house, crawler = new_house(RULES), Crawler()
    house.open(crawler)
    house.ask(SetPayerState(crawler.directory, "suspended", "by hand"))
    asked = Crawler(directory)
    assert house.lease(asked, DOLLAR).reason == ("suspended" if directory == crawler.directory else "unknown_payer")
    # What it signed before is owed.
    assert house.upload(pack([crawler.record, crawler.commit()])).accepted == 1


sums = st.integers(0, 10**12)


@given(sums, sums, sums, sums)
def test_C4_what_is_granted_never_exceeds_limit_and_balance(limit: int, prepaid: int, owed: int, leased: int) -> None:
    free = room(credit_limit=limit, prepaid=prepaid, owed=owed, leased=leased)
    assert owed + leased + free == limit + prepaid


@given(st.integers(-(10**15), 10**15), st.integers(0, 6))
def test_C7_rounding_is_once_to_what_the_rail_can_pay_and_half_to_even(exact: int, decimals: int) -> None:
    unit = 10 ** (6 - decimals)
    net = round_net(exact, decimals)
    assert net % unit == 0
    assert abs(net - exact) * 2 <= unit
    if abs(net - exact) * 2 == unit:
        assert (net // unit) % 2 == 0
    assert round_net(exact, 6) == exact
