"""The configuration: what is wrong is said with its field and line, and secrets stay out of it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from farthing.errors import ConfigError, SignerError
from farthing.facilitator.fees import FeeCaps
from farthing.services.facilitator.auth import LOOPBACK, tokens_of
from farthing.services.facilitator.config import (
    assets_of,
    fee_caps,
    load_config,
    networks_of,
    read_config,
    signers_of,
    urls_of,
)

GOOD = """
[wallet]
key_env = "WALLET_KEY"

[fees]
max_fee_per_gas_gwei = "0.5"
priority_fee_per_gas_gwei = "0.001"

[[server.tokens]]
name = "shop"
env = "SHOP_TOKEN"

[[network]]
id = "eip155:8453"
rpc_urls = ["env:BASE_RPC", "https://mainnet.base.org"]
tokens = ["USDC"]
"""
TOKEN = "a-token-of-the-shop-0123456789"
KEY = "0x" + "11" * 32
BASE_USDC = "0x833589fcd6edb6e08f4c7c32d4f71b54bda02913"


def test_a_good_configuration_is_read() -> None:
    config = read_config(GOOD)
    networks = networks_of(config)
    assert assets_of(config, networks) == {("eip155:8453", BASE_USDC)}
    assert fee_caps(config) == FeeCaps(500_000_000, 1_000_000)
    environment = {"WALLET_KEY": KEY, "SHOP_TOKEN": TOKEN, "BASE_RPC": "https://rpc.example/v2/secret"}
    assert [each.address for each in signers_of(config, environment)] == ["0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A"]
    assert urls_of(config.network[0], environment)[0] == "https://rpc.example/v2/secret"
    tokens = tokens_of(config.server, environment)
    assert tokens.caller(f"Bearer {TOKEN}") == "shop"
    assert tokens.caller(None) is None
    assert tokens.caller("Bearer " + "x" * 10_000) is None
    assert tokens_of(read_config(GOOD.replace("[[server.tokens]]", "[[server.tokens]]")).server, environment)


def test_a_tokens_hash_is_enough() -> None:
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    config = read_config(GOOD.replace('env = "SHOP_TOKEN"', f'sha256 = "{digest}"'))
    assert tokens_of(config.server, {}).caller(f"bearer {TOKEN}") == "shop"
    nobody = read_config(GOOD.replace('[[server.tokens]]\nname = "shop"\nenv = "SHOP_TOKEN"', ""))
    assert tokens_of(nobody.server, {}).caller(None) == LOOPBACK


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("key_env", "key_enw", r":3 \[wallet\].*key_enw"),
        ('id = "eip155:8453"', 'id = "base"', r"network\.id.*'base'"),
        ('id = "eip155:8453"', "id = 8453", r":14 \[network\[0\]\.id\]: Expected `str`, got `int`"),
        ("[fees]", "[fees", r"not TOML.*line 5"),
        ('"0.5"', '"half"', r"fees\.max_fee_per_gas_gwei.*'half'"),
        ('"0.5"', '"0.0000000001"', r"no fee in gwei"),
        ('"0.001"', '"1"', r"at most max_fee_per_gas_gwei"),
        ("[[network]]", "[[netwerk]]", r"netwerk|network"),
        ("rpc_urls = [", "rpc_urls = [] #", r"rpc_urls"),
    ],
)
def test_A3_a_mistake_is_named_with_its_field_and_line(old: str, new: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_config(GOOD.replace(old, new))


def test_A3_what_the_configuration_names_and_is_not_there(tmp_path: Path) -> None:
    config = read_config(GOOD)
    with pytest.raises(SignerError, match="WALLET_KEY"):
        signers_of(config, {})
    with pytest.raises(ConfigError, match="SHOP_TOKEN"):
        tokens_of(config.server, {"SHOP_TOKEN": "short"})
    with pytest.raises(ConfigError, match="env:BASE_RPC is no URL"):
        urls_of(config.network[0], {})
    unknown = read_config(GOOD.replace('tokens = ["USDC"]', 'tokens = ["DAI"]'))
    with pytest.raises(ConfigError, match=r"'DAI' is not among the known ones \(USDC\)"):
        assets_of(unknown, networks_of(unknown))
    with pytest.raises(ConfigError, match="can't be read"):
        load_config(tmp_path / "nothing.toml")
    both = read_config(GOOD.replace('key_env = "WALLET_KEY"', 'key_env = "A"\nkey_file = "b"'))
    with pytest.raises(ConfigError, match="one of both"):
        signers_of(both, {"A": KEY})
