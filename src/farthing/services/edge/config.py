"""The configuration of `farthing edge`: a TOML file, read into frozen structs; each error names its field."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from farthing.errors import ConfigError
from farthing.protocol.clearing import Label
from farthing.servers.edge import OFFLINE_LIMIT_SECONDS
from farthing.services.tables import Table, read_table, read_text
from farthing.signatures.keys import SigningKey
from farthing.world.edge_credit import LEASE_AMOUNT_DEFAULT, LEASE_SECONDS_DEFAULT
from farthing.world.keys import read_private_file

ROUTES_MAX: Final = 1_000
_KEY_FILE_MAX_BYTES: Final = 256
_KEY = re.compile(r"(?:0x)?([0-9a-fA-F]{64})\s*")


class ClearingTable(Table, frozen=True):
    """The clearing house: its URL, its network, the edge's token (an environment variable), and who is paid."""

    url: str
    network: Annotated[str, msgspec.Meta(pattern=r"\Aclearing:[-_a-zA-Z0-9]{1,32}\Z")]
    token_env: str
    payee: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    # What the clearing house wants to see at this site before it pays anything out.
    challenge: Annotated[str, msgspec.Meta(max_length=200)] = ""
    currency: Annotated[str, msgspec.Meta(pattern=r"\A[A-Z]{3}\Z")] = "USD"
    lease_amount: Annotated[int, msgspec.Meta(ge=1, le=10**15)] = LEASE_AMOUNT_DEFAULT
    lease_seconds: Annotated[int, msgspec.Meta(ge=1, le=86_400)] = LEASE_SECONDS_DEFAULT
    offline_limit_seconds: Annotated[int, msgspec.Meta(ge=0, le=86_400)] = int(OFFLINE_LIMIT_SECONDS)


class ReceiptsTable(Table, frozen=True):
    """The Ed25519 key that signs receipts: its environment variable, or the private file with it."""

    key_env: str = ""
    key_file: str = ""


class UpstreamTable(Table, frozen=True):
    """The site behind: its URL, and how long it may take to begin its answer."""

    url: str
    timeout_seconds: Annotated[int, msgspec.Meta(ge=1, le=3_600)] = 60


class RouteTable(Table, frozen=True):
    """A price: `route = "GET /articles/{id}"`, `price = "$0.001"`; whether buyers' ids are taken for repeats."""

    route: str
    price: str
    payment_identifier: Literal["off", "optional", "required"] = "off"
    description: Annotated[str, msgspec.Meta(max_length=500)] = ""


class ServerTable(Table, frozen=True):
    """Where it listens. Port 0 takes a free one; with `reuse_port` several processes share one port."""

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 4040
    reuse_port: bool = False


class DirectoriesTable(Table, frozen=True):
    """Key directories: `allowed` names origins that may be private or plain http (a test's, a demo's)."""

    allowed: Annotated[tuple[str, ...], msgspec.Meta(max_length=64)] = ()
    require_signed: bool = True


class EdgeConfig(Table, frozen=True):
    """The whole file."""

    name: Label
    base_url: str
    clearing: ClearingTable
    receipts: ReceiptsTable
    upstream: UpstreamTable
    route: Annotated[tuple[RouteTable, ...], msgspec.Meta(min_length=1, max_length=ROUTES_MAX)]
    store: str = "edge.sqlite3"
    server: ServerTable = ServerTable()
    directories: DirectoriesTable = DirectoriesTable()


def load_config(path: Path) -> EdgeConfig:
    """Read and check a file. Raises `ConfigError` that names file, field and what to do."""
    return read_config(read_text(path), where=str(path))


def read_config(text: str, *, where: str = "configuration") -> EdgeConfig:
    """Read a configuration's text. Raises `ConfigError` that names the field."""
    return read_table(text, EdgeConfig, where=where)


def receipt_key_of(table: ReceiptsTable, environment: Mapping[str, str] | None = None) -> SigningKey:
    """Read the key that signs receipts. Raises `ConfigError` or `SignerError`, neither of which holds it."""
    environment = os.environ if environment is None else environment
    if bool(table.key_env) == bool(table.key_file):
        message = "[receipts]: give key_env (an environment variable's name) or key_file (a private file), one of both."
        raise ConfigError(message)
    if table.key_env:
        text, source = environment.get(table.key_env, ""), f"the environment variable {table.key_env}"
    else:
        text, source = read_private_file(table.key_file, max_bytes=_KEY_FILE_MAX_BYTES), f"the file {table.key_file}"
    found = _KEY.fullmatch(text)
    del text
    if found is None:
        message = f"[receipts]: {source} holds no key; 64 hexadecimal digits are one (`openssl rand -hex 32`)."
        raise ConfigError(message)
    return SigningKey(bytes.fromhex(found[1]))


def token_of(table: ClearingTable, environment: Mapping[str, str] | None = None) -> str:
    """Read the edge's token. Raises `ConfigError`."""
    token = (os.environ if environment is None else environment).get(table.token_env, "")
    if not token:
        message = f"[clearing] token_env: {table.token_env} is not set; the clearing house's operator gives the token."
        raise ConfigError(message)
    return token
