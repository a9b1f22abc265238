"""A town for the tests of this folder: one chain and one facilitator, shops and buyers of each test's own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# `bench` is a package of the checkout, and is not installed.
sys.path.append(str(Path(__file__).parents[2]))

from farthing.services.devnet import Devnet
from farthing.testing import Books, Town


@pytest.fixture(scope="session")
def town(devnet_pyevm: Devnet) -> Iterator[Town]:
    with Town(devnet_pyevm) as opened:
        yield opened


@pytest.fixture
def books(town: Town) -> Books:
    return Books(town.devnet)
