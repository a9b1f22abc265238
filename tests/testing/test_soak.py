"""The soak in short: it counts what it says it counts, and would notice what it says it notices."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from bench.soak import GROWTH_MAX_BYTES, Soaked, growth

ROOT = Path(__file__).parents[2]


@pytest.mark.usefixtures("anvil_program")
@pytest.mark.parametrize("node", ["py-evm", "anvil"])
def test_a_short_soak_holds(node: str) -> None:
    command = [sys.executable, "-m", "bench", "soak", "--node", node, "--buyers", "12", "--seconds", "3"]
    command += ["--unpaid", "400", "--ignore-memory", "--json"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    paid, unpaid = (json.loads(line) for line in ran.stdout.splitlines())
    assert paid["errors"] == []
    assert paid["purchases"] == paid["transfers"] >= 12
    assert (paid["doubled"], paid["lost"], paid["held"]) == (0, 0, True)
    assert 0 < paid["p50_milliseconds"] <= paid["p99_milliseconds"]
    assert set(paid["memory_bytes"]) == {"facilitator", "worker 1", "worker 2"}
    assert unpaid["requests"] == 400
    assert set(unpaid["memory_bytes"]) == {"worker 1", "worker 2"}
    # Seconds say nothing about memory, and nothing is said.
    assert paid["growth_bytes"] == unpaid["growth_bytes"] == {}
    assert paid["flat"] is unpaid["flat"] is None


def test_what_grows_is_told_by_the_request() -> None:
    flat = [(count, 50_000_000) for count in range(0, 90_000, 10_000)]
    # What fills in the first third is no growth; a kilobyte a request afterwards is a hundred megabytes.
    filling = [(count, 10_000_000 + min(count, 20_000) * 1_000) for count in range(0, 90_000, 10_000)]
    leaking = [(count, 50_000_000 + count * 1_024) for count in range(0, 90_000, 10_000)]
    found = growth({"flat": flat, "filling": filling, "leaking": leaking, "short": flat[:3]}, warm_up=10_000)
    assert found["flat"] == found["filling"] == 0
    assert found["leaking"] == 100_000 * 1_024
    assert "short" not in found
    # What fills until the warm-up's end is no growth either, and what grows after it is.
    late = [(count, 10_000_000 + min(count, 50_000) * 1_000) for count in range(0, 90_000, 10_000)]
    assert growth({"late": late}, warm_up=50_000)["late"] == 0
    assert growth({"late": late}, warm_up=10_000)["late"] > GROWTH_MAX_BYTES
    assert growth({"late": late}, warm_up=70_000) == {}
    # A moment's memory, over a few hundred requests, is no growth of megabytes.
    brief = [(10_000 + 10 * sample, 50_000_000 + 4_096 * (sample % 3)) for sample in range(100)]
    assert growth({"brief": brief}, warm_up=10_000) == {}


def soaked(**changes: object) -> Soaked:
    facts = {"what": "x", "requests": 10, "seconds": 1.0, "purchases": 9, "transfers": 9} | changes
    return Soaked(**facts)  # type: ignore[arg-type] # as they are


@pytest.mark.parametrize(
    "changes", [{"errors": ("500",)}, {"doubled": 1}, {"lost": 1}, {"transfers": 10}, {"transfers": 8}], ids=str
)
def test_what_did_not_hold_is_said(changes: dict[str, object]) -> None:
    assert soaked().held
    assert not soaked(**changes).held
    memory = {"worker 1": 50_000_000}
    assert soaked(growth_bytes={"worker 1": GROWTH_MAX_BYTES - 1}, memory_bytes=memory).flat is True
    assert soaked(growth_bytes={"worker 1": GROWTH_MAX_BYTES}, memory_bytes=memory).flat is False
    # Of one process too little is known: nothing is claimed of all.
    assert soaked(growth_bytes={"worker 1": 0}, memory_bytes={**memory, "worker 2": 50_000_000}).flat is None
