"""What an operation of a store gets: a connection that runs statements, of SQLite or of PostgreSQL alike.

Parameters are marked with `?`. Statements keep to words that both engines know; a cursor's `rowcount` after an INSERT,
UPDATE or DELETE is the number of rows that it touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from farthing.world.pending import Pending

# The largest integer that a column holds, with both engines.
INTEGER_MAX: Final = 2**63 - 1

R = TypeVar("R")
T = TypeVar("T")


class Cursor(Protocol):
    """The answer to one statement."""

    @property
    def rowcount(self) -> int:
        """How many rows an INSERT, UPDATE or DELETE touched."""
        ...

    def fetchone(self) -> Any:
        """The next row as a tuple, or None."""
        ...

    def fetchall(self) -> list[Any]:
        """The rows that are left."""
        ...

    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """Runs the statements of an operation, all in one transaction."""

    def execute(self, sql: str, parameters: Sequence[Any] = ..., /) -> Cursor:
        """Run one statement."""
        ...

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> Cursor:
        """Run one statement with each of several rows of parameters; `rowcount` is their sum."""
        ...


Operation: TypeAlias = Callable[[Connection], R]
# Does what a batch holds of one kind in one call: items in, their answers out.
Joint: TypeAlias = Callable[[Connection, list[T]], list[R]]


class Database(Protocol):
    """A database with group commits, as `farthing.world.sqlite.Database` describes them."""

    def submit(self, operation: Operation[R], *, awaited: bool = True) -> Pending[R]:
        """Have `operation` committed; the answer is known when that is durable."""
        ...

    def join(self, joint: Joint[T, R], item: T, *, awaited: bool = True) -> Pending[R]:
        """Have `joint` do `item`, with all others that a batch holds for it."""
        ...

    def read(self, query: Operation[R]) -> R:
        """Run `query` over one snapshot, in this thread."""
        ...

    def fetch(self, sql: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Give the rows of one statement."""
        ...

    def close(self) -> None:
        """Commit what waits, then close."""
        ...
