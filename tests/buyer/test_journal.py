"""The journal: budgets over threads and processes, crashes, and what it answers."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from shop import NETWORK, SIGNER, USDC, offer, required, response

from farthing.buyer import NoAnswer, PaidAnswer, PaymentDemand, Policy, describe_request
from farthing.clients import Buyer, Journal
from farthing.clients.buyer import Exchange
from farthing.errors import PaymentRefused, PaymentUnknown, PolicyRefused, StoreError
from farthing.flow import Now
from farthing.world import processes
from farthing.world.journal import AssetTotal

DEMAND = PaymentDemand(required(offer(10_000)))
PROOF = PaidAnswer(200, response())
SPENDER = [sys.executable, str(Path(__file__).parent / "spender.py")]


def open_buyer(path: Path | Journal, total: str = "$100", **policy: str) -> Buyer:
    return Buyer(signer=SIGNER, policy=Policy(networks=[NETWORK], total=total, **policy), journal=path)  # type: ignore[arg-type]


def buy(buyer: Buyer, name: str = "thing", answer: PaidAnswer | NoAnswer = PROOF, host: str = "shop.example") -> str:
    with Exchange(buyer, describe_request("GET", f"https://{host}/{name}", b"")) as exchange:
        paid = exchange.blocking(exchange.pay(DEMAND))
        exchange.blocking(exchange.conclude(answer))
        return paid.payment_id


def test_B2_two_processes_never_spend_more_than_the_budget(tmp_path: Path) -> None:
    journal = tmp_path / "journal.sqlite"
    Journal(journal).close()
    command = [*SPENDER, str(journal), "$0.30", "25"]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    bought = [int(process.communicate(timeout=60)[0]) for process in running]
    assert sum(bought) == 30
    with open_buyer(journal) as buyer:
        entries = buyer.journal.purchases()
        assert [each.state for each in entries] == ["settled"] * 30
        assert buyer.journal.used() == 30 * 10**16


def test_B1_killed_with_a_payment_under_way_the_same_payment_is_presented_again(tmp_path: Path) -> None:
    journal = tmp_path / "journal.sqlite"
    with open_buyer(journal, "$0.02") as buyer:
        command = [*SPENDER, str(journal), "$0.02", "1", "crash"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout
        payment_id = process.stdout.readline().strip()
        try:
            # While that process lives, the same request of another one is another purchase.
            assert buy(buyer, "same") != payment_id
        finally:
            os.kill(process.pid, signal.SIGKILL)
        # Not reaped yet: a zombie runs nothing any more, and counts as dead.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(PolicyRefused):
            buy(buyer, "other")
        # Nobody knows what the dead one was told, so a refusal now is no evidence.
        refusal = PaidAnswer(402, response(success=False, transaction="", error_reason="insufficient_funds"))
        with pytest.raises(PaymentUnknown) as caught:
            buy(buyer, "same", refusal)
        assert caught.value.payment_id == payment_id
        assert buy(buyer, "same") == payment_id
        process.communicate()
        assert [each.state for each in buyer.journal.purchases()] == ["settled", "settled"]


def test_B2_threads_never_spend_more_than_the_budget(tmp_path: Path) -> None:
    with open_buyer(tmp_path / "j", "$0.10") as buyer:

        def one(number: int) -> bool:
            try:
                return bool(buy(buyer, str(number)))
            except PolicyRefused:
                return False

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(one, range(30))) == 10


def test_B2_each_budget_is_kept_apart(tmp_path: Path) -> None:
    now = [1_700_000_000]
    with open_buyer(tmp_path / "j", per_host="$0.02", per_day="$0.03") as buyer:
        buyer.performer = buyer.performer.with_({Now: lambda _effect: now[0]})
        buy(buyer, "1")
        buy(buyer, "2")
        with pytest.raises(PolicyRefused) as caught:
            buy(buyer, "3")
        assert caught.value.reason == "over_per_host"
        buy(buyer, "1", host="other.example")
        with pytest.raises(PolicyRefused) as caught:
            buy(buyer, "1", host="third.example")
        assert caught.value.reason == "over_per_day"
        now[0] += 86_400
        buy(buyer, "1", host="third.example")
        assert buyer.journal.used() == 4 * 10**16
        assert buyer.journal.used("host:shop.example") == 2 * 10**16
        assert buyer.journal.used("day:2023-11-14") == 3 * 10**16


def test_totals_and_purchases_say_what_was_paid(tmp_path: Path) -> None:
    with open_buyer(tmp_path / "j") as buyer:
        journal = buyer.journal
        assert journal.totals() == []
        paid = [buy(buyer, str(number)) for number in range(5)]
        with pytest.raises(PaymentUnknown):
            buy(buyer, "lost", NoAnswer("ReadTimeout"))
        refusal = PaidAnswer(402, response(success=False, transaction="", error_reason="insufficient_funds"))
        with pytest.raises(PaymentRefused):
            buy(buyer, "refused", refusal)
        assert journal.totals() == [AssetTotal(NETWORK, USDC, 50_000, 10_000, 10_000, 5, 1, 1)]
        pages = [journal.purchases(limit=3)]
        while pages[-1]:
            pages.append(journal.purchases(after=pages[-1][-1], limit=3))
        assert [len(page) for page in pages] == [3, 3, 1, 0]
        assert [each for page in pages for each in page] == list(journal.all_purchases())
        found = journal.find(paid[3])
        assert found
        assert (found.url, found.host, found.payer) == ("https://shop.example/3", "shop.example", SIGNER.address)
        assert journal.find("pay_0") is None


def test_a_journal_survives_and_is_its_owner_s_alone(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "journal.sqlite"
    with open_buyer(path) as buyer:
        buy(buyer)
        assert {stat.S_IMODE(each.stat().st_mode) & 0o077 for each in path.parent.iterdir()} == {0}
    with open_buyer(path) as buyer:
        assert [each.state for each in buyer.journal.purchases()] == ["settled"]


def test_a_journal_that_cannot_be_opened_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="can't be opened"):
        Journal(tmp_path / "file" / "journal")


def test_buyers_share_a_journal_and_only_its_owner_closes_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    with open_buyer(journal, "$0.01") as one:
        buy(one)
    with open_buyer(journal, "$0.01") as two, pytest.raises(PolicyRefused):
        buy(two, "more")
    journal.close()


def test_credentials_of_a_url_are_not_kept(tmp_path: Path) -> None:
    with open_buyer(tmp_path / "j") as buyer:
        buy(buyer, host="user:secret@shop.example:8443")
        (entry,) = buyer.journal.purchases()
        assert (entry.url, entry.host) == ("https://shop.example:8443/thing", "shop.example")


def test_B1_the_print_tells_purchases_apart() -> None:
    prints = {
        describe_request(method, url, body).request_print
        for method in ("GET", "POST")
        for url in ("https://a.example/", "https://a.example/?", "https://a.example/?a", "http://a.example/")
        for body in (b"", b"x")
    }
    assert len(prints) >= 12
    one = describe_request("get", "https://u:p@a.example/x#here", b"")
    assert one == describe_request("GET", "https://a.example/x", b"")


def test_processes_are_told_apart_by_their_start() -> None:
    me = processes.this_process()
    assert processes.is_alive(me)
    assert not processes.is_alive(me.replace(":", ":1"))
    assert not processes.is_alive("4194305:1@boot")


def test_A4_no_key_in_a_repr_or_an_error(tmp_path: Path) -> None:
    key = "01" * 32
    with open_buyer(tmp_path / "j", "$0.01") as buyer:
        texts = [repr(buyer), repr(buyer.journal), repr(buyer.policy), repr(buyer.terms), repr(buyer.performer)]
        for answer in (PaidAnswer(500), PaidAnswer(402)):
            with pytest.raises(PaymentUnknown) as caught:
                buy(buyer, "x", answer)
            texts += [str(caught.value), repr(caught.value), repr(caught.value.__dict__)]
        with pytest.raises(PolicyRefused) as refused:
            buy(buyer, "y")
        texts += [str(refused.value), repr(refused.value.__dict__)]
    data = b"".join(each.read_bytes() for each in tmp_path.iterdir())
    assert not [text for text in texts if key in text]
    assert key.encode() not in data
    assert bytes.fromhex(key) not in data
