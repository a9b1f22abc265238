"""The calls to `/settle` that wait in this process, and who among them may be told."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterable
from contextlib import contextmanager


class Waiting:
    """Waiting calls by payment. Everything happens on one event loop."""

    def __init__(self) -> None:
        """Begin with nobody waiting."""
        self._calls: dict[str, dict[str, asyncio.Event]] = {}

    def __len__(self) -> int:
        """Count the payments that somebody waits for."""
        return len(self._calls)

    @property
    def payment_ids(self) -> tuple[str, ...]:
        """The payments that somebody waits for."""
        return tuple(self._calls)

    def live(self, payment_ids: Iterable[str]) -> frozenset[str]:
        """The claimants that wait here for any of these payments."""
        return frozenset(claimant for each in payment_ids for claimant in self._calls.get(each, ()))

    @contextmanager
    def call(self, payment_id: str, claimant: str) -> Generator[asyncio.Event]:
        """Wait as `claimant` inside the `with`: the event is set when the payment is over."""
        over = asyncio.Event()
        self._calls.setdefault(payment_id, {})[claimant] = over
        try:
            yield over
        finally:
            calls = self._calls[payment_id]
            del calls[claimant]
            if not calls:
                del self._calls[payment_id]

    def resolve(self, payment_ids: Iterable[str]) -> None:
        """Wake everybody who waits for one of these payments."""
        for payment_id in payment_ids:
            for over in self._calls.get(payment_id, {}).values():
                over.set()
