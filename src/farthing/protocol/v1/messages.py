"""The messages of version 1, as frozen structs: strict on types and bounds, lenient on unknown members.

Source: `specs/x402-specification-v1.md`, section 5. `outputSchema` is passed over on the way in and left out on the way
out: nobody here reads it, and npm's `x402` refuses it as null.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from farthing.protocol.messages import OFFERS_MAX, Amount, Message, Name, Seconds, Text, Url

X402_VERSION: Final = 1


def _version() -> int:
    """Give the default by a factory, since plain defaults are left out on the wire."""
    return X402_VERSION


def _empty() -> str:
    """Likewise: npm's `x402` wants these members, empty or not."""
    return ""


class TermsV1(Message, frozen=True):
    """The first half of an entry of `accepts`: what is to be paid."""

    scheme: Name
    network: Name
    max_amount_required: Amount
    pay_to: Name
    asset: Name
    max_timeout_seconds: Seconds
    extra: dict[str, Any] | None = None


class ResourceV1(Message, frozen=True):
    """The other half: what for. npm's `x402` wants all three members, empty or not."""

    resource: Url
    description: Text
    mime_type: Text


class OfferV1(TermsV1, frozen=True):
    """One entry of `accepts`, as we read it: both in one."""

    resource: Url = ""
    description: Text | None = ""
    mime_type: Text | None = ""


class EnvelopeV1(Message, frozen=True):
    """The body of a 402, as we read it: one unreadable offer spoils none of the others."""

    x402_version: int = msgspec.field(name="x402Version")
    accepts: Annotated[list[msgspec.Raw], msgspec.Meta(max_length=OFFERS_MAX)] = msgspec.field(
        default_factory=list[msgspec.Raw]
    )
    error: str | None = None


class PaymentV1(Message, frozen=True):
    """A payment: scheme, network and the scheme's payload. Which offer it accepts it does not say."""

    scheme: Name
    network: Name
    payload: msgspec.Raw
    x402_version: int = msgspec.field(name="x402Version", default_factory=_version)

    def __post_init__(self) -> None:
        """Refuse another version."""
        if self.x402_version != X402_VERSION:
            message = f"`x402Version` is {self.x402_version}, not {X402_VERSION}"
            raise ValueError(message)


class SettlementV1(Message, frozen=True):
    """What became of a settlement. `transaction` is empty where there is none."""

    success: bool
    transaction: Text = msgspec.field(default_factory=_empty)
    network: Text = msgspec.field(default_factory=_empty)
    payer: Text | None = msgspec.field(default_factory=_empty)
    error_reason: Text | None = None


class VerdictV1(Message, frozen=True):
    """A facilitator's verdict."""

    is_valid: bool
    invalid_reason: Text | None = None
    payer: Text | None = None


class VerifyRequestV1(Message, frozen=True):
    """What a seller asks a facilitator at `/verify` and `/settle`."""

    payment_payload: PaymentV1
    payment_requirements: OfferV1
    x402_version: int = msgspec.field(name="x402Version", default_factory=_version)

    def __post_init__(self) -> None:
        """Refuse another version outside than inside."""
        if self.x402_version != X402_VERSION:
            message = f"`x402Version` is {self.x402_version}, not {X402_VERSION}"
            raise ValueError(message)
