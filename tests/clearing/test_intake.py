"""Uploads: what is billed, once, and what is refused with a reason."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from town import DOLLAR, DOMAIN, NETWORK, NOON, Crawler, House, pack

from farthing.clearing import flows, intake
from farthing.clearing.intake import read_upload
from farthing.clearing.rules import Rules, upload_key
from farthing.clearing.store import CloseWindow, ListStatements, TakeUpload
from farthing.errors import RemoteProtocolError
from farthing.protocol.clearing import UPLOAD_LINES_MAX, UPLOAD_UNPACKED_MAX_BYTES, Commitment, RefusedLine, Sent

DAY = 86_400
NEWS = frozenset({"news"})


def refusals(house: House, body: bytes) -> dict[str, str]:
    return {each.id: each.reason for each in house.upload(body).refused}


def test_C2_an_upload_is_taken_once_however_often_it_comes(house: House) -> None:
    crawler = Crawler()
    house.open(crawler)
    lines = [crawler.commit(f"/{number}") for number in range(20)]
    body = pack([crawler.record, *lines])
    first = house.upload(body)
    again = house.upload(body)
    assert (first.accepted, first.duplicates, first.repeated) == (20, 0, False)
    assert again == msgspec.structs.replace(first, repeated=True)
    assert house.payer(crawler).owed == 200_000 == house.total("accrued")


def test_C2_a_line_is_billed_once_in_whatever_upload_it_comes_first(house: House) -> None:
    crawler = Crawler()
    house.open(crawler)
    lines = [crawler.commit(f"/{number}") for number in range(10)]
    # Out of order: the second upload comes before the first, and both have half of the lines in common.
    late = house.upload(pack([crawler.record, *lines[3:]], sequence=2))
    early = house.upload(pack([crawler.record, *lines[:7]], sequence=1))
    other_life = house.upload(pack(lines, epoch=2))
    assert (late.accepted, early.accepted, early.duplicates) == (7, 3, 4)
    assert (other_life.accepted, other_life.duplicates) == (0, 10)
    assert house.payer(crawler).owed == 100_000


def test_C2_one_line_twice_in_one_upload_is_one(house: House) -> None:
    crawler = Crawler()
    house.open(crawler)
    line = crawler.commit()
    answer = house.upload(pack([crawler.record, line, line]))
    assert (answer.accepted, answer.duplicates) == (1, 1)
    assert house.payer(crawler).owed == 10_000


def test_C2_another_upload_under_a_name_that_was_used_is_no_answer(house: House) -> None:
    crawler = Crawler()
    house.open(crawler)
    house.upload(pack([crawler.record, crawler.commit("/a")]))
    other = read_upload(pack([crawler.record, crawler.commit("/b")]), NETWORK)
    assert house.ask(TakeUpload(other, frozenset({"news"}), (), house.rules, NOON)) is None
    assert house.payer(crawler).owed == 10_000


def test_C2_the_same_lines_by_two_processes_at_once_are_billed_once(new_house: Callable[..., House]) -> None:
    crawler = Crawler()
    houses = [new_house(), new_house()]
    houses[0].open(crawler)
    lines = [crawler.commit(f"/{number}") for number in range(200)]
    bodies = [pack([crawler.record, *lines], sequence=sequence) for sequence in range(1, 9)]
    accepted: list[int] = []

    def send(house: House) -> None:
        accepted.extend(house.upload(body).accepted for body in bodies)

    threads = [threading.Thread(target=send, args=(each,)) for each in houses]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(accepted) == 16
    assert houses[0].payer(crawler).owed == 200 * 10_000 == houses[1].total("accrued")


def test_C2_what_comes_after_the_close_is_on_the_next_statement_with_its_own_date(house: House) -> None:
    crawler = Crawler()
    house.open(crawler)
    house.upload(pack([crawler.record, crawler.commit("/early")]))
    house.now += DAY
    house.run(flows.close(house.desk))
    late = crawler.commit("/late", at=NOON + 60)
    assert house.upload(pack([late], sequence=2)).window == "2"
    house.now += DAY
    house.run(flows.close(house.desk))
    first, second = house.ask(ListStatements())
    assert (first.count, second.count) == (1, 1)
    found = house.run(flows.find_line(second.statement, late.id))
    assert found.line.time == str(NOON + 60)


def test_C2_what_is_older_than_the_late_limit_is_refused_and_the_payee_is_told(house: House) -> None:
    crawler = Crawler()
    house.open(crawler)
    house.now = NOON + 7 * DAY
    edge = crawler.commit("/at-the-limit", at=NOON)
    beyond = crawler.commit("/beyond", at=NOON - 1)
    assert refusals(house, pack([crawler.record, edge, beyond])) == {beyond.id: intake.TOO_LATE}
    assert house.payer(crawler).owed == 10_000


def test_C2_two_windows_share_no_line_while_uploads_race_with_the_close(new_house: Callable[..., House]) -> None:
    crawler = Crawler()
    houses = [new_house(), new_house()]
    houses[0].open(crawler)
    bodies = [
        pack([crawler.record, *(crawler.commit(f"/{sequence}/{number}") for number in range(10))], sequence=sequence)
        for sequence in range(1, 31)
    ]
    answers: list[str] = []

    def send() -> None:
        answers.extend(houses[1].upload(body).window for body in bodies)

    sender = threading.Thread(target=send)
    sender.start()
    for _ in range(5):
        houses[0].ask(CloseWindow(houses[0].rules, NOON, force=True))
    sender.join()
    houses[0].run(flows.close(houses[0].desk, force=True))
    statements = houses[0].ask(ListStatements())
    assert sum(each.count for each in statements) == 300
    by_window = {str(each.window): each.count for each in statements}
    assert by_window == {window: 10 * answers.count(window) for window in set(answers)}
    assert sum(each.net for each in statements) == houses[0].payer(crawler).owed


OTHER = {
    "id": "sha256:" + "0" * 64,
    "payer": "https://other.example",
    "payee": "other",
    "key": "A" * 43,
    "method": "POST",
    "resource": f"https://{DOMAIN}/other",
    "amount": "10001",
    "currency": "EUR",
    "decimals": 2,
    "created": NOON - 1,
    "expires": NOON + 61,
    "committed": NOON + 60 + 3_601,
}


@pytest.mark.parametrize("field", OTHER)
def test_C3_a_line_is_held_to_what_was_signed(field: str) -> None:
    """An edge is paid for what it uploads: each member of a line must be the signed one."""
    line = Crawler().commit("/a?b=c")
    changed = msgspec.structs.replace(line, **{field: OTHER[field]})
    assert isinstance(intake.bind(line, 1, NETWORK), intake.IntakeLine)
    refused = intake.bind(changed, 1, NETWORK)
    assert isinstance(refused, RefusedLine)
    assert refused.reason == intake.NOT_BOUND


def test_C3_a_base_of_another_network_or_with_less_covered_is_no_commitment() -> None:
    crawler = Crawler()
    refused = intake.bind(crawler.commit(network="clearing:other"), 1, NETWORK)
    assert isinstance(refused, RefusedLine)
    line = crawler.commit()
    for covered in ('"@path" ', '"@query" ', '"@method" ', '"payment-signature"'):
        base = line.base.replace(covered, "", 1)
        other = crawler.commit()
        changed = msgspec.structs.replace(other, base=base, id="sha256:" + hashlib.sha256(base.encode()).hexdigest())
        assert isinstance(intake.bind(changed, 1, NETWORK), RefusedLine)


@pytest.mark.parametrize(
    "written", ['"https://crawler.example"', '"https://crawler.example";type=directory', "crawler.example",
                '"https://CRAWLER.example:443"'],
)  # fmt: skip
def test_an_agent_is_known_however_its_origin_is_written(written: str) -> None:
    line = Crawler().commit()
    base = line.base.replace('"https://crawler.example"', written)
    changed = msgspec.structs.replace(line, base=base, id="sha256:" + hashlib.sha256(base.encode()).hexdigest())
    assert isinstance(intake.bind(changed, 1, NETWORK), intake.IntakeLine)
    other = msgspec.structs.replace(changed, payer="https://crawler.example.evil")
    assert isinstance(intake.bind(other, 1, NETWORK), RefusedLine)


def test_C3_one_commitment_by_two_edges_is_billed_once(house: House) -> None:
    """Edges without a shared store can each serve one replay; it is billed once."""
    crawler = Crawler()
    house.open(crawler)
    line = crawler.commit()
    body = pack([crawler.record, line])
    assert house.upload(body).accepted == 1
    other = house.upload(pack([crawler.record, line], edge="edge-2"))
    assert (other.accepted, other.duplicates) == (0, 1)
    assert house.payer(crawler).owed == 10_000


def test_lines_are_refused_with_a_reason_and_the_others_are_taken(house: House) -> None:
    crawler, stranger = Crawler(), Crawler("https://stranger.example", b"\x08" * 32)
    house.open(crawler, payees={"news": DOMAIN, "blog": "blog.example"})
    good = crawler.commit("/good")
    unknown_payer = stranger.commit()
    unknown_payee = crawler.commit(payee="nobody")
    elsewhere = crawler.commit(domain="evil.example")
    foreign = crawler.commit(payee="blog", domain="blog.example")
    below = crawler.commit(domain="www." + DOMAIN)
    dear = crawler.commit(amount=10**12 + 1)
    body = pack([crawler.record, good, unknown_payer, unknown_payee, elsewhere, foreign, below, dear])
    assert refusals(house, body) == {
        unknown_payer.id: intake.UNKNOWN_PAYER,
        unknown_payee.id: intake.UNKNOWN_PAYEE,
        elsewhere.id: intake.FOREIGN_PAYEE,
        foreign.id: intake.FOREIGN_PAYEE,
        dear.id: intake.WRONG_UNITS,
    }
    assert house.payer(crawler).owed == 20_000


def test_C2_a_line_may_come_before_the_upload_with_its_keys_record(house: House) -> None:
    crawler = Crawler()
    house.open(crawler)
    line = crawler.commit()
    assert house.run(flows.take(house.desk, read_upload(pack([line], sequence=2), NETWORK), NEWS)).accepted == 1
    assert house.upload(pack([crawler.record], sequence=1)).accepted == 0
    house.run(flows.close(house.desk, force=True))
    (statement,) = house.ask(ListStatements())
    assert (statement.count, statement.net) == (1, 10_000)


def test_C5_a_line_by_a_key_that_nobody_archived_is_on_no_statement(house: House) -> None:
    crawler = Crawler()
    house.open(crawler)
    house.upload(pack([crawler.commit()]))
    house.run(flows.close(house.desk, force=True))
    (statement,) = house.ask(ListStatements())
    assert (statement.count, statement.net) == (0, 0)
    assert house.payer(crawler).owed == 0 == house.total("accrued")


def unsigned(crawler: Crawler, resource: str) -> Commitment:
    """A line that the payer never signed, made by an edge that would like to be paid for it."""
    line: Commitment = crawler.commit(resource)
    return msgspec.structs.replace(line, signature=crawler.commit("/other").signature)


def test_C5_forged_lines_are_found_by_the_sample_or_before_the_statement(house: House) -> None:
    crawler = Crawler()
    house.open(crawler)
    forged = [unsigned(crawler, f"/forged/{number}") for number in range(64)]
    answer = house.run(
        flows.take(house.desk, read_upload(pack([crawler.record, *forged]), NETWORK), frozenset({"news"}))
    )
    assert answer.accepted == 0
    assert {each.reason for each in answer.refused} == {intake.BAD_SIGNATURE}
    # One among many may pass the sample; it never reaches a statement.
    lines = [crawler.commit(f"/{number}") for number in range(10)]
    house.upload(pack([*lines, unsigned(crawler, "/forged")], sequence=2))
    assert house.payer(crawler).owed == 110_000
    house.run(flows.close(house.desk, force=True))
    (statement,) = house.ask(ListStatements())
    assert (statement.count, statement.net) == (10, 100_000)
    assert house.payer(crawler).owed == 100_000 == house.total("accrued")


def test_C5_a_key_record_that_is_not_its_keys_own_refuses_the_upload(house: House) -> None:
    crawler, thief = Crawler(), Crawler(seed=b"\x0a" * 32)
    house.open(crawler)
    record = msgspec.structs.replace(thief.record, thumbprint=crawler.record.thumbprint)
    upload = read_upload(pack([record, crawler.commit()]), NETWORK)
    with pytest.raises(RemoteProtocolError, match="thumbprint"):
        house.run(flows.take(house.desk, upload, frozenset({"news"})))


def bomb() -> bytes:
    return gzip.compress(b" " * (UPLOAD_UNPACKED_MAX_BYTES + 1))


def too_many() -> bytes:
    return gzip.compress(b"{}\n" * (UPLOAD_LINES_MAX + 2))


def line_breaks() -> bytes:
    return gzip.compress(b"\n" * UPLOAD_UNPACKED_MAX_BYTES)


def test_A1_line_breaks_alone_do_not_fill_the_memory() -> None:
    """64 KiB unpack to 64 MiB of line breaks: a list of as many empty lines would take half a gigabyte."""
    body = line_breaks()
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError, match="at most 10000 lines"):
            intake.unpack(body)
        assert tracemalloc.get_traced_memory()[1] < 4 * UPLOAD_UNPACKED_MAX_BYTES
    finally:
        tracemalloc.stop()


def test_A1_a_payment_that_nests_without_end_is_a_refused_line() -> None:
    line = Crawler().commit()
    deep = base64.b64encode(b'{"accepted":' + b"[" * 20_000 + b"]" * 20_000 + b"}").decode()
    base = re.sub(r'("payment-signature"): [^\n]*', lambda found: f"{found[1]}: {deep}", line.base)
    changed = msgspec.structs.replace(line, base=base, id="sha256:" + hashlib.sha256(base.encode()).hexdigest())
    refused = intake.bind(changed, 1, NETWORK)
    assert isinstance(refused, RefusedLine)
    assert refused.reason == intake.NOT_BOUND


@pytest.mark.parametrize(
    "make",
    [
        lambda: b"", lambda: b"not gzip", bomb, too_many, lambda: pack([])[:-4], lambda: pack([]) + b"more",
        lambda: gzip.compress(b"{}"), lambda: gzip.compress(b'{"type":"commitment"}'), lambda: gzip.compress(b"\xff"),
        lambda: pack([Crawler().commit(), Crawler().commit(decimals="6")]),
        lambda: gzip.compress(b'{"type":"upload","edge":"e","epoch":1,"sequence":1}\n[' + b"[" * 60_000),
        lambda: gzip.compress(b'{"type":"upload","edge":"e","epoch":1,"sequence":1}\n' * 2),
    ],
)  # fmt: skip
def test_A1_an_upload_that_is_none_is_refused_whole(make: Any) -> None:
    with pytest.raises(RemoteProtocolError):
        read_upload(make(), NETWORK)


def test_an_upload_says_later_that_an_answer_went_out(house: House) -> None:
    crawler = Crawler()
    house.open(crawler)
    line = crawler.commit(sent=False)
    house.upload(pack([crawler.record, line]))
    answer = house.upload(pack([Sent(crawler.directory, line.id)], sequence=2))
    assert (answer.accepted, answer.refused) == (0, ())


def test_A1_an_edge_can_not_fill_the_archive_or_speak_for_other_payees(house: House) -> None:
    crawler, stranger = Crawler(), Crawler("https://stranger.example", b"\x0b" * 32)
    house.open(crawler, payees={"news": DOMAIN, "blog": "blog.example"})
    line = crawler.commit(sent=False)
    house.upload(pack([crawler.record, line]))
    notes = [Sent(crawler.directory, line.id), Sent(crawler.directory, "sha256:" + "1" * 64)]
    house.upload(pack([stranger.record, *notes], sequence=2), frozenset({"blog"}))
    fetch = house.store.database.fetch
    assert fetch("SELECT directory FROM clearing_keys") == [(crawler.directory,)]
    assert fetch("SELECT COUNT(*) FROM clearing_sent") == [(0,)]
    house.upload(pack(notes, sequence=3))
    assert fetch("SELECT COUNT(*) FROM clearing_sent") == [(1,)]


def test_C2_two_promises_under_one_nonce_at_two_edges_are_two(house: House) -> None:
    """Decision 017: each was signed and served; by the nonce, one payer would read at all edges and pay at one."""
    crawler = Crawler()
    house.open(crawler)
    first = crawler.commit(amount=10_000)
    twin = Crawler().commit(amount=20_000)
    assert re.findall('nonce="[^"]+"', first.base) == re.findall('nonce="[^"]+"', twin.base)
    house.upload(pack([crawler.record, first]))
    house.upload(pack([twin], edge="edge-2"))
    assert house.payer(crawler).owed == 30_000


def test_names_of_uploads_do_not_run_together() -> None:
    assert upload_key("a", 1, 23) != upload_key("a", 12, 3)


@pytest.mark.parametrize(
    ("domain", "authority", "served"),
    [
        ("a.example", "a.example", True), ("a.example", "www.a.example", True), ("a.example", "a.example:8443", True),
        ("a.example", "ba.example", False), ("a.example", "a.example.evil", False), ("a.example", "example", False),
        ("127.0.0.1:80", "127.0.0.1:80", True), ("127.0.0.1:80", "127.0.0.1:81", False), ("[::1]:80", "[::1]:80", True),
    ],
)  # fmt: skip
def test_a_payee_bills_for_its_own_domain(domain: str, authority: str, served: Any) -> None:
    assert intake.serves(domain, authority) is served


def test_the_largest_sum_of_lines_fits_the_books() -> None:
    assert Rules().lease_amount_max < 100 * DOLLAR
    assert UPLOAD_LINES_MAX * 10**12 < 2**63
