"""What stands in an offer and in a payment on credit, read at the door."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from farthing.mechanisms.batch_credit import reasons
from farthing.mechanisms.interface import Refusal
from farthing.protocol.clearing import CURRENCIES, DECIMALS, LINE_AMOUNT_MAX
from farthing.protocol.codec import decode_with
from farthing.protocol.messages import Amount, Message, Name, PaymentPayload, PaymentRequirements, Text, Url

SCHEME: Final = "batch-settlement"
NETWORKS: Final = "clearing:*"
CLOUDFLARE: Final = "cloudflare:402"
# The version of the scheme that we write; another one that begins alike is read.
VERSION: Final = "1.0.0"
_VERSION_MAJOR: Final = "1."


class CreditPayload(Message, frozen=True):
    """The scheme's `payload`: what is promised, once more. All else is under the HTTP message signature."""

    amount: Amount
    asset: Name


class CreditExtra(Message, frozen=True):
    """An offer's `extra`. `decimals` says what the amount counts: 6 for USD and EUR, missing or other is refused.

    `clearing_house` is where payers open an account, for people to read: nothing is fetched from there by a buyer.
    """

    decimals: int
    version: Text = VERSION
    clearing_house: Url = ""


class CreditTerms(msgspec.Struct, frozen=True):
    """An offer on credit, read: `amount` in atomic units of `currency` (6 decimals), `pay_to` the payee's account."""

    network: str
    currency: str
    pay_to: str
    amount: int
    clearing_house: str


_payload_decoder = msgspec.json.Decoder(CreditPayload)


def read_payload(payment: PaymentPayload) -> CreditPayload:
    """Read a payment's payload. Raises `RemoteProtocolError` with the JSON path."""
    return decode_with(_payload_decoder, payment.payload, what="payment", at="$.payload")


def read_terms(requirements: PaymentRequirements) -> CreditTerms | Refusal:
    """Read an offer of a clearing network, or say what is not as it must be."""
    if requirements.scheme != SCHEME or not requirements.network.startswith("clearing:"):
        return _refuse(f"{requirements.scheme} on {requirements.network} is not {SCHEME} on a clearing network")
    if requirements.asset not in CURRENCIES:
        return _refuse(f"the asset is {requirements.asset!r}; accounts are kept in {' and '.join(sorted(CURRENCIES))}")
    extra = _extra(requirements.extra)
    if isinstance(extra, Refusal):
        return extra
    if not 0 < requirements.atomic <= LINE_AMOUNT_MAX:
        return _refuse(f"the amount is {requirements.amount}; one promise is for 1 to {LINE_AMOUNT_MAX}")
    return CreditTerms(
        requirements.network, requirements.asset, requirements.pay_to, requirements.atomic, extra.clearing_house
    )


def write_extra(*, clearing_house: str) -> dict[str, Any]:
    """Make the `extra` of an offer."""
    extra: dict[str, Any] = {"version": VERSION, "decimals": DECIMALS}
    return extra | {"clearingHouse": clearing_house} if clearing_house else extra


def _extra(said: dict[str, Any] | None) -> CreditExtra | Refusal:
    # Told apart from a wrong type, since it is what offers of other networks lack.
    if said is None or "decimals" not in said:
        return _refuse(f"the offer's extra.decimals is missing; it must be {DECIMALS}")
    try:
        extra = msgspec.convert(said, CreditExtra)
    except msgspec.ValidationError as error:
        return _refuse(f"the offer's extra can't be read: {error}")
    if extra.decimals != DECIMALS:
        return _refuse(f"the offer's extra.decimals is {extra.decimals}; it must be {DECIMALS}")
    if not extra.version.startswith(_VERSION_MAJOR):
        return _refuse(f"the offer's extra.version is {extra.version!r}; this is version {VERSION}")
    return extra


def _refuse(message: str) -> Refusal:
    return Refusal(reasons.PRICE_NOT_ACCEPTABLE, message)
