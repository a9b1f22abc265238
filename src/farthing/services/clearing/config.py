"""The configuration of `farthing clearing`: a TOML file, read into frozen structs; each error names its field.

A secret is never written in the file: it names environment variables or private files, or a token's SHA-256.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

import msgspec

from farthing.clearing.rules import Rules
from farthing.errors import ConfigError
from farthing.networks import KNOWN, Network, Networks, Token, eip155_chain_id
from farthing.services.tables import Table, read_table, read_text
from farthing.signatures.keys import SigningKey
from farthing.world.keys import LocalSigner, signer_from_env, signer_from_file

TOKEN_MIN_CHARS: Final = 16
KEY_FILE_MAX_BYTES: Final = 256
_KEY = re.compile(r"(?:0x)?([0-9a-fA-F]{64})\s*")


class TokenEntry(Table, frozen=True):
    """An operator's bearer token; those of edges, payers and payees are made by operators and kept in the store."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"\A[A-Za-z0-9._-]+\Z")]
    env: str = ""
    sha256: str = ""


class ServerTable(Table, frozen=True):
    """Where the service listens. Port 0 takes a free one. Every door but the public ones asks for a token."""

    operators: Annotated[tuple[TokenEntry, ...], msgspec.Meta(min_length=1, max_length=64)]
    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 4030


class KeyTable(Table, frozen=True):
    """A key: its environment variable, or the private file that holds it (64 hexadecimal digits)."""

    key_env: str = ""
    key_file: str = ""


class AssetTable(Table, frozen=True):
    """A token that Farthing's own table does not know."""

    address: str
    symbol: str
    decimals: Annotated[int, msgspec.Meta(ge=6, le=6)]
    eip712_name: str
    eip712_version: str
    currency: str = "USD"


class UsdcTable(Table, frozen=True):
    """The rail `usdc`: the chain, the token, the treasury's key, and the facilitator that settles.

    `one_to_one` says that one unit of `currency` is one of the token: whoever runs a house says so explicitly.
    `first_block`: from where the chain is read the very first time; by default from the newest finalised block.
    """

    network: str
    rpc_urls: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=8)]
    treasury: KeyTable
    facilitator: str
    one_to_one: bool
    facilitator_token_env: str = ""
    currency: str = "USD"
    asset: AssetTable | None = None
    symbol: str = "USDC"
    first_block: int | None = None


class ClearingConfig(Table, frozen=True):
    """The whole file. `tick_seconds` is how often windows, rails and payouts are looked after."""

    server: ServerTable
    statement_key: KeyTable
    usdc: UsdcTable
    rules: Rules = Rules()
    store: str = "clearing.sqlite3"
    tick_seconds: Annotated[int, msgspec.Meta(ge=1, le=3_600)] = 15
    # Authorities of payees whose proof is fetched although they are this machine's or a private network's.
    private_domains: Annotated[tuple[str, ...], msgspec.Meta(max_length=64)] = ()


def load_config(path: Path) -> ClearingConfig:
    """Read and check a file. Raises `ConfigError` that names file, field and what to do."""
    return read_config(read_text(path), where=str(path))


def read_config(text: str, *, where: str = "configuration") -> ClearingConfig:
    """Read a configuration's text. Raises `ConfigError` that names the field."""
    config = read_table(text, ClearingConfig, where=where)
    if eip155_chain_id(config.usdc.network) is None:
        message = f"{where} [usdc.network]: {config.usdc.network!r} is no EIP-155 network; write it like 'eip155:8453'."
        raise ConfigError(message)
    if not config.usdc.one_to_one:
        message = (
            f"{where} [usdc.one_to_one]: the rail pays one {config.usdc.symbol} for one {config.usdc.currency}. "
            "Say one_to_one = true if that is what your agreements say."
        )
        raise ConfigError(message)
    return config


def token_of(table: UsdcTable) -> tuple[Networks, Token]:
    """The rail's token, and the networks that know it. Raises `ConfigError`."""
    networks = KNOWN
    if networks.find(table.network) is None:
        networks = networks.with_network(Network(caip2=table.network, name=table.network))
    if table.asset is not None:
        own = Token(
            network=table.network,
            address=table.asset.address,
            symbol=table.asset.symbol,
            decimals=table.asset.decimals,
            eip712_name=table.asset.eip712_name,
            eip712_version=table.asset.eip712_version,
            currency=table.asset.currency,
        )
        return networks.with_token(own), own
    for token in networks.tokens(table.network):
        if token.symbol.upper() == table.symbol.upper():
            return networks, token
    message = f"[usdc]: {table.symbol} on {table.network} is not known; describe it in a [usdc.asset] table."
    raise ConfigError(message)


def urls_of(table: UsdcTable, environment: Mapping[str, str]) -> tuple[str, ...]:
    """The node's URLs, those of `env:NAME` read from the environment. Raises `ConfigError` without showing one."""
    urls: list[str] = []
    for each in table.rpc_urls:
        url = environment.get(each.removeprefix("env:"), "") if each.startswith("env:") else each
        if not url.startswith(("http://", "https://")):
            shown = each if each.startswith("env:") else "one of them"
            message = f"[usdc] rpc_urls: {shown} is no URL; it begins with http:// or https://."
            raise ConfigError(message)
        urls.append(url)
    return tuple(urls)


def treasury_of(table: KeyTable, environment: Mapping[str, str]) -> LocalSigner:
    """Read the treasury's key. Raises `ConfigError` or `SignerError`, neither of which holds it."""
    _one_of(table, "[usdc.treasury]")
    return signer_from_env(table.key_env, environment) if table.key_env else signer_from_file(table.key_file)


def statement_key_of(table: KeyTable, environment: Mapping[str, str]) -> SigningKey:
    """Read the Ed25519 key that signs statements: 64 hexadecimal digits. Raises `ConfigError`, which never holds it."""
    _one_of(table, "[statement_key]")
    if table.key_env:
        text, source = environment.get(table.key_env, ""), f"the environment variable {table.key_env}"
    else:
        # A private file's owner and mode are judged as those of any other key's.
        text, source = _read_private(table.key_file), f"the file {table.key_file}"
    found = _KEY.fullmatch(text)
    del text
    if found is None:
        message = f"[statement_key]: {source} holds no key; 64 hexadecimal digits are one."
        raise ConfigError(message)
    return SigningKey(bytes.fromhex(found[1]))


def _read_private(path: str) -> str:
    signer_from_file(path)  # owner, mode and form; what it would sign on a chain is nobody's
    return Path(path).read_text("ascii")[:KEY_FILE_MAX_BYTES]


def _one_of(table: KeyTable, where: str) -> None:
    if bool(table.key_env) == bool(table.key_file):
        message = f"{where}: give key_env (an environment variable's name) or key_file (a private file), one of both."
        raise ConfigError(message)
