"""The one signature that a clearing network's edges judge thousands of times a second: covered components fixed.

A commitment covers `"@method" "@authority" "@path" "@query" "signature-agent";key="sig" "payment-signature"`, and
`"content-digest"` where there is a body; its parameters are `created`, `expires`, `keyid`, `nonce`, perhaps `alg`, and
`tag="web-bot-auth"`. Written in that order, as everybody here writes it, it is read by one pattern; any other order is
read by `farthing.signatures.signing`, at some ten times the cost, and held to the same.

The seller's answer (a receipt) covers `"@status" "payment-response"`, and of the request `"@authority" "@path"` and
this signature with its input; `"content-digest"` where the answer is buffered; its tag is `x402-response`.
"""

from __future__ import annotations

import binascii
import re
from typing import Final

import msgspec

from farthing.signatures.agent import SIGNATURE_AGENT, agent_for, agent_origin
from farthing.signatures.digest import CONTENT_DIGEST
from farthing.signatures.fields import SignatureInvalid, parse_list, serialize_member
from farthing.signatures.keys import SIGNATURE_SIZE_BYTES, THUMBPRINT_CHARS
from farthing.signatures.messages import Component, HttpRequest, component, field_value
from farthing.signatures.signing import (
    SIGNATURE,
    SIGNATURE_INPUT,
    ReceivedSignature,
    read_signatures,
    signature_base,
)

PAYMENT_SIGNATURE: Final = "payment-signature"
REQUEST_TAG: Final = "web-bot-auth"
RECEIPT_TAG: Final = "x402-response"
LABEL: Final = "sig"

# A promise is good for one request, now: what is captured is of no use a minute later.
WINDOW_MAX_SECONDS: Final = 60
# Two machines that keep time by NTP differ by far less; one that does not is told so.
SKEW_SECONDS: Final = 30
# 128 bits keep nonces apart; Web Bot Auth's reference library takes 64 bytes and nothing else, so we send as many.
NONCE_MIN_BYTES: Final = 16
NONCE_SENT_BYTES: Final = 64
NONCE_MAX_CHARS: Final = 256
# All of `@signature-params` as written here has 350 characters; a line of an upload holds it twice.
PARAMS_MAX_CHARS: Final = 1_024
# No others: a second reader, the clearing house, must not read another one's text for one of these.
_PARAMS: Final = frozenset({"created", "expires", "keyid", "alg", "nonce", "tag"})

_KEY = r"[a-z*][a-z0-9_.*-]{0,63}"
_FIXED = '"@method" "@authority" "@path" "@query"'
_INPUT: Final = re.compile(
    rf"(?P<label>{_KEY})=(?P<text>\({_FIXED} "
    rf'"signature-agent"(?:;key="(?P<key>{_KEY})")? "payment-signature"(?P<digest> "content-digest")?\)'
    r';created=(?P<created>[1-9][0-9]{0,14});expires=(?P<expires>[1-9][0-9]{0,14});keyid="(?P<keyid>[A-Za-z0-9_-]{43})"'
    r'(?:;alg="ed25519")?;nonce="(?P<nonce>[A-Za-z0-9+/=_-]{22,256})";tag="web-bot-auth")',
    re.ASCII,
)
_SIGNATURE: Final = re.compile(rf"({_KEY})=(:([A-Za-z0-9+/]{{85}}[AQgw]==):)", re.ASCII)
# A member without parameters whose string needs no escapes: the scheme, and what a host and a port are made of.
_AGENT: Final = re.compile(rf'(?:({_KEY})=)?("(https?://[a-z0-9.-]+(?::[0-9]{{1,5}})?)")', re.ASCII)
_WITH_OWN_PORT: Final = (":80", ":443")
# Base64 of either alphabet, padded or not: of an incomplete last group the bits that mean nothing are zero.
_DIGIT = r"[A-Za-z0-9+/_-]"
_NONCE: Final = re.compile(rf"((?:{_DIGIT}{{4}})*(?:{_DIGIT}[AQgw]|{_DIGIT}{{2}}[AEIMQUYcgkosw048])?)=*", re.ASCII)

_COVERED: Final = {component(each).identity for each in ("@method", "@authority", "@path", "@query", PAYMENT_SIGNATURE)}
_DIGEST: Final = component(CONTENT_DIGEST).identity


class ProfileSignature(msgspec.Struct, frozen=True, gc=False):
    """A signature of the profile, read and not verified yet.

    `agent` is the origin of the agent's directory; `key_id` the thumbprint that the key must have; times in Unix
    seconds; `base` what was signed; `text` the value of `@signature-params`.
    """

    label: str
    agent: str
    key_id: str
    created: int
    expires: int
    nonce: str
    covers_digest: bool
    base: bytes
    signature: bytes
    text: str


def read_profile(request: HttpRequest) -> ProfileSignature:
    """Read the request's signature of this profile. Raises `SignatureInvalid` that says what is not as it must be."""
    found = _read_fixed(request)
    if found is None:
        found = _read_any(request)
    if not 0 < found.expires - found.created <= WINDOW_MAX_SECONDS:
        message = f"the signature is open for {found.expires - found.created} s; it must be 1 to {WINDOW_MAX_SECONDS}"
        raise SignatureInvalid(message)
    if _nonce_size_bytes(found.nonce) < NONCE_MIN_BYTES:
        message = f"the signature's nonce is not base64 of {NONCE_MIN_BYTES} bytes or more"
        raise SignatureInvalid(message)
    return found


def window_fault(signature: ProfileSignature, now_seconds: int) -> str | None:
    """Say whether the signature is too early or too late, by more than two clocks may differ; None where it is open."""
    if signature.created > now_seconds + SKEW_SECONDS:
        return f"the signature was created {signature.created - now_seconds} s in the future: set the clock"
    if now_seconds > signature.expires + SKEW_SECONDS:
        return f"the signature expired {now_seconds - signature.expires} s ago"
    return None


def request_base(
    request: HttpRequest, text: str, *, agent_value: str, key: str | None, payment: str, digest: str | None
) -> bytes:
    """Write what a commitment signs. `agent_value` as a member is written; `text` the value of `@signature-params`."""
    agent = '"signature-agent"' if key is None else f'"signature-agent";key="{key}"'
    covered = f'"content-digest": {digest}\n' if digest is not None else ""
    base = (
        f'"@method": {request.method}\n"@authority": {request.authority}\n"@path": {request.path or "/"}\n'
        f'"@query": {request.query or "?"}\n{agent}: {agent_value}\n"payment-signature": {payment}\n{covered}'
        f'"@signature-params": {text}'
    )
    # A line break in any value would be a line of its own: more lines than components are somebody's attempt.
    if base.count("\n") != (6 if digest is None else 7) or "\r" in base:
        message = "a covered component is not one line"
        raise SignatureInvalid(message)
    try:
        return base.encode("ascii")
    except UnicodeEncodeError:
        message = "a covered component is not ASCII"
        raise SignatureInvalid(message) from None


def request_params(*, created: int, expires: int, key_id: str, nonce: str, key: str, with_digest: bool) -> str:
    """Write the value of `@signature-params` as the pattern reads it."""
    digest = ' "content-digest"' if with_digest else ""
    return (
        f'({_FIXED} "signature-agent";key="{key}" "payment-signature"{digest});created={created};expires={expires}'
        f';keyid="{key_id}";nonce="{nonce}";tag="{REQUEST_TAG}"'
    )


def receipt_params(*, label: str, created: int, key_id: str, with_digest: bool) -> str:
    """Write the value of a receipt's `@signature-params`; `label` is that of the request's signature."""
    digest = ' "content-digest"' if with_digest else ""
    return (
        f'("@status" "payment-response" "@authority";req "@path";req "signature";req;key="{label}" '
        f'"signature-input";req;key="{label}"{digest});created={created};keyid="{key_id}";tag="{RECEIPT_TAG}"'
    )


def receipt_base(
    text: str, *, status: int, payment_response: str, request: HttpRequest, signed: ProfileSignature, digest: str | None
) -> bytes:
    """Write what a seller signs of its answer to a request with this signature."""
    return receipt_base_of(
        text,
        status=status,
        payment_response=payment_response,
        authority=request.authority,
        path=request.path or "/",
        label=signed.label,
        signature=binascii.b2a_base64(signed.signature, newline=False).decode("ascii"),
        input_text=signed.text,
        digest=digest,
    )


def receipt_base_of(
    text: str,
    *,
    status: int,
    payment_response: str,
    authority: str,
    path: str,
    label: str,
    signature: str,
    input_text: str,
    digest: str | None,
) -> bytes:
    """Write the same of its parts. `signature` is the request's, in base64; `input_text` its `@signature-params`."""
    covered = f'"content-digest": {digest}\n' if digest is not None else ""
    return (
        f'"@status": {status}\n"payment-response": {payment_response}\n"@authority";req: {authority}\n'
        f'"@path";req: {path}\n"signature";req;key="{label}": :{signature}:\n'
        f'"signature-input";req;key="{label}": {input_text}\n{covered}"@signature-params": {text}'
    ).encode("ascii")


def receipt_components(label: str) -> tuple[Component, ...]:
    """What a receipt must cover, for a request whose signature has this label."""
    return (
        component("@status"),
        component("payment-response"),
        component('"@authority";req'),
        component('"@path";req'),
        component(f'"signature";req;key="{label}"'),
        component(f'"signature-input";req;key="{label}"'),
    )


def _read_fixed(request: HttpRequest) -> ProfileSignature | None:
    """Read the order that we write ourselves; None where anything is written in another way."""
    fields = request.fields
    try:
        (input_line,), (signature_line,) = fields[SIGNATURE_INPUT], fields[SIGNATURE]
        (agent_line,), (payment,) = fields[SIGNATURE_AGENT], fields[PAYMENT_SIGNATURE]
    except (KeyError, ValueError):
        return None
    said = _INPUT.fullmatch(input_line)
    signed = _SIGNATURE.fullmatch(signature_line)
    agent = _AGENT.fullmatch(agent_line)
    if said is None or signed is None or agent is None:
        return None
    label, text, key, covers_digest, created, expires, key_id, nonce = said.groups()
    member, agent_value, origin = agent.groups()
    if signed[1] != label or member != key or origin.endswith(_WITH_OWN_PORT):
        return None
    digest = None
    if covers_digest:
        digest = field_value(fields, CONTENT_DIGEST)
        if digest is None:
            return None
    return ProfileSignature(
        label,
        origin,
        key_id,
        int(created),
        int(expires),
        nonce,
        digest is not None,
        request_base(request, text, agent_value=agent_value, key=key, payment=payment.strip(" \t"), digest=digest),
        binascii.a2b_base64(signed[3]),
        text,
    )


def _read_any(request: HttpRequest) -> ProfileSignature:
    tagged = [each for each in read_signatures(request.fields) if each.params.tag == REQUEST_TAG]
    if len(tagged) != 1:
        message = f"the request has {len(tagged)} signatures with the tag {REQUEST_TAG!r}; one is needed"
        raise SignatureInvalid(message)
    received = tagged[0]
    key = _agent_key(received)
    params = received.params
    if (
        len(received.text) > PARAMS_MAX_CHARS
        or not parse_list(received.text, what="parameters")[0][1].keys() <= _PARAMS
    ):
        message = f"the signature has parameters beside {', '.join(sorted(_PARAMS))}, or very long ones"
        raise SignatureInvalid(message)
    if params.created is None or params.expires is None or params.nonce is None or params.keyid is None:
        message = "the signature needs created, expires, keyid and nonce"
        raise SignatureInvalid(message)
    if params.alg not in {None, "ed25519"} or len(params.keyid) != THUMBPRINT_CHARS:
        message = "the signature is not by an Ed25519 key that its thumbprint names"
        raise SignatureInvalid(message)
    if len(received.signature) != SIGNATURE_SIZE_BYTES or len(params.nonce) > NONCE_MAX_CHARS:
        message = "the signature or its nonce has another size"
        raise SignatureInvalid(message)
    agent = agent_for(field_value(request.fields, SIGNATURE_AGENT) or "", label=received.label, key=key)
    if agent.kind != "directory":
        message = f"the agent is named by {agent.kind}; a clearing network knows agents by their directory's origin"
        raise SignatureInvalid(message)
    return ProfileSignature(
        received.label,
        agent.url,
        params.keyid,
        params.created,
        params.expires,
        params.nonce,
        any(each.identity == _DIGEST for each in received.covered),
        signature_base(request, received.covered, received.text),
        received.signature,
        received.text,
    )


def _agent_key(received: ReceivedSignature) -> str | None:
    """Hold the signature to its covered components; the `;key=` under which it covers its agent."""
    agents = [each for each in received.covered if each.name == SIGNATURE_AGENT]
    others = {each.identity for each in received.covered if each.name != SIGNATURE_AGENT} - {_DIGEST}
    if others != _COVERED or len(agents) != 1:
        wanted = "@method, @authority, @path, @query, signature-agent, payment-signature and perhaps content-digest"
        message = f"the signature covers {received.text.partition(')')[0][1:]}; it must cover {wanted}"
        raise SignatureInvalid(message)
    params = dict(agents[0].params)
    key = params.pop("key", None)
    if params or not (key is None or isinstance(key, str)):
        message = "the signature covers signature-agent with parameters of another kind"
        raise SignatureInvalid(message)
    return key


def _nonce_size_bytes(nonce: str) -> int:
    """Give the size of what a nonce encodes, by its length (a test compares); 0 for what is no base64."""
    found = _NONCE.fullmatch(nonce)
    return 0 if found is None else (found.end(1) * 3) // 4


def agent_member(origin: str) -> str:
    """Write an agent's origin as the base has it: a structured string."""
    return serialize_member((agent_origin(origin), {}))
