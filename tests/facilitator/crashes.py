"""Facilitators killed with SIGKILL, and what became of the money: F2, as a campaign that tests and operators can run.

    python tests/facilitator/crashes.py                      # every place, then ten seconds at random, over SQLite
    python tests/facilitator/crashes.py --engine postgres --seconds 60 --seed 7

Each place is an effect of `farthing.facilitator.store`, or a call to the node: before it, and after it. An effect that
is new is in the list by itself, and a scenario must be named for it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

# Where it is run by hand nobody else has said where the stores' server is.
sys.path.append(str(Path(__file__).parents[1]))

from crash_processes import KEY, Processes, Report, wait_until
from facilitator_world import AMOUNT, Payment, World, hold_wallet, make_party
from postgres_server import PostgresServer, schema
from store_reading import StoreReading

from farthing.evm.addresses import parse_address
from farthing.evm.calls import cancel_authorization_vrs
from farthing.evm.transactions import Transaction
from farthing.evm.typed_data import CancelAuthorization, Domain
from farthing.facilitator import store
from farthing.flow import Effect
from farthing.protocol.facilitator import Outcome, Refused, Settled
from farthing.services.devnet import Devnet, start_devnet
from farthing.services.facilitator.lane import Pace

GWEI = 10**9
# Killed and started again, no payment is in a state that moves by itself for longer than this.
RECOVERY_SECONDS = 60.0
# What reads the store changes nothing; all other effects are places to crash at.
READS = frozenset(
    {
        store.FindRecord, store.FindRecordByTransaction, store.FindRecords, store.LoadBodies, store.LoadWaiting,
        store.LoadOutbox, store.LoadDone, store.LoadLingering, store.LoadConfirmed, store.LoadFailedPayers,
        store.CountPayments, store.FindIdentified,
    }
)  # fmt: skip
WRITES = frozenset(
    name
    for name, kind in vars(store).items()
    if isinstance(kind, type) and issubclass(kind, Effect) and kind.__module__ == store.__name__ and kind not in READS
)
# Where each is reached; a number says the how manieth of its kind.
_EVERY_LIFE = (
    "AcquireLease",
    "OpenWallet",
    "RecordPayment",
    "PlanTransactions",
    "StoreSigned",
    "MarkSent",
    "RecordChain",
)
_NODE_CALLS = ("eth_sendRawTransaction", "eth_estimateGas", "eth_getTransactionReceipt", "eth_getTransactionCount")
SCENARIOS: dict[str, tuple[str, ...]] = {
    "alone": (*_EVERY_LIFE, *_NODE_CALLS, "ReleaseLease"),
    "joined": (*_EVERY_LIFE, *_NODE_CALLS),
    "second": tuple(f"{name}#2" for name in (*_EVERY_LIFE[2:], "eth_sendRawTransaction")),
    "stuck": ("StoreSigned#2", "eth_sendRawTransaction#2", "MarkSent#2"),
    "untold": ("GivePlaceUp", "TakePlace"),
    "told": ("Tell",),
    "cancelled": ("RecordChain",),
    "final": ("RecordChain#2",),
    "forked": ("RecordChain#2",),
    "foreign": ("StopWallet",),
}


def places(scenario: str) -> list[str]:
    return [f"{when}:{name}" for name in SCENARIOS[scenario] for when in ("before", "after")]


class Job:
    """One facilitator with a store and a wallet of its own, and the place that it is killed at."""

    def __init__(self, name: str, world: World, place: str, payments: int = 1) -> None:
        self.name, self.place = name, place
        self.world = world
        self.reading = StoreReading(world.store)
        self.payments = [self.world.payment() for _ in range(payments)]
        self.expected = payments
        self.key = KEY

    def recorded(self) -> int:
        return len(self.reading.rows("SELECT 1 FROM payments"))

    def in_flight(self) -> int:
        return len(self.reading.rows("SELECT 1 FROM payments WHERE state NOT IN ('confirmed', 'final', 'refused')"))

    async def recover(self) -> list[Outcome]:
        """Start it again, until nothing moves by itself; then ask for each payment once more, as its seller would."""
        async with self.world.service(pace=Pace(lease_seconds=1, idle_seconds=0.05, work_seconds=0.05)) as service:
            deadline = time.monotonic() + RECOVERY_SECONDS
            # Blocks that may be lost are compared first: what they held goes back to work.
            while any(lane.recheck for lane in service.lanes) or any(
                service.books.payments(state=state) for state in ("received", "ready", "in_batch")
            ):
                assert time.monotonic() < deadline, f"{self.name}: payments still move after {RECOVERY_SECONDS:g} s"
                await asyncio.sleep(0.02)
            outcomes = [await service.settle(*each, idempotency_key=self.key) for each in self.payments]
            if not self.key:
                outcomes += [await service.settle(*each, idempotency_key=self.key) for each in self.payments]
            self.ledger = service.books.settled()
            self.balance = sum(service.books.balances().values())
            return outcomes

    def judge(self, outcomes: list[Outcome], status: int, in_flight: int) -> Report:
        paid = self.world.balance(self.world.payee) // AMOUNT
        told = sum(isinstance(each, Settled) for each in outcomes)
        troubles: list[str] = []
        if self.place and status != -signal.SIGKILL:
            troubles.append(f"{self.name}: not killed but ended with {status}")
        if self.balance or sum(self.ledger.values()) != self.expected * AMOUNT:
            troubles.append(f"{self.name}: the ledger says {self.ledger}, its sum {self.balance}")
        if self.key and told != self.expected:
            troubles.append(f"{self.name}: {told} of {self.expected} were told of success: {outcomes}")
        if not self.key and told > self.expected:
            troubles.append(f"{self.name}: success was told {told} times")
        known = all(isinstance(each, Settled) or (isinstance(each, Refused) and each.transaction) for each in outcomes)
        if not known:
            troubles.append(f"{self.name}: an answer without evidence: {outcomes}")
        return Report(
            points=1,
            killed=int(status == -signal.SIGKILL),
            in_flight=in_flight,
            settled=paid,
            lost=max(0, self.expected - paid),
            doubled=max(0, paid - self.expected),
            troubles=tuple(troubles),
        )


class Campaign:
    """Runs scenarios on one chain; the stores are files, or schemas of the database at `postgres_url`."""

    def __init__(self, devnet: Devnet, folder: Path, processes: Processes, postgres_url: str = "") -> None:
        self.devnet, self.folder, self.processes, self.postgres_url = devnet, folder, processes, postgres_url
        # Part of the names of processes, which are those of one campaign alone.
        self.engine = "postgres" if postgres_url else "sqlite"
        self.servers_killed = 0

    def world(self, name: str) -> World:
        folder = self.folder / name
        folder.mkdir()
        made = World(self.devnet, folder)
        if self.postgres_url:
            made.store = schema(self.postgres_url, name)
        return made

    def run(self, scenario: str) -> Report:
        report: Report = getattr(self, f"_{scenario}")()
        return report

    def jobs(self, scenario: str, payments: int = 1) -> list[Job]:
        return [
            Job(f"{self.engine} {scenario} {place}", self.world(f"{scenario}_{number}"), place, payments)
            for number, place in enumerate(places(scenario))
        ]

    def finish(self, jobs: list[Job]) -> Report:
        """Wait until all are dead, recover them a few at a time, and judge."""
        statuses = [self.processes.ended(job.name) for job in jobs]
        flying = [job.in_flight() for job in jobs]

        async def recover() -> list[list[Outcome]]:
            gate = asyncio.Semaphore(6)

            async def one(job: Job) -> list[Outcome]:
                async with gate:
                    return await job.recover()

            return await asyncio.gather(*map(one, jobs))

        outcomes = asyncio.run(recover())
        report = Report()
        for job, status, in_flight, said in zip(jobs, statuses, flying, outcomes, strict=True):
            report += job.judge(said, status, in_flight)
        return report

    @contextmanager
    def holding(self, jobs: list[Job]) -> Iterator[dict[str, Callable[[], None]]]:
        """Hold all wallets: whoever waits goes together once they are let go."""
        with ExitStack() as stack:
            yield {job.name: stack.enter_context(hold_wallet(job.world)) for job in jobs}

    def start(self, job: Job, waves: list[list[Payment]] | None = None, **changes: Any) -> None:
        self.processes.start(job.name, job.world, waves or [job.payments], crash_at=job.place, **changes)

    def recorded_or_dead(self, job: Job, count: int) -> None:
        wait_until(lambda: job.name in self.processes.statuses or job.recorded() >= count, f"{job.name} records")

    # Scenarios

    def _together(self, jobs: list[Job]) -> Report:
        with self.holding(jobs) as let_go:
            for job in jobs:
                self.start(job)
            for job in jobs:
                self.recorded_or_dead(job, len(job.payments))
                let_go[job.name]()
        return self.finish(jobs)

    def _alone(self) -> Report:
        return self._together(self.jobs("alone"))

    def _joined(self) -> Report:
        return self._together(self.jobs("joined", payments=3))

    def _second(self) -> Report:
        """The first payment goes well."""
        jobs = self.jobs("second", payments=2)
        for job in jobs:
            self.start(job, [job.payments[:1], job.payments[1:]])
        return self.finish(jobs)

    def _stuck(self) -> Report:
        """No block comes, and the transaction is replaced."""
        jobs = self.jobs("stuck")
        self.devnet.set_automine(enabled=False)
        try:
            for job in jobs:
                self.start(job, pace={"lease_seconds": 1, "work_seconds": 0.05, "stuck_seconds": 1})
            for job in jobs:
                self.processes.ended(job.name)
        finally:
            self.devnet.set_automine(enabled=True)
        return self.finish(jobs)

    def _untold(self) -> Report:
        """A caller without a key is told `settlement_pending`, gives its place up, and comes again."""
        jobs = self.jobs("untold")
        for job in jobs:
            job.key = ""
        with self.holding(jobs) as let_go:
            for job in jobs:
                self.start(job, [job.payments] * 2, key="", limits={"settle_timeout_seconds": 0.2})
            for job in jobs:
                self.processes.ended(job.name)
                let_go[job.name]()
        return self.finish(jobs)

    def _told(self) -> Report:
        """Another process has the wallet, and settles what this one put on record and is waited for in."""
        jobs = self.jobs("told")
        for job in jobs:
            job.key = ""
            helper = f"helper of {job.name}"
            self.processes.start(helper, job.world, [], lingers=True)
            wait_until(
                lambda job=job: job.reading.rows("SELECT 1 FROM wallets WHERE owner <> ''"), "the helper has the wallet"
            )
            self.start(job, key="")
            self.processes.ended(job.name)
            self.processes.kill(helper)
        return self.finish(jobs)

    def _cancelled(self) -> Report:
        """The payer cancels between verification and transaction."""
        jobs = self.jobs("cancelled")
        with self.holding(jobs) as let_go:
            for job in jobs:
                job.expected = 0
                self.devnet.faucet(job.world.payer.address, eth=1)
                self.start(job)
            for job in jobs:
                self.recorded_or_dead(job, 1)
                cancel(job.world, job.payments[0])
                let_go[job.name]()
        return self.finish(jobs)

    def _final(self) -> Report:
        jobs = self.jobs("final")
        for job in jobs:
            pace = {"lease_seconds": 1, "idle_seconds": 0.05, "work_seconds": 0.05, "finality_seconds": 0}
            self.start(job, lingers=True, pace=pace)
        for job in jobs:
            wait_until(lambda job=job: job.name in self.processes.said, f"{job.name} settles")
        self.devnet.mine(3)
        return self.finish(jobs)

    def _forked(self) -> Report:
        """A reorganisation drops the settling transaction."""
        report = Report()
        for job in self.jobs("forked"):
            with self.devnet.rewound():
                pace = {"lease_seconds": 1, "idle_seconds": 0.05, "work_seconds": 0.05, "finality_seconds": 1000}
                self.start(job, lingers=True, pace=pace)
                wait_until(lambda job=job: job.name in self.processes.said, f"{job.name} settles")
                # Until the process has looked at the block, its loss shows nothing to it.
                time.sleep(0.3)
                self.devnet.reorganise(1)
                report += self.finish([job])
        return report

    def _foreign(self) -> Report:
        """Somebody else uses the wallet: it is stopped, and another one goes on."""
        jobs = self.jobs("foreign", payments=2)
        for job in jobs:
            first = f"first of {job.name}"
            self.processes.start(first, job.world, [job.payments[:1]])
            assert self.processes.ended(first) == 0
            send(job.world, job.world.wallet, job.world.wallet.address, b"")
            self.start(job, [job.payments[1:]])
            self.processes.ended(job.name)
            job.world.wallet = make_party()
            self.devnet.faucet(job.world.wallet.address, eth=10)
        return self.finish(jobs)

    # At random

    def at_random(self, seed: int, seconds: float, kill_server: Callable[[], None] | None = None) -> Report:
        """Two processes on one store, each killed by chance while payments come, and their store's server with them."""
        chance = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
        job = Job(f"{self.engine} random {seed}", self.world(f"random_{seed}"), "", payments=0)
        running: dict[str, float] = {}
        report = Report()
        end = time.monotonic() + seconds
        starts = 0
        server_until = time.monotonic() + chance.uniform(0.3, 1.0)
        while time.monotonic() < end or running:
            if time.monotonic() < end and len(running) < 2:
                fresh = [job.world.payment() for _ in range(chance.randint(1, 4))]
                again = chance.sample(job.payments, min(len(job.payments), chance.randint(0, 3)))
                job.payments += fresh
                starts += 1
                name = f"{job.name} start {starts}"
                self.processes.start(name, job.world, [[*fresh, *again]], lingers=True)
                running[name] = time.monotonic() + chance.uniform(0.02, 1.2)
            for name, until in list(running.items()):
                if time.monotonic() >= until:
                    flying = job.in_flight()
                    self.processes.kill(name)
                    report += Report(points=1, killed=1, in_flight=flying)
                    del running[name]
            if kill_server is not None and server_until <= time.monotonic() < end:
                kill_server()
                self.servers_killed += 1
                server_until = time.monotonic() + chance.uniform(0.3, 1.0)
            time.sleep(0.005)
        job.expected = len(job.payments)
        return report + job.judge(asyncio.run(job.recover()), 0, 0)._replace(points=0)


def send(world: World, party: Any, to: str, data: bytes) -> None:
    """Send somebody's own transaction, and wait until it is in a block."""
    transaction = Transaction(
        chain_id=world.devnet.chain_id,
        nonce=int(world.devnet.rpc("eth_getTransactionCount", party.address, "latest"), 16),
        max_priority_fee_per_gas=GWEI,
        max_fee_per_gas=100 * GWEI,
        gas_limit=200_000,
        to=parse_address(to),
        data=data,
    )
    raw = "0x" + transaction.sign(party.key).raw.hex()
    world.devnet.wait_for_receipt(world.devnet.rpc("eth_sendRawTransaction", raw))


def cancel(world: World, payment: Payment) -> None:
    """Cancel a payment's authorisation on chain, as its payer may."""
    nonce = json.loads(payment.body)["paymentPayload"]["payload"]["authorization"]["nonce"]
    message = CancelAuthorization(parse_address(world.payer.address), bytes.fromhex(nonce[2:]))
    domain = Domain("USDC", "2", world.devnet.chain_id, parse_address(world.devnet.usdc))
    signature = world.payer.key.sign_digest(message.digest(domain))
    send(world, world.payer, world.devnet.usdc, cancel_authorization_vrs(message, signature))


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, help="of the random part")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long the random part lasts")
    parser.add_argument("--node", choices=("py-evm", "anvil"), default="py-evm")
    parser.add_argument("--engine", choices=("sqlite", "postgres"), default="sqlite", help="what keeps the stores")
    options = parser.parse_args(arguments)
    total = Report()
    with ExitStack() as stack:
        server: PostgresServer | None = None
        if options.engine == "postgres":
            server = PostgresServer()
            stack.callback(server.remove)
        devnet = stack.enter_context(start_devnet(options.node))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="farthing-crashes-")))
        processes = stack.enter_context(Processes())
        campaign = Campaign(devnet, folder, processes, server.database() if server else "")
        for scenario in SCENARIOS:
            report = campaign.run(scenario)
            print(f"{scenario:<10} {report}", flush=True)
            total += report
        report = campaign.at_random(options.seed, options.seconds, server.restart if server else None)
        print(f"{'random':<10} {report}; servers killed: {campaign.servers_killed}\n{'all':<10} {total + report}")
        total += report
    return 1 if total.lost or total.doubled or total.troubles else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
