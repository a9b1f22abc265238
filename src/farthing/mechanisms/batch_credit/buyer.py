"""The buyer's face of payments on credit: a payload, and then the signature over the request that carries it."""

from __future__ import annotations

import base64
import hashlib
from typing import Final
from urllib.parse import urlsplit

import msgspec

from farthing.errors import SignerError
from farthing.flow import Flow, Now, RandomBytes
from farthing.mechanisms.batch_credit.payload import NETWORKS, SCHEME, CreditPayload, read_terms
from farthing.mechanisms.batch_credit.verify import KIND, signed_commitment
from farthing.mechanisms.interface import BoundPayment, PreparedPayment, Refusal, RequestToBind, SignedPayment
from farthing.protocol.identity import PaymentIdentity
from farthing.protocol.messages import PaymentRequirements
from farthing.signatures.agent import agent_origin, write_agent
from farthing.signatures.fields import serialize
from farthing.signatures.keys import SignData
from farthing.signatures.messages import HttpRequest, normal_authority
from farthing.signatures.profile import (
    LABEL,
    NONCE_SENT_BYTES,
    WINDOW_MAX_SECONDS,
    ProfileSignature,
    agent_member,
    request_base,
    request_params,
)
from farthing.signatures.signing import signature_lines


class Agent(msgspec.Struct, frozen=True):
    """Who pays: the origin of the agent's key directory, and the thumbprint of the key that it signs with.

    The key itself lives with the performers, which answer `SignData`.
    """

    origin: str
    key_id: str

    def __post_init__(self) -> None:
        """Hold the origin to one way of writing. Raises `SignatureInvalid`."""
        msgspec.structs.force_setattr(self, "origin", agent_origin(self.origin))


class BatchCreditBuyer:
    """Pays offers of `batch-settlement` on clearing networks by commitments of one agent."""

    scheme: str = SCHEME
    network: str = NETWORKS

    def __init__(self, agent: Agent) -> None:
        """Pay as `agent`."""
        self.agent: Final = agent

    @property
    def payer(self) -> str:
        """The origin of the agent's directory."""
        return self.agent.origin

    def passes_over(self, requirements: PaymentRequirements) -> str | None:
        """Say why this offer can't be paid here (decimals, currency, amount), or None where it can."""
        terms = read_terms(requirements)
        return terms.message if isinstance(terms, Refusal) else None

    def pay(self, requirements: PaymentRequirements, *, payer: str, nonce: bytes | None) -> Flow[PreparedPayment]:
        """Make the payload. What counts is signed by `bind`, when the payment header is written.

        `payer` is left to the agent; `nonce` makes the commitment's own, so that a purchase has one.
        """
        del payer
        if isinstance(found := read_terms(requirements), Refusal):
            message = f"The offer can't be paid: {found.message}"
            raise SignerError(message)
        now_seconds = yield from Now()
        if nonce is None:
            nonce = yield from RandomBytes(NONCE_SENT_BYTES)
        window = min(WINDOW_MAX_SECONDS, max(1, requirements.max_timeout_seconds))
        signed = SignedPayment(
            identity=PaymentIdentity(KIND, (self.payer, "")),
            fingerprint="",
            payer=self.payer,
            pay_to=requirements.pay_to,
            asset=requirements.asset,
            network=requirements.network,
            amount=requirements.atomic,
            valid_after=now_seconds,
            valid_before=now_seconds + window,
            detail=nonce,
        )
        return PreparedPayment(CreditPayload(requirements.amount, requirements.asset), signed)

    def bind(
        self, prepared: PreparedPayment, offer: PaymentRequirements, request: RequestToBind, *, payment_header: str
    ) -> Flow[BoundPayment]:
        """Sign the request with its payment header: the commitment. Yields `SignData`."""
        promised = prepared.signed
        bare = request_of(request)
        digest = content_digest_of(request)
        text = request_params(
            created=promised.valid_after,
            expires=promised.valid_before,
            key_id=self.agent.key_id,
            nonce=base64.b64encode(long_nonce(promised.detail)).decode("ascii"),
            key=LABEL,
            with_digest=digest is not None,
        )
        base = request_base(
            bare, text, agent_value=agent_member(self.payer), key=LABEL, payment=payment_header, digest=digest
        )
        signature = yield from SignData(self.agent.key_id, base)
        profile = ProfileSignature(
            LABEL,
            self.payer,
            self.agent.key_id,
            promised.valid_after,
            promised.valid_before,
            base64.b64encode(long_nonce(promised.detail)).decode("ascii"),
            digest is not None,
            base,
            signature,
            text,
        )
        commitment = signed_commitment(bare, profile, offer)
        headers = [
            ("Signature-Agent", write_agent(self.payer, label=LABEL)),
            *signature_lines(LABEL, text, signature),
        ]
        if digest is not None:
            headers.append(("Content-Digest", digest))
        return BoundPayment(tuple(headers), commitment.signed, commitment.evidence(), commitment.commitment_id)


def request_of(request: RequestToBind) -> HttpRequest:
    """The request as signatures see it."""
    parts = urlsplit(request.url)
    query = f"?{parts.query}" if parts.query else ""
    return HttpRequest(
        request.method, normal_authority(parts.netloc, parts.scheme), parts.path or "/", query, {}, parts.scheme
    )


def content_digest_of(request: RequestToBind) -> str | None:
    """The Content-Digest of a request with a body; None without one."""
    return serialize({"sha-256": bytes.fromhex(request.body_digest)}) if request.body_digest else None


def long_nonce(nonce: bytes) -> bytes:
    """The 64 bytes that are sent for a purchase's nonce, of whatever size it is."""
    return nonce if len(nonce) == NONCE_SENT_BYTES else hashlib.sha512(b"farthing commitment\x00" + nonce).digest()
