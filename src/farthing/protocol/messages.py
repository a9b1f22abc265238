"""The messages of x402 version 2, as frozen structs: strict on types and bounds, lenient on unknown members.

Source: `specs/x402-specification-v2.md`, section 5. Names are the specification's; the wire is camelCase by one rule.
An amount is a decimal string on the wire (section 5.1.2) and stays one here, checked; `.atomic` is the integer.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from farthing.errors import ProtocolError
from farthing.money import AMOUNT_MAX

X402_VERSION = 2

# Bounds of what is read. The longest URL that browsers and servers agree on is about 8,000 characters.
URL_MAX_CHARS = 8_192
TEXT_MAX_CHARS = 4_096
NAME_MAX_CHARS = 128
# An offer is chosen among a handful; the header's own bound allows no more than some forty.
OFFERS_MAX = 64
# Written out once: turning 2^256 into text takes half a microsecond, and every offer is measured against it.
_AMOUNT_MAX_CHARS = len(str(AMOUNT_MAX))
# A year: nobody settles later, and the sum with a Unix time stays far below 2^63.
TIMEOUT_MAX_SECONDS = 31_536_000

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_MAX_CHARS)]
Text = Annotated[str, msgspec.Meta(max_length=TEXT_MAX_CHARS)]
Url = Annotated[str, msgspec.Meta(max_length=URL_MAX_CHARS)]
# Plain ASCII digits without sign, space, exponent or leading zero; 78 digits hold 2^256 - 1.
Amount = Annotated[str, msgspec.Meta(pattern=r"\A(?:0|[1-9][0-9]{0,77})\Z")]
Seconds = Annotated[int, msgspec.Meta(ge=0, le=TIMEOUT_MAX_SECONDS)]


def _version() -> int:
    """Give the default by a factory: `omit_defaults` leaves out plain defaults, and the version must be on the wire."""
    return X402_VERSION


class Message(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, gc=False):
    """What all messages of the wire have in common: frozen, camelCase, defaults left out.

    A message is a tree, as the JSON is that it stands for, so that the collector need not look at it.
    """


class ResourceInfo(Message, frozen=True):
    """What is for sale: `url` as offered, and what people and programs may want to know of it."""

    url: Url
    description: Text = ""
    mime_type: Text = ""


class PaymentRequirements(Message, frozen=True):
    """One way to pay: one entry of `accepts`.

    `amount` is in atomic units of `asset`; `asset` a token contract's address (or an ISO 4217 code); `extra` belongs
    to the scheme and is parsed by its mechanism alone.
    """

    scheme: Name
    network: Name
    amount: Amount
    asset: Name
    pay_to: Name
    max_timeout_seconds: Seconds = msgspec.field(name="maxTimeoutSeconds")
    extra: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        """Hold the amount to a uint256; msgspec turns the error into one with a path."""
        if len(self.amount) == _AMOUNT_MAX_CHARS and int(self.amount) > AMOUNT_MAX:
            message = "`amount` is over 2^256 - 1"
            raise ValueError(message)

    @property
    def atomic(self) -> int:
        """The amount as an integer, in atomic units."""
        return int(self.amount)


class PaymentRequired(Message, frozen=True):
    """The body of a 402: what is for sale and the ways to pay. `accepts` may be empty where nothing may be paid now."""

    resource: ResourceInfo
    accepts: Annotated[tuple[PaymentRequirements, ...], msgspec.Meta(max_length=OFFERS_MAX)]
    x402_version: int = msgspec.field(name="x402Version", default_factory=_version)
    error: Text | None = None
    extensions: dict[str, Any] | None = None


class PaymentPayload(Message, frozen=True):
    """A signed payment: the offer that it `accepted` and the scheme's `payload`, kept raw for its mechanism."""

    accepted: PaymentRequirements
    payload: msgspec.Raw
    x402_version: int = msgspec.field(name="x402Version", default_factory=_version)
    resource: ResourceInfo | None = None
    extensions: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        """Refuse another version; `farthing.protocol.versions` knows who translates it."""
        if self.x402_version != X402_VERSION:
            message = f"`x402Version` is {self.x402_version}; this endpoint speaks version {X402_VERSION}"
            raise ValueError(message)


class VerifyRequest(Message, frozen=True):
    """What a seller asks a facilitator at `/verify` and `/settle` (section 7.1)."""

    payment_payload: PaymentPayload
    payment_requirements: PaymentRequirements
    x402_version: int = msgspec.field(name="x402Version", default_factory=_version)


class VerifyResponse(Message, frozen=True, omit_defaults=True):
    """A facilitator's verdict on a payment that is not settled yet. Committing nothing, it promises nothing."""

    is_valid: bool
    invalid_reason: Text | None = None
    invalid_message: Text | None = None
    payer: Text | None = None


class SettlementResponse(Message, frozen=True):
    """What became of a settlement (the packages say SettleResponse). `transaction` is empty where there is none."""

    success: bool
    transaction: Text
    network: Text
    error_reason: Text | None = None
    error_message: Text | None = None
    payer: Text | None = None
    amount: Text | None = None
    extra: dict[str, Any] | None = None
    extensions: dict[str, Any] | None = None
    asset: Text | None = None


class SupportedKind(Message, frozen=True):
    """One scheme on one network that a facilitator settles."""

    scheme: Name
    network: Name
    x402_version: int = msgspec.field(name="x402Version", default_factory=_version)
    extra: dict[str, Any] | None = None


class SupportedResponse(Message, frozen=True, omit_defaults=False):
    """What a facilitator offers: kinds, extensions, and its signers by CAIP-2 pattern."""

    kinds: tuple[SupportedKind, ...]
    extensions: tuple[str, ...] = ()
    signers: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict[str, tuple[str, ...]])


def amount_of(atomic: int) -> str:
    """Write an integer amount as the wire has it, or raise `ProtocolError`."""
    if not 0 <= atomic <= AMOUNT_MAX:
        message = f"an amount is between 0 and 2^256 - 1, not {atomic}"
        raise ProtocolError(message, path="$.amount")
    return str(atomic)
