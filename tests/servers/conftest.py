"""The seller's double parts, for tests in folders that are no packages."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def _load() -> ModuleType:
    if "farthing_selling" in sys.modules:
        return sys.modules["farthing_selling"]
    path = Path(__file__).resolve().parent.parent / "servers" / "selling.py"
    spec = importlib.util.spec_from_file_location("farthing_selling", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["farthing_selling"] = module
    spec.loader.exec_module(module)
    return module


_load()


@pytest.fixture
def facilitator() -> Any:
    return _load().CannedFacilitator()


@pytest.fixture
def seller(tmp_path: Path, facilitator: Any) -> Iterator[Any]:
    made = _load().make_seller(tmp_path, facilitator)
    yield made
    made.close()


@pytest.fixture(params=["asgi", "wsgi"])
def shop(request: pytest.FixtureRequest, seller: Any, facilitator: Any) -> Any:
    """A seller behind each door: what holds for one driver holds for the other."""
    return _load().Shop(request.param, seller, facilitator)
