"""The node: the chain with a clock, a pool, a mining policy, snapshots, reorganisations and a faucet.

Blocks come on demand (one for each transaction that arrives, the default; or when asked) or by the clock. The clock
can be moved forward. Times are unix seconds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from farthing.evm.abi import pack_address, pack_uint, selector
from farthing.evm.addresses import parse_address
from farthing.evm.keccak import keccak256
from farthing.evm.signatures import PrivateKey
from farthing.evm.transactions import Transaction
from farthing.services.devnet.genesis import BLOCK_GAS_LIMIT, Genesis, faucet_account
from farthing.services.devnet.pool import Pool

if TYPE_CHECKING:
    from farthing.services.devnet.blocks import Block, Header, Sent
    from farthing.services.devnet.chain import Chain

# What the tags "safe" and "finalized" mean here, in blocks behind the newest: small, so that a test reaches them.
SAFE_DEPTH: Final = 1
FINALIZED_DEPTH: Final = 2
# Tips are taken from this on; it is also what eth_maxPriorityFeePerGas suggests (one gwei).
SUGGESTED_TIP: Final = 10**9
# A request may ask for many blocks, which are made while everybody waits: some 1 ms each.
MINE_MAX_BLOCKS: Final = 10_000
# The oldest is forgotten when there is one more.
SNAPSHOTS_MAX: Final = 1_000

_MINT_GAS: Final = 150_000
_TRANSFER_GAS: Final = 21_000
# So that the faucet outbids whatever waits, and any base fee that a test can reach; it has a billion ether.
_FAUCET_FEE: Final = 10**13


class NodeRefusal(ValueError):
    """A request that makes sense and can't be granted; the message says why."""


class Snapshot(msgspec.Struct, frozen=True):
    """A point to come back to."""

    number: int
    block_hash: bytes
    waiting: tuple[Sent, ...]
    clock_offset_seconds: int
    state_root: bytes


class Node:
    """One devnet. Not for threads; the server calls it from its event loop, one request at a time."""

    def __init__(self, chain: Chain, genesis: Genesis) -> None:
        self.chain = chain
        self.genesis = genesis
        self.pool = Pool()
        self.automine = True
        # Set and replaced whenever the mining policy changes, to wake whoever mines by the clock.
        self.pace = asyncio.Event()
        self.block_time_seconds: float | None = None
        self._clock_offset_seconds = max(0, chain.head.header.timestamp - int(time.time()))
        self._next_timestamp_seconds: int | None = None
        self._next_base_fee: int | None = None
        self._snapshots: dict[int, Snapshot] = {}
        self._snapshot_count = 0
        self._reorganisations = 0
        self._faucet_key = PrivateKey.from_hex(faucet_account().private_key)

    # Clock

    def now(self) -> int:
        """The time that a block made now would carry: the clock's, but never before the newest block's.

        Two blocks may carry the same second. Public chains forbid it; here a burst of transactions, each in a block of
        its own, would otherwise drive the chain's clock minutes ahead and payments out of their validity windows.
        """
        return max(int(time.time()) + self._clock_offset_seconds, self.chain.head.header.timestamp)

    def increase_time(self, seconds: int) -> int:
        """Move the clock forward; the answer is by how much it is ahead altogether."""
        if seconds < 0:
            raise NodeRefusal(f"time only goes forward, not by {seconds} seconds")
        self._clock_offset_seconds += seconds
        return self._clock_offset_seconds

    def set_time(self, timestamp_seconds: int) -> int:
        """Set the clock; the answer is by how many seconds it is ahead of the machine's now."""
        if timestamp_seconds < self.chain.head.header.timestamp:
            raise NodeRefusal(f"timestamp {timestamp_seconds} is before the newest block's")
        self._clock_offset_seconds = timestamp_seconds - int(time.time())
        return self._clock_offset_seconds

    def set_next_timestamp(self, timestamp_seconds: int) -> None:
        """Fix the next block's time; the clock goes on from there."""
        head = self.chain.head.header.timestamp
        if timestamp_seconds < head:
            raise NodeRefusal(f"timestamp {timestamp_seconds} is before the newest block's, which is {head}")
        self._next_timestamp_seconds = timestamp_seconds

    def set_next_base_fee(self, base_fee: int) -> None:
        """Fix the next block's base fee; the ones after it follow from it by EIP-1559."""
        self._next_base_fee = base_fee

    # Mining policy

    def set_automine(self, *, enabled: bool) -> None:
        """Make a block for each transaction that arrives, or only when asked (or by the clock, if that is on)."""
        self.automine = enabled
        if enabled:
            self.block_time_seconds = None
            self.pace_changed()
            self._mine_runnable()

    def mine_by_clock(self, block_time_seconds: float | None) -> None:
        """Make a block every so many seconds (None: only when asked), and none on demand."""
        self.automine, self.block_time_seconds = False, block_time_seconds
        self.pace_changed()

    def pace_changed(self) -> None:
        """Wake whoever mines by the clock."""
        self.pace.set()
        self.pace = asyncio.Event()

    # Blocks

    def pending_header(self) -> Header:
        """The header of the block that would be made now."""
        timestamp = self._next_timestamp_seconds if self._next_timestamp_seconds is not None else self.now()
        return self.chain.next_header(timestamp, base_fee=self._next_base_fee)

    def mine(self, timestamp_seconds: int | None = None) -> Block:
        """Make a block of what waits and can run; empty where nothing does."""
        if timestamp_seconds is not None:
            self.set_next_timestamp(timestamp_seconds)
        header = self.pending_header()
        return self._make_block(header, self.pool.runnable(header.base_fee_per_gas, self.nonce_of))

    def send(self, raw: bytes) -> bytes:
        """Take a signed transaction and, where blocks come on demand, make its block; the answer is its hash.

        Raises `TransactionInvalid` and `PoolRefused`.
        """
        sent = self.chain.decode(raw)
        if self.chain.place(sent.hash):
            # geth answers so for a transaction that is already mined and whose nonce is therefore used.
            raise NodeRefusal("already known")
        self.pool.add(sent, self.chain.state(self.chain.head))
        if self.automine:
            self._mine_runnable()
        return sent.hash

    def _mine_runnable(self) -> None:
        # Whatever can run does; a transaction that waits for its fee or for a nonce before it makes no block.
        while self.pool.runnable(self.pending_header().base_fee_per_gas, self.nonce_of):
            if not self.mine().transactions:
                break

    def faucet(self, address: bytes, *, usdc: int, wei: int) -> tuple[bytes, ...]:
        """Give an account USDC (atomic units) and ether (wei), in a block of its own, whatever the mining policy."""
        orders: list[tuple[bytes, int, bytes, int]] = []
        if usdc:
            data = selector("mint(address,uint256)") + pack_address(address) + pack_uint(usdc)
            orders.append((parse_address(self.genesis.token_address), 0, data, _MINT_GAS))
        if wei:
            orders.append((address, wei, b"", _TRANSFER_GAS + _MINT_GAS))
        nonce = self.nonce_of(parse_address(self._faucet_key.address))
        sent = [
            self.chain.decode(
                Transaction(
                    chain_id=self.chain.chain_id,
                    nonce=nonce + index,
                    max_priority_fee_per_gas=0,
                    max_fee_per_gas=_FAUCET_FEE,
                    gas_limit=gas,
                    to=to,
                    value=value,
                    data=data,
                )
                .sign(self._faucet_key)
                .raw
            )
            for index, (to, value, data, gas) in enumerate(orders)
        ]
        if not sent:
            return ()
        block = self._make_block(self.pending_header(), sent)
        if len(block.transactions) != len(sent) or not all(receipt.succeeded for receipt in block.receipts):
            raise NodeRefusal(
                "the faucet's transaction failed: is the token paused, the account blocked, or too much asked?"
            )
        return tuple(each.hash for each in sent)

    def _make_block(self, header: Header, candidates: Sequence[Sent]) -> Block:
        if self._next_timestamp_seconds is not None:
            self._clock_offset_seconds = self._next_timestamp_seconds - int(time.time())
        self._next_timestamp_seconds = self._next_base_fee = None
        block, refused = self.chain.execute(header, candidates)
        for sent in block.transactions:
            self.pool.remove(sent.hash)
        for transaction_hash in refused:
            self.pool.remove(transaction_hash)
        if block.transactions:
            self.pool.forget_used(self.nonce_of)
        return block

    def nonce_of(self, address: bytes) -> int:
        """The nonce that an account uses next, by the newest block."""
        return self.chain.state(self.chain.head).get_nonce(address)

    # Back in time

    def snapshot(self) -> int:
        """Remember this moment; the answer names it."""
        self._snapshot_count += 1
        head = self.chain.head
        self._snapshots[self._snapshot_count] = Snapshot(
            head.number, head.hash, tuple(self.pool), self._clock_offset_seconds, head.state_root
        )
        self._snapshots.pop(self._snapshot_count - SNAPSHOTS_MAX, None)
        return self._snapshot_count

    def revert(self, snapshot_id: int) -> bool:
        """Go back to a snapshot, which is used up with all later ones; False where there is none of that name."""
        snapshot = self._snapshots.get(snapshot_id)
        if snapshot is None:
            return False
        block = self.chain.block(snapshot.number)
        if block is None or block.hash != snapshot.block_hash:
            return False  # a reorganisation has replaced the block
        self._snapshots = {name: each for name, each in self._snapshots.items() if name < snapshot_id}
        self.chain.truncate(snapshot.number)
        self.chain.restore(snapshot.state_root)
        self._clock_offset_seconds = snapshot.clock_offset_seconds
        self._next_timestamp_seconds = self._next_base_fee = None
        self.pool.clear()
        state = self.chain.state(self.chain.head)
        for sent in snapshot.waiting:
            self.pool.add(sent, state)
        return True

    def reorganise(
        self, depth: int, *, replacements: Sequence[Sequence[bytes]] = (), keep_transactions: bool = False
    ) -> tuple[bytes, ...]:
        """Replace the newest `depth` blocks by as many others; the answer is the transactions that lost their block.

        The new blocks hold the raw transactions of `replacements` (one list a block) and are empty otherwise. With
        `keep_transactions` the old ones wait in the pool again, as they do when miners disagree; else they are gone.
        """
        if not 0 < depth <= self.chain.head.number:
            raise NodeRefusal(
                f"a reorganisation of {depth} blocks needs as many above the first; there are {self.chain.head.number}"
            )
        self._reorganisations += 1
        decoded = [[self.chain.decode(raw) for raw in block] for block in replacements]
        dropped = self.chain.truncate(self.chain.head.number - depth)
        for index, old in enumerate(dropped):
            # The salt goes into the header's mixHash, so that an empty block in an empty block's place is another one.
            salt = keccak256(old.hash + self._reorganisations.to_bytes(8, "big"))
            header = self.chain.next_header(old.header.timestamp, salt=salt)
            self._make_block(header, decoded[index] if index < len(decoded) else ())
        lost = [sent for block in dropped for sent in block.transactions if self.chain.place(sent.hash) is None]
        if keep_transactions:
            state = self.chain.state(self.chain.head)
            for sent in lost:
                if sent.signed.nonce >= state.get_nonce(sent.sender) and self.pool.find(sent.hash) is None:
                    self.pool.add(sent, state)
        return tuple(sent.hash for sent in lost)

    def edit(self, **change: Any) -> None:
        """Change the state between blocks (see `Chain.edit`)."""
        self.chain.edit(change)

    # Names of blocks

    def block_named(self, tag: str) -> Block | None:
        """The block that a tag means; "pending" is not one of them."""
        head = self.chain.head.number
        numbers = {
            "latest": head,
            "safe": max(0, head - SAFE_DEPTH),
            "finalized": max(0, head - FINALIZED_DEPTH),
            "earliest": 0,
        }
        return self.chain.block(numbers[tag]) if tag in numbers else None

    @property
    def gas_limit(self) -> int:
        """Gas that a block holds."""
        return BLOCK_GAS_LIMIT
