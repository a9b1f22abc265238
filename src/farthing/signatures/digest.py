"""Content-Digest (RFC 9530): the body under the signature."""

from __future__ import annotations

import binascii
import hashlib
from typing import Final

from farthing.signatures.fields import parse_dictionary

CONTENT_DIGEST: Final = "content-digest"

_HASHES: Final = {"sha-256": hashlib.sha256, "sha-512": hashlib.sha512}


def content_digest(body: bytes, *, algorithm: str = "sha-256") -> str:
    """Write the field's value for `body`, as it is sent (after any content coding)."""
    # A dictionary with one byte sequence, written as `serialize` would (a test compares), at a tenth of the time.
    digest = binascii.b2a_base64(_HASHES[algorithm](body).digest(), newline=False).decode("ascii")
    return f"{algorithm}=:{digest}:"


def digest_fault(value: str, body: bytes) -> str | None:
    """Say what speaks against a Content-Digest; None where every digest in it that we know is the body's.

    Raises `SignatureInvalid` for a field that can't be read.
    """
    members = parse_dictionary(value, what="Content-Digest")
    known = {name: member[0] for name, member in members.items() if name in _HASHES}
    if not known:
        return "Content-Digest has neither sha-256 nor sha-512"
    for name, said in known.items():
        if said != _HASHES[name](body).digest():
            return f"the body is not the one that Content-Digest names ({name})"
    return None
