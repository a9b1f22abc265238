"""The chain as the watch sees it: one batch of calls for everything that is pending, and its answers read."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from farthing.errors import NodeUnavailable
from farthing.evm.hexadecimal import read_data, read_object, read_quantity, write_data
from farthing.evm.node import NodeCall, NodeFailure
from farthing.facilitator.store import Mined

_HASH_SIZE_BYTES: Final = 32


class Head(msgspec.Struct, frozen=True):
    """A block's header, as far as it matters here. Time in Unix seconds, fee in wei a unit of gas."""

    number: int
    hash: str
    time_seconds: int
    base_fee_wei: int


class Receipt(msgspec.Struct, frozen=True):
    """A transaction's receipt: where it stands and what it cost; `raw` is for the mechanism that judges its logs."""

    transaction: str
    block_number: int
    block_hash: str
    gas_used: int
    gas_price: int
    raw: dict[str, Any]

    def mined(self, nonce: int) -> Mined:
        """The receipt as the store takes it."""
        return Mined(nonce, self.transaction, self.block_number, self.block_hash, self.gas_used, self.gas_price)


def block_call(which: int | str) -> NodeCall:
    """Ask for a block's header by its number or tag."""
    return NodeCall("eth_getBlockByNumber", (which if isinstance(which, str) else hex(which), False))


def receipt_call(transaction: str) -> NodeCall:
    """Ask for a transaction's receipt."""
    return NodeCall("eth_getTransactionReceipt", (transaction,))


def count_call(wallet: str) -> NodeCall:
    """Ask how many transactions of a wallet are in blocks: never the node's pending count."""
    return NodeCall("eth_getTransactionCount", (wallet, "latest"))


def code_call(address: str) -> NodeCall:
    """Ask for the code at an address."""
    return NodeCall("eth_getCode", (address, "latest"))


def broadcast_call(raw: str) -> NodeCall:
    """Broadcast a signed transaction."""
    return NodeCall("eth_sendRawTransaction", (raw,))


def read_head(answer: Any) -> Head | None:
    """Read a block's header; None where the node has no such block. Raises `NodeUnavailable`."""
    if isinstance(answer, NodeFailure):
        message = f"The node failed to give a block: {answer.message}"
        raise NodeUnavailable(message)
    if answer is None:
        return None
    block = read_object(answer)
    return Head(
        number=read_quantity(block.get("number")),
        hash=_read_hash(block.get("hash")),
        time_seconds=read_quantity(block.get("timestamp")),
        # A chain without EIP-1559 has none.
        base_fee_wei=read_quantity(block.get("baseFeePerGas", "0x0")),
    )


def read_final_head(answer: Any) -> Head | None:
    """Read the finalised block; None where the node knows no such tag: then nothing is final here."""
    return None if isinstance(answer, NodeFailure) else read_head(answer)


def read_receipt(answer: Any) -> Receipt | None:
    """Read a receipt; None where there is none (yet). Raises `NodeUnavailable`."""
    if isinstance(answer, NodeFailure):
        message = f"The node failed to give a receipt: {answer.message}"
        raise NodeUnavailable(message)
    if answer is None:
        return None
    raw = read_object(answer)
    return Receipt(
        transaction=_read_hash(raw.get("transactionHash")),
        block_number=read_quantity(raw.get("blockNumber")),
        block_hash=_read_hash(raw.get("blockHash")),
        gas_used=read_quantity(raw.get("gasUsed")),
        gas_price=read_quantity(raw.get("effectiveGasPrice", "0x0")),
        raw=raw,
    )


def read_count(answer: Any) -> int:
    """Read a wallet's transaction count. Raises `NodeUnavailable`."""
    if isinstance(answer, NodeFailure):
        message = f"The node failed to count the wallet's transactions: {answer.message}"
        raise NodeUnavailable(message)
    return read_quantity(answer)


def read_has_code(answer: Any) -> bool:
    """Read whether there is code. Raises `NodeUnavailable`."""
    if isinstance(answer, NodeFailure):
        message = f"The node failed to give an account's code: {answer.message}"
        raise NodeUnavailable(message)
    return read_data(answer) != b""


def _read_hash(raw: Any) -> str:
    data = read_data(raw)
    if len(data) != _HASH_SIZE_BYTES:
        message = f"The node sent {len(data)} bytes where a hash belongs."
        raise NodeUnavailable(message)
    return write_data(data)
