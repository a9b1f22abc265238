"""Fixtures of every test that needs a chain or a JavaScript peer: one node of each kind a session."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import settings

from farthing.services.devnet import Devnet, NodeName, find_anvil, start_devnet

if TYPE_CHECKING:
    from tests.local_services import LocalServices
    from tests.postgres_server import PostgresServer

# A machine that is busy is no bug: what must be quick is measured by benches. Failures print how to repeat them.
settings.register_profile("farthing", deadline=None, print_blob=True)
settings.load_profile("farthing")


# For the tests of our own pytest plugin: a project in a folder of its own.
pytest_plugins = ["pytester"]

# Folders of tests are no packages; this lets each of them import `local_services` and `postgres_server`, and `bench`,
# by whose stand-ins memory is counted.
sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1])]


def _load_npm_packages() -> ModuleType:
    # The folders of tests are no packages, so the module is loaded by its path.
    path = Path(__file__).parent / "node" / "npm_packages.py"
    spec = importlib.util.spec_from_file_location("npm_packages", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


npm_packages = _load_npm_packages()


def unavailable(what: str) -> None:
    """Skip the test for want of a peer, or fail it where `FARTHING_REQUIRE_ALL=1` says that all must be there."""
    if npm_packages.require_all():
        pytest.fail(f"{what} (and FARTHING_REQUIRE_ALL=1 is set)")
    pytest.skip(what)


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The folder of the npm packages of tests/node, installed from the lock if need be."""
    try:
        installed: Path = npm_packages.install_packages()
    except (RuntimeError, OSError) as error:
        unavailable(f"npm packages are not available: {error}")
        raise
    return installed


@pytest.fixture(scope="session")
def node_environment(node_modules: Path) -> dict[str, str]:
    """An environment in which `node` and `npm` run; run scripts with `cwd=tests/node`."""
    found: dict[str, str] = npm_packages.environment()
    return found


@pytest.fixture(scope="session")
def anvil_program(request: pytest.FixtureRequest) -> str:
    """Foundry's anvil: on the PATH, or out of the npm packages."""
    if not find_anvil():
        request.getfixturevalue("node_modules")
    # The tests may run in any folder; node_modules lies beside this file.
    before = Path.cwd()
    os.chdir(Path(__file__).parent.parent)
    try:
        program = find_anvil()
    finally:
        os.chdir(before)
    if program is None:
        unavailable("anvil is not available")
        raise AssertionError
    return program


@pytest.fixture(scope="session")
def devnet_pyevm() -> Iterator[Devnet]:
    """A py-evm devnet of the session. Use addresses of your own, or `with devnet.rewound():`."""
    with start_devnet("py-evm") as devnet:
        yield devnet


@pytest.fixture(scope="session")
def devnet_anvil(anvil_program: str) -> Iterator[Devnet]:
    """An anvil devnet of the session, with the same genesis."""
    with start_devnet("anvil", anvil_program=anvil_program) as devnet:
        yield devnet


@pytest.fixture(scope="session", params=["py-evm", "anvil"])
def devnet(request: pytest.FixtureRequest) -> Devnet:
    """Both nodes, one after the other. Use addresses of your own, or `with devnet.rewound():`."""
    name = cast("NodeName", request.param)
    return cast("Devnet", request.getfixturevalue("devnet_pyevm" if name == "py-evm" else "devnet_anvil"))


@pytest.fixture(scope="session")
def local(devnet_pyevm: Devnet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServices]:
    """A whole town on loopback: chain, facilitator, wallets, and sockets for sellers."""
    import local_services  # noqa: PLC0415 - it brings servers, which few tests need

    with local_services.LocalServices(devnet_pyevm, tmp_path_factory.mktemp("services")) as services:
        yield services


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server of the session. Who stops it starts it again."""
    import postgres_server  # noqa: PLC0415 - it brings psycopg, which few tests need

    try:
        server: PostgresServer = postgres_server.PostgresServer()
    except (OSError, postgres_server.PostgresUnavailable) as error:
        unavailable(f"PostgreSQL is not available: {error}")
        raise
    yield server
    server.remove()


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """An empty database of PostgreSQL for one test."""
    url = postgres_server.database()
    yield url
    postgres_server.drop(url)


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store for one test, of both engines one after the other."""
    if request.param == "sqlite":
        return str(tmp_path / "store.sqlite3")
    return cast("str", request.getfixturevalue("postgres_url"))


# Files that take a minute and more each, with few tests. Two cores are done together only where these begin.
LONG = (
    *("servers/test_crash", "facilitator/test_crash", "servers/test_lanes", "edge/test_payer_killed"),
    *("buyer/test_crash", "audit/test_with_network", "servers/test_refund_crash", "clearing/test_crash"),
    *("clearing/test_guarantee_crash", "fuzz/test_fuzz", "edge/test_with_clearing", "demo/test_deferred"),
    *("facilitator/test_postgres_trouble", "servers/test_postgres_trouble", "stores/test_facilitators"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest."""
    places = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get("/".join(item.path.with_suffix("").parts[-2:]), len(LONG)))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is marked `alone` in a process of its own: it counts what is in memory, whoever's it is."""
    if pyfuncitem.get_closest_marker("alone") is None or os.environ.get("FARTHING_ALONE"):
        return None
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", pyfuncitem.nodeid],
        check=False,
        capture_output=True,
        text=True,
        cwd=pyfuncitem.config.rootpath,
        env={**environment, "FARTHING_ALONE": "1"},
        timeout=300,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return True
