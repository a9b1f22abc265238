"""S2, S3, S9: the wire is cut before, in and after each message; then chain, ledger and answers are compared."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from selling_town import Counted, Purchase, http_client, town
from wire_cutter import Cut, Cutter, Rule

# Each exchange of a purchase, and how many it takes until one is cut: what the buyer sends once it has paid, and what
# the seller asks of its facilitator.
TO_THE_SELLER = "GET "
TO_THE_FACILITATOR = ("POST /verify", "POST /settle")


@pytest.mark.parametrize(("path", "identified"), [("/kept", True), ("/kept", False), ("/upfront", False)])
def test_S2_S7_S9_a_wire_to_the_buyer_that_is_cut_loses_and_doubles_nothing(
    local: Any, tmp_path: Path, path: str, *, identified: bool
) -> None:
    purchases: list[Purchase] = []

    async def run() -> tuple[list[Rule], Counted]:
        with town(local, tmp_path) as street:
            seller = await street.start()
            async with http_client() as client, Cutter(seller.url) as wire:
                for cut in Cut:
                    purchase = await street.offer(client, seller.url, path, identified=identified)
                    purchases.append(purchase)
                    wire.rules.append(Rule(TO_THE_SELLER + path, cut))
                    await street.send(client, wire.url, purchase)
                await street.until_the_end(client, [seller.url], purchases)
                return wire.done, street.count(purchases)

    done, counted = asyncio.run(run())
    assert [each.cut for each in done] == list(Cut)
    print(f"\n{path}, buyer and seller{', with ids' * identified}: {len(done)} cuts, {counted}")
    # An answer that was on its way when the wire was cut is gone, and its payment used: who sends an id has it again.
    assert counted == Counted(len(Cut), len(Cut), lost=0 if identified else 2, doubled=0, free=0)
    assert [each.end for each in purchases if not each.served] == ([] if identified else ["payment-used"] * 2)


@pytest.mark.parametrize("path", ["/kept", "/unkept", "/upfront"])
def test_S2_S3_a_wire_to_the_facilitator_that_is_cut_loses_and_doubles_nothing(
    local: Any, tmp_path: Path, path: str
) -> None:
    async def run() -> tuple[list[Rule], Counted]:
        purchases: list[Purchase] = []
        async with Cutter(local.facilitator_url) as wire:
            with town(local, tmp_path, facilitator=wire.url) as street:
                seller = await street.start()
                async with http_client() as client:
                    for words in TO_THE_FACILITATOR:
                        for cut in Cut:
                            purchase = await street.offer(client, seller.url, path)
                            purchases.append(purchase)
                            wire.rules.append(Rule(words, cut))
                            await street.send(client, seller.url, purchase)
                            wire.rules.clear()
                    await street.until_the_end(client, [seller.url], purchases)
                    return wire.done, street.count(purchases)

    done, counted = asyncio.run(run())
    assert len(done) == len(TO_THE_FACILITATOR) * len(Cut)
    print(f"\n{path}, seller and facilitator: {len(done)} cuts, {counted}")
    assert (counted.lost, counted.doubled, counted.free) == (0, 0, 0)
