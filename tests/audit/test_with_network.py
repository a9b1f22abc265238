"""The auditor in processes of its own, before a real network: paid once, whatever is killed (C6, B1)."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.edge.network import ClearingNetwork, Process
    from tests.local_services import LocalServices, Wallet

PAGES = 4
PRICE = 1_000
SECONDS = 120.0


@pytest.fixture(scope="module")
def network(local: LocalServices, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClearingNetwork]:
    from network import ClearingNetwork  # noqa: PLC0415 - in the folder beside this one

    with ClearingNetwork(local, tmp_path_factory.mktemp("network")) as opened:
        yield opened


@pytest.fixture(scope="module")
def edge(network: ClearingNetwork) -> Process:
    return network.start_edge("edge-audit")


class Payer:
    """Whoever reads pages, and runs the auditor."""

    def __init__(self, network: ClearingNetwork, edge: Process, name: str) -> None:
        self.network, self.edge, self.name = network, edge, name
        self.buyer = network.buyer(name, [edge.url])
        self.wallet: Wallet = network.local.wallet(usdc="1")
        made = {"name": f"payer-{name}", "role": "payer", "subject": network.agent_url}
        self.token = network.operate("POST", "/tokens", made)["token"]

    def read(self, pages: int = PAGES) -> str:
        """Read pages, and have them billed."""
        client = self.network.client(self.buyer)
        for number in range(pages):
            assert client.get(f"{self.edge.url}/articles/{self.name}-{number}").status_code == 200
        self.network.wait_uploaded(self.edge)
        # What was asked for ahead of time and served without a receipt is not billed; all else is.
        self.network.operate("POST", "/window/close")
        statements = self.network.operate("GET", "/statements")
        return str(statements[-1]["statement"])

    def lose_a_receipt(self) -> None:
        """As if one answer had never come."""
        with sqlite3.connect(self.network.folder / f"{self.name}.sqlite3") as journal:
            journal.execute(
                "UPDATE purchases SET receipt = '' WHERE purchase_id = "
                "(SELECT purchase_id FROM purchases WHERE receipt <> '' ORDER BY created_at LIMIT 1)"
            )

    def command(self, what: str) -> list[str]:
        devnet = self.network.local.devnet
        words = [sys.executable, "-m", "farthing", "statements", what, "--json"]
        words += ["--url", self.network.clearing.url, "--network", "clearing:test", "--agent", self.network.agent_url]
        words += ["--journal", str(self.network.folder / f"{self.name}.sqlite3")]
        if what in {"audit", "pay", "watch"}:
            words += ["--token", f"{devnet.network}/{devnet.usdc}:USDC:2"]
        if what in {"pay", "watch"}:
            words += ["--treasury", self.network.treasury.address]
        return words

    def environment(self, crash_at: str = "") -> dict[str, str]:
        own = {"FARTHING_CLEARING_TOKEN": self.token, "FARTHING_KEY": self.wallet.key}
        own |= {"FARTHING_HOME": str(self.network.folder / "home" / self.name)}
        return {**os.environ, **own, **({"FARTHING_CRASH_AT": crash_at} if crash_at else {})}

    def run(self, what: str, *words: str, crash_at: str = "") -> tuple[int, list[dict[str, Any]]]:
        done = subprocess.run(
            [*self.command(what), *words],
            env=self.environment(crash_at),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert done.stdout or done.returncode, done.stderr
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]

    def settle(self, statement: str) -> dict[str, Any]:
        """Run the auditor, wait until the chain has the payment, and run it again."""
        code, lines = self.run("pay", "--yes", statement)
        assert (code, lines[-1]["outcome"] in {"paid", "settled"}) == (0, True), lines
        self.wait_settled(statement)
        code, lines = self.run("pay", "--yes", statement)
        assert (code, lines[-1]["outcome"]) == (0, "settled"), lines
        return lines[-1]

    def wait_settled(self, statement: str) -> None:
        """Wait until the house has read the chain's logs, in blocks that are final."""

        def settled() -> bool:
            self.network.local.devnet.mine(1)
            stood = {each["statement"]: each["state"] for each in self.network.operate("GET", "/statements")}
            return bool(stood[statement] == "settled")

        self.network.wait(settled)

    @property
    def spent(self) -> int:
        return 1_000_000 - self.network.local.devnet.usdc_balance(self.wallet.address)


def test_C6_from_pages_to_money_on_chain(network: ClearingNetwork, edge: Process) -> None:
    payer = Payer(network, edge, "whole")
    statement = payer.read()
    code, (listed, *_) = payer.run("fetch", "--page", statement)
    assert (code, Path(listed["lines"]).read_bytes().count(b"\n")) == (0, PAGES)
    assert Path(listed["page"]).read_text("utf-8").count('<td class="u">') == PAGES
    code, (audited,) = payer.run("audit", statement)
    assert (code, audited["in_order"], audited["disputes"], audited["owed"]) == (0, True, [], str(PAGES * PRICE))
    before = network.local.devnet.usdc_balance(network.treasury.address)
    settled = payer.settle(statement)
    assert (payer.spent, settled["amount"]) == (PAGES * PRICE, str(PAGES * PRICE))
    assert network.local.devnet.usdc_balance(network.treasury.address) == before + PAGES * PRICE
    code, lines = payer.run("pay", "--yes", statement)
    assert (code, lines[0]["outcome"], payer.spent) == (0, "settled", PAGES * PRICE)
    stood = {each["statement"]: each["state"] for each in network.operate("GET", "/statements")}
    assert stood[statement] == "settled"


PLACES = [
    "after:FetchLines",
    "after:BillLines",
    "after:RecordAudit",
    "before:SendDisputes",
    "after:SendDisputes",
    "after:ReserveStatement",
    "after:SignTypedData",
    "after:RecordStatementPayment",
    "before:SendStatementPayment",
    "after:SendStatementPayment",
    "before:MarkSettled",
]


@pytest.mark.parametrize("place", PLACES)
def test_C6_B1_a_payer_that_is_killed_at_any_step_pays_each_statement_once(
    network: ClearingNetwork, edge: Process, place: str
) -> None:
    payer = Payer(network, edge, place.replace(":", "-"))
    statement = payer.read(2)
    payer.lose_a_receipt()
    if place == "before:MarkSettled":
        payer.run("pay", "--yes", statement)
        payer.wait_settled(statement)
    code, _ = payer.run("pay", "--yes", statement, crash_at=place)
    assert code == -signal.SIGKILL
    settled = payer.settle(statement)
    # One line of two has no receipt: it is disputed, once, and not paid.
    assert (payer.spent, settled["amount"]) == (PRICE, str(PRICE))
    disputes = network.operate("GET", f"/statements/{statement}/disputes")
    assert [(each["reason"], each["state"]) for each in disputes] == [("not_delivered", "open")]


def test_C6_two_auditors_at_once_pay_once(network: ClearingNetwork, edge: Process) -> None:
    payer = Payer(network, edge, "two")
    statement = payer.read(2)
    running = [
        subprocess.Popen(
            [*payer.command("pay"), "--yes", statement],
            env=payer.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for each in running:
        out, err = each.communicate(timeout=SECONDS)
        assert json.loads(out.splitlines()[-1])["outcome"] in {"paid", "settled"}, err
    payer.settle(statement)
    assert payer.spent == 2 * PRICE


def test_B2_unattended_it_pays_within_limits_until_it_is_ended(network: ClearingNetwork, edge: Process) -> None:
    payer = Payer(network, edge, "watched")
    command = [*payer.command("watch"), "--every", "1", "--max", "0.003"]
    running = subprocess.Popen(
        command, env=payer.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    assert running.stdout is not None
    try:
        assert json.loads(running.stdout.readline())["ready"] is True
        cheap, dear = payer.read(2), ""
        outcomes: dict[str, str] = {}
        while outcomes.get(cheap) not in {"paid", "settled"}:
            said = json.loads(running.stdout.readline())
            outcomes[said["statement"]] = said["outcome"]
        dear = payer.read(4)
        while outcomes.get(dear) != "over_limit":
            said = json.loads(running.stdout.readline())
            outcomes[said["statement"]] = said["outcome"]
    finally:
        running.terminate()
        rest, _ = running.communicate(timeout=SECONDS)
    assert running.returncode == 0, rest
    network.wait(lambda: payer.spent > 0)
    assert payer.spent == 2 * PRICE


def test_without_a_person_the_first_treasury_is_named(network: ClearingNetwork, edge: Process) -> None:
    payer = Payer(network, edge, "unnamed")
    words = payer.command("pay")
    del words[words.index("--treasury") : words.index("--treasury") + 2]
    done = subprocess.run(
        [*words, "--yes"], env=payer.environment(), capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 2
    assert "--treasury" in done.stderr
