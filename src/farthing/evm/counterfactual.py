"""ERC-6492: signatures of wallets that need not be deployed yet, with the factory call that deploys them.

`abi.encode(address factory, bytes factoryCalldata, bytes signature) ‖ magic`. The inner signature is the wallet's own
(EIP-1271), and what a deployed wallet is asked about: the wrapper is taken off before anything else.
"""

from __future__ import annotations

from typing import Final

import msgspec

from farthing.evm.abi import WORD_SIZE_BYTES, AbiInvalid, pack_address, pack_bytes, pack_uint, read_address, read_bytes
from farthing.evm.addresses import ZERO_ADDRESS
from farthing.evm.signatures import SignatureInvalid

# 32 bytes that end a wrapped signature: 0x6492 sixteen times over.
MAGIC_SUFFIX: Final = b"\x64\x92" * 16

_HEAD_WORDS = 3


class WrappedSignature(msgspec.Struct, frozen=True):
    """A wallet's signature with the call that deploys the wallet: `factory` has 20 bytes."""

    factory: bytes
    factory_calldata: bytes
    signature: bytes

    @property
    def deploys(self) -> bool:
        """True where there is a call to make: a wrapper without one says nothing more than its inner signature."""
        return self.factory != ZERO_ADDRESS and bool(self.factory_calldata)


def unwrap_signature(signature: bytes) -> WrappedSignature | None:
    """Take a wrapped signature apart; None where it isn't wrapped.

    Raises `SignatureInvalid` where the suffix is there and what stands before it can't be read.
    """
    if signature[-len(MAGIC_SUFFIX) :] != MAGIC_SUFFIX:
        return None
    body = signature[: -len(MAGIC_SUFFIX)]
    try:
        return WrappedSignature(read_address(body), read_bytes(body, 1), read_bytes(body, 2))
    except AbiInvalid as error:
        message = f"The signature ends like ERC-6492's and is none: {error}"
        raise SignatureInvalid(message) from None


def wrap_signature(wrapped: WrappedSignature) -> bytes:
    """Write a wrapped signature, as a wallet that isn't deployed yet sends it."""
    calldata = pack_bytes(wrapped.factory_calldata)
    head = (
        pack_address(wrapped.factory)
        + pack_uint(_HEAD_WORDS * WORD_SIZE_BYTES)
        + pack_uint(_HEAD_WORDS * WORD_SIZE_BYTES + len(calldata))
    )
    return head + calldata + pack_bytes(wrapped.signature) + MAGIC_SUFFIX
