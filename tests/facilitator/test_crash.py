"""F2: killed with SIGKILL before or after any durable step, every accepted settlement is settled once."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from farthing.protocol.facilitator import Settled

SCRIPT = Path(__file__).with_name("settling_process.py")
AMOUNT = 12_345
KEY = "one-key"

STEPS = ("RecordPayment", "PlanTransactions", "StoreSigned", "eth_sendRawTransaction", "MarkSent", "RecordChain")
PLACES = [f"{when}:{step}" for step in STEPS for when in ("before", "after")]


class Killed(NamedTuple):
    world: Any
    payment: Any
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


@pytest.fixture(scope="module")
def killed(devnet_pyevm: Any, new_world: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Killed]:
    """A process for each place, each with a wallet and a store of its own, all killed at their place."""
    started = []
    for place in PLACES:
        world = new_world(devnet_pyevm, tmp_path_factory.mktemp("killed"))
        payment = world.payment()
        started.append((place, world, payment, start(world, [payment], crash_at=place)))
    return {place: Killed(world, payment, process.wait(60)) for place, world, payment, process in started}


@pytest.mark.parametrize("place", PLACES)
def test_F2_killed_at_any_step_and_restarted_the_payment_is_settled_once(
    killed: dict[str, Killed], place: str, eventually: Any
) -> None:
    world, payment, returncode = killed[place]
    assert returncode == -signal.SIGKILL

    async def restart() -> None:
        async with world.service() as service:
            status = await service.find(payment.payment_id)
            if place == "before:RecordPayment":
                assert status is None
            else:
                # The dead process's lease runs out, and the payment goes on by itself: nobody asks for it.
                assert status is not None
                await eventually(
                    lambda: [each for each in service.books.payments() if each.state == "confirmed"], what=place
                )
            outcome = await service.settle(*payment, idempotency_key=KEY)
            assert isinstance(outcome, Settled), outcome
            assert service.books.settled() == {payment.payment_id: AMOUNT}
            assert sum(service.books.balances().values()) == 0

    asyncio.run(restart())
    assert world.balance(world.payee) == AMOUNT
    assert int(world.devnet.rpc("eth_getTransactionCount", world.wallet.address, "latest"), 16) == 1


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
