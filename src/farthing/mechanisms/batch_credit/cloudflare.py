"""The buyer's face of `cloudflare:402`: the same scheme on a network that signs less.

What is signed is `"@authority" "signature-agent" "payment-signature"`: neither method, nor path, nor body, and the
answer names no commitment and is not signed. So a captured request opens other pages of that host until it expires, and
nothing but Cloudflare's word says what was charged; `docs/signatures.md` tells what that means for a buyer. Amounts are
cents, and stay cents in the journal: the table of tokens says so (two decimals), and the policy counts by it.

There is no seller's face: Cloudflare is the merchant of record there, so that a seller of ours would be paid by nobody.
"""

from __future__ import annotations

import base64
from typing import Final

import msgspec

from farthing.errors import RemoteProtocolError, SignerError
from farthing.flow import Flow, Now, RandomBytes
from farthing.mechanisms.batch_credit.buyer import Agent, long_nonce, request_of
from farthing.mechanisms.batch_credit.payload import CLOUDFLARE, SCHEME, CreditPayload
from farthing.mechanisms.batch_credit.verify import KIND, commitment_id, fingerprint_of, signed_record
from farthing.mechanisms.interface import BoundPayment, PreparedPayment, RequestToBind, SignedPayment
from farthing.protocol.clearing import LINE_AMOUNT_MAX
from farthing.protocol.codec import decode_settlement, decode_with, unpack_header
from farthing.protocol.identity import PaymentIdentity
from farthing.protocol.messages import PaymentRequirements, SettlementResponse
from farthing.signatures.agent import write_agent
from farthing.signatures.keys import SignData
from farthing.signatures.messages import HttpRequest, component
from farthing.signatures.profile import LABEL, NONCE_SENT_BYTES, REQUEST_TAG, WINDOW_MAX_SECONDS
from farthing.signatures.signing import SignatureParams, signature_base, signature_lines, signature_params

_CURRENCY: Final = "USD"
_COVERED: Final = tuple(component(each) for each in ("@authority", "signature-agent", "payment-signature"))


class _AprilAnswer(msgspec.Struct, frozen=True):
    """The answer as it was first published: without `success`."""

    amount: str
    asset: str
    network: str
    timestamp: int | str = 0


_april_decoder = msgspec.json.Decoder(_AprilAnswer)


class CloudflareBuyer:
    """Pays offers of `batch-settlement` on `cloudflare:402` as one agent."""

    scheme: str = SCHEME
    network: str = CLOUDFLARE

    def __init__(self, agent: Agent) -> None:
        """Pay as `agent`."""
        self.agent: Final = agent

    @property
    def payer(self) -> str:
        """The origin of the agent's directory."""
        return self.agent.origin

    def passes_over(self, requirements: PaymentRequirements) -> str | None:
        """Say why this offer can't be paid here, or None where it can."""
        if requirements.asset != _CURRENCY:
            return f"the asset is {requirements.asset!r}; {CLOUDFLARE} counts cents of {_CURRENCY}"
        if not 0 < requirements.atomic <= LINE_AMOUNT_MAX:
            return f"the amount is {requirements.amount} cents"
        return None

    def pay(self, requirements: PaymentRequirements, *, payer: str, nonce: bytes | None) -> Flow[PreparedPayment]:
        """Make the payload; `bind` signs."""
        del payer
        why = self.passes_over(requirements)
        if why is not None:
            message = f"The offer can't be paid: {why}"
            raise SignerError(message)
        now_seconds = yield from Now()
        if nonce is None:
            nonce = yield from RandomBytes(NONCE_SENT_BYTES)
        signed = SignedPayment(
            identity=PaymentIdentity(KIND, (self.payer, "")),
            fingerprint="",
            payer=self.payer,
            pay_to=requirements.pay_to,
            asset=requirements.asset,
            network=requirements.network,
            amount=requirements.atomic,
            valid_after=now_seconds,
            valid_before=now_seconds + WINDOW_MAX_SECONDS,
            detail=nonce,
        )
        return PreparedPayment(CreditPayload(requirements.amount, requirements.asset), signed)

    def bind(
        self, prepared: PreparedPayment, offer: PaymentRequirements, request: RequestToBind, *, payment_header: str
    ) -> Flow[BoundPayment]:
        """Sign authority, agent and payment. The id is our own: nobody there computes one."""
        del offer
        promised, bare = prepared.signed, request_of(request)
        # A nonce is more than they ask for; Web Bot Auth has it, and it keeps two purchases of one page apart.
        params = SignatureParams(
            created=promised.valid_after,
            expires=promised.valid_before,
            keyid=self.agent.key_id,
            nonce=base64.b64encode(long_nonce(promised.detail)).decode("ascii"),
            tag=REQUEST_TAG,
        )
        agent = write_agent(self.payer, label=None)
        fields = {"signature-agent": (agent,), "payment-signature": (payment_header,)}
        text = signature_params(_COVERED, params)
        seen = HttpRequest(bare.method, bare.authority, bare.path, bare.query, fields, bare.scheme)
        base = signature_base(seen, _COVERED, text)
        signature = yield from SignData(self.agent.key_id, base)
        promise_id = commitment_id(base)
        signed = msgspec.structs.replace(
            promised,
            identity=PaymentIdentity(KIND, (self.payer, promise_id)),
            fingerprint=fingerprint_of(base, signature),
            detail=None,
        )
        headers = (("Signature-Agent", agent), *signature_lines(LABEL, text, signature))
        return BoundPayment(headers, signed, signed_record(base, signature, self.agent.key_id), promise_id)


def read_answer(header: str) -> SettlementResponse | None:
    """Read PAYMENT-RESPONSE in the newer form or the older; None for neither."""
    try:
        return decode_settlement(header)
    except RemoteProtocolError:
        pass
    try:
        data = unpack_header(header, what="PAYMENT-RESPONSE")
        april = decode_with(_april_decoder, data, what="PAYMENT-RESPONSE")
    except RemoteProtocolError:
        return None
    return SettlementResponse(
        success=True, transaction="", network=april.network, amount=april.amount, asset=april.asset
    )
