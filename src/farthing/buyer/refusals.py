"""Why a purchase is refused by the buyer itself, as errors that say what to do next."""

from __future__ import annotations

from typing import Final

from farthing.buyer.choice import Candidate, Choice, shown
from farthing.buyer.journal import OverBudget, Stopped, TooFast
from farthing.buyer.policy import Policy, show_value
from farthing.errors import NoAcceptableOffer, PolicyRefused
from farthing.protocol.codec import ReceivedOffers

# Offers whose reasons one error message tells; the others are counted.
_REASONS_SHOWN_MAX: Final = 6
# Of a budget's scope, what its limit is called in the policy.
_NAMES: Final = {"host": "per_host", "hour": "per_hour", "day": "per_day", "session": "per_session"}


def lost(message: str) -> PolicyRefused:
    """Say that somebody else was faster, and that nothing was sent."""
    return PolicyRefused(message, reason="reservation_lost", advice="Send the request again.")


def stopped(switch: Stopped) -> PolicyRefused:
    """Say that the kill switch is on."""
    return PolicyRefused(
        f"All payments of this journal are stopped: {shown(switch.reason)}.",
        reason="stopped",
        advice="Nothing left. To go on: journal.resume(), or `farthing payments resume`, or remove the file.",
    )


def too_fast(answer: TooFast, best: Candidate) -> PolicyRefused:
    """Say that the rate is used up."""
    return PolicyRefused(
        f"The rate has no room: {answer.rate.count_max} payments in {answer.rate.seconds} s were made already.",
        reason="over_rate",
        advice="Nothing was signed; wait, or raise Policy(rate=…).",
        offer=best.offer.requirements,
    )


def nothing_to_pay(received: ReceivedOffers, choice: Choice) -> PolicyRefused | NoAcceptableOffer:
    """Say why none of the offers can be paid."""
    if not choice.rejected:
        return NoAcceptableOffer(
            "The seller answered 402 and offers no way to pay now.",
            reason="no_offers",
            advice="Try again later; where an earlier payment is pending, it is named in the journal.",
        )
    told = [f"offer {each.index}: {each.why}" for each in choice.rejected[:_REASONS_SHOWN_MAX]]
    more = len(choice.rejected) - len(told)
    reasons = "; ".join(told) + (f"; and {more} more" if more else "")
    limited = next((each for each in choice.rejected if each.by_policy), None)
    if limited is None:
        return NoAcceptableOffer(
            f"None of the seller's offers can be paid: {reasons}.",
            reason="no_acceptable_offer",
            advice="Networks and assets are allowed by Policy(networks=[…], assets=[…]).",
            offer=received.offers[0].requirements if received.offers else None,
        )
    offer = next(each for each in received.offers if each.index == limited.index)
    return PolicyRefused(
        f"The policy allows none of the seller's offers: {reasons}.",
        reason=limited.code,
        advice="Nothing was signed; raise the limit in the Policy if this is worth it.",
        offer=offer.requirements,
    )


def over_budget(policy: Policy, over: OverBudget, best: Candidate) -> PolicyRefused:
    """Say which budget has no room."""
    kind = over.limit.scope.partition(":")[0]
    name = _NAMES.get(kind, kind)
    limit = show_value(over.limit.limit_value or 0, policy.currency)
    used, price = show_value(over.used_value, policy.currency), show_value(best.value, policy.currency)
    return PolicyRefused(
        f"The budget has no room: {name} allows {limit} ({shown(over.limit.scope)}), {used} is used or reserved, and "
        f"this costs {price}.",
        reason=f"over_{name}",
        advice=f"Nothing was signed; raise Policy({name}=…) to go on.",
        offer=best.offer.requirements,
    )
