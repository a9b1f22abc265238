"""Signatures of externally owned accounts: ECDSA on secp256k1 with recovery, low s only."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final, NoReturn

import coincurve

from farthing.errors import FarthingError
from farthing.evm import curve
from farthing.evm.addresses import checksum_address
from farthing.evm.keccak import keccak256

if TYPE_CHECKING:
    from farthing.evm.signing import TypedMessage

SIGNATURE_SIZE_BYTES: Final = 65
DIGEST_SIZE_BYTES: Final = 32
KEY_SIZE_BYTES: Final = 32

_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
_ORDER_WORD = _ORDER.to_bytes(32, "big")
# EIP-2: of the two s that satisfy the equation only the lower one is a signature, or anybody could make a second
# signature of a first. USDC and OpenZeppelin's ECDSA demand it too.
_HIGHEST_S = (_ORDER // 2).to_bytes(32, "big")
_ZERO_WORD = bytes(32)

# v as wallets write it (27, 28: the yellow paper; 0, 1: EIP-2098 and hardware wallets), and the recovery id it means.
_RECOVERY_IDS: Final = {0: 0, 1: 1, 27: 0, 28: 1}
_V_BYTES = (b"\x1b", b"\x1c")


class SignatureInvalid(FarthingError, ValueError):
    """Bytes that can't be anybody's signature: wrong size, v, r or s."""


class KeyInvalid(FarthingError, ValueError):
    """Bytes that are no private key. The message never holds them."""


# Where seller and facilitator are one process, one payment's signature is asked about three times within a second, and
# recovery is the dearest step of all. It is a function of what is asked; a few hundred kilobytes remember so many.
RECOVERED_MAX: Final = 1_024


class SignatureParts(tuple[int, bytes, bytes]):
    """A signature taken apart as contracts take it: v (27 or 28), r and s (32 bytes each)."""

    __slots__ = ()

    @property
    def v(self) -> int:
        """27 or 28."""
        return self[0]

    @property
    def r(self) -> bytes:
        """The first word."""
        return self[1]

    @property
    def s(self) -> bytes:
        """The second word, in the lower half."""
        return self[2]


def recover_address(digest: bytes, signature: bytes) -> bytes:
    """Find who signed `digest` (32 bytes): the 20 bytes of the address, as `ecrecover` would.

    `signature` is `r ‖ s ‖ v`, 65 bytes, v of 27, 28, 0 or 1. Raises `SignatureInvalid` where it is nobody's, and for
    a high s (EIP-2).
    """
    recovery_id = _check(signature)
    if len(digest) != DIGEST_SIZE_BYTES:
        message = f"A digest has {DIGEST_SIZE_BYTES} bytes, not {len(digest)}."
        raise SignatureInvalid(message)
    address = _recover(digest, signature[:64], recovery_id)
    if address is None:
        # r is the x coordinate of no point of the curve.
        message = "The signature belongs to no public key."
        raise SignatureInvalid(message)
    return address


@functools.lru_cache(maxsize=RECOVERED_MAX)
def _recover(digest: bytes, compact: bytes, recovery_id: int) -> bytes | None:
    public_key = curve.recover(digest, compact, recovery_id)
    # The hash is over x and y (yellow paper, appendix F).
    return None if public_key is None else keccak256(public_key)[12:]


def split_signature(signature: bytes) -> SignatureParts:
    """Check `r ‖ s ‖ v` as `recover_address` does and take it apart, v as 27 or 28."""
    recovery_id = _check(signature)
    return SignatureParts((27 + recovery_id, signature[:32], signature[32:64]))


def public_key_address(public_key: bytes) -> bytes:
    """Compute the address of a public key (SEC 1, 33 or 65 bytes): the last 20 bytes of its Keccak-256."""
    try:
        point = coincurve.PublicKey(public_key).format(compressed=False)
    except ValueError as error:
        message = "The bytes are no public key on secp256k1."
        raise KeyInvalid(message) from error
    return keccak256(point[1:])[12:]


class PrivateKey:
    """A key in memory, which signs. It shows its address and never itself.

    It is a `Signer` (`farthing.evm.signing`): `PrivateKey(secret).sign_typed_data(message)`.
    """

    __slots__ = ("_address", "_secret")

    def __init__(self, secret: bytes) -> None:
        """Take 32 bytes between 1 and the order of the curve, or raise `KeyInvalid`."""
        if len(secret) != KEY_SIZE_BYTES or not _ZERO_WORD < secret < _ORDER_WORD:
            # `from None` below and no value here: a traceback must not carry key material.
            message = f"A private key has {KEY_SIZE_BYTES} bytes between 1 and the order of secp256k1."
            raise KeyInvalid(message)
        self._secret = secret
        self._address = checksum_address(public_key_address(coincurve.PrivateKey(secret).public_key.format()))

    @classmethod
    def from_hex(cls, text: str) -> PrivateKey:
        """Read 64 hexadecimal digits, with or without `0x`, or raise `KeyInvalid`."""
        try:
            secret = bytes.fromhex(text.strip().removeprefix("0x"))
        except ValueError:
            message = "A private key is written as 64 hexadecimal digits; what was given is not."
            raise KeyInvalid(message) from None
        return cls(secret)

    @property
    def address(self) -> str:
        """The EIP-55 address that signatures recover to."""
        return self._address

    def sign_digest(self, digest: bytes) -> bytes:
        """Sign 32 bytes: `r ‖ s ‖ v`, 65 bytes, s low, v 27 or 28; deterministic by RFC 6979."""
        if len(digest) != DIGEST_SIZE_BYTES:
            message = f"A digest has {DIGEST_SIZE_BYTES} bytes, not {len(digest)}."
            raise SignatureInvalid(message)
        signature = curve.sign(self._secret, digest)
        return signature[:64] + _V_BYTES[signature[64]]

    def sign_typed_data(self, message: TypedMessage) -> bytes:
        """Sign an EIP-712 message: `r ‖ s ‖ v`, 65 bytes."""
        return self.sign_digest(message.digest())

    def __repr__(self) -> str:
        """Show the address, never the key."""
        return f"PrivateKey(address={self._address!r})"

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied: a key that travels is a key that leaks."""
        message = "A private key can't be pickled or copied."
        raise TypeError(message)


def _check(signature: bytes) -> int:
    """Check size, v, r and s, and give the recovery id."""
    if len(signature) != SIGNATURE_SIZE_BYTES:
        message = f"A signature has {SIGNATURE_SIZE_BYTES} bytes, not {len(signature)}."
        raise SignatureInvalid(message)
    recovery_id = _RECOVERY_IDS.get(signature[64])
    if recovery_id is None:
        message = f"v of a signature is 27 or 28 (or 0 or 1), not {signature[64]}."
        raise SignatureInvalid(message)
    # Words of one size compare as the numbers they are (big-endian).
    if not _ZERO_WORD < signature[:32] < _ORDER_WORD:
        message = "r of the signature is zero or beyond the order of the curve."
        raise SignatureInvalid(message)
    if not _ZERO_WORD < signature[32:64] <= _HIGHEST_S:
        message = "s of the signature is zero or in the upper half (EIP-2)."
        raise SignatureInvalid(message)
    return recovery_id
