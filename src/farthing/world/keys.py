"""Keys in this process: read from an environment variable or a private file, kept in one object that never shows them.

SAFETY B7 and A4: the key is in no repr, message, pickle or log, and no error that is raised here keeps a frame or a
cause that holds it.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, NoReturn

from farthing.errors import SignerError
from farthing.evm.signatures import DIGEST_SIZE_BYTES, KeyInvalid, PrivateKey
from farthing.evm.signing import Signer, SignTypedData, TypedMessage
from farthing.flow import Effect

# 64 digits, a prefix and a line's end; a larger file is not a key's.
KEY_FILE_MAX_BYTES = 256

_KEY = re.compile(r"(?:0[xX])?([0-9a-fA-F]{64})")
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class LocalSigner:
    """Signs with a private key in memory, for one address. Implements `farthing.evm.signing.Signer`."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        """Take the 32 bytes of a private key of secp256k1. Raises `SignerError`, which does not hold them."""
        private = _private_key(key)
        del key  # the frame is part of the traceback
        if private is None:
            raise SignerError("This is no private key: 32 bytes between 1 and the order of secp256k1 are.")
        self._key: PrivateKey = private

    @classmethod
    def from_hex(cls, text: str) -> LocalSigner:
        """Take 64 hexadecimal digits, with or without `0x`. Raises `SignerError`, which does not hold them."""
        signer = _find(text)
        del text
        return _found(signer, "the text given")

    @property
    def address(self) -> str:
        """The EIP-55 address that signatures recover to."""
        return self._key.address

    def sign_typed_data(self, message: TypedMessage) -> bytes:
        """Sign an EIP-712 message: 65 bytes `r ‖ s ‖ v`, low s, v 27 or 28."""
        return self._key.sign_digest(message.digest())

    def sign_digest(self, digest: bytes) -> bytes:
        """Sign 32 bytes, such as a transaction's hash: `r ‖ s ‖ v` as above. Raises `SignerError`."""
        if len(digest) != DIGEST_SIZE_BYTES:
            raise SignerError(f"A digest has {DIGEST_SIZE_BYTES} bytes, not {len(digest)}.")
        return self._key.sign_digest(digest)

    def __repr__(self) -> str:
        key: PrivateKey | None = getattr(self, "_key", None)  # none yet where a traceback shows the constructor
        return f"LocalSigner({'' if key is None else key.address})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("A signer can't be pickled or copied: read the key where it is needed.")


def signer_from_env(name: str, environment: Mapping[str, str] | None = None) -> LocalSigner:
    """Read the key from the environment variable `name`: 64 hexadecimal digits, with or without `0x`.

    Raises `SignerError`. `environment` is `os.environ` unless given.
    """
    source = os.environ if environment is None else environment
    if not source.get(name):
        raise SignerError(
            f"The environment variable {name} is not set: give it the private key, 64 hexadecimal digits."
        )
    return _found(_find(source[name]), f"the environment variable {name}")


def signer_from_file(path: str | os.PathLike[str]) -> LocalSigner:
    """Read the key from a file that only its owner can read: 64 hexadecimal digits, with or without `0x`.

    Refused with `SignerError`: anything but a regular file, another owner's file, any bit for group or others.
    """
    return _found(_find(read_private_file(path, max_bytes=KEY_FILE_MAX_BYTES)), f"the file {os.fspath(path)}")


def read_private_file(path: str | os.PathLike[str], *, max_bytes: int) -> str:
    """Read a file of secrets, or the beginning of a larger one, as text. Raises `SignerError` as above."""
    try:
        # Judged by the open descriptor, so that what was checked is what is read; a FIFO must not block.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    except OSError as error:
        raise SignerError(f"The key file {os.fspath(path)} can't be opened: {error.strerror}.") from None
    try:
        _check_private(os.fstat(descriptor), os.fspath(path))
        return os.read(descriptor, max_bytes + 1).decode("ascii", "replace")
    except OSError as error:
        raise SignerError(f"The key file {os.fspath(path)} can't be read: {error.strerror}.") from None
    finally:
        os.close(descriptor)


def signer_handlers(signer: Signer) -> dict[type[Effect[Any]], Any]:
    """The handler of `SignTypedData`, for a `Performer`."""
    # A signer across a network has a coroutine to await, so that an asynchronous door is not held up.
    awaited: Callable[[TypedMessage], Coroutine[Any, Any, bytes]] | None = getattr(signer, "signing", None)
    signing = signer.sign_typed_data if awaited is None else awaited

    def sign(effect: SignTypedData) -> bytes | Coroutine[Any, Any, bytes]:
        return signing(effect.message)

    return {SignTypedData: sign}


def _check_private(status: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise SignerError(f"The key file {path} is no regular file.")
    if sys.platform == "win32":
        return  # access lists instead of modes: the folder of the user's profile is private already
    if status.st_uid != os.geteuid():
        raise SignerError(f"The key file {path} belongs to another user: `chown` it, or use a copy of your own.")
    if status.st_mode & _OTHERS:
        raise SignerError(f"The key file {path} is open to others: `chmod 600 {path}`, and think of the key as seen.")


def _find(text: str) -> LocalSigner | None:
    """The signer of a key in hexadecimal digits, or None: no error may start in a frame that holds the text."""
    matched = _KEY.fullmatch(text.strip())
    if matched is None:
        return None
    try:
        return LocalSigner(bytes.fromhex(matched[1]))
    except SignerError:
        return None


def _found(signer: LocalSigner | None, where: str) -> LocalSigner:
    if signer is None:
        raise SignerError(f"In {where} is no private key: 64 hexadecimal digits are, with or without 0x.")
    return signer


def _private_key(key: bytes) -> PrivateKey | None:
    """The key, or None. The error of the floor below is swallowed: its traceback holds the bytes."""
    try:
        return PrivateKey(key)
    except KeyInvalid:
        return None
