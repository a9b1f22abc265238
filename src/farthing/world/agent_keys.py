"""The key of an agent that pays on credit: read from an environment variable or a private file, kept in one object.

What is read is the 32 secret bytes of an Ed25519 key, as 64 hexadecimal digits or as a JWK with `d` (RFC 8037). As
with every key here (SAFETY B7, A4), it is in no repr, message, pickle or log.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

import msgspec

from farthing.errors import ConfigError, SignerError
from farthing.flow import Effect
from farthing.mechanisms.batch_credit.buyer import Agent
from farthing.signatures.fields import SignatureInvalid
from farthing.signatures.keys import KEY_SIZE_BYTES, MessageSigner, PublicKey, SignData, SigningKey, decode_base64url
from farthing.world.keys import read_private_file

# A JWK with a comment or two.
AGENT_FILE_MAX_BYTES: Final = 4_096


class _SecretJwk(msgspec.Struct, frozen=True):
    d: str
    kty: str = "OKP"
    crv: str = "Ed25519"


class AgentSigner:
    """An agent that Web Bot Auth knows: the origin of its key directory, and the key that it signs with."""

    __slots__ = ("agent", "signer")

    def __init__(self, origin: str, signer: MessageSigner) -> None:
        """Sign as the agent whose directory is at `origin`. Raises `ConfigError` for what is no origin."""
        try:
            self.agent: Final = Agent(origin, signer.public_key.thumbprint)
        except SignatureInvalid as error:
            message = f"The agent's origin: {error}."
            raise ConfigError(message) from None
        self.signer: Final = signer

    @property
    def public_key(self) -> PublicKey:
        """The key to publish in the directory."""
        return self.signer.public_key

    def __repr__(self) -> str:
        """Name agent and key; the secret stays unseen."""
        return f"AgentSigner({self.agent.origin!r}, {self.agent.key_id})"


def agent_from_env(name: str, *, origin: str, environment: Mapping[str, str] | None = None) -> AgentSigner:
    """Read the agent's key from the environment variable `name`. Raises `SignerError`, which does not hold it."""
    source = os.environ if environment is None else environment
    text = source.get(name, "")
    if not text:
        message = f"The environment variable {name} is not set: give it the agent's Ed25519 key, 64 hexadecimal digits."
        raise SignerError(message)
    return AgentSigner(origin, _found(_find(text), f"the environment variable {name}"))


def agent_from_file(path: str | os.PathLike[str], *, origin: str) -> AgentSigner:
    """Read the agent's key from a file that only its owner can read. Raises `SignerError`, which does not hold it."""
    text = read_private_file(path, max_bytes=AGENT_FILE_MAX_BYTES)
    return AgentSigner(origin, _found(_find(text), f"the file {os.fspath(path)}"))


def agent_handlers(agent: AgentSigner) -> dict[type[Effect[Any]], Any]:
    """The handler of `SignData`, for a `Performer`. Signing for any other key is refused."""
    awaited: Callable[[bytes], Coroutine[Any, Any, bytes]] | None = getattr(agent.signer, "signing", None)
    signing = agent.signer.sign if awaited is None else awaited

    def sign(effect: SignData) -> bytes | Coroutine[Any, Any, bytes]:
        if effect.key_id != agent.agent.key_id:
            message = f"This agent signs with the key {agent.agent.key_id}, not with {effect.key_id[:64]!a}."
            raise SignerError(message)
        return signing(effect.data)

    return {SignData: sign}


def _find(text: str) -> SigningKey | None:
    """The key, or None: no error may start in a frame that holds the text."""
    text = text.strip()
    try:
        seed = bytes.fromhex(text.removeprefix("0x")) if not text.startswith("{") else _of_jwk(text)
    except ValueError:
        return None
    return SigningKey(seed) if seed is not None and len(seed) == KEY_SIZE_BYTES else None


def _of_jwk(text: str) -> bytes | None:
    try:
        jwk = msgspec.json.decode(text, type=_SecretJwk)
    except msgspec.DecodeError:
        return None
    return decode_base64url(jwk.d) if (jwk.kty, jwk.crv) == ("OKP", "Ed25519") else None


def _found(key: SigningKey | None, where: str) -> SigningKey:
    if key is None:
        message = f"In {where} is no Ed25519 key: 64 hexadecimal digits are, or a JWK with kty OKP, crv Ed25519 and d."
        raise SignerError(message)
    return key
