"""The methods that public nodes don't have: mining, time, snapshots, reorganisations, editing the state, the faucet.

Names and shapes are those of hardhat (`evm_…`, `hardhat_…`) and anvil (`anvil_…`); `devnet_…` is our own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from farthing.services.devnet.node import MINE_MAX_BLOCKS
from farthing.services.devnet.rpc_values import (
    INVALID_PARAMS,
    RpcError,
    data,
    invalid,
    quantity,
    read_address,
    read_data,
    read_hash,
    read_list,
    read_object,
    read_quantity,
)

if TYPE_CHECKING:
    from farthing.services.devnet.node import Node


def _number(params: list[Any], index: int, name: str, default: int | None = None) -> int:
    value = params[index] if index < len(params) else None
    if value is None:
        if default is None:
            raise RpcError(INVALID_PARAMS, f"missing value for required argument {index} ({name})")
        return default
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value)  # anvil takes decimal digits too
    return read_quantity(value, name)


def _flag(params: list[Any], name: str) -> bool:
    if not params or not isinstance(params[0], bool):
        raise invalid(name, "true or false", params[0] if params else None)
    return params[0]


# Mining


def _evm_mine(node: Node, params: list[Any]) -> str:
    given = params[0] if params else None
    if isinstance(given, dict):
        options = read_object(given, "options")
        for _ in range(_block_count(_number([options.get("blocks")], 0, "blocks", 1)) - 1):
            node.mine()
        given = options.get("timestamp")
    node.mine(None if given is None else _number([given], 0, "timestamp"))
    return "0x0"


def _mine_many(node: Node, params: list[Any]) -> None:
    count = _block_count(_number(params, 0, "blocks", 1))
    interval_seconds = _number(params, 1, "interval", 0)
    for index in range(count):
        if interval_seconds and index:
            node.mine(node.chain.head.header.timestamp + interval_seconds)
        else:
            node.mine()


def _block_count(count: int) -> int:
    if count > MINE_MAX_BLOCKS:
        raise invalid("blocks", f"at most {MINE_MAX_BLOCKS}", count)
    return count


def _set_automine(node: Node, params: list[Any]) -> bool:
    node.set_automine(enabled=_flag(params, "enabled"))
    return True


def _set_interval(node: Node, params: list[Any]) -> bool:
    """Seconds between blocks, as anvil has it (hardhat's are milliseconds); zero: only when asked."""
    node.mine_by_clock(_number(params, 0, "interval") or None)
    return True


# Time


def _increase_time(node: Node, params: list[Any]) -> str:
    return quantity(node.increase_time(_number(params, 0, "seconds")))


def _set_next_timestamp(node: Node, params: list[Any]) -> None:
    node.set_next_timestamp(_number(params, 0, "timestamp"))


def _set_time(node: Node, params: list[Any]) -> int:
    return node.set_time(_number(params, 0, "timestamp"))


def _set_next_base_fee(node: Node, params: list[Any]) -> None:
    node.set_next_base_fee(_number(params, 0, "baseFeePerGas"))


# Back in time


def _revert(node: Node, params: list[Any]) -> bool:
    return node.revert(_number(params, 0, "snapshot"))


def _anvil_reorg(node: Node, params: list[Any]) -> None:
    """Reorganise in anvil's form: depth, and pairs of a raw transaction and the index of its new block."""
    if params and isinstance(params[0], dict):
        named = read_object(params[0], "options")
        params = [named.get("depth"), named.get("txBlockPairs")]
    depth = _number(params, 0, "depth")
    given: Any = params[1] if len(params) > 1 and params[1] is not None else []
    pairs = read_list(given, "txBlockPairs", "a list of [raw transaction, block index]")
    replacements: list[list[bytes]] = [[] for _ in range(min(depth, MINE_MAX_BLOCKS))]
    for pair in pairs:
        raw_and_index = read_list(pair, "txBlockPairs", "pairs of [raw transaction, block index]")
        index = _number(raw_and_index, 1, "block index")
        if index >= len(replacements):
            raise invalid("txBlockPairs", f"a block index below the depth, {depth}", index)
        replacements[index].append(read_data(raw_and_index[0], "raw transaction"))
    node.reorganise(depth, replacements=replacements)


def _devnet_reorg(node: Node, params: list[Any]) -> dict[str, Any]:
    """Replace the newest blocks by empty ones; `keep_transactions` puts what they held back into the pool."""
    keep = params[1] if len(params) > 1 else False
    if not isinstance(keep, bool):
        raise invalid("keepTransactions", "true or false", keep)
    dropped = node.reorganise(_number(params, 0, "depth"), keep_transactions=keep)
    return {"dropped": [data(each) for each in dropped]}


# Editing


def _set_balance(node: Node, params: list[Any]) -> None:
    node.edit(balances={read_address(params[0] if params else None, "address"): _number(params, 1, "balance")})


def _set_nonce(node: Node, params: list[Any]) -> None:
    node.edit(nonces={read_address(params[0] if params else None, "address"): _number(params, 1, "nonce")})


def _set_code(node: Node, params: list[Any]) -> None:
    if len(params) < 2:  # noqa: PLR2004 - address and code
        raise RpcError(INVALID_PARAMS, "missing value for required argument 1 (code)")
    node.edit(codes={read_address(params[0], "address"): read_data(params[1], "code")})


def _set_storage(node: Node, params: list[Any]) -> bool:
    if len(params) < 3:  # noqa: PLR2004 - address, slot and value
        raise RpcError(INVALID_PARAMS, "missing value for required argument 2 (value)")
    slot = (read_address(params[0], "address"), _number(params, 1, "slot"))
    node.edit(storage={slot: int.from_bytes(read_data(params[2], "value", 32), "big")})
    return True


# The pool


def _drop_transaction(node: Node, params: list[Any]) -> str | None:
    transaction_hash = read_hash(params[0] if params else None, "hash")
    return data(transaction_hash) if node.pool.remove(transaction_hash) else None


def _drop_all_transactions(node: Node, _: list[Any]) -> None:
    node.pool.clear()


def _pool_status(node: Node, _: list[Any]) -> dict[str, str]:
    header = node.pending_header()
    runnable = len(node.pool.runnable(header.base_fee_per_gas, node.nonce_of))
    return {"pending": quantity(runnable), "queued": quantity(len(node.pool) - runnable)}


# The faucet


def _faucet(node: Node, params: list[Any]) -> dict[str, Any]:
    """Address, USDC in atomic units, wei (both optional)."""
    address = read_address(params[0] if params else None, "address")
    hashes = node.faucet(address, usdc=_number(params, 1, "usdc", 0), wei=_number(params, 2, "wei", 0))
    return {"transactions": [data(each) for each in hashes]}


ADMIN_METHODS: Final[dict[str, Callable[[Any, list[Any]], Any]]] = {
    "evm_mine": _evm_mine,
    "anvil_mine": _mine_many,
    "hardhat_mine": _mine_many,
    "evm_setAutomine": _set_automine,
    "anvil_setAutomine": _set_automine,
    "anvil_getAutomine": lambda node, _: node.automine,
    "hardhat_getAutomine": lambda node, _: node.automine,
    "evm_setIntervalMining": _set_interval,
    "anvil_setIntervalMining": _set_interval,
    "anvil_getIntervalMining": lambda node, _: (
        None if node.block_time_seconds is None else math.ceil(node.block_time_seconds)
    ),
    "evm_increaseTime": _increase_time,
    "anvil_increaseTime": _increase_time,
    "evm_setNextBlockTimestamp": _set_next_timestamp,
    "anvil_setNextBlockTimestamp": _set_next_timestamp,
    "evm_setTime": _set_time,
    "anvil_setTime": _set_time,
    "anvil_setNextBlockBaseFeePerGas": _set_next_base_fee,
    "hardhat_setNextBlockBaseFeePerGas": _set_next_base_fee,
    "evm_snapshot": lambda node, _: quantity(node.snapshot()),
    "anvil_snapshot": lambda node, _: quantity(node.snapshot()),
    "evm_revert": _revert,
    "anvil_revert": _revert,
    "anvil_reorg": _anvil_reorg,
    "devnet_reorg": _devnet_reorg,
    "anvil_setBalance": _set_balance,
    "hardhat_setBalance": _set_balance,
    "anvil_setNonce": _set_nonce,
    "hardhat_setNonce": _set_nonce,
    "anvil_setCode": _set_code,
    "hardhat_setCode": _set_code,
    "anvil_setStorageAt": _set_storage,
    "hardhat_setStorageAt": _set_storage,
    "anvil_dropTransaction": _drop_transaction,
    "hardhat_dropTransaction": _drop_transaction,
    "anvil_dropAllTransactions": _drop_all_transactions,
    "txpool_status": _pool_status,
    "devnet_faucet": _faucet,
}
