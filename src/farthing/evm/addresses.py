"""Addresses: 20 bytes inside, EIP-55 text at the edge."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from farthing.errors import FarthingError
from farthing.evm.keccak import keccak256

ADDRESS_SIZE_BYTES: Final = 20
ZERO_ADDRESS: Final = bytes(ADDRESS_SIZE_BYTES)

_TEXT_SIZE = 2 + 2 * ADDRESS_SIZE_BYTES

# One process sees few payees and assets, again and again, and many payers, seldom twice. At some 300 bytes an entry
# this is about a megabyte.
_CACHE_ENTRIES = 4096

# EIP-55 sets bit 0x20 apart: an ASCII letter is lower case with it and upper case without. One table marks the
# letters of an address, the other the nibbles of its hash that ask for upper case.
_LETTERS = bytes(0x20 if chr(code) in "abcdef" else 0 for code in range(256))
_HIGH_NIBBLES = bytes(0x20 if chr(code) in "89abcdef" else 0 for code in range(256))


class AddressInvalid(FarthingError, ValueError):
    """Text that is no address: not 20 bytes of hexadecimal digits, or mixed case with another checksum."""


def checksum_address(address: bytes) -> str:
    """Write 20 bytes as `0x` and 40 hexadecimal digits whose case is the checksum of EIP-55."""
    if len(address) != ADDRESS_SIZE_BYTES:
        message = f"An address has {ADDRESS_SIZE_BYTES} bytes, not {len(address)}."
        raise AddressInvalid(message)
    return _checksummed(address)


def read_address(text: str) -> tuple[bytes, str]:
    """Read an address as 20 bytes, and give its EIP-55 text too.

    All-lower and all-upper digits are accepted, mixed case only with the right checksum (EIP-55: a wrong one is how a
    mistyped address shows itself). Raises `AddressInvalid`.
    """
    if len(text) != _TEXT_SIZE or not text.startswith(("0x", "0X")):
        message = f"An address is 0x and 40 hexadecimal digits, not {_shown(text)}."
        raise AddressInvalid(message)
    digits = text[2:]
    try:
        address = bytes.fromhex(digits)
    except ValueError:
        address = b""
    # bytes.fromhex passes over white space, so that the size is part of the check; it refuses digits outside ASCII.
    if len(address) != ADDRESS_SIZE_BYTES:
        message = f"An address is 0x and 40 hexadecimal digits (ASCII only), not {_shown(text)}."
        raise AddressInvalid(message)
    lower = digits.lower()
    raised = _raised(lower.encode())
    # Lower case less what is raised is the checksummed text: compared as numbers, since most texts are it already.
    number = int.from_bytes(lower.encode(), "big") ^ raised
    if text[1] == "x" and int.from_bytes(digits.encode(), "big") == number:
        return address, text
    if digits not in {lower, digits.upper()} and int.from_bytes(digits.encode(), "big") != number:
        message = f"The checksum (EIP-55) of {text} is wrong: check the address, or write it in lower case."
        raise AddressInvalid(message)
    return address, "0x" + number.to_bytes(len(lower), "big").decode()


# For the few addresses that a process meets again and again, payees and assets.
@lru_cache(maxsize=_CACHE_ENTRIES)
def parse_address(text: str) -> bytes:
    """Read an address as 20 bytes, by the rules of `read_address`. Raises `AddressInvalid`."""
    return read_address(text)[0]


@lru_cache(maxsize=_CACHE_ENTRIES)
def _checksummed(address: bytes) -> str:
    lower = address.hex().encode()
    return "0x" + (int.from_bytes(lower, "big") ^ _raised(lower)).to_bytes(len(lower), "big").decode()


def _raised(lower: bytes) -> int:
    """The bits that EIP-55 takes from 40 lower-case digits to make letters of them capitals, as one number."""
    letters = int.from_bytes(lower.translate(_LETTERS), "big")
    hashed = keccak256(lower).hex()[: len(lower)].encode()
    return letters & int.from_bytes(hashed.translate(_HIGH_NIBBLES), "big")


def is_address(text: str) -> bool:
    """Tell whether `parse_address` would accept `text`."""
    try:
        parse_address(text)
    except AddressInvalid:
        return False
    return True


def _shown(text: str) -> str:
    # A hostile value may be long or hold control characters; an error message is no place for either.
    return ascii(text if len(text) <= _TEXT_SIZE * 2 else text[:_TEXT_SIZE] + "…")
