"""A statement as it travels: canonical JSON under an Ed25519 JWS in compact form (RFC 7515), written and read.

Whoever opens one gets what was signed and the signature; whether the key is right is the reader's to judge.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, Final

import msgspec

from farthing.errors import RemoteProtocolError
from farthing.protocol.statements import STATEMENT_TYPE, Statement

_PARTS: Final = 3

_statement_decoder = msgspec.json.Decoder(Statement)


def signing_input(statement: Statement, key_id: str) -> bytes:
    """Give what is signed (RFC 7515, 5.1): header and payload in base64url."""
    header = msgspec.json.encode({"alg": "EdDSA", "kid": key_id, "typ": STATEMENT_TYPE}, order="sorted")
    return _encode(header) + b"." + _encode(statement.canonical())


def compact(signed: bytes, signature: bytes) -> str:
    """Put the JWS together."""
    return (signed + b"." + _encode(signature)).decode("ascii")


def open_statement(jws: str) -> tuple[Statement, str, bytes, bytes]:
    """Take a JWS apart: the statement, the key's id, what was signed, and the signature, which is not judged here.

    Raises `RemoteProtocolError` for what is no statement in canonical form.
    """
    parts = jws.split(".")
    if len(parts) != _PARTS:
        message = "a statement is a JWS in compact form"
        raise RemoteProtocolError(message)
    header, payload, signature = (_decode(each) for each in parts)
    try:
        members: dict[str, Any] = msgspec.json.decode(header, type=dict[str, Any])
        statement = _statement_decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = f"the statement can't be read: {error}"
        raise RemoteProtocolError(message) from None
    if members.get("alg") != "EdDSA" or members.get("typ") != STATEMENT_TYPE or "crit" in members:
        message = f"the statement's header is not that of a {STATEMENT_TYPE} under EdDSA"
        raise RemoteProtocolError(message)
    if statement.canonical() != payload:
        message = "the statement is not in canonical form"
        raise RemoteProtocolError(message)
    return statement, str(members.get("kid", "")), ".".join(parts[:2]).encode(), signature


def _encode(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _decode(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4), strict_mode=True)
    except ValueError:
        message = "the statement is not base64url"
        raise RemoteProtocolError(message) from None
