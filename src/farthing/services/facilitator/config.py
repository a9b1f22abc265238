"""The configuration of `farthing facilitator`: a TOML file, read into frozen structs; each error names its field.

A secret is never written in the file: it names environment variables, a private file, or a token's SHA-256.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Final

import msgspec

from farthing.errors import ConfigError
from farthing.evm.addresses import AddressInvalid, parse_address
from farthing.facilitator.desk import Limits
from farthing.facilitator.fees import FeeCaps
from farthing.networks import KNOWN, Network, Networks, Token, eip155_chain_id
from farthing.services.tables import Table, read_table, read_text
from farthing.world.keys import LocalSigner, signer_from_env, signer_from_file

TOKEN_MIN_CHARS: Final = 16
# Each is code of a stranger's that is run at our cost; a network has a handful of wallets' factories.
FACTORIES_MAX: Final = 64
# Hot wallets: each is watched and funded, and a handful fills a chain's blocks.
WALLETS_MAX: Final = 16
_GWEI: Final = Decimal(10**9)


class TokenEntry(Table, frozen=True):
    """A bearer token: `name` shows in the log; the token itself is in the environment, or only its SHA-256 is known."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"\A[A-Za-z0-9._-]+\Z")]
    env: str = ""
    sha256: str = ""


class ServerTable(Table, frozen=True):
    """Where the service listens. Port 0 takes a free one. Without tokens only loopback is allowed."""

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 4020
    tokens: tuple[TokenEntry, ...] = ()


class WalletTable(Table, frozen=True):
    """A hot wallet that pays for gas: its key's environment variable, or the private file that holds it."""

    key_env: str = ""
    key_file: str = ""


class FeesTable(Table, frozen=True):
    """The absolute cap of a transaction's fee, and the tip that is offered first, in gwei a unit of gas."""

    max_fee_per_gas_gwei: str = "10"
    priority_fee_per_gas_gwei: str = "0.01"


class AssetTable(Table, frozen=True):
    """A token that Farthing's own table does not know."""

    address: str
    symbol: str
    decimals: Annotated[int, msgspec.Meta(ge=0, le=77)]
    eip712_name: str
    eip712_version: str
    currency: str = "USD"


class NetworkTable(Table, frozen=True):
    """A network: its CAIP-2 name, its node's URLs (`env:NAME` for one with a key in it), and the tokens it settles.

    `tokens` are symbols or addresses of known tokens (all of them by default); `token` tables bring others.
    `confirmations` is the depth at which a payment is settled, 1 being the block itself; by default the network's own.
    `wallet_factories` are the contracts that are called to deploy a payer's wallet (ERC-6492); by default none.
    """

    id: str
    rpc_urls: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=8)]
    tokens: tuple[str, ...] | None = None
    token: tuple[AssetTable, ...] = ()
    confirmations: Annotated[int, msgspec.Meta(ge=1, le=1000)] | None = None
    wallet_factories: Annotated[tuple[str, ...], msgspec.Meta(max_length=FACTORIES_MAX)] = ()


class Config(Table, frozen=True):
    """The whole file. One `[wallet]`, or several as `[[wallet]]`: payments are spread over them."""

    wallet: WalletTable | Annotated[tuple[WalletTable, ...], msgspec.Meta(min_length=1, max_length=WALLETS_MAX)]
    network: Annotated[tuple[NetworkTable, ...], msgspec.Meta(min_length=1, max_length=64)]
    store: str = "facilitator.sqlite3"
    server: ServerTable = ServerTable()
    fees: FeesTable = FeesTable()
    limits: Limits = Limits()


def load_config(path: Path) -> Config:
    """Read and check a file. Raises `ConfigError` that names file, field and what to do."""
    return read_config(read_text(path), where=str(path))


def read_config(text: str, *, where: str = "configuration") -> Config:
    """Read a configuration's text. Raises `ConfigError` that names the field and, where it can be found, the line."""
    config = read_table(text, Config, where=where)
    for table in config.network:
        if eip155_chain_id(table.id) is None:
            message = f"{where} [network.id]: {table.id!r} is no EIP-155 network; write it like 'eip155:8453'."
            raise ConfigError(message)
    fee_caps(config)
    return config


def fee_caps(config: Config) -> FeeCaps:
    """The fees in wei. Raises `ConfigError`."""
    cap = _wei(config.fees.max_fee_per_gas_gwei, "fees.max_fee_per_gas_gwei")
    tip = _wei(config.fees.priority_fee_per_gas_gwei, "fees.priority_fee_per_gas_gwei")
    if tip > cap or cap == 0:
        message = "[fees]: priority_fee_per_gas_gwei is at most max_fee_per_gas_gwei, which is over zero."
        raise ConfigError(message)
    return FeeCaps(cap, tip)


def _wei(text: str, field: str) -> int:
    try:
        wei = Decimal(text) * _GWEI
    except InvalidOperation:
        wei = Decimal(-1)
    if not wei.is_finite() or wei < 0 or wei != wei.to_integral_value():
        message = f"[{field}]: {text!r} is no fee in gwei; write it like '0.05'."
        raise ConfigError(message)
    return int(wei)


def signers_of(config: Config, environment: Mapping[str, str] | None = None) -> tuple[LocalSigner, ...]:
    """Read the hot wallets' keys. Raises `ConfigError` or `SignerError`, neither of which holds one."""
    wallets = (config.wallet,) if isinstance(config.wallet, WalletTable) else config.wallet
    signers = tuple(_signer_of(wallet, environment) for wallet in wallets)
    addresses = [signer.address for signer in signers]
    for address in addresses:
        if addresses.count(address) > 1:
            message = f"[[wallet]]: {address} is there twice; each wallet has a key of its own."
            raise ConfigError(message)
    return signers


def _signer_of(wallet: WalletTable, environment: Mapping[str, str] | None) -> LocalSigner:
    if bool(wallet.key_env) == bool(wallet.key_file):
        message = "[wallet]: give key_env (an environment variable's name) or key_file (a private file), one of both."
        raise ConfigError(message)
    return signer_from_env(wallet.key_env, environment) if wallet.key_env else signer_from_file(wallet.key_file)


def networks_of(config: Config) -> Networks:
    """The known networks and tokens, and what the file adds."""
    networks = KNOWN
    for table in config.network:
        known = networks.find(table.id) or Network(caip2=table.id, name=table.id)
        if table.confirmations is not None:
            known = msgspec.structs.replace(known, confirmations=table.confirmations)
        networks = networks.with_network(known)
        for asset in table.token:
            networks = networks.with_token(
                Token(
                    network=table.id,
                    address=asset.address,
                    symbol=asset.symbol,
                    decimals=asset.decimals,
                    eip712_name=asset.eip712_name,
                    eip712_version=asset.eip712_version,
                    currency=asset.currency,
                )
            )
    return networks


def assets_of(config: Config, networks: Networks) -> frozenset[tuple[str, str]]:
    """The assets that are settled, by (network, address in lower case). Raises `ConfigError`."""
    assets: set[tuple[str, str]] = set()
    for table in config.network:
        known = networks.tokens(table.id)
        chosen = known if table.tokens is None else tuple(_find_token(table, known, each) for each in table.tokens)
        chosen += tuple(each for each in known if each.address.lower() in {own.address.lower() for own in table.token})
        if not chosen:
            message = f"[network {table.id}]: no token is known there; describe one in a [[network.token]] table."
            raise ConfigError(message)
        assets.update((table.id, each.address.lower()) for each in chosen)
    return frozenset(assets)


def _find_token(table: NetworkTable, known: tuple[Token, ...], wanted: str) -> Token:
    for token in known:
        if wanted.lower() in {token.address.lower(), token.symbol.lower()}:
            return token
    message = (
        f"[network {table.id}] tokens: {wanted!r} is not among the known ones "
        f"({', '.join(token.symbol for token in known) or 'none'}); describe it in a [[network.token]] table."
    )
    raise ConfigError(message)


def factories_of(config: Config) -> dict[str, tuple[str, ...]]:
    """The wallet factories that may be called, by network. Raises `ConfigError` for one that is no address."""
    for table in config.network:
        for each in table.wallet_factories:
            try:
                parse_address(each)
            except AddressInvalid as error:
                message = f"[network {table.id}] wallet_factories: {error}"
                raise ConfigError(message) from None
    return {table.id: table.wallet_factories for table in config.network}


def urls_of(table: NetworkTable, environment: Mapping[str, str]) -> tuple[str, ...]:
    """The node's URLs, those of `env:NAME` read from the environment. Raises `ConfigError` without showing one."""
    urls: list[str] = []
    for each in table.rpc_urls:
        url = environment.get(each.removeprefix("env:"), "") if each.startswith("env:") else each
        if not url.startswith(("http://", "https://")):
            shown = each if each.startswith("env:") else "one of them"
            message = f"[network {table.id}] rpc_urls: {shown} is no URL; it begins with http:// or https://."
            raise ConfigError(message)
        urls.append(url)
    return tuple(urls)
