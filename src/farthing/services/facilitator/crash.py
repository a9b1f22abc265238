"""A switch for tests: end this process, as power loss would, before or after the effect that the environment names.

`FARTHING_CRASH_AT=after:StoreSigned` kills the process with SIGKILL once the signed transactions are stored. Node calls
go by their method: `before:eth_sendRawTransaction`. Without the variable nothing is wrapped and nothing is checked.
"""

from __future__ import annotations

import os
import signal
from typing import Any, Final, TypeVar

from farthing.evm.node import AskNode
from farthing.flow import Effect
from farthing.services.facilitator.lane import Perform

CRASH_AT: Final = "FARTHING_CRASH_AT"

R = TypeVar("R")


def with_crashes(perform: Perform) -> Perform:
    """Wrap `perform` where the environment names a place to crash at; else give it back as it is."""
    place = os.environ.get(CRASH_AT, "")
    when, _, name = place.partition(":")
    if when not in {"before", "after"} or not name:
        return perform

    async def crashing(effect: Effect[R]) -> R:
        here = name in _names(effect)
        if here and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        answer = await perform(effect)
        if here:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    return crashing


def _names(effect: Effect[Any]) -> set[str]:
    if isinstance(effect, AskNode):
        return {call.method for call in effect.calls}
    return {type(effect).__name__}
