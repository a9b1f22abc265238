"""Bearer tokens: who calls. Compared by their SHA-256 in constant time; the tokens themselves are not kept."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Mapping
from typing import Final

from farthing.errors import ConfigError
from farthing.services.facilitator.config import TOKEN_MIN_CHARS, ServerTable

# The caller's name where no token is configured: whoever is on this machine.
LOOPBACK: Final = "loopback"
# A token longer than this is nobody's; it is not even hashed.
TOKEN_MAX_CHARS: Final = 512
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


class Tokens:
    """The known tokens, by name. Empty: nobody is asked for one."""

    __slots__ = ("_digests",)

    def __init__(self, digests: Mapping[str, bytes]) -> None:
        """Take SHA-256 digests by the token's name."""
        self._digests = dict(digests)

    def __bool__(self) -> bool:
        """Whether a token is asked for."""
        return bool(self._digests)

    def caller(self, authorization: str | None) -> str | None:
        """Say whose token an `Authorization` header holds; None: nobody's. Every digest is compared, each time."""
        if not self._digests:
            return LOOPBACK
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not 0 < len(token) <= TOKEN_MAX_CHARS:
            return None
        digest = hashlib.sha256(token.strip().encode()).digest()
        found = None
        for name, known in self._digests.items():
            if hmac.compare_digest(digest, known):
                found = name
        return found


def tokens_of(server: ServerTable, environment: Mapping[str, str]) -> Tokens:
    """Read the tokens that the configuration names. Raises `ConfigError`, which never holds one."""
    digests: dict[str, bytes] = {}
    for entry in server.tokens:
        where = f"[server.tokens {entry.name}]"
        if entry.name in digests:
            message = f"{where}: two tokens of one name; the name is what idempotency keys are scoped by."
            raise ConfigError(message)
        if bool(entry.env) == bool(entry.sha256):
            message = f"{where}: give env (an environment variable's name) or sha256 (of the token, in hex)."
            raise ConfigError(message)
        digests[entry.name] = _digest_of(entry.env, entry.sha256, where, environment)
    return Tokens(digests)


def _digest_of(env: str, sha256: str, where: str, environment: Mapping[str, str]) -> bytes:
    if sha256:
        if _SHA256.fullmatch(sha256) is None:
            message = f"{where} sha256: 64 hexadecimal digits, as `printf %s TOKEN | sha256sum` gives them."
            raise ConfigError(message)
        return bytes.fromhex(sha256)
    if len(environment.get(env, "")) < TOKEN_MIN_CHARS:
        message = f"{where} env: the variable {env} is not set, or shorter than {TOKEN_MIN_CHARS} characters."
        raise ConfigError(message)
    return hashlib.sha256(environment[env].encode()).digest()


def check_binding(host: str, tokens: Tokens) -> None:
    """Refuse to listen beyond this machine without tokens. Raises `ConfigError`."""
    if tokens or is_loopback(host):
        return
    message = (
        f"[server] host = {host!r} is reached from elsewhere, and no bearer token is configured: anybody could spend "
        "the wallet's gas. Add a [[server.tokens]] table, or listen on 127.0.0.1."
    )
    raise ConfigError(message)


def is_loopback(host: str) -> bool:
    """Tell whether an address is this machine's own; of names only `localhost` is."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
