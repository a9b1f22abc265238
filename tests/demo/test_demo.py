"""The main job, as a newcomer runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "farthing", "demo"]
# What a loaded machine may take; it runs in four seconds.
TIMEOUT_SECONDS = 120


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(folder), "COLUMNS": "200"}


@pytest.mark.parametrize("node", ["py-evm", "anvil"])
def test_the_demo_buys_from_every_route_and_its_books_agree(node: str, tmp_path: Path, anvil_program: str) -> None:
    path = f"{Path(anvil_program).parent}{os.pathsep}{os.environ['PATH']}"
    run = subprocess.run(
        [*COMMAND, "--node", node, "--json"],
        env={**environment(tmp_path), "PATH": path},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout.splitlines()[-1])
    assert {name: result[name] for name in ("payments", "settled", "spent", "asset", "reconciled")} == {
        "payments": 4,
        "settled": 4,
        "spent": "0.031",
        "asset": "USDC",
        "reconciled": True,
    }
    for shown in (
        "402 Payment Required",
        "0.015 USDC (15000 atomic units)",
        "signs EIP-712 TransferWithAuthorization",
        "validBefore",
        "PAYMENT-SIGNATURE",
        "verified",
        "gas used",
        "Transfer",
        "200 OK",
        "journal = ledger = Transfer logs",
    ):
        assert shown in run.stdout, shown
    assert list(tmp_path.glob("farthing-*")) == []


def test_ctrl_c_in_the_middle_ends_every_part_and_leaves_nothing(tmp_path: Path) -> None:
    with subprocess.Popen(COMMAND, env=environment(tmp_path), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "signs EIP-712" in line:
                break
        children = children_of(process.pid)
        assert len(children) >= 3  # chain, facilitator, shop
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait(TIMEOUT_SECONDS) == 130
    assert [pid for pid in children if Path(f"/proc/{pid}").exists()] == []
    assert list(tmp_path.glob("farthing-*")) == []


def test_an_unknown_node_is_a_mistake_that_is_named() -> None:
    run = subprocess.run([*COMMAND, "--node", "geth"], capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert run.stderr == "farthing: --node geth: there are py-evm and anvil.\n"


def children_of(pid: int) -> list[int]:
    folder = Path(f"/proc/{pid}/task/{pid}/children")
    if not folder.exists():
        pytest.skip("the kernel does not list children")
    # Threads start children too.
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text(encoding="ascii").split()]
