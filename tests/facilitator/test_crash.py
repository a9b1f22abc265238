"""F2: killed with SIGKILL before or after any durable step, every accepted settlement is settled once."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from farthing.protocol.facilitator import Settled

SCRIPT = Path(__file__).with_name("settling_process.py")
AMOUNT = 12_345
KEY = "one-key"

STEPS = ("RecordPayment", "PlanTransactions", "StoreSigned", "eth_sendRawTransaction", "MarkSent", "RecordChain")
PLACES = [f"{when}:{step}" for step in STEPS for when in ("before", "after")]


# Payments that go together: those before the joined transaction are killed with the first of them.
TOGETHER = 3


class Killed(NamedTuple):
    world: Any
    payments: list[Any]
    returncode: int


def start(world: Any, payments: list[Any], *, crash_at: str = "") -> subprocess.Popen[str]:
    config = world.folder / "farthing.toml"
    config.write_text(world.config_text)
    order = {"config": str(config), "key": KEY, "payments": [each.body.decode() for each in payments]}
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**world.environment, "FARTHING_CRASH_AT": crash_at},
    )
    assert process.stdin
    process.stdin.write(json.dumps(order))
    process.stdin.close()
    return process


@pytest.fixture(scope="module", params=[1, TOGETHER], ids=["alone", "joined"])
def killed(
    request: Any, devnet_pyevm: Any, new_world: Any, held_wallet: Any, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Killed]:
    """A process for each place, each with a wallet and a store of its own, all killed at their place."""
    started = []
    for place in PLACES:
        world = new_world(devnet_pyevm, tmp_path_factory.mktemp("killed"))
        payments = [world.payment() for _ in range(request.param)]
        # Whoever waits for the wallet goes together.
        holding = held_wallet(world)
        let_go = holding.__enter__()
        started.append((place, world, payments, start(world, payments, crash_at=place), holding, let_go))
    found: dict[str, Killed] = {}
    for place, world, payments, process, holding, let_go in started:
        wait_for_records(world, process, len(payments))
        let_go()
        holding.__exit__(None, None, None)
        found[place] = Killed(world, payments, process.wait(60))
    return found


def wait_for_records(world: Any, process: subprocess.Popen[str], count: int) -> None:
    """Wait until all payments are on record, or the process is dead."""
    deadline = time.monotonic() + 60
    at = sqlite3.connect(world.folder / "facilitator.sqlite3")
    try:
        while process.poll() is None and at.execute("SELECT count(*) FROM payments").fetchone() != (count,):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        at.close()


def sizes(world: Any) -> list[int]:
    """How many members each transaction of the outbox has."""
    at = sqlite3.connect(world.folder / "facilitator.sqlite3")
    try:
        rows = at.execute("SELECT count(*) FROM transaction_members GROUP BY nonce ORDER BY nonce").fetchall()
        return [count for (count,) in rows]
    finally:
        at.close()


@pytest.mark.parametrize("place", PLACES)
def test_F2_killed_at_any_step_and_restarted_each_payment_is_settled_once(
    killed: dict[str, Killed], place: str, eventually: Any
) -> None:
    world, payments, returncode = killed[place]
    assert returncode == -signal.SIGKILL
    recorded = place.partition(":")[2] != "RecordPayment"

    async def restart() -> None:
        async with world.service() as service:
            on_record = [each for each in payments if await service.find(each.payment_id) is not None]
            if recorded:
                assert len(on_record) == len(payments)
            # The dead process's lease runs out, and the payments go on by themselves: nobody asks for them.
            await eventually(
                lambda: len(service.books.payments(state="confirmed")) == len(on_record), what=f"{place}, settled"
            )
            outcomes = [await service.settle(*each, idempotency_key=KEY) for each in payments]
            assert all(isinstance(each, Settled) for each in outcomes), outcomes
            assert service.books.settled() == {each.payment_id: AMOUNT for each in payments}
            assert sum(service.books.balances().values()) == 0

    asyncio.run(restart())
    assert world.balance(world.payee) == len(payments) * AMOUNT
    count = int(world.devnet.rpc("eth_getTransactionCount", world.wallet.address, "latest"), 16)
    assert count == len(sizes(world))
    if recorded:
        assert sizes(world) == [len(payments)]


def test_F5_two_processes_with_one_wallet_settle_everything_once(pyevm: Any) -> None:
    payments = [pyevm.payment() for _ in range(20)]
    other = start(pyevm, payments[:10])
    assert other.stdout
    said = other.stdout

    async def run() -> None:
        async with pyevm.service() as service:
            outcomes = await asyncio.gather(*(service.settle(*each, idempotency_key=KEY) for each in payments[10:]))
            assert all(isinstance(each, Settled) for each in outcomes), outcomes
            assert json.loads(await asyncio.to_thread(said.read)) == ["Settled"] * 10
            assert set(service.books.settled().values()) == {AMOUNT}

    asyncio.run(run())
    assert other.wait(10) == 0
    assert pyevm.balance(pyevm.payee) == 20 * AMOUNT
    # No gap: a gap would have left some pending.
    counts = [pyevm.devnet.rpc("eth_getTransactionCount", pyevm.wallet.address, at) for at in ("latest", "pending")]
    assert counts[0] == counts[1]
    assert int(counts[0], 16) <= 20
