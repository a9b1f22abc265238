"""Requests that carry a commitment's signature, written by the profile, for the tests of this folder and its bench."""

from __future__ import annotations

import base64

from farthing.signatures import HttpRequest, SigningKey, content_digest, gather_fields, signature_lines, write_agent
from farthing.signatures.profile import LABEL, agent_member, request_base, request_params

NOW = 1_800_000_000
AGENT_ORIGIN = "https://crawler.example"
KEY = SigningKey(b"\7" * 32)
PAYMENT = base64.b64encode(b'{"x402Version":2,"payload":{"amount":"2000","asset":"USD"}}').decode()


def promise(
    *,
    method: str = "GET",
    authority: str = "publisher.example",
    path: str = "/articles/1",
    query: str = "?page=2",
    body: bytes = b"",
    payment: str = PAYMENT,
    created: int = NOW,
    window_seconds: int = 60,
    nonce: bytes = bytes(range(64)),
    key: SigningKey = KEY,
    agent: str = AGENT_ORIGIN,
) -> HttpRequest:
    """A signed request of the profile."""
    digest = content_digest(body) if body else None
    text = request_params(
        created=created,
        expires=created + window_seconds,
        key_id=key.public_key.thumbprint,
        nonce=base64.b64encode(nonce).decode(),
        key=LABEL,
        with_digest=digest is not None,
    )
    bare = HttpRequest(method, authority, path, query)
    base = request_base(bare, text, agent_value=agent_member(agent), key=LABEL, payment=payment, digest=digest)
    lines = [
        ("PAYMENT-SIGNATURE", payment),
        ("Signature-Agent", write_agent(agent, label=LABEL)),
        *signature_lines(LABEL, text, key.sign(base)),
    ]
    if digest is not None:
        lines.append(("Content-Digest", digest))
    return HttpRequest(method, authority, path, query, gather_fields(lines))


def changed(request: HttpRequest, **fields: str | None) -> HttpRequest:
    """The request with header lines replaced (`payment_signature=…`), or left out where None."""
    lines = dict(request.fields)
    for name, value in fields.items():
        header = name.replace("_", "-")
        if value is None:
            del lines[header]
        else:
            lines[header] = (value,)
    return HttpRequest(request.method, request.authority, request.path, request.query, lines)
