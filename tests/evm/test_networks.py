"""The table of networks against the official packages' tables."""

from __future__ import annotations

import pytest
from x402.mechanisms.evm.default_assets import DEFAULT_ASSETS

from farthing import networks
from farthing.errors import ConfigError
from farthing.evm.addresses import is_address
from farthing.networks import DEVNET, KNOWN, Network, Networks, Token, eip155_chain_id, split_name


@pytest.mark.parametrize("caip2", DEFAULT_ASSETS)
def test_every_default_asset_of_the_official_table_is_known(caip2: str) -> None:
    assert networks.find(caip2) is not None
    for at, asset in enumerate(DEFAULT_ASSETS[caip2]):
        token = KNOWN.token(caip2, asset["asset"])
        assert token is not None
        assert KNOWN.tokens(caip2)[at] is token
        assert token.address == asset["asset"]
        assert (token.eip712_name, token.eip712_version) == (asset["name"], asset["version"])
        assert (token.decimals, token.symbol) == (asset["decimals"], asset["symbol"])
        assert token.transfer_method == asset.get("asset_transfer_method", "eip3009")
        assert token.supports_eip2612 == asset.get("supports_eip2612", False)


def test_every_row_is_sound() -> None:
    for network in KNOWN:
        assert network.namespace == "eip155"
        assert network.confirmations >= 1
        assert network.block_time_milliseconds > 0
        for token in KNOWN.tokens(network.caip2):
            assert is_address(token.address)
            assert token.network == network.caip2
    base = networks.find("eip155:8453")
    assert base is not None
    assert base.confirmations == 1


def test_tokens_are_found_in_any_case_and_by_currency() -> None:
    usdc = KNOWN.token("eip155:8453", "0x833589FCD6EDB6E08F4C7C32D4F71B54BDA02913")
    assert usdc is not None
    assert usdc.decimals == 6
    assert KNOWN.token_for("eip155:8453") is usdc
    assert KNOWN.token_for("eip155:42220", "usdt") is not None
    assert KNOWN.token_for("eip155:42220", "EUR") is None
    assert KNOWN.token("eip155:1", usdc.address) is None
    assert KNOWN.tokens("eip155:999999999") == ()
    (cents,) = KNOWN.tokens("cloudflare:402")
    assert (cents.address, cents.decimals) == ("USD", 2)


def test_a_table_is_extended_into_another_and_never_in_place() -> None:
    token = Token(
        network=DEVNET.caip2,
        address="0x" + "11" * 20,
        symbol="USDC",
        decimals=6,
        eip712_name="USDC",
        eip712_version="2",
    )
    extended = KNOWN.with_token(token)
    assert extended.token_for("eip155:402402", "USDC") is token
    assert KNOWN.tokens("eip155:402402") == ()
    other = extended.with_network(Network(caip2="eip155:31337", name="anvil"))
    assert other.find("eip155:31337") is not None
    assert extended.find("eip155:31337") is None
    assert other.token("eip155:402402", token.address) is token
    assert Networks().find("eip155:1") is None


@pytest.mark.parametrize("name", ["eip155:8453", "cloudflare:402", "sepa:eu", "card:visa", "solana:5eykt4UsFv8P8NJdT"])
def test_names_outside_the_pattern_of_caip2_are_let_pass(name: str) -> None:
    assert ":".join(split_name(name)) == name
    assert networks.find("cloudflare:402") is None


@pytest.mark.parametrize("name", ["", ":", "a:", ":b", "base", "a:b:c"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        split_name(name)


@pytest.mark.parametrize(
    "name", ["eip155:", "eip155:01", "eip155:+1", "eip155:1e3", "eip155:\uff11", "eip155: 1", "eip155:*", "solana:1",
             "EIP155:1", "eip155:0", "eip155:" + "9" * 21, "8453"],
)  # fmt: skip
def test_S10_chain_ids_are_plain_decimal(name: str) -> None:
    assert eip155_chain_id(name) is None
    with pytest.raises(ConfigError):
        _ = Network(caip2=name, name="x").chain_id
