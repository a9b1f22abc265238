"""What a buyer tells whoever watches it: each step of a purchase, as a value, when it happens.

A watcher decides nothing, and an error of its own never reaches a purchase. No event holds a key; `Paying.header` is
the signed payment, so a log of it is a log of money.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from farthing.buyer.purchase import PaidRequest
from farthing.buyer.request import RequestFacts
from farthing.buyer.verdict import Receipt
from farthing.errors import FarthingError
from farthing.protocol.codec import ReceivedOffers


class Offered(msgspec.Struct, frozen=True):
    """A 402 came, with these offers."""

    request: RequestFacts
    received: ReceivedOffers


class Signing(msgspec.Struct, frozen=True):
    """The signer is asked to sign this: the EIP-712 message as `eth_signTypedData_v4` takes it."""

    request: RequestFacts
    typed: dict[str, Any]


class Paying(msgspec.Struct, frozen=True):
    """The payment is on record, and the paid request leaves now."""

    request: RequestFacts
    paid: PaidRequest


class Concluded(msgspec.Struct, frozen=True):
    """The caller gets the answer with this receipt, or this error."""

    request: RequestFacts
    result: Receipt | FarthingError


Event: TypeAlias = Offered | Signing | Paying | Concluded
