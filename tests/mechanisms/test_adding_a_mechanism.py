"""The page on how to add a mechanism: its example runs, and its faces are faces to the type checker's eye."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

PAGE = Path(__file__).parents[2] / "docs" / "adding-a-mechanism.md"


def test_the_pages_example_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 5
    # A module of its own, since msgspec looks annotations up in the module of the class.
    module = ModuleType("adding_a_mechanism")
    sys.modules[module.__name__] = module
    try:
        exec(compile("\n".join(blocks), str(PAGE), "exec"), module.__dict__)  # noqa: S102 - our own page
    finally:
        del sys.modules[module.__name__]
