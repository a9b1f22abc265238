"""The seller's parts for tests: a seller with a canned facilitator, behind each of the doors."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# The folders of tests are no packages; what several files share is a module beside them.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "servers"))

from farthing_selling import CannedFacilitator, Shop, make_seller

if TYPE_CHECKING:
    from farthing.servers.seller import Seller


@pytest.fixture
def facilitator() -> CannedFacilitator:
    return CannedFacilitator()


@pytest.fixture
def seller(tmp_path: Path, facilitator: CannedFacilitator) -> Iterator[Seller]:
    made = make_seller(tmp_path, facilitator)
    yield made
    made.close()


@pytest.fixture(params=["asgi", "wsgi"])
def shop(request: pytest.FixtureRequest, seller: Seller, facilitator: CannedFacilitator) -> Shop:
    """A seller behind each door: what holds for one driver holds for the other."""
    return Shop(request.param, seller, facilitator)
