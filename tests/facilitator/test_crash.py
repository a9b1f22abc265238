"""F2: killed with SIGKILL before or after any durable step, and at random, every payment is settled once."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from crash_processes import Processes, Report
from crashes import SCENARIOS, WRITES, Campaign

from farthing.protocol.facilitator import Settled

if TYPE_CHECKING:
    from tests.facilitator import crash_processes, crashes
    from tests.postgres_server import PostgresServer

SCRIPT = Path(__file__).with_name("settling_process.py")
AMOUNT = 12_345
KEY = "one-key"
# Over PostgreSQL these two are left to whoever runs it by hand, for the time that they take: their places are those of
# the others, with more payments.
BY_HAND = {"joined", "second"}
OVER_POSTGRES = [scenario for scenario in SCENARIOS if scenario not in BY_HAND]
# Longer campaigns are run by hand: `python tests/facilitator/crashes.py --engine postgres --seconds 600`.
RANDOM_SECONDS = 4.0


@pytest.fixture(scope="module")
def processes() -> Iterator[crash_processes.Processes]:
    with Processes() as started:
        yield started


@pytest.fixture
def campaign(devnet_pyevm: Any, tmp_path: Path, processes: crash_processes.Processes) -> crashes.Campaign:
    made: crashes.Campaign = Campaign(devnet_pyevm, tmp_path, processes)
    return made


@pytest.fixture
def over_postgres(
    devnet_pyevm: Any, tmp_path: Path, processes: crash_processes.Processes, postgres_url: str
) -> crashes.Campaign:
    made: crashes.Campaign = Campaign(devnet_pyevm, tmp_path, processes, postgres_url)
    return made


def good(report: crash_processes.Report) -> bool:
    assert (report.lost, report.doubled, report.troubles) == (0, 0, ()), str(report)
    assert report.killed == report.points > 0
    return True


def test_F2_each_effect_that_writes_is_a_place_to_crash_at() -> None:
    for scenarios in (SCENARIOS, OVER_POSTGRES):
        reached = {place.partition("#")[0] for each in scenarios for place in SCENARIOS[each]}
        assert {each for each in reached if not each.startswith("eth_")} == WRITES


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_F2_killed_at_any_step_and_restarted_each_payment_is_settled_once(
    campaign: crashes.Campaign, scenario: str
) -> None:
    assert good(campaign.run(scenario))


def test_F2_killed_at_random_and_restarted_each_payment_is_settled_once(campaign: crashes.Campaign) -> None:
    assert good(campaign.at_random(seed=4, seconds=RANDOM_SECONDS))


@pytest.mark.parametrize("scenario", OVER_POSTGRES)
def test_F2_killed_at_any_step_over_postgres_and_restarted_each_payment_is_settled_once(
    over_postgres: crashes.Campaign, scenario: str
) -> None:
    assert good(over_postgres.run(scenario))


def test_F2_killed_at_random_with_the_server_of_the_store_each_payment_is_settled_once(
    over_postgres: crashes.Campaign, postgres_server: PostgresServer
) -> None:
    assert good(over_postgres.at_random(seed=4, seconds=RANDOM_SECONDS, kill_server=postgres_server.restart))
    assert over_postgres.servers_killed > 0


def test_a_report_adds_up_and_says_what_was_lost() -> None:
    total = Report(1, 1, 2, 3, 0, 0) + Report(1, 1, 0, 1, 1, 0, ("one is lost",))
    assert (total.points, total.in_flight, total.settled, total.lost) == (2, 2, 4, 1)
    assert str(total).endswith("lost: 1, doubled: 0\none is lost")


def start(world: Any, payments: list[Any]) -> subprocess.Popen[str]:
    config = world.folder / "farthing.toml"
    config.write_text(world.config_text)
    order = {"config": str(config), "key": KEY, "payments": [each.body.decode() for each in payments]}
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=world.environment,
    )
    assert process.stdin
    process.stdin.write(json.dumps(order))
    process.stdin.close()
    return process


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
