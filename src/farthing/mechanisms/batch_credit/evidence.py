"""What a clearing house asks of a commitment that an edge uploads: that the payer signed exactly what will be billed.

The signature base says it all: it is taken apart into the request that was signed, read by the same profile as at the
edge, and held to every member of the line. So a line can be judged years later, by anybody who has it and the key.
"""

from __future__ import annotations

import re
from typing import Final

from farthing.errors import RemoteProtocolError
from farthing.mechanisms.batch_credit import reasons
from farthing.mechanisms.batch_credit.payload import SCHEME, read_payload
from farthing.mechanisms.batch_credit.verify import commitment_id, decode_signature, resource_url
from farthing.mechanisms.interface import Refusal
from farthing.protocol.clearing import DECIMALS, Commitment, PublicJwk
from farthing.protocol.codec import decode_payment
from farthing.signatures.fields import SignatureInvalid
from farthing.signatures.keys import PublicKey, decode_base64url
from farthing.signatures.messages import HttpRequest
from farthing.signatures.profile import LABEL, read_profile
from farthing.signatures.signing import signature_lines

# The profile's lines, and perhaps a content-digest.
_LINES: Final = re.compile(
    r'"@method": (?P<method>[^\n]*)\n"@authority": (?P<authority>[^\n]*)\n"@path": (?P<path>[^\n]*)\n'
    r'"@query": (?P<query>\?[^\n]*)\n"signature-agent"(?:;key="(?P<key>[^"\n]*)")?: (?P<agent>[^\n]*)\n'
    r'"payment-signature": (?P<payment>[^\n]*)\n(?:"content-digest": (?P<digest>[^\n]*)\n)?'
    r'"@signature-params": (?P<params>[^\n]*)'
)


def key_of_record(jwk: PublicJwk) -> PublicKey | None:
    """The key of an archived JWK; None where it is none."""
    raw = decode_base64url(jwk.x)
    try:
        return None if raw is None else PublicKey(raw)
    except SignatureInvalid:
        return None


def judge_line(line: Commitment, key: PublicKey, *, network: str, verify: bool = True) -> Refusal | None:
    """Judge a line by its own evidence and the archived key. None: the payer signed what it says.

    `network` is the clearing house's own; `verify=False` leaves the signature out, for who has verified it before.
    """
    try:
        fault = _fault(line, key, network)
    except (SignatureInvalid, RemoteProtocolError) as error:
        return Refusal(reasons.INVALID_SIGNATURE, str(error))
    if fault:
        return Refusal(reasons.INVALID_SIGNATURE, fault)
    signature = decode_signature(line.signature)
    if verify and (signature is None or not key.verifies(signature, line.base.encode("ascii"))):
        return Refusal(reasons.INVALID_SIGNATURE, "the key did not sign this base")
    return None


def request_of_base(base: str, signature: bytes, *, scheme: str = "https") -> HttpRequest:
    """Give the request back whose signature base this is. Raises `SignatureInvalid` for a base of another shape.

    An empty query was either none or a `?`, which the base does not tell apart: it counts as none.
    """
    found = _LINES.fullmatch(base)
    if found is None or not base.isascii():
        message = "the signature base is not that of a commitment, in the order in which edges accept it"
        raise SignatureInvalid(message)
    key, agent = found["key"], found["agent"]
    label = key or LABEL
    lines = dict(signature_lines(label, found["params"], signature))
    fields = {
        "signature-agent": (agent if key is None else f"{key}={agent}",),
        "payment-signature": (found["payment"],),
        "signature-input": (lines["Signature-Input"],),
        "signature": (lines["Signature"],),
    }
    if found["digest"] is not None:
        fields["content-digest"] = (found["digest"],)
    query = "" if found["query"] == "?" else found["query"]
    return HttpRequest(found["method"], found["authority"], found["path"], query, fields, scheme)


def _fault(line: Commitment, key: PublicKey, network: str) -> str:
    if not line.base.isascii() or line.id != commitment_id(line.base.encode("ascii")):
        return "the id is not that of the signature base"
    signature = decode_signature(line.signature)
    if signature is None:
        return "the signature is not base64"
    scheme = line.resource.partition("://")[0]
    request = request_of_base(line.base, signature, scheme=scheme)
    profile = read_profile(request)
    if profile.base != line.base.encode("ascii"):
        return "the signature base is written in another way than its request"
    payment = decode_payment(request.fields["payment-signature"][0])
    accepted, promised = payment.accepted, read_payload(payment)
    pairs = {
        "payer": (line.payer, profile.agent),
        "key": (line.key, profile.key_id),
        "the archived key": (key.thumbprint, profile.key_id),
        "method": (line.method, request.method),
        "resource": (line.resource.removesuffix("?"), resource_url(request)),
        "created": (line.created, profile.created),
        "expires": (line.expires, profile.expires),
        "scheme": (SCHEME, accepted.scheme),
        "network": (network, accepted.network),
        "payee": (line.payee, accepted.pay_to),
        "amount": (line.amount, accepted.amount),
        "promised amount": (line.amount, promised.amount),
        "currency": (line.currency, accepted.asset),
        "promised asset": (line.currency, promised.asset),
        "decimals": (line.decimals, DECIMALS),
        "extra.decimals": ((accepted.extra or {}).get("decimals"), DECIMALS),
    }
    for name, (said, signed) in pairs.items():
        if said != signed:
            return f"{name} is {said!r}, and what was signed says {signed!r}"
    return ""
