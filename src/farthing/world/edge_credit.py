"""What an edge holds in memory: nonces that were taken, and credit that it may spend without asking.

A lease is asked for when a payer first comes, and again before it is used up; the requests in between ask nobody. Times
are of the monotonic clock, counted from when the lease was asked for, so that it never lasts longer here than at the
clearing house. With the clearing house away the edge serves on within its leases, for `offline_limit_seconds`.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Final, Literal

import msgspec

from farthing.mechanisms.batch_credit import SignedCommitment
from farthing.mechanisms.batch_credit.verify import NONCE_KEPT_SECONDS
from farthing.protocol.clearing import Lease
from farthing.seller.credit import NotTaken, Taken
from farthing.world.clearing_client import ClearingAway, ClearingRefused

# A lease as the edge likes it: a thousand cents' worth of pages, for five minutes.
LEASE_AMOUNT_DEFAULT: Final = 10_000_000
LEASE_SECONDS_DEFAULT: Final = 300
# Part of a lease, of its amount or its time, that is left when the next is asked for.
_RENEW_PART: Final = 4
# A dear request asks for this many of its like at once.
_LIKE_IT: Final = 10
# A payer that was refused is not asked about again for so long: strangers come in crowds.
REFUSED_SECONDS: Final = 5.0
AWAY_SECONDS: Final = 1.0
# Payers that are remembered; the longest unseen without anything at stake goes first.
PAYERS_MAX: Final = 50_000
# Nonces that are remembered: two minutes of five thousand requests a second. Beyond, requests wait for older ones.
NONCES_MAX: Final = 600_000
# What stands for a payer and a nonce in memory.
_KEY_SIZE_BYTES: Final = 16

Ask = Callable[[str, str, int], Coroutine[Any, Any, tuple[Lease, float]]]
AskAccount = Callable[[str], Coroutine[Any, Any, bool]]
Spawn = Callable[[Coroutine[Any, Any, Any]], "Future[Any]"]


class _Held(msgspec.Struct):
    """A lease in this process. `free` is what is neither committed nor taken."""

    lease: str
    amount: int
    free: int
    ends: float
    seconds: float
    taken: int = 0


class _Account(msgspec.Struct):
    """What is known of one payer."""

    held: list[_Held]
    asking: Any = None
    looking: Any = None
    refused: NotTaken | None = None
    refused_until: float = 0.0
    # As the newest lease told: keys that nothing is taken under, under older leases neither.
    compromised: frozenset[str] = frozenset()

    def refuses(self, commitment: SignedCommitment) -> NotTaken | None:
        """Refuse a promise under a compromised key."""
        if not self.compromised or commitment.profile.key_id not in self.compromised:
            return None
        what = f"The key {commitment.profile.key_id} was declared compromised: sign with another one."
        return NotTaken("key_compromised", what)


class CreditPool:
    """Takes commitments and gives them back. Safe in threads."""

    def __init__(
        self,
        ask: Ask,
        ask_account: AskAccount,
        spawn: Spawn,
        *,
        offline_limit_seconds: float,
        lease_amount: int = LEASE_AMOUNT_DEFAULT,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`ask` gets a lease (payer, currency, amount) and tells for how many seconds it has been asked for.

        `ask_account` tells whether a payer has an account; `spawn` runs a coroutine on the background loop.
        """
        self._ask_account = ask_account
        self._ask, self._spawn, self._monotonic = ask, spawn, monotonic
        self.offline_limit_seconds = offline_limit_seconds
        self._lease_amount = lease_amount
        self._lock = threading.Lock()
        self._accounts: OrderedDict[str, _Account] = OrderedDict()
        self._nonces = Nonces()
        self._contact = monotonic()

    # Contact

    def in_contact(self) -> None:
        """Note that the clearing house has just answered."""
        self._contact = self._monotonic()

    @property
    def offline_seconds(self) -> float:
        """How long ago the clearing house answered last."""
        return self._monotonic() - self._contact

    # Taking

    def remember(self, payer: str, nonce: str, commitment_id: str, expires: int) -> None:
        """Know a commitment that was committed before: read from the log at the start."""
        self._nonces.take(payer, nonce, commitment_id, expires)
        self._nonces.settle(payer, nonce)

    def take(self, commitment: SignedCommitment, now_seconds: int) -> Taken | NotTaken | Future[Taken | NotTaken]:
        """Take a commitment, at once where a lease has room; else in a future, when the clearing house was asked."""
        payer, nonce = commitment.nonce
        amount = commitment.signed.amount
        with self._lock:
            now = self._monotonic()
            if now - self._contact > self.offline_limit_seconds:
                return NotTaken("away", f"The clearing house has not answered for {now - self._contact:.0f} s.")
            copy = self._nonces.take(
                payer, nonce, commitment.commitment_id, commitment.signed.valid_before, now_seconds
            )
            if copy is not None:
                return NotTaken(copy)
            account = self._account(payer)
            compromised = account.refuses(commitment)
            if compromised is not None:
                self._nonces.free(payer, nonce)
                return compromised
            taken = self._reserve(account, payer, commitment.signed.asset, amount, now)
            if taken is not None:
                return taken
            if account.refused is not None and now < account.refused_until:
                self._nonces.free(payer, nonce)
                return account.refused
            asking = self._begin_asking(account, payer, commitment.signed.asset, amount)
        return self._spawn(self._take_after(asking, commitment))

    async def _take_after(self, asking: Future[Any], commitment: SignedCommitment) -> Taken | NotTaken:
        payer, nonce = commitment.nonce
        try:
            said = await asyncio.wrap_future(asking)
        except BaseException:
            with self._lock:
                self._nonces.free(payer, nonce)
            raise
        with self._lock:
            account = self._account(payer)
            compromised = account.refuses(commitment)
            if compromised is not None:
                self._nonces.free(payer, nonce)
                return compromised
            taken = self._reserve(account, payer, commitment.signed.asset, commitment.signed.amount, self._monotonic())
            if taken is not None:
                return taken
            self._nonces.free(payer, nonce)
        return said if isinstance(said, NotTaken) else NotTaken("credit_used", "The credit lease has no room.")

    def knows(self, payer: str) -> Future[bool]:
        """Tell whether the clearing house knows a payer; asks for its account where no lease is held.

        No lease is asked for: this is before any signature, and whoever names a payer would take of its credit.
        """
        with self._lock:
            account = self._account(payer)
            if any(self._monotonic() < each.ends for each in account.held):
                known: Future[bool] = Future()
                known.set_result(True)
                return known
            if account.refused is not None and self._monotonic() < account.refused_until:
                unknown: Future[bool] = Future()
                unknown.set_result(False)
                return unknown
            if account.looking is None:
                account.looking = self._spawn(self._looked(payer))
            looking: Future[bool] = account.looking
        return looking

    def is_over(self, taken: Taken, payer: str) -> bool:
        """Tell whether a lease is over: what is committed under it is owed all the same, and flagged."""
        with self._lock:
            held = self._find(payer, taken.lease)
            return held is None or self._monotonic() >= held.ends

    def commit(self, commitment: SignedCommitment, taken: Taken, *, is_new: bool) -> None:
        """Turn what was taken into what is owed. `is_new` False: another process has it on record, and bills it."""
        payer, nonce = commitment.nonce
        with self._lock:
            self._nonces.settle(payer, nonce)
            held = self._find(payer, taken.lease)
            if held is not None:
                held.taken -= 1
                held.free += 0 if is_new else commitment.signed.amount

    def give_back(self, commitment: SignedCommitment, taken: Taken, *, maybe_written: bool = False) -> None:
        """Give what was taken back: the same request may come again.

        `maybe_written`: it may be on record, and what is there is spent. Its part of the lease stays used up, and the
        request that comes again finds out by the log.
        """
        payer, nonce = commitment.nonce
        with self._lock:
            self._nonces.free(payer, nonce)
            held = self._find(payer, taken.lease)
            if held is not None:
                held.taken -= 1
                held.free += 0 if maybe_written else commitment.signed.amount

    def lapsed(self) -> list[str]:
        """Take the leases that are over and that nothing is taken from any more: they are to be given back."""
        found: list[str] = []
        now = self._monotonic()
        with self._lock:
            for account in self._accounts.values():
                over = [each for each in account.held if now >= each.ends and each.taken == 0]
                if over:
                    account.held = [each for each in account.held if each not in over]
                    found += [each.lease for each in over]
        return found

    def all_leases(self) -> list[str]:
        """Take all leases, at the end: none is committed under any more."""
        with self._lock:
            found = [each.lease for account in self._accounts.values() for each in account.held]
            self._accounts.clear()
        return found

    def drop(self) -> None:
        """Forget all leases: the edge was fenced, and its next life asks anew."""
        with self._lock:
            for account in self._accounts.values():
                for each in account.held:
                    each.ends = 0.0

    # Leases

    def _account(self, payer: str) -> _Account:
        account = self._accounts.get(payer)
        if account is None:
            if len(self._accounts) >= PAYERS_MAX:
                self._forget_one()
            account = self._accounts[payer] = _Account([])
        else:
            self._accounts.move_to_end(payer)
        return account

    def _forget_one(self) -> None:
        for payer, account in self._accounts.items():
            if not account.held and account.asking is None and account.looking is None:
                del self._accounts[payer]
                return

    def _find(self, payer: str, lease: str) -> _Held | None:
        account = self._accounts.get(payer)
        if account is not None:
            for each in account.held:
                if each.lease == lease:
                    return each
        return None

    def _reserve(self, account: _Account, payer: str, currency: str, amount: int, now: float) -> Taken | None:
        for held in account.held:
            if held.free >= amount and now < held.ends:
                held.free -= amount
                held.taken += 1
                low = held.free * _RENEW_PART < held.amount or (held.ends - now) * _RENEW_PART < held.seconds
                if low and account.asking is None and now >= account.refused_until:
                    self._begin_asking(account, payer, currency, amount)
                return Taken(held.lease)
        return None

    def _begin_asking(self, account: _Account, payer: str, currency: str, amount: int) -> Future[Any]:
        if account.asking is None:
            wanted = max(self._lease_amount, amount * _LIKE_IT)
            account.asking = self._spawn(self._asked(payer, currency, wanted))
        asking: Future[Any] = account.asking
        return asking

    async def _looked(self, payer: str) -> bool:
        answer: NotTaken | None
        try:
            found = await self._ask_account(payer)
            answer = None if found else NotTaken("unknown_payer", f"{payer} has no account at the clearing house.")
        except (ClearingRefused, ClearingAway) as error:
            answer = NotTaken("away", str(error))
        finally:
            with self._lock:
                self._account(payer).looking = None
        if answer is not None:
            self._refuse(payer, answer)
        return answer is None

    def _refuse(self, payer: str, answer: NotTaken) -> None:
        wait = AWAY_SECONDS if answer.why == "away" else REFUSED_SECONDS
        with self._lock:
            account = self._account(payer)
            account.refused, account.refused_until = answer, self._monotonic() + wait

    async def _asked(self, payer: str, currency: str, amount: int) -> Lease | NotTaken:
        answer: Lease | NotTaken
        age_seconds = 0.0
        try:
            answer, age_seconds = await self._ask(payer, currency, amount)
        except ClearingRefused as error:
            answer = NotTaken(_WHY.get(error.reason, "credit_used"), str(error))
        except ClearingAway as error:
            answer = NotTaken("away", str(error))
        except BaseException:
            with self._lock:
                self._account(payer).asking = None
            raise
        with self._lock:
            account = self._account(payer)
            account.asking = None
            if isinstance(answer, Lease):
                size, ends = int(answer.amount), self._monotonic() - age_seconds + answer.seconds
                account.held.append(_Held(answer.lease, size, size, ends, answer.seconds))
                account.compromised = frozenset(answer.compromised)
                account.refused = None
                account.refused_until = 0.0
        if isinstance(answer, NotTaken):
            self._refuse(payer, answer)
        return answer


_WHY: Final[dict[str, Literal["unknown_payer", "suspended", "credit_used", "away"]]] = {
    "unknown_payer": "unknown_payer",
    "suspended": "suspended",
    "over_limit": "credit_used",
    "wrong_currency": "credit_used",
    "fenced": "away",
    "token": "away",
}


class Nonces:
    """Nonces by payer, until no copy can come any more. Not safe in threads by itself."""

    def __init__(self) -> None:
        """Begin with none."""
        # What each was taken for; and until when it is kept, twice that, and one more where it is on record. Of text
        # and numbers alone: the collector walks through no dictionary of a hundred thousand tuples.
        self._known: dict[bytes, str] = {}
        self._kept: dict[bytes, int] = {}
        # The keys that are kept until a second, one after the other.
        self._by_second: dict[int, bytearray] = {}
        self._purged = 0

    def __len__(self) -> int:
        """Count those that are known."""
        return len(self._known)

    def take(
        self, payer: str, nonce: str, commitment_id: str, expires: int, now_seconds: int = 0
    ) -> Literal["under_way", "committed", "nonce_used", "away"] | None:
        """Take a nonce, or say what it was taken for."""
        if now_seconds > self._purged:
            self._purge(now_seconds)
        key = _key(payer, nonce)
        known_id = self._known.get(key)
        if known_id is not None:
            if known_id != commitment_id:
                return "nonce_used"
            return "committed" if self._kept[key] & 1 else "under_way"
        if len(self._known) >= NONCES_MAX:
            return "away"
        self._known[key] = commitment_id
        self._keep(key, expires + NONCE_KEPT_SECONDS)
        return None

    def settle(self, payer: str, nonce: str) -> None:
        """Keep a nonce: what it was taken for is on record."""
        key = _key(payer, nonce)
        kept = self._kept.get(key)
        if kept is not None:
            self._kept[key] = kept | 1

    def free(self, payer: str, nonce: str) -> None:
        """Give a nonce back."""
        key = _key(payer, nonce)
        self._known.pop(key, None)
        self._kept.pop(key, None)

    def _keep(self, key: bytes, until: int) -> None:
        self._kept[key] = until * 2
        keys = self._by_second.get(until)
        if keys is None:
            keys = self._by_second[until] = bytearray()
        keys += key

    def _purge(self, now_seconds: int) -> None:
        self._purged = now_seconds
        for second in [each for each in self._by_second if each < now_seconds]:
            keys = bytes(self._by_second.pop(second))
            for start in range(0, len(keys), _KEY_SIZE_BYTES):
                key = keys[start : start + _KEY_SIZE_BYTES]
                kept = self._kept.get(key)
                # It was given back meanwhile, and taken for a later promise, which has a second of its own.
                if kept is None or kept // 2 > second:
                    continue
                # What is still at work is known until it ends.
                if kept & 1:
                    del self._known[key], self._kept[key]
                else:
                    self._keep(key, now_seconds + NONCE_KEPT_SECONDS)


def _key(payer: str, nonce: str) -> bytes:
    return hashlib.blake2b(f"{payer}\n{nonce}".encode(), digest_size=_KEY_SIZE_BYTES).digest()


def lease_request_name() -> str:
    """Draw a name for one request of a lease: asked again under it, the same lease is given."""
    return f"rq-{secrets.token_hex(12)}"
