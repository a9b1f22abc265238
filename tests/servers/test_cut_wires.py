"""S2, S3, S9: the wire is cut before, in and after each message; then chain, ledger and answers are compared."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import httpx2
import pytest
from selling_town import AMOUNT, BODY, Counted, Purchase, http_client, town
from wire_cutter import Cut, Cutter, Rule

from farthing.buyer import Policy
from farthing.clients import Buyer
from farthing.clients.httpx import PayingTransport
from farthing.errors import FarthingError

# Each exchange of a purchase, and how many it takes until one is cut: what the buyer sends once it has paid, and what
# the seller asks of its facilitator.
TO_THE_SELLER = "GET "
TO_THE_FACILITATOR = ("POST /verify", "POST /settle")
# How often a buyer asks again whose wire was cut once.
TRIES_MAX = 3


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
    how = "with a payment-identifier, as buyers come" if identified else "WITHOUT ONE: the wire's own limit, 2 lost"
    print(f"\n{path}, buyer and seller, {how}: {len(done)} cuts, {counted}")
    # An answer whose last bytes had left when the wire was cut is gone, and its payment used, which no server can know
    # of: who sends an id has it again. Farthing's sellers declare them, and its buyers send them, unless told not to.
    assert counted == Counted(len(Cut), len(Cut), lost=0 if identified else 2, doubled=0, free=0)
    assert [each.end for each in purchases if not each.served] == ([] if identified else ["payment-used"] * 2)


def test_S7_S9_a_buyer_and_a_seller_as_they_come_lose_nothing_where_the_wire_is_cut(local: Any, tmp_path: Path) -> None:
    """Neither of them is told of payment-identifiers: that they use them is the default of both."""
    bodies: list[bytes] = []

    def buy(buyer: Buyer, url: str) -> bool:
        # Whatever the library or the buyer says of a wire that was cut: the same purchase is made again.
        with (
            contextlib.suppress(FarthingError, httpx2.HTTPError),
            httpx2.Client(transport=PayingTransport(buyer), timeout=30) as client,
        ):
            answer = client.get(url)
            assert answer.status_code == 200, answer.text
            bodies.append(answer.content)
            return True
        return False

    async def run() -> tuple[list[Rule], int, dict[str, int]]:
        with town(local, tmp_path) as street:
            policy = Policy(networks=[local.devnet.network], total="$1")
            seller = await street.start()
            async with Cutter(seller.url) as wire:
                with Buyer(signer=street.key, policy=policy, journal=tmp_path / "j", networks=local.networks) as buyer:
                    for number, cut in enumerate(Cut):
                        # The first request gets the offer; the one that pays is cut.
                        wire.rules += [Rule(TO_THE_SELLER, None), Rule(TO_THE_SELLER, cut)]
                        url = f"{wire.url}/kept?{number}"
                        assert not await asyncio.to_thread(buy, buyer, url) or cut is Cut.AFTER_ANSWER
                        for _ in range(TRIES_MAX):
                            if len(bodies) > number or await asyncio.to_thread(buy, buyer, url):
                                break
                return wire.done, street.balance(), street.spent()

    done, balance, spent = asyncio.run(run())
    assert [each.cut for each in done if each.cut] == list(Cut)
    assert bodies == [BODY] * len(Cut)
    assert (balance, list(spent.values())) == (len(Cut) * AMOUNT, [1] * len(Cut))
    print(f"\n/kept, Farthing's buyer and seller, cut where they pay: {len(bodies)} cuts, {len(spent)} paid, 0 lost")


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
