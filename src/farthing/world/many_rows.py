"""One statement for many rows: a joint operation's way to write and find what a batch holds (decision 011).

Statements have `{}` where the rows or the list of values belong.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, Final, TypeVar

from farthing.world.connection import Connection

T = TypeVar("T")

# Rows of one statement: SQLite compiles one for each power of two up to this, and a batch seldom has more.
ROWS_MAX: Final = 32


@cache
def for_rows(sql: str, columns: int, count: int) -> str:
    """Write a statement out for `count` rows."""
    row = f"({', '.join('?' * columns)})"
    return sql.format(", ".join([row] * count))


@cache
def for_list(sql: str, count: int) -> str:
    """Write a statement out for a list of `count` values."""
    return sql.format(f"({', '.join('?' * count)})")


def pieces(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """Cut into powers of two of rows, so that there are few statements to be compiled."""
    start, left = 0, len(rows)
    while left:
        size = min(ROWS_MAX, 1 << (left.bit_length() - 1))
        yield rows[start : start + size]
        start += size
        left -= size


def write(connection: Connection, sql: str, columns: int, rows: Sequence[tuple[Any, ...]]) -> int:
    """Run a statement for many rows; gives how many it affected."""
    done = 0
    for piece in pieces(rows):
        values = [value for row in piece for value in row]
        done += connection.execute(for_rows(sql, columns, len(piece)), values).rowcount
    return done


def returned(
    connection: Connection, sql: str, columns: int, rows: Sequence[tuple[Any, ...]]
) -> Iterator[tuple[Any, ...]]:
    """Run a statement for many rows; gives what it returns."""
    for piece in pieces(rows):
        values = [value for row in piece for value in row]
        yield from connection.execute(for_rows(sql, columns, len(piece)), values).fetchall()


def found(connection: Connection, sql: str, values: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
    """Run a statement for many values of one list; gives what it returns."""
    for piece in pieces(values):
        yield from connection.execute(for_list(sql, len(piece)), piece).fetchall()
