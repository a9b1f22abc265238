"""Lets the tests of this folder import `shop` and `forking`: folders of tests are no packages."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[1] / "clients"))
