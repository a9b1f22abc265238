"""What the facilitator keeps in memory: nothing of what is over (A1)."""

from __future__ import annotations

import asyncio
import functools
import gc
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from bench import canned
from bench.canned import CannedChain
from bench.purchases import OFFER, key, purchases

from farthing.facilitator.fees import FeeCaps
from farthing.networks import KNOWN, Network
from farthing.protocol.codec import decode_payment_json
from farthing.protocol.facilitator import Settled
from farthing.services.facilitator import service as service_module
from farthing.services.facilitator.service import FacilitatorService

WARM_UP = 400
COUNT = 300
AT_ONCE = 100
PAYERS = 16
# Of Python's allocator: one payment that stays takes a dozen, one event or task of it three.
BLOCKS_MAX = COUNT
# How often at most, and how soon again, the memory is looked at: the loops have a page of payments at hand, now and
# then for a second, and what leaks stays.
LOOKS = 60
LOOK_SECONDS = 0.1


@asynccontextmanager
async def facilitator(folder: Path) -> AsyncGenerator[FacilitatorService]:
    known = KNOWN.find(OFFER.network)
    assert known is not None
    network = Network(
        caip2=known.caip2, name=known.name, confirmations=known.confirmations, block_time_milliseconds=100
    )
    made = FacilitatorService(
        networks=KNOWN.with_network(network),
        assets=frozenset({(OFFER.network, OFFER.asset.lower())}),
        node_urls={OFFER.network: ("http://127.0.0.1:9",)},
        signers=(key(0),),
        store=folder / "facilitator.sqlite3",
        caps=FeeCaps(10**10, 10**6),
    )
    async with made:
        yield made


async def settle(service: FacilitatorService, first: int, count: int) -> None:
    """Settle new payments, so many at once."""
    for start in range(first, first + count, AT_ONCE):
        made = purchases(AT_ONCE, int(time.time()), first=start, payers=PAYERS)
        payments = [decode_payment_json(each.payment_json) for each in made]
        answers = await asyncio.gather(
            *(
                service.settle(payment, OFFER, idempotency_key=f"{start} {number}")
                for number, payment in enumerate(payments)
            )
        )
        assert all(isinstance(answer, Settled) for answer in answers)


def blocks() -> int:
    """What Python holds beside our bounded caches."""
    for each in gc.get_objects():
        if isinstance(each, functools._lru_cache_wrapper) and (each.__module__ or "").startswith("farthing."):
            each.cache_clear()
    gc.collect()
    return sys.getallocatedblocks()


async def least(enough: int) -> int:
    """The least that is held in a while; no more looks are needed once it is less than `enough`."""
    found = blocks()
    for _ in range(LOOKS):
        if found < enough:
            break
        await asyncio.sleep(LOOK_SECONDS)
        found = min(found, blocks())
    return found


@pytest.mark.alone
def test_A1_payments_that_are_over_leave_nothing_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "Nodes", CannedChain)
    monkeypatch.setattr(canned, "BLOCKS_KEPT", 4)

    async def main() -> int:
        async with facilitator(tmp_path) as service:
            await settle(service, 0, WARM_UP)
            before = await least(0)
            await settle(service, WARM_UP, COUNT)
            (lane,) = service.lanes
            assert (lane.assigned, lane.entries, lane.lingering, len(service.waiting)) == (set(), {}, {}, 0)
            return await least(before + BLOCKS_MAX) - before

    assert asyncio.run(main()) < BLOCKS_MAX
