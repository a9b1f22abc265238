"""Prices: what a route's owner writes, turned into payment requirements once and exactly, or refused.

A price is `"$0.01"` (of the currency that the sign names), `"0.01"` or a `Decimal` (units of the network's default
asset), an `Amount` in atomic units, or a callable that gives one of these for a request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Final, TypeAlias

import msgspec

from farthing.errors import ConfigError, FarthingError, PriceError
from farthing.mechanisms.interface import SellerMechanism
from farthing.mechanisms.registry import Registry
from farthing.money import Price, parse_price, to_atomic
from farthing.networks import KNOWN, Networks
from farthing.protocol.messages import TIMEOUT_MAX_SECONDS, PaymentRequirements, amount_of
from farthing.seller.states import PaymentFlow

# The wire's name for a flow that is not the default (`extra.paymentFlow`).
PAYMENT_FLOW: Final = "paymentFlow"


class Facts(msgspec.Struct, frozen=True):
    """What a callable price may look at. `path` is as the application sees it, `query` raw without `?`.

    `headers` has lower-case names; of a repeated header the last value.
    """

    method: str
    path: str
    query: str
    params: Mapping[str, str]
    headers: Mapping[str, str]


class Amount(msgspec.Struct, frozen=True):
    """An amount in atomic units. `asset` is a token's address or symbol; empty: the network's default."""

    atomic: int
    asset: str = ""


FixedPrice: TypeAlias = str | Decimal | int | Price | Amount
PriceLike: TypeAlias = FixedPrice | Callable[[Facts], FixedPrice]


class Terms(msgspec.Struct, frozen=True):
    """One way to be paid, as its owner writes it; what is left out is the seller's own.

    `asset` is a token's address or symbol; empty: the one that the price's currency asks for.
    """

    network: str = ""
    pay_to: str = ""
    asset: str = ""
    price: PriceLike | None = None
    scheme: str = "exact"


class Way(msgspec.Struct, frozen=True):
    """One way to be paid, ready: gives the requirements for a request.

    `fixed` where they are always the same; else `sample` is what they look like, with some amount.
    """

    mechanism: SellerMechanism
    terms: Terms
    networks: Networks
    max_timeout_seconds: int
    payment_flow: PaymentFlow
    fixed: PaymentRequirements | None = None
    sample: PaymentRequirements | None = None

    def requirements(self, facts: Facts) -> PaymentRequirements:
        """Give the requirements for this request, its price computed anew where it is a callable.

        Raises `PriceError` for a price that can't be paid exactly, and whatever the callable raises.
        """
        if self.fixed is not None:
            return self.fixed
        price = self.terms.price
        if not callable(price):
            message = "A price is missing."
            raise PriceError(message)
        return self.complete(price(facts))

    def complete(self, price: FixedPrice) -> PaymentRequirements:
        """Give the requirements for a price. Raises `ConfigError` or `PriceError`."""
        asset, atomic = _asset_and_amount(price, self.terms, self.networks)
        requirements = self.mechanism.complete(
            PaymentRequirements(
                scheme=self.terms.scheme,
                network=self.terms.network,
                amount=amount_of(atomic),
                asset=asset,
                pay_to=self.terms.pay_to,
                max_timeout_seconds=self.max_timeout_seconds,
            )
        )
        if self.payment_flow is PaymentFlow.UPFRONT:
            extra = {**(requirements.extra or {}), PAYMENT_FLOW: self.payment_flow.value}
            requirements = msgspec.structs.replace(requirements, extra=extra)
        return requirements


def make_way(
    terms: Terms,
    *,
    mechanisms: Registry[SellerMechanism],
    networks: Networks = KNOWN,
    max_timeout_seconds: int,
    payment_flow: PaymentFlow,
) -> Way:
    """Check one way to be paid at start-up, its price too where it is fixed. Raises `ConfigError` or `PriceError`."""
    mechanism = mechanisms.find(terms.scheme, terms.network)
    if mechanism is None:
        have = ", ".join(sorted(f"{each.scheme} on {each.network}" for each in mechanisms.all())) or "none"
        message = f"no mechanism for scheme {terms.scheme!r} on network {terms.network!r}; there are: {have}."
        raise ConfigError(message)
    if not 1 <= max_timeout_seconds <= TIMEOUT_MAX_SECONDS:
        message = f"max_timeout_seconds is {max_timeout_seconds}; it is between 1 and {TIMEOUT_MAX_SECONDS}."
        raise ConfigError(message)
    if terms.price is None:
        message = "a price is missing; write it like '$0.01'."
        raise PriceError(message)
    way = Way(mechanism, terms, networks, max_timeout_seconds, payment_flow)
    if callable(terms.price):
        # Payee and network are checked now with a price of one atomic unit, so that no request is the first to fail.
        sample = way.complete(Amount(1, terms.asset))
        return msgspec.structs.replace(way, sample=sample)
    return msgspec.structs.replace(way, fixed=way.complete(terms.price))


def _asset_and_amount(price: FixedPrice, terms: Terms, networks: Networks) -> tuple[str, int]:
    if isinstance(price, Amount):
        return _address(price.asset or terms.asset, terms, networks), _positive(price.atomic, price)
    parsed = price if isinstance(price, Price) else parse_price(price)
    wanted = terms.asset or parsed.currency
    token = networks.token(terms.network, wanted) if wanted else next(iter(networks.tokens(terms.network)), None)
    if token is None and wanted:
        token = networks.token_for(terms.network, wanted)
    if token is None:
        message = (
            f"no token for {wanted or 'a price'} is known on {terms.network}; add it to the table of networks, "
            "or give the price as Amount(atomic, asset)."
        )
        raise PriceError(message)
    if parsed.currency and token.currency != parsed.currency:
        message = f"{parsed} can't be priced in {token.symbol}, which is worth {token.currency or 'nothing we know'}."
        raise PriceError(message)
    return token.address, _positive(to_atomic(parsed.number, token.decimals), parsed)


def _address(asset: str, terms: Terms, networks: Networks) -> str:
    if asset == "":
        token = next(iter(networks.tokens(terms.network)), None)
        if token is None:
            message = f"no token is known on {terms.network}; name the asset: Amount(atomic, asset)."
            raise PriceError(message)
        return token.address
    token = networks.token(terms.network, asset) or networks.token_for(terms.network, asset)
    return asset if token is None else token.address


def _positive(atomic: int, price: object) -> int:
    if type(atomic) is not int or atomic <= 0:
        message = f"{price} is not a price to charge: it is more than zero. A route that is free has no price."
        raise PriceError(message)
    return atomic


def at(where: str, name: str, error: FarthingError) -> FarthingError:
    """Say where the route stands whose price was refused."""
    message = f"{where}: route {name!r}: {error}"
    return PriceError(message) if isinstance(error, PriceError) else ConfigError(message)
