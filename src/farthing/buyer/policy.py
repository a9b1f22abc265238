"""What a buyer may pay: decided in code, from our own tables, before anything is signed (SAFETY B2)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final, TypeAlias

from farthing.buyer.journal import Limit
from farthing.errors import ConfigError
from farthing.money import Price, parse_price, show_atomic, to_atomic
from farthing.networks import Networks, split_name

PriceText: TypeAlias = str | Decimal | int

# Values of different assets are compared and added in units of 10^-18 of the currency: no token in use has more digits.
VALUE_DECIMALS: Final = 18
# What a policy allows that says nothing else: small money, so that a mistake is cheap.
PER_REQUEST_DEFAULT: Final = "$0.10"
TOTAL_DEFAULT: Final = "$1"
# An authorisation can be used for as long as its window is open: an hour is the most that sellers ask in practice.
WINDOW_MAX_DEFAULT_SECONDS: Final = 3600
CURRENCY_DEFAULT: Final = "USD"

_HOST = re.compile(r"(?:\*\.)?(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\Z")
_HOST_MAX_CHARS = 253


class Policy:
    """What a buyer may pay. A policy that names no network pays nothing.

    Prices are written as everywhere: `"$0.05"`, `"0.05"` or a `Decimal`; one currency for all of them.

    Args:
        networks: CAIP-2 names (`"eip155:8453"`) on which it may pay. None named: nothing is payable.
        assets: token contracts that it may pay with, `"eip155:8453/0x…"` or `"0x…"` (on any allowed network). None:
            every token of those networks that our own table knows in the policy's currency.
        hosts: exact hosts or `"*.example.com"` (its subdomains). None: any host.
        per_request: the most that one request may cost.
        per_host: the most that each host may get, for as long as the journal lives; or a mapping of hosts and patterns
            to such limits, where the first that matches counts.
        per_day: the most in one day (UTC).
        total: the most for as long as the journal lives. A policy with neither `per_day` nor `total` has `"$1"`.
        max_validity_seconds: no authorisation is signed whose window is longer.
        pay_head: pay for `HEAD` too, which is refused otherwise.

    Raises `ConfigError`, and `PriceError` for a price that can't be read.
    """

    def __init__(
        self,
        *,
        networks: Iterable[str] = (),
        assets: Iterable[str] | None = None,
        hosts: Iterable[str] | None = None,
        per_request: PriceText = PER_REQUEST_DEFAULT,
        per_host: PriceText | Mapping[str, PriceText] | None = None,
        per_day: PriceText | None = None,
        total: PriceText | None = None,
        max_validity_seconds: int = WINDOW_MAX_DEFAULT_SECONDS,
        pay_head: bool = False,
    ) -> None:
        """Read the limits; the class says what each means."""
        for name, given in (("networks", networks), ("assets", assets), ("hosts", hosts)):
            if isinstance(given, str):
                message = f"Policy: {name} is a list, like {name}=[{given!r}]."
                raise ConfigError(message)
        if isinstance(max_validity_seconds, bool) or max_validity_seconds <= 0:
            message = f"Policy: max_validity_seconds is a number of seconds over 0, not {max_validity_seconds!r}."
            raise ConfigError(message)
        if per_day is None and total is None:
            total = TOTAL_DEFAULT
        self.networks = frozenset(networks)
        for network in self.networks:
            split_name(network)
        self.assets = None if assets is None else frozenset(_asset(each) for each in assets)
        self.hosts = None if hosts is None else tuple(_host_pattern(each) for each in hosts)
        self.max_validity_seconds = max_validity_seconds
        self.pay_head = pay_head

        host_prices: dict[str, PriceText] = {}
        if isinstance(per_host, Mapping):
            host_prices |= per_host
        elif per_host is not None:
            host_prices["*"] = per_host
        prices = {"per_request": parse_price(per_request)}
        prices |= {
            name: parse_price(text) for name, text in (("per_day", per_day), ("total", total)) if text is not None
        }
        by_host = {
            pattern if pattern == "*" else _host_pattern(pattern): parse_price(text)
            for pattern, text in host_prices.items()
        }
        self.currency = _currency((*prices.values(), *by_host.values()))
        self._values = {name: to_atomic(price.number, VALUE_DECIMALS) for name, price in prices.items()}
        self._per_host = {pattern: to_atomic(price.number, VALUE_DECIMALS) for pattern, price in by_host.items()}

    def __repr__(self) -> str:
        """Show the limits."""
        limits = ", ".join(f"{name}={show_value(value, self.currency)!r}" for name, value in self._values.items())
        return f"Policy(networks={sorted(self.networks)!r}, {limits})"

    @property
    def per_request_value(self) -> int:
        """The most that one request may cost, in units of 10^-18 of the currency."""
        return self._values["per_request"]

    def allows_host(self, host: str) -> bool:
        """Tell whether `host` may be paid."""
        return self.hosts is None or any(host_matches(host, pattern) for pattern in self.hosts)

    def allows_asset(self, network: str, asset: str) -> bool:
        """Tell whether the token contract `asset` on `network` may be paid with; the network is judged apart."""
        if self.assets is None:
            return True
        folded = fold_asset(asset)
        return ("", folded) in self.assets or (network, folded) in self.assets

    def limits(self, host: str, now_seconds: int) -> tuple[Limit, ...]:
        """The budgets that a purchase from `host` counts toward now: all three, limited or not."""
        host_value = next((value for at, value in self._per_host.items() if at == "*" or host_matches(host, at)), None)
        return (
            Limit(f"host:{host}", host_value),
            Limit(f"day:{utc_day(now_seconds)}", self._values.get("per_day")),
            Limit("total", self._values.get("total")),
        )

    def check_against(self, networks: Networks) -> None:
        """Find out at start-up that an allowed network has a token whose value we know. Raises `ConfigError`."""
        for network in sorted(self.networks):
            if not any(token.currency == self.currency for token in networks.tokens(network)):
                message = (
                    f"Policy: no token on {network} is known to be worth {self.currency}; hand in a table that knows "
                    "one, like Buyer(networks=KNOWN.with_token(Token(…)))."
                )
                raise ConfigError(message)


def value_of(amount: int, decimals: int) -> int:
    """Give atomic units of a token of `decimals` as a value in units of 10^-18, rounded up where it is finer."""
    scale: int = 10 ** abs(VALUE_DECIMALS - decimals)
    return amount * scale if decimals <= VALUE_DECIMALS else -(-amount // scale)


def show_value(value: int, currency: str) -> str:
    """Write a value as people read it: `0.05 USD`."""
    return f"{show_atomic(value, VALUE_DECIMALS)} {currency}"


def host_matches(host: str, pattern: str) -> bool:
    """Tell whether `host` is the pattern's host, or below it where the pattern begins with `*.`."""
    if pattern.startswith("*."):
        return host.endswith(pattern[1:]) and len(host) > len(pattern) - 1
    return host == pattern


def fold_asset(asset: str) -> str:
    """Fold the case of hexadecimal addresses, which carries a checksum and no meaning; others stay as they are."""
    return asset.lower() if asset[:2] in {"0x", "0X"} else asset


def fold_host(host: str) -> str:
    """Write a host as policies compare it: lower case, without the root's dot."""
    return host.lower().rstrip(".")


def utc_day(now_seconds: int) -> str:
    """The day of the Unix time in UTC, as `2026-11-23`."""
    return datetime.fromtimestamp(now_seconds, tz=UTC).date().isoformat()


def _currency(prices: Iterable[Price]) -> str:
    named = {price.currency for price in prices if price.currency}
    if len(named) > 1:
        message = f"Policy: one currency for all limits, not {' and '.join(sorted(named))}."
        raise ConfigError(message)
    return named.pop() if named else CURRENCY_DEFAULT


def _asset(text: str) -> tuple[str, str]:
    network, slash, asset = text.rpartition("/")
    if slash:
        split_name(network)
    # CAIP-19 names the kind of asset too: eip155:8453/erc20:0x….
    asset = asset.removeprefix("erc20:")
    if not asset:
        message = (
            f"Policy: {text!r} is no asset; write it like 'eip155:8453/0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913'."
        )
        raise ConfigError(message)
    return network, fold_asset(asset)


def _host_pattern(text: str) -> str:
    host = fold_host(text)
    try:
        return str(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        pass
    if len(host) > _HOST_MAX_CHARS or _HOST.match(host) is None:
        message = (
            f"Policy: {text!r} is no host; write it like 'api.example.com' or '*.example.com', without scheme, port "
            "and path, and in its ASCII form (xn--…)."
        )
        raise ConfigError(message)
    return host
