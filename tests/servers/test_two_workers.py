"""S1: one payment, one serving, over two worker processes on one store, of either engine."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from farthing_selling import sign

from farthing.world.seller_store import SellerStore

COPIES = 100
WORKER = Path(__file__).parent / "worker.py"


@pytest.fixture(params=["authorization", "upfront"])
def workers(request: pytest.FixtureRequest, tmp_path: Path, store_url: str) -> Iterator[list[str]]:
    processes = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(tmp_path), request.param, store_url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        bases = []
        for process in processes:
            assert process.stdout is not None
            bases.append(f"http://127.0.0.1:{int(process.stdout.readline())}")
        yield bases
    finally:
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in processes:
            process.wait(20)


def test_S1_a_hundred_copies_over_two_workers_run_once_and_settle_once(
    workers: list[str], tmp_path: Path, store_url: str
) -> None:
    async def storm() -> list[tuple[int, dict[str, str], bytes]]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:

            async def get(base: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
                async with client.get(base + "/once", headers=headers) as answer:
                    return answer.status, dict(answer.headers), await answer.read()

            offers = await asyncio.gather(*(get(base, {}) for base in workers))
            assert [status for status, _, _ in offers] == [402, 402]
            paid = {"PAYMENT-SIGNATURE": sign(offers[0][1]["payment-required"])}
            return list(await asyncio.gather(*(get(workers[index % 2], paid) for index in range(COPIES))))

    got = asyncio.run(storm())
    assert sorted(status for status, _, _ in got) == [200] + [409] * (COPIES - 1)
    assert len((tmp_path / "ran").read_text().splitlines()) == 1
    assert len((tmp_path / "settled").read_text().splitlines()) == 1
    problems: list[dict[str, Any]] = [json.loads(body) for status, _, body in got if status == 409]
    store = SellerStore(store_url)
    (row,) = store.payments()
    assert {problem["paymentId"] for problem in problems} == {row.payment_id}
    assert all(problem["detail"] for problem in problems)
    assert len(store.ledger()) == 1
    store.close()
