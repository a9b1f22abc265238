"""Transactions that wait for a block, with the rules that public nodes have for taking, replacing and ordering them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from farthing.services.devnet.genesis import BLOCK_GAS_LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from farthing.services.devnet.blocks import Sent, State

# geth's `txpool.pricebump`: both fees of a replacement are higher by a tenth.
_PRICE_BUMP_PERCENT: Final = 10
# geth's `txpool.globalslots` and `globalqueue` together, rounded down: what waits here is somebody's test.
_POOL_SIZE: Final = 5_000


class PoolRefused(ValueError):
    """A transaction that the pool doesn't take; the words are geth's."""


class Pool:
    """Waiting transactions, one for each (sender, nonce)."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, dict[int, Sent]] = {}
        self._by_hash: dict[bytes, Sent] = {}

    def __len__(self) -> int:
        return len(self._by_hash)

    def __iter__(self) -> Iterator[Sent]:
        return iter(tuple(self._by_hash.values()))

    def find(self, transaction_hash: bytes) -> Sent | None:
        """The waiting transaction of that hash."""
        return self._by_hash.get(transaction_hash)

    def add(self, sent: Sent, state: State) -> None:
        """Take a transaction, or raise `PoolRefused`. A nonce ahead of the account's waits for those before it."""
        if sent.hash in self._by_hash:
            raise PoolRefused("already known")
        signed = sent.signed
        nonce = state.get_nonce(sent.sender)
        if signed.nonce < nonce:
            raise PoolRefused(f"nonce too low: next nonce {nonce}, tx nonce {signed.nonce}")
        if signed.gas > BLOCK_GAS_LIMIT:
            raise PoolRefused(f"exceeds block gas limit: {signed.gas}, limit {BLOCK_GAS_LIMIT}")
        if signed.gas < signed.intrinsic_gas:
            raise PoolRefused(f"intrinsic gas too low: have {signed.gas}, want {signed.intrinsic_gas}")
        if signed.max_priority_fee_per_gas > signed.max_fee_per_gas:
            raise PoolRefused(
                f"max priority fee per gas higher than max fee per gas: maxPriorityFeePerGas: "
                f"{signed.max_priority_fee_per_gas}, maxFeePerGas: {signed.max_fee_per_gas}"
            )
        balance, cost = state.get_balance(sent.sender), signed.gas * signed.max_fee_per_gas + signed.value
        if balance < cost:
            raise PoolRefused(f"insufficient funds for gas * price + value: balance {balance}, tx cost {cost}")
        earlier = self._waiting.get(sent.sender, {}).get(signed.nonce)
        if earlier is not None:
            if not _outbids(sent, earlier):
                raise PoolRefused("replacement transaction underpriced")
            del self._by_hash[earlier.hash]
        elif len(self) >= _POOL_SIZE:
            raise PoolRefused(f"txpool is full: {_POOL_SIZE} transactions are waiting")
        self._by_hash[sent.hash] = sent
        self._waiting.setdefault(sent.sender, {})[signed.nonce] = sent

    def remove(self, transaction_hash: bytes) -> bool:
        """Drop a transaction; False where it isn't here."""
        sent = self._by_hash.pop(transaction_hash, None)
        if sent is None:
            return False
        waiting = self._waiting[sent.sender]
        del waiting[sent.signed.nonce]
        if not waiting:
            del self._waiting[sent.sender]
        return True

    def clear(self) -> None:
        """Drop all."""
        self._waiting.clear()
        self._by_hash.clear()

    def runnable(self, base_fee: int, nonce_of: Callable[[bytes], int]) -> list[Sent]:
        """List what the next block can take, the best tips first, each sender's in the order of their nonces."""
        queues = [
            queue
            for sender, waiting in self._waiting.items()
            if (queue := _run_of_nonces(waiting, nonce_of(sender), base_fee))
        ]
        chosen: list[Sent] = []
        while queues:
            best = max(queues, key=lambda queue: queue[-1].effective_gas_price(base_fee))
            chosen.append(best.pop())
            if not best:
                queues.remove(best)
        return chosen

    def next_nonce(self, sender: bytes, nonce: int) -> int:
        """The nonce after the unbroken run of waiting transactions that starts at `nonce`."""
        waiting = self._waiting.get(sender, {})
        while nonce in waiting:
            nonce += 1
        return nonce

    def forget_used(self, nonce_of: Callable[[bytes], int]) -> None:
        """Drop what can't run any more, because its nonce is used."""
        for sent in tuple(self._by_hash.values()):
            if sent.signed.nonce < nonce_of(sent.sender):
                self.remove(sent.hash)


def _outbids(sent: Sent, earlier: Sent) -> bool:
    new, old = sent.signed, earlier.signed
    return all(
        ours * 100 >= theirs * (100 + _PRICE_BUMP_PERCENT) and ours > theirs
        for ours, theirs in (
            (new.max_fee_per_gas, old.max_fee_per_gas),
            (new.max_priority_fee_per_gas, old.max_priority_fee_per_gas),
        )
    )


def _run_of_nonces(waiting: dict[int, Sent], nonce: int, base_fee: int) -> list[Sent]:
    """A sender's transactions that can run now, the first one last."""
    run: list[Sent] = []
    while (sent := waiting.get(nonce)) and sent.signed.max_fee_per_gas >= base_fee:
        run.append(sent)
        nonce += 1
    return run[::-1]
