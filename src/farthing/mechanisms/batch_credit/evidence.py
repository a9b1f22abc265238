"""What anybody can ask of a billed commitment: that the payer signed exactly what is billed.

A clearing house that takes thousands of lines holds them to the same by `farthing.clearing.intake`.

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
from farthing.signatures.agent import SIGNATURE_AGENT, read_agents
from farthing.signatures.digest import CONTENT_DIGEST
from farthing.signatures.fields import SignatureInvalid
from farthing.signatures.keys import PublicKey, decode_base64url
from farthing.signatures.messages import HttpRequest
from farthing.signatures.profile import LABEL, PAYMENT_SIGNATURE, read_profile
from farthing.signatures.signing import signature_lines

# One line of a base. Signers cover the profile's components in any order; what each must be `read_profile` says.
_LINE: Final = re.compile(r'"(?P<name>[^"\n]*)"(?:;key="(?P<key>[^"\n]*)")?: (?P<value>[^\n]*)')
_PARAMS: Final = "@signature-params"
_DERIVED: Final = ("@method", "@authority", "@path", "@query")


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
    values, key = _taken_apart(base)
    if values.keys() - {CONTENT_DIGEST} != {*_DERIVED, SIGNATURE_AGENT, PAYMENT_SIGNATURE, _PARAMS}:
        message = "the signature base is not that of a commitment"
        raise SignatureInvalid(message)
    agent = values[SIGNATURE_AGENT]
    lines = signature_lines(key or _label_of(agent), values[_PARAMS], signature)
    fields = {
        SIGNATURE_AGENT: (agent if key is None else f"{key}={agent}",),
        PAYMENT_SIGNATURE: (values[PAYMENT_SIGNATURE],),
        **{name.lower(): (value,) for name, value in lines},
    }
    if CONTENT_DIGEST in values:
        fields[CONTENT_DIGEST] = (values[CONTENT_DIGEST],)
    method, authority, path, query = (values[each] for each in _DERIVED)
    return HttpRequest(method, authority, path, "" if query == "?" else query, fields, scheme)


def _taken_apart(base: str) -> tuple[dict[str, str], str | None]:
    """Give the values by name, and the key by which the agent is covered; nothing for a base of another shape."""
    values: dict[str, str] = {}
    keys: dict[str, str | None] = {}
    for each in base.split("\n"):
        found = _LINE.fullmatch(each)
        if found is None or found["name"] in values or not each.isascii():
            return {}, None
        values[found["name"]], keys[found["name"]] = found["value"], found["key"]
    key = keys.pop(SIGNATURE_AGENT, None)
    return ({}, None) if any(each is not None for each in keys.values()) else (values, key)


def _label_of(agent: str) -> str:
    """The label of the signature whose agent is covered as a whole: a dictionary of one names it, a string does not."""
    agents = read_agents(agent)
    return (agents[0].label if len(agents) == 1 else None) or LABEL


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
        "resource": (line.resource if request.query else line.resource.removesuffix("?"), resource_url(request)),
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
