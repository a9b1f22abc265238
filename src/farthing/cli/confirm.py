"""The question before a payment, bound to the very offer that is signed: the mechanism asks before it signs.

A person's answer is an effect like others, so that the price is reserved while it is thought about, the window of the
authorisation begins after it, and a no gives the place in the budget back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from farthing.buyer.choice import Choice, shown
from farthing.cli.outcome import OfferView
from farthing.errors import PolicyRefused
from farthing.flow import Effect, Flow
from farthing.money import show_atomic
from farthing.networks import Networks
from farthing.protocol.codec import ReceivedOffers
from farthing.protocol.messages import PaymentRequirements

if TYPE_CHECKING:
    from farthing.mechanisms.interface import BuyerMechanism, PreparedPayment

Verdict: TypeAlias = Literal["yes", "declined", "nobody_to_ask", "interrupted"]

_WORDS: Final = {
    "declined": "You said no to the price.",
    "nobody_to_ask": "Nobody is there to be asked about the price.",
    "interrupted": "Interrupted at the question about the price.",
}


class AskPerson(Effect["Verdict"], frozen=True):
    """Have the person agree to this offer."""

    offer: PaymentRequirements


class AskingMechanism:
    """A mechanism's buyer face that asks before it signs."""

    def __init__(self, inner: BuyerMechanism) -> None:
        """Ask before `inner` pays."""
        self._inner = inner
        self.scheme: str = inner.scheme
        self.network: str = inner.network

    def passes_over(self, requirements: PaymentRequirements) -> str | None:
        """Say what the mechanism says."""
        return self._inner.passes_over(requirements)

    def pay(self, requirements: PaymentRequirements, *, payer: str, nonce: bytes | None) -> Flow[PreparedPayment]:
        """Ask, and pay this offer and no other. Raises `PolicyRefused` where the answer is no."""
        verdict = yield from AskPerson(requirements)
        if verdict != "yes":
            raise PolicyRefused(_WORDS[verdict], reason=verdict, advice="Nothing was signed.", offer=requirements)
        return (yield from self._inner.pay(requirements, payer=payer, nonce=nonce))


def mechanisms(networks: Networks) -> tuple[BuyerMechanism, ...]:
    """Give the schemes that the command can pay, each of which asks first."""
    from farthing.mechanisms.exact_evm import ExactEvmBuyer  # noqa: PLC0415 - heavy parts only when run

    faces: Iterable[BuyerMechanism] = (ExactEvmBuyer(networks),)
    return tuple(AskingMechanism(each) for each in faces)


def view_offers(received: ReceivedOffers, networks: Networks, choice: Choice | None = None) -> tuple[OfferView, ...]:
    """Show the offers of a 402; with a `choice`, the one that would be paid first, and why others would not."""
    views = {each.index: view_offer(each.requirements, networks) for each in received.offers}
    if choice is None:
        return tuple(views[index] for index in sorted(views))
    ranked = [view_offer(each.offer.requirements, networks, payable=True) for each in choice.candidates]
    for rejected in choice.rejected:
        if rejected.index in views:
            offer = next(each for each in received.offers if each.index == rejected.index)
            ranked.append(view_offer(offer.requirements, networks, payable=False, why_not=rejected.why))
    return tuple(ranked)


def view_offer(
    offer: PaymentRequirements, networks: Networks, *, payable: bool | None = None, why_not: str = ""
) -> OfferView:
    """Show one offer. What a seller wrote is made fit for a terminal."""
    token = networks.token(offer.network, offer.asset)
    return OfferView(
        scheme=shown(offer.scheme),
        network=shown(offer.network),
        asset=shown(offer.asset),
        symbol=token.symbol if token else "",
        amount=offer.amount,
        price=show_atomic(offer.atomic, token.decimals) if token else "",
        pay_to=shown(offer.pay_to),
        payable=payable,
        why_not=why_not,
    )


def price_text(view: OfferView, networks: Networks) -> str:
    """Say a price: `0.01 USDC on Base (eip155:8453)`."""
    network = networks.find(view.network)
    where = f"{network.name} ({view.network})" if network else view.network
    if view.price:
        return f"{view.price} {view.symbol} on {where}"
    return f"{view.amount} atomic units of {view.asset} on {where}"


def asker(ask: Callable[[PaymentRequirements], Verdict]) -> dict[type[Effect[Any]], Callable[[AskPerson], Verdict]]:
    """The handler of `AskPerson`, for a `Performer`."""
    return {AskPerson: lambda effect: ask(effect.offer)}
