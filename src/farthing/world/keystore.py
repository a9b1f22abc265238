"""Encrypted keys in a private folder, one file each: Web3 Secret Storage, version 3, which wallets and nodes read too.

Source: the definition at ethereum.org ("Web3 Secret Storage Definition"). Written here, on hashlib's key derivation
and pycryptodome's AES, since eth-keyfile takes half a second to import and its errors keep frames that hold passphrase
and key (SAFETY B7); it is the oracle in the tests.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
import sys
import uuid
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar, cast

import msgspec

from farthing.errors import SignerError
from farthing.evm.addresses import checksum_address
from farthing.evm.keccak import keccak256
from farthing.evm.signatures import KEY_SIZE_BYTES, KeyInvalid, PrivateKey
from farthing.world.keys import LocalSigner

# A keystore has some 500 bytes; a larger file is something else.
KEYSTORE_MAX_BYTES: Final = 16_384
# geth's and the definition's usual work: a quarter of a gigabyte and most of a second for each guess.
SCRYPT_N: Final = 262_144
SCRYPT_R: Final = 8
SCRYPT_P: Final = 1
# What a file from elsewhere may ask of this machine: a gigabyte, and about a minute.
SCRYPT_MEMORY_MAX_BYTES: Final = 1 << 30
SCRYPT_P_MAX: Final = 16
PBKDF2_ROUNDS_MAX: Final = 50_000_000

_SALT_SIZE_BYTES: Final = 32
_IV_SIZE_BYTES: Final = 16
_DERIVED_SIZE_BYTES: Final = 32
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_KEY_TEXT = re.compile(r"(?:0[xX])?[0-9a-fA-F]{64}\Z")
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO

T = TypeVar("T")

_Hex = Annotated[str, msgspec.Meta(pattern=r"\A(?:0x)?(?:[0-9a-fA-F]{2}){0,256}\Z")]


class _CipherParams(msgspec.Struct, frozen=True):
    iv: _Hex


class _Scrypt(msgspec.Struct, frozen=True):
    n: Annotated[int, msgspec.Meta(ge=2, le=1 << 24)]
    r: Annotated[int, msgspec.Meta(ge=1, le=1 << 16)]
    p: Annotated[int, msgspec.Meta(ge=1, le=SCRYPT_P_MAX)]
    salt: _Hex
    dklen: Annotated[int, msgspec.Meta(ge=32, le=64)] = 32


class _Pbkdf2(msgspec.Struct, frozen=True):
    c: Annotated[int, msgspec.Meta(ge=1, le=PBKDF2_ROUNDS_MAX)]
    salt: _Hex
    prf: str = "hmac-sha256"
    dklen: Annotated[int, msgspec.Meta(ge=32, le=64)] = 32


class _Crypto(msgspec.Struct, frozen=True):
    cipher: str
    cipherparams: _CipherParams
    ciphertext: _Hex
    kdf: str
    kdfparams: dict[str, Any]
    mac: _Hex


class _Document(msgspec.Struct, frozen=True):
    crypto: _Crypto
    version: int
    address: str = ""


class StoredKey(msgspec.Struct, frozen=True):
    """A key as it may be shown: its name and its EIP-55 address (`""` where the file does not say it)."""

    name: str
    address: str


class Keystore:
    """A folder of encrypted keys, that only its owner can reach.

    Every method raises `SignerError` where something is wrong; no error, repr or log holds a key or a passphrase.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Use `folder`; it is made (mode 0700) when the first key is stored."""
        self.folder = Path(folder)

    def __repr__(self) -> str:
        """Name the folder."""
        return f"Keystore({str(self.folder)!r})"

    def entries(self) -> list[StoredKey]:
        """List the keys, by name; one whose file can't be read has no address here."""
        if not self.folder.is_dir():
            return []
        names = sorted(path.stem for path in self.folder.glob("*.json") if _NAME.match(path.stem))
        return [self._find_or_name(name) for name in names]

    def find(self, name: str) -> StoredKey:
        """Give the address of the key `name`, without a passphrase."""
        address = _read_document(self.document(name), f"the key {name}").address
        try:
            return StoredKey(name, checksum_address(bytes.fromhex(address.removeprefix("0x"))) if address else "")
        except ValueError:
            raise SignerError(f"The file of the key {name} has no readable address.") from None

    def _find_or_name(self, name: str) -> StoredKey:
        try:
            return self.find(name)
        except SignerError:
            return StoredKey(name, "")

    def document(self, name: str) -> bytes:
        """Read the encrypted file of the key `name`, as it is."""
        path = self._path(name)
        try:
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
        except FileNotFoundError:
            raise SignerError(f"There is no key {name!r}; `farthing key list` shows which there are.") from None
        except OSError as error:
            raise SignerError(f"The file of the key {name} can't be opened: {error.strerror}.") from None
        try:
            _check_private(os.fstat(descriptor), path)
            return os.read(descriptor, KEYSTORE_MAX_BYTES + 1)
        except OSError as error:
            raise SignerError(f"The file of the key {name} can't be read: {error.strerror}.") from None
        finally:
            os.close(descriptor)

    def create(self, name: str, passphrase: str) -> StoredKey:
        """Make a new key from the operating system's randomness and store it. Never takes the place of another."""
        stored = self._store(name, secrets.token_bytes(KEY_SIZE_BYTES), passphrase)
        del passphrase  # here and below: the frame is part of the traceback
        return _told(stored)

    def add_hex(self, name: str, text: str, passphrase: str) -> StoredKey:
        """Store a key that is given as 64 hexadecimal digits, with or without `0x`."""
        stored = self._store(name, _secret_of(text), passphrase)
        del text, passphrase
        return _told(stored)

    def add_document(self, name: str, document: bytes, passphrase: str) -> StoredKey:
        """Store a key out of an encrypted file from elsewhere, encrypted anew under the same passphrase."""
        stored = self._store_again(name, document, passphrase)
        del passphrase
        return _told(stored)

    def signer(self, name: str, passphrase: str) -> LocalSigner:
        """Open the key `name`."""
        opened = self._opened(name, passphrase)
        signer = opened if isinstance(opened, str) else LocalSigner(opened)
        del opened, passphrase
        return _told(signer)

    def reveal(self, name: str, passphrase: str) -> str:
        """Give the key `name` in clear: `0x` and 64 digits. Whoever sees them has the money."""
        opened = self._opened(name, passphrase)
        del passphrase
        return "0x" + _told(opened).hex()

    def _store_again(self, name: str, document: bytes, passphrase: str) -> StoredKey | str:
        try:
            opened = _decrypt(_read_document(document, "the file given"), passphrase)
        except SignerError as error:
            return str(error)
        return opened if isinstance(opened, str) else self._store(name, opened, passphrase)

    def _opened(self, name: str, passphrase: str) -> bytes | str:
        try:
            document = _read_document(self.document(name), f"the key {name}")
        except SignerError as error:
            return str(error)
        return _decrypt(document, passphrase)

    def _path(self, name: str) -> Path:
        if _NAME.match(name) is None or _KEY_TEXT.match(name):
            shown = "What was given" if _KEY_TEXT.match(name) else repr(name[:64])
            raise SignerError(f"{shown} is no name of a key: up to 64 letters, digits, dots, dashes and underscores.")
        return self.folder / f"{name}.json"

    def _store(self, name: str, secret: bytes, passphrase: str) -> StoredKey | str:
        """Store a key, or say why it can't be: no error may start in a frame that holds it."""
        if not passphrase:
            return "The passphrase is empty: a key is stored under one."
        address = _address(secret)
        if not address:
            return "This is no private key: 64 hexadecimal digits are, with or without 0x."
        try:
            path = self._path(name)
            for folder in (self.folder.parent, self.folder):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write_new(path, _encrypt(secret, passphrase, address))
        except SignerError as error:
            return str(error)
        except FileExistsError:
            return f"There is a key {name!r} already; give this one another name."
        except OSError as error:
            return f"The key can't be stored in {self.folder}: {error.strerror}."
        return StoredKey(name, address)


def is_keystore(data: bytes) -> bool:
    """Tell whether `data` is meant as an encrypted keystore rather than as a key in clear."""
    return data.lstrip()[:1] == b"{"


def _address(secret: bytes) -> str:
    """The address of a key, or nothing where it is none: no error may start in a frame that holds it."""
    try:
        return PrivateKey(secret).address
    except KeyInvalid:
        return ""


def _secret_of(text: str) -> bytes:
    text = text.strip()
    return bytes.fromhex(text[-2 * KEY_SIZE_BYTES :]) if _KEY_TEXT.match(text) else b""


def _told(result: T | str) -> T:
    """Give the result, or raise what was said instead of one."""
    if isinstance(result, str):
        raise SignerError(result)
    return result


def _encrypt(secret: bytes, passphrase: str, address: str) -> bytes:
    salt, iv = secrets.token_bytes(_SALT_SIZE_BYTES), secrets.token_bytes(_IV_SIZE_BYTES)
    params = _Scrypt(SCRYPT_N, SCRYPT_R, SCRYPT_P, salt.hex(), _DERIVED_SIZE_BYTES)
    derived = _scrypt(params, passphrase)
    ciphertext: bytes = _aes(derived[:16], iv).encrypt(secret)
    document = {
        "address": address.removeprefix("0x").lower(),
        "crypto": {
            "cipher": "aes-128-ctr",
            "cipherparams": {"iv": iv.hex()},
            "ciphertext": ciphertext.hex(),
            "kdf": "scrypt",
            "kdfparams": msgspec.to_builtins(params),
            "mac": keccak256(derived[16:32] + ciphertext).hex(),
        },
        "id": str(uuid.uuid4()),
        "version": 3,
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def _decrypt(document: _Document, passphrase: str) -> bytes | str:
    """The 32 bytes of the key, or why there are none."""
    crypto = document.crypto
    derived = _derive(crypto, passphrase)
    if isinstance(derived, str):
        return derived
    ciphertext, iv = _bytes(crypto.ciphertext), _bytes(crypto.cipherparams.iv)
    if not hmac.compare_digest(keccak256(derived[16:32] + ciphertext), _bytes(crypto.mac)):
        return "The key can't be opened: the passphrase is another one."
    if len(ciphertext) != KEY_SIZE_BYTES or len(iv) != _IV_SIZE_BYTES:
        return "The key can't be opened: its key or its initial value has the wrong size."
    secret: bytes = _aes(derived[:16], iv).decrypt(ciphertext)
    address = _address(secret)
    if not address:
        return "The key can't be opened: what is in it is no private key."
    if document.address and _fold(document.address) != _fold(address):
        return "The key can't be opened: the address that it names is not the key's."
    return secret


def _aes(key: bytes, iv: bytes) -> Any:
    from Crypto.Cipher import AES  # noqa: PLC0415 - only where a keystore is used

    new = cast("Any", AES.new)  # pyright: ignore[reportUnknownMemberType] # its stubs leave a type argument out
    return new(key, AES.MODE_CTR, nonce=b"", initial_value=iv)


def _derive(crypto: _Crypto, passphrase: str) -> bytes | str:  # noqa: PLR0911 - one line a reason
    if crypto.cipher != "aes-128-ctr":
        return f"The key can't be opened: its cipher is {crypto.cipher[:32]!a}, and only aes-128-ctr is known here."
    try:
        if crypto.kdf == "scrypt":
            params = msgspec.convert(crypto.kdfparams, _Scrypt)
            memory_bytes = 128 * params.n * params.r
            if params.n & (params.n - 1) or memory_bytes > SCRYPT_MEMORY_MAX_BYTES:
                return (
                    f"The key can't be opened: its scrypt asks for n={params.n}, r={params.r}; n is a power of 2, and "
                    f"{SCRYPT_MEMORY_MAX_BYTES} bytes of memory are the limit."
                )
            return _scrypt(params, passphrase)
        if crypto.kdf == "pbkdf2":
            rounds = msgspec.convert(crypto.kdfparams, _Pbkdf2)
            if rounds.prf != "hmac-sha256":
                return (
                    f"The key can't be opened: its function is {rounds.prf[:32]!a}, and only hmac-sha256 is known here."
                )
            return hashlib.pbkdf2_hmac("sha256", passphrase.encode(), _bytes(rounds.salt), rounds.c, rounds.dklen)
    except (msgspec.ValidationError, ValueError):
        return "The key can't be opened: the parameters of its key derivation can't be used."
    return f"The key can't be opened: its function is {crypto.kdf[:32]!a}; scrypt and pbkdf2 are known here."


def _scrypt(params: _Scrypt, passphrase: str) -> bytes:
    # What OpenSSL counts: the table, the blocks, and two more.
    memory_bytes = 128 * params.r * (params.n + params.p + 2) + (1 << 16)
    return hashlib.scrypt(
        passphrase.encode(),
        salt=_bytes(params.salt),
        n=params.n,
        r=params.r,
        p=params.p,
        maxmem=memory_bytes,
        dklen=params.dklen,
    )


def _read_document(data: bytes, what: str) -> _Document:
    if len(data) > KEYSTORE_MAX_BYTES:
        raise SignerError(f"In {what} are more than {KEYSTORE_MAX_BYTES} bytes; a keystore is smaller.")
    try:
        # Older files write members in capitals; all are looked up without regard to case.
        document = msgspec.convert(_folded(msgspec.json.decode(data)), _Document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        raise SignerError(f"In {what} is no keystore: JSON with crypto and version is.") from None
    if document.version != 3:  # noqa: PLR2004 - the version's number
        raise SignerError(f"In {what} is a keystore of version {document.version}; version 3 is known here.")
    return document


def _folded(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key.lower(): _folded(each) for key, each in cast("dict[str, Any]", value).items()}


def _fold(address: str) -> str:
    return address.lower().removeprefix("0x")


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def _check_private(status: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise SignerError(f"{path} is no regular file.")
    if sys.platform == "win32":
        return  # access lists instead of modes: the folder of the user's profile is private already
    if status.st_mode & _OTHERS:
        raise SignerError(f"{path} is open to others: `chmod 600 {path}`, and think of the key as seen.")


def _write_new(path: Path, document: bytes) -> None:
    """Write a file that only its owner can read, whole or not at all. Raises `FileExistsError`."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(document)
            file.flush()
            os.fsync(file.fileno())
        if sys.platform == "win32":
            draft.rename(path)  # which refuses to replace a file there
            return
        os.link(draft, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        draft.unlink(missing_ok=True)
