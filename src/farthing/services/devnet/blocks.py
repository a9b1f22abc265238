"""What the chain remembers: transactions, their receipts, and the blocks that hold them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

# What the devnet reads of py-evm's objects, whose own types are partial. py-evm itself is imported by `chain` (and the
# database's base class by `statefile`).


class Header(Protocol):
    """A block's header."""

    block_number: int
    timestamp: int
    gas_limit: int
    gas_used: int
    base_fee_per_gas: int
    bloom: int
    blob_gas_used: int
    excess_blob_gas: int
    hash: bytes
    parent_hash: bytes
    uncles_hash: bytes
    coinbase: bytes
    state_root: bytes
    transaction_root: bytes
    receipt_root: bytes
    withdrawals_root: bytes
    parent_beacon_block_root: bytes
    requests_hash: bytes
    mix_hash: bytes
    nonce: bytes
    extra_data: bytes

    def copy(self, **changes: Any) -> Header:
        """Give the same header with other fields."""
        ...


class Fields(Protocol):
    """A signed transaction's fields. A legacy one has its gas price in both fees, and no parity and access list."""

    nonce: int
    gas: int
    max_fee_per_gas: int
    max_priority_fee_per_gas: int
    to: bytes
    value: int
    data: bytes
    chain_id: int | None
    intrinsic_gas: int
    r: int
    s: int
    v: int
    y_parity: int
    access_list: Sequence[tuple[bytes, Sequence[int]]]


class State(Protocol):
    """The accounts after a block, to read."""

    def get_balance(self, address: bytes) -> int:
        """Wei."""
        ...

    def get_nonce(self, address: bytes) -> int:
        """Transactions sent; for a contract, contracts created, plus one."""
        ...

    def get_code(self, address: bytes) -> bytes:
        """Runtime code."""
        ...

    def get_storage(self, address: bytes, slot: int) -> int:
        """A word of a contract's storage."""
        ...


class Sent(msgspec.Struct, frozen=True):
    """A signed transaction: its bytes, what they decode to, and whose they are (20 bytes)."""

    raw: bytes
    hash: bytes
    sender: bytes
    signed: Fields

    @property
    def type_id(self) -> int:
        """0 for a legacy transaction, else the type of EIP-2718."""
        return self.raw[0] if self.raw[0] < 0x80 else 0  # noqa: PLR2004 - a list in RLP starts at 0xc0

    def effective_gas_price(self, base_fee: int) -> int:
        """Wei per gas that this pays in a block with `base_fee` (EIP-1559)."""
        return min(self.signed.max_fee_per_gas, base_fee + self.signed.max_priority_fee_per_gas)


class Log(msgspec.Struct, frozen=True):
    """An event: the contract's 20 bytes, topics of 32, and data."""

    address: bytes
    topics: tuple[bytes, ...]
    data: bytes


class Receipt(msgspec.Struct, frozen=True):
    """What became of a transaction; `gas_used` is its own, not the block's."""

    succeeded: bool
    gas_used: int
    logs: tuple[Log, ...]
    contract_address: bytes | None
    bloom: bytes


class Block(msgspec.Struct, frozen=True):
    """A block of the canonical chain.

    `state_root` is the state that the next block starts from: the header's, unless somebody edited the state afterwards
    (`anvil_setBalance` and its like), which no header records.
    """

    header: Header
    hash: bytes
    transactions: tuple[Sent, ...]
    receipts: tuple[Receipt, ...]
    state_root: bytes

    @property
    def number(self) -> int:
        """The height."""
        return self.header.block_number

    @property
    def base_fee(self) -> int:
        """Wei per gas that is burnt in this block."""
        return self.header.base_fee_per_gas
