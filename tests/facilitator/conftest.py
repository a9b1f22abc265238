"""What the facilitator's tests share, as fixtures."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from farthing.services.devnet import Devnet

# Lets the tests of this folder import what they share: folders of tests are no packages.
sys.path.append(str(Path(__file__).parent))

from facilitator_world import World, hold_wallet, make_party, until
from recording_node import RecordingNode


@pytest.fixture
def world(devnet: Devnet, tmp_path: Path) -> World:
    """A world on both nodes, one after the other."""
    return World(devnet, tmp_path)


@pytest.fixture
def pyevm(devnet_pyevm: Devnet, tmp_path: Path) -> World:
    """A world on py-evm alone."""
    return World(devnet_pyevm, tmp_path)


@pytest.fixture(scope="session")
def held_wallet() -> Any:
    return hold_wallet


@pytest.fixture(scope="session")
def eventually() -> Any:
    return until


@pytest.fixture(scope="session")
def new_world() -> Any:
    return World


@pytest.fixture(scope="session")
def recording_node() -> Any:
    return RecordingNode


@pytest.fixture(scope="session")
def new_party() -> Any:
    return make_party
