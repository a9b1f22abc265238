"""What the chain remembers: transactions, their receipts, and the blocks that hold them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from eth.abc import BlockHeaderAPI, SignedTransactionAPI


class Sent(msgspec.Struct, frozen=True):
    """A signed transaction: its bytes, what they decode to, and whose they are (20 bytes)."""

    raw: bytes
    hash: bytes
    sender: bytes
    signed: SignedTransactionAPI

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


class Block(msgspec.Struct, frozen=True):
    """A block of the canonical chain.

    `state_root` is the state that the next block starts from: the header's, unless somebody edited the state afterwards
    (`anvil_setBalance` and its like), which no header records.
    """

    header: BlockHeaderAPI
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
