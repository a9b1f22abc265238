"""What a policy says, and what it refuses to be told."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.buyer.policy import (
    PER_REQUEST_DEFAULT,
    TOTAL_DEFAULT,
    WINDOW_MAX_DEFAULT_SECONDS,
    Policy,
    host_matches,
    utc_day,
    value_of,
)
from farthing.errors import ConfigError, PriceError
from farthing.networks import KNOWN

CENT = 10**16


def test_B2_an_empty_policy_pays_nothing_and_its_limits_are_small() -> None:
    policy = Policy()
    assert policy.networks == frozenset()
    assert policy.per_request_value == 10 * CENT
    limits = {limit.scope: limit.limit_value for limit in policy.limits("a.example", 0)}
    assert limits == {"host:a.example": None, "day:1970-01-01": None, "total": 100 * CENT}


def test_B2_limits_are_of_host_day_and_total() -> None:
    policy = Policy(per_host={"a.example": "$0.01", "*.example": "0.02"}, per_day=Decimal("0.03"), total="$0.04")

    def of(host: str) -> list[int | None]:
        return [limit.limit_value for limit in policy.limits(host, 86_400)]

    assert of("a.example") == [CENT, 3 * CENT, 4 * CENT]
    assert of("b.a.example") == [2 * CENT, 3 * CENT, 4 * CENT]
    assert of("other") == [None, 3 * CENT, 4 * CENT]
    assert Policy(per_host="$1", per_day="$2").limits("x", 0)[0].limit_value == 100 * CENT
    assert Policy(per_host="$1", per_day="$2").limits("x", 0)[2].limit_value is None
    assert Policy(per_host=0).limits("x", 0)[0].limit_value == 0
    # Whoever limits a session (a crawl) is not limited for ever beside.
    limits = {each.scope.partition(":")[0]: each.limit_value for each in Policy(per_session="$5").limits("x", 0, "s")}
    assert (limits["session"], limits["total"]) == (500 * CENT, None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"networks": "eip155:8453"},
        {"networks": ["base"]},
        {"assets": ["eip155:8453/"]},
        {"assets": "0x1"},
        {"hosts": "example.com"},
        {"hosts": ["https://example.com"]},
        {"hosts": ["example.com:8080"]},
        {"hosts": ["exa*mple.com"]},
        {"hosts": ["*"]},
        {"hosts": [""]},
        {"hosts": ["münchen.example"]},
        {"per_request": 0.05},
        {"per_request": "$1e3"},
        {"per_request": "$0.05", "total": "€5"},
        {"total": "-1"},
        {"total": "0.0000000000000000001"},
        {"max_validity_seconds": 0},
        {"max_validity_seconds": True},
    ],
)
def test_a_mistake_is_found_where_it_is_written(wrong: dict[str, Any]) -> None:
    with pytest.raises((ConfigError, PriceError)):
        Policy(**wrong)


def test_a_network_without_a_token_of_known_value_is_found_at_the_start() -> None:
    with pytest.raises(ConfigError, match="eip155:402402"):
        Policy(networks=["eip155:402402"]).check_against(KNOWN)
    with pytest.raises(ConfigError, match="EUR"):
        Policy(networks=["eip155:8453"], per_request="€1").check_against(KNOWN)
    Policy(networks=["eip155:8453"]).check_against(KNOWN)


@pytest.mark.parametrize(
    ("host", "pattern", "matches"),
    [
        ("example.com", "example.com", True),
        ("a.example.com", "example.com", False),
        ("a.example.com", "*.example.com", True),
        ("a.b.example.com", "*.example.com", True),
        ("example.com", "*.example.com", False),
        ("notexample.com", "*.example.com", False),
        (".example.com", "*.example.com", False),
        ("example.com.evil.org", "*.example.com", False),
        ("example.com.evil.org", "example.com", False),
    ],
)
def test_B2_hosts_match_exactly_or_below(host: str, pattern: str, matches: bool) -> None:  # noqa: FBT001 - a table
    assert host_matches(host, pattern) is matches
    assert Policy(hosts=[pattern.upper()]).allows_host(host) is matches


def test_hosts_may_be_addresses() -> None:
    policy = Policy(hosts=["127.0.0.1", "[::1]"])
    assert policy.allows_host("127.0.0.1")
    assert policy.allows_host("::1")
    assert not policy.allows_host("127.0.0.2")


def test_assets_are_contracts() -> None:
    policy = Policy(assets=["eip155:8453/erc20:0xAbC", "0xDEF"])
    assert policy.allows_asset("eip155:8453", "0xaBc")
    assert not policy.allows_asset("eip155:1", "0xabc")
    assert policy.allows_asset("eip155:1", "0xdef")
    assert not policy.allows_asset("eip155:8453", "0x123")


@given(st.integers(0, 253_402_300_799))
def test_days_are_those_of_utc(now_seconds: int) -> None:
    assert utc_day(now_seconds) == datetime.fromtimestamp(now_seconds, UTC).strftime("%Y-%m-%d").zfill(10)


@given(st.integers(0, 2**256 - 1), st.integers(0, 36))
def test_a_value_is_never_less_than_what_is_paid(amount: int, decimals: int) -> None:
    exact = amount * 10**18
    value = value_of(amount, decimals) * 10**decimals
    assert exact <= value < exact + 10**decimals


def test_the_defaults_are_those_of_the_page() -> None:
    page = (Path(__file__).parents[2] / "docs" / "buyer.md").read_text("utf-8")
    assert '| `per_request` | the most that one request may cost | `"$0.10"` |' in page
    assert '| `"$1"` where no hour, day or session is limited either |' in page
    assert "a longer offer is refused | 3600 |" in page
    assert (PER_REQUEST_DEFAULT, TOTAL_DEFAULT, WINDOW_MAX_DEFAULT_SECONDS) == ("$0.10", "$1", 3600)
