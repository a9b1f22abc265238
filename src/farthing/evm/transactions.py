"""EIP-1559 transactions: built, signed, hashed and read back, without a node.

signed = Transaction(chain_id=8453, nonce=7, …).sign(key)
signed.raw    # for eth_sendRawTransaction
signed.hash   # known before anything is sent
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from farthing.errors import FarthingError
from farthing.evm import rlp
from farthing.evm.addresses import ADDRESS_SIZE_BYTES
from farthing.evm.keccak import keccak256
from farthing.evm.signatures import SignatureInvalid, recover_address

if TYPE_CHECKING:
    from collections.abc import Sequence

    from farthing.evm.signatures import PrivateKey

# EIP-2718: the first byte says the type; two is EIP-1559's.
_TYPE: Final = b"\x02"
_FIELDS = 9
_SIGNED_FIELDS = 12
_PARITIES = 2
# v is 27 plus the parity in signatures of messages, and the parity alone in typed transactions.
_V_OFFSET = 27
_WORD = 32

# 128 KiB is what nodes take from their peers (geth's txMaxSize); a longer one could never be mined.
TRANSACTION_SIZE_MAX_BYTES: Final = 128 * 1024


class TransactionInvalid(FarthingError, ValueError):
    """Bytes or fields that are no EIP-1559 transaction."""


class AccessTuple(msgspec.Struct, frozen=True):
    """One entry of an access list (EIP-2930): an address and storage keys of 32 bytes."""

    address: bytes
    storage_keys: tuple[bytes, ...] = ()


class Transaction(msgspec.Struct, frozen=True, kw_only=True):
    """A transaction before it is signed. Fees and value in wei, `to` 20 bytes (empty creates a contract)."""

    chain_id: int
    nonce: int
    max_priority_fee_per_gas: int
    max_fee_per_gas: int
    gas_limit: int
    to: bytes
    value: int = 0
    data: bytes = b""
    access_list: tuple[AccessTuple, ...] = ()

    def digest(self) -> bytes:
        """The 32 bytes that are signed."""
        return keccak256(_TYPE + rlp.encode(self._fields()))

    def sign(self, key: PrivateKey) -> SignedTransaction:
        """Sign with `key`, whose address becomes the sender."""
        return self.with_signature(key.sign_digest(self.digest()))

    def with_signature(self, signature: bytes) -> SignedTransaction:
        """Attach `r ‖ s ‖ v` of 65 bytes. Raises `TransactionInvalid` where it is nobody's."""
        try:
            sender = recover_address(self.digest(), signature)
        except SignatureInvalid as error:
            message = f"The transaction's signature is not valid: {error}"
            raise TransactionInvalid(message) from error
        fields = (
            *self._fields(),
            rlp.encode_int(signature[64] % _V_OFFSET),
            signature[:32].lstrip(b"\x00"),
            signature[32:64].lstrip(b"\x00"),
        )
        raw = _TYPE + rlp.encode(fields)
        return SignedTransaction(self, sender, raw, keccak256(raw))

    def _fields(self) -> tuple[rlp.Item, ...]:
        if len(self.to) not in {0, ADDRESS_SIZE_BYTES}:
            message = f"`to` has {ADDRESS_SIZE_BYTES} bytes, or none, not {len(self.to)}."
            raise TransactionInvalid(message)
        numbers = (self.chain_id, self.nonce, self.max_priority_fee_per_gas, self.max_fee_per_gas, self.gas_limit)
        if min(*numbers, self.value) < 0:
            message = "No number of a transaction is negative."
            raise TransactionInvalid(message)
        return (
            *(rlp.encode_int(number) for number in numbers),
            self.to,
            rlp.encode_int(self.value),
            self.data,
            tuple((each.address, each.storage_keys) for each in self.access_list),
        )


class SignedTransaction(msgspec.Struct, frozen=True):
    """A signed transaction: its fields, the sender's 20 bytes, the bytes to broadcast and their hash."""

    transaction: Transaction
    sender: bytes
    raw: bytes
    hash: bytes


def decode_transaction(raw: bytes) -> SignedTransaction:
    """Read a signed EIP-1559 transaction strictly. Raises `TransactionInvalid`."""
    if len(raw) > TRANSACTION_SIZE_MAX_BYTES:
        message = f"The transaction is longer than {TRANSACTION_SIZE_MAX_BYTES} bytes."
        raise TransactionInvalid(message)
    if raw[:1] != _TYPE:
        message = "Only transactions of type 2 (EIP-1559) are read here."
        raise TransactionInvalid(message)
    try:
        fields = rlp.decode(raw[1:])
        if isinstance(fields, bytes) or len(fields) != _SIGNED_FIELDS:
            message = f"An EIP-1559 transaction is a list of {_SIGNED_FIELDS} fields."
            raise TransactionInvalid(message)
        parity, r, s = (rlp.decode_int(field) for field in fields[_FIELDS:])
        transaction = _read(fields)
    except rlp.RlpInvalid as error:
        message = f"The transaction is no RLP: {error}"
        raise TransactionInvalid(message) from error
    if parity >= _PARITIES or max(r, s).bit_length() > _WORD * 8:
        message = "The transaction's signature has members out of range."
        raise TransactionInvalid(message)
    return transaction.with_signature(r.to_bytes(_WORD, "big") + s.to_bytes(_WORD, "big") + bytes((parity,)))


def _read(fields: Sequence[rlp.Item]) -> Transaction:
    to, data = _bytes(fields[5]), _bytes(fields[7])
    if len(to) not in {0, ADDRESS_SIZE_BYTES}:
        message = f"`to` has {ADDRESS_SIZE_BYTES} bytes, or none, not {len(to)}."
        raise TransactionInvalid(message)
    return Transaction(
        chain_id=rlp.decode_int(fields[0]),
        nonce=rlp.decode_int(fields[1]),
        max_priority_fee_per_gas=rlp.decode_int(fields[2]),
        max_fee_per_gas=rlp.decode_int(fields[3]),
        gas_limit=rlp.decode_int(fields[4]),
        to=to,
        value=rlp.decode_int(fields[6]),
        data=data,
        access_list=tuple(_read_access(entry) for entry in _list(fields[8])),
    )


def _read_access(entry: rlp.Item) -> AccessTuple:
    pair = _list(entry)
    if len(pair) != 2:  # noqa: PLR2004 - a pair
        message = "An entry of an access list is an address and a list of keys."
        raise TransactionInvalid(message)
    address, keys = _bytes(pair[0]), tuple(_bytes(key) for key in _list(pair[1]))
    if len(address) != ADDRESS_SIZE_BYTES or any(len(key) != _WORD for key in keys):
        message = "An entry of an access list is an address of 20 bytes and keys of 32."
        raise TransactionInvalid(message)
    return AccessTuple(address, keys)


def _bytes(item: rlp.Item) -> bytes:
    if isinstance(item, bytes):
        return item
    message = "A list stands where the transaction has bytes."
    raise TransactionInvalid(message)


def _list(item: rlp.Item) -> tuple[rlp.Item, ...]:
    if not isinstance(item, bytes):
        return tuple(item)
    message = "Bytes stand where the transaction has a list."
    raise TransactionInvalid(message)
