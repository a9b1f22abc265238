"""The payment identity: the right that can be spent once, and the payment id that both sides compute from it."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Final

import msgspec

# Every step of a payment asks for its id again: those that are under way, half a megabyte.
_REMEMBERED_MAX: Final = 1_024


class PaymentIdentity(msgspec.Struct, frozen=True, gc=False):
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
        return _payment_id(self.kind, self.parts)


@lru_cache(maxsize=_REMEMBERED_MAX)
def _payment_id(kind: str, parts: tuple[str, ...]) -> str:
    canonical = msgspec.json.encode([kind, *parts])
    return "pay_" + hashlib.sha256(canonical).hexdigest()
