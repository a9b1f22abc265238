"""docs/testing.md lists every mode with its own words."""

from __future__ import annotations

from pathlib import Path

import pytest

from farthing.testing import FacilitatorMode, SellerMode

PAGE = Path(__file__).parents[2] / "docs" / "testing.md"


@pytest.mark.parametrize("modes", [SellerMode, FacilitatorMode])
def test_the_page_has_every_mode_in_its_own_words(modes: type[SellerMode | FacilitatorMode]) -> None:
    rows = "\n".join(f"| `{mode.name}` | {mode.__doc__} |" for mode in modes)
    assert f"|---|---|\n{rows}\n\n" in PAGE.read_text("utf-8")
