"""F3: whatever a node does, a payment is settled once, nobody is refused because of it, and no wallet is stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web

from farthing.errors import FacilitatorUnavailable
from farthing.protocol.facilitator import Outcome, Settled, Unknown
from farthing.services.facilitator.lane import Pace
from farthing.services.facilitator.submitter import FOREIGN_LOOKS

AMOUNT = 12_345
QUICK = Pace(idle_seconds=0.05, work_seconds=0.05, rebroadcast_seconds=1)
Lie = Callable[[dict[str, Any], Any], Any]
# A payment whose outcome is not known by then never will be.
KNOWN_SECONDS = 60
EMPTY_WORD = "0x" + "00" * 32
USED_WORD = "0x" + "00" * 31 + "01"
BALANCE_OF, AUTHORIZATION_STATE = "0x70a08231", "0xe94a0102"


def of_calls(method: str, change: Callable[[Any], Any], *, selector: str = "") -> Lie:
    """Lie about the answers of one method, and of `eth_call` about one function."""

    def lie(call: dict[str, Any], result: Any) -> Any:
        if call["method"] != method or (selector and not call["params"][0]["data"].startswith(selector)):
            return result
        return change(result)

    return lie


def with_members(**members: Any) -> Callable[[Any], Any]:
    return lambda result: {**result, **members}


LIES: dict[str, Lie] = {
    "a balance of nothing": of_calls("eth_call", lambda _: EMPTY_WORD, selector=BALANCE_OF),
    "a used nonce": of_calls("eth_call", lambda _: USED_WORD, selector=AUTHORIZATION_STATE),
    "code that is none": of_calls("eth_getCode", lambda _: "0xzz"),
    "another chain": of_calls("eth_chainId", lambda _: "0x1"),
    "no gas": of_calls("eth_estimateGas", lambda _: "0x0"),
    "another's receipt": of_calls("eth_getTransactionReceipt", with_members(transactionHash="0x" + "12" * 32)),
    "a receipt of failure": of_calls("eth_getTransactionReceipt", with_members(status="0x0")),
    "a receipt without logs": of_calls("eth_getTransactionReceipt", with_members(logs=[])),
    "a receipt of another fork": of_calls("eth_getTransactionReceipt", with_members(blockHash="0x" + "34" * 32)),
    "a receipt that is none": of_calls("eth_getTransactionReceipt", lambda _: "0x01"),
    "no receipt": of_calls("eth_getTransactionReceipt", lambda _: None),
    "a count of many": of_calls("eth_getTransactionCount", lambda result: hex(int(result, 16) + 7)),
    "a count of none": of_calls("eth_getTransactionCount", lambda _: "0x0"),
    "another head at each look": of_calls("eth_getBlockByNumber", with_members(hash="0x" + "56" * 32)),
    "no hash of a broadcast": of_calls("eth_sendRawTransaction", lambda _: None),
}


BODIES = {"stopped": b"", "prose": b"<h1>Bad gateway</h1>", "half": b'[{"jsonrpc":"2.0","id', "empty": b""}


def at_first(lie: Lie, times: int) -> tuple[Lie, list[str]]:
    """Lie so many times, then tell the truth; and what was lied about."""
    told: list[str] = []

    def some(call: dict[str, Any], result: Any) -> Any:
        answer = lie(call, result) if len(told) < times else result
        if answer != result:
            told.append(call["method"])
        return answer

    return some, told


async def settle_until_known(service: Any, payment: Any, key: str = "k") -> Outcome:
    """Settle as a seller does that holds its place: the same again while the outcome is not known."""
    async with asyncio.timeout(KNOWN_SECONDS):
        while True:
            outcome: Outcome = await service.settle(*payment, idempotency_key=key)
            if not isinstance(outcome, Unknown):
                return outcome
            await asyncio.sleep(0.05)


async def verified(service: Any, payment: Any) -> bool | None:
    """What a verification says: None where it says that it could not be found out."""
    try:
        return bool((await service.verify(*payment)).is_valid)
    except FacilitatorUnavailable:
        return None


@pytest.mark.parametrize("name", LIES)
def test_F3_a_node_that_lies_for_a_while_has_nobody_refused_and_nothing_lost(
    pyevm: Any, recording_node: Any, eventually: Any, name: str
) -> None:
    async def run() -> None:
        async with recording_node(pyevm.devnet) as node:
            config = pyevm.config_text.replace(pyevm.devnet.url, node.url)
            async with pyevm.service(config=config, pace=QUICK, settle_timeout_seconds=2) as service:
                (lane,) = service.lanes
                await eventually(lambda: lane.lease is not None)
                node.lie, told = at_first(LIES[name], 3)
                payments = [pyevm.payment(), pyevm.payment()]
                assert await verified(service, payments[0]) is not False
                outcomes = await asyncio.gather(*(settle_until_known(service, each) for each in payments))
                assert told
                # What they are told of is on the chain.
                for each in outcomes:
                    assert isinstance(each, Settled)
                    assert pyevm.devnet.rpc("eth_getTransactionReceipt", each.response.transaction)
                assert lane.stopped == ""
                assert service.books.settled() == {each.payment_id: AMOUNT for each in payments}
                assert sum(service.books.balances().values()) == 0
                await eventually(lambda: not lane.entries)

    asyncio.run(run())
    assert pyevm.balance(pyevm.payee) == 2 * AMOUNT


def test_F3_a_receipt_of_another_fork_is_no_evidence(pyevm: Any, recording_node: Any, eventually: Any) -> None:
    async def run() -> None:
        async with recording_node(pyevm.devnet) as node:
            config = pyevm.config_text.replace(pyevm.devnet.url, node.url)
            async with pyevm.service(config=config, pace=QUICK) as service:
                await eventually(lambda: service.lanes[0].lease is not None)
                node.lie, told = at_first(LIES["a receipt of another fork"], 3)
                payment = pyevm.payment()
                assert isinstance(await service.settle(*payment, idempotency_key="k"), Settled)
                assert told
                (record,) = service.books.payments()
                block = pyevm.devnet.rpc("eth_getBlockByNumber", hex(record.block_number), False)  # noqa: FBT003 - JSON-RPC
                assert record.block_hash == block["hash"]
                # Booked once, and never back.
                assert len(service.books.entries(payment.payment_id)) == 2

    asyncio.run(run())


@pytest.mark.parametrize("what", ["stopped", "slow", "prose", "half", "empty"])
def test_F3_a_node_that_is_out_of_order_for_a_while_has_nobody_refused(
    pyevm: Any, recording_node: Any, eventually: Any, what: str
) -> None:
    async def run() -> None:
        async with recording_node(pyevm.devnet) as node:
            config = pyevm.config_text.replace(pyevm.devnet.url, node.url)
            async with pyevm.service(config=config, pace=QUICK, settle_timeout_seconds=0.5) as service:
                (lane,) = service.lanes
                await eventually(lambda: lane.lease is not None)
                settled = await settle_until_known(service, pyevm.payment())
                assert isinstance(settled, Settled)
                if what == "slow":
                    node.delay_seconds = 0.8
                else:
                    node.instead = web.Response(body=BODIES[what], status=502 if what == "stopped" else 200)
                payment = pyevm.payment()
                judged = await verified(service, payment)
                assert judged is (True if what == "slow" else None)
                assert isinstance(await service.settle(*payment, idempotency_key="k"), Unknown)
                node.instead, node.delay_seconds = None, 0.0
                assert isinstance(await settle_until_known(service, payment), Settled)
                assert lane.stopped == ""

    asyncio.run(run())
    assert pyevm.balance(pyevm.payee) == 2 * AMOUNT


class StandsStill:
    """A second node, asked every other time, that knows no new block, no receipt and no used nonce."""

    def __init__(self, world: Any) -> None:
        rpc = world.devnet.rpc
        self.batches = 0
        self.block = rpc("eth_getBlockByNumber", "latest", False)  # noqa: FBT003 - JSON-RPC
        self.answers = {
            "eth_getTransactionReceipt": None,
            "eth_getTransactionCount": rpc("eth_getTransactionCount", world.wallet.address, "latest"),
            "eth_getLogs": [],
        }

    def count(self, _calls: list[dict[str, Any]]) -> None:
        self.batches += 1

    def lie(self, call: dict[str, Any], result: Any) -> Any:
        if self.batches % 2:
            return result
        if call["method"] != "eth_getBlockByNumber":
            return self.answers.get(call["method"], result)
        which = call["params"][0]
        if which in {"latest", "finalized"}:
            return self.block
        return None if int(which, 16) > int(self.block["number"], 16) else result


def test_F3_two_nodes_that_disagree_settle_each_payment_once(pyevm: Any, recording_node: Any, eventually: Any) -> None:
    async def run() -> None:
        async with recording_node(pyevm.devnet) as node:
            config = pyevm.config_text.replace(pyevm.devnet.url, node.url)
            async with pyevm.service(config=config, pace=QUICK, settle_timeout_seconds=2) as service:
                (lane,) = service.lanes
                await eventually(lambda: lane.lease is not None)
                other = StandsStill(pyevm)
                node.lie, node.before = other.lie, other.count
                for _ in range(3):
                    payments = [pyevm.payment() for _ in range(3)]
                    outcomes = await asyncio.gather(*(settle_until_known(service, each) for each in payments))
                    assert all(isinstance(each, Settled) for each in outcomes), outcomes
                assert lane.stopped == ""
                assert set(service.books.settled().values()) == {AMOUNT}
                assert sum(service.books.balances().values()) == 0

    asyncio.run(run())
    assert pyevm.balance(pyevm.payee) == 9 * AMOUNT


def test_F3_a_node_that_counts_wrongly_once_stops_no_wallet_and_one_that_stays_with_it_does(
    pyevm: Any, recording_node: Any, eventually: Any
) -> None:
    async def run() -> None:
        async with recording_node(pyevm.devnet) as node:
            config = pyevm.config_text.replace(pyevm.devnet.url, node.url)
            async with pyevm.service() as service:
                assert isinstance(await settle_until_known(service, pyevm.payment()), Settled)
            node.lie, told = at_first(LIES["a count of many"], FOREIGN_LOOKS - 1)
            async with pyevm.service(config=config, pace=QUICK) as service:
                assert isinstance(await settle_until_known(service, pyevm.payment()), Settled)
                assert len(told) == FOREIGN_LOOKS - 1
            node.lie, told = at_first(LIES["a count of many"], FOREIGN_LOOKS)
            async with pyevm.service(config=config, pace=QUICK) as service:
                await eventually(lambda: "foreign" in service.lanes[0].stopped)

    asyncio.run(run())


def test_F3_a_block_between_two_answers_of_a_batch_costs_a_look_and_no_evidence(
    pyevm: Any, recording_node: Any
) -> None:
    """The count is of after the block, the receipts of before it: a node that answers a batch's calls side by side."""

    async def run() -> None:
        async with recording_node(pyevm.devnet) as node:
            config = pyevm.config_text.replace(pyevm.devnet.url, node.url)
            node.lie, told = at_first(of_calls("eth_getTransactionReceipt", lambda _: None), 1)
            async with pyevm.service(config=config, pace=QUICK) as service:
                assert isinstance(await settle_until_known(service, pyevm.payment()), Settled)
            assert told == ["eth_getTransactionReceipt"]
            assert not any("eth_getLogs" in methods for methods in node.batches)

    asyncio.run(run())
