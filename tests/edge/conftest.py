"""Lets the tests of this folder import `edge_town` and `forking`, and gives them a town each."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[1] / "buyer"))

from edge_town import Town


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    """A clearing house's stand-in, an edge in front of a small site, and a crawler."""
    with Town(tmp_path) as opened:
        yield opened
