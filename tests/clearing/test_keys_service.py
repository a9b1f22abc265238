"""Keys declared compromised over HTTP: who may, and what stands."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from serving import Parties, Town, serving, website

from farthing.protocol.clearing import KEY_CACHE_SECONDS

OTHER = "https://other.example"


@pytest.fixture
def town(devnet_pyevm: Any, tmp_path: Path) -> Town:
    return Town(devnet_pyevm, tmp_path)


def test_C5_a_payer_and_the_operator_declare_keys_and_the_first_word_stands(town: Town) -> None:
    async def run() -> None:
        texts: dict[str, str] = {}
        with website(texts) as authority:
            async with town.facilitator() as facilitator, serving(town, facilitator, private=authority) as served:
                parties = await Parties(town, served, authority).open(texts)
                operator, payer, directory = served.operator, parties.payer, town.crawler.directory
                key, now = town.crawler.key.public_key.thumbprint, int(time.time())
                assert "compromised" not in await payer.get("/standing")
                # A time in the future is none; others' keys are none of a payer's; nor is a key that could not be one.
                await payer.post("/payers/keys", {"thumbprint": key, "since": now + 600}, status=400)
                await payer.post("/payers/keys", {"thumbprint": key, "payer": OTHER}, status=403)
                await parties.edge.post("/payers/keys", {"thumbprint": key}, status=403)
                await operator.post("/payers/keys", {"thumbprint": key, "payer": OTHER}, status=404)
                await operator.post("/payers/keys", {"thumbprint": key}, status=404)
                await payer.post("/payers/keys", {"thumbprint": "short"}, status=400)
                first = await payer.post("/payers/keys", {"thumbprint": key, "since": 0})
                assert (first["since"], first["declaredBy"], first["payer"]) == (0, "crawler", directory)
                # Whatever it says of the past, it owes what edges took until they had to know.
                assert now <= first["declared"] == first["billedUntil"] - KEY_CACHE_SECONDS
                again = {"thumbprint": key, "payer": directory, "since": now}
                assert first == await operator.post("/payers/keys", again) == await payer.post("/payers/keys", again)
                assert (await operator.get("/lists/audit"))["entries"][-1]["what"] == "declare compromised"
                (listed,) = (await operator.get("/lists/keys"))["entries"]
                assert (listed["thumbprint"], listed["declared_by"]) == (key, "crawler")
                assert (await payer.get("/standing"))["compromised"] == [key]
                epoch = (await parties.edge.post("/edges/edge-1/start"))["epoch"]
                asked = {"edge": "edge-1", "epoch": epoch, "request": "r1", "payer": directory, "currency": "USD"}
                lease = await parties.edge.post("/leases", asked | {"amount": "1000000", "seconds": 60})
                assert lease["compromised"] == [key]
                status = await operator.get("/payees/news")
                assert (status["accrued"], status["borne"]) == ("0", "0")

    asyncio.run(run())
