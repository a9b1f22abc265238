"""Keys that rotate, vanish, lie or are compromised: what is billed then, to whom, and who is paid for it."""

from __future__ import annotations

import binascii
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from money import balanced, issued, paid, report
from reserving import cover, defaulted, fund, nothing_below_zero, standing
from town import DOLLAR, NOON, Crawler, House, leaves, pack

from farthing.clearing import flows
from farthing.clearing.compromise import CompromisedKey, DeclareCompromised, FindCompromised, PayBorne
from farthing.clearing.intake import KEY_COMPROMISED, read_upload
from farthing.clearing.rules import Rules
from farthing.clearing.statements import read_line
from farthing.clearing.store import Listing, ListStatements, ProvePayee, RegisterPayer
from farthing.errors import RemoteProtocolError
from farthing.protocol.clearing import COMPROMISED_MAX, KEY_CACHE_SECONDS, Commitment, Lease

# When the network is told, and the last second of what is billed.
TOLD = NOON + 100
LAST = TOLD + KEY_CACHE_SECONDS


def declare(house: House, crawler: Crawler, *, since: int = NOON, key: str = "") -> Any:
    thumbprint = key or crawler.key.public_key.thumbprint
    return house.ask(DeclareCompromised(crawler.directory, thumbprint, since, "anna", house.now))


def opened(house: House, crawler: Crawler, *, credit: int = 100 * DOLLAR) -> Lease:
    """A payer with a lease of ten dollars, from before its key is lost."""
    house.open(crawler, credit=credit)
    house.ask(ProvePayee("news", "challenge", house.now))
    lease = house.lease(crawler, 10 * DOLLAR, request="before")
    assert isinstance(lease, Lease)
    return lease


def lost(house: House, crawler: Crawler) -> Lease:
    """And then it is."""
    lease = opened(house, crawler)
    house.now = TOLD
    assert isinstance(declare(house, crawler), CompromisedKey)
    house.now = LAST + 60
    return lease


def take(house: House, body: bytes) -> Any:
    return house.run(flows.take(house.desk, read_upload(body, house.rules.network), frozenset({"news"})))


def close(house: House) -> None:
    house.run(flows.close(house.desk, force=True))


def stated(house: House) -> list[str]:
    return [read_line(each).id for record in house.ask(ListStatements()) for each in leaves(house, record.statement)]


def bear(house: House) -> int:
    return int(house.ask(PayBorne("USD", house.rules, house.now)))


# Declared


def test_C5_what_was_declared_first_stands(house: House) -> None:
    crawler = Crawler()
    house.open(crawler)
    house.now = TOLD
    first = declare(house, crawler, since=NOON)
    house.now = TOLD + 50
    # Neither an earlier time nor a later one moves it.
    assert declare(house, crawler, since=NOON - 1000) == first == declare(house, crawler, since=TOLD + 50)
    assert (first.since, first.declared_at, first.billed_until) == (NOON, TOLD, LAST)
    assert house.ask(FindCompromised(crawler.directory)) == (first,)
    for sql in ("UPDATE clearing_compromised SET declared_at = 1", "DELETE FROM clearing_compromised"):
        with pytest.raises(Exception, match="append-only"):
            house.store.database.submit(lambda at, sql=sql: at.execute(sql).rowcount).result()


def test_A1_a_payer_declares_so_many_keys_and_no_more(house: House) -> None:
    crawler = Crawler()
    house.open(crawler)
    names = [f"{number:043d}" for number in range(COMPROMISED_MAX + 1)]
    assert [isinstance(declare(house, crawler, key=each), CompromisedKey) for each in names[:-1]].count(True) == 32
    assert declare(house, crawler, key=names[-1]) == "too_many_keys"
    assert isinstance(declare(house, crawler, key=names[0]), CompromisedKey)
    assert declare(house, Crawler("https://nobody.example")) == "unknown_payer"
    assert len(house.lease(crawler, DOLLAR).compromised) == COMPROMISED_MAX


def test_C4_every_lease_tells_and_none_lasts_longer_than_an_edge_may_not_know(new_house: Callable[..., House]) -> None:
    """An edge spends under no lease that is older than this: so it knows."""
    house, crawler = new_house(Rules(network="clearing:test", lease_seconds_max=86_400)), Crawler()
    house.open(crawler)
    before = house.lease(crawler, DOLLAR, seconds=86_400)
    assert (before.seconds, before.compromised) == (KEY_CACHE_SECONDS, ())
    declare(house, crawler)
    told = (crawler.key.public_key.thumbprint,)
    assert house.lease(crawler, DOLLAR, request="r2").compromised == told
    # The answer to the first was lost, and it is asked for again.
    assert house.lease(crawler, DOLLAR, seconds=86_400).compromised == told


# Billed, or not


def test_C5_what_edges_took_before_they_had_to_know_is_billed_as_ever(house: House) -> None:
    crawler = Crawler()
    lease = lost(house, crawler)
    lines = [crawler.commit(f"/{at}", at=at, amount=DOLLAR, lease=lease.lease) for at in (NOON, TOLD, LAST)]
    answer = house.upload(pack([crawler.record, *lines]))
    close(house)
    assert (answer.accepted, answer.refused) == (3, ())
    assert sorted(stated(house)) == sorted(each.id for each in lines)
    assert (house.payer(crawler).owed, house.total("risk"), house.total("borne")) == (3 * DOLLAR, 0, 0)


def test_C5_what_was_here_before_it_was_declared_is_billed_and_stays_on_its_statement(house: House) -> None:
    """On an issued statement it can be disputed; nothing that is closed changes."""
    crawler = Crawler()
    lease = opened(house, crawler)
    record = issued(house, crawler, lease=lease.lease)
    house.upload(pack([crawler.commit("/open", amount=DOLLAR, lease=lease.lease)], sequence=2))
    house.now = TOLD
    # The payer says that it was so all the time: what it owes, it owes.
    declare(house, crawler, since=0)
    assert house.payer(crawler).owed == 4 * DOLLAR
    close(house)
    first, second = house.ask(ListStatements())
    assert (first.jws, first.net, second.net) == (record.jws, 3 * DOLLAR, DOLLAR)
    report(house, paid(first, 3 * DOLLAR), paid(second, DOLLAR, log_index=2))
    assert (house.payer(crawler).owed, house.total("cleared"), house.total("risk")) == (0, 4 * DOLLAR, 0)


def test_C5_C1_what_was_taken_later_is_the_networks_risk_and_never_the_payers(house: House) -> None:
    crawler = Crawler()
    lease = lost(house, crawler)
    late = crawler.commit("/late", at=LAST + 1, amount=2 * DOLLAR, lease=lease.lease)
    ever = crawler.commit("/ever", at=LAST, amount=DOLLAR, lease=lease.lease)
    # The first word of an upload about a line counts.
    body = pack([crawler.record, late, ever, msgspec.structs.replace(ever, committed=LAST + 1)])
    assert house.upload(body).accepted == 2
    # Not for a moment.
    assert house.payer(crawler).owed == DOLLAR
    assert (house.total("risk"), house.total("borne"), house.total("accrued")) == (-2 * DOLLAR, 2 * DOLLAR, DOLLAR)
    fund(house, 10 * DOLLAR)
    # Nothing is paid before its signatures were checked.
    assert bear(house) == 0
    close(house)
    assert stated(house) == [ever.id]
    assert [bear(house), bear(house)] == [2 * DOLLAR, 0]
    # It comes again, in whatever upload and with whatever time.
    other = msgspec.structs.replace(late, committed=LAST)
    again = house.upload(pack([late, other], sequence=2))
    assert house.upload(body).repeated is True
    close(house)
    assert (again.accepted, again.duplicates, bear(house)) == (0, 2, 0)
    assert (house.total("risk"), house.total("borne"), house.total("reserve")) == (0, 0, 8 * DOLLAR)
    assert (house.total("cleared"), house.payer(crawler).owed) == (2 * DOLLAR, DOLLAR)
    listed = [(each["name"], each["amount"], each["paid_at"]) for each in house.ask(Listing("borne"))]
    assert listed == [("news", 2 * DOLLAR, house.now)]
    balanced(house, crawler)


def test_C6_the_network_pays_no_more_than_leases_from_before_may_spend(house: House) -> None:
    """Payer and payee may be one person: who was told of the key and takes it all the same is paid by nobody."""
    crawler = Crawler()
    lease = lost(house, crawler)
    told = house.lease(crawler, 10 * DOLLAR, request="after")
    other = Crawler("https://other.example", b"\x09" * 32)
    house.ask(RegisterPayer(other.directory, "USD", 100 * DOLLAR, house.now))
    strange = house.lease(other, 10 * DOLLAR, request="other")
    at = LAST + 1
    fits = [crawler.commit(f"/{number}", at=at, amount=5 * DOLLAR, lease=lease.lease) for number in range(2)]
    beyond = [
        crawler.commit("/over", at=at, amount=1, lease=lease.lease),
        crawler.commit("/told", at=at, amount=1, lease=told.lease),
        crawler.commit("/none", at=at, amount=1),
        crawler.commit("/others", at=at, amount=1, lease=strange.lease),
    ]
    answer = house.upload(pack([crawler.record, *fits, *beyond]))
    assert {each.id: each.reason for each in answer.refused} == {each.id: KEY_COMPROMISED for each in beyond}
    assert answer.accepted == 2
    again = house.upload(pack([crawler.commit("/more", at=at, amount=1, lease=lease.lease)], sequence=2))
    assert [each.reason for each in again.refused] == [KEY_COMPROMISED]
    assert (house.total("borne"), house.payer(crawler).owed) == (10 * DOLLAR, 0)


def test_C6_a_lease_of_the_second_in_which_a_key_is_declared_was_told(house: House) -> None:
    crawler = Crawler()
    opened(house, crawler)
    declare(house, crawler)
    told = house.lease(crawler, 10 * DOLLAR, request="at once")
    begin = house.now
    house.now = begin + KEY_CACHE_SECONDS + 60
    line = crawler.commit("/told", at=house.now - 1, amount=1, lease=told.lease)
    answer = house.upload(pack([crawler.record, line]))
    assert [each.reason for each in answer.refused] == [KEY_COMPROMISED]


def test_C5_what_that_key_did_not_even_sign_is_nobodys(house: House) -> None:
    crawler = Crawler()
    lease = lost(house, crawler)
    at = LAST + 1
    lines = [crawler.commit(f"/{number}", at=at, amount=DOLLAR, lease=lease.lease) for number in range(3)]
    forged = msgspec.structs.replace(lines[0], signature=lines[1].signature)
    # The archive has no record of the key yet, so that nothing is sampled when they come.
    house.upload(pack([forged, *lines[1:]]))
    assert house.total("borne") == 3 * DOLLAR
    house.upload(pack([crawler.record], sequence=2))
    fund(house, 10 * DOLLAR)
    close(house)
    assert (house.total("risk"), house.total("borne"), house.payer(crawler).owed) == (-2 * DOLLAR, 2 * DOLLAR, 0)
    assert bear(house) == 2 * DOLLAR
    assert (house.total("risk"), house.total("borne"), house.total("cleared")) == (0, 0, 2 * DOLLAR)
    balanced(house, crawler)


def test_C6_what_the_network_bears_is_paid_as_far_as_the_reserve_reaches_beyond_what_it_guarantees(
    house: House,
) -> None:
    crawler = Crawler()
    defaulted(house, crawler, funded=4 * DOLLAR)
    lease = house.lease(crawler, 10 * DOLLAR)
    begin = house.now = house.now + 1
    declare(house, crawler, since=begin)
    house.now = begin + KEY_CACHE_SECONDS + 60
    line: dict[str, Any] = {"at": house.now - 1, "amount": DOLLAR, "lease": lease.lease}
    for sequence in (2, 3):
        house.upload(pack([crawler.commit(f"/{sequence}", **line)], sequence=sequence))
    close(house)
    # Three of the four dollars are promised to a share in default.
    assert bear(house) == DOLLAR
    assert bear(house) == 0
    cover(house)
    assert standing(house) == (0, 3 * DOLLAR, 0, 0)
    assert (house.total("risk"), house.total("borne"), house.total("cleared")) == (-DOLLAR, DOLLAR, 4 * DOLLAR)
    fund(house, DOLLAR, "0xmore")
    assert [bear(house), bear(house)] == [DOLLAR, 0]
    assert (house.total("risk"), house.total("borne"), house.total("reserve")) == (0, 0, 0)
    nothing_below_zero(house)
    balanced(house, crawler)


@settings(max_examples=30, deadline=None)
@given(
    times=st.lists(st.integers(TOLD - 2, LAST + 3), min_size=1, max_size=12),
    amounts=st.lists(st.integers(1, 3 * DOLLAR), min_size=12, max_size=12),
    funded=st.integers(0, 12 * DOLLAR),
    cut=st.integers(0, 12),
)
def test_C1_C6_every_line_is_the_payers_or_the_networks_or_refused_and_paid_once(
    tmp_path_factory: pytest.TempPathFactory, times: list[int], amounts: list[int], funded: int, cut: int
) -> None:
    house, crawler = House(tmp_path_factory.mktemp("keys") / "house.sqlite"), Crawler()
    lease = lost(house, crawler)
    lines = [
        crawler.commit(f"/{number}", at=at, amount=amount, lease=lease.lease)
        for number, (at, amount) in enumerate(zip(times, amounts, strict=False))
    ]
    if funded:
        fund(house, funded)
    refused: set[str] = set()
    for sequence, some in enumerate((lines[:cut], lines[cut:], lines), 1):
        refused |= {each.id for each in house.upload(pack([crawler.record, *some], sequence=sequence)).refused}
        close(house)
        bear(house)

    def total(of: list[Commitment]) -> int:
        return sum(int(each.amount) for each in of)

    late = [each for each in lines if each.committed > LAST]
    borne = [each for each in late if each.id not in refused]
    assert refused <= {each.id for each in late}
    assert sorted(stated(house)) == sorted(each.id for each in lines if each not in late)
    assert house.payer(crawler).owed == total([each for each in lines if each not in late])
    assert house.total("borne") == -house.total("risk")
    assert house.total("borne") + house.total("cleared") == total(borne) <= 10 * DOLLAR
    assert house.total("cleared") == funded - house.total("reserve")
    nothing_below_zero(house)
    balanced(house, crawler)
    house.close()


# Directories that rotate, vanish or lie


def test_C5_a_key_that_its_directory_lists_no_more_bills_what_it_signed(house: House) -> None:
    """Rotated between request and upload, and between upload and close, and gone at the close: the archive counts."""
    old, new = Crawler(), Crawler(seed=b"\x08" * 32)
    house.open(old)
    lines = [each.commit(f"/{number}", amount=DOLLAR) for number, each in enumerate((old, new))]
    house.upload(pack([old.record, lines[0]], sequence=1))
    house.upload(pack([new.record, lines[1]], sequence=2))
    # Nothing here asks a directory: there is none at this name.
    close(house)
    assert sorted(stated(house)) == sorted(each.id for each in lines)
    (record,) = house.ask(ListStatements())
    for line, signer in zip(lines, (old, new), strict=True):
        proof = house.run(flows.prove(record, line.id))
        assert proof.key == signer.record
        assert proof.commitment == line
        assert signer.key.public_key.verifies(binascii.a2b_base64(line.signature), line.base.encode())


def test_C5_one_thumbprint_is_one_key_and_its_first_record_stays(house: House) -> None:
    """No two edges archive different keys under one thumbprint; and another answer of the directory changes nothing."""
    crawler, thief = Crawler(), Crawler(seed=b"\x09" * 32)
    house.open(crawler)
    house.upload(pack([crawler.record, crawler.commit("/a", amount=DOLLAR)]))
    lie = msgspec.structs.replace(crawler.record, jwk=thief.record.jwk)
    with pytest.raises(RemoteProtocolError, match="thumbprint is not that of its key"):
        take(house, pack([lie, crawler.commit("/b")], edge="edge-2"))
    later = msgspec.structs.replace(crawler.record, answer="another", fetched=NOON + 9)
    house.upload(pack([later, crawler.commit("/c", amount=DOLLAR)], sequence=2))
    close(house)
    (record,) = house.ask(ListStatements())
    assert record.net == 2 * DOLLAR
    assert house.run(flows.prove(record, stated(house)[0])).key == crawler.record


def test_C5_another_agents_key_signs_nothing_for_this_one(house: House) -> None:
    """A directory that is archived under one agent's name says nothing of another's."""
    crawler, thief = Crawler(), Crawler("https://thief.example", b"\x09" * 32)
    house.open(crawler, thief)
    signed_as = Crawler(crawler.directory, b"\x09" * 32)
    house.upload(pack([crawler.record, thief.record, signed_as.commit("/a", amount=DOLLAR)]))
    close(house)
    assert (stated(house), house.payer(crawler).owed, house.payer(thief).owed) == ([], 0, 0)
