"""What the clearing house's tests share: a house over a fresh store."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

# Modules beside this one are imported by their names: folders of tests are no packages.
sys.path.insert(0, str(Path(__file__).parent))

from town import House

if TYPE_CHECKING:
    from farthing.clearing.rules import Rules


@pytest.fixture
def new_house(store_url: str) -> Iterator[Callable[..., Any]]:
    """Open houses over one store: several are several processes, as far as the store can tell."""
    opened: list[House] = []

    def make(rules: Rules | None = None) -> House:
        opened.append(House(store_url, rules=rules))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


@pytest.fixture
def house(new_house: Callable[..., House]) -> House:
    return new_house()
