"""Sellers killed with SIGKILL, and what became of the money: S1, S2, S6, as sweeps that tests and operators can run.

    python tests/servers/seller_crashes.py                          # every place, over SQLite and over PostgreSQL
    python tests/servers/seller_crashes.py --engine postgres --seconds 60 --seed 7

A place is before or after an effect of one paid request, as a seller that is not killed performs them; in the handler;
and between two bytes of a streamed answer. Each is tried on every kind of route.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp

# Where it is run by hand nobody else has said where these are.
sys.path.append(str(Path(__file__).parents[1]))

from crashing_seller import IN_ANSWER, IN_HANDLER, LEASE_SECONDS
from local_services import LocalServices
from postgres_server import PostgresServer
from selling_town import Counted, Purchase, Running, Town, http_client, tally, town

from farthing.services.devnet import start_devnet
from farthing.world.facilitator_store import FacilitatorStore

PATHS = ("/kept", "/unkept", "/upfront", "/job")
# Those whose payment can be found out about, and then served, by a seller that was not there when it was settled.
RECOVERED = ("/kept", "/upfront")
# They leave nothing behind, so that a crash at one of them is the crash at its neighbour.
NOTHING_DONE = frozenset({"Now", "RandomBytes", "Sleep"})
# Every payment comes by the first of these, and what became of one is found out by the others.
ALWAYS = frozenset({"before:MakeClaim#1", "after:MakeClaim#1", "before:Settle#1", "after:Settle#1"})
FOUND_OUT = frozenset({"before:FindPayment#1", "after:FindPayment#1"})
# Payments that are on their way in each process when it is killed.
TOGETHER = 2
# Processes alive at once.
ALIVE_MAX = 3


class Kills:
    """How often what was killed at random."""

    def __init__(self) -> None:
        self.sellers = 0
        self.servers = 0


class Sweep:
    """The places and the purchases of each path, and what they came to."""

    def __init__(self) -> None:
        self.places: dict[str, list[str]] = {}
        self.purchases: dict[str, list[Purchase]] = {}

    @property
    def everything(self) -> list[Purchase]:
        """The purchases of all paths."""
        return [each for some in self.purchases.values() for each in some]

    def judge(self, street: Town) -> Counted:
        """Compare chain, answers, states and ledger, and say so, a line for each path; gives the sum."""
        counted, spent = street.count(self.everything), street.spent()
        for path, purchases in self.purchases.items():
            print(f"{street.engine:<8} {path:<8} crash points {len(self.places[path])}, {tally(purchases, spent)}")
        return counted


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


async def to_the_end(street: Town, client: Any, sweep: Sweep) -> Counted:
    """Have two sellers go on until no payment moves any more; then judge."""
    workers = [await street.start() for _ in range(2)]
    await street.until_the_end(client, [each.url for each in workers], sweep.everything)
    return sweep.judge(street)


async def at_every_step(street: Town) -> Counted:
    """Kill a seller at each place of each path."""
    sweep, alive = Sweep(), asyncio.Semaphore(ALIVE_MAX)
    async with http_client() as client:

        async def one(path: str, place: str) -> None:
            async with alive:
                mine = await offered(street, client, path, TOGETHER)
                sweep.purchases[path].extend(mine)
                await die_at(street, client, place, mine)

        for path in PATHS:
            sweep.purchases[path] = await offered(street, client, path, 1)
            sweep.places[path] = await places(street, client, sweep.purchases[path][0])
            assert set(sweep.places[path]) >= ALWAYS
        await asyncio.gather(*(one(path, place) for path in PATHS for place in sweep.places[path]))
        return await to_the_end(street, client, sweep)


async def again_while_it_finds_out(street: Town) -> Counted:
    """Kill a first seller after the settlement, and the next at any step of finding out what became of it."""
    sweep, alive = Sweep(), asyncio.Semaphore(ALIVE_MAX)
    async with http_client() as client:

        async def again(path: str, place: str, purchase: Purchase) -> None:
            async with alive:
                seller = await street.start(crash_at=place)
                await street.send(client, seller.url, purchase)
                seller.kill()

        for path in RECOVERED:
            sweep.purchases[path] = await offered(street, client, path, 1)
            await die_at(street, client, "after:Settle#1", sweep.purchases[path])
        await asyncio.sleep(LEASE_SECONDS + 1)
        pairs: list[tuple[str, str, Purchase]] = []
        for path in RECOVERED:
            found = await places(street, client, sweep.purchases[path][0])
            assert set(found) >= FOUND_OUT
            sweep.places[path] = [each for each in found if path == "/upfront" or each != IN_HANDLER]
            purchases = await offered(street, client, path, len(sweep.places[path]))
            sweep.purchases[path].extend(purchases)
            await die_at(street, client, "after:Settle#1", purchases)
            pairs += [(path, *pair) for pair in zip(sweep.places[path], purchases, strict=True)]
        # One of them alone was settled; the others had not come so far, or had, and are recovered alike.
        await asyncio.sleep(LEASE_SECONDS + 1)
        await asyncio.gather(*(again(*each) for each in pairs))
        return await to_the_end(street, client, sweep)


async def at_random(
    street: Town, *, seed: int, seconds: float, kill_server: Callable[[], None] | None = None
) -> tuple[Kills, Counted]:
    """Kill one of two sellers by chance while payments come, again and again, and now and then their store's server."""
    chance = random.Random(seed)  # noqa: S311 - it has to be repeatable
    purchases: list[Purchase] = []
    kills = Kills()
    async with http_client() as client:
        workers: list[Running] = [await street.start() for _ in range(2)]
        end = time.monotonic() + seconds

        async def buy(path: str) -> None:
            while time.monotonic() < end:
                try:
                    purchase = await street.offer(client, chance.choice(workers).url, path)
                except (TimeoutError, OSError, AssertionError, aiohttp.ClientError):
                    await asyncio.sleep(0.1)
                    continue
                purchases.append(purchase)
                await street.send(client, chance.choice(workers).url, purchase)

        async def kill_sellers() -> None:
            while time.monotonic() < end:
                await asyncio.sleep(chance.uniform(0.2, 0.8))
                index = chance.randrange(2)
                workers[index].kill()
                kills.sellers += 1
                workers[index] = await street.start()

        async def kill_servers() -> None:
            while kill_server is not None and time.monotonic() < end:
                await asyncio.sleep(chance.uniform(0.5, 1.5))
                await asyncio.to_thread(kill_server)
                kills.servers += 1

        await asyncio.gather(kill_sellers(), kill_servers(), *(buy(path) for path in PATHS * 2))
        await street.until_the_end(client, [each.url for each in workers], purchases)
    counted = street.count(purchases)
    print(
        f"{street.engine:<8} at random, seed {seed}: {kills.sellers} sellers and {kills.servers} servers of their store"
    )
    print(f"{'':<8} killed, {counted}")
    return kills, counted


def random_run(
    local: Any, folder: Path, server: PostgresServer | None = None, *, seed: int, seconds: float
) -> tuple[Kills, Counted]:
    """Kill at random; with a server of PostgreSQL under sellers and facilitator, which is killed, too."""
    if server is None:
        with town(local, folder) as street:
            return asyncio.run(at_random(street, seed=seed, seconds=seconds))

    store, facilitators = server.database(), server.database()
    try:
        with local.facilitator(facilitators) as url, town(local, folder, store=store, facilitator=url) as street:
            judged = asyncio.run(at_random(street, seed=seed, seconds=seconds, kill_server=server.restart))
            books = FacilitatorStore(facilitators)
            settled = books.books.settled()
            books.close()
            assert sum(settled.values()) == street.balance()
            return judged
    finally:
        server.drop(store)
        server.drop(facilitators)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=("sqlite", "postgres", "both"), default="both")
    parser.add_argument("--seed", type=int, default=1, help="of the random part")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long the random part lasts")
    options = parser.parse_args(arguments)
    engines = ("sqlite", "postgres") if options.engine == "both" else (options.engine,)
    bad = 0
    with (
        start_devnet("py-evm") as devnet,
        tempfile.TemporaryDirectory(prefix="farthing-crashes-") as folder,
        LocalServices(devnet, Path(folder)) as local,
    ):
        for engine in engines:
            server = PostgresServer() if engine == "postgres" else None
            try:
                for run in (at_every_step, again_while_it_finds_out):
                    order = {} if server is None else {"store": server.database()}
                    with town(local, local.path("seller").parent, **order) as street:
                        bad += asyncio.run(run(street)).bad
                folder_of_random = local.path("seller").parent
                bad += random_run(local, folder_of_random, server, seed=options.seed, seconds=options.seconds)[1].bad
            finally:
                if server is not None:
                    server.remove()
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
