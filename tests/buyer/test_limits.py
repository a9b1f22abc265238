"""The limits of B2 beyond price and host: hours, sessions, rates, payees, approvals, the kill switch, private hosts."""

from __future__ import annotations

import ipaddress
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shop import NETWORK, PAYEE, SELLER, SIGNER, offer, required, response

from farthing.buyer import NoAnswer, PaidAnswer, PaidRequest, PaymentDemand, Policy, describe_request
from farthing.buyer.approval import Question
from farthing.buyer.policy import is_public_address, is_public_name
from farthing.clients import Buyer, Journal
from farthing.clients.buyer import Exchange
from farthing.errors import ConfigError, PaymentRefused, PaymentUnknown, PolicyRefused
from farthing.flow import Now
from farthing.protocol.codec import decode_payment
from farthing.protocol.payment_identifier import declaration, identifier_of

START = 1_700_000_000
OTHER_PAYEE = "0x" + "52" * 20
PROOF = PaidAnswer(200, response())
REFUSAL = PaidAnswer(402, response(success=False, transaction="", error_reason="insufficient_funds"))
SPENDER = [sys.executable, str(Path(__file__).parent / "spender.py")]

Open = Callable[..., Buyer]


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = START


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(tmp_path / "journal.sqlite")
    yield opened
    opened.close()


@pytest.fixture
def open_buyer(journal: Journal, clock: Clock) -> Open:
    def make(*, approve: Any = None, session: str = "", **policy: Any) -> Buyer:
        limits: dict[str, Any] = {"networks": [NETWORK], "per_request": "$10", "total": "$100"}
        buyer = Buyer(
            signer=SIGNER, policy=Policy(**limits | policy), journal=journal, approve=approve, session=session
        )
        buyer.performer = buyer.performer.with_({Now: lambda _effect: clock.now})
        return buyer

    return make


def buy(buyer: Buyer, name: str = "thing", amount: int = 10_000, answer: Any = PROOF, **changes: Any) -> PaidRequest:
    origin = changes.pop("origin", "https://shop.example")
    demand = PaymentDemand(required(offer(amount, **changes)))
    with Exchange(buyer, describe_request("GET", f"{origin}/{name}", b"")) as exchange:
        paid = exchange.blocking(exchange.pay(demand))
        exchange.blocking(exchange.conclude(answer))
        return paid


def refused(buyer: Buyer, *arguments: Any, **more: Any) -> PolicyRefused:
    before = [each.purchase_id for each in buyer.journal.purchases() if each.payment_id]
    with pytest.raises(PolicyRefused) as caught:
        buy(buyer, *arguments, **more)
    assert [each.purchase_id for each in buyer.journal.purchases() if each.payment_id] == before, "nothing was signed"
    return caught.value


def test_B2_an_hour_has_a_budget_of_its_own(open_buyer: Open, clock: Clock) -> None:
    buyer = open_buyer(per_hour="$0.02")
    buy(buyer, "1")
    buy(buyer, "2")
    assert refused(buyer, "3").reason == "over_per_hour"
    clock.now += 3600
    buy(buyer, "3")


def test_B2_a_session_has_a_budget_over_all_its_buyers(open_buyer: Open) -> None:
    one, same, other = (open_buyer(per_session="$0.02", session=name) for name in ("a", "a", "b"))
    buy(one, "1")
    buy(same, "2")
    assert refused(one, "3").reason == refused(same, "3").reason == "over_per_session"
    buy(other, "3")
    # Without a name each buyer is a session.
    for name in ("x", "y"):
        buy(open_buyer(per_session="$0.01"), name)


def test_B2_a_rate_holds_in_any_such_time(open_buyer: Open, clock: Clock) -> None:
    buyer = open_buyer(rate="3/minute")
    for number in range(3):
        clock.now = START + 20 * number
        buy(buyer, str(number))
    clock.now = START + 59
    assert refused(buyer, "4").reason == "over_rate"
    clock.now = START + 60
    buy(buyer, "4")
    assert refused(buyer, "5").reason == "over_rate"


def test_B2_a_rate_holds_over_threads(open_buyer: Open) -> None:
    buyer = open_buyer(rate="5/hour")

    def one(number: int) -> int:
        try:
            return bool(buy(buyer, str(number)))
        except PolicyRefused:
            return 0

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(one, range(20))) == 5


@pytest.mark.parametrize("wrong", ["0/minute", "10", "10/fortnight", "1.5/hour", "-1/day", "999999/second"])
def test_a_rate_that_is_none_is_said(wrong: str) -> None:
    with pytest.raises(ConfigError, match="is no rate"):
        Policy(rate=wrong)


def test_B2_a_payee_is_pinned_to_its_host_and_a_change_is_asked_about(open_buyer: Open) -> None:
    buyer = open_buyer()
    buy(buyer, "1")
    error = refused(buyer, "2", pay_to=OTHER_PAYEE)
    assert (error.reason, bool(error.approval_id)) == ("payee_changed", True)
    # Whatever the case of its digits.
    buy(buyer, "2", pay_to=PAYEE.lower())
    # Another host, and another port of the same, are others.
    buy(buyer, "1", pay_to=OTHER_PAYEE, origin="https://other.example")
    buy(buyer, "1", pay_to=OTHER_PAYEE, origin="https://shop.example:8443")


def test_B2_a_payee_that_was_agreed_to_is_known_from_then_on(open_buyer: Open) -> None:
    asked: list[Question] = []

    def agree(question: Question) -> bool:
        asked.append(question)
        return True

    buyer = open_buyer(approve=agree)
    buy(buyer, "1")
    buy(buyer, "2", pay_to=OTHER_PAYEE)
    buy(buyer, "3", pay_to=OTHER_PAYEE)
    (question,) = asked
    assert question.why == ("payee_changed",)
    assert question.known_payees == (PAYEE.lower(),)
    assert question.offer.pay_to == OTHER_PAYEE


def test_B2_a_payee_that_was_not_paid_is_not_pinned(open_buyer: Open) -> None:
    answers = [False, True]
    buyer = open_buyer(approve=lambda _question: answers.pop(0), approve_above="$1")
    assert refused(buyer, "dear", 2_000_000, pay_to=OTHER_PAYEE).reason == "not_approved"
    buy(buyer, "1")
    buy(buyer, "2", pay_to=OTHER_PAYEE)  # asked about, and agreed to
    assert answers == []


def test_B2_payees_can_be_named_ahead(open_buyer: Open) -> None:
    buyer = open_buyer(payees={"shop.example": [OTHER_PAYEE]})
    assert refused(buyer, "1").reason == "payee_changed"
    buy(buyer, "1", pay_to=OTHER_PAYEE)
    free = open_buyer(pin_payees=False)
    buy(free, "2")


@pytest.mark.parametrize(
    ("approve", "reason"),
    [
        (None, "approval_needed"),
        (lambda _question: False, "not_approved"),
        # No consent that is not exactly that.
        (lambda _question: "yes", "not_approved"),
        (lambda _question: 1, "not_approved"),
    ],
)
def test_B2_nobody_s_yes_is_no(open_buyer: Open, journal: Journal, approve: Any, reason: str) -> None:
    buyer = open_buyer(approve=approve, approve_above="$0.50")
    buy(buyer, "cheap", 500_000)
    assert refused(buyer, "dear", 500_001).reason == reason
    assert journal.used() == 5 * 10**17


def test_B2_an_approval_is_for_the_exact_offer_and_once(open_buyer: Open, journal: Journal) -> None:
    buyer = open_buyer(approve_above="$0.50")
    approval = refused(buyer, "dear", 600_000).approval_id
    journal.approve(approval)
    for name, amount, more in (
        ("dear", 600_001, {}),
        ("other", 600_000, {}),
        ("dear", 600_000, {"pay_to": OTHER_PAYEE}),
    ):
        assert refused(buyer, name, amount, **more).approval_id != approval
    buy(buyer, "dear", 600_000)
    assert refused(buyer, "dear", 600_000).approval_id == approval


def test_B2_an_approval_expires(open_buyer: Open, journal: Journal, clock: Clock) -> None:
    buyer = open_buyer(approve_above="$0.50")
    approval = refused(buyer, "dear", 600_000).approval_id
    journal.approve(approval, seconds=-1)
    clock.now = 4_000_000_000
    assert refused(buyer, "dear", 600_000).reason == "approval_needed"

    def slowly(question: Question) -> bool:
        clock.now = question.expires_at + 1
        return True

    slow = open_buyer(approve=slowly, approve_above="$0.50", approval_seconds=60)
    assert refused(slow, "dear", 600_000).reason == "approval_expired"
    assert journal.used() == 0


def test_B2_the_kill_switch_stops_what_is_signed_and_what_would_leave(open_buyer: Open, journal: Journal) -> None:
    buyer = open_buyer()
    with pytest.raises(PaymentUnknown):
        buy(buyer, "open", answer=NoAnswer("ReadTimeout"))
    assert journal.stop_file
    for stop, resume in (
        (journal.stop, journal.resume),
        (journal.stop_file.touch, journal.stop_file.unlink),
    ):
        stop()
        assert journal.stopped()
        assert refused(buyer, "new").reason == "stopped"
        assert refused(buyer, "open").reason == "stopped"
        resume()
        assert not journal.stopped()
        buy(buyer, f"new{stop}")
    assert buy(buyer, "open").again


def test_B2_the_kill_switch_is_looked_at_before_a_payment_leaves(open_buyer: Open, journal: Journal) -> None:
    def approve(_question: Question) -> bool:
        journal.stop("while it was thought about")
        return True

    buyer = open_buyer(approve=approve, approve_above="$0.50")
    error = refused(buyer, "dear", 600_000)
    assert error.reason == "stopped"
    assert "while it was thought about" in str(error)
    assert journal.used() == 0


def test_B2_the_kill_switch_holds_over_processes(tmp_path: Path, journal: Journal) -> None:
    journal.stop()
    command = [*SPENDER, str(tmp_path / "journal.sqlite"), "$1", "3"]
    assert subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout == "0\n"


def test_B2_no_window_is_longer_than_the_policy_s(open_buyer: Open) -> None:
    assert refused(open_buyer(max_validity_seconds=59), "1").reason == "window_too_long"
    buy(open_buyer(max_validity_seconds=60), "1")


def test_B1_a_payment_whose_window_is_over_is_signed_again_under_its_nonce(
    open_buyer: Open, journal: Journal, clock: Clock
) -> None:
    buyer = open_buyer(total="$0.01")
    with pytest.raises(PaymentRefused):
        buy(buyer, answer=REFUSAL)
    first = journal.list_open()[0]
    for clock.now in (START + 59, START + 60, START + 86_400, START + 10 * 86_400):
        with pytest.raises(PaymentUnknown):
            buy(buyer, answer=PaidAnswer(500))
        (entry,) = journal.list_open()
        assert entry.purchase.payment_id == first.purchase.payment_id
        over = clock.now >= START + 60
        assert (entry.header != first.header, entry.purchase.valid_before > clock.now) == (over, True)
    assert journal.used() == 10**16
    last = decode_payment(entry.header)
    assert SELLER.read(last).identity == SELLER.read(decode_payment(first.header)).identity
    assert buy(buyer).again
    assert [each.state for each in journal.purchases()] == ["settled"]


@pytest.mark.parametrize("changes", [{"amount": 9_999}, {"pay_to": OTHER_PAYEE}, {"network": "eip155:1"}])
def test_B1_what_is_offered_otherwise_is_no_reason_for_a_second_payment(
    open_buyer: Open, clock: Clock, changes: dict[str, Any]
) -> None:
    buyer = open_buyer(networks=[NETWORK, "eip155:1"], pin_payees=False)
    with pytest.raises(PaymentRefused):
        buy(buyer, answer=REFUSAL)
    header = buyer.journal.list_open()[0].header
    clock.now += 86_400
    paid = buy(buyer, **changes)
    assert (paid.again, paid.header) == (True, header)


def test_B1_what_is_settled_without_its_resource_is_never_paid_again(open_buyer: Open, clock: Clock) -> None:
    buyer = open_buyer()
    paid = buy(buyer, answer=PaidAnswer(500, response()))
    clock.now += 86_400
    assert buy(buyer).header == paid.header
    assert not buy(buyer).again


def test_a_purchase_s_identifier_goes_with_it_and_stays_the_same(open_buyer: Open, clock: Clock) -> None:
    buyer = open_buyer()
    advertised = {"payment-identifier": declaration(required=True), "other": {"info": {}}}
    demand = PaymentDemand(required(offer(), extensions=advertised))

    def sent(name: str) -> Any:
        with Exchange(buyer, describe_request("GET", f"https://shop.example/{name}", b"")) as exchange:
            paid = exchange.blocking(exchange.pay(demand))
            with pytest.raises(PaymentUnknown):
                exchange.blocking(exchange.conclude(NoAnswer("ReadTimeout")))
            return decode_payment(paid.header)

    first, again = sent("a"), sent("a")
    clock.now += 3600
    renewed, other = sent("a"), sent("b")
    assert identifier_of(first.extensions) == identifier_of(again.extensions) == identifier_of(renewed.extensions)
    assert identifier_of(first.extensions) != identifier_of(other.extensions)
    assert first.extensions["other"] == {"info": {}}
    assert first.payload != renewed.payload
    odd: Any
    for odd in ({"payment-identifier": []}, {"payment-identifier": {"info": {"id": "x" * 20}}}):
        demand = PaymentDemand(required(offer(), extensions=odd))
        assert sent(f"odd{odd}").extensions == odd


PRIVATE = [
    "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1",  # noqa: S104
    "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "ff02::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1",
    "2002:7f00:1::", "192.0.2.1", "2001:db8::1",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_B6_addresses_that_are_not_public(address: str) -> None:
    assert not is_public_address(ipaddress.ip_address(address))
    assert not is_public_name(f"[{address}]" if ":" in address else address)


@given(st.ip_addresses(v=4))
def test_B6_an_address_is_the_same_in_the_clothes_of_ipv6(address: ipaddress.IPv4Address) -> None:
    mapped = ipaddress.ip_address(f"::ffff:{address}")
    assert is_public_address(mapped) == is_public_address(address) == (address.is_global and not address.is_multicast)


def test_B6_private_hosts_are_refused_before_anything_is_signed(open_buyer: Open) -> None:
    careful = open_buyer(private_hosts=[])
    for host in ("localhost", "127.0.0.1", "[::1]", "db.internal", "printer.local", "169.254.169.254"):
        assert refused(careful, origin=f"http://{host}:8000").reason == "private_host"
    buy(careful, "public")
    buy(open_buyer(private_hosts=["127.0.0.1"]), origin="http://127.0.0.1:8000")
    buy(open_buyer(), "any", origin="http://10.0.0.1")
