"""A crawl on credit from the first promise to the last book, as a newcomer runs it, and what it allows itself."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from farthing.buyer.journal import Promise
from farthing.buyer.policy import Policy
from farthing.demo.deferred_books import Facts, compare
from farthing.demo.deferred_parts import clearing_config, crawl_command, edge_config
from farthing.protocol.clearing import Signed
from farthing.services.clearing import read_config as read_clearing_config
from farthing.services.edge.config import read_config as read_edge_config
from farthing.world.directories import Directories, DirectoryRefused

COMMAND = [sys.executable, "-m", "farthing", "demo", "deferred"]
# What a loaded machine may take; it runs in fifteen seconds.
TIMEOUT_SECONDS = 240
PAGES = 60
ORIGIN = "http://127.0.0.1:40999"


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(folder), "COLUMNS": "200"}


def test_C1_C2_C7_a_crawl_on_credit_ends_with_books_that_agree(tmp_path: Path) -> None:
    run = subprocess.run(
        [*COMMAND, "--pages", str(PAGES), "--json"],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    result = json.loads(run.stdout.splitlines()[-1])
    assert {name: result[name] for name in ("pages", "commitments", "statements", "spent", "reconciled")} == {
        "pages": PAGES,
        "commitments": PAGES,
        "statements": 1,
        "spent": "0.06",
        "reconciled": True,
    }
    # The crawler's one payment, and payouts, which may share a transaction.
    assert result["transactions"] in {2, 3}
    assert result["pages_per_second"] > 0
    for shown in (
        "has proved its domain",
        f"{PAGES} bought",
        "statement st-000001-",
        f"signature, root and {PAGES} lines against the journal: all as promised",
        "the statement and both payouts are settled",
        "Transfer",
        "journal = statement = Transfer logs = publishers' balances",
    ):
        assert shown in run.stdout, shown
    assert list(tmp_path.glob("farthing-*")) == []


def test_ctrl_c_in_the_crawl_ends_every_part_and_leaves_nothing(tmp_path: Path) -> None:
    command = [*COMMAND, "--pages", "2000"]
    with subprocess.Popen(command, env=environment(tmp_path), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "The crawl" in line:
                break
        journal = next(tmp_path.glob("farthing-demo-*")) / "journal.sqlite"
        while not journal.exists() and process.poll() is None:
            signal.sigtimedwait([], 0.05)
        children = children_of(process.pid)
        assert len(children) >= 7  # chain, facilitator, sites, clearing house, two edges, crawler
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait(TIMEOUT_SECONDS) == 130
    assert [pid for pid in children if Path(f"/proc/{pid}").exists()] == []
    assert list(tmp_path.glob("farthing-*")) == []


@pytest.mark.parametrize("pages", ["1", "20001"])
def test_a_number_of_pages_that_is_none_is_named(pages: str) -> None:
    run = subprocess.run([*COMMAND, "--pages", pages], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (2, f"farthing: --pages {pages}: from 2 to 20,000.\n")


class Devnet:
    """As much of a devnet as a configuration names."""

    network, url, usdc = "eip155:402402", "http://127.0.0.1:8545", "0x74a0a6f9847Fce4d19bcc126ec285DcF51Af9C82"


def test_A2_the_demo_allows_its_own_origins_by_name_and_the_default_refuses_them(tmp_path: Path) -> None:
    edge = edge_config(
        name="edge", folder=tmp_path, port=0, site=ORIGIN, payee="gull", clearing=ORIGIN, agent="http://127.0.0.1:41000"
    )
    devnet: Any = Devnet()
    house = clearing_config(folder=tmp_path, devnet=devnet, facilitator=ORIGIN, domains=("127.0.0.1:40999",))
    assert read_edge_config(edge).directories.allowed == ("http://127.0.0.1:41000",)
    assert read_clearing_config(house).private_domains == ("127.0.0.1:40999",)
    # Nothing is allowed where nothing is named.
    bare = tomllib.loads(edge)
    del bare["directories"]
    assert msgspec.convert(bare, type(read_edge_config(edge))).directories.allowed == ()
    assert read_clearing_config(house.replace('["127.0.0.1:40999"]', "[]")).private_domains == ()
    command = crawl_command((ORIGIN,), folder=tmp_path, agent=ORIGIN, budget="1")
    assert command[command.index("--directory") + 1] == ORIGIN
    assert not Policy(networks=["clearing:demo"], private_hosts=[]).may_be_private("127.0.0.1")
    with pytest.raises(DirectoryRefused, match="not https at a public host"):
        asyncio.run(Directories().fetch(ORIGIN))
    # By name it is asked, and is not there.
    with pytest.raises(DirectoryRefused, match="was not fetched"):
        asyncio.run(Directories(allowed=[ORIGIN]).fetch(ORIGIN))


# The comparison itself: each book that says something else is noticed.


class Purchase(msgspec.Struct):
    """What the comparison reads of a purchase."""

    amount: int


class Promised(msgspec.Struct):
    """What the comparison reads of a promise."""

    purchase: Purchase
    promise: Promise
    receipt: Signed | None


def facts(**changes: Any) -> Facts:
    """Two pages of two publishers, in order; `changes` break a book."""
    receipt = Signed("base", "signature", "key")
    promised: Any = tuple(Promised(Purchase(1_000), Promise(name, (), receipt), receipt) for name in ("cm-1", "cm-2"))
    lines = tuple({"id": f"cm-{n}", "payee": payee, "charged": "1000"} for n, payee in ((1, "gull"), (2, "harbour")))
    right: dict[str, Any] = {
        "kept": ("pay_1", "pay_2"),
        "promised": promised,
        "lines": lines,
        "net": 2_000,
        "settled_by": ("0x01",),
        "publishers": {"gull": "0xA1", "harbour": "0xA2"},
        "paid": 2_000,
        "earned": {"gull": 1_000, "harbour": 1_000},
        "transfers_in": {("0x01", "0xtreasury"): 2_000},
        "transfers_out": {("0x02", "0xa1"): 1_000, ("0x02", "0xa2"): 1_000},
        "house": {"a": 5, "b": -5},
        "pending": {},
        "treasury": "0xtreasury",
    }
    return Facts(**{**right, **changes})


def test_books_in_order_agree() -> None:
    books = compare(facts())
    assert books.faults == ()
    assert books.agree
    assert books.transactions == ("0x01", "0x02")


LINE = {"id": "cm-1", "payee": "gull", "charged": "1000"}
OTHER = {"id": "cm-2", "payee": "harbour", "charged": "1000"}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"lines": (LINE,)}, "1 commitments stand in the journal alone"),
        ({"lines": (LINE, OTHER, {**LINE, "id": "cm-3"})}, "1 commitments stand in the statement alone"),
        ({"lines": (LINE, OTHER, LINE)}, "on a statement twice"),
        ({"lines": (LINE, {**OTHER, "charged": "999"})}, "another amount in the statement"),
        ({"lines": (LINE, {**OTHER, "payee": "gull"})}, "gull's lines"),
        ({"kept": ("pay_1",)}, "pages kept"),
        ({"net": 2_001}, "the statement: 2,001"),
        ({"settled_by": ()}, "holds for settled"),
        ({"settled_by": ("0x02",)}, "holds for settled"),
        ({"paid": 1_999}, "what left the crawler's account: 1,999"),
        ({"earned": {"gull": 1_000, "harbour": 0}}, "what its account gained: 0"),
        ({"transfers_in": {("0x01", "0xtreasury"): 3_000}}, "Transfer logs to the treasury: 3,000"),
        ({"transfers_in": {("0x01", "0xother"): 2_000}}, "the treasury is not who was paid: 0xother"),
        ({"transfers_out": {("0x02", "0xa1"): 2_000}}, "harbour's lines: 1,000"),
        ({"house": {"a": 5, "b": -4}}, "the clearing house's debits"),
        ({"pending": {"a": 1}}, "promised money"),
    ],
)  # fmt: skip
def test_C1_C7_a_book_that_says_something_else_is_noticed(changes: dict[str, Any], says: str) -> None:
    books = compare(facts(**changes))
    assert not books.agree
    assert any(says in fault for fault in books.faults), books.faults


def children_of(pid: int) -> list[int]:
    folder = Path(f"/proc/{pid}/task/{pid}/children")
    if not folder.exists():
        pytest.skip("the kernel does not list children")
    # Threads start children too.
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text(encoding="ascii").split()]
