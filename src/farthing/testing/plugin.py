"""The pytest plugin: fixtures for the tests of buyers and sellers. It is loaded in every run, and does nothing unasked.

| fixture | scope | what |
|---|---|---|
| `farthing_devnet` | session | a local chain (`--farthing-node`: py-evm, or anvil) |
| `farthing_town` | function | the chain's facilitator, shops, buyers and accounts, all at `farthing_clock`'s time |
| `farthing_clock` | function | a virtual clock that moves the chain and the parties |
| `farthing_books` | function | what is transferred during the test, and assertions on it |
| `farthing_faults` | function | seeded faults; a failing test says how to repeat them (`--farthing-seed`) |
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from farthing.services.devnet import Devnet, NodeName
    from farthing.testing.books import Books
    from farthing.testing.clock import VirtualClock
    from farthing.testing.script import Faults
    from farthing.testing.town import Town

_FAULTS: Final = pytest.StashKey["Faults"]()
_SEED_BITS: Final = 32


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("farthing", "payments over HTTP 402")
    group.addoption(
        "--farthing-node", choices=("py-evm", "anvil"), default="py-evm", help="the node that farthing_devnet runs"
    )
    group.addoption(
        "--farthing-seed", type=int, default=None, metavar="N", help="the seed of farthing_faults; by default a new one"
    )


@pytest.fixture(scope="session")
def farthing_devnet(request: pytest.FixtureRequest) -> Iterator[Devnet]:
    """A local chain for the whole session. Use accounts of your own, or `with farthing_devnet.rewound():`."""
    from farthing.services.devnet import start_devnet  # noqa: PLC0415 - only who uses it pays for its import

    node: NodeName = "anvil" if request.config.getoption("--farthing-node") == "anvil" else "py-evm"
    with start_devnet(node) as devnet:
        yield devnet


@pytest.fixture
def farthing_clock(farthing_devnet: Devnet) -> Iterator[VirtualClock]:
    """A clock at the chain's time. Where the test moved it, the chain is put back to where it was."""
    from farthing.testing.clock import VirtualClock  # noqa: PLC0415 - likewise

    snapshot = farthing_devnet.snapshot()
    clock = VirtualClock(farthing_devnet)
    yield clock
    if clock.ahead_seconds:
        # A chain whose time is ahead would look like a host whose clock is behind to every later test.
        farthing_devnet.revert(snapshot)


@pytest.fixture
def farthing_town(farthing_devnet: Devnet, farthing_clock: VirtualClock) -> Iterator[Town]:
    """A facilitator, shops, buyers and accounts on the chain."""
    from farthing.testing.town import Town  # noqa: PLC0415 - likewise

    with Town(farthing_devnet, clock=farthing_clock) as town:
        yield town


@pytest.fixture
def farthing_books(farthing_devnet: Devnet) -> Books:
    """What is transferred from here on."""
    from farthing.testing.books import Books  # noqa: PLC0415 - likewise

    return Books(farthing_devnet)


@pytest.fixture
def farthing_faults(request: pytest.FixtureRequest) -> Faults:
    """Faults of the session's seed and this test's name: a test draws the same, whichever others run."""
    from farthing.testing.script import Faults  # noqa: PLC0415 - likewise

    given: int | None = request.config.getoption("--farthing-seed")
    seed = random.SystemRandom().getrandbits(_SEED_BITS) if given is None else given
    faults = Faults(seed ^ zlib.crc32(request.node.name.encode()))
    faults.session_seed = seed
    request.node.stash[_FAULTS] = faults
    return faults


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Say at a failure how its faults are drawn again."""
    report: pytest.TestReport = yield
    faults = item.stash.get(_FAULTS, None)
    if faults is not None and report.failed:
        report.sections.append(("farthing", f"Draw the same faults again with --farthing-seed={faults.session_seed}."))
    return report
