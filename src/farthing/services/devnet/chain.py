"""The chain: blocks executed by py-evm under Prague's rules, with no mining policy and no clock of its own.

This is the only module that knows py-evm's machinery (the project was archived in September 2025; its gas is exact,
which a test compares with anvil's). Blocks are built directly on the state, without py-evm's chain classes: those judge
canonicity by difficulty, which is zero since the merge, and can't take a block back.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false, reportPrivateImportUsage=false
# (py-evm and rlp are typed in part; what leaves this module is typed by `blocks`.)

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast

import msgspec
import rlp  # type: ignore[import-untyped]
from eth._utils.address import generate_contract_address
from eth._utils.db import apply_state_dict
from eth.consensus.context import ConsensusContext
from eth.constants import CREATE_CONTRACT_ADDRESS
from eth.db.atomic import AtomicDB
from eth.db.chain import ChainDB
from eth.db.trie import make_trie_root_and_nodes
from eth.exceptions import VMError
from eth.vm.chain_context import ChainContext
from eth.vm.forks.prague import PragueVM
from eth.vm.forks.prague.blocks import PragueBlockHeader
from eth.vm.spoof import SpoofTransaction
from eth_typing import Address
from eth_utils.exceptions import ValidationError

from farthing.services.devnet.blocks import Block, Header, Log, Receipt, Sent, State
from farthing.services.devnet.genesis import BLOCK_GAS_LIMIT, INITIAL_BASE_FEE, Genesis
from farthing.services.devnet.statefile import Entries, StateFile

# BLOCKHASH reaches back this far.
_ANCESTORS: Final = 256
# A call forwards all but a 64th of its gas (EIP-150), so that a nested call may need a limit above what it uses.
_FORWARDED_NUMERATOR: Final = 63
_FORWARDED_DENOMINATOR: Final = 64
# A call with value hands on this much gas on top, which must be there although it may come back unused.
_CALL_STIPEND: Final = 2300
# geth stops its search for the gas limit at this distance, relative to the result.
_ESTIMATE_TOLERANCE_DENOMINATOR: Final = 64
_MAX_REFUND_QUOTIENT: Final = 5  # EIP-3529
_BLOOM_BYTES: Final = 256


class TransactionInvalid(ValueError):
    """Bytes that are no signed transaction of this chain."""


class CallRequest(msgspec.Struct, frozen=True):
    """A call to simulate: addresses of 20 bytes (`to` None: create a contract), value in wei."""

    sender: bytes
    to: bytes | None
    data: bytes = b""
    value: int = 0
    gas: int = BLOCK_GAS_LIMIT


class CallOutcome(msgspec.Struct, frozen=True):
    """What a simulated call did. `error` is "" on success; `reverted` tells a revert from a worse end."""

    output: bytes
    error: str = ""
    reverted: bool = False
    gas_used: int = 0
    gas_refund: int = 0


class _PragueVM(PragueVM):
    """Prague's rules, with the ancestors' hashes from our list."""

    ancestors: Sequence[bytes] = ()

    @property
    def previous_hashes(self) -> Any:
        return self.ancestors


_VM: Final[Any] = _PragueVM


class Chain:
    """The canonical chain and its states. Not for threads; whoever owns it serialises."""

    def __init__(self, genesis: Genesis, file: StateFile | None = None) -> None:
        """Lay the first block, or go on where the file ends."""
        self.chain_id = genesis.chain_id
        self._file = file
        self._entries = Entries(file)
        self._db = AtomicDB(self._entries)
        self._chaindb = ChainDB(self._db)
        self._context = ChainContext(genesis.chain_id)
        self._consensus = ConsensusContext(self._db)
        self._reading: tuple[bytes, State] | None = None
        self._blocks: list[Block] = []
        self._by_hash: dict[bytes, int] = {}
        self._places: dict[bytes, tuple[int, int]] = {}
        for stored in file.read_blocks() if file else ():
            header: Any = rlp.decode(stored.header, PragueBlockHeader)
            transactions = tuple(self._read_sent(raw, sender) for raw, sender in stored.transactions)
            self._append(Block(header, header.hash, transactions, stored.receipts, stored.state_root))
        if not self._blocks:
            self._commit(self._genesis_block(genesis))

    # Reading

    @property
    def head(self) -> Block:
        """The newest block."""
        return self._blocks[-1]

    def block(self, number: int) -> Block | None:
        """The block at a height."""
        return self._blocks[number] if 0 <= number < len(self._blocks) else None

    def block_by_hash(self, block_hash: bytes) -> Block | None:
        """The canonical block of that hash."""
        number = self._by_hash.get(block_hash)
        return None if number is None else self._blocks[number]

    def place(self, transaction_hash: bytes) -> tuple[Block, int] | None:
        """The block that holds a transaction, and its index there."""
        place = self._places.get(transaction_hash)
        return None if place is None else (self._blocks[place[0]], place[1])

    def state(self, block: Block) -> State:
        """The state after `block`, to read and never to change: it is shared until another block is asked for."""
        if self._reading is None or self._reading[0] != block.state_root:
            self._reading = (block.state_root, self._open_state(block))
        return self._reading[1]

    def _open_state(self, block: Block) -> Any:
        return _VM.build_state(self._db, block.header.copy(state_root=block.state_root), self._context)

    def size_bytes(self, header: Header, transactions: Sequence[Sent]) -> int:
        """The length of a block in RLP, but for a few bytes of list headers."""
        return len(rlp.encode(header)) + sum(len(sent.raw) for sent in transactions)

    def next_header(self, timestamp_seconds: int, *, base_fee: int | None = None, salt: bytes = bytes(32)) -> Header:
        """The header of the block that would come next, on the state as it stands."""
        parent = self.head
        header: Header = _VM.create_header_from_parent(
            parent.header, timestamp=timestamp_seconds, gas_limit=parent.header.gas_limit, mix_hash=salt
        )
        changed: dict[str, Any] = {"state_root": parent.state_root}
        if base_fee is not None:
            changed["base_fee_per_gas"] = base_fee
        return header.copy(**changed)

    # Transactions

    def decode(self, raw: bytes) -> Sent:
        """Read a signed transaction (legacy, or typed by EIP-2718). Raises `TransactionInvalid`."""
        sent = self._read_sent(raw)
        try:
            # A legacy transaction without a chain id (before EIP-155) is refused, as public nodes do.
            signed = cast("Any", sent.signed)
            signed.validate()
            signed.check_signature_validity()
        except (ValidationError, ValueError) as error:
            raise TransactionInvalid(f"invalid transaction: {error}") from error
        chain_id = sent.signed.chain_id
        if chain_id is None:
            raise TransactionInvalid("only replay-protected (EIP-155) transactions allowed over RPC")
        if chain_id != self.chain_id:
            raise TransactionInvalid(f"invalid chain id for signer: have {chain_id} want {self.chain_id}")
        return sent

    def _read_sent(self, raw: bytes, sender: bytes | None = None) -> Sent:
        try:
            signed = _VM.get_transaction_builder().decode(raw)
            return Sent(raw, signed.hash, sender or signed.sender, signed)
        except Exception as error:  # py-evm, rlp and eth-keys each have errors of their own for wrong bytes
            raise TransactionInvalid(f"the bytes are no signed transaction: {error}") from error

    # Calls

    def call(self, request: CallRequest, header: Header) -> CallOutcome:
        """Run a call on the state of `header` without charging for gas. Raises nothing for a call that fails."""
        state = _VM.build_state(self._db, header, self._context, self._ancestors(header.block_number))
        return self._simulate(state, request)

    def estimate_gas(self, request: CallRequest, header: Header) -> tuple[int, CallOutcome]:
        """Find a gas limit under which the call succeeds; the outcome is that of the whole limit."""
        state = _VM.build_state(self._db, header, self._context, self._ancestors(header.block_number))
        ceiling = min(request.gas, header.gas_limit)
        outcome = self._simulate(state, msgspec.structs.replace(request, gas=ceiling))
        if outcome.error:
            return ceiling, outcome

        def succeeds(gas: int) -> bool:
            return not self._simulate(state, msgspec.structs.replace(request, gas=gas)).error

        # What was used is enough for most calls, and a well-aimed guess above it for most others; then it is a search.
        needed = outcome.gas_used + outcome.gas_refund
        aimed = (needed + _CALL_STIPEND) * _FORWARDED_DENOMINATOR // _FORWARDED_NUMERATOR
        low, high = outcome.gas_used - 1, ceiling
        for guess in (needed, aimed):
            if guess < ceiling and succeeds(guess):
                high = guess
                break
            low = max(low, min(guess, ceiling - 1))
        while low + 1 < high and high - low > high // _ESTIMATE_TOLERANCE_DENOMINATOR:
            middle = (low + high) // 2
            if succeeds(middle):
                high = middle
            else:
                low = middle
        return high, outcome

    def _simulate(self, state: Any, request: CallRequest) -> CallOutcome:
        state.lock_changes()  # a transaction starts: storage slots now have their "original" values (EIP-2200)
        snapshot = state.snapshot()
        try:
            return self._execute_call(state, request)
        finally:
            state.revert(snapshot)
            state.clear_transient_storage()

    def _execute_call(self, state: Any, request: CallRequest) -> CallOutcome:
        unsigned = _VM.get_transaction_builder().new_unsigned_dynamic_fee_transaction(
            chain_id=self.chain_id,
            nonce=state.get_nonce(request.sender),
            max_priority_fee_per_gas=0,
            max_fee_per_gas=0,
            gas=request.gas,
            to=request.to or CREATE_CONTRACT_ADDRESS,
            value=request.value,
            data=request.data,
            access_list=[],
        )
        transaction: Any = SpoofTransaction(unsigned, from_=request.sender)
        if request.value > state.get_balance(request.sender):
            return CallOutcome(b"", "insufficient funds for transfer")
        if request.gas < transaction.intrinsic_gas:
            return CallOutcome(b"", f"intrinsic gas too low: have {request.gas}, want {transaction.intrinsic_gas}")
        # The executor's own steps, without the last one, which pays for the gas: a call pays nothing, and the base fee
        # that contracts see stays the real one.
        executor: Any = state.get_transaction_executor()
        try:
            computation: Any = executor.build_computation(executor.build_evm_message(transaction), transaction)
        except VMError as error:
            return CallOutcome(b"", _describe(error))
        used = request.gas - computation.get_gas_remaining()
        refund = min(computation.get_gas_refund(), used // _MAX_REFUND_QUOTIENT)
        floor = executor.calc_data_floor_gas(transaction, used, refund)
        if computation.is_error:
            reverted = type(computation.error).__name__ == "Revert"
            return CallOutcome(computation.output, _describe(computation.error), reverted, used)
        return CallOutcome(computation.output, gas_used=used - refund + floor, gas_refund=refund)

    # Building

    def execute(self, header: Header, candidates: Sequence[Sent]) -> tuple[Block, dict[bytes, str]]:
        """Build the next block of those candidates that still can run, in their order, and append it.

        The second answer names the candidates that can't (hash to reason); one that only finds the block full is in
        neither.
        """
        vm = _VM(header, self._chaindb, self._context, self._consensus)
        vm.ancestors = self._ancestors(header.block_number)
        included: list[Sent] = []
        py_receipts: list[Any] = []
        receipts: list[Receipt] = []
        refused: dict[bytes, str] = {}
        for sent in candidates:
            if header.gas_used + sent.signed.gas > header.gas_limit:
                continue
            try:
                receipt, computation = vm.apply_transaction(header, sent.signed)
            except ValidationError as error:
                refused[sent.hash] = str(error)
                continue
            receipts.append(_receipt(sent, receipt, receipt.gas_used - header.gas_used, computation))
            header = vm.add_receipt_to_header(header, receipt)
            included.append(sent)
            py_receipts.append(receipt)
        vm.state.persist()
        header = header.copy(
            state_root=vm.state.state_root,
            transaction_root=make_trie_root_and_nodes(cast("Any", [sent.signed for sent in included]))[0],
            receipt_root=make_trie_root_and_nodes(py_receipts)[0],
        )
        block = Block(header, header.hash, tuple(included), tuple(receipts), header.state_root)
        self._commit(block)
        return block, refused

    def edit(self, change: dict[str, Any]) -> None:
        """Change the state between blocks: `{"balances": {address: wei}, "codes": …, "nonces": …, "storage": …}`."""
        state = self._open_state(self.head)
        for address, wei in change.get("balances", {}).items():
            state.set_balance(address, wei)
        for address, code in change.get("codes", {}).items():
            state.set_code(address, code)
        for address, nonce in change.get("nonces", {}).items():
            state.set_nonce(address, nonce)
        for (address, slot), value in change.get("storage", {}).items():
            state.set_storage(address, slot, value)
        state.persist()
        self._replace_head(msgspec.structs.replace(self.head, state_root=state.state_root))

    def truncate(self, number: int) -> tuple[Block, ...]:
        """Take back every block above `number`; the answer is what was taken, oldest first."""
        dropped = tuple(self._blocks[number + 1 :])
        del self._blocks[number + 1 :]
        for block in dropped:
            del self._by_hash[block.hash]
            for sent in block.transactions:
                self._places.pop(sent.hash, None)
        if self._file:
            self._file.truncate(number)
        return dropped

    def restore(self, state_root: bytes) -> None:
        """Take back edits of the state after the newest block."""
        if self.head.state_root != state_root:
            self._replace_head(msgspec.structs.replace(self.head, state_root=state_root))

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()

    def _ancestors(self, number: int) -> Sequence[bytes]:
        return [block.hash for block in self._blocks[max(0, number - _ANCESTORS) : number]][::-1]

    def _genesis_block(self, genesis: Genesis) -> Block:
        header_class: Any = PragueBlockHeader
        blank = header_class(difficulty=0, block_number=0, gas_limit=0, base_fee_per_gas=0)
        state = _VM.build_state(self._db, blank, self._context)
        apply_state_dict(
            state,
            {
                Address(address): {
                    "balance": entry.balance_wei,
                    "nonce": entry.nonce,
                    "code": entry.code,
                    "storage": entry.storage,
                }
                for address, entry in genesis.accounts.items()
            },
        )
        state.persist()
        header = _VM.create_genesis_header(
            difficulty=0,
            nonce=bytes(8),
            timestamp=genesis.timestamp_seconds,
            gas_limit=BLOCK_GAS_LIMIT,
            base_fee_per_gas=INITIAL_BASE_FEE,
            state_root=state.state_root,
        )
        return Block(header, header.hash, (), (), header.state_root)

    def _commit(self, block: Block) -> None:
        self._append(block)
        if self._file:
            self._file.write_block(block, rlp.encode(block.header))

    def _replace_head(self, block: Block) -> None:
        self._blocks[-1] = block
        if self._file:
            self._file.write_block(block, rlp.encode(block.header))

    def _append(self, block: Block) -> None:
        self._by_hash[block.hash] = len(self._blocks)
        for index, sent in enumerate(block.transactions):
            self._places[sent.hash] = (len(self._blocks), index)
        self._blocks.append(block)


def _receipt(sent: Sent, receipt: Any, gas_used: int, computation: Any) -> Receipt:
    created = sent.signed.to == CREATE_CONTRACT_ADDRESS
    return Receipt(
        succeeded=not computation.is_error,
        gas_used=gas_used,
        logs=tuple(
            Log(log.address, tuple(topic.to_bytes(32, "big") for topic in log.topics), log.data) for log in receipt.logs
        ),
        contract_address=generate_contract_address(Address(sent.sender), sent.signed.nonce) if created else None,
        bloom=receipt.bloom.to_bytes(_BLOOM_BYTES, "big"),
    )


def _describe(error: VMError) -> str:
    """Name a failure as geth does, whose words clients look for."""
    name = type(error).__name__
    known = {
        "Revert": "execution reverted",
        "OutOfGas": "out of gas",
        "InvalidInstruction": "invalid opcode",
        "InvalidJumpDestination": "invalid jump destination",
        "WriteProtection": "write protection",
        "InsufficientFunds": "insufficient balance for transfer",
    }
    return known.get(name, f"{name}: {error}")
