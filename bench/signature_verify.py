"""`signature_verify`: the CPU time in which an edge judges a commitment's signature, from header lines to "theirs".

Ours gathers the header lines, reads the profile, looks the key up, judges the window and verifies. The limit is the one
thing that nobody can leave out: PyNaCl's Ed25519 verification of the same bytes. Beside them http-message-signatures
verifies the same requests.
"""

from __future__ import annotations

import base64
import os
import time
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric import ed25519
from http_message_signatures import HTTPMessageVerifier, MappingKeyResolver
from http_message_signatures.algorithms import ED25519
from nacl.signing import VerifyKey

from bench.figure import Figure
from bench.harness import Local, measure
from farthing.signatures import (
    HttpRequest,
    SigningKey,
    gather_fields,
    read_profile,
    signature_lines,
    window_fault,
    write_agent,
)
from farthing.signatures.profile import LABEL, REQUEST_TAG, agent_member, request_base, request_params

if TYPE_CHECKING:
    from collections.abc import Callable

TARGET = 1.25
_REQUESTS = 512
_AGENT = "https://crawler.example"
_HOST = "publisher.example"
_KEY = SigningKey(bytes(range(32)))
# A payment of the clearing network has some 500 bytes; its text is of no matter here.
_PAYMENT = base64.b64encode(b"x" * 500).decode()


class _Message:
    """A request as the oracle takes it."""

    def __init__(self, path: str, lines: list[tuple[str, str]]) -> None:
        self.method, self.url, self.headers = "GET", f"https://{_HOST}{path}", dict(lines)


def made() -> list[tuple[str, list[tuple[str, str]]]]:
    """Make path and header lines of the requests, each signed by itself."""
    now_seconds = int(time.time())
    found: list[tuple[str, list[tuple[str, str]]]] = []
    for index in range(_REQUESTS):
        text = request_params(
            created=now_seconds,
            expires=now_seconds + 60,
            key_id=_KEY.public_key.thumbprint,
            nonce=base64.b64encode(os.urandom(64)).decode(),
            key=LABEL,
            with_digest=False,
        )
        path = f"/articles/{index}"
        bare = HttpRequest("GET", _HOST, path)
        base = request_base(bare, text, agent_value=agent_member(_AGENT), key=LABEL, payment=_PAYMENT, digest=None)
        lines = [
            ("host", _HOST),
            ("accept", "text/html"),
            ("accept-encoding", "gzip"),
            ("user-agent", "crawler/1.0"),
            ("payment-signature", _PAYMENT),
            ("signature-agent", write_agent(_AGENT, label=LABEL)),
            *((name.lower(), value) for name, value in signature_lines(LABEL, text, _KEY.sign(base))),
        ]
        found.append((path, lines))
    return found


def bare() -> Callable[[int], object]:
    """The limit: verify the same bytes."""
    key = VerifyKey(_KEY.public_key.raw)
    work: list[tuple[bytes, bytes]] = []
    for path, lines in made():
        signed = read_profile(HttpRequest("GET", _HOST, path, "", gather_fields(lines)))
        work.append((signed.base, signed.signature))

    def verify(index: int) -> bytes:
        data, signature = work[index % _REQUESTS]
        return key.verify(data, signature)

    return verify


def ours() -> Callable[[int], object]:
    """Ours, from header lines to the verdict."""
    work = made()
    now_seconds = int(time.time())
    keys = {(_AGENT, _KEY.public_key.thumbprint): _KEY.public_key}

    def verify(index: int) -> None:
        path, lines = work[index % _REQUESTS]
        signed = read_profile(HttpRequest("GET", _HOST, path, "", gather_fields(lines)))
        key = keys[signed.agent, signed.key_id]
        assert window_fault(signed, now_seconds) is None
        assert key.verifies(signed.signature, signed.base)

    return verify


def oracle() -> Callable[[int], object]:
    """http-message-signatures, over the same requests."""
    public = ed25519.Ed25519PublicKey.from_public_bytes(_KEY.public_key.raw)
    resolver = MappingKeyResolver(public_keys={_KEY.public_key.thumbprint: public}, private_keys={})
    verifier: Any = HTTPMessageVerifier(signature_algorithm=ED25519, key_resolver=resolver)
    work = [_Message(path, lines) for path, lines in made()]

    def verify(index: int) -> None:
        assert verifier.verify(work[index % _REQUESTS], expect_tag=REQUEST_TAG)

    return verify


def run() -> list[Figure]:
    """Measure, side by side."""
    found = measure({"limit": Local(bare()), "ours": Local(ours()), "oracle": Local(oracle())})
    oracle_ratio = found["oracle"] / found["limit"]
    return [
        Figure(
            name="signature_verify",
            ours=found["ours"],
            unit="µs",
            better="lower",
            limit=found["limit"],
            official=found["oracle"],
            target=TARGET,
            notes=(f"`official` is http-message-signatures here: {oracle_ratio:.2f} x the bare verification.",),
        )
    ]
