"""Lists in statements: right for any length, and few statements for all of them (A1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.facilitator.store import FindRecords, LoadBodies
from farthing.world.connection import Connection
from farthing.world.facilitator_store import FacilitatorStore
from farthing.world.marks import VALUES_MAX, among
from farthing.world.performers import Performer

# 1, 2, 4, … VALUES_MAX.
LENGTHS = VALUES_MAX.bit_length()


@given(st.lists(st.text(max_size=2), max_size=3 * VALUES_MAX))
def test_each_value_is_asked_for_and_no_other(values: list[str]) -> None:
    asked = list(among(values))
    assert all(marks.count("?") == len(some) for marks, some in asked)
    assert {each for _, some in asked for each in some} == set(values)


def test_A1_lists_of_all_lengths_make_few_statements() -> None:
    texts = {marks for count in range(2 * VALUES_MAX) for marks, _ in among(["x"] * count)}
    assert len(texts) == LENGTHS


class Watched:
    """A connection that notes the texts of its statements."""

    def __init__(self, at: Connection, texts: set[str]) -> None:
        self._at, self._texts = at, texts

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> Any:
        self._texts.add(sql)
        return self._at.execute(sql, parameters)


@pytest.fixture
def store(store_url: str) -> Iterator[FacilitatorStore]:
    opened = FacilitatorStore(store_url)
    yield opened
    opened.close()


def test_A1_questions_about_any_number_of_payments_make_few_statements(
    store: FacilitatorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts: set[str] = set()
    read = store.database.read
    monkeypatch.setattr(store.database, "read", lambda query: read(lambda at: query(Watched(at, texts))))
    perform = Performer(store.handlers()).blocking
    for count in range(1, 70):
        ids = tuple(f"pay_{number:064x}" for number in range(count))
        assert perform(FindRecords(ids)) == ()
        assert perform(LoadBodies(ids)) == {}
    # 1, 2, 4, … 128.
    assert len(texts) == 2 * 8
