"""Imports go down only, and a client's install loads no server code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "farthing"

SERVICES = {
    "starlette",
    "uvicorn",
    "uvloop",
    "fastapi",
    "litestar",
    "flask",
    "werkzeug",
    "prometheus_client",
    "structlog",
}
SLOW = {"eth_account", "eth_abi", "web3", "eth", "vyper", "x402", "pydantic", "sqlalchemy"}
# The door, and what a user of it must not be made to load. A buyer asks no node and no facilitator, so no aiohttp.
DOORS = {
    "farthing": SERVICES | SLOW | {"aiohttp", "httpx", "httpx2", "requests", "typer", "rich"},
    "farthing.protocol.codec": SERVICES | SLOW | {"aiohttp", "httpx", "httpx2", "requests", "coincurve", "asyncio"},
    "farthing.clients.httpx": SERVICES | SLOW | {"aiohttp", "requests"},
    "farthing.clients.requests": SERVICES | SLOW | {"aiohttp", "httpx", "httpx2"},
    "farthing.servers.asgi": SERVICES | SLOW | {"requests", "httpx", "httpx2"},
    "farthing.servers.wsgi": SERVICES | SLOW | {"requests", "httpx", "httpx2"},
}


def test_the_house_stands() -> None:
    # In a process of its own: the linter imports, and what other tests have imported is none of its business.
    program = (
        "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True, no_logo=True))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_every_room_is_on_a_floor() -> None:
    """A room that the contract does not name would be free to import upwards."""
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"][0]
    named = set(re.findall(r"farthing\.(\w+)", " ".join(contract["layers"])))
    rooms = {path.stem for path in SOURCE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert rooms - {"__init__", "__main__"} <= named


@pytest.mark.parametrize("door", DOORS)
def test_a_door_loads_only_what_it_needs(door: str) -> None:
    program = f"import sys, {door}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    ran = subprocess.run(
        [sys.executable, "-c", program],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONWARNINGS": ""},
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    assert DOORS[door].isdisjoint(ran.stdout.split())
