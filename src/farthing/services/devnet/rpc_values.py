"""The values of Ethereum's JSON-RPC: quantities, data, addresses and blocks, read strictly and written canonically.

Source: ethereum/execution-apis. A quantity is `0x` and hexadecimal digits without leading zeros (read leniently, since
clients differ); data has two digits a byte.
"""

from __future__ import annotations

from typing import Any, Final, cast

from farthing.evm.addresses import AddressInvalid, checksum_address, parse_address
from farthing.services.devnet.blocks import Block, Header, Sent

INVALID_PARAMS: Final = -32602
REFUSED: Final = -32000
REVERTED: Final = 3  # geth's code for a call that reverted
METHOD_NOT_FOUND: Final = -32601
INVALID_REQUEST: Final = -32600
PARSE_ERROR: Final = -32700
INTERNAL_ERROR: Final = -32603

_UINT256_BITS: Final = 256
_HASH_BYTES: Final = 32
_BLOOM_BYTES: Final = 256
_SHOWN_CHARACTERS: Final = 80


class RpcError(Exception):
    """An answer that is an error: code, message, and for a revert its data."""

    def __init__(self, code: int, message: str, data: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


def invalid(name: str, what: str, value: Any) -> RpcError:
    """The error for an argument: which one, what it should be, what it was."""
    shown = repr(value)
    if len(shown) > _SHOWN_CHARACTERS:
        shown = shown[:_SHOWN_CHARACTERS] + "…"
    return RpcError(INVALID_PARAMS, f"invalid argument {name}: expected {what}, got {shown}")


def read_object(value: Any, name: str) -> dict[str, Any]:
    """Read a JSON object."""
    if not isinstance(value, dict):
        raise invalid(name, "an object", value)
    return cast("dict[str, Any]", value)


def read_list(value: Any, name: str, what: str = "a list") -> list[Any]:
    """Read a JSON array."""
    if not isinstance(value, list):
        raise invalid(name, what, value)
    return cast("list[Any]", cast("object", value))


def read_quantity(value: Any, name: str) -> int:
    """Read a number: `0x…` text, or a JSON integer as some tools send."""
    number = -1
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, str) and value[:2] in {"0x", "0X"} and value.isascii() and value.isalnum():
        try:
            number = int(value, 16)
        except ValueError:
            number = -1
    if number < 0 or number.bit_length() > _UINT256_BITS:
        raise invalid(name, "a quantity such as 0x1b4", value)
    return number


def read_data(value: Any, name: str, size_bytes: int | None = None) -> bytes:
    """Read bytes, of a certain length where one is given."""
    what = "data such as 0x1b40" if size_bytes is None else f"{size_bytes} bytes of data"
    if not isinstance(value, str) or value[:2] not in {"0x", "0X"} or not value.isalnum():
        raise invalid(name, what, value)
    try:
        data = bytes.fromhex(value[2:])
    except ValueError as error:
        raise invalid(name, what, value) from error
    if size_bytes is not None and len(data) != size_bytes:
        raise invalid(name, what, value)
    return data


def read_hash(value: Any, name: str) -> bytes:
    """Read a hash of 32 bytes."""
    return read_data(value, name, _HASH_BYTES)


def read_address(value: Any, name: str) -> bytes:
    """Read an address; a mixed-case one with a wrong checksum is refused."""
    if not isinstance(value, str):
        raise invalid(name, "an address", value)
    try:
        return parse_address(value)
    except AddressInvalid as error:
        raise RpcError(INVALID_PARAMS, f"invalid argument {name}: {error}") from error


def quantity(value: int) -> str:
    """Write a number."""
    return hex(value)


def data(value: bytes) -> str:
    """Write bytes."""
    return "0x" + value.hex()


def block_view(block: Block, size_bytes: int, *, full: bool) -> dict[str, Any]:
    """Write a block, with whole transactions or their hashes."""
    header = block.header
    transactions = [
        transaction_view(sent, block, index) if full else data(sent.hash)
        for index, sent in enumerate(block.transactions)
    ]
    return header_view(header) | {
        "hash": data(block.hash),
        "nonce": data(header.nonce),
        "size": quantity(size_bytes),
        "uncles": [],
        "withdrawals": [],
        "transactions": transactions,
    }


def header_view(header: Header) -> dict[str, Any]:
    """Write a header, whose hash is null as long as the block is only pending."""
    return {
        "number": quantity(header.block_number),
        "hash": None,
        "parentHash": data(header.parent_hash),
        "nonce": None,
        "sha3Uncles": data(header.uncles_hash),
        "logsBloom": data(header.bloom.to_bytes(_BLOOM_BYTES, "big")),
        "transactionsRoot": data(header.transaction_root),
        "stateRoot": data(header.state_root),
        "receiptsRoot": data(header.receipt_root),
        "miner": checksum_address(header.coinbase).lower(),
        "difficulty": "0x0",
        "totalDifficulty": "0x0",
        "extraData": data(header.extra_data),
        "gasLimit": quantity(header.gas_limit),
        "gasUsed": quantity(header.gas_used),
        "timestamp": quantity(header.timestamp),
        "baseFeePerGas": quantity(header.base_fee_per_gas),
        "mixHash": data(header.mix_hash),
        "withdrawalsRoot": data(header.withdrawals_root),
        "blobGasUsed": quantity(header.blob_gas_used),
        "excessBlobGas": quantity(header.excess_blob_gas),
        "parentBeaconBlockRoot": data(header.parent_beacon_block_root),
        "requestsHash": data(header.requests_hash),
    }


def transaction_view(sent: Sent, block: Block | None = None, index: int | None = None) -> dict[str, Any]:
    """Write a transaction; without a block it is waiting."""
    signed = sent.signed
    view: dict[str, Any] = {
        "type": quantity(sent.type_id),
        "hash": data(sent.hash),
        "from": data(sent.sender),
        "to": data(signed.to) if signed.to else None,
        "nonce": quantity(signed.nonce),
        "value": quantity(signed.value),
        "input": data(signed.data),
        "gas": quantity(signed.gas),
        "chainId": quantity(signed.chain_id or 0),
        "blockHash": data(block.hash) if block else None,
        "blockNumber": quantity(block.number) if block else None,
        "transactionIndex": None if index is None else quantity(index),
        "r": quantity(signed.r),
        "s": quantity(signed.s),
    }
    if sent.type_id == 0:
        return view | {"gasPrice": quantity(signed.max_fee_per_gas), "v": quantity(signed.v)}
    price = sent.effective_gas_price(block.base_fee) if block else signed.max_fee_per_gas
    return view | {
        "gasPrice": quantity(price),
        "maxFeePerGas": quantity(signed.max_fee_per_gas),
        "maxPriorityFeePerGas": quantity(signed.max_priority_fee_per_gas),
        "accessList": [
            {"address": data(address), "storageKeys": [data(key.to_bytes(_HASH_BYTES, "big")) for key in keys]}
            for address, keys in signed.access_list
        ],
        "yParity": quantity(signed.y_parity),
        "v": quantity(signed.y_parity),
    }


def receipt_view(block: Block, index: int) -> dict[str, Any]:
    """Write a receipt."""
    sent, receipt = block.transactions[index], block.receipts[index]
    logs = logs_view(block, index)
    return {
        "type": quantity(sent.type_id),
        "status": quantity(int(receipt.succeeded)),
        "transactionHash": data(sent.hash),
        "transactionIndex": quantity(index),
        "blockHash": data(block.hash),
        "blockNumber": quantity(block.number),
        "from": data(sent.sender),
        "to": data(sent.signed.to) if sent.signed.to else None,
        "contractAddress": data(receipt.contract_address) if receipt.contract_address else None,
        "gasUsed": quantity(receipt.gas_used),
        "cumulativeGasUsed": quantity(sum(each.gas_used for each in block.receipts[: index + 1])),
        "effectiveGasPrice": quantity(sent.effective_gas_price(block.base_fee)),
        "logs": logs,
        "logsBloom": data(receipt.bloom),
    }


def logs_view(block: Block, index: int) -> list[dict[str, Any]]:
    """Write the events of one transaction, numbered through the block."""
    first = sum(len(receipt.logs) for receipt in block.receipts[:index])
    return [
        {
            "address": data(log.address),
            "topics": [data(topic) for topic in log.topics],
            "data": data(log.data),
            "blockHash": data(block.hash),
            "blockNumber": quantity(block.number),
            "blockTimestamp": quantity(block.header.timestamp),
            "transactionHash": data(block.transactions[index].hash),
            "transactionIndex": quantity(index),
            "logIndex": quantity(first + offset),
            "removed": False,
        }
        for offset, log in enumerate(block.receipts[index].logs)
    ]
