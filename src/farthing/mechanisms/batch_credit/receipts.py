"""The seller's answer to a commitment: PAYMENT-RESPONSE, and the signature over it that is the buyer's receipt."""

from __future__ import annotations

from typing import Final

import msgspec

from farthing.mechanisms.batch_credit.verify import SignedCommitment, signed_record
from farthing.protocol.clearing import Signed
from farthing.protocol.messages import SettlementResponse
from farthing.signatures.digest import CONTENT_DIGEST
from farthing.signatures.fields import SignatureInvalid
from farthing.signatures.keys import MessageSigner, PublicKey
from farthing.signatures.messages import HttpRequest, HttpResponse, field_value
from farthing.signatures.profile import (
    RECEIPT_TAG,
    SKEW_SECONDS,
    receipt_base,
    receipt_components,
    receipt_params,
)
from farthing.signatures.signing import ReceivedSignature, read_signatures, signature_base, signature_lines

PAYMENT_RESPONSE: Final = "payment-response"
COMMITMENT_ID: Final = "commitmentId"
# What a receipt may be older than the answer's arrival: an answer that streams may begin long before it is read.
RECEIPT_AGE_MAX_SECONDS: Final = 600


def settlement_of(commitment: SignedCommitment, *, now_seconds: int) -> SettlementResponse:
    """Write what PAYMENT-RESPONSE says of a commitment: accepted, and by which id it will be billed."""
    signed = commitment.signed
    return settlement_for(
        network=signed.network,
        payer=signed.payer,
        amount=signed.amount,
        asset=signed.asset,
        commitment_id=commitment.commitment_id,
        now_seconds=now_seconds,
    )


def settlement_for(
    *, network: str, payer: str, amount: int, asset: str, commitment_id: str, now_seconds: int
) -> SettlementResponse:
    """Write the same of its parts."""
    return SettlementResponse(
        success=True,
        transaction="",
        network=network,
        payer=payer,
        amount=str(amount),
        extra={"timestamp": now_seconds, COMMITMENT_ID: commitment_id},
        asset=asset,
    )


def sign_receipt(
    commitment: SignedCommitment,
    request: HttpRequest,
    *,
    status: int,
    payment_response: str,
    signer: MessageSigner,
    now_seconds: int,
    digest: str | None = None,
) -> tuple[tuple[tuple[str, str], tuple[str, str]], Signed]:
    """Sign an answer: its header lines Signature-Input and Signature, and the record of it.

    `payment_response` is the PAYMENT-RESPONSE value as it is sent; `digest` the answer's Content-Digest, where its body
    is buffered.
    """
    lines, base, signature = receipt_for(
        commitment,
        request,
        status=status,
        payment_response=payment_response,
        signer=signer,
        now_seconds=now_seconds,
        digest=digest,
    )
    return lines, signed_record(base, signature, signer.public_key.thumbprint)


def receipt_for(
    commitment: SignedCommitment,
    request: HttpRequest,
    *,
    status: int,
    payment_response: str,
    signer: MessageSigner,
    now_seconds: int,
    digest: str | None,
) -> tuple[tuple[tuple[str, str], tuple[str, str]], bytes, bytes]:
    """Sign an answer likewise: its header lines, the signature base, and the signature."""
    profile = commitment.profile
    text = receipt_params(
        label=profile.label, created=now_seconds, key_id=signer.public_key.thumbprint, with_digest=digest is not None
    )
    base = receipt_base(
        text, status=status, payment_response=payment_response, request=request, signed=profile, digest=digest
    )
    signature = signer.sign(base)
    return signature_lines("receipt", text, signature), base, signature


class ReadReceipt(msgspec.Struct, frozen=True):
    """A receipt as it came, read and not verified yet: `key_id` names a key in the seller's directory."""

    key_id: str
    created: int
    base: bytes
    signature: bytes
    covers_digest: bool

    def verified_by(self, key: PublicKey) -> bool:
        """Tell whether this key signed it."""
        return key.thumbprint == self.key_id and key.verifies(self.signature, self.base)

    def evidence(self) -> Signed:
        """What the journal keeps of it."""
        return signed_record(self.base, self.signature, self.key_id)


def read_receipt(response: HttpResponse, *, label: str, now_seconds: int) -> ReadReceipt:
    """Read the receipt in an answer to the request whose signature has this label.

    Raises `SignatureInvalid` where there is none, or it covers less than it must.
    """
    tagged = [each for each in read_signatures(response.fields) if each.params.tag == RECEIPT_TAG]
    if len(tagged) != 1:
        message = f"the answer has {len(tagged)} signatures with the tag {RECEIPT_TAG!r}; one is needed"
        raise SignatureInvalid(message)
    received = tagged[0]
    wanted = {each.identity for each in receipt_components(label)}
    if not wanted <= {each.identity for each in received.covered}:
        message = (
            "the receipt covers less than status, payment-response, and the request's authority, path and signature"
        )
        raise SignatureInvalid(message)
    covers_digest = received.covers(CONTENT_DIGEST)
    if field_value(response.fields, CONTENT_DIGEST) is not None and not covers_digest:
        message = "the answer has a Content-Digest, and the receipt does not cover it"
        raise SignatureInvalid(message)
    return _read(response, received, covers_digest=covers_digest, now_seconds=now_seconds)


def _read(response: HttpResponse, received: ReceivedSignature, *, covers_digest: bool, now_seconds: int) -> ReadReceipt:
    params = received.params
    if params.keyid is None or params.created is None or params.alg not in {None, "ed25519"}:
        message = "the receipt needs created and keyid, by Ed25519"
        raise SignatureInvalid(message)
    if not -SKEW_SECONDS <= now_seconds - params.created <= RECEIPT_AGE_MAX_SECONDS:
        message = f"the receipt was made {now_seconds - params.created} s ago"
        raise SignatureInvalid(message)
    base = signature_base(response, received.covered, received.text)
    return ReadReceipt(params.keyid, params.created, base, received.signature, covers_digest)
