"""`farthing key`: encrypted keys in a private folder."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from farthing.cli.home import keystore
from farthing.cli.signing import DEFAULT_NAME, SECRET_MAX_BYTES, passphrase, read_descriptor
from farthing.cli.terminal import Terminal
from farthing.errors import ConfigError, SignerError

if TYPE_CHECKING:
    from farthing.world.keystore import StoredKey

EXIT_NOT_CONFIRMED = 3

key = typer.Typer(
    name="key",
    help="Keys to pay with, encrypted on this machine.",
    epilog="Start with: farthing key new",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_KEY_TEXT = re.compile(r"(?:0[xX])?[0-9a-fA-F]{64}\Z")


def complete_names(incomplete: str) -> list[str]:
    """Give the names of keys that begin so, for a shell."""
    try:
        return [each.name for each in keystore().entries() if each.name.startswith(incomplete)]
    except SignerError:
        return []


Name = Annotated[str, typer.Argument(help="Its name.", autocompletion=complete_names)]
PassphraseFd = Annotated[
    int | None,
    typer.Option("--passphrase-fd", min=0, metavar="N", help="Read the passphrase from this file descriptor."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]


@key.command("new")
def new(name: Name = DEFAULT_NAME, *, passphrase_fd: PassphraseFd = None, as_json: AsJson = False) -> None:
    """Make a new key, and store it under a passphrase.

    The passphrase is typed twice, or comes from the environment variable FARTHING_PASSPHRASE or --passphrase-fd. Who
    forgets it has lost the key, and what the key's account holds.

    \b
    Examples:
      farthing key new                             a key called default
      farthing key new shopping --json             its address in JSON
      farthing key new bot --passphrase-fd 3 3<passphrase.txt
    """  # noqa: D301 - click's mark for lines that are not to be joined
    terminal = Terminal()
    _refuse_taken(name)
    stored = keystore().create(name, passphrase(terminal, "New passphrase", descriptor=passphrase_fd, new=True))
    _tell(stored, as_json=as_json)
    if not as_json:
        terminal.say(f"Stored in {keystore().folder}. Send it dollars (USDC) to pay with; it needs no ether.")


@key.command("import")
def import_key(
    name: Annotated[str, typer.Argument(help="The name to give it.")],
    file: Annotated[Path | None, typer.Argument(help="The file to read; - is standard input.")] = None,
    *,
    key_fd: Annotated[
        int | None, typer.Option("--key-fd", min=0, metavar="N", help="Read the key from this file descriptor.")
    ] = None,
    passphrase_fd: PassphraseFd = None,
    as_json: AsJson = False,
) -> None:
    """Store a key from elsewhere: 64 hexadecimal digits, or an encrypted keystore (Web3 Secret Storage, version 3).

    A keystore is opened with its passphrase, and stored under the same one. The key itself can't be written on the
    command line, which other users can see and shells remember.

    \b
    Examples:
      farthing key import shopping key.txt         from a file
      farthing key import shopping - < key.txt     from standard input
      farthing key import shopping --key-fd 3 3<key.txt
      farthing key import old UTC--2024-01-01T00-00-00Z--0123…  from another wallet's keystore
    """  # noqa: D301
    for given in (name, str(file or "")):
        if _KEY_TEXT.match(given):
            raise ConfigError(
                "A key can't be given on the command line: other users see it there, and the shell remembers it. "
                "Think of it as seen. Write it to a file that only you can read, or to standard input."
            )
    if (file is None) == (key_fd is None):
        raise ConfigError("Say where the key comes from: a FILE, - for standard input, or --key-fd N.")
    _refuse_taken(name)
    from_stdin = str(file) == "-"
    terminal = Terminal(stdin_is_body=from_stdin)
    data = _read_file(file) if file is not None and not from_stdin else read_descriptor(key_fd or 0, "--key-fd")
    _tell(_store(name, bytearray(data), terminal, passphrase_fd), as_json=as_json)


@key.command("list")
def list_keys(*, as_json: AsJson = False) -> None:
    """List the keys: names and addresses. Needs no passphrase.

    \b
    Examples:
      farthing key list
      farthing key list --json | jq -r '.[].address'
    """  # noqa: D301
    stored = keystore().entries()
    if as_json:
        print(json.dumps([{"name": each.name, "address": each.address} for each in stored]))
        return
    for each in stored:
        print(f"{each.name:<24}{each.address or '(its file can not be read)'}")
    if not stored:
        Terminal().say(f"There are no keys in {keystore().folder}. Make one: farthing key new")


@key.command("address")
def address(name: Name = DEFAULT_NAME) -> None:
    """Print the address of a key. Needs no passphrase.

    \b
    Examples:
      farthing key address
      farthing key address shopping
    """  # noqa: D301
    print(keystore().find(name).address)


@key.command("export")
def export(
    name: Name,
    *,
    encrypted: Annotated[bool, typer.Option("--encrypted", help="Print the encrypted keystore as it is.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Print a key: in clear after a warning and a question, or encrypted as it is stored.

    \b
    Examples:
      farthing key export shopping --encrypted > keystore.json    for another wallet
      farthing key export shopping                                in clear, asks first
    """  # noqa: D301
    store, terminal = keystore(), Terminal()
    if encrypted:
        sys.stdout.write(store.document(name).decode("utf-8", "replace"))
        return
    found = store.find(name)
    terminal.say(
        f"Whoever sees the key of {found.address} can take all that it holds, for ever. It will stand in clear on "
        "standard output."
    )
    if not yes and not (terminal.can_ask and terminal.confirms("Show it?")):
        terminal.say("Not shown." if terminal.can_ask else "Not shown: nobody is there to be asked (or say --yes).")
        raise typer.Exit(EXIT_NOT_CONFIRMED)
    asked = f"Passphrase of the key {name} ({found.address})"
    sys.stdout.write(store.reveal(name, passphrase(terminal, asked, descriptor=passphrase_fd)) + "\n")


def _refuse_taken(name: str) -> None:
    """Find out before a passphrase is typed that the name is taken, or none."""
    store = keystore()
    if any(each.name == name for each in store.entries()):
        raise SignerError(f"There is a key {name!r} already; give this one another name.")


def _store(name: str, data: bytearray, terminal: Terminal, passphrase_fd: int | None) -> StoredKey:
    from farthing.world.keystore import is_keystore  # noqa: PLC0415 - heavy parts only when run

    store = keystore()
    if is_keystore(bytes(data[:64])):
        asked = "The keystore's passphrase"
        return store.add_document(name, bytes(data), passphrase(terminal, asked, descriptor=passphrase_fd))
    new_one = passphrase(terminal, "New passphrase", descriptor=passphrase_fd, new=True)
    return store.add_hex(name, data.decode("ascii", "replace"), new_one)


def _read_file(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise ConfigError(f"{path} can't be opened: {error.strerror}.") from None
    try:
        return os.read(descriptor, SECRET_MAX_BYTES)
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}.") from None
    finally:
        os.close(descriptor)


def _tell(stored: StoredKey, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"name": stored.name, "address": stored.address}))
    else:
        print(f"{stored.name}  {stored.address}")
