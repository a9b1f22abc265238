"""The limits on callers and payers, in this process: quotas, and the payers whose settling calls failed lately.

A caller is a bearer token's name. Each process counts for itself and begins anew when it starts; which payers' calls
failed is in the store, and known to all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final

from farthing.errors import RateLimited
from farthing.facilitator.desk import Limits
from farthing.facilitator.rates import CheckLimits, CountPayment, Quota
from farthing.facilitator.store import FailedPayer, PaymentRecord

_MINUTE: Final = 60
_HOUR: Final = 3600
# Requests a minute that come without a token that is known here, by address: a token that is tried out, or a mistake.
STRANGERS_REQUESTS_PER_MINUTE: Final = 600
# How long a payer goes alone after a call of its failed: as long as code that it took on may be there for this purpose.
FAILED_SECONDS: Final = _HOUR
# Payers remembered for a call that failed; beyond it those that failed last are.
FAILED_MAX: Final = 10_000
# How soon a process learns what another one recorded about payers, in seconds.
REFRESH_SECONDS: Final = 5


class Limiter:
    """Counts what callers and payers use. Everything happens on one event loop, or under the interpreter's lock."""

    def __init__(self, limits: Limits, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Begin with nothing used; `monotonic` gives seconds."""
        self._limits = limits
        self._monotonic = monotonic
        self._requests = Quota(limits.caller_requests_per_minute, _MINUTE)
        self._strangers = Quota(STRANGERS_REQUESTS_PER_MINUTE, _MINUTE)
        self._verifications = Quota(limits.payer_requests_per_minute, _MINUTE)
        self._payments = Quota(limits.payer_requests_per_minute, _MINUTE)
        self._payer_gas = Quota(limits.payer_gas_per_hour_max, _HOUR)
        self._caller_gas = Quota(limits.caller_gas_per_hour_max, _HOUR)
        self._failed: dict[tuple[str, str], int] = {}
        # Until when some payer's verifications are over the limit: before that nobody's payer is looked at beforehand.
        self._verifying_over_until = 0.0
        self.refresh_at = 0

    # Requests

    def request(self, caller: str) -> None:
        """Count a request of a caller. Raises `RateLimited`."""
        what = f"The key {caller!r} has sent {self._requests.amount_max} requests in a minute"
        self._take(self._requests, caller, what)

    def stranger(self, address: str) -> None:
        """Count a request without a known token. Raises `RateLimited`."""
        self._take(self._strangers, address, "Too many requests without a known token came from your address")

    # Verifications

    @property
    def looks_at_verifications(self) -> bool:
        """Whether some payer's verifications are over the limit: then its next is refused before a node is asked."""
        return self._monotonic() < self._verifying_over_until

    def check_verification(self, caller: str, payer: str) -> None:
        """See that a payer's verifications are under the limit, at this caller. Raises `RateLimited`."""
        wait = self._verifications.wait_seconds((caller, payer), self._monotonic())
        if wait:
            what = f"{self._verifications.amount_max} payments of {payer} were verified for you in a minute"
            raise _limited(what, wait)

    def verified(self, caller: str, payer: str) -> None:
        """Count a payment that was found valid.

        By caller and payer: a caller that has one good payment of a payer must not lock it out at others.
        """
        now = self._monotonic()
        self._verifications.take((caller, payer), now)
        wait = self._verifications.wait_seconds((caller, payer), now)
        self._verifying_over_until = max(self._verifying_over_until, now + wait if wait else 0.0)

    # Settlements

    def check(self, effect: CheckLimits) -> None:
        """Perform `CheckLimits`."""
        self._check(effect, 1)

    def count(self, effect: CountPayment) -> None:
        """Perform `CountPayment`."""
        self._check(effect, effect.gas_limit)
        now = self._monotonic()
        self._payments.take((effect.network, effect.payer), now)
        self._payer_gas.take((effect.network, effect.payer), now, effect.gas_limit)
        self._caller_gas.take((effect.network, effect.caller), now, effect.gas_limit)

    def _check(self, effect: CheckLimits | CountPayment, gas: int) -> None:
        now = self._monotonic()
        payer, caller = (effect.network, effect.payer), (effect.network, effect.caller)
        if self._failed.get(payer, 0) >= self._limits.payer_failures_per_hour_max:
            what = f"{self._failed[payer]} settling calls of {effect.payer} failed on chain within an hour"
            raise _limited(what, _HOUR // 6)
        wait = self._payments.wait_seconds(payer, now)
        if wait:
            raise _limited(f"{effect.payer} has made {self._payments.amount_max} payments in a minute", wait)
        wait = self._payer_gas.wait_seconds(payer, now, gas)
        if wait:
            raise _limited(f"The payments of {effect.payer} have taken all the gas that a payer has in an hour", wait)
        wait = self._caller_gas.wait_seconds(caller, now, gas)
        if wait:
            raise _limited(f"The key {effect.caller!r} has used all the gas that a key has in an hour", wait)

    # Calls that failed on chain

    def tried_again(self, record: PaymentRecord) -> None:
        """Count the gas of another attempt at a payment whose call failed."""
        now = self._monotonic()
        self._payer_gas.take((record.network, record.payer), now, record.gas_limit)
        self._caller_gas.take((record.network, record.caller), now, record.gas_limit)

    def remember(self, failed: Iterable[FailedPayer]) -> None:
        """Take over from the store which payers' calls failed lately, in the place of what was known."""
        self._failed = {(each.network, each.payer): each.alone for each in failed}

    def has_failed(self, record: PaymentRecord) -> bool:
        """Tell whether a call of this payment's payer failed lately: then it shares its transaction with no other."""
        return (record.network, record.payer) in self._failed

    def _take(self, quota: Quota, name: str, what: str) -> None:
        now = self._monotonic()
        wait = quota.wait_seconds(name, now)
        if wait:
            raise _limited(what, wait)
        quota.take(name, now)


def _limited(what: str, wait_seconds: int) -> RateLimited:
    message = f"{what}. Nothing was judged and nothing begun: send the same payment again in {wait_seconds} s."
    return RateLimited(message, retry_after_seconds=wait_seconds)
