"""The facilitator as the seller sees it: one interface, whether it runs in the process or across HTTP.

Also the outcome of a settlement, and how an HTTP answer is read as one (S2: whatever is not clearly a settlement
is unknown, and whatever is unknown is not served).
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Protocol, TypeAlias, runtime_checkable

import msgspec

from farthing.errors import RemoteProtocolError
from farthing.flow import Effect
from farthing.protocol.codec import decode_settlement_json
from farthing.protocol.messages import (
    PaymentPayload,
    PaymentRequirements,
    SettlementResponse,
    SupportedResponse,
    VerifyResponse,
    amount_of,
)

# The facilitator has broadcast and not yet seen the confirmation (`specs`: settlement_pending).
SETTLEMENT_PENDING = "settlement_pending"
# Somebody already was told of this payment's success (SAFETY F1).
DUPLICATE_SETTLEMENT = "duplicate_settlement"

# Payments that `POST /payments` takes at once: 14 KB of ids, and some 100 KB of answers.
PAYMENTS_MAX = 200
# A payment id has 68 characters.
PAYMENT_ID_MAX_CHARS = 128

HTTP_OK = 200
HTTP_CLIENT_ERRORS = range(400, 500)
# Request time-out, too early, too many requests: the settlement was not judged, so nothing is known.
NOT_JUDGED = frozenset({401, 403, 404, 405, 407, 408, 421, 425, 429})


class Settled(msgspec.Struct, frozen=True, tag="settled"):
    """The transfer is confirmed on chain: `response.transaction` names it."""

    response: SettlementResponse


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """The facilitator judged the payment and will not settle it. `reason` is the protocol's code."""

    reason: str
    message: str = ""
    transaction: str = ""
    payer: str = ""


class Unknown(msgspec.Struct, frozen=True, tag="unknown"):
    """Nobody knows yet. `transaction` names the transaction where one may exist; only evidence leaves this state."""

    reason: str
    message: str = ""
    transaction: str = ""


Outcome: TypeAlias = Settled | Refused | Unknown


class PaymentStatus(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What a facilitator knows of one payment: the answer of `/payments/{id}`.

    `state` is the facilitator's state of the payment (`docs/facilitator.md`), lower case. `idempotency_key_digest` is
    the `digest_of_key` of the idempotency key under which the settlement is told; empty where it was asked for
    without one, and from facilitators that don't say.
    """

    payment_id: str
    state: str
    network: str
    asset: str
    payer: str
    pay_to: str
    amount: str
    transaction: str = ""
    block_number: int | None = None
    confirmations: int | None = None
    gas_used: int | None = None
    reason: str = ""
    created_at: int | None = None
    idempotency_key_digest: str = ""

    def pays(self, *, network: str, asset: str, pay_to: str, amount: int) -> bool:
        """Whether this is a payment of `amount` atomic units to `pay_to`: a facilitator may find another one."""
        there = (self.network, self.amount, self.asset.lower(), self.pay_to.lower())
        return there == (network, amount_of(amount), asset.lower(), pay_to.lower())


class PaymentsAsked(msgspec.Struct, frozen=True, rename="camel"):
    """What `POST /payments` is sent: at most `PAYMENTS_MAX` payment ids."""

    payment_ids: Annotated[
        tuple[Annotated[str, msgspec.Meta(max_length=PAYMENT_ID_MAX_CHARS)], ...],
        msgspec.Meta(max_length=PAYMENTS_MAX),
    ]


class PaymentsFound(msgspec.Struct, frozen=True):
    """What it answers: of each payment that is known there what `/payments/{id}` says, without its confirmations."""

    payments: tuple[PaymentStatus, ...]


def digest_of_key(idempotency_key: str) -> str:
    """Give what `/payments` says of a key: its SHA-256 in hex, by which who has the key knows its own payment."""
    return hashlib.sha256(idempotency_key.encode()).hexdigest()


class Facilitator(Protocol):
    """Verifies and settles. In the process or over HTTP: the caller can't tell.

    One whose `verify` and `settle` never wait for anything may have an attribute `answers_at_once`, true: a seller on
    an event loop then calls them without a task.
    """

    async def supported(self) -> SupportedResponse:
        """Say which kinds are settled here. Raises `FacilitatorUnavailable`."""
        ...

    async def verify(self, payment: PaymentPayload, requirements: PaymentRequirements) -> VerifyResponse:
        """Judge a payment without committing to anything. Raises `FacilitatorUnavailable`, never a false verdict."""
        ...

    async def settle(
        self, payment: PaymentPayload, requirements: PaymentRequirements, *, idempotency_key: str
    ) -> Outcome:
        """Settle a payment. Trouble on the way is `Unknown`, not an exception and not a refusal."""
        ...

    async def find(self, payment_id: str) -> PaymentStatus | None:
        """Say what became of a payment (a payment id or a transaction hash). Raises `FacilitatorUnavailable`."""
        ...


@runtime_checkable
class FindsMany(Protocol):
    """What a facilitator has beside the others that is asked about many payments at once."""

    async def find_many(self, payment_ids: tuple[str, ...]) -> tuple[PaymentStatus, ...]:
        """Say what became of these payments, at most `PAYMENTS_MAX`. Raises `FacilitatorUnavailable`."""
        ...


class Verify(Effect[VerifyResponse], frozen=True):
    """Have the facilitator verify `payment` against `requirements`. Raises `FacilitatorUnavailable`."""

    payment: PaymentPayload
    requirements: PaymentRequirements


class Settle(Effect[Outcome], frozen=True):
    """Have the facilitator settle `payment`. Its record is durable before this effect is yielded."""

    payment: PaymentPayload
    requirements: PaymentRequirements
    idempotency_key: str


class FindPayment(Effect["PaymentStatus | None"], frozen=True):
    """Ask the facilitator what became of a payment. Raises `FacilitatorUnavailable`."""

    payment_id: str


class FindPayments(Effect["dict[str, PaymentStatus | None]"], frozen=True):
    """Ask the facilitator what became of at most `PAYMENTS_MAX` payments; None for one that it does not know.

    One that takes one question at a time is not asked about all of them: the others are left out. Raises
    `FacilitatorUnavailable`.
    """

    payment_ids: tuple[str, ...]


def read_settlement(status: int, body: bytes) -> Outcome:
    """Read a facilitator's HTTP answer to `/settle` as an outcome (SAFETY S2).

    Only a 200 with a success body and a transaction is settled. A refusal is a body with `success: false` and a
    reason, on 200 or on a 4xx that judged the payment; `settlement_pending` and all else is unknown.
    """
    try:
        response = decode_settlement_json(body)
    except RemoteProtocolError as error:
        return Unknown("unexpected_settle_error", f"The facilitator answered {status} with no settlement: {error}")
    if response.success:
        if status != HTTP_OK:
            return Unknown("unexpected_settle_error", f"Success in the body of a {status}.", response.transaction)
        if response.transaction == "":
            return Unknown("unexpected_settle_error", "Success that names no transaction.")
        return Settled(response)
    reason = response.error_reason or ""
    message = response.error_message or ""
    judged = status == HTTP_OK or (status in HTTP_CLIENT_ERRORS and status not in NOT_JUDGED)
    if not judged or reason in ("", SETTLEMENT_PENDING, "unexpected_settle_error"):
        return Unknown(reason or "unexpected_settle_error", message, response.transaction)
    return Refused(reason, message, response.transaction, response.payer or "")
