"""Settlement as the caller sees it: verify, put on record, wait for the chain, and tell success once.

Sellers in the wild keep no record and rely on the second `/settle` to fail, so success is told to one caller alone:
the one that holds the payment's place, or whoever brings the idempotency key under which it was recorded.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from farthing.errors import NodeUnavailable, RemoteProtocolError
from farthing.evm.hexadecimal import read_quantity
from farthing.evm.node import AskNode, NodeCall
from farthing.facilitator.answers import duplicate, not_the_same, pending, refusal, settled
from farthing.facilitator.desk import Desk
from farthing.facilitator.identified import conflict, scope_of
from farthing.facilitator.rates import CheckLimits, CountPayment
from farthing.facilitator.states import CONFIRMED, FINAL, PAYMENT, REFUSED
from farthing.facilitator.store import (
    FindRecord,
    GivePlaceUp,
    IdentifierTaken,
    PaymentBody,
    PaymentRecord,
    RecordPayment,
    TakePlace,
    Tell,
)
from farthing.facilitator.verify import INVALID_PAYLOAD, examine, find_face
from farthing.flow import Effect, Flow, Now
from farthing.mechanisms.interface import (
    FacilitatorMechanism,
    Refusal,
    SignedPayment,
    Spent,
    SpentOtherwise,
    Verification,
)
from farthing.protocol.codec import encode_json
from farthing.protocol.messages import PaymentPayload, PaymentRequirements, SettlementResponse

# A claim outlives the call's own time-out by what an answer takes to be written; then the place is free again.
CLAIM_MARGIN_SECONDS: Final = 5
# A repeat in parallel waits so long for a transaction to name, where none is signed yet; then it is refused without.
DUPLICATE_WAIT_SECONDS: Final = 5.0
# How far back the transaction is looked for that spent a payment before it came here: half an hour on most chains, and
# what nodes let one ask for at once.
SPENT_LOOKBACK_BLOCKS: Final = 1_000
# Refusals that say that the right is gone; the transaction that took it is then named.
_SPENT_REASONS: Final = frozenset({"invalid_exact_evm_nonce_already_used"})
_SUCCESS: Final = frozenset({CONFIRMED, FINAL})
_OVER: Final = frozenset({CONFIRMED, FINAL, REFUSED})


class Call(msgspec.Struct, frozen=True):
    """One call to `/settle`: the bearer token's name, its idempotency key or none, and the call's own unique name.

    `identifier` is the scope of the payment's `payment-identifier`, empty where it has none.
    """

    caller: str
    claimant: str
    idempotency_key: str = ""
    identifier: str = ""


class AwaitOutcome(Effect["PaymentRecord | None"], frozen=True):
    """Have the submitter settle a payment on record, and wait until it is CONFIRMED or REFUSED, or `seconds` are over.

    The answer is the payment as it is on record then. `signed` and `base_fee_wei` save the submitter a look-up. Where
    the payment is `fresh`, put on record by this very call, it is not looked up before it is waited for.
    """

    payment_id: str
    scheme: str
    network: str
    claimant: str
    seconds: float
    signed: SignedPayment
    base_fee_wei: int = 0
    fresh: bool = False


def settle(
    desk: Desk, payment: PaymentPayload, requirements: PaymentRequirements, call: Call
) -> Flow[SettlementResponse]:
    """Settle a payment, or say what became of it. Raises `NodeUnavailable` where it could not be verified.

    A new payment of a payer or a caller that is over a limit raises `RateLimited`; what is on record is answered.

    Once the payment is on record, trouble with the node is `settlement_pending`, with the transaction where one exists.
    """
    face = find_face(desk, requirements)
    if isinstance(face, Refusal):
        return refusal(face.reason, face.message, network=requirements.network)
    try:
        signed = face.read(payment)
        call = msgspec.structs.replace(call, identifier=scope_of(payment, signed, caller=call.caller))
    except RemoteProtocolError as error:
        return refusal(INVALID_PAYLOAD, str(error), network=requirements.network)
    print_ = requirements_print(requirements)
    record = yield from FindRecord(signed.payment_id)
    base_fee_wei = 0
    if record is None:
        entered = yield from _enter(desk, face, signed, call, payment=payment, requirements=requirements)
        if isinstance(entered, SettlementResponse):
            return entered
        record, signed, base_fee_wei = entered
    if (record.fingerprint, record.requirements_print) != (signed.fingerprint, print_):
        return not_the_same(record)
    if record.claimant != call.claimant:
        joined = yield from _join(desk, record, call)
        if joined is None:
            if not record.transaction:
                record = yield from _wait(record, call, signed, DUPLICATE_WAIT_SECONDS)
            return duplicate(record)
        record = joined
    record = yield from _wait(record, call, signed, desk.limits.settle_timeout_seconds, base_fee_wei)
    return (yield from _tell(record, call))


def _enter(
    desk: Desk,
    face: FacilitatorMechanism,
    signed: SignedPayment,
    call: Call,
    *,
    payment: PaymentPayload,
    requirements: PaymentRequirements,
) -> Flow[tuple[PaymentRecord, SignedPayment, int] | SettlementResponse]:
    """Verify a payment and put it on record; gives that, what was found out of the payer, and the base fee in wei."""
    yield CheckLimits(signed.network, call.caller, signed.payer)
    verification = yield from examine(desk, payment, requirements, settling=True)
    if not verification.response.is_valid:
        # A copy of it may have been put on record, and settled, while this one was verified: then it is a repeat (F1).
        known = yield from FindRecord(signed.payment_id)
        if known is None:
            return (yield from _refuse(face, signed, verification))
        return known, signed, 0
    # With what was found out about the payer: a wallet that is deployed needs no deployment.
    signed = verification.signed or signed
    # Only now: what was not verified must not count against the payer that it names.
    yield CountPayment(signed.network, call.caller, signed.payer, verification.gas_limit)
    now_seconds = yield from Now()
    print_ = requirements_print(requirements)
    record = _record(
        desk, signed, verification, call, scheme=requirements.scheme, print_=print_, now_seconds=now_seconds
    )
    body = PaymentBody(encode_json(payment), encode_json(requirements))
    recorded = yield from RecordPayment(record, body, call.identifier)
    if isinstance(recorded, IdentifierTaken):
        taken = conflict()
        return refusal(taken.reason, taken.message, network=signed.network, payer=signed.payer)
    return recorded, signed, verification.base_fee_wei


def _wait(
    record: PaymentRecord, call: Call, signed: SignedPayment, seconds: float, base_fee_wei: int = 0
) -> Flow[PaymentRecord]:
    if record.state in _OVER:
        return record
    fresh = record.state == PAYMENT.start and record.claimant == call.claimant
    waited = yield from AwaitOutcome(
        record.payment_id, record.scheme, record.network, call.claimant, seconds, signed, base_fee_wei, fresh
    )
    return record if waited is None else waited


def requirements_print(requirements: PaymentRequirements) -> str:
    """Hash what a payment is held to, `extra` with its keys in order: one text for one meaning."""
    return hashlib.sha256(msgspec.json.encode(requirements, order="sorted")).hexdigest()


def _record(
    desk: Desk,
    signed: SignedPayment,
    verification: Verification,
    call: Call,
    *,
    scheme: str,
    print_: str,
    now_seconds: int,
) -> PaymentRecord:
    return PaymentRecord(
        payment_id=signed.payment_id,
        state=PAYMENT.start,
        scheme=scheme,
        network=signed.network,
        asset=signed.asset,
        payer=signed.payer,
        pay_to=signed.pay_to,
        amount=signed.amount,
        valid_before=signed.valid_before,
        fingerprint=signed.fingerprint,
        requirements_print=print_,
        created_at=now_seconds,
        recorded_block=verification.block_number,
        gas_limit=verification.gas_limit,
        alone=verification.alone,
        caller=call.caller,
        idempotency_key=call.idempotency_key,
        claimant=call.claimant,
        claim_until=_claim_until(desk, now_seconds),
    )


def _claim_until(desk: Desk, now_seconds: int) -> int:
    return now_seconds + int(desk.limits.settle_timeout_seconds) + CLAIM_MARGIN_SECONDS


def _join(desk: Desk, record: PaymentRecord, call: Call) -> Flow[PaymentRecord | None]:
    """Let a repeat wait for the outcome, where it may be told of it: by the same key, or by the place given up."""
    if record.state == REFUSED or _same_key(record, call):
        return record
    now_seconds = yield from Now()
    return (
        yield from TakePlace(
            record.payment_id,
            call.caller,
            call.idempotency_key,
            call.claimant,
            now_seconds,
            _claim_until(desk, now_seconds),
        )
    )


def _same_key(record: PaymentRecord, call: Call) -> bool:
    return bool(call.idempotency_key) and (record.caller, record.idempotency_key) == (call.caller, call.idempotency_key)


def _tell(record: PaymentRecord, call: Call) -> Flow[SettlementResponse]:
    """Answer from the record; who is told of success is decided by one conditional statement."""
    if record.state == REFUSED:
        return refusal(
            record.reason, record.message, network=record.network, transaction=record.transaction, payer=record.payer
        )
    if record.state in _SUCCESS:
        told = _same_key(record, call) or (record.told and record.claimant == call.claimant)
        # Another process confirmed it: then it is told here and now, or somebody else was.
        told = told or (yield from Tell(record.payment_id, call.claimant))
        return settled(record) if told else duplicate(record)
    if _same_key(record, call) or (yield from GivePlaceUp(record.payment_id, call.claimant)):
        return pending(record)
    # Success was recorded as told to this very call while its time ran out.
    latest = yield from FindRecord(record.payment_id)
    if latest is not None and latest.state in _SUCCESS and latest.told and latest.claimant == call.claimant:
        return settled(latest)
    return pending(latest or record)


def _refuse(face: FacilitatorMechanism, signed: SignedPayment, verification: Verification) -> Flow[SettlementResponse]:
    """Refuse before anything is on record. Where the right is gone, the transaction that took it is named."""
    response = verification.response
    reason = response.invalid_reason or INVALID_PAYLOAD
    transaction = ""
    if reason in _SPENT_REASONS:
        transaction = yield from _find_spender(face, signed)
    return refusal(
        reason,
        response.invalid_message or "",
        network=signed.network,
        transaction=transaction,
        payer=response.payer or signed.payer,
    )


def _find_spender(face: FacilitatorMechanism, signed: SignedPayment) -> Flow[str]:
    """Look for the transaction, as far back as nodes let us; the refusal stands without it."""
    try:
        (height,) = yield from AskNode(signed.network, (NodeCall("eth_blockNumber"),))
        from_block = max(0, read_quantity(height) - SPENT_LOOKBACK_BLOCKS)
        answers = yield from AskNode(signed.network, face.evidence_calls(signed, from_block=from_block))
        evidence = face.judge_evidence(signed, answers)
    except NodeUnavailable:
        return ""
    return evidence.transaction if isinstance(evidence, (Spent, SpentOtherwise)) else ""
