"""An edge serves for promises: verified, logged before the first byte, billed once, given back where nothing came."""

from __future__ import annotations

import asyncio
import concurrent.futures
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from farthing.errors import MaybeWritten, SignerError, StoreError
from farthing.signatures import HttpRequest, HttpResponse, gather_fields, read_signatures, verify
from farthing.world.clearing_client import ClearingAway, ClearingClient, ClearingRefused
from farthing.world.http import HttpAnswer, HttpClient
from farthing.world.pending import Pending

if TYPE_CHECKING:
    from tests.edge.edge_town import Town


def lines(town: Town) -> dict[str, dict[str, Any]]:
    return town.house.lines


def test_C2_a_page_is_served_logged_and_uploaded_once(town: Town) -> None:
    answer, _, commitment_id = town.buy("/page/1")
    assert (answer.status, answer.body) == (200, b"the text of /page/1")
    assert answer.commitment_id == commitment_id
    assert answer.settlement is not None
    assert answer.settlement.success
    town.house.wait(lambda: commitment_id in town.house.sent)
    line = lines(town)[commitment_id]
    assert (line["payer"], line["payee"], line["amount"]) == (town.crawler.origin, "site.example", "1000")
    assert line["resource"] == f"{town.url}/page/1"
    assert line["key"] in town.house.keys
    town.edges[0].close()


def test_the_receipt_is_the_sellers_signature_over_its_answer(town: Town) -> None:
    answer, signed, _ = town.buy("/page/1")
    request = HttpRequest("GET", town.url.removeprefix("http://"), "/page/1", "", gather_fields(signed.items()), "http")
    response = HttpResponse(200, gather_fields(answer.headers.multi_items()), request)
    receipt = next(each for each in read_signatures(response.fields) if each.params.tag == "x402-response")
    assert receipt.covers("content-digest")
    from edge_town import SELLER_KEY  # noqa: PLC0415 - beside this file

    assert verify(response, receipt, SELLER_KEY.public_key)


@pytest.mark.parametrize("path", ["/fails", "/moved", "/raises"])
def test_S2_what_fails_is_not_charged_and_the_same_promise_may_come_again(town: Town, path: str) -> None:
    answer, signed, _ = town.buy(path)
    assert answer.status in {500, 307}
    assert answer.settlement is None
    again = town.send(path, signed)
    assert again.status == answer.status
    assert town.ran == [path, path]
    assert lines(town) == {}


def test_C3_a_copy_is_answered_and_never_served_or_billed_again(town: Town) -> None:
    answer, signed, commitment_id = town.buy("/page/1")
    again = town.send("/page/1", signed)
    assert (answer.status, again.status) == (200, 409)
    assert again.commitment_id == commitment_id
    assert town.ran == ["/page/1"]
    town.house.wait(lambda: commitment_id in lines(town))
    assert len(lines(town)) == 1


def test_C3_copies_at_once_are_served_once(town: Town) -> None:
    signed, _ = town.crawler.sign(town.url + "/slow", town.offer("/slow"))
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        sending = [pool.submit(town.send, "/slow", signed) for _ in range(8)]
        done, _ = concurrent.futures.wait(sending, timeout=30, return_when=concurrent.futures.FIRST_COMPLETED)
        assert done
        town.go_on.set()
        statuses = sorted(each.result().status for each in sending)
    assert statuses == [200] + [409] * 7
    assert town.ran == ["/slow"]


@pytest.mark.parametrize(
    ("path", "method", "body"), [("/page/2", "GET", b""), ("/page/1?x=1", "GET", b""), ("/echo", "POST", b"a")]
)
def test_C3_captured_headers_open_nothing_else(town: Town, path: str, method: str, body: bytes) -> None:
    _, signed, _ = town.buy("/page/1")
    answer = town.send(path, signed, method=method, body=body)
    assert answer.status in {400, 402}
    assert town.ran == ["/page/1"]


def test_C3_another_body_under_the_same_signature_is_refused(town: Town) -> None:
    answer, signed, _ = town.buy("/echo", method="POST", body=b"hello")
    assert (answer.status, answer.body) == (200, b"hello")
    other, _ = town.crawler.sign(town.url + "/echo", town.offer("/echo", method="POST"), method="POST", body=b"one")
    assert town.send("/echo", other, method="POST", body=b"two").status == 402
    assert town.ran == ["/echo"]
    assert signed["Content-Digest"]


def test_C3_two_promises_under_one_nonce_are_one_too_many(town: Town) -> None:
    nonce = b"n" * 64
    first, _, _ = town.buy("/page/1", nonce=nonce)
    second, _, _ = town.buy("/page/2", nonce=nonce)
    assert (first.status, second.status) == (200, 402)
    assert second.settlement is not None
    assert second.settlement.error_reason == "commitment_replayed"


def test_S8_a_paid_answer_is_private_and_keeps_its_headers(town: Town) -> None:
    answer, _, _ = town.buy("/cookies")
    assert "public" not in answer.headers["Cache-Control"]
    assert len(answer.headers.get_list("Set-Cookie")) == 2


def test_a_stream_is_on_record_before_its_first_byte(town: Town) -> None:
    answer, _, commitment_id = town.buy("/stream")
    assert answer.body == b"part 0;part 1;part 2;"
    assert answer.commitment_id == commitment_id
    assert "Content-Digest" not in answer.headers
    town.house.wait(lambda: commitment_id in town.house.sent)


def test_A2_a_stranger_makes_nothing_fetched(town: Town) -> None:
    from edge_town import Crawler  # noqa: PLC0415 - beside this file

    stranger = Crawler("https://stranger.example", b"\x09")
    answer, _, _ = town.buy("/page/1", crawler=stranger)
    assert answer.status == 402
    assert answer.settlement is not None
    assert answer.settlement.error_reason == "signature_agent_unknown"
    assert town.directory.fetched == []


def test_a_directory_that_lies_or_fails_opens_nothing(town: Town) -> None:
    from edge_town import Crawler  # noqa: PLC0415 - beside this file

    liar = Crawler("https://liar.example", b"\x0a")
    town.house.credit[liar.origin] = 10**9
    assert town.buy("/page/1", crawler=liar)[0].status == 402
    town.directory.published[liar.origin, liar.agent.key_id] = town.crawler.key.public_key
    assert town.buy("/page/1", crawler=liar)[0].status == 402
    town.directory.trouble = "The directory does not answer."
    assert town.buy("/page/1", crawler=liar)[0].status == 402
    assert town.ran == []


def test_C4_two_edges_spend_no_more_than_the_credit(town: Town) -> None:
    other = town.open_site("edge-2", lease_amount=2_000)
    first = town.open_site("edge-3", lease_amount=2_000)
    town.house.credit[town.crawler.origin] = 5_000
    statuses = [town.buy(f"/page/{n}", url=url)[0].status for n in range(8) for url in (first, other)]
    assert statuses.count(200) == 5
    assert set(statuses) == {200, 402}


def test_C4_who_names_a_payer_and_is_not_takes_nothing_of_its_credit(town: Town) -> None:
    from edge_town import Crawler  # noqa: PLC0415 - beside this file

    liar = Crawler(town.crawler.origin, b"\x0a")
    assert [town.buy("/page/1", crawler=liar)[0].status for _ in range(3)] == [402] * 3
    assert town.house.leases == {}
    assert town.buy("/page/1")[0].status == 200


def test_C4_a_lease_whose_answer_was_lost_is_asked_for_by_its_name(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under another name there would be two leases, one of which nobody has and nobody gives back."""
    monkeypatch.setattr("farthing.world.edge_credit.AWAY_SECONDS", 0.0)
    town.house.forget_leases = 2
    assert [town.buy(f"/page/{number}")[0].status for number in range(3)] == [402, 402, 200]
    assert len(town.house.leases) == 1


def test_C4_a_lease_counts_from_when_it_was_asked_for_first() -> None:
    """A lease that was granted a minute ago, and heard of now, is a minute old."""
    from farthing.protocol.clearing import Lease  # noqa: PLC0415
    from farthing.world.edge_credit import CreditPool  # noqa: PLC0415
    from farthing.world.loop import background_loop  # noqa: PLC0415

    async def ask(payer: str, currency: str, amount: int) -> tuple[Lease, float]:
        return Lease("le-1", "shop", 1, payer, str(amount), currency, 60), 60.0

    def spawn(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, background_loop())

    pool = CreditPool(ask, cast("Any", None), spawn, offline_limit_seconds=60, monotonic=lambda: 1_000.0)
    signed = SimpleNamespace(payer="p", asset="USD", amount=1, valid_before=2_000)
    commitment = SimpleNamespace(nonce=("p", "n"), commitment_id="c", signed=signed)
    taken = pool.take(cast("Any", commitment), 1_900)
    assert cast("Any", taken).result(30).why == "credit_used"
    # It is known, and given back.
    assert pool.lapsed() == ["le-1"]


def test_C3_a_nonce_that_was_given_back_and_taken_again_is_kept_as_long_as_its_last_promise() -> None:
    from farthing.world.edge_credit import Nonces  # noqa: PLC0415

    nonces = Nonces()
    assert nonces.take("p", "n", "first", 100, 50) is None
    nonces.free("p", "n")
    assert nonces.take("p", "n", "second", 160, 110) is None
    nonces.settle("p", "n")
    assert nonces.take("p", "n", "second", 160, 140) == "committed"
    assert nonces.take("p", "n", "third", 160, 160) == "nonce_used"
    assert len(nonces) == 1
    assert nonces.take("p", "other", "fourth", 400, 300) is None
    assert len(nonces) == 1


def test_a_suspended_payer_is_told_so(town: Town) -> None:
    town.house.refusals[town.crawler.origin] = "suspended"
    answer, _, _ = town.buy("/page/1")
    assert answer.status == 402
    assert answer.settlement is not None
    assert answer.settlement.error_reason == "blocked"


def test_C2_with_the_clearing_house_away_the_edge_serves_on_and_catches_up(town: Town) -> None:
    town.buy("/page/0")
    town.house.away = True
    bought = [town.buy(f"/page/{n}") for n in range(1, 6)]
    assert [answer.status for answer, _, _ in bought] == [200] * 5
    town.house.away = False
    town.house.wait(lambda: all(commitment_id in lines(town) for _, _, commitment_id in bought))
    assert len(lines(town)) == 6


def test_nobody_new_is_taken_with_the_clearing_house_away(town: Town) -> None:
    town.house.away = True
    answer, _, _ = town.buy("/page/1")
    assert answer.status == 402
    assert town.ran == []


def test_C2_an_upload_whose_answer_was_lost_is_sent_again_as_it_was(town: Town) -> None:
    town.house.forget_uploads = 2
    _, _, commitment_id = town.buy("/page/1")
    # The house asserts that it is the same, byte for byte; the first two were answered 502 and not kept.
    town.house.wait(lambda: commitment_id in lines(town))
    assert len(lines(town)) == 1
    assert sum(any(line.get("id") == commitment_id for line in upload) for upload in town.house.uploads) == 3


def test_C2_A1_a_house_without_room_is_asked_again_when_it_says_and_nothing_is_lost(
    town: Town, caplog: pytest.LogCaptureFixture
) -> None:
    # Its own share is used, the house is full, the upload came too slowly; and what is no number of seconds.
    town.house.busy = [(429, "1"), (503, "1"), (408, "0"), (503, "soon")]
    bought = [town.buy(f"/page/{n}") for n in range(3)]
    assert [answer.status for answer, _, _ in bought] == [200] * 3
    town.house.wait(lambda: all(commitment_id in lines(town) for _, _, commitment_id in bought))
    assert len(lines(town)) == 3
    assert town.house.busy == []
    assert len(town.house.names) == len(town.house.uploads)
    waited = [cast("tuple[Any, ...]", record.args) for record in caplog.records if "Trying again" in record.msg]
    assert [seconds >= 1 for _, seconds, _ in waited][:2] == [True, True]
    assert all("busy" in str(said) for said, _, _ in waited)


def test_what_a_house_nests_without_end_is_no_answer() -> None:
    class Deep(HttpClient):
        status = 200

        async def request(self, *_: Any, **__: Any) -> HttpAnswer:
            return HttpAnswer(self.status, CIMultiDictProxy(CIMultiDict()), b'{"x":' * 20_000)

    http = Deep()
    client = ClearingClient("http://127.0.0.1:1", "token", http=http)
    with pytest.raises(ClearingAway):
        asyncio.run(client.upload(b""))
    http.status = 409
    with pytest.raises(ClearingRefused):
        asyncio.run(client.upload(b""))


def test_C2_what_was_logged_is_uploaded_by_the_next_process_and_its_nonces_are_known(town: Town) -> None:
    town.buy("/page/0")
    town.house.away = True
    _, signed, commitment_id = town.buy("/page/1")
    town.edges[0].close(0.1)
    assert commitment_id not in lines(town)
    town.house.away = False
    url = town.open_site("edge-1")
    assert town.edges[-1].offline_seconds >= 0
    town.house.wait(lambda: commitment_id in lines(town))
    # Under another port the request is another; the log itself knows the commitment.
    assert town.send("/page/1", signed, url=url).status == 402


def test_C2_what_a_process_left_is_passed_on_by_another_where_nobody_takes_its_label(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes, of which the second ends without a word; afterwards there is but one."""
    monkeypatch.setattr("farthing.servers.edge.ADOPT_EVERY_SECONDS", 0.1)
    url = town.open_site("edge-1", store="edge-1.sqlite")
    town.buy("/page/1", url=url)
    town.house.away = True
    answer, _, commitment_id = town.buy("/page/2", url=url)
    assert answer.status == 200
    for edge in (town.edges[1], town.edges[0]):
        edge.close(0.1)
    town.house.away = False
    town.open_site("edge-1", store="edge-1.sqlite")
    town.house.wait(lambda: commitment_id in lines(town))
    assert next(up[0]["edge"] for up in town.house.uploads if commitment_id in str(up)) == "edge-1.2"
    town.house.wait(lambda: any(town.house.leases[each]["edge"] == "edge-1.2" for each in town.house.closed))


def test_leases_are_given_back_once_all_is_uploaded(town: Town) -> None:
    town.house.lease_seconds = 1
    _, _, commitment_id = town.buy("/page/1")
    town.house.wait(lambda: commitment_id in lines(town) and bool(town.house.closed))
    closed = next(iter(town.house.closed.values()))
    assert (closed["count"], closed["total"]) == (1, "1000")


def test_two_processes_of_one_store_have_a_label_each(town: Town) -> None:
    url = town.open_site("edge-1", store="edge-1.sqlite")
    _, _, first = town.buy("/page/1")
    _, _, second = town.buy("/page/2", url=url)
    town.house.wait(lambda: {first, second} <= set(lines(town)))
    assert {up[0]["edge"] for up in town.house.uploads} == {"edge-1", "edge-1.2"}


def test_a_wsgi_site_takes_promises_too(town: Town) -> None:
    url = town.open_site("edge-w", wsgi=True)
    answer, signed, commitment_id = town.buy("/page/1?x=%41", url=url)
    assert (answer.status, answer.body) == (200, b"the text of /page/1")
    assert answer.commitment_id == commitment_id
    assert town.send("/page/1?x=%41", signed, url=url).status == 409
    assert town.send("/page/2", signed, url=url).status == 402
    assert town.buy("/fails", url=url)[0].status == 500
    town.house.wait(lambda: commitment_id in town.house.sent)
    assert list(lines(town)) == [commitment_id]


@pytest.mark.parametrize("identified", [False, True])
def test_C2_a_promise_that_could_not_be_written_may_come_again(town: Town, *, identified: bool) -> None:
    """So it is where the log's queue is full: the answer is at once that nothing is taken."""
    url = town.open_site("edge-w", wsgi=True, identified=identified)
    store = town.edges[-1]._living().store

    def full(*_what: Any) -> None:
        raise StoreError("20000 writes wait already.")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(store, "log_bound" if identified else "log", full)
        answer, signed, commitment_id = town.buy("/page/1", url=url, identifier="order_0123456789abcdef")
    assert answer.status == 503
    assert town.send("/page/1", signed, url=url).status == 200
    town.house.wait(lambda: commitment_id in lines(town))


@pytest.mark.parametrize("identified", [False, True])
@pytest.mark.parametrize("written", [False, True])
def test_C4_what_may_be_on_record_stays_taken_from_its_lease(town: Town, *, written: bool, identified: bool) -> None:
    """An answer to a commit is lost: a lease that had its room back would be overspent by what is on record."""
    url = town.open_site("edge-w", wsgi=True, identified=identified, lease_amount=20_000)
    town.house.lease_max, town.house.credit[town.crawler.origin] = 20_000, 20_000
    store, name = town.edges[-1]._living().store, "log_bound" if identified else "log"
    log = getattr(store, name)

    def lost(*what: Any) -> Pending[Any]:
        told = Pending[Any]()
        if written:
            log(*what).add_done_callback(lambda _: told.fail(MaybeWritten("the connection broke during a commit")))
        else:
            told.fail(StoreError("the disk is full; nothing of this was written"))
        return told

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(store, name, lost)
        answer, signed, commitment_id = town.buy("/page/1", url=url, identifier="order_0123456789abcdef")
    assert answer.status == 503
    # The same request finds out by the log, and takes no more than its own room.
    again = town.send("/page/1", signed, url=url).status
    assert again == (200 if identified or not written else 409)
    bought = [town.buy(f"/page/{number}", url=url, identifier=f"order_{number:016}")[0].status for number in range(20)]
    assert bought == [200] * 19 + [402]
    town.house.wait(lambda: commitment_id in lines(town) and len(lines(town)) == 20)


@pytest.mark.parametrize("identified", [False, True])
@pytest.mark.parametrize("wsgi", [False, True])
@pytest.mark.parametrize("what", ["signer", "line"])
def test_C4_what_can_not_be_concluded_gives_its_nonce_and_its_room_back(
    town: Town, what: str, *, wsgi: bool, identified: bool
) -> None:
    """A key that does not sign, or a fault of ours: else nonce and room were gone until the process ends."""
    url = town.open_site("edge-w", wsgi=wsgi, identified=identified, lease_amount=20_000)
    town.house.lease_max, town.house.credit[town.crawler.origin] = 20_000, 20_000

    def fail(*_what: Any, **_named: Any) -> None:
        raise SignerError("The key is away.")

    with pytest.MonkeyPatch.context() as patched:
        if what == "signer":
            patched.setattr("farthing.seller.credit.receipt_for", fail)
        else:
            patched.setattr("farthing.servers.edge.pack_kept", fail)
        answer, signed, commitment_id = town.buy("/page/1", url=url, identifier="order_0123456789abcdef")
    assert (answer.status, answer.settlement) == (500, None)
    assert town.send("/page/1", signed, url=url).status == 200
    bought = [town.buy(f"/page/{number}", url=url, identifier=f"order_{number:016}")[0].status for number in range(20)]
    assert bought == [200] * 19 + [402]
    town.house.wait(lambda: commitment_id in lines(town) and len(lines(town)) == 20)
