"""Blocks on demand and by the clock, time travel, snapshots, reorganisations, and the faucet."""

from __future__ import annotations

import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from eth_account.signers.local import LocalAccount
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.errors import ConfigError, NodeRefused
from farthing.services.devnet import Devnet, start_devnet

WHOLE = True


def block(chain: Any, tag: str = "latest") -> dict[str, Any]:
    found: dict[str, Any] = chain.rpc("eth_getBlockByNumber", tag, not WHOLE)
    return found


def transfer(chain: Any, sender: LocalAccount, **fields: Any) -> str:
    raw = chain.sign(sender, {"to": sender.address, "gas": 21_000, **fields})
    return str(chain.rpc("eth_sendRawTransaction", raw))


def test_blocks_come_on_demand(chain: Any) -> None:
    sender = chain.funded(eth=1)
    before = chain.devnet.block_number()
    chain.devnet.wait_for_receipt(transfer(chain, sender))
    assert chain.devnet.block_number() == before + 1
    chain.rpc("evm_mine")
    assert chain.devnet.block_number() == before + 2
    chain.devnet.mine(3)
    assert chain.devnet.block_number() == before + 5


def test_without_automine_transactions_wait(chain: Any) -> None:
    sender = chain.funded(eth=1)
    chain.devnet.set_automine(enabled=False)
    try:
        hashes = [transfer(chain, sender, nonce=nonce) for nonce in range(3)]
        assert [chain.rpc("eth_getTransactionReceipt", each) for each in hashes] == [None] * 3
        assert chain.rpc("eth_getTransactionCount", sender.address, "pending") == "0x3"
        chain.devnet.mine()
        assert block(chain)["transactions"] == hashes
    finally:
        chain.devnet.set_automine(enabled=True)


def test_turning_automine_on_mines_what_waits(chain_pyevm: Any) -> None:
    chain = chain_pyevm
    sender = chain.funded(eth=1)
    chain.devnet.set_automine(enabled=False)
    waiting = transfer(chain, sender)
    chain.devnet.set_automine(enabled=True)
    assert chain.rpc("eth_getTransactionReceipt", waiting)["status"] == "0x1"


def test_time_travel(chain: Any) -> None:
    with chain.devnet.rewound():
        before = chain.devnet.timestamp()
        chain.devnet.increase_time(3600)
        chain.devnet.mine()
        assert chain.devnet.timestamp() >= before + 3600
        exact = chain.devnet.timestamp() + 1000
        chain.devnet.set_next_timestamp(exact)
        chain.devnet.mine()
        assert chain.devnet.timestamp() == exact
        chain.devnet.mine()
        assert exact <= chain.devnet.timestamp() <= exact + 5
        with pytest.raises(NodeRefused):
            chain.devnet.set_next_timestamp(exact - 1)


def test_a_burst_of_blocks_does_not_run_ahead_of_the_clock(devnet_pyevm: Devnet) -> None:
    with devnet_pyevm.rewound():
        devnet_pyevm.mine(200)
        assert devnet_pyevm.timestamp() <= time.time() + 1


def test_the_pending_block_has_the_clocks_time(chain_pyevm: Any) -> None:
    chain = chain_pyevm
    with chain.devnet.rewound():
        exact = chain.devnet.timestamp() + 77
        chain.devnet.set_next_timestamp(exact)
        assert int(block(chain, "pending")["timestamp"], 16) == exact
        call = {"to": chain.devnet.multicall3, "data": "0x0f28c97d"}
        assert int(chain.rpc("eth_call", call, "pending"), 16) == exact
        assert int(chain.rpc("eth_call", call, "latest"), 16) < exact


def test_blocks_by_the_clock() -> None:
    with start_devnet(block_time_seconds=0.1) as devnet:
        sender_address, _ = devnet.accounts[0]
        devnet.faucet(sender_address, eth=1)
        deadline = time.monotonic() + 20
        while devnet.block_number() < 4 and time.monotonic() < deadline:
            pass
        assert devnet.block_number() >= 4
        devnet.set_automine(enabled=True)  # ends the clock
        number = devnet.block_number()
        assert devnet.rpc("anvil_getIntervalMining") is None
        assert devnet.block_number() == number


def test_snapshots_bring_everything_back(chain: Any, account: Callable[[], LocalAccount]) -> None:
    payee = account()
    number, now = chain.devnet.block_number(), block(chain)["hash"]
    outer = chain.devnet.snapshot()
    chain.devnet.faucet(payee.address, usdc=1)
    inner = chain.devnet.snapshot()
    chain.devnet.faucet(payee.address, usdc=1, eth=3)
    chain.devnet.increase_time(10**6)
    chain.devnet.mine()
    chain.devnet.revert(inner)
    assert (chain.balance(payee), chain.devnet.eth_balance(payee.address)) == (1_000_000, 0)
    chain.devnet.revert(outer)
    assert chain.balance(payee) == 0
    assert (chain.devnet.block_number(), block(chain)["hash"]) == (number, now)
    for used in (inner, outer):
        with pytest.raises(ConfigError):
            chain.devnet.revert(used)


def test_snapshots_bring_the_clock_back(chain_pyevm: Any) -> None:
    with chain_pyevm.devnet.rewound():
        chain_pyevm.devnet.increase_time(10**6)
        chain_pyevm.devnet.mine()
    chain_pyevm.devnet.mine()
    assert chain_pyevm.devnet.timestamp() <= time.time() + 1


def test_snapshots_keep_what_waited(chain_pyevm: Any) -> None:
    chain = chain_pyevm
    sender = chain.funded(eth=1)
    chain.devnet.set_automine(enabled=False)
    try:
        waiting = transfer(chain, sender)
        snapshot = chain.devnet.snapshot()
        chain.devnet.mine()
        assert chain.rpc("eth_getTransactionReceipt", waiting) is not None
        chain.devnet.revert(snapshot)
        assert chain.rpc("eth_getTransactionReceipt", waiting) is None
        assert chain.rpc("eth_getTransactionByHash", waiting)["blockHash"] is None
    finally:
        chain.devnet.set_automine(enabled=True)


def test_a_reorganisation_drops_a_transaction(chain: Any) -> None:
    sender = chain.funded(eth=1)
    with chain.devnet.rewound():
        lost = transfer(chain, sender)
        receipt = chain.devnet.wait_for_receipt(lost)
        chain.devnet.mine()
        number = chain.devnet.block_number()
        chain.devnet.reorganise(2)
        assert chain.devnet.block_number() == number
        assert block(chain, receipt["blockNumber"])["hash"] != receipt["blockHash"]
        assert chain.rpc("eth_getTransactionReceipt", lost) is None
        assert chain.rpc("eth_getTransactionCount", sender.address, "latest") == "0x0"
        assert chain.rpc("eth_getBlockByHash", receipt["blockHash"], not WHOLE) is None
        # The same bytes can be sent again.
        again = transfer(chain, sender)
        assert again == lost
        assert chain.devnet.wait_for_receipt(again)["blockHash"] != receipt["blockHash"]


def test_a_reorganisation_can_put_another_transaction_in_place(chain: Any) -> None:
    sender = chain.funded(eth=1)
    with chain.devnet.rewound():
        lost = chain.devnet.wait_for_receipt(transfer(chain, sender, nonce=0))
        other = chain.sign(sender, {"to": sender.address, "gas": 21_000, "nonce": 0, "value": 1})
        chain.rpc("anvil_reorg", 1, [[other, 0]])
        assert chain.rpc("eth_getTransactionReceipt", lost["transactionHash"]) is None
        [held] = block(chain, lost["blockNumber"])["transactions"]
        assert held != lost["transactionHash"]
        assert chain.rpc("eth_getTransactionCount", sender.address, "latest") == "0x1"


def test_an_empty_block_is_replaced_by_another_one(chain_pyevm: Any) -> None:
    chain = chain_pyevm
    with chain.devnet.rewound():
        chain.devnet.mine(2)
        hashes = {block(chain)["hash"]}
        for _ in range(3):
            chain.devnet.reorganise(1)
            hashes.add(block(chain)["hash"])
        assert len(hashes) == 4


def test_a_reorganisation_can_keep_transactions_waiting(chain_pyevm: Any) -> None:
    chain = chain_pyevm
    sender = chain.funded(eth=1)
    kept = transfer(chain, sender)
    assert chain.rpc("devnet_reorg", 1, True) == {"dropped": [kept]}  # noqa: FBT003 - JSON
    assert chain.rpc("eth_getTransactionByHash", kept)["blockHash"] is None
    chain.devnet.mine()
    assert chain.rpc("eth_getTransactionReceipt", kept)["status"] == "0x1"
    for depth in (0, 10**6):
        with pytest.raises(NodeRefused, match="reorganisation"):
            chain.rpc("devnet_reorg", depth)


def test_the_state_can_be_edited(chain: Any, account: Callable[[], LocalAccount]) -> None:
    somebody = account().address
    with chain.devnet.rewound():
        chain.rpc("anvil_setBalance", somebody, hex(10**20))
        chain.rpc("anvil_setNonce", somebody, "0x7")
        chain.rpc("anvil_setCode", somebody, "0x60016000526001601ff3")  # gives one byte, 1
        chain.rpc("anvil_setStorageAt", somebody, "0x5", "0x" + "00" * 31 + "09")
        assert chain.devnet.eth_balance(somebody) == 10**20
        assert chain.rpc("eth_getTransactionCount", somebody, "latest") == "0x7"
        assert int(chain.rpc("eth_getStorageAt", somebody, "0x5", "latest"), 16) == 9
        assert chain.rpc("eth_call", {"to": somebody}, "latest") == "0x01"
        chain.devnet.mine()
        assert chain.devnet.eth_balance(somebody) == 10**20
    assert chain.devnet.eth_balance(somebody) == 0
    assert chain.rpc("eth_getCode", somebody, "latest") == "0x"


def test_the_faucet_gives_what_was_asked(chain: Any, account: Callable[[], LocalAccount]) -> None:
    payee = account().address
    chain.devnet.faucet(payee, usdc="0.000001", eth=Decimal("0.5"))
    assert (chain.balance(payee), chain.devnet.eth_balance(payee)) == (1, 5 * 10**17)
    supply = chain.read("totalSupply()")
    chain.devnet.faucet(payee, usdc=3)
    assert chain.read("totalSupply()") == supply + 3_000_000
    for wrong in ("0.0000001", -1):
        with pytest.raises(ConfigError):
            chain.devnet.faucet(payee, usdc=wrong)


def test_the_faucet_works_while_transactions_wait(chain: Any, account: Callable[[], LocalAccount]) -> None:
    payee = account().address
    chain.devnet.set_automine(enabled=False)
    try:
        chain.devnet.faucet(payee, usdc=2, eth=1)
        assert (chain.balance(payee), chain.devnet.eth_balance(payee)) == (2_000_000, 10**18)
    finally:
        chain.devnet.set_automine(enabled=True)


@settings(max_examples=15, deadline=None)
@given(amounts=st.lists(st.integers(min_value=0, max_value=10**9), max_size=4))
def test_money_is_neither_made_nor_lost(devnet_pyevm: Devnet, amounts: list[int]) -> None:
    """Whatever the faucet hands out, the supply is the sum of the balances."""
    payees = ["0x" + f"{0xFA0000 + index:040x}" for index in range(len(amounts))]
    with devnet_pyevm.rewound():
        everybody = [address for address, _ in devnet_pyevm.accounts] + payees
        before = sum(devnet_pyevm.usdc_balance(each) for each in everybody)
        for payee, amount in zip(payees, amounts, strict=True):
            devnet_pyevm.faucet(payee, usdc=Decimal(amount).scaleb(-6))
        after = [devnet_pyevm.usdc_balance(each) for each in everybody]
        assert sum(after) == before + sum(amounts)
        assert after[len(everybody) - len(payees) :] == amounts
