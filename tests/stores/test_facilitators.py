"""Facilitators on one PostgreSQL: leases with epochs decide who writes, also when one is killed (F1, F2, F5)."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from farthing.protocol.facilitator import Settled
from farthing.services.facilitator.lane import Pace

if TYPE_CHECKING:
    from tests.facilitator.facilitator_world import Payment, World

FACILITATOR = Path(__file__).parents[1] / "facilitator"
sys.path.append(str(FACILITATOR))

AMOUNT = 12_345
KEY = "one-key"
COUNT = 10
# Where the first process dies: after a nonce was taken, a transaction was broadcast, or was seen in a block.
PLACES = ["after:PlanTransactions", "before:MarkSent", "before:RecordChain"]


@pytest.fixture
def town(devnet_pyevm: Any, tmp_path: Path, postgres_url: str) -> World:
    from facilitator_world import World as Made  # noqa: PLC0415 - of another folder of tests

    made: World = Made(devnet_pyevm, tmp_path)
    made.store = postgres_url
    return made


@pytest.fixture
def start(town: World) -> Iterator[Any]:
    running: list[subprocess.Popen[str]] = []

    def one(payments: list[Payment], **environment: str) -> subprocess.Popen[str]:
        config = town.folder / "farthing.toml"
        config.write_text(town.config_text)
        process = subprocess.Popen(
            [sys.executable, str(FACILITATOR / "settling_process.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=town.environment | environment,
        )
        running.append(process)
        assert process.stdin
        bodies = [each.body.decode() for each in payments]
        process.stdin.write(json.dumps({"config": str(config), "key": KEY, "payments": bodies}))
        process.stdin.close()
        return process

    yield one
    for process in running:
        process.kill()
        process.wait()


def settle_here(town: World, payments: list[Payment]) -> None:
    """Settle `payments` in this process, and compare the books with the chain when nothing moves any more."""

    async def run() -> None:
        async with town.service(pace=Pace(lease_seconds=1)) as service:
            outcomes = await asyncio.gather(*(service.settle(*each, idempotency_key=KEY) for each in payments))
            assert all(isinstance(each, Settled) for each in outcomes), outcomes
            settled = await asyncio.to_thread(service.books.settled)
            balances = await asyncio.to_thread(service.books.balances)
            assert set(settled.values()) <= {AMOUNT}
            assert {each.payment_id for each in payments} <= set(settled)
            assert sum(balances.values()) == 0

    asyncio.run(run())


def no_gap(town: World) -> None:
    counts = [town.devnet.rpc("eth_getTransactionCount", town.wallet.address, at) for at in ("latest", "pending")]
    assert counts[0] == counts[1]


def test_F5_two_processes_with_one_wallet_settle_everything_once(town: World, start: Any) -> None:
    payments = [town.payment() for _ in range(2 * COUNT)]
    other = start(payments[:COUNT])
    settle_here(town, payments[COUNT:])
    assert json.loads(other.stdout.read()) == ["Settled"] * COUNT
    assert town.balance(town.payee) == 2 * COUNT * AMOUNT
    no_gap(town)


@pytest.mark.parametrize("place", PLACES)
def test_F2_one_of_two_processes_is_killed_and_the_other_finishes_its_work(town: World, start: Any, place: str) -> None:
    payments = [town.payment() for _ in range(2 * COUNT)]
    dying = start(payments[:COUNT], FARTHING_CRASH_AT=place)
    assert dying.wait(60) == -signal.SIGKILL
    with psycopg.connect(town.store) as at:
        recorded = at.execute("SELECT count(*) FROM payments").fetchone()
        leases = at.execute("SELECT owner <> '', epoch FROM wallets").fetchall()
    assert recorded
    assert 0 < recorded[0] <= COUNT
    assert leases == [(True, 1)]  # the dead process's
    settle_here(town, payments)
    with psycopg.connect(town.store) as at:
        assert at.execute("SELECT epoch FROM wallets").fetchall() == [(2,)]
    assert town.balance(town.payee) == 2 * COUNT * AMOUNT
    no_gap(town)


def test_F2_killed_while_both_work(town: World, start: Any) -> None:
    payments = [town.payment() for _ in range(3 * COUNT)]
    dying, other = start(payments[:COUNT]), start(payments[COUNT : 2 * COUNT])
    with psycopg.connect(town.store, autocommit=True) as at:
        for _ in range(2000):
            try:
                row = at.execute("SELECT count(*) FROM payments WHERE wallet IS NOT NULL").fetchone()
            except psycopg.errors.UndefinedTable:
                row = (0,)
            if row and row[0] > 0:
                break
            at.execute("SELECT pg_sleep(0.01)")
    dying.kill()
    settle_here(town, [*payments[:COUNT], *payments[2 * COUNT :]])
    assert json.loads(other.stdout.read()) == ["Settled"] * COUNT
    assert town.balance(town.payee) == 3 * COUNT * AMOUNT
    no_gap(town)


def test_F1_ten_copies_over_two_services_are_told_once(town: World) -> None:
    """Without a key of the seller's own: one live caller is told of success."""
    payment = town.payment()

    async def run() -> list[Any]:
        async with town.service() as first, town.service() as second:
            copies = [(first, second)[number % 2].settle(*payment, idempotency_key="") for number in range(10)]
            return await asyncio.gather(*copies)

    outcomes = asyncio.run(run())
    assert [isinstance(each, Settled) for each in outcomes].count(True) == 1
    assert town.balance(town.payee) == AMOUNT


def test_the_database_refuses_to_edit_the_ledger(town: World) -> None:
    settle_here(town, [town.payment()])
    with psycopg.connect(town.store, autocommit=True) as at:
        for table in ("ledger_transfers", "ledger_entries"):
            for edit in ("UPDATE {} SET transfer_id = 'x'", "DELETE FROM {}", "TRUNCATE {} CASCADE"):
                statement = edit.format(table)
                with pytest.raises(psycopg.IntegrityError, match="append-only"):
                    at.execute(statement.encode())
