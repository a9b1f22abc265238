"""What a buyer may pay: decided in code, from our own tables, before anything is signed (SAFETY B2)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final, TypeAlias

from farthing.buyer.journal import Limit, Rate
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
# A person comes back to the screen within minutes, and an offer is old after that.
APPROVAL_DEFAULT_SECONDS: Final = 300
# A rate counts entries of the journal each time; more than this in one window is no limit that anybody means.
RATE_MAX: Final = 100_000

_RATE = re.compile(r"(?P<count>[1-9][0-9]{0,5})/(?P<unit>second|minute|hour|day)\Z")
_UNIT_SECONDS: Final = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}

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
        per_hour: the most in one hour of the clock (UTC).
        per_day: the most in one day (UTC).
        per_session: the most in one session, which is a `Buyer`, or all buyers of one `Buyer(session=…)`.
        total: the most for as long as the journal lives. A policy that limits no time (hour, day, session) has `"$1"`.
        rate: how many payments may be made in which time, like `"10/minute"`: in any such time, not by the clock.
        approve_above: what costs more is asked about (`Buyer(approve=…)`, `Journal.approve`); nobody to ask means no.
        approval_seconds: how long an answer may take, and an approval given ahead may be used.
        payees: accounts that a host may be paid at from the start: host (and port, where it is not the usual one) to
            addresses. The first payee of any other host is pinned to it, and a change is asked about.
        pin_payees: whether payees are pinned; without it any payee is paid.
        private_hosts: hosts that may be at addresses that are not public (loopback, private, link-local), or None: any.
            For sellers that an agent found, or a directory, name those that you know, or `[]`.
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
        per_hour: PriceText | None = None,
        per_day: PriceText | None = None,
        per_session: PriceText | None = None,
        total: PriceText | None = None,
        rate: str | None = None,
        approve_above: PriceText | None = None,
        approval_seconds: int = APPROVAL_DEFAULT_SECONDS,
        payees: Mapping[str, Iterable[str]] | None = None,
        pin_payees: bool = True,
        private_hosts: Iterable[str] | None = None,
        max_validity_seconds: int = WINDOW_MAX_DEFAULT_SECONDS,
        pay_head: bool = False,
    ) -> None:
        """Read the limits; the class says what each means."""
        lists = (("networks", networks), ("assets", assets), ("hosts", hosts), ("private_hosts", private_hosts))
        for name, given in lists:
            if isinstance(given, str):
                message = f"Policy: {name} is a list, like {name}=[{given!r}]."
                raise ConfigError(message)
        for name, seconds in (("max_validity_seconds", max_validity_seconds), ("approval_seconds", approval_seconds)):
            if isinstance(seconds, bool) or seconds <= 0:
                message = f"Policy: {name} is a number of seconds over 0, not {seconds!r}."
                raise ConfigError(message)
        if per_hour is None and per_day is None and per_session is None and total is None:
            total = TOTAL_DEFAULT
        self.networks = frozenset(networks)
        for network in self.networks:
            split_name(network)
        self.assets = None if assets is None else frozenset(_asset(each) for each in assets)
        self.hosts = None if hosts is None else tuple(_host_pattern(each) for each in hosts)
        self.private_hosts = None if private_hosts is None else tuple(_host_pattern(each) for each in private_hosts)
        self.payees = {fold_host(at): frozenset(map(fold_asset, named)) for at, named in (payees or {}).items()}
        self.pin_payees = pin_payees
        self.rate = None if rate is None else _read_rate(rate)
        self.approval_seconds = approval_seconds
        self.max_validity_seconds = max_validity_seconds
        self.pay_head = pay_head

        host_prices: dict[str, PriceText] = {}
        if isinstance(per_host, Mapping):
            host_prices |= per_host
        elif per_host is not None:
            host_prices["*"] = per_host
        optional = {"per_hour": per_hour, "per_day": per_day, "per_session": per_session, "total": total,
                    "approve_above": approve_above}  # fmt: skip
        prices = {"per_request": parse_price(per_request)}
        prices |= {name: parse_price(text) for name, text in optional.items() if text is not None}
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

    def asks_about(self, value: int) -> bool:
        """Tell whether somebody must agree to a price of `value`, in units of 10^-18 of the currency."""
        threshold = self._values.get("approve_above")
        return threshold is not None and value > threshold

    def may_be_private(self, host: str) -> bool:
        """Tell whether `host` may be at an address that is not public."""
        return self.private_hosts is None or any(host_matches(host, pattern) for pattern in self.private_hosts)

    def knows_payee(self, authority: str, pay_to: str) -> bool:
        """Tell whether the policy itself names `pay_to` as an account of this host (or does not care)."""
        return not self.pin_payees or fold_asset(pay_to) in self.payees.get(authority, frozenset())

    def allows_host(self, host: str) -> bool:
        """Tell whether `host` may be paid."""
        return self.hosts is None or any(host_matches(host, pattern) for pattern in self.hosts)

    def allows_asset(self, network: str, asset: str) -> bool:
        """Tell whether the token contract `asset` on `network` may be paid with; the network is judged apart."""
        if self.assets is None:
            return True
        folded = fold_asset(asset)
        return ("", folded) in self.assets or (network, folded) in self.assets

    def limits(self, host: str, now_seconds: int, session: str = "") -> tuple[Limit, ...]:
        """The budgets that a purchase from `host` counts toward now.

        Host, day and total are counted, limited or not, so that a limit that comes later knows what was spent; hours
        and sessions, of which there are many, only where they are limited.
        """
        host_value = next((value for at, value in self._per_host.items() if at == "*" or host_matches(host, at)), None)
        always = (
            Limit(f"host:{host}", host_value),
            Limit(f"day:{utc_day(now_seconds)}", self._values.get("per_day")),
            Limit("total", self._values.get("total")),
        )
        fleeting = (
            Limit(f"hour:{utc_hour(now_seconds)}", self._values.get("per_hour")),
            Limit(f"session:{session}", self._values.get("per_session")),
        )
        return always + tuple(each for each in fleeting if each.limit_value is not None)

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


def utc_hour(now_seconds: int) -> str:
    """The hour of the Unix time in UTC, as `2026-11-23T14`."""
    return datetime.fromtimestamp(now_seconds, tz=UTC).strftime("%Y-%m-%dT%H")


def is_public_name(host: str) -> bool:
    """Tell whether a host, by its name or number alone, may be at a public address; what a name resolves to is apart.

    `localhost` and its like are this machine's by RFC 6761; a number is public where IANA's registries say so.
    """
    try:
        return is_public_address(ipaddress.ip_address(host.strip("[]").partition("%")[0]))
    except ValueError:
        return host != "localhost" and not host.endswith((".localhost", ".local", ".internal"))


def is_public_address(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Tell whether an address is one of the public Internet; an IPv4 address in the clothes of IPv6 is what it is."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        if inner is not None:
            return is_public_address(inner)
    return address.is_global and not address.is_multicast


# RFC 6052: the well-known prefix behind which every IPv4 address can be reached.
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


def _read_rate(text: str) -> Rate:
    found = _RATE.match(text)
    if found is None or int(found["count"]) > RATE_MAX:
        message = (
            f"Policy: {text!r} is no rate; write it like '10/minute': a whole number up to {RATE_MAX}, and second, "
            "minute, hour or day."
        )
        raise ConfigError(message)
    return Rate(int(found["count"]), _UNIT_SECONDS[found["unit"]])


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
