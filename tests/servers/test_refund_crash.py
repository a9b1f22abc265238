"""S2, S6: caretakers killed by SIGKILL at every step of a refund; then the chain and the books are compared."""

from __future__ import annotations

import asyncio
import collections
import time
from pathlib import Path
from typing import Any

import pytest
from selling_town import AMOUNT, CLIENT_SECONDS, SETTLED_WITHIN_SECONDS, Purchase, Running, Town, http_client, town

from farthing.evm.addresses import parse_address
from farthing.evm.logs import AUTHORIZATION_USED_TOPIC
from farthing.seller.refunding import refund_nonce
from farthing.world.seller_store import SellerStore

# More blocks than the devnet calls not final.
FINAL_BLOCKS = 70
EFFECTS = (
    "FindRefundsDue",
    "FindRefundSigner",
    "TakeRefundTurn",
    "FindPayment",
    "SignRefund",
    "RecordRefund",
    "Settle",
    "PostponeRefund",
    "Advance",
)


@pytest.fixture
def refunder(local: Any) -> Any:
    return local.wallet(usdc="1")


@pytest.fixture
def street(local: Any, tmp_path: Path, refunder: Any) -> Any:
    with town(local, tmp_path, refund_key=refunder.key) as made:
        yield made


async def ended(caretaker: Running) -> None:
    deadline = time.monotonic() + 2 * CLIENT_SECONDS
    while caretaker.is_alive():
        assert time.monotonic() < deadline, "the caretaker did not end"
        await asyncio.sleep(0.05)


def refunds_of(street: Town, address: str) -> collections.Counter[str]:
    """Give the nonces that the chain has spent of the account that refunds, and how often."""
    query = {
        "fromBlock": hex(street.first_block),
        "toBlock": "latest",
        "address": street.local.devnet.usdc,
        "topics": [
            "0x" + AUTHORIZATION_USED_TOPIC.hex(),
            "0x" + parse_address(address).rjust(32, b"\0").hex(),
        ],
    }
    return collections.Counter(log["topics"][2] for log in street.local.devnet.rpc("eth_getLogs", query))


def test_S2_S6_killed_at_any_step_of_a_refund_it_is_paid_once(street: Town, refunder: Any) -> None:
    places = [f"{when}:{name}#1" for name in EFFECTS for when in ("before", "after")]
    had = street.local.devnet.usdc_balance(street.key.address)

    async def run() -> None:
        purchases: list[Purchase] = []
        async with http_client() as client:
            seller = await street.start()
            for _ in places:
                purchase = await street.offer(client, seller.url, "/lost")
                await street.send(client, seller.url, purchase)
                purchases.append(purchase)
            assert {each.answers[-1] for each in purchases} == {500}
            seller.kill()
        await asyncio.sleep(2)
        for place in places:
            if "Advance" in place:
                # It is made when a refund is final: the facilitator has to have seen that.
                street.local.devnet.mine(FINAL_BLOCKS)
            rounds = 60 if "Advance" in place else 1
            await ended(await street.start(care=rounds, crash_at=place))
        deadline = time.monotonic() + SETTLED_WITHIN_SECONDS
        while owed(street):
            assert time.monotonic() < deadline, owed(street)
            street.local.devnet.mine(FINAL_BLOCKS)
            # Two at once: whoever comes first has the turn.
            await asyncio.gather(*[ended(await street.start(care=6)) for _ in range(2)])

    asyncio.run(run())
    spent = refunds_of(street, refunder.address)
    store = SellerStore(street.folder / "seller.sqlite")
    try:
        rows, ledger = store.payments(), store.ledger()
    finally:
        store.close()
    assert {str(row.state) for row in rows} == {"refunded"}
    assert dict(spent) == {"0x" + refund_nonce(row.payment_id, 0).hex(): 1 for row in rows}
    assert len(rows) == len(places)
    assert street.local.devnet.usdc_balance(street.key.address) == had
    assert street.local.devnet.usdc_balance(refunder.address) == 1_000_000 - AMOUNT * len(places)
    back = [entry for entry in ledger if entry.payer == refunder.address]
    assert len(ledger) == 2 * len(back) == 2 * len(places)
    assert {entry.pay_to for entry in back} == {street.key.address}
    print(f"\n{len(places)} crash points of refunds, {len(spent)} refunds on chain")


def owed(street: Town) -> int:
    """How many refunds are due still."""
    store = SellerStore(street.folder / "seller.sqlite")
    try:
        return sum(str(row.state) != "refunded" for row in store.payments())
    finally:
        store.close()
