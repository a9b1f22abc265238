"""What the clearing house's tests share."""

from __future__ import annotations

import sys
from pathlib import Path

# Modules beside this one are imported by their names: folders of tests are no packages.
sys.path.insert(0, str(Path(__file__).parent))
