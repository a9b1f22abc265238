"""The calls to `/settle` that wait in this process, and who among them may be told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from farthing.facilitator.store import PaymentRecord


class Waiting:
    """Waiting calls by payment. Everything happens on one event loop."""

    def __init__(self) -> None:
        """Begin with nobody waiting."""
        self._calls: dict[str, dict[str, asyncio.Future[PaymentRecord | None]]] = {}
        self._closed = False

    def __len__(self) -> int:
        """Count the payments that somebody waits for."""
        return len(self._calls)

    @property
    def payment_ids(self) -> tuple[str, ...]:
        """The payments that somebody waits for."""
        return tuple(self._calls)

    def waited(self, payment_ids: Iterable[str]) -> tuple[str, ...]:
        """Those of these payments that somebody waits for."""
        return tuple([each for each in payment_ids if each in self._calls])

    def live(self, payment_ids: Iterable[str]) -> frozenset[str]:
        """The claimants that wait here for any of these payments."""
        return frozenset(claimant for each in payment_ids for claimant in self._calls.get(each, ()))

    def open(self) -> None:
        """Let calls wait again."""
        self._closed = False

    def close(self) -> None:
        """Wake everybody, and have nobody wait any more."""
        self._closed = True
        self.wake(self.payment_ids)

    def enter(self, payment_id: str, claimant: str) -> asyncio.Future[PaymentRecord | None]:
        """Begin to wait as `claimant`: the future is the payment when it is over, or None where one must look.

        Whoever enters leaves.
        """
        over: asyncio.Future[PaymentRecord | None] = asyncio.get_running_loop().create_future()
        self._calls.setdefault(payment_id, {})[claimant] = over
        if self._closed:
            over.set_result(None)
        return over

    def leave(self, payment_id: str, claimant: str) -> None:
        """Wait no more."""
        calls = self._calls[payment_id]
        del calls[claimant]
        if not calls:
            del self._calls[payment_id]

    def tell(self, records: Iterable[PaymentRecord]) -> None:
        """Give payments that are over to everybody who waits for one of them."""
        for record in records:
            for over in self._calls.get(record.payment_id, {}).values():
                if not over.done():
                    over.set_result(record)

    def wake(self, payment_ids: Iterable[str]) -> None:
        """Have everybody look who waits for one of these payments."""
        for payment_id in payment_ids:
            for over in self._calls.get(payment_id, {}).values():
                if not over.done():
                    over.set_result(None)


async def within(over: asyncio.Future[PaymentRecord | None], seconds: float) -> PaymentRecord | None:
    """Await what `Waiting.enter` gave, for `seconds` at most: then it is None."""
    alarm = asyncio.get_running_loop().call_later(seconds, _give_up, over)
    try:
        return await over
    finally:
        alarm.cancel()


def _give_up(over: asyncio.Future[PaymentRecord | None]) -> None:
    if not over.done():
        over.set_result(None)
