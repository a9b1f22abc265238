"""Lets the tests of this folder import `marketplace`, and gives them a seller and a user with money."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.append(str(Path(__file__).parent))

from marketplace import Market, User, open_market

if TYPE_CHECKING:
    from tests.local_services import LocalServices


@pytest.fixture(scope="module")
def market(local: LocalServices) -> Iterator[Market]:
    """A seller of all kinds of answers, on a real chain."""
    with open_market(local) as opened:
        yield opened


@pytest.fixture
def user(market: Market, tmp_path: Path) -> User:
    """A user of the command, with ten dollars and a folder of its own."""
    return market.user(tmp_path)
