"""A switch for tests: end this process, as power loss would, before or after the effect that the environment names.

`FARTHING_CRASH_AT=after:StoreSigned` kills the process with SIGKILL once the signed transactions are stored, and
`before:Settle#3` before it settles for the third time. Node calls go by their method: `before:eth_sendRawTransaction`.
Every `Performer` has the switch, so every party has. Without the variable nothing is wrapped and nothing is checked.
"""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from types import CoroutineType
from typing import Any, Final

from farthing.errors import ConfigError
from farthing.evm.node import AskNode
from farthing.flow import Effect
from farthing.world.pending import Pending

CRASH_AT: Final = "FARTHING_CRASH_AT"

_PLACE = re.compile(r"(?P<when>before|after):(?P<name>\w+)(?:#(?P<time>[1-9][0-9]{0,5}))?")


def with_crashes(handlers: Mapping[type[Effect[Any]], Callable[[Any], Any]]) -> dict[type[Effect[Any]], Any]:
    """Copy a performer's table, with the crash in it where the environment names one of its effects.

    Raises `ConfigError` where what the environment says is no place.
    """
    copied: dict[type[Effect[Any]], Any] = dict(handlers)
    said = os.environ.get(CRASH_AT, "")
    if said == "":
        return copied
    place = _PLACE.fullmatch(said)
    if place is None:
        message = f"{CRASH_AT} is {said!r}; write before:Effect, after:Effect, or after:Effect#3 for the third time."
        raise ConfigError(message)
    for kind, handler in copied.items():
        if (kind is AskNode or kind.__name__ == place["name"]) and not isinstance(handler, _Crashing):
            copied[kind] = _Crashing(
                handler, place["name"], before=place["when"] == "before", at=int(place["time"] or 1)
            )
    return copied


class _Crashing:
    """A handler in which the process ends."""

    def __init__(self, handler: Callable[[Any], Any], name: str, *, before: bool, at: int) -> None:
        self._handler, self._name, self._before, self._left = handler, name, before, at
        self._lock = threading.Lock()

    def __call__(self, effect: Effect[Any]) -> Any:
        if not self._is_here(effect):
            return self._handler(effect)
        if self._before:
            _die()
        answer = self._handler(effect)
        waiting: object = answer  # narrowed apart, since what a handler promises is between it and its effect
        if isinstance(waiting, CoroutineType):
            return _then_die(answer)
        if isinstance(waiting, (Future, Pending)):
            # The callback runs in the thread that made the write durable.
            answer.add_done_callback(_die)
            return answer
        _die()
        raise AssertionError

    def _is_here(self, effect: Effect[Any]) -> bool:
        if isinstance(effect, AskNode) and self._name not in {type(effect).__name__, *(c.method for c in effect.calls)}:
            return False
        with self._lock:
            self._left -= 1
            return self._left == 0


async def _then_die(answer: Awaitable[Any]) -> None:
    await answer
    _die()


def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
