"""Lets the tests of this folder import `shop` and `doors` (folders of tests are no packages), and their fixtures."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

from doors import DOORS, Fetch
from shop import Shop, make_buyer, open_shop

from farthing.clients import Buyer


@pytest.fixture(params=list(DOORS))
def fetch(request: pytest.FixtureRequest) -> Fetch:
    """Each door in turn."""
    found: Fetch = DOORS[request.param]
    return found


@pytest.fixture
def shop() -> Iterator[Shop]:
    """A seller on a real socket."""
    with open_shop() as opened:
        yield opened


@pytest.fixture
def other_shop() -> Iterator[Shop]:
    """A seller of another origin."""
    with open_shop() as opened:
        yield opened


@pytest.fixture
def buyer(tmp_path: Path) -> Iterator[Buyer]:
    """A generous buyer."""
    with make_buyer(tmp_path) as made:
        yield made
