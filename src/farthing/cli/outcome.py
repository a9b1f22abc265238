"""How a paying command ends: its exit code, and its result as one line of JSON."""

from __future__ import annotations

from typing import Final

import msgspec

from farthing.errors import (
    BodyNotReplayable,
    FarthingError,
    NoAcceptableOffer,
    PaymentRefused,
    PaymentUnknown,
    PolicyRefused,
)

EXIT_DONE: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_POLICY: Final = 3
EXIT_REFUSED: Final = 4
EXIT_UNKNOWN: Final = 5
EXIT_NETWORK: Final = 6
EXIT_INTERRUPTED: Final = 130

# Told for the errors of the buyer, whose own advice names Python; by reason.
_ADVICE: Final = {
    "price_over_limit": "Nothing was paid; if it is worth it: --max PRICE.",
    "over_per_day": "Nothing was paid; if it is worth it: --max-per-day PRICE.",
    "over_per_host": "Nothing was paid.",
    "no_acceptable_offer": "Nothing was paid; networks and tokens are allowed by --network and --token.",
    "window_too_long": "Nothing was paid.",
    "declined": "Nothing was paid.",
    "interrupted": "Nothing was paid.",
    "payee_changed": "Nothing was paid. If the new account is right: farthing payments approve {approval_id}, "
    "then the same command again.",
    "approval_needed": "Nothing was paid. To agree: farthing payments approve {approval_id}, then the same again.",
    "stopped": "Nothing was paid. To go on: farthing payments resume, or remove the file that stops it.",
    "nobody_to_ask": "Nothing was paid; to pay without being asked, up to --max: --yes.",
    "not_x402": "Nothing was paid.",
}
_KEEPS_ITS_PLACE: Final = (
    "It may have settled, so it keeps its place in the budget. Run the same command again: it presents the same "
    "payment, never a second one. More: farthing payments show {payment_id}"
)
_REFUSED: Final = (
    "The authorisation lives until its window ends; until then the same command presents the same payment again. "
    "More: farthing payments show {payment_id}"
)


class Problem(msgspec.Struct, frozen=True):
    """What went wrong: `code` for programs, `message` and `advice` for people."""

    code: str
    message: str
    advice: str = ""


class OfferView(msgspec.Struct, frozen=True, kw_only=True):
    """One offer as it is shown. `price` is in units of the token, `""` where it isn't known; `why_not` says no."""

    scheme: str
    network: str
    asset: str
    symbol: str
    amount: str
    price: str
    pay_to: str
    payable: bool | None = None
    why_not: str = ""


class Result(msgspec.Struct, kw_only=True):
    """What a paying command says in JSON, all of it, always. Amounts are atomic units as text, and in token units.

    `paid` is true where the answer came for a payment; `state` is the journal's. `body` is the answer as text, or
    `body_base64` where it is none, unless it went to `file`.
    """

    method: str
    url: str
    exit_code: int = 0
    status: int | None = None
    paid: bool = False
    state: str = ""
    again: bool = False
    amount: str = ""
    price: str = ""
    symbol: str = ""
    network: str = ""
    asset: str = ""
    pay_to: str = ""
    payer: str = ""
    payment_id: str = ""
    transaction: str = ""
    content_type: str = ""
    size_bytes: int | None = None
    file: str = ""
    body: str | None = None
    body_base64: str | None = None
    offers: tuple[OfferView, ...] = ()
    dry_run: bool = False
    error: Problem | None = None


def exit_code_of(error: FarthingError) -> int:
    """The exit code for an error of a purchase."""
    if isinstance(error, PaymentUnknown):
        return EXIT_UNKNOWN
    if isinstance(error, PaymentRefused):
        return EXIT_REFUSED
    if isinstance(error, NoAcceptableOffer):
        # Offers that this buyer may not pay are its policy's; a 402 that can't be paid at all is the seller's.
        return EXIT_POLICY if error.reason == "no_acceptable_offer" else EXIT_REFUSED
    if getattr(error, "reason", "") == "interrupted":
        return EXIT_INTERRUPTED
    if isinstance(error, (PolicyRefused, BodyNotReplayable)):
        return EXIT_POLICY
    return EXIT_USAGE


def problem_of(error: FarthingError) -> Problem:
    """Say an error as the command says it."""
    message, code = str(error), str(getattr(error, "reason", "") or type(error).__name__)
    own: str = getattr(error, "advice", "")
    if own:
        message = message.removesuffix(own).rstrip()
    payment_id: str = getattr(error, "payment_id", "")
    if isinstance(error, PaymentUnknown):
        advice = _KEEPS_ITS_PLACE.format(payment_id=payment_id)
    elif isinstance(error, PaymentRefused):
        advice = _REFUSED.format(payment_id=payment_id)
    else:
        advice = _ADVICE.get(code, own).format(approval_id=getattr(error, "approval_id", ""))
    return Problem(code, message, advice)
