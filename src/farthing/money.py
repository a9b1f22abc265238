"""Money: integers in atomic units inside, `Decimal` at the edge, never a float."""

from __future__ import annotations

import re
from decimal import Decimal, localcontext
from typing import NamedTuple

from farthing.errors import PriceError

# EIP-20 amounts are uint256; nothing on the wire may exceed it.
AMOUNT_MAX = 2**256 - 1

# A price as a person writes it: a sign of a currency we know, or none, and plain decimal digits (ASCII only).
_PRICE = re.compile(r"(?P<sign>[$€]?)(?P<number>(?:0|[1-9][0-9]{0,29})(?:\.[0-9]{1,30})?)\Z")
_CURRENCY_OF_SIGN = {"$": "USD", "€": "EUR"}

# 78 digits of a uint256 and 30 of a fraction, with room: no operation below is ever rounded.
_PRECISION_DIGITS = 128


class Price(NamedTuple):
    """Money as a person writes it: `number` whole units of `currency` (`""`: of the asset, whatever it is)."""

    number: Decimal
    currency: str = ""

    def __str__(self) -> str:
        """Write the price as it is read."""
        return f"{self.number:f} {self.currency}".rstrip()


def parse_price(text: str | Decimal | int) -> Price:
    """Read a price: `"$0.01"`, `"0.01"`, `Decimal("0.01")` or `1`. A float is refused: it is not what was written.

    Raises `PriceError` that says what was wrong and how to write it.
    """
    # Annotations don't stop a float from code that nobody checks, so this does.
    if isinstance(text, bool) or not isinstance(text, (str, Decimal, int)):  # pyright: ignore[reportUnnecessaryIsInstance]
        message = f"A price is written as text or Decimal, like '$0.01', not as {type(text).__name__} {text!r}."
        raise PriceError(message)
    if not isinstance(text, str):
        number = Decimal(text)
        if not number.is_finite() or number < 0:
            message = f"A price is a finite number that is not negative, not {number}."
            raise PriceError(message)
        return Price(number)
    found = _PRICE.match(text)
    if found is None:
        message = f"{text!r} is not a price; write it like '$0.01' or '0.01': digits, one point, no commas or exponent."
        raise PriceError(message)
    return Price(Decimal(found["number"]), _CURRENCY_OF_SIGN.get(found["sign"], ""))


def to_atomic(number: Decimal, decimals: int) -> int:
    """Turn `number` units of an asset into atomic units, exactly, or raise `PriceError`."""
    with localcontext() as context:
        context.prec = _PRECISION_DIGITS
        scaled = number.scaleb(decimals)
        if scaled != scaled.to_integral_value():
            smallest = Decimal(1).scaleb(-decimals)
            message = f"{number:f} can't be paid exactly: the asset's smallest unit is {smallest:f}."
            raise PriceError(message)
        amount = int(scaled)
    if not 0 <= amount <= AMOUNT_MAX:
        message = f"{number:f} is outside what an amount can hold (0 to 2^256 - 1 atomic units)."
        raise PriceError(message)
    return amount


def from_atomic(amount: int, decimals: int) -> Decimal:
    """Turn atomic units into units of the asset, exactly."""
    with localcontext() as context:
        context.prec = _PRECISION_DIGITS
        return Decimal(amount).scaleb(-decimals)


def show_atomic(amount: int, decimals: int) -> str:
    """Write atomic units as people read them: `31000` of 6 decimals is `"0.031"`, a whole number has no point."""
    text = f"{from_atomic(amount, decimals):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
