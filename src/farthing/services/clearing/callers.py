"""Who calls, and what they may: bearer tokens by their SHA-256, of four roles.

Operators' tokens stand in the configuration; those of edges, payers and payees are made by an operator, told once, and
kept as a hash in the store.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import Final

from farthing.clearing.store import Caller
from farthing.errors import ConfigError
from farthing.services.clearing.config import TOKEN_MIN_CHARS, ServerTable

OPERATOR: Final = "operator"
EDGE: Final = "edge"
PAYER: Final = "payer"
PAYEE: Final = "payee"
ANYBODY: Final = Caller("", "", "")
# A token longer than this is nobody's; it is not even hashed.
TOKEN_MAX_CHARS: Final = 512
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


class Operators:
    """The operators' tokens of the configuration."""

    __slots__ = ("_digests",)

    def __init__(self, server: ServerTable, environment: Mapping[str, str]) -> None:
        """Read them. Raises `ConfigError`, which never holds one."""
        self._digests: dict[str, bytes] = {}
        for entry in server.operators:
            where = f"[server.operators {entry.name}]"
            if entry.name in self._digests or bool(entry.env) == bool(entry.sha256):
                message = f"{where}: a name of its own, and env (a variable's name) or sha256 (of the token, in hex)."
                raise ConfigError(message)
            if entry.sha256:
                if _SHA256.fullmatch(entry.sha256) is None:
                    message = f"{where} sha256: 64 hexadecimal digits, as `printf %s TOKEN | sha256sum` gives them."
                    raise ConfigError(message)
                self._digests[entry.name] = bytes.fromhex(entry.sha256)
                continue
            if len(environment.get(entry.env, "")) < TOKEN_MIN_CHARS:
                message = f"{where} env: {entry.env} is not set, or shorter than {TOKEN_MIN_CHARS} characters."
                raise ConfigError(message)
            self._digests[entry.name] = hashlib.sha256(environment[entry.env].encode()).digest()

    def find(self, digest: bytes) -> Caller | None:
        """Say whose token this is the SHA-256 of. Every digest is compared, each time."""
        found = None
        for name, known in self._digests.items():
            if hmac.compare_digest(digest, known):
                found = Caller(name, OPERATOR, "")
        return found


def digest_of(authorization: str | None) -> bytes | None:
    """Hash the token of an `Authorization: Bearer` header; None where there is none."""
    scheme, _, token = (authorization or "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not 0 < len(token) <= TOKEN_MAX_CHARS:
        return None
    return hashlib.sha256(token.encode()).digest()
