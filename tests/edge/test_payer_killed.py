"""B1, C2 with a payer that is killed: SIGKILL at every step of a promise and between every two, and at random.

Processes buy from a real edge that uploads to a real clearing house. Each place kills a process of its own; the same
page is asked for again until nothing moves by itself. Then what left, the journal, the edge's log, the clearing
house's books and the statement are compared, and the payer's auditor looks at it.
"""

from __future__ import annotations

import os
import random
import secrets
import signal
import sqlite3
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from forking import KILLED, Forking

from farthing.clients import Journal
from farthing.clients.statements import Auditor
from farthing.errors import StoreError

if TYPE_CHECKING:
    from tests.edge.network import ClearingNetwork, Process
    from tests.local_services import LocalServices

SCRIPT = Path(__file__).with_name("promising_process.py")
NETWORK = "clearing:test"
# A unit of a statement, in units of the journal's budgets.
VALUE = 10**12
# Seeded, so that a failure can be repeated.
RANDOM_KILLS = 24
RANDOM_SEED = 402

FIRST = ("FindOpen", "Reserve", "SignData", "RecordPayment", "FindKey", "RecordOutcome")
AGAIN = ("FindOpen", "PresentAgain", "FindKey", "RecordOutcome")
# The second purchase of a process, which the first one told the price.
AHEAD = tuple(f"{each}#2" for each in FIRST)
# Promised unasked at another page's price, refused, and promised anew under the same nonce.
OTHER_PRICE = (
    "FindOpen#2", "Reserve#2", "SignData#2", "RecordPayment#2", "RecordOutcome#2",
    "FindOpen#3", "Reserve#3", "SignData#3", "RecordPayment#3", "FindKey#2", "RecordOutcome#3",
)  # fmt: skip


def places(steps: Sequence[str]) -> list[str]:
    return [f"{when}:{step}" for step in steps for when in ("before", "after")]


class Payer:
    """Processes that buy pages with one journal, and what they left behind."""

    def __init__(self, network: ClearingNetwork, edge: Process, forking: Forking) -> None:
        self.network, self.edge, self.forking = network, edge, forking
        self.name = secrets.token_hex(4)
        self.journal = network.folder / f"{self.name}-journal.sqlite3"
        self.sent_file = network.folder / f"{self.name}.sent"
        self.numbers = 0
        self.flights = 0
        # What the statement may ask for besides, since no process of ours was killed over it.
        network.operate("POST", "/window/close")

    def page(self, kind: str = "articles") -> str:
        """A page that nobody asked for yet."""
        self.numbers += 1
        return f"/{kind}/{self.name}-{self.numbers}"

    def buy(self, *paths: str, **order: Any) -> Any:
        """Have a process buy pages; how it ended, and what came of the last one."""
        facts = {"journal": str(self.journal), "agent": self.network.agent_url, "edge": self.edge.url}
        return self.forking.order({**facts, "sent": str(self.sent_file), "paths": list(paths), **order})

    def sent(self) -> dict[str, set[str]]:
        """The signatures that left, by their path."""
        left: dict[str, set[str]] = defaultdict(set)
        if self.sent_file.exists():
            for line in self.sent_file.read_text("utf-8").splitlines():
                path, _, signature = line.partition(" ")
                left[path].add(signature)
        return left

    def settle_down(self, path: str) -> str:
        """Ask for a page again until nothing moves by itself: it is there, or the same is said twice."""
        said = ""
        for _ in range(4):
            before, said = said, self.buy(path)["said"]
            if said in {"200 settled", before}:
                break
        return said

    def compare(self) -> list[str]:
        """Compare all books; gives the promises whose answer was lost on the way."""
        network, edge = self.network, self.edge
        network.wait_uploaded(edge)
        lines = [line for line in network.lines(edge) if self.name in line["resource"]]
        billed = [line["id"] for line in lines]
        journal = Journal(self.journal)
        try:
            purchases = [each for each in journal.purchases() if each.state not in {"released", "closed"}]
            promised = {each.promise.promise_id: each for each in journal.promises()}
            # The budget holds a place for all that may be asked for, and what is unknown can't be given back.
            assert journal.used() == sum(each.amount for each in purchases) * VALUE
            lost = [name for name in billed if name in promised and promised[name].receipt is None]
            for name in lost:
                assert promised[name].purchase.state == "unknown"
                with pytest.raises(StoreError):
                    journal.mark_unspent(promised[name].purchase.payment_id, evidence="nobody answered")
            self._audit(journal, billed, lost)
        finally:
            journal.close()
        assert len(billed) == len(set(billed))
        # Nothing is billed that the journal does not hold, and what was acknowledged is.
        assert {name for name, each in promised.items() if each.receipt is not None} <= set(billed) <= set(promised)
        logged = self._logged()
        assert logged & set(promised) <= set(billed)
        # What the clearing house has may be forgotten, once no copy can come any more.
        now_seconds = int(time.time())
        assert {name for name in billed if promised[name].purchase.valid_before > now_seconds} <= logged
        # Another purchase of a page is made once the first one was delivered, and not before.
        waiting = [each.url for each in purchases if each.payment_id and not each.delivered]
        assert len(waiting) == len(set(waiting))
        delivered = [each.url for each in purchases if each.delivered]
        for resource in {line["resource"] for line in lines}:
            times = sum(line["resource"] == resource for line in lines)
            assert times <= delivered.count(resource) + waiting.count(resource)
        with sqlite3.connect(network.folder / "clearing.sqlite3") as books:
            (owed,) = books.execute("SELECT SUM(amount) FROM clearing_transfers WHERE debit LIKE '%receivable%'")
            (asked,) = books.execute("SELECT SUM(amount) FROM clearing_lines")
        assert owed == asked
        return lost

    def _logged(self) -> set[str]:
        with sqlite3.connect(self.network.folder / f"{EDGE}.sqlite3") as log:
            return {row[0] for row in log.execute("SELECT id FROM edge_commitment")}

    def _audit(self, journal: Journal, billed: list[str], lost: list[str]) -> None:
        """Have the payer's auditor look: it disputes what was lost, and takes nothing for another's."""
        statement = self.network.operate("GET", "/statements")[-1]["statement"]
        made = {"name": f"payer-{self.name}", "role": "payer", "subject": self.network.agent_url}
        token = self.network.operate("POST", "/tokens", made)["token"]
        with Auditor(
            self.network.clearing.url,
            token,
            payer=self.network.agent_url,
            network=NETWORK,
            journal=journal,
            networks=self.network.local.networks,
        ) as auditor:
            found = auditor.audit(statement)
        assert found.fault is None
        said = sorted((each.line, each.reason) for each in found.disputes)
        assert said == [(name, "not_delivered") for name in sorted(lost)]
        assert found.count == len(billed)


EDGE = "edge-killed"


@pytest.fixture(scope="module")
def network(local: LocalServices, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClearingNetwork]:
    from network import ClearingNetwork  # noqa: PLC0415 - beside this file

    with ClearingNetwork(local, tmp_path_factory.mktemp("network")) as opened:
        yield opened


@pytest.fixture(scope="module")
def forking() -> Iterator[Forking]:
    made = Forking(SCRIPT)
    yield made
    made.close()


@pytest.fixture(scope="module")
def edge(network: ClearingNetwork) -> Process:
    return network.start_edge(EDGE)


@pytest.fixture
def payer(network: ClearingNetwork, edge: Process, forking: Forking) -> Payer:
    return Payer(network, edge, forking)


def report(capsys: pytest.CaptureFixture[str], what: str, payer: Payer, killed: int, lost: list[str]) -> None:
    with capsys.disabled():
        print(
            f"\npayer on credit, {what}, killed {killed} times, {payer.flights} after a promise had left: "
            f"0 doubled, {len(lost)} without an answer, all of them in the journal and on the statement"
        )


# Of pages whose route takes ids the earlier answer is given again; of others the promise is said to be known.
KINDS = {"articles": "PaymentUnknown http_409", "kept": "200 settled"}


@pytest.mark.parametrize("kind", KINDS)
def test_B1_C2_killed_at_any_step_of_a_promise_it_is_billed_once_and_known(
    payer: Payer, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in places(FIRST):
        path = payer.page(kind)
        assert payer.buy(path, crash_at=place)["exit"] == KILLED, place
        left = bool(payer.sent()[path])
        payer.flights += left
        said = payer.settle_down(path)
        # The same bytes again, whatever was said of them.
        assert len(payer.sent()[path]) == 1, place
        assert said == (KINDS[kind] if left else "200 settled"), place
    lost = payer.compare()
    # Killed when the receipt was on record, it knows that the page was served.
    assert (payer.flights, len(lost)) == (4, 0 if kind == "kept" else 3)
    report(capsys, f"promising {kind}", payer, len(places(FIRST)), lost)


def test_B1_C2_killed_while_a_promise_is_presented_again_it_is_billed_once_and_known(
    payer: Payer, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in places(AGAIN):
        path = payer.page()
        # It stands in the journal, and never left.
        assert payer.buy(path, crash_at="after:RecordPayment")["exit"] == KILLED
        assert payer.buy(path, crash_at=place)["exit"] == KILLED, place
        payer.flights += bool(payer.sent()[path])
        payer.settle_down(path)
        assert len(payer.sent()[path]) == 1, place
    report(capsys, "presenting again", payer, 2 * len(places(AGAIN)), payer.compare())


@pytest.mark.parametrize("kind", KINDS)
def test_B1_C2_killed_at_any_step_of_a_promise_that_nobody_asked_for_it_is_billed_once_and_known(
    payer: Payer, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in places(AHEAD):
        told, path = payer.page(kind), payer.page(kind)
        assert payer.buy(told, path, crash_at=place)["exit"] == KILLED, place
        left = bool(payer.sent()[path])
        payer.flights += left
        said = payer.settle_down(path)
        assert (len(payer.sent()[told]), len(payer.sent()[path])) == (1, 1), place
        assert said == (KINDS[kind] if left else "200 settled"), place
    report(capsys, f"promising {kind} ahead", payer, len(places(AHEAD)), payer.compare())


def test_B1_C2_killed_while_another_price_is_promised_under_the_same_nonce_one_of_the_two_is_billed(
    payer: Payer, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in places(OTHER_PRICE):
        told, path = payer.page(), payer.page("dear")
        assert payer.buy(told, path, crash_at=place)["exit"] == KILLED, place
        payer.flights += bool(payer.sent()[path])
        payer.settle_down(path)
        # The one that was refused, and the one that took its place.
        assert len(payer.sent()[path]) <= 2, place
    report(capsys, "at another price", payer, len(places(OTHER_PRICE)), payer.compare())


@pytest.mark.parametrize("edge_dies", [False, True], ids=["payer", "payer and edge"])
def test_B1_C2_killed_while_the_edge_works_it_is_billed_once_and_known(
    payer: Payer,
    network: ClearingNetwork,
    edge_dies: bool,  # noqa: FBT001
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = payer.page()
    served = network.on_page

    def kill(_path: str) -> None:
        os.kill(payer.forking.pid, signal.SIGKILL)
        if edge_dies:
            payer.edge.kill()

    network.on_page = kill
    try:
        assert payer.buy(path)["exit"] == KILLED
    finally:
        network.on_page = served
    if edge_dies:
        port = int(payer.edge.url.rpartition(":")[2])
        payer.edge = network.start_edge(EDGE, port=port)
    payer.flights += 1
    said = payer.settle_down(path)
    assert len(payer.sent()[path]) == 1
    assert said == ("200 settled" if edge_dies else "PaymentUnknown http_409")
    report(capsys, "while the edge works", payer, 1, payer.compare())


def test_B1_a_promise_that_is_over_never_leaves_again_and_keeps_its_place(payer: Payer) -> None:
    path = payer.page()
    assert payer.buy(path, crash_at="after:RecordPayment")["exit"] == KILLED
    # By this clock the first one is over, and another one is made, which the edge takes for one of the future.
    assert payer.buy(path, clock=100)["said"] == "PaymentRefused invalid_signature"
    journal = Journal(payer.journal)
    try:
        (first, second) = sorted(journal.promises(), key=lambda each: each.purchase.valid_before)
        assert payer.sent()[path] == {dict(second.promise.headers)["Signature"]}
        assert (first.purchase.state, second.purchase.state) == ("sent", "refused")
        assert journal.used() == 2 * first.purchase.amount * VALUE
    finally:
        journal.close()


def test_B1_C2_killed_at_random_again_and_again_nothing_is_billed_twice_or_lost(
    payer: Payer, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = random.Random(RANDOM_SEED)  # noqa: S311 - a seed to repeat by
    started = time.monotonic()
    payer.buy(payer.page(), payer.page(), payer.page("dear"))
    # As long as these take on this machine now, so that the kills fall anywhere in them.
    seconds = min(time.monotonic() - started, 2.0)
    for _ in range(RANDOM_KILLS // 3):
        pages = [payer.page(), payer.page(), payer.page("dear")]
        for _ in range(3):
            payer.buy(*pages, kill_after_seconds=chosen.uniform(0, 1.2 * seconds))
            payer.flights += any(payer.sent()[path] for path in pages)
        for path in pages:
            payer.settle_down(path)
    assert payer.flights > 0
    report(capsys, "at random", payer, RANDOM_KILLS, payer.compare())
