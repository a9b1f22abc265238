"""Ed25519 keys as Web Bot Auth names them: by the thumbprint of their JWK (RFC 7638; RFC 8037, appendix A).

Ed25519 is the one algorithm here: every agent that signs in the wild has it, and an attacker can't choose another.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Annotated, Final, Protocol

import msgspec
from nacl.bindings import crypto_sign, crypto_sign_open, crypto_sign_seed_keypair
from nacl.exceptions import BadSignatureError

from farthing.errors import SignerError
from farthing.flow import Effect
from farthing.signatures.fields import SignatureInvalid

KEY_SIZE_BYTES: Final = 32
SIGNATURE_SIZE_BYTES: Final = 64
ALGORITHM: Final = "ed25519"
# A base64url SHA-256.
THUMBPRINT_CHARS: Final = 43

# The members of a JWK that a person or another library may add are bounded by the document that holds them.
_Short = Annotated[str, msgspec.Meta(max_length=512)]


class Jwk(msgspec.Struct, frozen=True, omit_defaults=True):
    """A JSON Web Key (RFC 7517), as far as it is looked at. `nbf` and `exp` are Unix seconds, or milliseconds."""

    kty: _Short
    crv: _Short = ""
    x: _Short = ""
    kid: _Short = ""
    use: _Short = ""
    alg: _Short = ""
    nbf: int | None = None
    exp: int | None = None


class PublicKey:
    """An Ed25519 public key and its thumbprint."""

    __slots__ = ("raw", "thumbprint")

    def __init__(self, raw: bytes) -> None:
        """Take the 32 bytes. Raises `SignatureInvalid` for another size."""
        if len(raw) != KEY_SIZE_BYTES:
            message = f"an Ed25519 key has {KEY_SIZE_BYTES} bytes, not {len(raw)}"
            raise SignatureInvalid(message)
        self.raw: Final = raw
        self.thumbprint: Final = thumbprint(raw)

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Tell whether this key signed `data`. Small-order keys and malleable signatures are refused by libsodium."""
        if len(signature) != SIGNATURE_SIZE_BYTES:
            return False
        try:
            crypto_sign_open(signature + data, self.raw)
        except BadSignatureError:
            return False
        return True

    def jwk(self) -> Jwk:
        """The key as a JWK, with its thumbprint as `kid`."""
        return Jwk("OKP", "Ed25519", encode_base64url(self.raw), self.thumbprint, "sig")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublicKey) and other.raw == self.raw

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        """Name it by its thumbprint."""
        return f"PublicKey({self.thumbprint})"


class MessageSigner(Protocol):
    """Signs bytes with one Ed25519 key. Implementations never log, print or pickle the key."""

    @property
    def public_key(self) -> PublicKey:
        """The key that its signatures verify with."""
        ...

    def sign(self, data: bytes) -> bytes:
        """Sign: 64 bytes. Raises `SignerError`."""
        ...


class SigningKey:
    """A private key in memory. Implements `MessageSigner`."""

    __slots__ = ("_secret", "public_key")

    def __init__(self, seed: bytes) -> None:
        """Take the 32 secret bytes (RFC 8032's private key, a JWK's `d`). Raises `SignerError` for another size."""
        if len(seed) != KEY_SIZE_BYTES:
            message = f"The secret of an Ed25519 key has {KEY_SIZE_BYTES} bytes, not {len(seed)}."
            raise SignerError(message)
        public, self._secret = crypto_sign_seed_keypair(seed)
        self.public_key: PublicKey = PublicKey(public)

    def sign(self, data: bytes) -> bytes:
        """Sign: 64 bytes, the same for the same data."""
        return crypto_sign(data, self._secret)[:SIGNATURE_SIZE_BYTES]

    def __repr__(self) -> str:
        """Name the public key; the secret stays unseen."""
        return f"SigningKey({self.public_key.thumbprint})"

    def __reduce__(self) -> str:
        """Refuse to be pickled: a secret leaves no process by accident."""
        message = "a signing key is not pickled"
        raise TypeError(message)


class SignData(Effect[bytes], frozen=True):
    """Have `data` signed by the key that `key_id` (its thumbprint) names; the answer is 64 bytes."""

    key_id: str
    data: bytes


def thumbprint(raw: bytes) -> str:
    """The base64url SHA-256 of the canonical JWK (RFC 7638)."""
    canonical = '{"crv":"Ed25519","kty":"OKP","x":"' + encode_base64url(raw) + '"}'
    return encode_base64url(hashlib.sha256(canonical.encode("ascii")).digest())


def key_of(jwk: Jwk) -> PublicKey | None:
    """The key of a JWK; None where it is of another kind, or not for signatures, or calls itself by another's name."""
    if jwk.kty != "OKP" or jwk.crv != "Ed25519" or jwk.use not in {"", "sig"}:
        return None
    raw = decode_base64url(jwk.x)
    return PublicKey(raw) if raw is not None and len(raw) == KEY_SIZE_BYTES else None


def encode_base64url(data: bytes) -> str:
    """Encode without padding (RFC 7515, section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def decode_base64url(text: str) -> bytes | None:
    """Decode without padding; None where the text is not the one that the bytes would be encoded as."""
    try:
        raw = binascii.a2b_base64((text + "=" * (-len(text) % 4)).replace("-", "+").replace("_", "/"), strict_mode=True)
    except ValueError:
        return None
    return raw if encode_base64url(raw) == text else None
