"""Whether a seller's answer proves that it took a promise: its signed receipt, by a key of its own directory.

Needs the extra `credit`; who pays on chain alone never imports it.
"""

from __future__ import annotations

import msgspec

from farthing.buyer.journal import Promise
from farthing.errors import RemoteProtocolError
from farthing.flow import Flow, Now
from farthing.mechanisms.batch_credit.cloudflare import read_answer
from farthing.mechanisms.batch_credit.evidence import request_of_base
from farthing.mechanisms.batch_credit.payload import CLOUDFLARE
from farthing.mechanisms.batch_credit.receipts import COMMITMENT_ID, PAYMENT_RESPONSE, read_receipt
from farthing.mechanisms.batch_credit.verify import decode_signature
from farthing.protocol.clearing import Signed
from farthing.protocol.messages import SettlementResponse
from farthing.signatures.agent import agent_origin
from farthing.signatures.directory import FindKey
from farthing.signatures.messages import HttpResponse, gather_fields
from farthing.signatures.profile import read_profile

# Codes for the journal: what an answer lacks that would prove the promise taken.
NO_SETTLEMENT: str = "no_settlement_proof"
OTHER_COMMITMENT: str = "other_commitment"
RECEIPT_INVALID: str = "receipt_invalid"
RECEIPT_UNVERIFIED: str = "receipt_unverified"


class Proof(msgspec.Struct, frozen=True):
    """What was found: `lacks` is a code, empty where the receipt proves it taken; `receipt` is for the journal."""

    lacks: str = ""
    receipt: Signed | None = None


def prove(
    promise: Promise,
    network: str,
    url: str,
    *,
    status: int,
    response: SettlementResponse | None,
    lines: tuple[tuple[str, str], ...],
) -> Flow[Proof]:
    """Judge an answer to a promise (SAFETY B1): success, our network, our commitment id, and the seller's signature.

    `lines` are the answer's PAYMENT-RESPONSE, Signature-Input, Signature and Content-Digest.

    Yields `Now` and `FindKey`.
    """
    if network == CLOUDFLARE:
        return _by_word_alone(lines)
    if response is None or not response.success or response.network != network:
        return Proof(NO_SETTLEMENT)
    if (response.extra or {}).get(COMMITMENT_ID) != promise.promise_id:
        return Proof(OTHER_COMMITMENT)
    now_seconds = yield from Now()
    try:
        signature = decode_signature(promise.evidence.signature) or b""
        request = request_of_base(promise.evidence.base, signature, scheme=url.partition("://")[0])
        label = read_profile(request).label
        receipt = read_receipt(
            HttpResponse(status, gather_fields(lines), request), label=label, now_seconds=now_seconds
        )
        seller = agent_origin(f"{request.scheme}://{request.authority}")
    except RemoteProtocolError:
        return Proof(RECEIPT_INVALID)
    key = yield from FindKey(seller, receipt.key_id)
    if key is None:
        return Proof(RECEIPT_UNVERIFIED)
    return Proof("", receipt.evidence()) if receipt.verified_by(key) else Proof(RECEIPT_INVALID)


def _by_word_alone(lines: tuple[tuple[str, str], ...]) -> Proof:
    # No id and no signature are to be had there: the merchant of record says that it was charged, or it does not.
    said = next((value for name, value in lines if name.lower() == PAYMENT_RESPONSE), None)
    answer = None if said is None else read_answer(said)
    return Proof("" if answer is not None and answer.success and answer.network == CLOUDFLARE else NO_SETTLEMENT)
