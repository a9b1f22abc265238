"""Signing as an effect, and the small interface that hides where a key lives."""

from __future__ import annotations

from typing import Any, Protocol

from farthing.flow import Effect


class TypedMessage(Protocol):
    """An EIP-712 message bound to its domain: what a payer signs."""

    def digest(self) -> bytes:
        """The 32 bytes that are signed: `keccak256(0x19 0x01 ‖ domainSeparator ‖ hashStruct(message))`."""
        ...

    def to_json(self) -> dict[str, Any]:
        """The whole as `eth_signTypedData_v4` takes it: `types`, `primaryType`, `domain`, `message`."""
        ...


class Signer(Protocol):
    """Signs for one address. Implementations never log, print or pickle the key."""

    @property
    def address(self) -> str:
        """The EIP-55 address that signatures recover to."""
        ...

    def sign_typed_data(self, message: TypedMessage) -> bytes:
        """Sign: 65 bytes `r ‖ s ‖ v`, low s, v 27 or 28. Raises `SignerError`."""
        ...


class SignTypedData(Effect[bytes], frozen=True):
    """Have `message` signed by the buyer's signer; the answer is `r ‖ s ‖ v`, 65 bytes."""

    message: TypedMessage
