"""The devnet's own contracts, compiled: ABI, init code, runtime code and storage slots, read from checked-in JSON.

The sources are the `.vy` files beside this one; `python -m farthing.services.devnet.contracts` compiles them again (it
needs Vyper, a test dependency), and a test compares.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

__all__ = ["FOLDER", "Contract", "ContractName", "load_contract"]

ContractName = Literal["USDC", "TokenProxy", "Multicall3", "Wallet", "WalletFactory"]

FOLDER: Final = Path(__file__).parent


class Contract(msgspec.Struct, frozen=True, rename="camel"):
    """A compiled contract. Codes are `0x` hex; `storage_slots` gives the first slot of each variable."""

    name: str
    compiler: str
    abi: tuple[dict[str, Any], ...]
    init_code: str
    runtime_code: str
    storage_slots: dict[str, int]


@cache
def load_contract(name: ContractName) -> Contract:
    """Read the artefact of a contract. Raises `FileNotFoundError` where the package was installed without it."""
    return msgspec.json.decode((FOLDER / f"{name}.json").read_bytes(), type=Contract)
