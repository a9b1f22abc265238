"""S7 on credit: a repeat of a promise with its id gets the earlier answer, billed once; the id alone opens nothing."""

from __future__ import annotations

import base64
import concurrent.futures
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from farthing.flow import Now
from farthing.protocol.codec import decode_payment_required
from farthing.protocol.payment_identifier import NAME
from farthing.seller import identified
from farthing.world.edge_answers import AnswerRoom

if TYPE_CHECKING:
    from tests.edge.edge_town import Answer, Town

ID = "order_0123456789abcdef"
STORE = "shared.sqlite"


@pytest.fixture
def url(town: Town) -> str:
    """A site that takes ids."""
    return town.open_site("shop", identified=True)


def kept(answer: Answer) -> list[tuple[str, str]]:
    """The headers that a repeat must have again: all but the server's own."""
    return sorted(each for each in answer.headers.multi_items() if each[0] not in {"date", "server"})


def problem_of(answer: Answer) -> str:
    return str(json.loads(answer.body)["type"]).rpartition(":")[2]


def test_S7_a_route_says_whether_it_takes_ids(town: Town, url: str) -> None:
    offered = decode_payment_required(town.offer("/page/1", url=url))
    assert offered.extensions[NAME]["info"] == {"required": False}
    required = decode_payment_required(town.offer("/echo", method="POST", url=url))
    assert required.extensions[NAME]["info"] == {"required": True}
    # A route on credit alone takes none by itself: an answer would be kept for each.
    assert decode_payment_required(town.offer("/page/1")).extensions == {}
    answer, signed, commitment_id = town.buy("/page/1", identifier=ID)
    again = town.send("/page/1", signed)
    assert (answer.status, again.status, again.commitment_id) == (200, 409, commitment_id)


@pytest.mark.parametrize("path", ["/page/1", "/cookies"])
def test_S7_a_repeat_gets_the_earlier_answer_with_its_receipt_and_is_billed_once(
    town: Town, url: str, path: str
) -> None:
    first, signed, commitment_id = town.buy(path, url=url, identifier=ID)
    assert (first.status, first.commitment_id) == (200, commitment_id)
    assert first.headers["signature"]
    for _ in range(3):
        again = town.send(path, signed, url=url)
        assert (again.status, again.body) == (200, first.body)
        assert kept(again) == kept(first)
    assert "private" in first.headers["cache-control"]
    assert town.ran == [path]
    town.house.wait(lambda: commitment_id in town.house.sent)
    assert list(town.house.lines) == [commitment_id]


def test_S7_an_id_is_another_promises_or_anothers_requests_no_more(town: Town, url: str) -> None:
    first, signed, commitment_id = town.buy("/page/1", url=url, identifier=ID)
    for path in ("/page/1", "/page/2"):
        other, _, _ = town.buy(path, url=url, identifier=ID)
        assert (other.status, problem_of(other)) == (409, "payment-conflict")
        # It tells nothing of what was bought.
        assert other.settlement is None
        assert commitment_id.encode() not in other.body
    assert town.ran == ["/page/1"]
    assert town.send("/page/1", signed, url=url).body == first.body
    town.house.wait(lambda: commitment_id in town.house.lines)
    assert len(town.house.lines) == 1


def test_S7_an_id_that_nobody_promised_with_binds_and_opens_nothing(town: Town, url: str) -> None:
    offer = town.offer("/page/1", url=url)
    forged, _ = town.crawler.sign(f"{url}/page/1", offer, identifier=ID)
    forged["Signature"] = forged["Signature"].replace(forged["Signature"][6:10], "AAAA")
    assert town.send("/page/1", forged, url=url).status == 402
    answer, signed, _ = town.buy("/page/1", url=url, identifier=ID)
    assert answer.status == 200
    # The id and all that was signed, without the signature itself.
    without = {**signed, "Signature": forged["Signature"]}
    assert town.send("/page/1", without, url=url).status == 409
    payment = json.loads(base64.b64decode(signed["PAYMENT-SIGNATURE"]))
    del payment["extensions"]
    bare = {**signed, "PAYMENT-SIGNATURE": base64.b64encode(json.dumps(payment).encode()).decode()}
    assert town.send("/page/1", bare, url=url).status == 402
    assert town.ran == ["/page/1"]


def test_S7_C3_the_earlier_answer_is_for_its_own_request_and_while_its_window_is_open(town: Town, url: str) -> None:
    answer, signed, _ = town.buy("/echo", method="POST", body=b"one", url=url, identifier=ID)
    assert (answer.status, answer.body) == (200, b"one")
    assert town.send("/echo", signed, method="POST", body=b"one", url=url).body == b"one"
    assert town.send("/echo", signed, method="POST", body=b"two", url=url).status == 402
    seller = town.sellers[-1]
    seller.performer = seller.performer.with_({Now: lambda _effect: int(time.time()) + 120})
    late = town.send("/echo", signed, method="POST", body=b"one", url=url)
    assert late.status == 402
    assert late.settlement is not None
    assert late.settlement.error_reason == "invalid_signature"
    assert town.ran == ["/echo"]


def test_S7_a_price_that_has_changed_changes_nothing_of_what_was_answered(town: Town, url: str) -> None:
    first, signed, _ = town.buy("/page/1", url=url, identifier=ID)
    town.price = "$0.005"
    again = town.send("/page/1", signed, url=url)
    assert (again.status, again.body) == (200, first.body)


def test_S7_the_scope_is_the_route_and_the_payer(town: Town, url: str) -> None:
    from edge_town import Crawler  # noqa: PLC0415 - beside this file

    other = Crawler("https://other.example", b"\x09")
    town.welcome(other)
    assert town.buy("/page/1", url=url, identifier=ID)[0].status == 200
    assert town.buy("/cookies", url=url, identifier=ID)[0].status == 200
    assert town.buy("/page/1", url=url, identifier=ID, crawler=other)[0].status == 200


@pytest.mark.parametrize("identifier", ["short", "x" * 129, 7, "with space 0123456789", ""])
def test_S7_S10_what_is_no_id_gets_400(town: Town, url: str, identifier: Any) -> None:
    answer, _, _ = town.buy("/page/1", url=url, identifier=identifier)
    assert (answer.status, json.loads(answer.body)["field"]) == (400, f"$.extensions.{NAME}.info.id")
    assert town.ran == []


def test_S7_required_and_missing_gets_400(town: Town, url: str) -> None:
    answer, _, _ = town.buy("/echo", method="POST", body=b"x", url=url)
    assert (answer.status, json.loads(answer.body)["field"]) == (400, f"$.extensions.{NAME}.info.id")
    assert town.ran == []


def test_S7_S2_the_id_of_work_that_failed_is_free_again(town: Town, url: str) -> None:
    assert town.buy("/fails", url=url, identifier=ID)[0].status == 500
    assert town.buy("/fails", url=url, identifier=ID)[0].status == 500
    assert town.ran == ["/fails", "/fails"]


@pytest.mark.parametrize("path", ["/large", "/stream"])
def test_S7_A1_an_answer_that_is_not_kept_is_named_and_not_served_again(town: Town, url: str, path: str) -> None:
    answer, signed, commitment_id = town.buy(path, url=url, identifier=ID)
    assert answer.status == 200
    again = town.send(path, signed, url=url)
    assert (again.status, problem_of(again), again.commitment_id) == (409, "commitment-known", commitment_id)
    assert town.buy(path, url=url, identifier=ID)[0].status == 409
    assert town.ran == [path]


def at_once(town: Town, urls: list[str], signed: dict[str, str]) -> list[Answer]:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        sending = [pool.submit(town.send, "/slow", signed, url=each) for each in urls]
        town.go_on.set()
        return [each.result() for each in sending]


def test_S7_copies_at_once_wait_for_the_first_and_get_its_answer(town: Town, url: str) -> None:
    signed, commitment_id = town.crawler.sign(f"{url}/slow", town.offer("/slow", url=url), identifier=ID)
    answers = at_once(town, [url] * 8, signed)
    assert [(each.status, each.body) for each in answers] == [(200, b"at last")] * 8
    assert {each.commitment_id for each in answers} == {commitment_id}
    assert len({each.headers["signature"] for each in answers}) == 1
    assert town.ran == ["/slow"]


def test_S7_who_waits_too_long_is_told_so(town: Town, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identified, "WAIT_SECONDS", 0.1)
    signed, _ = town.crawler.sign(f"{url}/slow", town.offer("/slow", url=url), identifier=ID)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        sending = [pool.submit(town.send, "/slow", signed, url=url) for _ in range(2)]
        done, _ = concurrent.futures.wait(sending, timeout=30, return_when=concurrent.futures.FIRST_COMPLETED)
        answer = done.pop().result()
        town.go_on.set()
    assert (answer.status, problem_of(answer)) == (409, "payment-in-progress")
    assert sorted(each.result().status for each in sending) == [200, 409]


def replicas(town: Town, store_url: str) -> list[str]:
    """Two processes' worth of one shop, on one store."""
    first = town.open_site("shop", identified=True, store=store_url)
    return [first, town.open_site("shop", identified=True, store=store_url, base_url=first)]


def test_S7_on_two_replicas_of_one_store(town: Town, store_url: str) -> None:
    urls = replicas(town, store_url)
    first, signed, commitment_id = town.buy("/page/1", url=urls[0], identifier=ID)
    again = town.send("/page/1", signed, url=urls[1])
    assert (again.status, kept(again)) == (200, kept(first))
    other, _ = town.crawler.sign(f"{urls[0]}/page/2", town.offer("/page/2", url=urls[0]), identifier=ID)
    assert town.send("/page/2", other, url=urls[1]).status == 409
    assert town.ran == ["/page/1"]
    town.house.wait(lambda: commitment_id in town.house.lines)
    assert len(town.house.lines) == 1


def test_S7_C3_copies_at_once_on_two_replicas_get_one_answer_and_are_billed_once(town: Town, store_url: str) -> None:
    urls = replicas(town, store_url)
    signed, commitment_id = town.crawler.sign(f"{urls[0]}/slow", town.offer("/slow", url=urls[0]), identifier=ID)
    answers = at_once(town, urls * 4, signed)
    assert [(each.status, each.body) for each in answers] == [(200, b"at last")] * 8
    # Each may have done the work; what was answered, and is owed, is one thing.
    assert len(town.ran) <= 2
    assert len({each.headers["signature"] for each in answers}) == 1
    town.house.wait(lambda: commitment_id in town.house.lines)
    assert len(town.house.lines) == 1


def test_S7_of_two_promises_with_one_id_at_once_one_is_on_record(town: Town, store_url: str) -> None:
    urls = replicas(town, store_url)
    offer = town.offer("/slow", url=urls[0])
    promises = [town.crawler.sign(f"{urls[0]}/slow", offer, identifier=ID) for _ in range(6)]
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        sending = [
            pool.submit(town.send, "/slow", signed, url=urls[number % 2]) for number, (signed, _) in enumerate(promises)
        ]
        town.go_on.set()
        answers = [each.result() for each in sending]
    assert sorted(each.status for each in answers) == [200] + [409] * 5
    (served,) = [each for each in answers if each.status == 200]
    town.house.wait(lambda: served.commitment_id in town.house.lines)
    for edge in town.edges:
        edge.close()
    assert list(town.house.lines) == [served.commitment_id]


def test_S7_C4_a_promise_whose_id_was_taken_meanwhile_gives_its_credit_back(town: Town) -> None:
    url = town.open_site("shop", identified=True, lease_amount=20_000)
    town.house.lease_max, town.house.credit[town.crawler.origin] = 20_000, 20_000
    offer = town.offer("/slow", url=url)
    promises = [town.crawler.sign(f"{url}/slow", offer, identifier=ID)[0] for _ in range(16)]
    town.enough = len(promises)
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        sending = [pool.submit(town.send, "/slow", signed, url=url) for signed in promises]
        statuses = sorted(each.result().status for each in sending)
    assert statuses == [200] + [409] * 15
    # Of twenty pages' credit one was spent.
    bought = [town.buy(f"/page/{number}", url=url, identifier=f"{ID}-{number}")[0].status for number in range(20)]
    assert bought == [200] * 19 + [402]


def test_S7_on_a_wsgi_site(town: Town) -> None:
    url = town.open_site("shop-w", wsgi=True, identified=True)
    first, signed, commitment_id = town.buy("/page/1", url=url, identifier=ID)
    again = town.send("/page/1", signed, url=url)
    assert (again.status, again.body) == (first.status, first.body) == (200, b"the text of /page/1")
    assert again.headers["signature"] == first.headers["signature"]
    assert town.buy("/page/2", url=url, identifier=ID)[0].status == 409
    assert town.ran == ["/page/1"]
    town.house.wait(lambda: commitment_id in town.house.sent)


def test_C2_an_answer_that_was_lost_and_then_given_again_is_noted_as_sent(town: Town, url: str) -> None:
    """Else whoever got it could have it back as not delivered."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(town.edges[-1]._living().store, "note_sent", lambda _payer, _commitment_id: None)
        _, signed, commitment_id = town.buy("/page/1", url=url, identifier=ID)
    town.house.wait(lambda: commitment_id in town.house.lines)
    assert commitment_id not in town.house.sent
    assert [town.send("/page/1", signed, url=url).status for _ in range(2)] == [200, 200]
    town.house.wait(lambda: commitment_id in town.house.sent)


def test_A1_answers_that_are_kept_have_a_limit_together() -> None:
    from farthing.seller.answers import Answer  # noqa: PLC0415 - the other one is a response of the town's

    room, answer = AnswerRoom(limit_bytes=250), Answer(200, (("a", "b"),), b"x" * 98)
    assert [room.take(answer, 160, 100) for _ in range(3)] == [True, True, False]
    assert room.take(answer, 400, 300)
