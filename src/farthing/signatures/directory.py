"""Key directories: the document in which an agent (or a seller) publishes its keys, and the signed answer with it.

Source: draft-ietf-webbotauth's key directory. The answer is signed by each key over `("@authority";req)`, so that a
directory can't be served under another host's name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

import msgspec

from farthing.flow import Effect
from farthing.signatures.fields import SignatureInvalid
from farthing.signatures.keys import Jwk, MessageSigner, PublicKey, key_of
from farthing.signatures.messages import HttpRequest, HttpResponse, gather_fields
from farthing.signatures.signing import SignatureParams, read_signatures, sign, verify

DIRECTORY_PATH: Final = "/.well-known/http-message-signatures-directory"
DIRECTORY_TYPE: Final = "application/http-message-signatures-directory+json"
DIRECTORY_TAG: Final = "http-message-signatures-directory"
# A key has some 200 bytes; an agent has a handful, and a few of yesterday's.
DIRECTORY_MAX_BYTES: Final = 65_536
DIRECTORY_KEYS_MAX: Final = 64
# What an answer's signature is good for: caches in between may hold it for a while.
DIRECTORY_WINDOW_SECONDS: Final = 3_600
# What two clocks may differ by.
DIRECTORY_SKEW_SECONDS: Final = 60
# Times beyond this (the year 5138) are milliseconds: both are in use for `nbf` and `exp`.
_SECONDS_MAX: Final = 100_000_000_000

_COVERED: Final = ('"@authority";req',)


class DirectoryKey(msgspec.Struct, frozen=True):
    """A key that a directory publishes. Unix seconds; None where the directory sets no bound."""

    key: PublicKey
    not_before: int | None = None
    not_after: int | None = None

    def usable(self, now_seconds: int) -> bool:
        """Tell whether the directory lets this key be used now."""
        early = self.not_before is not None and now_seconds < self.not_before
        late = self.not_after is not None and now_seconds > self.not_after
        return not early and not late


class FindKey(Effect["PublicKey | None"], frozen=True):
    """Find a key by the origin of its directory and its thumbprint; None where it can't be found out."""

    origin: str
    key_id: str


class _Document(msgspec.Struct, frozen=True):
    keys: Annotated[tuple[msgspec.Raw, ...], msgspec.Meta(max_length=DIRECTORY_KEYS_MAX)]


_document_decoder = msgspec.json.Decoder(_Document)
_jwk_decoder = msgspec.json.Decoder(Jwk)


def read_directory(data: bytes) -> tuple[DirectoryKey, ...]:
    """Read a directory's document: its Ed25519 keys. Keys of other kinds are passed over.

    Raises `SignatureInvalid` for what is no directory.
    """
    if len(data) > DIRECTORY_MAX_BYTES:
        message = f"the key directory has {len(data)} bytes; the limit is {DIRECTORY_MAX_BYTES}"
        raise SignatureInvalid(message)
    try:
        document = _document_decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = f"the key directory can't be read: {error}"
        raise SignatureInvalid(message) from None
    found = (_directory_key(raw) for raw in document.keys)
    return tuple(each for each in found if each is not None)


def write_directory(keys: Sequence[PublicKey]) -> bytes:
    """Write a directory's document."""
    return msgspec.json.encode({"keys": [key.jwk() for key in keys]})


def sign_directory(
    authority: str, signers: Sequence[MessageSigner], *, now_seconds: int
) -> tuple[tuple[tuple[str, str], ...], bytes]:
    """Make the signed answer to a GET of the directory: its header lines, and its body.

    `authority` is the directory's own as agents know it (host, and port where it is not the scheme's), never Host's.
    """
    body = write_directory([each.public_key for each in signers])
    response = HttpResponse(200, {}, HttpRequest("GET", authority, DIRECTORY_PATH))
    inputs: list[str] = []
    signatures: list[str] = []
    for index, signer in enumerate(signers):
        params = SignatureParams(
            created=now_seconds,
            expires=now_seconds + DIRECTORY_WINDOW_SECONDS,
            keyid=signer.public_key.thumbprint,
            alg="ed25519",
            tag=DIRECTORY_TAG,
        )
        said, signature = sign(response, _COVERED, params, signer, label=f"binding{index}")
        inputs.append(said[1])
        signatures.append(signature[1])
    lines = (
        ("Content-Type", DIRECTORY_TYPE),
        ("Cache-Control", f"public, max-age={DIRECTORY_WINDOW_SECONDS // 2}"),
        ("Signature-Input", ", ".join(inputs)),
        ("Signature", ", ".join(signatures)),
    )
    return lines, body


def bound_keys(
    keys: Sequence[DirectoryKey], lines: Sequence[tuple[str, str]], *, authority: str, now_seconds: int
) -> tuple[DirectoryKey, ...]:
    """Of a directory's keys, those that signed its answer for this authority. Raises `SignatureInvalid` for none."""
    response = HttpResponse(200, gather_fields(lines), HttpRequest("GET", authority, DIRECTORY_PATH))
    signed: set[str] = set()
    by_name = {each.key.thumbprint: each for each in keys}
    for received in read_signatures(response.fields):
        known = by_name.get(received.params.keyid or "")
        in_time = _in_time(received.params, now_seconds)
        if known is None or received.params.tag != DIRECTORY_TAG or not received.covers(*_COVERED) or not in_time:
            continue
        if verify(response, received, known.key):
            signed.add(known.key.thumbprint)
    if not signed:
        message = f"no key of the directory has signed its answer for {authority}"
        raise SignatureInvalid(message)
    return tuple(each for each in keys if each.key.thumbprint in signed)


def _in_time(params: SignatureParams, now_seconds: int) -> bool:
    if params.created is None or params.expires is None:
        return False
    return params.created - DIRECTORY_SKEW_SECONDS <= now_seconds <= params.expires + DIRECTORY_SKEW_SECONDS


def _directory_key(raw: msgspec.Raw) -> DirectoryKey | None:
    try:
        jwk = _jwk_decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    key = key_of(jwk)
    return None if key is None else DirectoryKey(key, _seconds(jwk.nbf), _seconds(jwk.exp))


def _seconds(time: int | None) -> int | None:
    return time // 1000 if time is not None and time > _SECONDS_MAX else time
