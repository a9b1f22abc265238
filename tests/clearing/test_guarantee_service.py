"""The guarantee over HTTP, with a real facilitator and a real chain under it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from serving import PROOF, Parties, Served, Town, serving, until, website
from town import DOLLAR

from farthing.flow import Now

# All dates of a statement are over three minutes after its window closed.
RULES = "due_seconds = 60\ngrace_seconds = 60\ndispute_seconds = 60"


@pytest.fixture
def town(devnet_pyevm: Any, tmp_path: Path) -> Town:
    return Town(devnet_pyevm, tmp_path)


def test_C6_a_default_is_covered_on_chain_and_the_late_payment_refills_the_reserve(town: Town) -> None:
    async def run() -> None:
        texts: dict[str, str] = {}
        with website(texts) as authority:
            async with (
                town.facilitator() as facilitator,
                serving(town, facilitator, private=authority, rules=RULES) as served,
            ):
                parties = await Parties(town, served, authority).open(texts)
                operator, treasury, payee = served.operator, town.address("treasury"), town.address("payee")
                assert (await operator.post("/payees/news/guarantee", {"guaranteed": True}))["guaranteed"] is True
                await deposit(town, served)
                await operator.post("/reserve/fund", await seen(served))
                await operator.post("/reserve/fund", await seen(served), status=409)
                await parties.read_pages(5)
                await close_before(served, 180)
                assert await stands(served) == ("1000000", "0", "50000", "50000")
                await rounds(town, served, lambda: town.devnet.usdc_balance(payee) == 50_000)
                assert await stands(served) == ("950000", "50000", "0", "0")
                (cover,) = (await operator.get("/lists/covers"))["entries"]
                assert (cover["name"], cover["amount"], cover["state"]) == ("news", 50_000, "issued")
                # The payer pays after all.
                statement, status = await parties.statement()
                payment = town.pay(status, statement.rail, valid_before=int(time.time()) + 3_600)
                await parties.payer.post(f"/statements/{status.statement}/payment", payment)
                await rounds(town, served, lambda: town.devnet.usdc_balance(treasury) == DOLLAR)
                await until(lambda: refilled(town, served), what="the refill")
                assert town.devnet.usdc_balance(payee) == 50_000
                # The operator takes it out again.
                owner = await ourselves(town, served, texts, authority)
                taken = {"request": "all", "amount": str(DOLLAR), "payee": "ourselves"}
                for _ in range(2):
                    await operator.post("/reserve/take", taken)
                await operator.post("/reserve/take", taken | {"request": "more"}, status=409)
                await rounds(town, served, lambda: town.devnet.usdc_balance(owner) == DOLLAR)
                await until(lambda: empty(town, served), what="books without a balance")
                assert (town.devnet.usdc_balance(treasury), town.devnet.usdc_balance(payee)) == (0, 50_000)
                audit = [each["what"] for each in (await operator.get("/lists/audit"))["entries"]]
                assert {"guarantee payee", "fund reserve", "take reserve"} <= set(audit)

    asyncio.run(run())


async def deposit(town: Town, served: Served) -> None:
    """The operator sends the treasury a dollar, and the house sees it in its suspense."""
    town.devnet.faucet(town.address("treasury"), usdc=1)

    async def there() -> bool:
        town.devnet.mine(3)
        await served.service.settle_all()
        return bool((await served.operator.get("/lists/movements"))["entries"])

    await until(there, what="the deposit")


async def seen(served: Served) -> dict[str, Any]:
    (movement,) = (await served.operator.get("/lists/movements"))["entries"]
    return {"transaction": movement["transaction_hash"], "logIndex": movement["log_index"]}


async def close_before(served: Served, seconds: int) -> None:
    """Close the window by a clock that is behind: its statement is of that time."""
    right: Any = served.service._performer
    served.service._performer = right.with_({Now: lambda _: int(time.time()) - seconds})
    try:
        assert (await served.operator.post("/window/close"))["closed"] == "1"
    finally:
        served.service._performer = right


async def stands(served: Served) -> tuple[str, ...]:
    (found,) = await served.operator.get("/reserve")
    return tuple(found[name] for name in ("reserve", "recourse", "guaranteed", "uncovered"))


async def rounds(town: Town, served: Served, reached: Any) -> None:
    async def there() -> bool:
        await served.service.settle_all()
        town.devnet.mine(3)
        return bool(reached())

    await until(there, what="the money on chain")


async def refilled(town: Town, served: Served) -> bool:
    await served.service.settle_all()
    town.devnet.mine(3)
    return await stands(served) == ("1000000", "0", "0", "0")


async def empty(town: Town, served: Served) -> bool:
    await served.service.settle_all()
    town.devnet.mine(3)
    return not any((await served.operator.get("/balances")).values())


async def ourselves(town: Town, served: Served, texts: dict[str, str], authority: str) -> str:
    """An account of the operator's, whose domain is proved; its address."""
    address: str = town.address("wallet")
    made = await served.operator.post("/payees", {"payee": "ourselves", "domain": authority, "address": address})
    texts[PROOF] = made["challenge"]
    assert (await served.operator.post("/payees/ourselves/prove"))["proved"] is True
    return address


HASH = "0x" + "ab" * 32


@pytest.mark.parametrize(
    ("door", "body", "status"),
    [
        ("/reserve/fund", {"transaction": HASH, "logIndex": 0}, 409),
        ("/reserve/fund", {"transaction": HASH, "logIndex": -1}, 400),
        ("/reserve/fund", {"transaction": HASH, "logIndex": 2**63}, 400),
        ("/reserve/fund", {"transaction": HASH.upper(), "logIndex": 0}, 400),
        ("/reserve/fund", {"transaction": HASH + "\n", "logIndex": 0}, 400),
        ("/reserve/take", {"request": "r", "amount": "1", "payee": "nobody"}, 404),
        ("/reserve/take", {"request": "r", "amount": "1", "payee": "\x00"}, 404),
        ("/reserve/take", {"request": "r", "amount": "1", "payee": ""}, 400),
        ("/reserve/take", {"request": "r\x00", "amount": "1", "payee": "nobody"}, 400),
        ("/reserve/take", {"request": "r", "amount": "0", "payee": "nobody"}, 400),
        ("/reserve/take", {"request": "r", "amount": "-1", "payee": "nobody"}, 400),
        ("/reserve/take", {"request": "r", "amount": "1" * 16, "payee": "nobody"}, 400),
        ("/reserve/take", {"request": "r", "amount": 1, "payee": "nobody"}, 400),
        ("/payees/nobody/guarantee", {"guaranteed": True}, 404),
        ("/payees/%00/guarantee", {"guaranteed": True}, 404),
        ("/payees/nobody/guarantee", {"guaranteed": "yes"}, 400),
        ("/payees/nobody/guarantee", {}, 400),
    ],
)
def test_A3_what_the_reserves_doors_can_not_take_is_a_problem_and_in_no_log(
    town: Town, door: str, body: dict[str, Any], status: int
) -> None:
    async def run() -> None:
        async with serving(town, town.facilitator()) as served:
            refused = await served.operator.post(door, body, status=status)
            assert (refused["status"], bool(refused["detail"]), bool(refused["advice"])) == (status, True, True)
            entries = (await served.operator.get("/lists/audit"))["entries"]
            assert len(entries) == (1 if status == 409 else 0)
            assert await stands(served) == ("0",) * 4

    asyncio.run(run())
