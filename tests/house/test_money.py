"""Money: exact or refused, never a float, never rounded."""

from __future__ import annotations

from decimal import Decimal, localcontext
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.errors import ConfigError, PriceError
from farthing.money import AMOUNT_MAX, Price, from_atomic, parse_price, show_atomic, to_atomic

amounts = st.integers(0, AMOUNT_MAX)
decimals = st.integers(0, 30)


def test_two_dollars_and_a_cent() -> None:
    """A float makes 2009999 of it."""
    assert to_atomic(parse_price("$2.01").number, 6) == 2_010_000


@given(amounts, decimals)
def test_there_and_back_is_the_identity(amount: int, places: int) -> None:
    assert to_atomic(from_atomic(amount, places), places) == amount


@given(amounts, decimals)
def test_what_is_shown_is_a_price_that_means_the_same(amount: int, places: int) -> None:
    shown = show_atomic(amount, places)
    assert "E" not in shown
    assert not shown.endswith((".", "-"))
    assert to_atomic(Decimal(shown), places) == amount
    if len(shown) <= 30:
        assert to_atomic(parse_price(shown).number, places) == amount


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        (0, "0"),
        (1, "0.000001"),
        (10, "0.00001"),
        (31_000, "0.031"),
        (1_000_000, "1"),
        (10_000_000, "10"),
        (2_010_000, "2.01"),
    ],
)
def test_amounts_are_shown_as_people_read_them(amount: int, shown: str) -> None:
    assert show_atomic(amount, 6) == shown


def test_a_whole_number_of_no_decimals_keeps_its_zeros() -> None:
    assert show_atomic(100, 0) == "100"


@given(st.integers(0, 10**30 - 1), st.integers(0, 10**30 - 1).map(lambda number: f"{number:030d}"))
def test_a_price_keeps_every_digit(whole: int, fraction: str) -> None:
    price = parse_price(f"${whole}.{fraction}")
    assert price.currency == "USD"
    assert to_atomic(price.number, 30) == whole * 10**30 + int(fraction)


@given(st.decimals(min_value=0, max_value=10**40, allow_nan=False, allow_infinity=False, places=12), decimals)
def test_exact_or_refused(number: Decimal, places: int) -> None:
    with localcontext(prec=200):
        scaled = number * 10**places
        exact = scaled == scaled.to_integral_value()
    if exact:
        assert to_atomic(number, places) == int(scaled)
    else:
        with pytest.raises(PriceError, match="smallest unit"):
            to_atomic(number, places)


@given(amounts, decimals, st.integers(1, 9))
def test_the_contexts_precision_does_not_matter(amount: int, places: int, precision: int) -> None:
    with localcontext(prec=precision):
        assert to_atomic(from_atomic(amount, places), places) == amount


@pytest.mark.parametrize(
    "price",
    [
        "", " ", "$", "€", "1.", ".5", "$.5", "1,000", "1_000", "1e4", "1E-2", "-1", "+1", "$-1", "-$1",
        " 1", "1 ", "$ 1",
        "1\n", "01", "00", "1$", "£1", "$$1", "1.0.0", "NaN", "Infinity", "inf", "0x10", "１", "١", "1" * 31,  # noqa: RUF001
        "1." + "0" * 31, "one", "1\x00", "$1 USD",
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_no_price_is_refused(price: str) -> None:
    with pytest.raises(PriceError):
        parse_price(price)


@pytest.mark.parametrize(
    "price",
    [0.01, 1.0, float("nan"), True, False, None, b"1", ["1"], 1j, -1, Decimal(-1), Decimal("NaN"), Decimal("sNaN"),
     Decimal("Infinity")],
    ids=repr,
)  # fmt: skip
def test_a_float_and_what_is_no_number_is_refused(price: Any) -> None:
    with pytest.raises(PriceError):
        parse_price(price)


@pytest.mark.parametrize(
    ("written", "price"),
    [
        ("$0.01", Price(Decimal("0.01"), "USD")),
        ("€3", Price(Decimal(3), "EUR")),
        ("0.01", Price(Decimal("0.01"))),
        (Decimal("0.01"), Price(Decimal("0.01"))),
        (1, Price(Decimal(1))),
        (0, Price(Decimal(0))),
        ("0", Price(Decimal(0))),
    ],
)
def test_a_price_is_read_as_written(written: Any, price: Price) -> None:
    assert parse_price(written) == price


@pytest.mark.parametrize("number", [Decimal("0.0000001"), Decimal(1).scaleb(-7), Decimal("2.0100001")])
def test_what_the_asset_cannot_express_is_refused_not_rounded(number: Decimal) -> None:
    with pytest.raises(PriceError, match=r"0\.000001"):
        to_atomic(number, 6)


@pytest.mark.parametrize("number", [Decimal(2**256), Decimal(-1), Decimal("-0.000001"), Decimal("1e90")])
def test_what_an_amount_cannot_hold_is_refused(number: Decimal) -> None:
    with pytest.raises(PriceError):
        to_atomic(number, 6)


def test_a_mistake_in_a_price_is_a_mistake_in_the_configuration() -> None:
    assert issubclass(PriceError, ConfigError)


@pytest.mark.parametrize("price", [Price(Decimal("0.010"), "USD"), Price(Decimal(5)), Price(Decimal("1E+3"), "EUR")])
def test_a_price_is_written_as_it_is_read(price: Price) -> None:
    number, _, currency = str(price).partition(" ")
    assert Price(parse_price(number).number, currency) == price
