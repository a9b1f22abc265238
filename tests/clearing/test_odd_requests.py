"""What callers may send and nobody sane does: it is answered as the document says, with either engine (A3)."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from serving import Served, Town, serving
from town import NOON, Crawler, House

from farthing.clearing.store import CloseLease
from farthing.protocol.clearing import Lease, LeaseClose
from farthing.protocol.messages import TEXT_MAX_CHARS, URL_MAX_CHARS
from farthing.services.clearing.api import ORIGIN_MAX_CHARS


@pytest.fixture
def town(devnet_pyevm: Any, tmp_path: Path) -> Town:
    return Town(devnet_pyevm, tmp_path)


def serve(town: Town, store: str, story: Callable[[Served], Any]) -> None:
    """Serve a house over a store, and tell a story of it."""

    async def run() -> None:
        async with serving(town, town.facilitator(), store=store) as served:
            await story(served)

    asyncio.run(run())


def test_A3_no_name_text_or_number_is_too_odd_to_be_answered(town: Town, store_url: str) -> None:
    async def story(served: Served) -> None:
        operator = served.operator
        edge = await served.client("edge-1", "edge", "news")
        for path in ("/payees/a%00b", "/lists/a%00b", "/statements/a%00/page", f"/payees/{'a' * 301}"):
            assert (await operator.get(path, status=404))["detail"]
        assert await operator.get("/statements?state=%00") == []
        too_long = f"/standing?payer={'a' * (URL_MAX_CHARS + 1)}"
        assert (await operator.get(too_long, status=400))["detail"]
        for after in ("9" * 30, "9" * 5_000, "\u0663", "-1", "x"):
            for what in ("windows", "audit", "tokens", "movements"):
                assert "entries" in await operator.get(f"/lists/{what}?after={quote(after)}")
        suspense = {"transaction": "0x1", "payer": "https://crawler.example"}
        await operator.post("/suspense", suspense | {"logIndex": 2**53 - 1}, status=409)
        for index in (2**53, 2**63, 2**64, -1):
            refused = await operator.post("/suspense", suspense | {"logIndex": index}, status=400)
            assert refused["path"] == "$.logIndex"
        odd = {"payer": "https://crawler.example", "state": "active", "why": "\x00 \u202e"}
        await operator.post("/payers/state", odd, status=404)
        # What is said of a long name is no longer than a text may be.
        long = "https://" + secrets.token_hex(URL_MAX_CHARS // 2 - 4)
        lease = {"edge": "edge-1", "epoch": 1, "request": "r", "payer": long, "amount": "9" * 77, "currency": "USD"}
        assert len((await edge.post("/leases", lease | {"seconds": 60}, status=402))["detail"]) == TEXT_MAX_CHARS
        assert (await operator.post("/payers", {"payer": long, "creditLimit": "1"}, status=400))["path"] == "$.payer"
        await operator.post("/payers", {"payer": long[:ORIGIN_MAX_CHARS], "creditLimit": "1"})
        assert (await operator.get(f"/standing?payer={long[:ORIGIN_MAX_CHARS]}"))["state"] == "active"
        longest = {"payee": "\U0001f600" * 128, "domain": "a" * 253, "address": town.address("payee")}
        assert (await operator.post("/payees", longest))["payee"] == longest["payee"]

    serve(town, store_url, story)


def test_C4_a_sum_that_no_column_holds_closes_no_lease(house: House) -> None:
    crawler = Crawler()
    house.open(crawler)
    lease = house.lease(crawler, 1_000_000)
    assert isinstance(lease, Lease)
    for total in (str(2**63), "9" * 78):
        closed = house.ask(CloseLease("edge-1", LeaseClose(lease.lease, 0, 0, total), NOON))
        assert closed.closed is False
