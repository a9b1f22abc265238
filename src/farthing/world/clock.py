"""The clock, the operating system's randomness and waiting: the effects of `farthing.flow`, performed."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Coroutine
from typing import Any

from farthing.flow import Effect, Now, RandomBytes, Sleep


def now(_effect: Effect[int]) -> int:
    """The wall clock, in whole Unix seconds."""
    return int(time.time())


def random_bytes(effect: RandomBytes) -> bytes:
    """Bytes of the operating system's generator."""
    return os.urandom(effect.size_bytes)


def sleep(effect: Sleep) -> Coroutine[Any, Any, None]:
    """Wait; cancelled together with its flow."""
    return asyncio.sleep(effect.seconds)


def system_handlers() -> dict[type[Effect[Any]], Any]:
    """Handlers of `Now`, `RandomBytes` and `Sleep`, for a `Performer`."""
    return {Now: now, RandomBytes: random_bytes, Sleep: sleep}
