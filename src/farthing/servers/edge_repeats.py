"""What an edge does for promises that come with a payment-identifier: the handlers of their effects."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import msgspec

from farthing.errors import StoreError
from farthing.flow import Effect
from farthing.seller.credit import Commit, CommitBound
from farthing.seller.repeats import Bound, FindBound, NoteRepeated
from farthing.world.edge_answers import AnswerRoom, Became
from farthing.world.edge_store import EdgeStore, LoggedLine
from farthing.world.pending import Pending

T = TypeVar("T")


class Life(Protocol):
    """What is needed of a process's part of an edge."""

    store: EdgeStore
    room: AnswerRoom

    def append(self, effect: Commit | CommitBound, write: Callable[[LoggedLine], Pending[T]]) -> Pending[T]:
        """Have a commitment written into the log."""
        ...


class Repeats:
    """Binds ids to commitments and finds them again, in whichever process asks."""

    def __init__(self, living: Callable[[], Life]) -> None:
        """`living` gives this process's part."""
        self._living = living

    def handlers(self) -> dict[type[Effect[Any]], Callable[[Any], Any]]:
        """Give the handlers, for a `Performer`."""
        return {FindBound: self._find, CommitBound: self._commit, NoteRepeated: self._note}

    def _find(self, effect: FindBound) -> Bound | Pending[Bound | None] | None:
        return self._living().store.find_bound(effect.scope, effect.now_seconds)

    def _commit(self, effect: CommitBound) -> Pending[Became]:
        life = self._living()
        now_seconds = int(time.time())

        def write(line: LoggedLine) -> Pending[Became]:
            bound = effect.bound
            if bound.answer is not None and not life.room.take(bound.answer, bound.expires, now_seconds):
                bound = msgspec.structs.replace(bound, answer=None)
            return life.store.log_bound(line, bound, now_seconds)

        return life.append(effect, write)

    def _note(self, effect: NoteRepeated) -> None:
        with contextlib.suppress(StoreError):
            self._living().store.note_repeated(effect.scope)
