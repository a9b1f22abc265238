"""The facilitator as the seller's performer reaches it: one verification for all copies of a payment."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar, cast

from farthing.errors import FacilitatorUnavailable, FarthingError
from farthing.flow import Effect
from farthing.protocol.codec import encode_json
from farthing.protocol.facilitator import (
    Facilitator,
    FindPayment,
    FindPayments,
    FindsMany,
    Outcome,
    PaymentStatus,
    Settle,
    Verify,
    digest_of_key,
)
from farthing.protocol.messages import PaymentPayload, PaymentRequirements, SupportedResponse, VerifyResponse
from farthing.seller.store import IsOurs, TakesKeys
from farthing.world.pending import Pending

R = TypeVar("R")

# What a facilitator that takes idempotency keys says among the extensions of `/supported`.
IDEMPOTENCY_KEYS: Final = "idempotency-key"
# Payments that a facilitator is asked about in a row that takes one question at a time.
SINGLES_MAX: Final = 50
_NO_FACILITATOR: Final = "This seller takes promises alone and has no facilitator."

log = logging.getLogger("farthing.seller")


class Verifying:
    """Performs `Verify`, `Settle`, `FindPayment`, `FindPayments`, `TakesKeys` and `IsOurs` with one facilitator.

    Copies of one payment that arrive together share one verification: whoever comes first asks, the others wait. A
    facilitator in the process whose `verify` and `settle` never wait for anything may say so by an attribute
    `answers_at_once`, true: they are then run where they are called, without a task.
    """

    def __init__(
        self, facilitator: Facilitator, kinds: Callable[[], set[tuple[str, str]]], store_name: str = ""
    ) -> None:
        """Ask `facilitator`; `kinds` are the schemes and networks that this seller offers.

        `store_name` makes the idempotency keys this store's own. Two stores that settled under one key would both be
        told of one payment's success, and both would serve it.
        """
        self._facilitator = facilitator
        self._store_name = store_name
        self._kinds = kinds
        self._lock = threading.Lock()
        self._asked: dict[tuple[bytes, bytes], Pending[VerifyResponse]] = {}
        self._supported: SupportedResponse | None = None
        self._checked = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._at_once = bool(getattr(facilitator, "answers_at_once", False))

    def handlers(self) -> dict[type[Effect[Any]], Callable[[Any], Any]]:
        """Give the handlers, for a `Performer`."""
        return {
            Verify: self.verify,
            Settle: self._settle,
            FindPayment: self._find,
            FindPayments: self._find_many,
            TakesKeys: self._takes_keys,
            IsOurs: self._is_ours,
        }

    def verify(self, effect: Verify) -> Any:
        """Verify, or wait for the verification of a copy that is on its way."""
        if self._at_once and self._checked:
            return self._verify_at_once(effect)
        key = (bytes(effect.payment.payload), encode_json(effect.requirements))
        with self._lock:
            asked = self._asked.get(key)
            if asked is not None:
                return asked
            asked = self._asked[key] = Pending()
        return self._lead(key, asked, effect)

    async def _lead(self, key: tuple[bytes, bytes], asked: Pending[VerifyResponse], effect: Verify) -> VerifyResponse:
        if not self._checked:
            self._checked = True
            task = asyncio.ensure_future(self._check_kinds())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            answer = await self._facilitator.verify(effect.payment, effect.requirements)
        except asyncio.CancelledError:
            # The first caller has gone; the others are told to come again, and nothing is lost.
            asked.fail(FacilitatorUnavailable("The verification was cut off."))
            raise
        except FarthingError as error:
            asked.fail(error)
            raise
        except Exception as error:
            log.exception("the facilitator failed to verify")
            outage = FacilitatorUnavailable(f"The facilitator failed: {type(error).__name__}.")
            asked.fail(outage)
            raise outage from error
        else:
            asked.resolve(answer)
            return answer
        finally:
            with self._lock:
                self._asked.pop(key, None)

    def _verify_at_once(self, effect: Verify) -> VerifyResponse:
        # Nobody can come in between, so that there is nothing to be shared.
        try:
            return _at_once(self._facilitator.verify(effect.payment, effect.requirements))
        except FarthingError:
            raise
        except Exception as error:
            log.exception("the facilitator failed to verify")
            outage = FacilitatorUnavailable(f"The facilitator failed: {type(error).__name__}.")
            raise outage from error

    def _settle(self, effect: Settle) -> Any:
        key = self._own(effect.idempotency_key)
        settling = self._facilitator.settle(effect.payment, effect.requirements, idempotency_key=key)
        return _at_once(settling) if self._at_once else settling

    def _own(self, key: str) -> str:
        return f"{key}.{self._store_name}" if self._store_name else key

    async def _is_ours(self, effect: IsOurs) -> bool | None:
        if effect.key_digest:
            return effect.key_digest == digest_of_key(self._own(effect.payment_id))
        try:
            takes_keys = IDEMPOTENCY_KEYS in (await self._ask_supported()).extensions
        except FacilitatorUnavailable:
            return None
        return None if takes_keys else True

    async def _find(self, effect: FindPayment) -> PaymentStatus | None:
        status = await _answered(self._facilitator.find(effect.payment_id))
        if status is not None and status.payment_id not in {"", effect.payment_id}:
            message = f"The facilitator was asked about {effect.payment_id} and told of another payment."
            raise FacilitatorUnavailable(message)
        return status

    async def _find_many(self, effect: FindPayments) -> dict[str, PaymentStatus | None]:
        if isinstance(self._facilitator, FindsMany):
            found = {each.payment_id: each for each in await _answered(self._facilitator.find_many(effect.payment_ids))}
            return {name: found.get(name) for name in effect.payment_ids}
        return {name: await _answered(self._facilitator.find(name)) for name in effect.payment_ids[:SINGLES_MAX]}

    async def _takes_keys(self, _effect: TakesKeys) -> bool:
        try:
            return IDEMPOTENCY_KEYS in (await self._ask_supported()).extensions
        except FacilitatorUnavailable:
            return False

    async def _ask_supported(self) -> SupportedResponse:
        if self._supported is None:
            self._supported = await self._facilitator.supported()
        return self._supported

    async def _check_kinds(self) -> None:
        """Say so in the log, once, where the facilitator settles less than this seller offers."""
        try:
            supported = await self._ask_supported()
        except Exception as error:  # noqa: BLE001 - a check that fails must not stop what it checks
            log.warning("the facilitator did not say what it supports: %s", type(error).__name__)
            return
        there = {(kind.scheme, kind.network) for kind in supported.kinds}
        for scheme, network in sorted(self._kinds()):
            namespace = network.partition(":")[0]
            if not {(scheme, network), (scheme, f"{namespace}:*")} & there:
                log.error(
                    "the facilitator does not support scheme %r on %s: payments for these offers will be refused; "
                    "name another facilitator, or take the offer away",
                    scheme,
                    network,
                )


async def _answered(answering: Awaitable[R]) -> R:
    """Await what a facilitator tells of payments. Raises `FacilitatorUnavailable`, whatever it raised."""
    try:
        return await answering
    except FacilitatorUnavailable:
        raise
    except Exception as error:
        log.exception("the facilitator failed to tell what became of a payment")
        message = f"The facilitator failed: {type(error).__name__}."
        raise FacilitatorUnavailable(message) from error


def _at_once(answering: Coroutine[Any, Any, R]) -> R:
    """Run a method of a facilitator that answers at once, where it was called. Raises `RuntimeError` where it waits."""
    try:
        answering.send(None)
    except StopIteration as done:
        return cast("R", done.value)
    answering.close()
    message = "The facilitator says answers_at_once and waits for something."
    raise RuntimeError(message)


class NoFacilitator:
    """Takes a facilitator's place for a seller who takes promises alone: it is never asked in earnest."""

    async def supported(self) -> SupportedResponse:
        """Settle nothing."""
        return SupportedResponse(kinds=())

    async def verify(self, payment: PaymentPayload, requirements: PaymentRequirements) -> VerifyResponse:
        """Judge nothing."""
        del payment, requirements
        raise FacilitatorUnavailable(_NO_FACILITATOR)

    async def settle(
        self, payment: PaymentPayload, requirements: PaymentRequirements, *, idempotency_key: str
    ) -> Outcome:
        """Settle nothing."""
        del payment, requirements, idempotency_key
        raise FacilitatorUnavailable(_NO_FACILITATOR)

    async def find(self, payment_id: str) -> PaymentStatus | None:
        """Know nothing."""
        del payment_id
        return None
