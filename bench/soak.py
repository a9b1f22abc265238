"""`soak`: one facilitator, one seller with two workers, hundreds of buyers at once, minutes long; then a million 402s.

    python -m bench soak                                        # 200 buyers, 2 minutes on each node, 1,000,000 402s
    python -m bench soak --seconds 20 --buyers 50 --unpaid 0    # a short one

Every transfer is looked up on the chain: as many as purchases, each authorisation once, the balance to the cent.
Memory is the resident set of the facilitator and of each worker; its growth is told per 100,000 requests, by the line
that fits the samples best, after a warm-up: the first third, and no fewer requests than fill what is bounded. A run
that is too short to say fails, unless `--ignore-memory` says that it is for something else; only py-evm's may be, since
py-evm settles few payments in minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import secrets
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec

from bench import machine
from bench.load import request_bytes, send_all
from bench.settle import anvil_program
from bench.soak_buyers import Counted, buy_for
from bench.soak_shop import AMOUNT, PATH
from bench.soak_town import WORKERS, SoakTown, open_town
from farthing.evm.logs import AUTHORIZATION_USED_TOPIC, TRANSFER_TOPIC
from farthing.evm.signatures import PrivateKey
from farthing.services.devnet import start_devnet

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from farthing.services.devnet import Devnet, NodeName

BUYERS = 200
SECONDS = 120.0
UNPAID = 1_000_000
# 402s between two looks at the memory.
UNPAID_CHUNK = 20_000
GROWTH_MAX_BYTES = 1024 * 1024
PER_REQUESTS = 100_000
# Caches fill, the allocator finds its size, the journal its pages: what is before this share is no growth.
WARM_UP_SHARE = 1 / 3
# Requests that fill what is bounded. A facilitator has 16 MB of its store's pages at hand, full after some 5,000
# payments; a seller on a store of its own after some 15,000, and one that shares its store keeps few.
WARM_UP_PAID = 10_000
WARM_UP_UNPAID = 20_000
# Requests after it by which growth is judged, at least: over fewer, what a process takes for a moment (a page of a
# thousand payments, half a megabyte) would look like growth, or hide it.
JUDGED_MIN = 20_000
SAMPLE_SECONDS = 1.0
_SAMPLES_MIN = 4
_LOGS_BLOCKS = 2_000
_ERRORS_SHOWN = 5
# What may be too little to judge the memory by.
_SLOW = "paid on py-evm"

Samples = dict[str, list[tuple[int, int]]]


class Soaked(msgspec.Struct, frozen=True, kw_only=True):
    """What a soak found: counts, seconds, and bytes of growth per 100,000 requests by process."""

    what: str
    requests: int
    seconds: float
    errors: tuple[str, ...] = ()
    purchases: int = 0
    transfers: int = 0
    doubled: int = 0
    lost: int = 0
    presented_again: int = 0
    p50_milliseconds: float = 0.0
    p99_milliseconds: float = 0.0
    growth_bytes: dict[str, int] = msgspec.field(default_factory=dict)
    memory_bytes: dict[str, int] = msgspec.field(default_factory=dict)

    @property
    def held(self) -> bool:
        """No error, nothing doubled, nothing lost. Memory is told beside it, since a short run can't show it."""
        return not self.errors and not self.doubled and not self.lost and self.transfers == self.purchases

    @property
    def flat(self) -> bool | None:
        """Whether no process grew by a megabyte or more per 100,000 requests; None where that can't be said of each."""
        if self.growth_bytes.keys() != self.memory_bytes.keys() or not self.memory_bytes:
            return None
        return all(growth < GROWTH_MAX_BYTES for growth in self.growth_bytes.values())

    def to_text(self) -> str:
        """For people."""
        lines = [f"{self.what}: {self.requests} requests in {self.seconds:.1f} s, {len(self.errors)} errors"]
        if self.purchases or self.errors:
            lines.append(
                f"  {self.purchases} purchases ({self.purchases / self.seconds:.0f}/s), {self.transfers} transfers on "
                f"chain, {self.doubled} doubled, {self.lost} lost, {self.presented_again} presented again"
            )
            lines.append(f"  p50 {self.p50_milliseconds:.0f} ms, p99 {self.p99_milliseconds:.0f} ms")
        for name, now in self.memory_bytes.items():
            growth = self.growth_bytes.get(name)
            said = "too few requests after the warm-up to say how it grows"
            if growth is not None:
                said = f"{growth / 1024**2:+.2f} MB per {PER_REQUESTS} requests"
            lines.append(f"  {name}: {now / 1024**2:.1f} MB, {said}")
        lines += [f"  error: {each}" for each in self.errors[:_ERRORS_SHOWN]]
        return "\n".join(lines)


def soak_paid(devnet: Devnet, town: SoakTown, *, buyers: int, seconds: float) -> Soaked:
    """Let so many buyers buy for so long, and hold what they were told against the chain."""
    keys = [PrivateKey(secrets.token_bytes(32)) for _ in range(buyers)]
    for key in keys:
        devnet.faucet(key.address, usdc=100)
    samples: Samples = {name: [] for name in town.processes}

    def sample(requests: int) -> None:
        for name, size in town.memory_bytes().items():
            samples[name].append((requests, size))

    begun = time.perf_counter()
    pace = min(SAMPLE_SECONDS, seconds / 20)
    counted = asyncio.run(buy_for(town, keys, seconds=seconds, sample=sample, sample_seconds=pace))
    took = time.perf_counter() - begun
    return _judged(devnet, town, counted, took, samples)


def _judged(devnet: Devnet, town: SoakTown, counted: Counted, took: float, samples: Samples) -> Soaked:
    payee = "0x" + town.pay_to[2:].lower().rjust(64, "0")
    used = [log["topics"][2] for log in _logs(devnet, ["0x" + AUTHORIZATION_USED_TOPIC.hex()])]
    transfers = _logs(devnet, ["0x" + TRANSFER_TOPIC.hex(), None, payee])
    wrong = [log for log in transfers if int(log["data"], 16) != AMOUNT]
    on_chain, told = set(used), {"0x" + nonce.hex() for nonce in counted.settled}
    unsure = {"0x" + nonce.hex() for nonce in counted.unsettled}
    errors = list(counted.errors)
    if wrong:
        errors.append(f"{len(wrong)} transfers of another amount")
    if devnet.usdc_balance(town.pay_to) != AMOUNT * len(transfers):
        errors.append("the payee's balance is not the sum of the transfers")
    hashes = {log["transactionHash"] for log in transfers}
    errors += [f"told of {each}, which moved nothing" for each in set(counted.settled.values()) - hashes]
    return Soaked(
        what=f"paid on {devnet.node}",
        requests=counted.requests,
        seconds=took,
        errors=tuple(errors),
        purchases=len(counted.settled),
        transfers=len(transfers),
        doubled=len(used) - len(on_chain) + len(on_chain - told - unsure),
        lost=len(told - on_chain),
        presented_again=counted.presented_again,
        p50_milliseconds=1_000 * counted.percentile_seconds(0.50),
        p99_milliseconds=1_000 * counted.percentile_seconds(0.99),
        growth_bytes=growth(samples, warm_up=WARM_UP_PAID),
        memory_bytes=town.memory_bytes(),
    )


def _logs(devnet: Devnet, topics: Sequence[str | None]) -> list[dict[str, Any]]:
    """All logs of the token, a range of blocks at a time."""
    found: list[dict[str, Any]] = []
    for first in range(0, devnet.block_number() + 1, _LOGS_BLOCKS):
        query = {"address": devnet.usdc, "fromBlock": hex(first), "toBlock": hex(first + _LOGS_BLOCKS - 1)}
        found += devnet.rpc("eth_getLogs", {**query, "topics": list(topics)})
    return found


def soak_unpaid(town: SoakTown, *, requests: int, chunk: int = UNPAID_CHUNK) -> Soaked:
    """Ask for the offer so many times, and look at the memory between."""
    asked, begun = 0, time.perf_counter()
    samples: Samples = {name: [] for name in town.processes if name != "facilitator"}
    while asked < requests:
        count = min(chunk, requests - asked)
        send_all(town.port, [request_bytes(PATH)] * count, status=402)
        asked += count
        memory = town.memory_bytes()
        for name, seen in samples.items():
            seen.append((asked, memory[name]))
    return Soaked(
        what="402 answers",
        requests=asked,
        seconds=time.perf_counter() - begun,
        growth_bytes=growth(samples, warm_up=WARM_UP_UNPAID),
        memory_bytes={name: seen[-1][1] for name, seen in samples.items()},
    )


def growth(samples: Samples, *, warm_up: int) -> dict[str, int]:
    """Bytes per 100,000 requests by process, after the warm-up; nothing where too little comes after it to say.

    The warm-up is a share of the samples, and `warm_up` requests at least.
    """
    found: dict[str, int] = {}
    for name, seen in samples.items():
        settled = [each for each in seen[int(len(seen) * WARM_UP_SHARE) :] if each[0] >= warm_up]
        requests = [count for count, _ in settled]
        if len(set(requests)) >= _SAMPLES_MIN and requests[-1] - requests[0] >= JUDGED_MIN:
            line = statistics.linear_regression(requests, [size for _, size in settled])
            found[name] = round(line.slope * PER_REQUESTS)
    return found


def soak(
    nodes: Iterable[NodeName], *, buyers: int = BUYERS, seconds: float = SECONDS, unpaid: int = UNPAID
) -> Iterable[Soaked]:
    """Soak on each node in turn; the 402s come after the first. Raises `FileNotFoundError` at once without anvil."""
    programs = {node: anvil_program() if node == "anvil" else None for node in nodes}
    for node, program in programs.items():
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="farthing-soak-")))
            devnet = stack.enter_context(start_devnet(node, anvil_program=program))
            town = stack.enter_context(open_town(devnet, folder, workers=WORKERS))
            yield soak_paid(devnet, town, buyers=buyers, seconds=seconds)
            if unpaid:
                yield soak_unpaid(town, requests=unpaid, chunk=max(1, min(UNPAID_CHUNK, unpaid // 20)))
                unpaid = 0


def main(arguments: list[str]) -> int:
    """Soak; 0 where there was no error, nothing doubled or lost, and memory was flat."""
    parser = argparse.ArgumentParser(
        prog="python -m bench soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--node", action="append", choices=("py-evm", "anvil"), help="both by default")
    parser.add_argument("--buyers", type=int, default=BUYERS, help="at once (%(default)s)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="on each node (%(default)s)")
    parser.add_argument("--unpaid", type=int, default=UNPAID, help="requests that get a 402 (%(default)s)")
    parser.add_argument("--ignore-memory", action="store_true", help="for a run that is too short to show growth")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line, and nothing else")
    options = parser.parse_args(arguments)
    print(machine.to_text(), file=sys.stderr if options.json else sys.stdout, flush=True)
    good = True
    nodes = cast("list[NodeName]", options.node or ["py-evm", "anvil"])
    for found in soak(nodes, buyers=options.buyers, seconds=options.seconds, unpaid=options.unpaid):
        slow = found.flat is None and found.what == _SLOW
        good = good and found.held and (found.flat is True or slow or options.ignore_memory)
        shown = {**msgspec.to_builtins(found), "held": found.held, "flat": found.flat}
        print(json.dumps(shown) if options.json else found.to_text(), flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
