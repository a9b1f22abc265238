"""The JSON-RPC of the devnet: shapes and refusals as public nodes have them; where both nodes agree, on both."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from eth_account.signers.local import LocalAccount
from eth_utils.crypto import keccak

from farthing.errors import NodeRefused
from farthing.services.devnet import Devnet
from farthing.services.devnet.server import BATCH_MAX_CALLS, BODY_MAX_BYTES

TRANSFER_TOPIC = "0x" + keccak(text="Transfer(address,address,uint256)").hex()
WHOLE = True


def refused(chain: Any, method: str, *params: Any) -> NodeRefused:
    with pytest.raises(NodeRefused) as error:
        chain.rpc(method, *params)
    return error.value


# Transport


def test_batch_is_answered_in_order_and_errors_stay_apart(chain: Any) -> None:
    calls = [
        {"jsonrpc": "2.0", "id": "a", "method": "eth_chainId", "params": []},
        {"jsonrpc": "2.0", "id": 2, "method": "eth_noSuchMethod", "params": []},
        {"jsonrpc": "2.0", "id": 3, "method": "eth_blockNumber", "params": []},
    ]
    one, two, three = chain.devnet.post(json.dumps(calls).encode())
    assert (one["id"], one["result"]) == ("a", hex(chain.devnet.chain_id))
    assert (two["id"], two["error"]["code"]) == (2, -32601)
    assert (three["id"], "result" in three) == (3, True)


def test_bodies_that_are_no_call(chain_pyevm: Any) -> None:
    def code(body: bytes) -> int:
        answer = chain_pyevm.devnet.post(body)
        return int(answer["error"]["code"])

    assert code(b"{") == -32700
    assert code(b"\xff\xfe") == -32700
    assert code(b"[" * 5000) == -32700
    assert code(b"[]") == -32600
    assert code(b"7") == -32600
    assert code(b'{"id": 1}') == -32600
    assert code(b'{"id": [1], "method": "eth_chainId"}') == -32600
    assert code(b'{"id": 1, "method": "eth_chainId", "params": {"a": 1}}') == -32602
    assert code(json.dumps([{"id": 1, "method": "eth_chainId"}] * (BATCH_MAX_CALLS + 1)).encode()) == -32600
    mixed = chain_pyevm.devnet.post(b'[1, {"id": 1, "method": "eth_chainId"}, {"method": "eth_chainId"}]')
    assert [answer.get("id") for answer in mixed] == [None, 1]


def test_a_body_that_is_too_long_is_refused(devnet_pyevm: Devnet) -> None:
    connection = http.client.HTTPConnection(devnet_pyevm.host, devnet_pyevm.port, timeout=30)
    connection.request("POST", "/", b" " * (BODY_MAX_BYTES + 1))
    assert connection.getresponse().status == 413
    connection.close()


def test_two_hundred_requests_at_once(devnet_pyevm: Devnet) -> None:
    holder = "0x" + "20" * 20
    devnet_pyevm.faucet(holder, usdc=20)
    with ThreadPoolExecutor(200) as pool:
        balances = list(pool.map(lambda _: devnet_pyevm.usdc_balance(holder), range(200)))
    assert balances == [20 * 10**6] * 200


@pytest.mark.parametrize(
    ("method", "params", "named"),
    [
        ("eth_getBalance", ["0x12"], "address"),
        ("eth_getBalance", [], "address"),
        ("eth_getBalance", ["0x036CbD53842c5426634e7929541eC2318f3dCf7e"], "checksum"),
        ("eth_getBalance", ["0x" + "11" * 20, "newest"], "block"),
        ("eth_getBlockByNumber", [True], "block"),
        ("eth_getTransactionReceipt", ["0x1234"], "hash"),
        ("eth_call", ["0x"], "transaction"),
        ("eth_call", [{"to": "0x" + "11" * 20, "data": "0xzz"}], "transaction.input"),
        ("eth_call", [{"to": "0x" + "11" * 20, "value": "0x1" + "0" * 64}], "transaction.value"),
        ("eth_getLogs", [{"topics": ["0x1"]}], "filter.topics[0]"),
        ("eth_getLogs", [{"fromBlock": "0x0", "blockHash": "0x" + "00" * 32}], "blockHash"),
        ("anvil_mine", ["0xffffff"], "blocks"),
        ("evm_setAutomine", ["yes"], "enabled"),
    ],
)
def test_errors_name_what_was_wrong(chain_pyevm: Any, method: str, params: list[Any], named: str) -> None:
    error = refused(chain_pyevm, method, *params)
    assert error.code == -32602
    assert named in error.message


# Reading


def test_the_chain_says_what_it_is(chain: Any) -> None:
    assert chain.rpc("eth_chainId") == hex(402402)
    assert chain.rpc("net_version") == "402402"
    assert chain.devnet.network == "eip155:402402"
    assert ("anvil" if chain.devnet.node == "anvil" else "farthing") in chain.rpc("web3_clientVersion")


def test_blocks_transactions_and_receipts_agree(chain: Any, account: Callable[[], LocalAccount]) -> None:
    sender, payee = chain.funded(usdc=1, eth=1), account()
    data = "0x" + keccak(text="transfer(address,uint256)")[:4].hex() + payee.address[2:].lower().rjust(64, "0")
    receipt = chain.send(sender, to=chain.usdc, data=data + "7".rjust(64, "0"))
    block = chain.rpc("eth_getBlockByNumber", receipt["blockNumber"], WHOLE)
    [transaction] = block["transactions"]
    assert block["hash"] == receipt["blockHash"] == receipt["logs"][0]["blockHash"]
    assert chain.rpc("eth_getBlockByHash", block["hash"], not WHOLE)["transactions"] == [receipt["transactionHash"]]
    assert chain.rpc("eth_getTransactionByHash", receipt["transactionHash"])["hash"] == transaction["hash"]
    assert chain.rpc("eth_getBlockReceipts", receipt["blockNumber"])[0]["transactionHash"] == transaction["hash"]
    assert (transaction["type"], transaction["from"]) == ("0x2", sender.address.lower())
    price = min(10**10, int(block["baseFeePerGas"], 16) + 10**9)
    assert int(receipt["effectiveGasPrice"], 16) == price
    assert int(block["gasUsed"], 16) == int(receipt["gasUsed"], 16) == int(receipt["cumulativeGasUsed"], 16)
    assert receipt["logsBloom"] == block["logsBloom"]
    spent = 10**18 - chain.devnet.eth_balance(sender.address)
    assert spent == price * int(receipt["gasUsed"], 16)
    assert chain.rpc("eth_getTransactionReceipt", "0x" + "00" * 32) is None
    assert chain.rpc("eth_getTransactionByHash", "0x" + "00" * 32) is None
    assert chain.rpc("eth_getBlockByHash", "0x" + "00" * 32, not WHOLE) is None


def test_logs_are_found_by_address_topic_range_and_hash(chain: Any, account: Callable[[], LocalAccount]) -> None:
    payees = [account() for _ in range(3)]
    first = chain.devnet.block_number() + 1
    for payee in payees:
        chain.devnet.faucet(payee.address, usdc=1)
    topics = ["0x" + payee.address[2:].lower().rjust(64, "0") for payee in payees]

    def found(**criteria: Any) -> list[str]:
        given = {"fromBlock": hex(first), "address": chain.usdc, "topics": [TRANSFER_TOPIC], **criteria}
        return [log["topics"][2] for log in chain.rpc("eth_getLogs", given)]

    assert found() == topics
    assert found(topics=[TRANSFER_TOPIC, None, topics[1]]) == [topics[1]]
    assert found(topics=[[TRANSFER_TOPIC], [], [topics[0], topics[2]]]) == [topics[0], topics[2]]
    assert found(address=[chain.usdc, chain.devnet.multicall3]) == topics
    assert found(address=chain.devnet.multicall3) == []
    assert found(toBlock=hex(first + 1)) == topics[:2]
    block_hash = chain.rpc("eth_getBlockByNumber", hex(first + 1), not WHOLE)["hash"]
    by_hash = chain.rpc("eth_getLogs", {"blockHash": block_hash, "topics": [TRANSFER_TOPIC]})
    assert [log["topics"][2] for log in by_hash] == [topics[1]]


def test_the_past_can_be_read(chain: Any, account: Callable[[], LocalAccount]) -> None:
    payee = account()
    before = hex(chain.devnet.block_number())
    chain.devnet.faucet(payee.address, usdc=1, eth=1)
    assert chain.devnet.usdc_balance(payee.address, before) == 0
    assert chain.devnet.usdc_balance(payee.address) == 1_000_000
    assert chain.rpc("eth_getBalance", payee.address, before) == "0x0"
    with pytest.raises(NodeRefused):
        chain.rpc("eth_getBalance", payee.address, hex(10**6))


def test_storage_is_readable(chain: Any) -> None:
    slot = chain.rpc("eth_getStorageAt", chain.usdc, "0x0", "latest")
    assert slot == "0x" + chain.devnet.owner[0][2:].lower().rjust(64, "0")


def test_finality_lags_behind(chain_pyevm: Any) -> None:
    chain = chain_pyevm
    chain.devnet.mine(3)
    head = chain.devnet.block_number()
    numbers = [int(chain.rpc("eth_getBlockByNumber", tag, not WHOLE)["number"], 16) for tag in ("safe", "finalized")]
    assert numbers == [head - 1, head - 2]
    assert chain.rpc("eth_getBlockByNumber", "pending", not WHOLE)["number"] == hex(head + 1)
    assert chain.rpc("eth_getBlockByNumber", "earliest", not WHOLE)["number"] == "0x0"


# Calls and estimates


def test_revert_data_comes_with_the_error(chain: Any, pack: Callable[..., str]) -> None:
    data = pack("transfer(address,uint256)", chain.devnet.multicall3, 1)
    for method in ("eth_call", "eth_estimateGas"):
        error = refused(chain, method, {"to": chain.usdc, "data": data, "from": "0x" + "12" * 20})
        assert error.code == 3
        assert "ERC20: transfer amount exceeds balance" in error.message
        assert error.data.startswith("0x08c379a0")


def test_estimates_are_enough_and_close(chain: Any, pack: Callable[..., str]) -> None:
    payer = chain.funded(usdc=5, eth=1)
    data = pack("transfer(address,uint256)", "0x" + "15" * 20, 5)
    estimate = int(chain.rpc("eth_estimateGas", {"from": payer.address, "to": chain.usdc, "data": data}), 16)
    receipt = chain.send(payer, to=chain.usdc, data=data, gas=estimate)
    assert receipt["status"] == "0x1"
    assert int(receipt["gasUsed"], 16) <= estimate <= int(receipt["gasUsed"], 16) * 1.1
    plain = chain.rpc("eth_estimateGas", {"from": payer.address, "to": "0x" + "15" * 20, "value": "0x1"})
    assert plain == hex(21_000)


def test_value_that_the_caller_has_not_is_refused(chain_pyevm: Any) -> None:
    poor = {"from": "0x" + "16" * 20, "to": "0x" + "15" * 20, "value": "0x1"}
    for method in ("eth_call", "eth_estimateGas"):
        assert "insufficient funds" in refused(chain_pyevm, method, poor).message


# Sending


def test_refusals_of_the_pool_are_geths(chain_pyevm: Any) -> None:
    chain = chain_pyevm
    sender = chain.funded(eth=1)

    def refusal(**fields: Any) -> str:
        raw = chain.sign(sender, {"to": chain.usdc, "gas": 21_000, **fields})
        return refused(chain, "eth_sendRawTransaction", raw).message

    assert refusal(value=10**18).startswith("insufficient funds for gas * price + value")
    assert refusal(gas=20_999).startswith("intrinsic gas too low")
    assert refusal(gas=30_000_001).startswith("exceeds block gas limit")
    assert refusal(chainId=1).startswith("invalid chain id for signer: have 1 want 402402")
    assert refusal(maxFeePerGas=1, maxPriorityFeePerGas=2).startswith("max priority fee per gas higher than max fee")
    raw = chain.sign(sender, {"to": sender.address, "gas": 21_000})
    chain.rpc("eth_sendRawTransaction", raw)
    assert refused(chain, "eth_sendRawTransaction", raw).message == "already known"
    assert refusal(nonce=0).startswith("nonce too low: next nonce 1, tx nonce 0")
    for raw in ("0x", "0x02", "0x02c0", "0xc0", "0xdeadbeef", "0x" + "02" * 200):
        assert refused(chain, "eth_sendRawTransaction", raw).code in {-32000, -32602}


def test_legacy_transactions_are_taken(chain: Any) -> None:
    sender = chain.funded(eth=1)
    receipt = chain.send(sender, to=sender.address, gas=21_000, gasPrice=5 * 10**9)
    assert (receipt["status"], receipt["type"], receipt["effectiveGasPrice"]) == ("0x1", "0x0", hex(5 * 10**9))
    transaction = chain.rpc("eth_getTransactionByHash", receipt["transactionHash"])
    assert {"v", "r", "s", "gasPrice"} <= set(transaction)


def test_a_transaction_is_replaced_by_a_tenth_more(chain: Any) -> None:
    sender = chain.funded(eth=1)
    chain.devnet.set_automine(enabled=False)
    try:
        base = {"to": sender.address, "gas": 21_000, "nonce": 0}
        first = chain.rpc("eth_sendRawTransaction", chain.sign(sender, {**base, "maxPriorityFeePerGas": 100}))
        assert chain.rpc("eth_getTransactionByHash", first)["blockHash"] is None
        assert chain.rpc("eth_getTransactionReceipt", first) is None
        # Both fees must rise, by a tenth; anvil is content when the first does at all.
        nearly = [{"maxPriorityFeePerGas": 109, "maxFeePerGas": 10**10}]
        if chain.devnet.node == "py-evm":
            nearly.append({"maxPriorityFeePerGas": 109, "maxFeePerGas": 11 * 10**9})
            nearly.append({"maxPriorityFeePerGas": 110, "maxFeePerGas": 11 * 10**9 - 1})
        for fees in nearly:
            cheap = chain.sign(sender, base | fees)
            assert "replacement transaction underpriced" in refused(chain, "eth_sendRawTransaction", cheap).message
        dear = {**base, "maxPriorityFeePerGas": 110, "maxFeePerGas": 11 * 10**9}
        second = chain.rpc("eth_sendRawTransaction", chain.sign(sender, dear))
        assert chain.rpc("eth_getTransactionByHash", first) is None
        assert chain.rpc("eth_getTransactionCount", sender.address, "pending") == "0x1"
        assert chain.rpc("eth_getTransactionCount", sender.address, "latest") == "0x0"
        chain.devnet.mine()
        assert chain.rpc("eth_getTransactionReceipt", second)["status"] == "0x1"
        assert chain.rpc("eth_getTransactionReceipt", first) is None
    finally:
        chain.devnet.set_automine(enabled=True)


def test_a_nonce_ahead_waits_for_the_one_before(chain: Any) -> None:
    sender = chain.funded(eth=1)
    fields = {"to": sender.address, "gas": 21_000}
    second = chain.rpc("eth_sendRawTransaction", chain.sign(sender, {**fields, "nonce": 1}))
    assert chain.rpc("eth_getTransactionReceipt", second) is None
    assert chain.rpc("eth_getTransactionCount", sender.address, "pending") == "0x0"
    first = chain.rpc("eth_sendRawTransaction", chain.sign(sender, {**fields, "nonce": 0}))
    assert chain.devnet.wait_for_receipt(first)["status"] == "0x1"
    assert chain.devnet.wait_for_receipt(second)["status"] == "0x1"


def test_a_block_takes_the_best_tips_first(chain_pyevm: Any) -> None:
    chain = chain_pyevm
    senders = [chain.funded(eth=1) for _ in range(3)]
    chain.devnet.set_automine(enabled=False)
    try:
        hashes = []
        for tip, sender in zip((5, 50, 20), senders, strict=True):
            fields = {"to": sender.address, "gas": 21_000, "maxPriorityFeePerGas": tip}
            hashes.append(chain.rpc("eth_sendRawTransaction", chain.sign(sender, fields)))
        assert chain.rpc("txpool_status") == {"pending": "0x3", "queued": "0x0"}
        chain.devnet.mine()
        block = chain.rpc("eth_getBlockByNumber", "latest", not WHOLE)
        assert block["transactions"] == [hashes[1], hashes[2], hashes[0]]
    finally:
        chain.devnet.set_automine(enabled=True)


# Fees


def test_base_fee_follows_eip_1559(chain: Any) -> None:
    chain.devnet.mine(4)
    head = chain.devnet.block_number()
    history = chain.rpc("eth_feeHistory", "0x5", "latest", [50])
    assert len(history["gasUsedRatio"]) == len(history["reward"]) == 5
    assert len(history["baseFeePerGas"]) == 6
    for number in range(head - 3, head + 1):
        parent = chain.rpc("eth_getBlockByNumber", hex(number - 1), not WHOLE)
        block = chain.rpc("eth_getBlockByNumber", hex(number), not WHOLE)
        fee, used, target = (int(parent["baseFeePerGas"], 16), int(parent["gasUsed"], 16), 15_000_000)
        expected = fee - fee * (target - used) // target // 8
        assert int(block["baseFeePerGas"], 16) == expected
    assert int(chain.rpc("eth_gasPrice"), 16) >= int(history["baseFeePerGas"][-1], 16)
    assert int(chain.rpc("eth_maxPriorityFeePerGas"), 16) > 0


def test_a_transaction_below_the_base_fee_waits(chain_pyevm: Any) -> None:
    chain = chain_pyevm
    sender = chain.funded(eth=1)
    with chain.devnet.rewound():
        chain.rpc("anvil_setNextBlockBaseFeePerGas", hex(10**10))
        fields = {"to": sender.address, "gas": 21_000, "maxFeePerGas": 10**9, "maxPriorityFeePerGas": 1}
        waiting = chain.rpc("eth_sendRawTransaction", chain.sign(sender, fields))
        assert chain.rpc("eth_getTransactionReceipt", waiting) is None
        chain.devnet.mine(20)
        assert chain.rpc("eth_getTransactionReceipt", waiting)["status"] == "0x1"
