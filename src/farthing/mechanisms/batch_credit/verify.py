"""The local verifier of a seller's edge: is this request a commitment for this offer, by a key that we know?

Pure and fast: nobody is asked, nothing is written. What it leaves to the edge: standing and credit of the payer, and
that a nonce is taken once (payer and nonce, kept until `expires` and the skew are over; then payer and commitment id,
unique in the store).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable
from typing import Final

import msgspec

from farthing.errors import RemoteProtocolError
from farthing.mechanisms.batch_credit import reasons
from farthing.mechanisms.batch_credit.payload import read_payload, read_terms
from farthing.mechanisms.interface import Refusal, SignedPayment
from farthing.protocol.clearing import BASE_MAX_CHARS, DECIMALS, Commitment, Signed
from farthing.protocol.codec import decode_payment
from farthing.protocol.identity import PaymentIdentity
from farthing.protocol.messages import URL_MAX_CHARS, PaymentPayload, PaymentRequirements
from farthing.signatures.digest import CONTENT_DIGEST, digest_fault
from farthing.signatures.fields import SignatureInvalid
from farthing.signatures.keys import PublicKey
from farthing.signatures.messages import HttpRequest, field_value
from farthing.signatures.profile import (
    PAYMENT_SIGNATURE,
    SKEW_SECONDS,
    ProfileSignature,
    read_profile,
    window_fault,
)

KIND: Final = "commitment"
# How long an edge must remember (payer, nonce) after `expires`: as long as a copy could still be taken for open.
NONCE_KEPT_SECONDS: Final = SKEW_SECONDS + 1

Keys = Callable[[str, str], PublicKey | None]
"""Finds a key by the agent's directory (an origin) and the key's thumbprint, among those that are known here."""


class UnknownKey(msgspec.Struct, frozen=True):
    """The verdict that there is none yet: no such key is known here. Fetch the agent's directory, and judge again."""

    agent: str
    key_id: str


class SignedCommitment(msgspec.Struct, frozen=True, gc=False):
    """A commitment whose signature was verified: what the edge logs, serves for and passes on.

    `signed` is the payment as every mechanism reads one: identity (payer, commitment id), amount, payee, window.
    `resource` is the URL as it was signed.
    """

    signed: SignedPayment
    commitment_id: str
    profile: ProfileSignature
    resource: str
    method: str

    @property
    def nonce(self) -> tuple[str, str]:
        """What may be taken once: payer and nonce."""
        return self.signed.payer, self.profile.nonce

    def evidence(self) -> Signed:
        """All that verifies it for years: base, signature, the key's thumbprint."""
        return signed_record(self.profile.base, self.profile.signature, self.profile.key_id)

    def line(self, *, committed: int, lease: str = "", sent: bool = False, receipt: Signed | None = None) -> Commitment:
        """Write it as edges upload it; `committed` is when it became durable at the edge (Unix seconds)."""
        signed, evidence = self.signed, self.evidence()
        return Commitment(
            id=self.commitment_id,
            payer=signed.payer,
            payee=signed.pay_to,
            key=evidence.key,
            method=self.method,
            resource=self.resource,
            amount=str(signed.amount),
            currency=signed.asset,
            decimals=DECIMALS,
            created=signed.valid_after,
            expires=signed.valid_before,
            committed=committed,
            base=evidence.base,
            signature=evidence.signature,
            lease=lease,
            sent=sent,
            receipt=receipt,
        )


def commitment_id(base: bytes) -> str:
    """The id that both sides compute: `sha256:` and the hash, in hex, of the RFC 9421 signature base."""
    return "sha256:" + hashlib.sha256(base).hexdigest()


def fingerprint_of(base: bytes, signature: bytes) -> str:
    """Hash all that was signed, with the signature."""
    return hashlib.sha256(base + b"\n" + signature).hexdigest()


def signed_record(base: bytes, signature: bytes, key_id: str) -> Signed:
    """Write a signature as the clearing network keeps it."""
    return Signed(base.decode("ascii"), binascii.b2a_base64(signature, newline=False).decode("ascii"), key_id)


def verify_commitment(
    request: HttpRequest,
    *,
    offer: PaymentRequirements,
    keys: Keys,
    now_seconds: int,
    body: bytes | None = None,
    payment: PaymentPayload | None = None,
    resource: str | None = None,
) -> SignedCommitment | UnknownKey | Refusal:
    """Judge a request with a commitment against the one offer that its route makes for it.

    `request` has the authority from the configuration (never Host's) and the path as it was sent; `body` the whole body
    where there is one; `payment` the decoded PAYMENT-SIGNATURE, where the edge has decoded it already; `resource` the
    URL as it was offered, where that is written otherwise than the request's.

    Refusals: `invalid_payment_signature` for a payment header that can't be read, `price_not_acceptable` for another
    offer, `invalid_signature` for all that concerns the signature.
    """
    try:
        paid = decode_payment(field_value(request.fields, PAYMENT_SIGNATURE) or "") if payment is None else payment
        fault = offer_fault(paid, offer, resource or resource_url(request))
    except RemoteProtocolError as error:
        return Refusal(reasons.INVALID_PAYMENT_SIGNATURE, str(error))
    if fault is not None:
        return fault
    profile = _readable(request, body, now_seconds)
    if isinstance(profile, Refusal):
        return profile
    key = keys(profile.agent, profile.key_id)
    if key is None:
        return UnknownKey(profile.agent, profile.key_id)
    # The key that was found must be the one that the signature names, whoever keeps the table.
    if key.thumbprint != profile.key_id or not key.verifies(profile.signature, profile.base):
        return Refusal(reasons.INVALID_SIGNATURE, "the signature is not that key's over this request")
    return signed_commitment(request, profile, offer)


def signed_commitment(request: HttpRequest, profile: ProfileSignature, offer: PaymentRequirements) -> SignedCommitment:
    """Put a commitment together, whose signature was verified, or was made here."""
    # `commitment_id` and `fingerprint_of` (a test compares), with the base hashed once for both.
    hashed = hashlib.sha256(profile.base)
    identifier = "sha256:" + hashed.hexdigest()
    hashed.update(b"\n" + profile.signature)
    signed = SignedPayment(
        identity=PaymentIdentity(KIND, (profile.agent, identifier)),
        fingerprint=hashed.hexdigest(),
        payer=profile.agent,
        pay_to=offer.pay_to,
        asset=offer.asset,
        network=offer.network,
        amount=offer.atomic,
        valid_after=profile.created,
        valid_before=profile.expires,
    )
    return SignedCommitment(signed, identifier, profile, resource_url(request), request.method)


def resource_url(request: HttpRequest) -> str:
    """The URL that a request names, written as everywhere here."""
    return f"{request.scheme}://{request.authority}{request.path or '/'}{request.query}"


def offer_fault(payment: PaymentPayload, offer: PaymentRequirements, resource: str) -> Refusal | None:
    """Hold a payment to an offer (SAFETY S4). Raises `RemoteProtocolError` for a payload that can't be read."""
    if payment.accepted != offer:
        return Refusal(reasons.PRICE_NOT_ACCEPTABLE, "the payment accepts another offer than this route makes")
    # As it was signed: 6.0 and 6 are equal, and the clearing house reads whole numbers alone.
    terms = read_terms(payment.accepted)
    if isinstance(terms, Refusal):
        return terms
    promised = read_payload(payment)
    if promised.amount != offer.amount or promised.asset != offer.asset:
        return Refusal(reasons.PRICE_NOT_ACCEPTABLE, "the payload promises another amount or asset than it accepts")
    if payment.resource is not None and payment.resource.url != resource:
        return Refusal(reasons.PRICE_NOT_ACCEPTABLE, "the payment names another resource than this one")
    return None


def _readable(request: HttpRequest, body: bytes | None, now_seconds: int) -> ProfileSignature | Refusal:
    """Read the signature and judge all of it that needs no key."""
    try:
        profile = read_profile(request)
        why = window_fault(profile, now_seconds) or _body_fault(request, profile, body)
    except SignatureInvalid as error:
        return Refusal(reasons.INVALID_SIGNATURE, str(error))
    if why is None and (len(profile.base) > BASE_MAX_CHARS or len(resource_url(request)) > URL_MAX_CHARS):
        why = f"the URL is longer than {URL_MAX_CHARS} characters, or all that is signed than {BASE_MAX_CHARS}"
    return profile if why is None else Refusal(reasons.INVALID_SIGNATURE, why)


def _body_fault(request: HttpRequest, profile: ProfileSignature, body: bytes | None) -> str | None:
    if not profile.covers_digest:
        return "the request has a body, and the signature does not cover content-digest" if body else None
    return digest_fault(field_value(request.fields, CONTENT_DIGEST) or "", body or b"")


def repeat_fault(request: HttpRequest, profile: ProfileSignature, body: bytes, now_seconds: int) -> str | None:
    """Say why a request whose signature was verified before is not to be taken for it now: too late, another body."""
    try:
        return window_fault(profile, now_seconds) or _body_fault(request, profile, body)
    except SignatureInvalid as error:
        return str(error)


def decode_signature(text: str) -> bytes | None:
    """Decode a signature's base64; None where it is none."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return None
