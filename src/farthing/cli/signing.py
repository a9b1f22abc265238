"""Which key pays: from the keystore, an environment variable, a descriptor, a file or a remote signer (SAFETY B7).

Never from the command line, which every user of the machine can read, and which shells keep.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import msgspec

from farthing.cli.home import keystore
from farthing.errors import ConfigError, SignerError

if TYPE_CHECKING:
    from farthing.cli.terminal import Terminal
    from farthing.evm.signing import Signer

KEY_VARIABLE: Final = "FARTHING_KEY"
PASSPHRASE_VARIABLE: Final = "FARTHING_PASSPHRASE"  # noqa: S105 - the variable's name
SIGNER_VARIABLE: Final = "FARTHING_SIGNER"
SIGNER_TOKEN_VARIABLE: Final = "FARTHING_SIGNER_TOKEN"  # noqa: S105 - likewise
DEFAULT_NAME: Final = "default"

# A passphrase or a key on a descriptor, with some room for line ends; an encrypted keystore has some 500 bytes.
SECRET_MAX_BYTES: Final = 16_384
_PASSPHRASE_SHORT_CHARS: Final = 8


class KeySource(msgspec.Struct, frozen=True, kw_only=True):
    """What the options say about the key. At most one of `name`, `path`, `descriptor` and `signer` is given."""

    name: str = ""
    path: str = ""
    descriptor: int | None = None
    signer: str = ""
    sender: str = ""
    passphrase_descriptor: int | None = None


def open_signer(source: KeySource, terminal: Terminal) -> Signer:
    """Open the key that pays. Raises `SignerError` and `ConfigError`."""
    given = [source.name, source.path, source.signer, "" if source.descriptor is None else "fd"]
    if sum(map(bool, given)) > 1:
        raise ConfigError("Only one of --key, --key-file, --key-fd and --signer can say which key pays.")
    signer = _named(source, terminal) if any(given) else _usual(source, terminal)
    if source.sender and signer.address.lower() != source.sender.lower():
        raise SignerError(f"The key is that of {signer.address}, not of {source.sender} (--from).")
    return signer


def _named(source: KeySource, terminal: Terminal) -> Signer:
    from farthing.world.keys import signer_from_file  # noqa: PLC0415 - heavy parts only when run

    if source.signer:
        return _remote(source.signer, source.sender)
    if source.path:
        return signer_from_file(source.path)
    if source.descriptor is not None:
        return _from_descriptor(source.descriptor)
    return _from_keystore(source.name, source, terminal)


def _usual(source: KeySource, terminal: Terminal) -> Signer:
    from farthing.world.keys import signer_from_env  # noqa: PLC0415 - heavy parts only when run

    if os.environ.get(KEY_VARIABLE):
        return signer_from_env(KEY_VARIABLE)
    if os.environ.get(SIGNER_VARIABLE):
        return _remote(os.environ[SIGNER_VARIABLE], source.sender)
    names = [each.name for each in keystore().entries()]
    if not names:
        raise SignerError(
            "There is no key to pay with: make one (farthing key new), or give one by --key-file, --key-fd, --signer "
            f"or the environment variable {KEY_VARIABLE}."
        )
    if DEFAULT_NAME not in names and len(names) > 1:
        raise SignerError(f"There are several keys; say which one pays: --key {' or --key '.join(names[:6])}.")
    return _from_keystore(DEFAULT_NAME if DEFAULT_NAME in names else names[0], source, terminal)


def _remote(url: str, sender: str) -> Signer:
    from farthing.world.remote_signer import RemoteSigner  # noqa: PLC0415 - heavy parts only when run

    token = os.environ.get(SIGNER_TOKEN_VARIABLE)
    return RemoteSigner(url, address=sender, headers={"Authorization": f"Bearer {token}"} if token else None)


def _from_keystore(name: str, source: KeySource, terminal: Terminal) -> Signer:
    store = keystore()
    address = store.find(name).address
    asked = f"Passphrase of the key {name} ({address})"
    # Passed on without a name of its own, so that no frame of a traceback keeps it.
    return store.signer(name, passphrase(terminal, asked, descriptor=source.passphrase_descriptor))


def _from_descriptor(descriptor: int) -> Signer:
    from farthing.world.keys import LocalSigner  # noqa: PLC0415 - heavy parts only when run

    told = ""
    try:
        return LocalSigner.from_hex(read_descriptor(descriptor, "--key-fd").decode("ascii", "replace"))
    except SignerError as error:
        told = str(error).replace("the text given", f"descriptor {descriptor}")
    # Outside, so that it has no context: its frames hold the key.
    raise SignerError(told)


def passphrase(terminal: Terminal, prompt: str, *, descriptor: int | None, new: bool = False) -> str:
    """Get a passphrase: from the descriptor, the environment variable, or the person, who types a new one twice."""
    if descriptor is not None:
        return _line(read_descriptor(descriptor, "--passphrase-fd"))
    if PASSPHRASE_VARIABLE in os.environ:
        return os.environ[PASSPHRASE_VARIABLE]
    if not terminal.can_ask:
        raise SignerError(
            "A passphrase is needed and nobody is there to be asked: give it by the environment variable "
            f"{PASSPHRASE_VARIABLE} or by --passphrase-fd."
        )
    return _new_passphrase(terminal, prompt) if new else terminal.secret(prompt)


def _new_passphrase(terminal: Terminal, prompt: str) -> str:
    typed = terminal.secret(prompt)
    differs = typed != terminal.secret("The same again")
    short = len(typed) < _PASSPHRASE_SHORT_CHARS
    if differs:
        del typed
        raise SignerError("The two passphrases differ; nothing was stored.")
    if short:
        terminal.say(f"Note: fewer than {_PASSPHRASE_SHORT_CHARS} characters are quickly guessed by who has the file.")
    return typed


def _line(data: bytes) -> str:
    """Take a secret from what was read: its one line's end does not belong to it."""
    text = data.decode("utf-8", "surrogateescape")
    return text.removesuffix("\n").removesuffix("\r")


def read_descriptor(descriptor: int, option: str) -> bytes:
    """Read a descriptor to its end, within bounds. Raises `ConfigError`."""
    parts: list[bytes] = []
    size_bytes = 0
    while True:
        try:
            part = os.read(descriptor, SECRET_MAX_BYTES)
        except OSError as error:
            parts.clear()
            raise ConfigError(f"{option} {descriptor} can't be read: {error.strerror}.") from None
        if not part:
            return b"".join(parts)
        parts.append(part)
        size_bytes += len(part)
        if size_bytes > SECRET_MAX_BYTES:
            del part
            parts.clear()
            raise ConfigError(f"{option} {descriptor} gives more than {SECRET_MAX_BYTES} bytes; a secret is shorter.")
