"""Finds out what became of payments that nobody answered for: by the seller, the facilitator and the chain.

Three answers: *settled*, *not settled*, *could not find out*. The last is no opinion: such a payment keeps its place in
the budget (SAFETY B1). What counts as evidence:

- the chain, at a finalised block: settled by the nonce's event with the matching transfer; not settled where it was
  cancelled, used by another transfer, or is unused past its window.
- the facilitator: settled where it names the transaction of this very payment. Never not settled: another may do it.
- the seller, asked by presenting the payment again: settled by PAYMENT-RESPONSE, as in any purchase. Never not settled.

Of several nodes none may contradict another, and for *not settled* each must have said so. The chain's word counts
before all others.
"""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias

import msgspec

from farthing.buyer.choice import shown
from farthing.buyer.journal import ListOpen, OpenEntry, PresentAgain, Purchase, RecordEvidence, State
from farthing.buyer.policy import fold_asset
from farthing.buyer.purchase import PaidRequest
from farthing.buyer.request import describe_request
from farthing.buyer.verdict import NoAnswer, PaidAnswer, conclude
from farthing.errors import FacilitatorUnavailable, NodeUnavailable, PaymentError, PaymentRefused, RemoteProtocolError
from farthing.flow import Effect, Flow, Now
from farthing.mechanisms.interface import SignedPayment, Traced, Tracer
from farthing.mechanisms.registry import Registry
from farthing.protocol import versions
from farthing.protocol.facilitator import FindPayment, PaymentStatus
from farthing.protocol.messages import PaymentRequirements

Verdict: TypeAlias = Literal["settled", "not_settled", "could_not"]

# What a facilitator calls a payment whose transfer is in a block (`docs/facilitator.md`).
_CONFIRMED: Final = frozenset({"confirmed", "final", "settled"})


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody showed or said: `who` is `chain`, `facilitator`, `seller` or `journal`."""

    who: str
    says: str
    transaction: str = ""
    block_number: int | None = None
    block_hash: str = ""
    log_index: int | None = None


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one payment: `state` is the journal's now. `body` is what the seller sent, where it was asked."""

    purchase: Purchase
    verdict: Verdict
    state: State
    evidence: tuple[Evidence, ...]
    transaction: str = ""
    body: bytes = b""


class Ways(msgspec.Struct, frozen=True, kw_only=True):
    """Whom to ask: `nodes` has the names of each network's nodes, as the performer of `AskNode` knows them."""

    tracers: Registry[Tracer]
    nodes: dict[str, tuple[str, ...]] = {}
    facilitator: bool = False
    present: bool = False


class PresentedAnswer(msgspec.Struct, frozen=True):
    """What a seller answered to a payment that was presented again, with its whole body."""

    answer: PaidAnswer | NoAnswer
    body: bytes = b""


class PresentPayment(Effect[PresentedAnswer], frozen=True):
    """Send the request of a purchase again, with its payment in the header `name`: no body, and no other header."""

    method: str
    url: str
    name: str
    value: str
    response_header: str


def open_entries() -> Flow[tuple[OpenEntry, ...]]:
    """Give all payments without an end that no process is busy with, oldest first."""
    found: list[OpenEntry] = []
    page = yield from ListOpen()
    while page:
        found += page
        page = yield from ListOpen(page[-1].purchase)
    return tuple(found)


def find_out(entry: OpenEntry, ways: Ways) -> Flow[Finding]:
    """Find out what became of one payment, and put what is proven on record."""
    purchase = entry.purchase
    if entry.under_way:
        said = Evidence(who="journal", says="A process that is alive waits for its answer just now.")
        return Finding(purchase=purchase, verdict="could_not", state=purchase.state, evidence=(said,))
    evidence: list[Evidence] = []
    body = b""
    state = purchase.state
    if ways.present:
        state, said, body = yield from _ask_seller(entry)
        evidence.append(said)
    by_facilitator: Evidence | None = None
    if ways.facilitator:
        by_facilitator, said = yield from _ask_facilitator(purchase)
        evidence.append(said)
    verdict, by_chain = yield from _ask_chain(entry, ways)
    evidence = [*by_chain, *evidence]
    proof = by_chain[0] if by_chain and verdict != "could_not" else by_facilitator
    if verdict == "could_not" and by_facilitator is not None:
        verdict = "settled"
    if verdict == "could_not" or proof is None:
        # The seller's own word, where it gave one, is on record already.
        settled = state == "settled"
        transaction = next((each.transaction for each in evidence if each.who == "seller"), "") if settled else ""
        return Finding(
            purchase=purchase,
            verdict="settled" if settled else "could_not",
            state=state,
            evidence=tuple(evidence) or (Evidence(who="journal", says="There was nobody to ask."),),
            transaction=transaction,
            body=body,
        )
    now_seconds = yield from Now()
    state = yield from RecordEvidence(
        purchase_id=purchase.purchase_id,
        state="settled" if verdict == "settled" else "closed",
        transaction=proof.transaction if verdict == "settled" else "",
        evidence=msgspec.json.encode(proof).decode(),
        now_seconds=now_seconds,
    )
    return Finding(
        purchase=purchase,
        verdict=verdict,
        state=state,
        evidence=tuple(evidence),
        transaction=proof.transaction,
        body=body,
    )


# The chain.


def _ask_chain(entry: OpenEntry, ways: Ways) -> Flow[tuple[Verdict, list[Evidence]]]:
    purchase = entry.purchase
    tracer = ways.tracers.find(purchase.scheme, purchase.network)
    nodes = ways.nodes.get(purchase.network, ())
    if not nodes or tracer is None:
        return "could_not", []
    try:
        signed = _read(entry, tracer)
    except RemoteProtocolError as error:
        return "could_not", [Evidence(who="journal", says=f"The payment on record can't be read: {shown(str(error))}")]
    found: list[Traced] = []
    troubles: list[Evidence] = []
    for node in nodes:
        try:
            found.append((yield from tracer.trace(signed, node=node, recorded_at=purchase.created_at)))
        except NodeUnavailable as error:
            troubles.append(Evidence(who="chain", says=f"A node could not say: {shown(str(error))}"))
    shows = [
        Evidence(
            who="chain",
            says=each.says,
            transaction=each.transaction,
            block_number=each.block_number,
            block_hash=each.block_hash,
            log_index=each.log_index,
        )
        for each in found
    ]
    told = {(each.verdict, each.transaction) for each in found if each.verdict != "open"}
    if len(told) > 1:
        disagree = Evidence(who="chain", says="The nodes disagree, so that none of them is believed.")
        return "could_not", [disagree, *shows, *troubles]
    decided = [at for at, each in enumerate(found) if each.verdict != "open"]
    if not decided or (len(decided) < len(nodes) and found[decided[0]].verdict == "not_settled"):
        # A second payment may follow a "not settled", so that every node must have said it. One that shows the
        # transfer is enough for "settled": the others may be behind.
        return "could_not", [*shows, *troubles]
    first = decided[0]
    verdict: Verdict = "settled" if found[first].verdict == "settled" else "not_settled"
    return verdict, [shows[first], *shows[:first], *shows[first + 1 :], *troubles]


def _read(entry: OpenEntry, tracer: Tracer) -> SignedPayment:
    """Read the signed payload, and hold it to the row that it stands in."""
    purchase = entry.purchase
    # The older wire does not say which offer it accepted; the journal does.
    accepted = PaymentRequirements(
        scheme=purchase.scheme,
        network=purchase.network,
        amount=str(purchase.amount),
        asset=purchase.asset,
        pay_to=purchase.pay_to,
        max_timeout_seconds=0,
    )
    payments = versions.wire_of_payment(entry.header).read_payments(entry.header, (accepted,))
    for payment in payments:
        signed = tracer.read(payment)
        if signed.payment_id == purchase.payment_id:
            return signed
    message = "it is not the payment that its row names"
    raise RemoteProtocolError(message)


# The facilitator.


def _ask_facilitator(purchase: Purchase) -> Flow[tuple[Evidence | None, Evidence]]:
    """Ask for the payment by its id: the evidence that it is settled, or None; and what was said, in any case."""
    try:
        status = yield from FindPayment(purchase.payment_id)
    except FacilitatorUnavailable as error:
        return None, Evidence(who="facilitator", says=f"It could not say: {shown(str(error))}")
    if status is None:
        return None, Evidence(who="facilitator", says="It does not know the payment; another one may.")
    if not _is_about(status, purchase):
        return None, Evidence(who="facilitator", says="What it answers is about another payment.")
    words = f"It says {shown(status.state)}" + (f": {shown(status.reason)}" if status.reason else "") + "."
    said = Evidence(
        who="facilitator",
        says=words,
        transaction=shown(status.transaction),
        block_number=status.block_number,
    )
    proves = status.state in _CONFIRMED and status.transaction != ""
    return (said if proves else None), said


def _is_about(status: PaymentStatus, purchase: Purchase) -> bool:
    return (
        status.payment_id == purchase.payment_id
        and status.network == purchase.network
        and status.amount == str(purchase.amount)
        and fold_asset(status.asset) == fold_asset(purchase.asset)
        and fold_asset(status.pay_to) == fold_asset(purchase.pay_to)
        and fold_asset(status.payer) == fold_asset(purchase.payer)
    )


# The seller.


def _ask_seller(entry: OpenEntry) -> Flow[tuple[State, Evidence, bytes]]:
    """Present the payment again, where the request is on record whole; its state then, what was said, and the body."""
    purchase = entry.purchase
    if describe_request(purchase.method, purchase.url, b"").request_print != entry.request_print:
        says = "Its request had a body, which is not on record: send the same request again instead."
        return purchase.state, Evidence(who="seller", says=f"Not asked. {says}"), b""
    leaves = yield from PresentAgain(purchase.purchase_id)
    if leaves is not True:
        why = "all payments are stopped" if leaves else "it was concluded just now"
        return purchase.state, Evidence(who="seller", says=f"Not asked: {why}."), b""
    wire = versions.wire_of_payment(entry.header)
    presented = yield from PresentPayment(
        purchase.method, purchase.url, wire.payment_header, entry.header, wire.response_header
    )
    paid = PaidRequest(
        purchase.purchase_id,
        purchase.payment_id,
        entry.header,
        purchase.network,
        purchase.payer,
        purchase.valid_before,
        None,
        None,
        wire,
        again=True,
    )
    try:
        receipt = yield from conclude(paid, presented.answer)
    except PaymentError as error:
        state: State = "refused" if isinstance(error, PaymentRefused) else "unknown"
        transaction = shown(error.transaction)
        return state, Evidence(who="seller", says=f"It answers: {error.reason}.", transaction=transaction), b""
    says = f"It answers {_status(presented.answer)}, and the payment is {receipt.state} by that."
    return receipt.state, Evidence(who="seller", says=says, transaction=receipt.transaction), presented.body


def _status(answer: Any) -> str:
    return str(answer.status) if isinstance(answer, PaidAnswer) else "nothing"
