"""S1, S2, S6: sellers killed by SIGKILL at every step, and at random; then chain, ledger and answers are compared."""

from __future__ import annotations

import asyncio
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest
from crashing_seller import IN_ANSWER, IN_HANDLER, LEASE_SECONDS
from selling_town import Counted, Purchase, Running, Town, http_client, town

# They leave nothing behind, so that a crash at one of them is the crash at its neighbour.
NOTHING_DONE = {"Now", "RandomBytes", "Sleep"}
# Payments that are on their way in each process when it is killed.
TOGETHER = 2
# Processes alive at once.
ALIVE_MAX = 3
SECONDS = float(os.environ.get("FARTHING_CRASH_SECONDS", "6"))
SEED = int(os.environ.get("FARTHING_CRASH_SEED", "402"))


@pytest.fixture
def street(local: Any, tmp_path: Path) -> Any:
    with town(local, tmp_path) as made:
        yield made


async def places(street: Town, client: Any, purchase: Purchase) -> list[str]:
    """Find out where a seller can be killed: before and after each effect of one paid request."""
    whole = await street.start(count=True)
    assert await street.send(client, whole.url, purchase)
    async with client.get(whole.url + "/counts") as answer:
        counts = await answer.json(content_type=None)
    whole.kill()
    found = [
        f"{when}:{name}#{time}"
        for name, count in counts.items()
        if name not in NOTHING_DONE
        for time in range(1, count + 1)
        for when in ("before", "after")
    ]
    return [*found, IN_HANDLER, *([IN_ANSWER] if purchase.path == "/upfront" else [])]


async def offered(street: Town, client: Any, path: str, count: int) -> list[Purchase]:
    """Sign for several purchases."""
    seller = await street.start()
    purchases = [await street.offer(client, seller.url, path) for _ in range(count)]
    seller.kill()
    return purchases


async def die_at(street: Town, client: Any, place: str, purchases: list[Purchase]) -> None:
    """Have a seller killed at its place, with these payments on their way."""
    seller = await street.start(crash_at=place)
    await asyncio.gather(*(street.send(client, seller.url, each) for each in purchases))
    await seller.ended()


@pytest.mark.parametrize("path", ["/kept", "/unkept", "/upfront", "/job"])
def test_S1_S2_S6_killed_at_any_step_no_payment_is_lost_or_doubled(street: Town, path: str) -> None:
    async def run() -> tuple[int, Counted]:
        alive = asyncio.Semaphore(ALIVE_MAX)
        async with http_client() as client:
            purchases = await offered(street, client, path, 1)
            where = await places(street, client, purchases[0])
            assert {"before:MakeClaim#1", "after:MakeClaim#1", "before:Settle#1", "after:Settle#1"} <= set(where)

            async def one(place: str) -> None:
                async with alive:
                    mine = await offered(street, client, path, TOGETHER)
                    purchases.extend(mine)
                    await die_at(street, client, place, mine)

            await asyncio.gather(*(one(place) for place in where))
            workers = [await street.start() for _ in range(2)]
            await street.until_the_end(client, [each.url for each in workers], purchases)
        return len(where), street.count(purchases)

    tried, counted = asyncio.run(run())
    print(f"\n{path}: {tried} crash points, {counted}")
    assert (counted.lost, counted.doubled, counted.free) == (0, 0, 0)


@pytest.mark.parametrize("path", ["/kept", "/upfront"])
def test_S3_S6_killed_again_while_it_finds_out_no_payment_is_lost_or_doubled(street: Town, path: str) -> None:
    """The first seller dies after the settlement, the second at any step of finding out what became of it."""

    async def run() -> tuple[int, Counted]:
        async with http_client() as client:
            first = await offered(street, client, path, 1)
            await die_at(street, client, "after:Settle#1", first)
            await asyncio.sleep(LEASE_SECONDS + 1)
            where = await places(street, client, first[0])
            assert {"before:FindPayment#1", "after:FindPayment#1"} <= set(where)
            where = [each for each in where if path == "/upfront" or each != IN_HANDLER]
            purchases = await offered(street, client, path, len(where))
            await die_at(street, client, "after:Settle#1", purchases)
            # One of them alone was settled; the others had not come so far, or had, and are recovered alike.
            await asyncio.sleep(LEASE_SECONDS + 1)
            alive = asyncio.Semaphore(ALIVE_MAX)

            async def again(place: str, purchase: Purchase) -> None:
                async with alive:
                    seller = await street.start(crash_at=place)
                    await street.send(client, seller.url, purchase)
                    seller.kill()

            await asyncio.gather(*(again(*pair) for pair in zip(where, purchases, strict=True)))
            workers = [await street.start() for _ in range(2)]
            await street.until_the_end(client, [each.url for each in workers], [*first, *purchases])
        return len(where), street.count([*first, *purchases])

    tried, counted = asyncio.run(run())
    print(f"\n{path}, while it recovers: {tried} crash points, {counted}")
    assert (counted.lost, counted.doubled, counted.free) == (0, 0, 0)


def test_S1_S2_S6_killed_at_random_no_payment_is_lost_or_doubled(street: Town) -> None:
    chance = random.Random(SEED)  # noqa: S311 - it has to be repeatable

    async def run() -> tuple[int, Counted]:
        purchases: list[Purchase] = []
        kills = 0
        async with http_client() as client:
            workers: list[Running] = [await street.start() for _ in range(2)]
            end = time.monotonic() + SECONDS

            async def buy(path: str) -> None:
                while time.monotonic() < end:
                    try:
                        purchase = await street.offer(client, chance.choice(workers).url, path)
                    except (TimeoutError, OSError, AssertionError):
                        await asyncio.sleep(0.1)
                        continue
                    purchases.append(purchase)
                    await street.send(client, chance.choice(workers).url, purchase)

            async def kill() -> None:
                nonlocal kills
                while time.monotonic() < end:
                    await asyncio.sleep(chance.uniform(0.2, 0.8))
                    index = chance.randrange(2)
                    workers[index].kill()
                    kills += 1
                    workers[index] = await street.start()

            await asyncio.gather(kill(), *(buy(path) for path in ("/kept", "/unkept", "/upfront", "/job") * 2))
            await street.until_the_end(client, [each.url for each in workers], purchases)
        return kills, street.count(purchases)

    kills, counted = asyncio.run(run())
    print(f"\nat random, seed {SEED}: {kills} kills, {counted}")
    assert kills > 0
    assert counted.paid > 0
    assert (counted.lost, counted.doubled, counted.free) == (0, 0, 0)
