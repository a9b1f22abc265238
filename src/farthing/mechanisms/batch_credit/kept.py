"""A commitment as an edge's log keeps it: what follows from the rest is left out, and written again for the upload.

The line of an upload says much twice: the receipt's base repeats the request's signature, its parameters and
PAYMENT-RESPONSE, which repeats the offer. Kept are the signature base of the request, both signatures as bytes, and
what stands in neither: less than half of the bytes.

The form is the log's own, and has a number: what an older version kept must be written out as that version would have
done it, to the letter, or its receipt would verify no more. A test holds `written_out` to what was kept once.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from farthing.mechanisms.batch_credit.receipts import settlement_for
from farthing.mechanisms.batch_credit.verify import SignedCommitment, commitment_id, signed_record
from farthing.protocol.clearing import DECIMALS, Commitment
from farthing.protocol.codec import pack_header
from farthing.signatures.profile import receipt_base_of, receipt_params

FORM: Final = 1  # a line of another form is not read as this one
_PARAMS: Final = '"@signature-params": '


class KeptReceipt(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What makes a receipt: the answer's status and the digest of its body, where that was buffered; key, signature."""

    status: int
    digest: str | None
    key: str
    signature: bytes


class KeptCommitment(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A commitment, as it is kept. `base` is what the payer signed; amounts in atomic units, times in Unix seconds."""

    form: Literal[1]
    base: bytes
    signature: bytes
    key: str
    label: str
    payer: str
    payee: str
    method: str
    resource: str
    network: str
    amount: int
    currency: str
    created: int
    expires: int
    committed: int
    lease: str
    lapsed: bool
    receipt: KeptReceipt


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(KeptCommitment)


def keep(commitment: SignedCommitment, receipt: KeptReceipt, *, committed: int, lease: str) -> KeptCommitment:
    """Make what is kept of a commitment; `committed` is when it became durable, and the receipt was made."""
    signed, profile = commitment.signed, commitment.profile
    return KeptCommitment(
        FORM,
        profile.base,
        profile.signature,
        profile.key_id,
        profile.label,
        signed.payer,
        signed.pay_to,
        commitment.method,
        commitment.resource,
        signed.network,
        signed.amount,
        signed.asset,
        signed.valid_after,
        signed.valid_before,
        committed,
        lease,
        False,  # noqa: FBT003 - the lease was good when it was taken
        receipt,
    )


def pack_kept(kept: KeptCommitment) -> bytes:
    """Write it as the log has it."""
    return _encoder.encode(kept)


def unpack_kept(data: bytes) -> KeptCommitment:
    """Read it."""
    return _decoder.decode(data)


def written_out(kept: KeptCommitment, *, sent: bool = False) -> Commitment:
    """Write a commitment as edges upload it; `sent` says that its answer went out whole."""
    evidence = signed_record(kept.base, kept.signature, kept.key)
    identifier = commitment_id(kept.base)
    settlement = settlement_for(
        network=kept.network,
        payer=kept.payer,
        amount=kept.amount,
        asset=kept.currency,
        commitment_id=identifier,
        now_seconds=kept.committed,
    )
    receipt, with_digest = kept.receipt, kept.receipt.digest is not None
    # As `resource_url` has put them together: an authority has no slash, and a path no question mark.
    authority, slash, rest = kept.resource.partition("://")[2].partition("/")
    base = receipt_base_of(
        receipt_params(label=kept.label, created=kept.committed, key_id=receipt.key, with_digest=with_digest),
        status=receipt.status,
        payment_response=pack_header(settlement),
        authority=authority,
        path=slash + rest.partition("?")[0],
        label=kept.label,
        signature=evidence.signature,
        # The last line: no value of a base has a line break.
        input_text=evidence.base[evidence.base.rindex("\n") + 1 + len(_PARAMS) :],
        digest=receipt.digest,
    )
    return Commitment(
        id=identifier,
        payer=kept.payer,
        payee=kept.payee,
        key=kept.key,
        method=kept.method,
        resource=kept.resource,
        amount=str(kept.amount),
        currency=kept.currency,
        decimals=DECIMALS,
        created=kept.created,
        expires=kept.expires,
        committed=kept.committed,
        base=evidence.base,
        signature=evidence.signature,
        lease=kept.lease,
        sent=sent,
        lapsed=kept.lapsed,
        receipt=signed_record(base, receipt.signature, receipt.key),
    )
