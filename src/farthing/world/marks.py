"""Lists in statements: marks for as many values as a power of two, so that few statements serve every length.

A connection keeps its statements compiled, and one with a list takes some hundred bytes a mark: with a text for each
length a process would go on filling that memory, tens of megabytes of it, for as long as it meets a new length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Final, TypeVar

T = TypeVar("T")

# Values in one statement; SQLite takes 32,766 marks. A power of two.
VALUES_MAX: Final = 512


def slices(values: Sequence[T]) -> Iterator[tuple[T, ...]]:
    """Cut `values` into slices whose length is a power of two, `VALUES_MAX` at most; the last is filled up.

    What fills it up is its own last value, again: for lists that ask whether something is among them, not for rows.
    """
    for start in range(0, len(values), VALUES_MAX):
        some = tuple(values[start : start + VALUES_MAX])
        yield some + some[-1:] * (_length(len(some)) - len(some))


def among(values: Sequence[T]) -> Iterator[tuple[str, tuple[T, ...]]]:
    """Cut likewise; each slice with its marks, `(?, ?, …)`."""
    for some in slices(values):
        yield _marks(len(some)), some


@cache  # by powers of two alone
def _marks(count: int) -> str:
    return f"({', '.join('?' * count)})"


def _length(count: int) -> int:
    return 1 << (count - 1).bit_length()
