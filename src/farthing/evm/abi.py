"""The contract ABI, as far as payments need it: words packed and read by hand.

A call is a selector of four bytes and words of 32; a dynamic member is a word that says where its bytes begin. The
calls themselves are in `calls`, events in `logs`, refusals in `reverts`. Source: the Solidity contract ABI
specification; proved against eth-abi in the tests.
"""

from __future__ import annotations

from typing import Final

from farthing.errors import FarthingError
from farthing.evm.addresses import ADDRESS_SIZE_BYTES
from farthing.evm.keccak import keccak256

WORD_SIZE_BYTES: Final = 32
UINT256_MAX: Final = 2**256 - 1

_PAD = bytes(WORD_SIZE_BYTES - ADDRESS_SIZE_BYTES)


class AbiInvalid(FarthingError, ValueError):
    """Bytes that don't decode as the type that was asked for, or a value that its type can't hold."""


def selector(signature: str) -> bytes:
    """The four bytes of a function or error: `selector("transfer(address,uint256)")`."""
    return keccak256(signature.encode())[:4]


def event_topic(signature: str) -> bytes:
    """The first topic of an event: the hash of its signature."""
    return keccak256(signature.encode())


def pack_uint(value: int) -> bytes:
    """A number as a word."""
    try:
        return value.to_bytes(WORD_SIZE_BYTES, "big")
    except OverflowError as error:
        message = f"{value} is no uint256."
        raise AbiInvalid(message) from error


def pack_address(address: bytes) -> bytes:
    """An address as a word."""
    if len(address) != ADDRESS_SIZE_BYTES:
        message = f"An address has {ADDRESS_SIZE_BYTES} bytes, not {len(address)}."
        raise AbiInvalid(message)
    return _PAD + address


def pack_word(word: bytes) -> bytes:
    """A bytes32 as it is."""
    if len(word) != WORD_SIZE_BYTES:
        message = f"A bytes32 has {WORD_SIZE_BYTES} bytes, not {len(word)}."
        raise AbiInvalid(message)
    return word


def pack_bytes(data: bytes) -> bytes:
    """The tail of a dynamic `bytes`: its length and itself, padded to whole words."""
    return pack_uint(len(data)) + data + bytes(-len(data) % WORD_SIZE_BYTES)


def read_word(data: bytes, index: int = 0) -> bytes:
    """The word at `index` (counted in words)."""
    word = data[index * WORD_SIZE_BYTES : (index + 1) * WORD_SIZE_BYTES]
    if len(word) != WORD_SIZE_BYTES:
        message = f"The answer has {len(data)} bytes and no word at {index}."
        raise AbiInvalid(message)
    return word


def read_uint(data: bytes, index: int = 0) -> int:
    """The number at word `index`."""
    return int.from_bytes(read_word(data, index), "big")


def read_bool(data: bytes, index: int = 0) -> bool:
    """The truth value at word `index`: zero or one, nothing else."""
    value = read_uint(data, index)
    if value > 1:
        message = f"A bool is 0 or 1, not {value}."
        raise AbiInvalid(message)
    return value == 1


def read_address(data: bytes, index: int = 0) -> bytes:
    """The address at word `index`, whose upper twelve bytes must be zero."""
    word = read_word(data, index)
    if word[: len(_PAD)] != _PAD:
        message = "An address has twelve zero bytes before it."
        raise AbiInvalid(message)
    return word[len(_PAD) :]


def read_bytes(data: bytes, index: int = 0) -> bytes:
    """The dynamic `bytes` whose offset stands at word `index`, counted from the beginning of `data`."""
    offset = read_uint(data, index)
    if offset > len(data):
        message = f"The offset {offset} is behind the end of {len(data)} bytes."
        raise AbiInvalid(message)
    size = read_uint(data[offset : offset + WORD_SIZE_BYTES])
    start = offset + WORD_SIZE_BYTES
    if start + size > len(data):
        message = f"{size} bytes are announced, {len(data) - start} are there."
        raise AbiInvalid(message)
    return data[start : start + size]


def read_string(data: bytes, index: int = 0) -> str:
    """The dynamic `string` whose offset stands at word `index`."""
    try:
        return read_bytes(data, index).decode()
    except UnicodeDecodeError as error:
        message = "The string is not UTF-8."
        raise AbiInvalid(message) from error
