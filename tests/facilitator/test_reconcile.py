"""Reconciliation for operators: what became of every payment, with evidence, and whether the ledger says the same."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from crashes import cancel, send

from farthing.evm.calls import transfer_with_authorization_vrs
from farthing.facilitator.chain import Head
from farthing.facilitator.reconcile import COULD_NOT, NOT_SETTLED, SETTLED, find_out
from farthing.facilitator.store import PaymentRecord
from farthing.mechanisms.exact_evm import ExactEvmFacilitator
from farthing.mechanisms.interface import Evidence, Spent, SpentOtherwise, Unspent
from farthing.protocol.facilitator import Settled

AMOUNT = 12_345
HASH = "0x" + "ab" * 32


def record(state: str) -> PaymentRecord:
    return PaymentRecord(
        payment_id="pay_1",
        state=state,
        scheme="exact",
        network="eip155:1",
        asset="0x",
        payer="0xa",
        pay_to="0xb",
        amount=5,
        valid_before=1_000,
        fingerprint="",
        requirements_print="",
        created_at=1,
        recorded_block=10,
        gas_limit=1,
    )


def block(number: int, time_seconds: int) -> Head:
    return Head(number, HASH, time_seconds, 1)


@pytest.mark.parametrize(
    ("state", "evidence", "times", "booked", "expected"),
    [
        ("confirmed", Spent(HASH, 18, HASH, 2), (500, 500), 5, (SETTLED, True)),
        ("in_batch", Spent(HASH, 18, HASH, 2), (500, 500), 0, (SETTLED, True)),
        ("in_batch", Spent(HASH, 20, HASH, 2), (500, 500), 0, (COULD_NOT, True)),
        ("in_batch", Spent(HASH, 10, HASH, 2), (500, 500), 0, (NOT_SETTLED, True)),
        ("confirmed", Spent(HASH, 18, HASH, 2), (500, 500), 0, (SETTLED, False)),
        ("refused", Spent(HASH, 18, HASH, 2), (500, 500), 0, (SETTLED, False)),
        ("confirmed", SpentOtherwise("used", HASH, 12), (500, 500), 5, (NOT_SETTLED, False)),
        ("received", SpentOtherwise("used", HASH, 20), (500, 500), 0, (COULD_NOT, True)),
        ("received", SpentOtherwise("used"), (500, 500), 0, (NOT_SETTLED, True)),
        ("in_batch", Unspent(), (999, 900), 0, (COULD_NOT, True)),
        ("in_batch", Unspent(), (1_000, 900), 0, (COULD_NOT, True)),
        ("in_batch", Unspent(), (1_100, 1_000), 0, (NOT_SETTLED, True)),
        ("in_batch", Unspent(), (1_100, 1_000), 5, (NOT_SETTLED, False)),
        ("confirmed", Unspent(), (1_100, 1_000), 5, (NOT_SETTLED, False)),
    ],
)
def test_F2_evidence_decides_and_nothing_is_guessed(
    state: str, evidence: Evidence, times: tuple[int, int], booked: int, expected: tuple[str, bool]
) -> None:
    head, final = block(20, times[0]), block(15, times[1])
    found = find_out(record(state), evidence, head=head, final=final, depth=2, booked=booked)
    assert (found.verdict, found.agrees) == expected
    without = find_out(record(state), Unspent(), head=head, final=None, depth=2, booked=0)
    assert without.verdict == COULD_NOT


def reconcile(world: Any, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Run the command; its exit code, what it says of each payment (with --json), and all that it printed."""
    path: Path = world.folder / "farthing.toml"
    path.write_text(world.config_text)
    # Without the key.
    environment = {name: value for name, value in world.environment.items() if name != "WALLET_KEY"}
    command = [sys.executable, "-m", "farthing", "facilitator", "reconcile", "--config", str(path), *arguments]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    said = [json.loads(line) for line in ran.stdout.splitlines()] if "--json" in arguments else []
    return ran.returncode, {each["payment_id"]: each for each in said}, ran.stdout + ran.stderr


def test_F2_every_payment_that_is_not_over_is_found_out_about(pyevm: Any, held_wallet: Any, eventually: Any) -> None:
    good, waits, cancelled, taken = (pyevm.payment() for _ in range(4))

    async def put_on_record() -> None:
        async with pyevm.service() as service:
            assert isinstance(await service.settle(*good, idempotency_key="k"), Settled)
        with held_wallet(pyevm):
            async with pyevm.service() as service:
                calls = [
                    asyncio.create_task(service.settle(*each, idempotency_key="k"))
                    for each in (waits, cancelled, taken)
                ]
                await eventually(lambda: len(service.books.payments(state="received")) == 3)
                service.drain()
                await asyncio.gather(*calls)

    asyncio.run(put_on_record())
    pyevm.devnet.faucet(pyevm.payer.address, eth=1)
    cancel(pyevm, cancelled)
    # A front-runner submits what it saw.
    detail = ExactEvmFacilitator().read(taken.payload).detail
    call = transfer_with_authorization_vrs(detail.message, detail.signature)
    send(pyevm, pyevm.payer, pyevm.devnet.usdc, call)
    code, said, text = reconcile(pyevm, "--json")
    assert code == 5, text
    verdicts = {payment_id: each["verdict"] for payment_id, each in said.items()}
    assert verdicts == {
        good.payment_id: "settled",
        waits.payment_id: "could_not",
        cancelled.payment_id: "not_settled",
        taken.payment_id: "settled",
    }
    assert all(each["agrees"] for each in said.values())
    for payment in (good, taken):
        evidence = said[payment.payment_id]
        receipt = pyevm.devnet.wait_for_receipt(evidence["transaction"])
        assert evidence["block_number"] == int(receipt["blockNumber"], 16)
        assert evidence["log_index"] in {int(log["logIndex"], 16) for log in receipt["logs"]}
    code, _, text = reconcile(pyevm)
    assert code == 5
    assert "2 settled, 1 not settled, 1 could not find out; the ledger agrees." in text
    # Once its window is over in a finalised block, the last one is known, too.
    with pyevm.devnet.rewound():
        pyevm.devnet.increase_time(400)
        pyevm.devnet.mine(5)
        code, said, text = reconcile(pyevm, "--json")
        assert (code, said[waits.payment_id]["verdict"]) == (0, "not_settled"), text


def test_F3_without_a_node_nothing_is_said_to_be_known(pyevm: Any) -> None:
    async def settle() -> None:
        async with pyevm.service() as service:
            assert isinstance(await service.settle(*pyevm.payment(), idempotency_key="k"), Settled)

    asyncio.run(settle())
    away = pyevm.config_text.replace(pyevm.devnet.url, "http://127.0.0.1:9")
    pyevm.__class__ = type("Away", (pyevm.__class__,), {"config_text": away})
    code, said, text = reconcile(pyevm, "--json")
    assert (code, [each["verdict"] for each in said.values()]) == (5, ["could_not"]), text


def test_C1_a_ledger_that_lacks_a_payment_is_seen(pyevm: Any) -> None:
    async def settle() -> None:
        async with pyevm.service() as service:
            assert isinstance(await service.settle(*pyevm.payment(), idempotency_key="k"), Settled)

    asyncio.run(settle())
    assert reconcile(pyevm, "--all")[0] == 0
    with closing(sqlite3.connect(pyevm.folder / "facilitator.sqlite3", isolation_level=None)) as at:
        # As somebody would who has the file and no scruples.
        at.execute("DROP TRIGGER ledger_entries_no_delete")
        at.execute("DELETE FROM ledger_entries WHERE account LIKE 'pay%'")
    code, _, text = reconcile(pyevm)
    assert code == 1
    assert "THE LEDGER DIFFERS" in text


def test_a_store_that_is_not_there_is_not_made(pyevm: Any) -> None:
    code, _, text = reconcile(pyevm)
    assert code == 2
    assert "There is no store" in text
    assert not (pyevm.folder / "facilitator.sqlite3").exists()
