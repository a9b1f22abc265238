"""A client installs and loads little: no server code, no chain libraries, and only the library that the user has."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("aiohttp", "starlette", "uvicorn", "eth_account", "eth_abi", "web3", "pydantic", "fastapi", "flask", "rich")
ROOMS = ("farthing.servers", "farthing.services", "farthing.seller", "farthing.facilitator", "farthing.demo")

PROGRAM = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
{program}
found = [name for name in sys.modules if name.partition(".")[0] in {heavy!r} or name.startswith({rooms!r})]
assert not found, found
"""

PURCHASE = """
import {library}, tempfile
from farthing.clients import Buyer, Policy
from farthing.clients.httpx import PayingTransport
from farthing.world.keys import LocalSigner

def app(request):
    return {library}.Response(200, text="free")

with tempfile.TemporaryDirectory() as folder:
    policy = Policy(networks=["eip155:84532"])
    buyer = Buyer(signer=LocalSigner(bytes([1]) * 32), policy=policy, journal=folder + "/journal")
    with {library}.Client(transport=PayingTransport(buyer, inner={library}.MockTransport(app))) as client:
        assert client.get("https://shop.example/").text == "free"
    buyer.close()
"""


def run(program: str, missing: tuple[str, ...] = ()) -> None:
    code = PROGRAM.format(missing=set(missing) | {""}, program=program, heavy=HEAVY, rooms=ROOMS)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("library", ["httpx2", "httpx"])
def test_either_library_is_enough(library: str) -> None:
    others = tuple({"httpx2", "httpx", "requests", "urllib3"} - {library})
    run(PURCHASE.format(library=library), missing=(*others, *HEAVY))


def test_the_httpx_door_loads_neither_library_nor_servers() -> None:
    run("import farthing.clients.httpx", missing=("httpx2", "httpx", "requests", *HEAVY))


def test_the_requests_door_loads_no_httpx() -> None:
    run("import farthing.clients.requests", missing=("httpx2", "httpx", *HEAVY))
