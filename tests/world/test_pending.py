"""An answer of another thread: told once to each who asked, whenever they asked, and to those who block."""

from __future__ import annotations

import sys
import threading

import pytest

from farthing.world.pending import Pending

MANY = 2_000


def test_who_asks_before_and_who_asks_after_are_told() -> None:
    pending: Pending[int] = Pending()
    told: list[int] = []
    pending.add_done_callback(lambda done: told.append(done.result()))
    assert not pending.done()
    with pytest.raises(TimeoutError):
        pending.result(0.001)
    pending.resolve(7)
    pending.add_done_callback(lambda done: told.append(done.result() + 1))
    assert told == [7, 8]
    assert pending.result() == 7
    assert pending.exception() is None


def test_an_error_is_raised_to_each_who_asks() -> None:
    pending: Pending[int] = Pending()
    pending.fail(ValueError("no"))
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            pending.result()
    assert isinstance(pending.exception(), ValueError)


def test_who_blocks_has_it_begun() -> None:
    begun: list[Pending[int]] = []
    pending: Pending[int] = Pending(lambda: begun[0].resolve(3))
    begun.append(pending)
    assert pending.result(10) == 3


def test_no_callback_is_lost_or_called_twice_between_two_threads() -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        waiting: list[Pending[int]] = [Pending() for _ in range(MANY)]
        told: list[int] = []

        def resolve() -> None:
            for number, pending in enumerate(waiting):
                pending.resolve(number)

        thread = threading.Thread(target=resolve)
        thread.start()
        for pending in waiting:
            pending.add_done_callback(lambda done: told.append(done.result()))
        thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert sorted(told) == list(range(MANY))
