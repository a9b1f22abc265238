"""Buying on credit: promises on record before they leave, receipts verified, nothing twice (B1-B6)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import msgspec
import pytest
import requests

from farthing.buyer import Policy, describe_request
from farthing.clients import Buyer
from farthing.clients.httpx import PayingTransport, receipt_of
from farthing.clients.memory import FREE_FOLDERS_MAX, HOSTS_MAX, RememberedOffers
from farthing.clients.requests import paying_session
from farthing.errors import ConfigError, FarthingError, PaymentRefused, PaymentUnknown, PolicyRefused, StoreError
from farthing.flow import Effect, Now
from farthing.mechanisms.batch_credit import judge_line, verify_commitment
from farthing.mechanisms.batch_credit.verify import SignedCommitment
from farthing.protocol.codec import decode_payment, decode_payment_required, pack_payment_required
from farthing.protocol.messages import PaymentRequired, PaymentRequirements, ResourceInfo
from farthing.protocol.payment_identifier import NAME, declaration, identifier_of
from farthing.signatures import DIRECTORY_PATH, HttpRequest
from farthing.world.agent_keys import AgentSigner
from farthing.world.directories import Directories

if TYPE_CHECKING:
    from tests.clients.publisher import AGENT_KEY, AGENT_ORIGIN, NETWORK, PAGE, SELLER_KEY, Publisher, keys, publishing
else:
    from publisher import AGENT_KEY, AGENT_ORIGIN, NETWORK, PAGE, SELLER_KEY, Publisher, keys, publishing


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    with publishing() as found:
        yield found


def buyer_of(publisher: Publisher, path: Path, **policy: Any) -> Buyer:
    limits: dict[str, Any] = {"networks": [NETWORK], "per_request": "$0.01", "private_hosts": ["127.0.0.1"]}
    return Buyer(
        agent=AgentSigner(AGENT_ORIGIN, AGENT_KEY),
        policy=Policy(**(limits | policy)),
        journal=path / "journal",
        directories=Directories(allowed=[publisher.origin]),
    )


@pytest.fixture
def buyer(publisher: Publisher, tmp_path: Path) -> Iterator[Buyer]:
    with buyer_of(publisher, tmp_path) as found:
        yield found


def get(buyer: Buyer, url: str, **more: Any) -> httpx2.Response:
    with httpx2.Client(transport=PayingTransport(buyer), timeout=10) as client:
        return client.get(url, **more)


def get_async(buyer: Buyer, url: str, **more: Any) -> httpx2.Response:
    async def ask() -> httpx2.Response:
        async with httpx2.AsyncClient(transport=PayingTransport(buyer), timeout=10) as client:
            return await client.get(url, **more)

    return asyncio.run(ask())


def get_by_requests(buyer: Buyer, url: str, **more: Any) -> requests.Response:
    with paying_session(buyer) as session:
        return session.get(url, timeout=10, **more)


DOORS: dict[str, Callable[..., Any]] = {"httpx": get, "httpx-async": get_async, "requests": get_by_requests}


@pytest.mark.parametrize("door", DOORS)
def test_a_page_is_bought_by_a_promise_and_its_receipt_is_kept(publisher: Publisher, buyer: Buyer, door: str) -> None:
    answer = DOORS[door](buyer, publisher.origin + "/articles/1?page=2")
    assert (answer.status_code, answer.content) == (200, PAGE)
    (taken,) = publisher.served
    (promised,) = buyer.journal.promises()
    assert promised.purchase.state == "settled"
    assert promised.purchase.delivered
    assert promised.promise.promise_id == taken.commitment_id == promised.purchase.transaction
    assert promised.promise.evidence == taken.evidence()
    assert promised.purchase.payment_id == taken.signed.payment_id
    assert promised.receipt is not None
    assert promised.receipt.key == SELLER_KEY.public_key.thumbprint
    assert judge_line(taken.line(committed=0), AGENT_KEY.public_key, network=NETWORK) is None
    assert buyer.journal.used() == 2 * 10**15


def test_a_body_is_under_the_signature(publisher: Publisher, buyer: Buyer) -> None:
    with httpx2.Client(transport=PayingTransport(buyer), timeout=10) as client:
        answer = client.post(publisher.origin + "/search", content=b'{"q": "x"}', headers={"Signature": "mine=:AA==:"})
    assert answer.status_code == 200
    (fields,) = publisher.seen
    assert fields["content-digest"]
    # The caller's own signature would be a second one; the promise's takes its place.
    assert len(fields["signature"]) == 1
    assert receipt_of(answer) is not None


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("no_receipt", "receipt_invalid"),
        ("other_id", "other_commitment"),
        ("other_key", "receipt_unverified"),
        ("old", "receipt_invalid"),
        ("broken", "receipt_invalid"),
    ],
)
def test_B1_an_answer_without_a_verified_receipt_proves_nothing(
    publisher: Publisher, buyer: Buyer, mode: str, reason: str
) -> None:
    publisher.mode = mode
    answer = get(buyer, publisher.origin + "/a")
    assert answer.content == PAGE
    (promised,) = buyer.journal.promises()
    assert (promised.purchase.state, promised.purchase.reason) == ("unknown", reason)
    assert promised.receipt is None
    assert buyer.journal.used() == 2 * 10**15


@pytest.mark.parametrize("mode", ["cut", "fail"])
@pytest.mark.parametrize("door", DOORS)
def test_B1_a_promise_is_repeated_byte_for_byte_until_it_expires(
    publisher: Publisher, buyer: Buyer, door: str, mode: str
) -> None:
    publisher.mode = mode
    for _ in range(2):
        with pytest.raises(PaymentUnknown):
            DOORS[door](buyer, publisher.origin + "/a")
    publisher.mode = "fine"
    assert DOORS[door](buyer, publisher.origin + "/a").content == PAGE
    names = ("payment-signature", "signature-agent", "signature-input", "signature")
    assert len({tuple(fields[name] for name in names) for fields in publisher.seen}) == 1
    assert len({each.commitment_id for each in publisher.served}) == 1
    (promised,) = buyer.journal.promises()
    assert promised.purchase.state == "settled"
    assert buyer.journal.used() == 2 * 10**15


def test_B1_an_expired_promise_keeps_its_place_and_the_callers_next_request_is_a_new_purchase(
    publisher: Publisher, buyer: Buyer
) -> None:
    publisher.mode = "fail"
    with pytest.raises(PaymentUnknown):
        get(buyer, publisher.origin + "/a")
    (first,) = buyer.journal.promises()
    later(buyer, 61)
    with pytest.raises(PaymentRefused):  # the server's clock is its own: it takes the second promise for early
        get(buyer, publisher.origin + "/a")
    both = buyer.journal.promises()
    assert len({each.promise.promise_id for each in both}) == 2
    assert both[0].purchase.purchase_id == first.purchase.purchase_id
    assert both[0].purchase.state == "unknown"
    assert buyer.journal.used() == 4 * 10**15
    with pytest.raises(StoreError, match="no statement"):
        buyer.journal.mark_unspent(first.purchase.payment_id, evidence="I say so")


def later(buyer: Buyer, seconds: int) -> None:
    real = buyer.performer

    def now(effect: Effect[Any]) -> int:
        return int(real.blocking(Now())) + seconds

    buyer.performer = buyer.performer.with_({Now: now})


def test_B1_the_promise_is_on_record_before_it_leaves(publisher: Publisher, buyer: Buyer) -> None:
    class Looking(httpx2.HTTPTransport):
        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            if "payment-signature" in request.headers:
                (promised,) = buyer.journal.promises()
                sent = {name.lower(): value for name, value in promised.promise.headers}
                assert {name: request.headers[name] for name in sent} == sent
                assert promised.purchase.state == "sent"
                raise httpx2.ConnectError("the cable is cut")
            return super().handle_request(request)

    with httpx2.Client(transport=PayingTransport(buyer, inner=Looking())) as client, pytest.raises(PaymentUnknown):
        client.get(publisher.origin + "/a")
    assert buyer.journal.promises()[0].purchase.state == "unknown"


def test_B2_the_policy_judges_promises_like_payments(publisher: Publisher, tmp_path: Path) -> None:
    for policy, reason in (
        ({"per_request": "$0.001"}, "price_over_limit"),
        ({"networks": ["clearing:other"]}, "no_acceptable_offer"),
        ({"hosts": ["other.example"]}, "host_not_allowed"),
        ({"private_hosts": []}, "private_host"),
        ({"total": "$0.001"}, "over_total"),
        ({"max_validity_seconds": 59}, "window_too_long"),
        ({"assets": [f"{NETWORK}/EUR"]}, "no_acceptable_offer"),
    ):
        with buyer_of(publisher, tmp_path, **policy) as buyer, pytest.raises(FarthingError) as caught:
            get(buyer, publisher.origin + "/a")
        assert getattr(caught.value, "reason", "") == reason
    assert publisher.seen == []


def test_B2_a_budget_holds_over_promises(publisher: Publisher, tmp_path: Path) -> None:
    with buyer_of(publisher, tmp_path, total="$0.005") as buyer:
        for page in range(2):
            get(buyer, f"{publisher.origin}/{page}")
        with pytest.raises(PolicyRefused, match="budget"):
            get(buyer, publisher.origin + "/3")
    assert len(publisher.served) == 2


def test_B3_decimals_come_from_our_table_and_cheap_looking_offers_are_not(publisher: Publisher, buyer: Buyer) -> None:
    publisher.amount = "10001"
    with pytest.raises(PolicyRefused) as caught:
        get(buyer, publisher.origin + "/a")
    assert caught.value.reason == "price_over_limit"


def test_B4_a_refusal_is_a_typed_error_and_keeps_its_place(publisher: Publisher, buyer: Buyer) -> None:
    with pytest.raises(PaymentRefused) as caught:
        impatient(buyer, publisher)
    assert caught.value.reason == "price_not_acceptable"
    (promised,) = buyer.journal.promises()
    assert promised.purchase.state == "refused"
    assert buyer.journal.used() == 2 * 10**15


def impatient(buyer: Buyer, publisher: Publisher) -> None:
    """Buy from a publisher whose price changes between offer and payment."""

    class Changing(httpx2.HTTPTransport):
        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            if "payment-signature" in request.headers:
                publisher.amount = "3000"
            return super().handle_request(request)

    with httpx2.Client(transport=PayingTransport(buyer, inner=Changing())) as client:
        client.get(publisher.origin + "/a")


def test_B1_what_takes_a_refused_promises_place_has_its_nonce(publisher: Publisher, buyer: Buyer) -> None:
    with pytest.raises(PaymentRefused):
        impatient(buyer, publisher)
    assert get(buyer, publisher.origin + "/a").content == PAGE
    first, second = sorted(buyer.journal.promises(), key=lambda each: each.purchase.state)
    assert (first.purchase.state, second.purchase.state) == ("refused", "settled")
    nonces = {part for each in publisher.seen for part in each["signature-input"][0].split(";") if "nonce" in part}
    assert len(nonces) == 1
    assert buyer.journal.used() == 5 * 10**15
    # It is over with: a third request is a purchase of its own.
    assert get(buyer, publisher.origin + "/a").content == PAGE
    assert len(buyer.journal.promises()) == 3


@pytest.mark.parametrize("door", DOORS)
def test_a_price_that_is_known_is_promised_unasked(publisher: Publisher, buyer: Buyer, door: str) -> None:
    for page in range(4):
        assert DOORS[door](buyer, f"{publisher.origin}/articles/{page}").content == PAGE
    assert publisher.unpaid == 1
    assert len({each.commitment_id for each in publisher.served}) == 4
    assert {each.purchase.state for each in buyer.journal.promises()} == {"settled"}
    assert buyer.journal.used() == 8 * 10**15


@pytest.mark.parametrize("door", DOORS)
def test_B1_a_price_that_has_changed_is_asked_for_again_under_the_same_nonce(
    publisher: Publisher, buyer: Buyer, door: str
) -> None:
    DOORS[door](buyer, publisher.origin + "/1")
    publisher.amount = "3000"
    assert DOORS[door](buyer, publisher.origin + "/2").content == PAGE
    assert publisher.unpaid == 1
    assert [each.signed.amount for each in publisher.served] == [2000, 3000]
    last = publisher.seen[-2:]
    assert len({part for each in last for part in each["signature-input"][0].split(";") if "nonce" in part}) == 1
    # The refused one keeps its place until no statement can list it.
    assert buyer.journal.used() == 7 * 10**15
    DOORS[door](buyer, publisher.origin + "/3")
    assert (publisher.unpaid, len(publisher.refused)) == (1, 1)


@pytest.mark.parametrize("door", DOORS)
def test_B2_free_pages_take_one_place_in_the_budget_and_no_more(publisher: Publisher, buyer: Buyer, door: str) -> None:
    DOORS[door](buyer, publisher.origin + "/articles/1")
    for page in range(3):
        assert DOORS[door](buyer, f"{publisher.origin}/free/{page}").content == PAGE
    assert DOORS[door](buyer, publisher.origin + "/articles/2").content == PAGE
    states = sorted(each.purchase.state for each in buyer.journal.promises())
    assert states == ["settled", "settled", "unknown"]
    assert (publisher.unpaid, buyer.journal.used()) == (1, 6 * 10**15)


def test_B2_a_remembered_price_is_judged_by_the_policy_again(publisher: Publisher, tmp_path: Path) -> None:
    with buyer_of(publisher, tmp_path, total="$0.003") as buyer:
        get(buyer, publisher.origin + "/1")
        with pytest.raises(PolicyRefused) as caught:
            get(buyer, publisher.origin + "/2")
        assert caught.value.reason == "over_total"
        assert get(buyer, publisher.origin + DIRECTORY_PATH).status_code == 200
    assert len(publisher.seen) == 1


def test_B1_a_promise_ahead_whose_answer_is_lost_is_presented_again(publisher: Publisher, buyer: Buyer) -> None:
    get(buyer, publisher.origin + "/1")
    publisher.mode = "cut"
    with pytest.raises(PaymentUnknown):
        get(buyer, publisher.origin + "/2")
    publisher.mode = "fine"
    assert get(buyer, publisher.origin + "/2").content == PAGE
    assert publisher.unpaid == 1
    assert len({each.commitment_id for each in publisher.served}) == 2


def identifiers(publisher: Publisher) -> list[str]:
    """The ids of the promises that came."""
    return [identifier_of(decode_payment(each["payment-signature"][0]).extensions) for each in publisher.seen]


@pytest.mark.parametrize("door", DOORS)
def test_S7_a_promise_carries_its_purchases_id_asked_for_or_not(publisher: Publisher, buyer: Buyer, door: str) -> None:
    publisher.extensions = {NAME: declaration(required=True)}
    publisher.mode = "fail"
    with pytest.raises(PaymentUnknown):
        DOORS[door](buyer, publisher.origin + "/a/1")
    publisher.mode = "fine"
    for page in ("/a/1", "/a/2"):
        assert DOORS[door](buyer, publisher.origin + page).content == PAGE
    # The first page was asked for twice, by the same bytes; the second one's promise came unasked.
    assert publisher.seen[0] == publisher.seen[1]
    first, again, ahead = identifiers(publisher)
    assert first == again != ahead != ""
    assert publisher.unpaid == 1


def test_S7_what_takes_a_refused_promises_place_has_its_id(publisher: Publisher, buyer: Buyer) -> None:
    publisher.extensions = {NAME: declaration(required=False)}
    get(buyer, publisher.origin + "/1")
    publisher.amount = "3000"
    get(buyer, publisher.origin + "/2")
    _, refused, instead = identifiers(publisher)
    assert refused == instead


def test_what_is_remembered_is_bounded_and_on_credit_alone() -> None:
    memory = RememberedOffers()
    offers = [
        PaymentRequirements("batch-settlement", NETWORK, "1", "USD", "p", 60, {"decimals": 6}),
        PaymentRequirements("exact", "eip155:8453", "1", "0x00", "p", 60),
    ]
    received = decode_payment_required(
        pack_payment_required(PaymentRequired(ResourceInfo("https://a.example"), tuple(offers)))
    )
    for number in range(HOSTS_MAX + 1):
        memory.remember(f"h{number}.example", "GET", received)
    assert memory.recall("h0.example", "GET") is None
    kept = memory.recall("h1.example", "GET")
    assert kept is not None
    assert [each.requirements.network for each in kept.offers] == [NETWORK]
    assert (kept.resource, kept.resource_raw) == (None, None)
    assert memory.recall("h1.example", "POST") is None
    # A folder that gave a page for nothing is asked plainly, until it asks for money.
    memory.note_free("h1.example", "GET", "https://h1.example/archive/3?page=2")
    assert memory.recall("h1.example", "GET", url="https://h1.example/archive/4") is None
    assert memory.recall("h1.example", "GET", url="https://h1.example/archive/a/4") is not None
    assert memory.recall("h1.example", "GET", url="https://h1.example/articles/4") is not None
    memory.remember("h1.example", "GET", received, url="https://h1.example/archive/5")
    assert memory.recall("h1.example", "GET", url="https://h1.example/archive/4") is not None
    for number in range(FREE_FOLDERS_MAX + 1):
        memory.note_free("h1.example", "GET", f"https://h1.example/{number}/")
    assert memory.recall("h1.example", "GET", url="https://h1.example/0/") is not None
    assert memory.recall("h1.example", "GET", url="https://h1.example/1/") is None
    memory.forget("h1.example", "GET")
    assert memory.recall("h1.example", "GET") is None


def test_C3_what_was_captured_opens_nothing_else(publisher: Publisher, buyer: Buyer) -> None:
    get(buyer, publisher.origin + "/articles/1")
    (fields,) = publisher.seen
    now_seconds = publisher.served[0].signed.valid_after

    def judge(method: str, path: str, body: bytes = b"") -> object:
        request = HttpRequest(method, publisher.authority, path, "", fields, "http")
        return verify_commitment(request, offer=publisher.offer, keys=keys, now_seconds=now_seconds, body=body)

    assert isinstance(judge("GET", "/articles/1"), SignedCommitment)
    for method, path, body in (("GET", "/articles/2", b""), ("POST", "/articles/1", b""), ("GET", "/articles/1", b"x")):
        assert not isinstance(judge(method, path, body), SignedCommitment)


def test_B5_the_promise_goes_to_no_other_origin(publisher: Publisher, buyer: Buyer) -> None:
    with publishing() as other:
        publisher.mode = other.origin + "/b"
        with httpx2.Client(transport=PayingTransport(buyer), follow_redirects=True) as client:
            assert client.get(publisher.origin + "/a").status_code == 302
        assert (other.seen, other.unpaid) == ([], 0)


def test_a_buyer_needs_somebody_who_pays(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="agent"):
        Buyer(policy=Policy(networks=["eip155:8453"]), journal=tmp_path / "journal")


def test_the_print_of_a_request_tells_bodies_apart() -> None:
    assert describe_request("GET", "https://a.example", b"").body_digest == ""
    assert len(describe_request("POST", "https://a.example", b"x").body_digest) == 64
    assert msgspec.json.encode(describe_request("GET", "https://a.example", b""))
