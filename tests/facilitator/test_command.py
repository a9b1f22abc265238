"""The command `farthing facilitator`, as an operator runs it."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from farthing.protocol.facilitator import Settled


@pytest.fixture
def config(pyevm: Any) -> Path:
    path: Path = pyevm.folder / "farthing.toml"
    path.write_text(pyevm.config_text)
    return path


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "farthing", "facilitator", *arguments]


def run(pyevm: Any, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), env=pyevm.environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_check_says_whether_all_is_as_it_should_be(pyevm: Any, config: Path) -> None:
    checked = run(pyevm, "--config", str(config), "--check")
    assert checked.returncode == 0, checked.stderr
    assert pyevm.wallet.address in checked.stdout
    assert f"{pyevm.devnet.network}   answers" in checked.stdout
    config.write_text(pyevm.config_text.replace(pyevm.devnet.network, "eip155:8453"))
    wrong = run(pyevm, "--config", str(config), "--check")
    assert wrong.returncode == 1
    assert "another chain" in wrong.stdout


def test_A3_a_mistake_is_one_line_on_stderr(pyevm: Any, config: Path) -> None:
    for arguments, said in (
        (("--host", "0.0.0.0"), "no bearer token is configured"),  # noqa: S104 - what is refused
        (("--log-level", "loud"), "--log-level loud"),
    ):
        refused = run(pyevm, "--config", str(config), *arguments)
        assert refused.returncode == 2
        assert said in refused.stderr
        assert len(refused.stderr.strip().splitlines()) == 1


def test_ctrl_c_answers_who_waits_and_the_payment_goes_on_at_the_next_start(
    pyevm: Any, config: Path, eventually: Any
) -> None:
    payment = pyevm.payment()
    pyevm.devnet.set_automine(enabled=False)
    process = subprocess.Popen(
        command("--config", str(config), "--port", "0", "--json"),
        env=pyevm.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        assert process.stderr
        ready = json.loads(process.stdout.readline())
        assert ready["ready"]
        assert ready["wallet"] == pyevm.wallet.address
        answers: list[httpx.Response] = []
        settling = threading.Thread(
            target=lambda: answers.append(httpx.post(ready["url"] + "/settle", content=payment.body, timeout=30))
        )
        settling.start()
        for line in process.stderr:
            if json.loads(line)["event"] == "signed":
                break
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        settling.join(30)
        answer = answers[0].json()
        assert (answer["success"], answer["errorReason"]) == (False, "settlement_pending")
        assert answer["transaction"]
    finally:
        process.kill()
        process.communicate()
        pyevm.devnet.mine()
        pyevm.devnet.set_automine(enabled=True)

    async def restart() -> None:
        async with pyevm.service() as service:
            await eventually(lambda: service.books.payments(state="confirmed"))
            # Told pending, its caller gave up its place: the next call of the same caller takes it.
            outcome = await service.settle_as("loopback", *payment)
            assert outcome.success
            assert outcome.transaction == answer["transaction"]
            assert not isinstance(await service.settle(*payment, idempotency_key=""), Settled)

    asyncio.run(restart())
