"""Lets the tests of this folder import `paper`, and gives each a house of paper and an auditor before it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[1] / "edge"))

from paper import Desk


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A house that says whatever a test has it say, and an auditor with a journal of its own."""
    with Desk(tmp_path / "journal.sqlite3") as opened:
        yield opened
