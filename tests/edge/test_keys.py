"""C5, A2: keys that rotate, vanish or are compromised, as an edge sees them."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from edge_town import Crawler, Town

from farthing.protocol.clearing import Lease
from farthing.seller.credit import NotTaken, Taken
from farthing.world.edge_credit import CreditPool
from farthing.world.loop import background_loop


def reasons(answer: Any) -> tuple[str, Any]:
    assert answer.settlement is not None
    return answer.settlement.error_reason, answer.settlement.extra


def test_C5_a_compromised_key_opens_nothing_and_another_one_of_the_agent_does(town: Town) -> None:
    """The directory lists both still, and the edge has both in its memory."""
    second = Crawler(seed=b"\x0b")
    town.directory.published[second.origin, second.agent.key_id] = second.key.public_key
    for crawler in (town.crawler, second):
        assert town.buy("/page/1", crawler=crawler)[0].status == 200
    town.house.compromised[second.origin] = [town.crawler.agent.key_id]
    told = town.open_site("edge-2")
    for number in range(2):
        answer, signed, _ = town.buy(f"/page/{number}", url=told)
        assert answer.status == 402
        assert reasons(answer) == ("signature_agent_unknown", {"reason": "key_compromised"})
        # The very promise is refused again: nothing is held by it.
        assert town.send(f"/page/{number}", signed, url=told).status == 402
    assert town.buy("/page/3", crawler=second, url=told)[0].status == 200
    assert town.ran == ["/page/1", "/page/1", "/page/3"]


def test_C5_an_edge_that_was_told_takes_nothing_under_an_older_lease_either() -> None:
    told: list[tuple[str, ...]] = [(), ("k1",)]
    asked: list[str] = []

    async def ask(payer: str, currency: str, amount: int) -> tuple[Lease, float]:
        asked.append(payer)
        name = f"le-{len(asked)}"
        return Lease(name, "shop", 1, payer, str(amount), currency, 60, compromised=told[len(asked) - 1]), 0.0

    spawned: list[Any] = []

    def spawn(work: Any) -> Any:
        spawned.append(asyncio.run_coroutine_threadsafe(work, background_loop()))
        return spawned[-1]

    pool = CreditPool(ask, cast("Any", None), spawn, offline_limit_seconds=60, lease_amount=8, monotonic=lambda: 0.0)

    def take(nonce: str, key: str = "k1") -> Any:
        signed = SimpleNamespace(payer="p", asset="USD", amount=1, valid_before=2_000)
        profile = SimpleNamespace(nonce=nonce, key_id=key)
        made = SimpleNamespace(nonce=("p", nonce), commitment_id=f"c-{nonce}", signed=signed, profile=profile)
        found = pool.take(cast("Any", made), 1_900)
        return found if isinstance(found, Taken | NotTaken) else found.result(30)

    # Ten units of a first lease; with less than a quarter of it left, a second one is asked for, which tells.
    assert [take(str(number)) for number in range(8)] == [Taken("le-1")] * 8
    for each in spawned:
        each.result(30)
    assert len(asked) == 2
    refused = take("8")
    assert isinstance(refused, NotTaken)
    assert (refused.why, take("8")) == ("key_compromised", refused)
    # There is room under the first lease, for another key.
    assert take("9", key="k2") == Taken("le-1")


def test_C5_a_key_that_rotates_before_its_upload_is_uploaded_as_it_was_found(town: Town) -> None:
    town.buy("/page/1")
    second = Crawler(seed=b"\x0b")
    place = (second.origin, second.agent.key_id)
    town.directory.published[place] = second.key.public_key
    town.house.away = True
    answer, _, commitment_id = town.buy("/page/2", crawler=second)
    assert answer.status == 200
    # Its directory lists it no more, and is gone altogether.
    del town.directory.published[place], town.directory.cached[place]
    town.directory.trouble = "The directory does not answer."
    town.house.away = False
    town.house.wait(lambda: commitment_id in town.house.lines)
    record = town.house.keys[town.house.lines[commitment_id]["key"]]
    assert (record["directory"], record["thumbprint"]) == place
    # What was served is billed; nothing more is.
    assert town.buy("/page/3", crawler=second)[0].status == 402


def test_C5_a_directory_that_vanished_leaves_what_is_known(town: Town) -> None:
    assert town.buy("/page/1")[0].status == 200
    town.directory.trouble = "The directory does not answer."
    assert town.buy("/page/2")[0].status == 200
