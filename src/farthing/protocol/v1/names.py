"""The names that version 1 gives to networks: a closed list, since newer networks have CAIP-2 names alone.

Sources: PyPI `x402` 2.25.0 (`mechanisms/evm/v1/constants.py`) and npm `x402` 1.2.0; a test compares. `story`,
`educhain` and `skale-base-sepolia` are left out: the two packages give them to different chains.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

# What npm's `x402` 1.2 knows. Its client refuses a whole 402 for one offer on a network that it has not heard of.
_EVERYBODYS = {
    "base": 8453,
    "base-sepolia": 84532,
    "polygon": 137,
    "polygon-amoy": 80002,
    "avalanche": 43114,
    "avalanche-fuji": 43113,
    "abstract": 2741,
    "abstract-testnet": 11124,
    "iotex": 4689,
    "sei": 1329,
    "sei-testnet": 1328,
    "peaq": 3338,
}
_SOMEBODYS = {
    "ethereum": 1,
    "megaeth": 4326,
    "monad": 143,
    "monad-testnet": 10143,
    "stable": 988,
    "stable-testnet": 2201,
    "celo": 42220,
    "flare": 14,
}

NETWORKS: Final = MappingProxyType({name: f"eip155:{chain}" for name, chain in {**_EVERYBODYS, **_SOMEBODYS}.items()})
NAMES: Final = MappingProxyType({network: name for name, network in NETWORKS.items()})
EVERYBODYS: Final = frozenset(_EVERYBODYS)


def network_of(name: str) -> str:
    """Give the CAIP-2 name of a network; a name that has none stays what it is, and is nobody's network."""
    return NETWORKS.get(name, name)


def name_of(network: str) -> str:
    """Give the version 1 name of a network; one that has none keeps its own."""
    return NAMES.get(network, network)
