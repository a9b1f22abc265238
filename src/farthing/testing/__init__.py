"""For the tests of whoever buys or sells: misbehaving stand-ins, a virtual clock, books of the chain, strategies.

`docs/testing.md` is the guide. What stands here is loaded when it is first used, since the pytest plugin is loaded in
every run of every project that has Farthing installed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from farthing.testing.books import Books, Transfer
    from farthing.testing.clock import VirtualClock
    from farthing.testing.facilitator import FacilitatorMode, HostileFacilitator
    from farthing.testing.script import Faults, Script
    from farthing.testing.seller import HostileSeller, SellerMode
    from farthing.testing.standin import Answer, Seen
    from farthing.testing.town import Account, Town

__all__ = [
    "Account",
    "Answer",
    "Books",
    "FacilitatorMode",
    "Faults",
    "HostileFacilitator",
    "HostileSeller",
    "Script",
    "Seen",
    "SellerMode",
    "Town",
    "Transfer",
    "VirtualClock",
]

_ROOMS: Final = {
    "Account": "town",
    "Answer": "standin",
    "Books": "books",
    "FacilitatorMode": "facilitator",
    "Faults": "script",
    "HostileFacilitator": "facilitator",
    "HostileSeller": "seller",
    "Script": "script",
    "Seen": "standin",
    "SellerMode": "seller",
    "Town": "town",
    "Transfer": "books",
    "VirtualClock": "clock",
}


def __getattr__(name: str) -> Any:
    room = _ROOMS.get(name)
    if room is None:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(importlib.import_module(f"{__name__}.{room}"), name)
