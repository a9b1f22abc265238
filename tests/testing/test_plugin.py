"""The pytest plugin: fixtures that work in a project of its own, and nothing for whoever does not ask."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROJECT = """
import httpx2
import pytest

from farthing.clients.httpx import PayingTransport
from farthing.errors import PolicyRefused
from farthing.testing import HostileSeller, SellerMode


def test_a_purchase(farthing_town, farthing_books):
    shop = farthing_town.shop("$0.02")
    with farthing_town.buyer() as buyer, httpx2.Client(transport=PayingTransport(buyer)) as client:
        assert client.get(shop.price_url).status_code == 200
    farthing_books.assert_paid(shop.payee, "0.02")


def test_a_day_later_the_budget_of_the_day_is_new(farthing_town, farthing_clock, farthing_books):
    shop = farthing_town.shop("$0.02")
    with farthing_town.buyer(per_day="$0.03") as buyer, httpx2.Client(transport=PayingTransport(buyer)) as client:
        client.get(shop.price_url)
        with pytest.raises(PolicyRefused):
            client.get(shop.price_url)
        before = farthing_clock.now
        farthing_clock.advance(86_400)
        assert farthing_clock.now - before >= 86_400
        assert client.get(shop.price_url).status_code == 200
    farthing_books.assert_paid(shop.payee, "0.04", times=2)


def test_the_chain_is_back_in_the_present(farthing_town, farthing_devnet):
    import time
    assert abs(farthing_devnet.timestamp() - time.time()) < 600
    with pytest.raises(ValueError, match="advanced by"):
        farthing_town.clock.advance(-1)


def test_faults(farthing_faults):
    drawn = farthing_faults.script(SellerMode, 5)
    print(f"drawn: {farthing_faults.seed} {[mode.name for mode in drawn]}")
    assert False
"""


def test_the_fixtures_in_a_project_of_its_own(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(PROJECT)
    options = ("-p", "no:cacheprovider", "-p", "no:schemathesis", "--farthing-seed=7")
    ran = pytester.runpytest_subprocess(*options)
    ran.assert_outcomes(passed=3, failed=1)
    ran.stdout.fnmatch_lines(["*Draw the same faults again with --farthing-seed=7.*"])
    drawn = [line for line in ran.outlines if line.startswith("drawn:")]
    again = pytester.runpytest_subprocess(*options, "-k", "faults")
    assert [line for line in again.outlines if line.startswith("drawn:")] == drawn


def test_it_loads_next_to_nothing() -> None:
    """Every project with Farthing installed loads the plugin in every run."""
    program = (
        "import sys, pytest; before = set(sys.modules); import farthing.testing.plugin; "
        "print(*sorted(set(sys.modules) - before))"
    )
    said = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, env={**os.environ}
    ).stdout.split()
    assert [name for name in said if not name.startswith("farthing")] == []
    assert set(said) == {"farthing", "farthing.testing", "farthing.testing.plugin"}


def test_what_is_exported_is_there() -> None:
    import farthing.testing  # noqa: PLC0415 - what is tested

    assert all(getattr(farthing.testing, name) is not None for name in farthing.testing.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        _ = farthing.testing.nothing
