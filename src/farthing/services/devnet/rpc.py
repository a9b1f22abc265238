"""The JSON-RPC methods of the devnet: what they take, what they answer. Transport is `server`'s business."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from farthing import __version__
from farthing.evm.addresses import ZERO_ADDRESS
from farthing.evm.reverts import read_revert
from farthing.services.devnet.chain import CallOutcome, CallRequest, TransactionInvalid
from farthing.services.devnet.genesis import BLOCK_GAS_LIMIT, MULTICALL3_ADDRESS, faucet_account, funded_accounts
from farthing.services.devnet.node import SUGGESTED_TIP, Node, NodeRefusal
from farthing.services.devnet.pool import PoolRefused
from farthing.services.devnet.rpc_admin import ADMIN_METHODS
from farthing.services.devnet.rpc_logs import get_logs
from farthing.services.devnet.rpc_values import (
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    REFUSED,
    REVERTED,
    RpcError,
    block_view,
    data,
    header_view,
    invalid,
    quantity,
    read_address,
    read_data,
    read_hash,
    read_list,
    read_object,
    read_quantity,
    receipt_view,
    transaction_view,
)

if TYPE_CHECKING:
    from farthing.services.devnet.blocks import Block, Header

Method: TypeAlias = Callable[[Node, list[Any]], Any]

# geth's limit for eth_feeHistory.
_FEE_HISTORY_MAX_BLOCKS: Final = 1024
_MISSING: Final = object()


def call_method(node: Node, method: str, params: list[Any]) -> Any:
    """Answer one call. Raises `RpcError`."""
    found = _METHODS.get(method)
    if found is None:
        raise RpcError(METHOD_NOT_FOUND, f"the method {method[:80]} does not exist/is not available")
    try:
        return found(node, params)
    except (TransactionInvalid, PoolRefused, NodeRefusal) as error:
        raise RpcError(REFUSED, str(error)) from error


# Blocks by name


def _block(node: Node, reference: Any, name: str = "block") -> Block | None:
    """Find a canonical block by number, tag, or the object of EIP-1898. "pending" is the newest here."""
    if isinstance(reference, dict):
        named = read_object(reference, name)
        if "blockHash" in named:
            return node.chain.block_by_hash(read_hash(named["blockHash"], f"{name}.blockHash"))
        reference = named.get("blockNumber")
    if reference is None or reference == "pending":
        return node.chain.head
    if isinstance(reference, str) and not reference.startswith("0x"):
        block = node.block_named(reference)
        if block is None:
            raise invalid(name, "a number, a hash, latest, pending, safe, finalized or earliest", reference)
        return block
    return node.chain.block(read_quantity(reference, name))


def _known_block(node: Node, reference: Any) -> Block:
    block = _block(node, reference)
    if block is None:
        raise RpcError(REFUSED, "header not found")
    return block


def _execution_header(node: Node, reference: Any) -> Header:
    """The header that a call at this block sees, on the state after the block."""
    if reference == "pending":
        return node.pending_header()
    block = _known_block(node, reference)
    return block.header.copy(state_root=block.state_root)


def _size_bytes(node: Node, block: Block) -> int:
    return node.chain.size_bytes(block.header, block.transactions)


def _get_block(node: Node, block: Block | None, *, full: bool) -> Any:
    return None if block is None else block_view(block, _size_bytes(node, block), full=full)


def _block_by_number(node: Node, params: list[Any]) -> Any:
    reference, full = _argument(params, 0, "block"), bool(_argument(params, 1, "full", default=False))
    if reference == "pending":
        header = node.pending_header()
        waiting = node.pool.runnable(header.base_fee_per_gas, node.nonce_of)
        return header_view(header) | {
            "size": quantity(node.chain.size_bytes(header, waiting)),
            "uncles": [],
            "withdrawals": [],
            "transactions": [transaction_view(sent) if full else data(sent.hash) for sent in waiting],
        }
    return _get_block(node, _block(node, reference), full=full)


def _block_by_hash(node: Node, params: list[Any]) -> Any:
    block_hash = read_hash(_argument(params, 0, "hash"), "hash")
    full = bool(_argument(params, 1, "full", default=False))
    return _get_block(node, node.chain.block_by_hash(block_hash), full=full)


def _block_transaction_count(node: Node, params: list[Any]) -> Any:
    block = _block(node, _argument(params, 0, "block"))
    return None if block is None else quantity(len(block.transactions))


def _block_receipts(node: Node, params: list[Any]) -> Any:
    reference = _argument(params, 0, "block")
    if isinstance(reference, str) and len(reference) == 66:  # noqa: PLR2004 - geth takes a hash here as well
        reference = {"blockHash": reference}
    block = _block(node, reference)
    return None if block is None else [receipt_view(block, index) for index in range(len(block.transactions))]


# Accounts


def _state(node: Node, params: list[Any], index: int) -> Any:
    return node.chain.state(_known_block(node, _argument(params, index, "block", default="latest")))


def _get_balance(node: Node, params: list[Any]) -> str:
    address = read_address(_argument(params, 0, "address"), "address")
    return quantity(_state(node, params, 1).get_balance(address))


def _get_code(node: Node, params: list[Any]) -> str:
    address = read_address(_argument(params, 0, "address"), "address")
    return data(_state(node, params, 1).get_code(address))


def _get_transaction_count(node: Node, params: list[Any]) -> str:
    address = read_address(_argument(params, 0, "address"), "address")
    nonce = _state(node, params, 1).get_nonce(address)
    if _argument(params, 1, "block", default="latest") == "pending":
        nonce = node.pool.next_nonce(address, nonce)
    return quantity(nonce)


def _get_storage_at(node: Node, params: list[Any]) -> str:
    address = read_address(_argument(params, 0, "address"), "address")
    slot = read_quantity(_argument(params, 1, "slot"), "slot")
    return data(_state(node, params, 2).get_storage(address, slot).to_bytes(32, "big"))


# Calls


def _call_request(params: list[Any]) -> CallRequest:
    fields = read_object(_argument(params, 0, "transaction"), "transaction")
    given = fields.get("input", fields.get("data"))
    to, gas, value, sender = (fields.get(name) for name in ("to", "gas", "value", "from"))
    return CallRequest(
        sender=ZERO_ADDRESS if sender is None else read_address(sender, "transaction.from"),
        to=None if to is None else read_address(to, "transaction.to"),
        data=b"" if given is None else read_data(given, "transaction.input"),
        value=0 if value is None else read_quantity(value, "transaction.value"),
        gas=BLOCK_GAS_LIMIT if gas is None else min(read_quantity(gas, "transaction.gas"), BLOCK_GAS_LIMIT),
    )


def _call(node: Node, params: list[Any]) -> str:
    header = _execution_header(node, _argument(params, 1, "block", default="latest"))
    outcome = node.chain.call(_call_request(params), header)
    _raise_failure(outcome)
    return data(outcome.output)


def _estimate_gas(node: Node, params: list[Any]) -> str:
    header = _execution_header(node, _argument(params, 1, "block", default="latest"))
    gas, outcome = node.chain.estimate_gas(_call_request(params), header)
    _raise_failure(outcome)
    return quantity(gas)


def _raise_failure(outcome: CallOutcome) -> None:
    if outcome.reverted:
        revert = read_revert(outcome.output)
        told = f": {revert.reason}" if revert.kind in {"error", "panic"} else ""
        raise RpcError(REVERTED, f"execution reverted{told}", data(outcome.output))
    if outcome.error:
        raise RpcError(REFUSED, outcome.error)


# Transactions


def _send_raw_transaction(node: Node, params: list[Any]) -> str:
    return data(node.send(read_data(_argument(params, 0, "transaction"), "transaction")))


def _transaction_by_hash(node: Node, params: list[Any]) -> Any:
    transaction_hash = read_hash(_argument(params, 0, "hash"), "hash")
    place = node.chain.place(transaction_hash)
    if place is not None:
        block, index = place
        return transaction_view(block.transactions[index], block, index)
    waiting = node.pool.find(transaction_hash)
    return None if waiting is None else transaction_view(waiting)


def _transaction_receipt(node: Node, params: list[Any]) -> Any:
    place = node.chain.place(read_hash(_argument(params, 0, "hash"), "hash"))
    return None if place is None else receipt_view(*place)


# Fees


def _gas_price(node: Node, _: list[Any]) -> str:
    return quantity(node.pending_header().base_fee_per_gas + SUGGESTED_TIP)


def _fee_history(node: Node, params: list[Any]) -> dict[str, Any]:
    count = min(read_quantity(_argument(params, 0, "blockCount"), "blockCount"), _FEE_HISTORY_MAX_BLOCKS)
    newest = _known_block(node, _argument(params, 1, "newestBlock"))
    percentiles = read_list(_argument(params, 2, "rewardPercentiles", default=None) or [], "rewardPercentiles")
    if not all(isinstance(each, (int, float)) for each in percentiles):
        raise invalid("rewardPercentiles", "a list of numbers", percentiles)
    numbers = range(max(0, newest.number - count + 1), newest.number + 1)
    blocks = [block for number in numbers if (block := node.chain.block(number))]
    following = node.chain.block(newest.number + 1)
    next_base_fee = following.base_fee if following else node.pending_header().base_fee_per_gas
    history: dict[str, Any] = {
        "oldestBlock": quantity(numbers.start),
        "baseFeePerGas": [quantity(block.base_fee) for block in blocks] + [quantity(next_base_fee)],
        "gasUsedRatio": [block.header.gas_used / block.header.gas_limit for block in blocks],
    }
    if percentiles:
        history["reward"] = [[quantity(tip) for tip in _tips(block, percentiles)] for block in blocks]
    return history


def _tips(block: Block, percentiles: list[float]) -> list[int]:
    """The tips at these percentiles of a block's gas, cheapest first; zeros for an empty block."""
    paid = sorted(
        (sent.effective_gas_price(block.base_fee) - block.base_fee, receipt.gas_used)
        for sent, receipt in zip(block.transactions, block.receipts, strict=True)
    )
    tips: list[int] = []
    for percentile in percentiles:
        threshold, reached, tip = block.header.gas_used * percentile / 100, 0, 0
        for tip, gas_used in paid:  # noqa: B007 - the last one reached is the answer
            reached += gas_used
            if reached >= threshold:
                break
        tips.append(tip)
    return tips


def _info(node: Node, _: list[Any]) -> dict[str, Any]:
    return {
        "chainId": node.chain.chain_id,
        "usdc": node.genesis.token_address,
        "multicall3": MULTICALL3_ADDRESS,
        "faucet": faucet_account().address,
        "accounts": [{"address": each.address, "privateKey": each.private_key} for each in funded_accounts()],
        "automine": node.automine,
    }


def _argument(params: list[Any], index: int, name: str, *, default: Any = _MISSING) -> Any:
    if index < len(params) and (params[index] is not None or default is _MISSING):
        return params[index]
    if default is _MISSING:
        raise RpcError(INVALID_PARAMS, f"missing value for required argument {index} ({name})")
    return default


def _web3_sha3(_: Node, params: list[Any]) -> str:
    from farthing.evm.keccak import keccak256  # noqa: PLC0415 - of this one method only

    return data(keccak256(read_data(_argument(params, 0, "data"), "data")))


_METHODS: Final[dict[str, Method]] = {
    "web3_clientVersion": lambda _node, _: f"farthing-devnet/{__version__}/py-evm",
    "web3_sha3": _web3_sha3,
    "net_version": lambda node, _: str(node.chain.chain_id),
    "net_listening": lambda _node, _: True,
    "eth_syncing": lambda _node, _: False,
    "eth_accounts": lambda _node, _: [],  # keys are the callers' business: sign, then eth_sendRawTransaction
    "eth_chainId": lambda node, _: quantity(node.chain.chain_id),
    "eth_blockNumber": lambda node, _: quantity(node.chain.head.number),
    "eth_getBlockByNumber": _block_by_number,
    "eth_getBlockByHash": _block_by_hash,
    "eth_getBlockTransactionCountByNumber": _block_transaction_count,
    "eth_getBlockReceipts": _block_receipts,
    "eth_getBalance": _get_balance,
    "eth_getCode": _get_code,
    "eth_getTransactionCount": _get_transaction_count,
    "eth_getStorageAt": _get_storage_at,
    "eth_call": _call,
    "eth_estimateGas": _estimate_gas,
    "eth_gasPrice": _gas_price,
    "eth_maxPriorityFeePerGas": lambda _node, _: quantity(SUGGESTED_TIP),
    "eth_feeHistory": _fee_history,
    "eth_sendRawTransaction": _send_raw_transaction,
    "eth_getTransactionByHash": _transaction_by_hash,
    "eth_getTransactionReceipt": _transaction_receipt,
    "eth_getLogs": lambda node, params: get_logs(node, _argument(params, 0, "filter"), _block),
    "devnet_info": _info,
    **ADMIN_METHODS,
}


def method_names() -> frozenset[str]:
    """The methods that this server answers."""
    return frozenset(_METHODS)
