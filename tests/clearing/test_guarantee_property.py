"""C1, C6: in whatever order things happen, nobody is paid twice, and the reserve has at last what was put in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from money import accept, balanced, decide, dispute, line_ids, paid, plan, report, went
from reserving import cover, fund, guarantee, nothing_below_zero, standing, take
from town import DOLLAR, NETWORK, Crawler, House, pack

from farthing.clearing import flows
from farthing.clearing.books import Books
from farthing.clearing.rules import payee_key
from farthing.clearing.settlement import InstructStatement, ListDisputes, OpenPayouts, PayFromBalance, ReturnStatement
from farthing.clearing.store import (
    Listing,
    ListStatements,
    ProvePayee,
    RegisterPayee,
    RegisterPayer,
    SetPayerState,
    StatementRecord,
)
from farthing.evm.signatures import PrivateKey

DAY = 86_400
PAYEES = {"news": "news.example", "blog": "blog.example"}
# So that most stories come to a default: a statement is issued, and there is something in the reserve.
BEGINNING = [("upload", 0), ("upload", 2), ("close", 0), ("fund", 0)]
NAMES = (
    "upload", "close", "wait", "cover", "default", "default", "pay", "pay", "accept", "return", "plan", "paid out",
    "dispute", "grant", "reject", "fund", "fund", "take", "off", "on",
)  # fmt: skip
STEPS = st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 3)), min_size=8, max_size=30)


class Story:
    """One crawler, two payees of whom one is guaranteed at first; and what was put where, as the test knows it."""

    def __init__(self, house: House) -> None:
        self.house, self.crawler = house, Crawler()
        house.open(self.crawler, payees={**PAYEES, "ourselves": "us.example"})
        # So little credit that some of it is served beyond.
        house.ask(RegisterPayer(self.crawler.directory, "USD", 7 * DOLLAR, house.now))
        house.ask(RegisterPayee("ourselves", "us.example", "USD", PrivateKey(b"\x03" * 32).address, "c", house.now))
        for name in (*PAYEES, "ourselves"):
            house.ask(ProvePayee(name, "c" if name == "ourselves" else "challenge", house.now))
        guarantee(house)
        self.served = dict.fromkeys((*PAYEES, "ourselves"), 0)
        self.funded = self.taken = 0
        self._count = 0

    def name(self) -> str:
        self._count += 1
        return f"0x{self._count}"

    def do(self, step: str, which: int) -> None:
        getattr(self, "do_" + step.replace(" ", "_"))(which)

    def record(self, which: int) -> Iterator[StatementRecord]:
        """One of the statements, where there are any."""
        records = self.house.ask(ListStatements())
        yield from records[which % len(records) :][:1] if records else ()

    def do_upload(self, which: int) -> None:
        payee, amount = ("news", "news", "blog")[which % 3], (1 + which) * DOLLAR
        place = {"at": self.house.now, "payee": payee, "domain": PAYEES[payee]}
        lines = [self.crawler.commit(f"/{self.name()}", amount=amount, **place) for _ in range(2)]
        self.house.upload(pack([self.crawler.record, *lines], sequence=self._count), payees=frozenset(PAYEES))
        self.served[payee] += 2 * amount

    def do_close(self, _which: int) -> None:
        self.house.run(flows.close(self.house.desk, force=True))

    def do_wait(self, _which: int) -> None:
        self.house.now += 31 * DAY

    def do_cover(self, _which: int) -> None:
        cover(self.house)

    def do_default(self, which: int) -> None:
        self.do_wait(which)
        self.do_cover(which)

    def do_fund(self, which: int) -> None:
        assert fund(self.house, (1 + which) * DOLLAR, self.name())
        self.funded += (1 + which) * DOLLAR

    def do_take(self, which: int) -> None:
        if take(self.house, which + 1, self.name()) == "":
            self.taken += which + 1

    def do_on(self, _which: int) -> None:
        guarantee(self.house)

    def do_off(self, _which: int) -> None:
        guarantee(self.house, on=False)

    def do_pay(self, which: int) -> None:
        for record in self.record(which):
            if record.state != "settled" and record.payable > 0:
                report(self.house, paid(record, record.payable, transaction=self.name()))

    def do_accept(self, which: int) -> None:
        for record in self.record(which):
            if record.state in {"issued", "accepted"}:
                accept(self.house, record)
                self.house.ask(InstructStatement(record.statement, self.house.rules, self.house.now))

    def do_return(self, which: int) -> None:
        for record in self.record(which):
            returned = ReturnStatement(record.statement, record.payment_until, self.house.rules, self.house.now)
            self.house.ask(returned)

    def do_plan(self, _which: int) -> None:
        plan(self.house)

    def do_paid_out(self, _which: int) -> None:
        for each in self.house.ask(OpenPayouts(9)):
            report(self.house, went(self.name(), each))

    def do_dispute(self, which: int) -> None:
        for record in self.record(which):
            lines = [each for each in line_ids(self.house, record) if each.startswith("sha256")]
            dispute(self.house, record, lines[which % 2 :][:1] or ["-"])

    def do_grant(self, _which: int) -> None:
        self.decide(granted=True)

    def do_reject(self, _which: int) -> None:
        self.decide(granted=False)

    def decide(self, *, granted: bool) -> bool:
        for each in self.house.ask(ListDisputes(state="open", count_max=1)):
            assert decide(self.house, each, granted=granted) is not None
            if granted:
                self.served[each.payee] -= int(each.amount)
            return True
        return False

    # What must hold

    def holds(self) -> None:
        balanced(self.house, self.crawler)
        assert sum(self.house.balances(pending=True).values()) == 0
        nothing_below_zero(self.house)
        in_reserve, recourse, *_ = standing(self.house)
        assert self.house.payer(self.crawler).recourse == recourse
        # What the reserve paid is with payers, and nowhere else.
        assert in_reserve + recourse == self.funded - self.taken
        assert {each["name"] for each in self.house.ask(Listing("covers"))} <= {"news"}
        for name in PAYEES:
            assert self.given(name) <= self.served[name], f"{name} got more than it served"

    def given(self, payee: str) -> int:
        """What a payee was paid out by the chain, and will be next: nothing here comes from covers or shares."""
        payouts = [each for each in self.house.ask(Listing("payouts")) if each["name"] == payee]
        account = Books(NETWORK, "USD").cleared(payee_key(payee)).name
        settled = sum(each["amount"] for each in payouts if each["state"] == "settled")
        return int(settled + self.house.balances().get(account, 0))

    def settle_everything(self) -> None:
        """All pay at last: what was rejected goes on the next statement, until there is nothing open."""
        self.house.ask(SetPayerState(self.crawler.directory, "active", ""))
        for _ in range(3):
            while self.decide(granted=False):
                pass
            self.do_close(0)
            for record in self.house.ask(ListStatements()):
                if record.state != "settled" and not self.house.ask(
                    PayFromBalance(record.statement, self.house.rules, self.house.now)
                ):
                    report(self.house, paid(record, record.payable, transaction=self.name()))
        for _ in range(2):
            self.do_paid_out(0)
            self.do_plan(0)
        self.do_paid_out(0)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_C1_C6_no_order_of_events_pays_a_payee_twice_or_empties_the_reserve(
    tmp_path_factory: Any, steps: list[tuple[str, int]]
) -> None:
    house = House(tmp_path_factory.mktemp("guarantee") / "clearing.sqlite3")
    try:
        story = Story(house)
        for step, which in [*BEGINNING, *steps]:
            story.do(step, which)
            story.holds()
        story.settle_everything()
        story.holds()
        assert standing(house) == (story.funded - story.taken, 0, 0, 0)
        assert (house.total("accrued"), house.total("held"), house.total("receivable")) == (0, 0, 0)
        assert [story.given(name) for name in story.served] == [
            amount + (story.taken if name == "ourselves" else 0) for name, amount in story.served.items()
        ]
    finally:
        house.close()
