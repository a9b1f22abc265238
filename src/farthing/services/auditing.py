"""The auditor unattended: a round every so often until it is ended.

What it may pay is decided by the auditor's limits, before anything is signed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Final

from farthing.buyer.audit_flow import Conclusion
from farthing.clients.statements import Auditor
from farthing.errors import FarthingError

# A window is a day: statements come in the first minutes after it, and are due in a week.
EVERY_DEFAULT_SECONDS: Final = 300.0


def watch(
    auditor: Auditor,
    *,
    tell: Callable[[Conclusion], object],
    ended: threading.Event,
    every_seconds: float = EVERY_DEFAULT_SECONDS,
) -> None:
    """Run rounds until `ended` is set. `tell` is given what came of a statement whenever that has changed.

    Trouble (the house is away, the store is full) is told as a conclusion without a statement, and the next round
    tries again: what was signed is on record, and is presented again.
    """
    told: dict[str, Conclusion] = {}
    while not ended.is_set():
        for conclusion in _round(auditor):
            if told.get(conclusion.statement) != conclusion:
                told[conclusion.statement] = conclusion
                tell(conclusion)
            if ended.is_set():
                return
        ended.wait(every_seconds)


def _round(auditor: Auditor) -> Iterator[Conclusion]:
    try:
        yield from auditor.round()
    except FarthingError as error:
        yield Conclusion(statement="", outcome="unknown", reason=type(error).__name__, detail=str(error))
    else:
        # A later trouble of the same kind is news again.
        yield Conclusion(statement="", outcome="nothing_to_pay")
