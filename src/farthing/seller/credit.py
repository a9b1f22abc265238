"""Credit: what an edge does with a request that carries a commitment, before and after its work.

Verified without asking anybody: the signature with a key that is known here, the price with today's offer, the credit
with a lease that this edge holds. A commitment is *taken* (its nonce and its place in the lease, in memory), the work
is done, and only a 2xx makes it durable, before the first byte of the answer goes out; anything else gives it back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, TypeAlias

import msgspec

from farthing.errors import FarthingError, RemoteProtocolError, StoreError
from farthing.flow import Effect, Flow, Now, Sleep
from farthing.mechanisms.batch_credit import (
    KeptCommitment,
    KeptReceipt,
    SignedCommitment,
    UnknownKey,
    keep,
    receipt_for,
    settlement_of,
    verify_commitment,
)
from farthing.mechanisms.batch_credit.reasons import BLOCKED, PAYMENT_FAILED, REPLAYED, SIGNATURE_AGENT_UNKNOWN
from farthing.mechanisms.batch_credit.verify import Keys
from farthing.mechanisms.interface import Refusal
from farthing.networks import KNOWN, Networks
from farthing.protocol.clearing import COMMITTED_AFTER_MAX_SECONDS
from farthing.protocol.codec import pack_header
from farthing.protocol.http import PAYMENT_RESPONSE
from farthing.protocol.messages import PaymentPayload, PaymentRequirements, SettlementResponse
from farthing.seller import identified, repeats
from farthing.seller.answers import (
    RETRY_AFTER_OUTAGE_SECONDS,
    RETRY_AFTER_SECONDS,
    Answer,
    bad_payment,
    payment_required,
    problem,
)
from farthing.seller.offers import Mismatch, Offered, match_offer, offers_for, payment_required_for
from farthing.seller.request import Request
from farthing.seller.states import Taking
from farthing.signatures.digest import content_digest
from farthing.signatures.keys import MessageSigner, PublicKey
from farthing.signatures.messages import HttpRequest

# Reasons of our own, beside the scheme's: they stand in `extra.reason` of the refusal.
CREDIT_USED: Final = "credit_used"
CLEARING_AWAY: Final = "clearing_house_away"
KEY_COMPROMISED: Final = "key_compromised"


class FetchKey(Effect[PublicKey | None], frozen=True):
    """Have an agent's key directory read, where the agent has an account; None where there is no such key."""

    agent: str
    key_id: str


class Taken(msgspec.Struct, frozen=True, gc=False):
    """A commitment is taken: its nonce, and its price out of `lease`, until it is committed or given back."""

    lease: str


class NotTaken(msgspec.Struct, frozen=True):
    """It is not: `under_way` and `committed` are said of a copy, `nonce_used` of another promise under its nonce.

    The others say why there is no credit.
    """

    why: Literal[
        "under_way",
        "committed",
        "nonce_used",
        "unknown_payer",
        "suspended",
        "key_compromised",
        "credit_used",
        "away",
    ]
    detail: str = ""


class TakeCommitment(Effect[Taken | NotTaken], frozen=True):
    """Take a verified commitment, or say why not. Asks the clearing house only where no lease has room."""

    commitment: SignedCommitment


class GiveBack(Effect[None], frozen=True):
    """Give a taken commitment back: nothing is charged."""

    commitment: SignedCommitment
    taken: Taken


class Commit(Effect[bool], frozen=True):
    """Put a commitment into the log; durable when answered. False: another process on this log was first."""

    commitment: SignedCommitment
    taken: Taken
    line: KeptCommitment


class CommitBound(Effect[Literal["committed", "known", "taken"]], frozen=True):
    """As `Commit`, and bind the commitment's payment-identifier to it in the same transaction, with what is answered.

    `known`: another process was first. `taken`: another promise has the id; nothing is on record then, and the
    commitment is given back.
    """

    commitment: SignedCommitment
    taken: Taken
    line: KeptCommitment
    bound: repeats.Bound


class NoteSent(Effect[None], frozen=True):
    """Note, without waiting, that the answer to a commitment went out whole."""

    payer: str
    commitment_id: str
    expires: int


class CreditTicket(msgspec.Struct, frozen=True, gc=False):
    """A taken commitment on its way through the work. `scope` is that of its payment-identifier, or empty."""

    commitment: SignedCommitment
    taken: Taken
    message: HttpRequest
    requirements: PaymentRequirements
    shared_cache: bool
    scope: str = ""


class OnCredit(msgspec.Struct, frozen=True, gc=False):
    """The answer to a commitment: headers to be added, once the commitment is on record."""

    settlement: str
    headers: tuple[tuple[str, str], ...]


CreditVerdict: TypeAlias = CreditTicket | Answer
# Makes the headers of an answer, of what it says of its commitment.
Head: TypeAlias = Callable[[OnCredit], tuple[tuple[str, str], ...]]


def admit_commitment(  # noqa: PLR0911 - one for each way to be answered
    request: Request,
    message: HttpRequest,
    payment: PaymentPayload,
    *,
    body: bytes,
    keys: Keys,
    networks: Networks = KNOWN,
) -> Flow[CreditVerdict]:
    """Judge a request with a commitment: a ticket for the work, or the answer that refuses it.

    `message` is the request as its signature sees it, under the authority of the configuration (never Host's).
    """
    scope = ""
    if request.route.payment_identifier is not Taking.OFF:
        looked_up = yield from repeats.look_up(request, message, payment, body)
        if isinstance(looked_up, Answer):
            return looked_up
        scope = looked_up
    offers = offers_for(request)
    # Where none was echoed it is said which member differs.
    try:
        offer = _echoed(payment, offers) or match_offer(payment, request, offers)
    except RemoteProtocolError as error:
        return bad_payment(error.message, error.path)
    if isinstance(offer, Mismatch):
        return _refused(request, offers, networks, offer.reason, offer.message, network=offer.network)
    network = offer.requirements.network
    now_seconds = yield from Now()
    judging = _Judging(message, payment, offer.requirements, body, request.url, now_seconds)
    verdict = judging.by(keys)
    if isinstance(verdict, UnknownKey):
        verdict = yield from _with_key_fetched(judging, verdict)
    if isinstance(verdict, Refusal):
        return _refused(request, offers, networks, verdict.reason, verdict.message, network=network)
    taken = yield from TakeCommitment(verdict)
    if isinstance(taken, NotTaken):
        again = (yield from _repeat(verdict, scope, taken)) if scope else taken
        if isinstance(again, Answer):
            return again
        if isinstance(again, NotTaken):
            return _not_taken(request, networks, verdict, again, now_seconds)
        taken = again
    return CreditTicket(verdict, taken, message, offer.requirements, request.route.shared_cache, scope)


def _repeat(commitment: SignedCommitment, scope: str, found: NotTaken) -> Flow[Taken | NotTaken | Answer]:
    """Wait for the first request with this promise and id, and give its answer; or take what it gave back."""
    said: Taken | NotTaken = found
    waited, pause = 0.0, identified.FIRST_LOOK_SECONDS
    while isinstance(said, NotTaken) and said.why == "under_way" and waited < identified.WAIT_SECONDS:
        yield from Sleep(pause)
        waited += pause
        pause = min(2 * pause, identified.LOOK_MAX_SECONDS)
        said = yield from TakeCommitment(commitment)
    if isinstance(said, NotTaken) and said.why == "committed":
        return (yield from _earlier(commitment, scope)) or said
    return said


def _earlier(commitment: SignedCommitment, scope: str) -> Flow[Answer | None]:
    now_seconds = yield from Now()
    try:
        bound = yield from repeats.FindBound(scope, now_seconds)
    except StoreError:
        return None
    same = bound is not None and bound.fingerprint == commitment.signed.fingerprint
    return repeats.earlier(bound) if bound is not None and same else None


def _echoed(payment: PaymentPayload, offers: tuple[Offered, ...]) -> Offered | None:
    """Find the offer that was echoed to the letter, which is what counts on credit."""
    for each in offers:
        if each.requirements == payment.accepted:
            return each
    return None


class _Judging(msgspec.Struct, frozen=True, gc=False):
    """A request with a commitment, and the offer that it is held to."""

    message: HttpRequest
    payment: PaymentPayload
    offer: PaymentRequirements
    body: bytes
    resource: str
    now_seconds: int

    def by(self, keys: Keys) -> SignedCommitment | UnknownKey | Refusal:
        """Judge it by the keys that are known."""
        return verify_commitment(
            self.message,
            offer=self.offer,
            keys=keys,
            now_seconds=self.now_seconds,
            body=self.body,
            payment=self.payment,
            resource=self.resource,
        )


def _with_key_fetched(judging: _Judging, unknown: UnknownKey) -> Flow[SignedCommitment | Refusal]:
    agent, key_id = unknown.agent, unknown.key_id
    try:
        found = yield from FetchKey(agent, key_id)
    except FarthingError as error:
        return Refusal(SIGNATURE_AGENT_UNKNOWN, f"the key directory of {agent} can't be read: {error}")
    verdict = unknown if found is None else judging.by(lambda _agent, _key_id: found)
    if isinstance(verdict, UnknownKey):
        return Refusal(SIGNATURE_AGENT_UNKNOWN, f"{agent} has no account here, or its directory no key {key_id}")
    return verdict


def conclude_commitment(
    ticket: CreditTicket, *, status: int, body: bytes | None, signer: MessageSigner, head: Head
) -> Flow[OnCredit | Answer]:
    """Put the commitment of a 2xx on record, and sign the answer to it; or give the answer that replaces it.

    `body` is the whole body where it is buffered: its digest is under the receipt then. None where it streams. `head`
    makes the answer's headers, which are kept with it where the request has a payment-identifier. Whatever goes wrong
    before anything may be on record gives the commitment back.
    """
    commitment = ticket.commitment
    now_seconds = yield from Now()
    if now_seconds > commitment.signed.valid_before + COMMITTED_AFTER_MAX_SECONDS:
        yield from GiveBack(commitment, ticket.taken)
        return problem(
            504,
            "work-too-late",
            "The work took too long",
            f"It ended over {COMMITTED_AFTER_MAX_SECONDS} s after your promise had; nothing is charged.",
        )
    try:
        concluded, line, bound = _receipted(ticket, status, body, signer, head, now_seconds)
    except Exception:
        # A signer fails, say: nothing is on record, and no write is under way that would give it back.
        yield from GiveBack(commitment, ticket.taken)
        raise
    became: Literal["committed", "known", "taken"]
    try:
        if bound is not None:
            became = yield from CommitBound(commitment, ticket.taken, line, bound)
        else:
            became = "committed" if (yield from Commit(commitment, ticket.taken, line)) else "known"
    except StoreError:
        return problem(
            503,
            "store-unavailable",
            "The log can't be written",
            "Nothing is served on a promise that may not be on record. Send the same request again: it is billed once.",
            retry_after_seconds=RETRY_AFTER_OUTAGE_SECONDS,
        )
    return concluded if became == "committed" else (yield from _not_new(ticket, became, now_seconds))


def _receipted(  # noqa: PLR0917 - those of `conclude_commitment`
    ticket: CreditTicket, status: int, body: bytes | None, signer: MessageSigner, head: Head, now_seconds: int
) -> tuple[OnCredit, KeptCommitment, repeats.Bound | None]:
    """Sign the answer: its headers, the line for the log, and what its id is bound to, where it has one."""
    commitment = ticket.commitment
    settlement = pack_header(settlement_of(commitment, now_seconds=now_seconds))
    digest = None if body is None else content_digest(body)
    lines, _, signature = receipt_for(
        commitment,
        ticket.message,
        status=status,
        payment_response=settlement,
        signer=signer,
        now_seconds=now_seconds,
        digest=digest,
    )
    receipt = KeptReceipt(status, digest, signer.public_key.thumbprint, signature)
    line = keep(commitment, receipt, committed=now_seconds, lease=ticket.taken.lease)
    concluded = OnCredit(settlement, lines if digest is None else (*lines, ("content-digest", digest)))
    return concluded, line, _bound(ticket, concluded, status, body, head) if ticket.scope else None


def _bound(ticket: CreditTicket, concluded: OnCredit, status: int, body: bytes | None, head: Head) -> repeats.Bound:
    commitment = ticket.commitment
    # The length of an answer to HEAD is not its own.
    whole = None if ticket.message.method == "HEAD" else body
    return repeats.Bound(
        ticket.scope,
        commitment.signed.payer,
        commitment.commitment_id,
        commitment.signed.fingerprint,
        concluded.settlement,
        commitment.signed.valid_before,
        None if whole is None else repeats.kept(status, head(concluded), whole),
    )


def _not_new(ticket: CreditTicket, became: Literal["known", "taken"], now_seconds: int) -> Flow[Answer]:
    """Answer a request whose promise another process committed meanwhile, or whose id another promise has."""
    if became == "taken":
        return identified.taken()
    found = (yield from _earlier(ticket.commitment, ticket.scope)) if ticket.scope else None
    return found or _committed(ticket.commitment, now_seconds)


def give_back(ticket: CreditTicket) -> Flow[None]:
    """Let a commitment go whose work failed: nothing is charged."""
    yield from GiveBack(ticket.commitment, ticket.taken)


def sent(ticket: CreditTicket) -> Flow[None]:
    """Note that all bytes of the answer went out."""
    yield from note_of(ticket)


def note_of(ticket: CreditTicket) -> NoteSent:
    """Give the one effect of `sent`, for a door that runs no flow for it: nothing is awaited, nothing can be cut."""
    signed = ticket.commitment.signed
    return NoteSent(signed.payer, ticket.commitment.commitment_id, signed.valid_before)


def _not_taken(
    request: Request, networks: Networks, commitment: SignedCommitment, why: NotTaken, now_seconds: int
) -> Answer:
    network, offers = commitment.signed.network, offers_for(request)
    if why.why == "committed":
        return _committed(commitment, now_seconds)
    if why.why == "under_way":
        return problem(
            409,
            "payment-in-progress",
            "This promise is being served",
            "A copy of this request is at work; ask again in a moment.",
            retry_after_seconds=RETRY_AFTER_SECONDS,
            commitmentId=commitment.commitment_id,
        )
    if why.why == "nonce_used":
        said = "another promise of this agent has the same nonce"
        return _refused(request, offers, networks, REPLAYED, said, network=network, payer=commitment.signed.payer)
    if why.why in {"unknown_payer", "suspended"}:
        reason = SIGNATURE_AGENT_UNKNOWN if why.why == "unknown_payer" else BLOCKED
        return _refused(request, offers, networks, reason, why.detail, network=network, payer=commitment.signed.payer)
    if why.why == "key_compromised":
        payer, own = commitment.signed.payer, KEY_COMPROMISED
        reason = SIGNATURE_AGENT_UNKNOWN
        return _refused(request, offers, networks, reason, why.detail, network=network, payer=payer, own=own)
    own = CREDIT_USED if why.why == "credit_used" else CLEARING_AWAY
    payer = commitment.signed.payer
    return _refused(request, offers, networks, PAYMENT_FAILED, why.detail, network=network, payer=payer, own=own)


def _committed(commitment: SignedCommitment, now_seconds: int) -> Answer:
    """Answer a copy of what is on record: it is billed once, and not served again (SAFETY C3)."""
    answer = problem(
        409,
        "commitment-known",
        "This promise was served",
        "It is on record and will be billed once; a new request makes a new promise.",
        commitmentId=commitment.commitment_id,
    )
    header = (PAYMENT_RESPONSE.lower(), pack_header(settlement_of(commitment, now_seconds=now_seconds)))
    return Answer(answer.status, (*answer.headers, header), answer.body)


def _refused(
    request: Request,
    offers: tuple[Offered, ...],
    networks: Networks,
    reason: str,
    message: str,
    *,
    network: str,
    payer: str | None = None,
    own: str = "",
) -> Answer:
    """Refuse with the reason and the offers: nothing of this promise can be billed, so that anew is never twice."""
    settlement = SettlementResponse(
        success=False,
        transaction="",
        network=network,
        payer=payer,
        error_reason=reason,
        error_message=message,
        extra={"reason": own} if own else None,
    )
    said = payment_required_for(request, offers, f"{reason}: {message}")
    return payment_required(said, html=request.prefers_html, settlement=settlement, networks=networks)
