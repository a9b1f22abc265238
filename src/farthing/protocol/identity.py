"""The payment identity: the right that can be spent once, and the payment id that both sides compute from it."""

from __future__ import annotations

import hashlib

import msgspec


class PaymentIdentity(msgspec.Struct, frozen=True):
    """A right that can be spent once.

    `kind` names what the right is and `parts` says which one, lower case, in this order:

    - `eip3009`: network (CAIP-2), token, from, nonce.
    - `commitment`: payer (the origin of its key directory), commitment id.
    - (Permit2 and channels come with their mechanisms.)
    """

    kind: str
    parts: tuple[str, ...]

    @property
    def payment_id(self) -> str:
        """`pay_` and the SHA-256, in hex, of the canonical JSON array `[kind, part, …]`."""
        canonical = msgspec.json.encode([self.kind, *self.parts])
        return "pay_" + hashlib.sha256(canonical).hexdigest()
