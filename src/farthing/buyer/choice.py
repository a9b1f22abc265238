"""Which of several offers is paid: the cheapest allowed one that a mechanism of ours can pay (SAFETY B3).

Only what the policy, the table of tokens and the mechanisms say decides; a seller's text never does.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from farthing.buyer.policy import Policy, show_value, value_of
from farthing.mechanisms.interface import BuyerMechanism
from farthing.mechanisms.registry import Registry
from farthing.networks import Networks, Token
from farthing.protocol.codec import Offer, ReceivedOffers

# `extra.paymentFlow`, in the order in which we prefer them at one price: a payment after the work risks less.
AUTHORIZATION: Final = "authorization"
UPFRONT: Final = "upfront"
_FLOW_RANK: Final = {AUTHORIZATION: 0, UPFRONT: 1}

# What of a seller's own words is shown in a message of ours.
SHOWN_MAX_CHARS: Final = 160


class Candidate(msgspec.Struct, frozen=True):
    """An offer that may be paid. `value` is in units of 10^-18 of the policy's currency."""

    offer: Offer
    mechanism: BuyerMechanism
    token: Token
    value: int
    payment_flow: str


class Rejected(msgspec.Struct, frozen=True):
    """An offer that is passed over: `code` for programs, `why` for people."""

    index: int
    code: str
    why: str

    @property
    def by_policy(self) -> bool:
        """True where the buyer could have paid, and its policy's limits said no."""
        return self.code in {"price_over_limit", "window_too_long"}


class Choice(msgspec.Struct, frozen=True):
    """The offers that may be paid, best first, and the others with the reason."""

    candidates: tuple[Candidate, ...]
    rejected: tuple[Rejected, ...]


def choose(
    received: ReceivedOffers, *, policy: Policy, mechanisms: Registry[BuyerMechanism], networks: Networks
) -> Choice:
    """Rank the offers of a 402: cheapest first, at one price `authorization` before `upfront`, then as offered."""
    candidates: list[Candidate] = []
    rejected = [Rejected(each.index, "unreadable", shown(each.why)) for each in received.passed_over]
    for offer in received.offers:
        verdict = _judge(offer, policy, mechanisms, networks)
        if isinstance(verdict, Candidate):
            candidates.append(verdict)
        else:
            rejected.append(verdict)
    candidates.sort(key=lambda each: (each.value, _FLOW_RANK[each.payment_flow], each.offer.index))
    return Choice(tuple(candidates), tuple(sorted(rejected, key=lambda each: each.index)))


def shown(text: str) -> str:
    """Make text of a seller fit for a message: ASCII without control characters, and short."""
    return ascii(text[:SHOWN_MAX_CHARS])[1:-1]


def _judge(  # noqa: PLR0911 - one line a reason
    offer: Offer, policy: Policy, mechanisms: Registry[BuyerMechanism], networks: Networks
) -> Candidate | Rejected:
    terms = offer.requirements
    scheme, network, asset = shown(terms.scheme), shown(terms.network), shown(terms.asset)

    def rejected(code: str, why: str) -> Rejected:
        return Rejected(offer.index, code, why)

    mechanism = mechanisms.find(terms.scheme, terms.network)
    if mechanism is None:
        return rejected("no_mechanism", f"no mechanism here pays scheme {scheme} on {network}")
    flow = _payment_flow(terms.extra)
    if flow not in _FLOW_RANK:
        return rejected("payment_flow", f"payment flow {shown(flow)} is not known here")
    if terms.network not in policy.networks:
        return rejected("network_not_allowed", f"{network} is not among the policy's networks")
    if not policy.allows_asset(terms.network, terms.asset):
        return rejected("asset_not_allowed", f"{asset} on {network} is not among the policy's assets")
    token = networks.token(terms.network, terms.asset)
    if token is None or token.currency != policy.currency:
        return rejected("asset_value_unknown", f"{asset} on {network} is not known to be worth {policy.currency}")
    why = mechanism.passes_over(terms)
    if why is not None:
        return rejected("mechanism", shown(why))
    value = value_of(terms.atomic, token.decimals)
    if value > policy.per_request_value:
        price, limit = show_value(value, policy.currency), show_value(policy.per_request_value, policy.currency)
        return rejected("price_over_limit", f"it costs {price}, and per_request allows {limit}")
    if terms.max_timeout_seconds > policy.max_validity_seconds:
        return rejected(
            "window_too_long",
            f"it wants an authorisation for {terms.max_timeout_seconds} s, and the policy signs for "
            f"{policy.max_validity_seconds} s at most",
        )
    return Candidate(offer, mechanism, token, value, flow)


def _payment_flow(extra: dict[str, Any] | None) -> str:
    flow = (extra or {}).get("paymentFlow", AUTHORIZATION)
    return flow if isinstance(flow, str) else type(flow).__name__
