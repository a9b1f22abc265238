"""What an edge keeps for requests that are repeated under an id: SQL, named, and its operations in the edge's log.

An id is bound in the transaction that appends its commitment, by one statement whose rows touched are the answer. The
answer to it is dropped once no copy of the promise can come any more, the id some time later.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias

import msgspec

from farthing.mechanisms.batch_credit.verify import NONCE_KEPT_SECONDS
from farthing.seller.answers import Answer
from farthing.seller.repeats import ANSWERS_MAX_BYTES, IDENTIFIER_KEPT_SECONDS, Bound, size_of
from farthing.world.connection import Connection

# One that is over may be bound anew before it is dropped.
_BIND: Final = (
    "INSERT INTO edge_identifier (scope, payer, id, fingerprint, settlement, expires, noted) "
    "VALUES (?, ?, ?, ?, ?, ?, 0) ON CONFLICT (scope) DO UPDATE SET payer = excluded.payer, id = excluded.id, "
    "fingerprint = excluded.fingerprint, settlement = excluded.settlement, expires = excluded.expires, noted = 0 "
    "WHERE edge_identifier.expires < ?"
)
_BOUND_TO: Final = "SELECT payer, id, expires FROM edge_identifier WHERE scope = ?"
_KEEP: Final = (
    "INSERT INTO edge_answer (scope, expires, answer) VALUES (?, ?, ?) "
    "ON CONFLICT (scope) DO UPDATE SET expires = excluded.expires, answer = excluded.answer"
)
FIND: Final = (
    "SELECT b.scope, b.payer, b.id, b.fingerprint, b.settlement, b.expires, a.answer FROM edge_identifier AS b "
    "LEFT JOIN edge_answer AS a ON a.scope = b.scope AND a.expires = b.expires WHERE b.scope = ? AND b.expires >= ?"
)
_DROP_ANSWERS: Final = "DELETE FROM edge_answer WHERE expires < ?"
_DROP_IDENTIFIERS: Final = "DELETE FROM edge_identifier WHERE expires < ?"
_NOTE_REPEATED: Final = "UPDATE edge_identifier SET noted = 1 WHERE scope = ? AND noted = 0"

Became: TypeAlias = Literal["committed", "known", "taken"]
_decoder = msgspec.msgpack.Decoder(Answer)


class BoundLine(msgspec.Struct, frozen=True):
    """A commitment on its way into the log (`line`), with the id that it comes under."""

    line: Any
    bound: Bound
    now_seconds: int


def bind_together(
    connection: Connection, items: list[BoundLine], log: Callable[[Connection, list[Any]], list[bool]]
) -> list[Became]:
    """Bind ids, and have `log` append the commitments of those that were free, or are over."""
    became: dict[int, Became] = {}
    free: list[int] = []
    # In one order, whoever binds: of two processes on one database neither waits for what the other waits with.
    for place in sorted(range(len(items)), key=lambda each: items[each].bound.scope):
        bound = items[place].bound
        if _bind(connection, items[place]):
            free.append(place)
        else:
            payer, commitment_id, _ = connection.execute(_BOUND_TO, (bound.scope,)).fetchone()
            same = (payer, commitment_id) == (bound.payer, bound.commitment_id)
            became[place] = "known" if same else "taken"
    for place, is_new in zip(free, log(connection, [items[each].line for each in free]), strict=True):
        # Where the route took no ids when it was committed first, its commitment is there already.
        became[place] = "committed" if is_new else "known"
    return [became[place] for place in range(len(items))]


def _bind(connection: Connection, item: BoundLine) -> bool:
    bound = item.bound
    row = (bound.scope, bound.payer, bound.commitment_id, bound.fingerprint, bound.settlement, bound.expires)
    if connection.execute(_BIND, (*row, _over(item.now_seconds))).rowcount != 1:
        return False
    if bound.answer is not None:
        connection.execute(_KEEP, (bound.scope, bound.expires, msgspec.msgpack.encode(bound.answer)))
    return True


def find_bound(fetch: Callable[[str, tuple[Any, ...]], list[Any]], scope: str, now_seconds: int) -> Bound | None:
    """Find what an id is bound to."""
    rows = fetch(FIND, (scope, _over(now_seconds)))
    if not rows:
        return None
    name, payer, commitment_id, fingerprint, settlement, expires, answer = rows[0]
    kept = None if answer is None else _decoder.decode(bytes(answer))
    return Bound(name, payer, commitment_id, fingerprint, settlement, expires, kept)


def drop_over(connection: Connection, now_seconds: int) -> None:
    """Drop the answers of promises that are over, and the ids that are free again."""
    connection.execute(_DROP_ANSWERS, (now_seconds - NONCE_KEPT_SECONDS,))
    connection.execute(_DROP_IDENTIFIERS, (_over(now_seconds),))


def note_repeated(connection: Connection, scope: str) -> tuple[str, str, int] | None:
    """Note that an answer was given again: of which commitment (payer, id, expires), the first time."""
    if connection.execute(_NOTE_REPEATED, (scope,)).rowcount != 1:
        return None
    payer, commitment_id, expires = connection.execute(_BOUND_TO, (scope,)).fetchone()
    return str(payer), str(commitment_id), int(expires)


def _over(now_seconds: int) -> int:
    return now_seconds - NONCE_KEPT_SECONDS - IDENTIFIER_KEPT_SECONDS


class AnswerRoom:
    """Counts the bytes of answers that are kept, until their promises are over. Safe in threads."""

    def __init__(self, limit_bytes: int = ANSWERS_MAX_BYTES) -> None:
        """Begin with none: what an earlier process kept is over within two minutes."""
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._by_second: dict[int, int] = {}
        self._size_bytes = 0

    def take(self, answer: Answer, expires: int, now_seconds: int) -> bool:
        """Take room for an answer; False where there is none."""
        size_bytes = size_of(answer)
        with self._lock:
            for second in [each for each in self._by_second if each < now_seconds - NONCE_KEPT_SECONDS]:
                self._size_bytes -= self._by_second.pop(second)
            if self._size_bytes + size_bytes > self._limit_bytes:
                return False
            self._size_bytes += size_bytes
            self._by_second[expires] = self._by_second.get(expires, 0) + size_bytes
            return True
