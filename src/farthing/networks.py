"""Networks and tokens as data: what a program must know about them and can't ask.

    from farthing import networks
    networks.find("eip155:8453").name                      # "Base"
    networks.KNOWN.token("eip155:8453", address).decimals  # 6

The tables are values. A program that knows more networks or tokens makes a table of its own
(`KNOWN.with_token(…)`) and hands it on; nothing here is changed in place.

Sources: the tokens are those of the default asset table of the official packages (PyPI `x402` 2.25.0, npm
`@x402/evm` 2.27.0; `tests/evm/test_networks.py` compares).
Confirmations and block times are our own choice, made with caution: an operator's configuration overrides them.
"""

from __future__ import annotations

from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import msgspec

from farthing.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

EIP3009: Final = "eip3009"
PERMIT2: Final = "permit2"

# Where a chain's habits aren't known: a handful of blocks, so that a reorganisation of the usual depth is waited out.
_CONFIRMATIONS_UNKNOWN = 6
_BLOCK_TIME_UNKNOWN_MILLISECONDS = 2000

# A chain id is a uint256 in EIP-155 and less than 2^53 wherever JavaScript has a say; ids of more digits are refused.
_CHAIN_ID_DIGITS_MAX = 20


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """A network by its CAIP-2 name.

    `confirmations` is the depth in blocks (the including block is 1) at which a settlement counts as confirmed; one
    is enough where a single sequencer or a vote orders the blocks. `block_time_milliseconds` is the usual distance of
    blocks, for pacing polls and judging windows, and no promise.
    """

    caip2: str
    name: str
    confirmations: int = _CONFIRMATIONS_UNKNOWN
    block_time_milliseconds: int = _BLOCK_TIME_UNKNOWN_MILLISECONDS
    native_currency: str = "ETH"
    testnet: bool = False

    @property
    def namespace(self) -> str:
        """The part before the colon: `eip155`."""
        return split_name(self.caip2)[0]

    @property
    def chain_id(self) -> int:
        """The EIP-155 chain id. Raises `ConfigError` for a network of another namespace."""
        chain_id = eip155_chain_id(self.caip2)
        if chain_id is None:
            message = f"{self.caip2} is no eip155 network and has no chain id."
            raise ConfigError(message)
        return chain_id


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """A token on a network.

    `address` is EIP-55 text. `eip712_name` and `eip712_version` are the domain's members, which are often not the
    token's own name. `currency` is what one unit is worth one of, `""` where we don't say. `transfer_method` is
    `eip3009` or `permit2`. `supports_eip2612` is True where the official table says so; False says nothing.
    """

    network: str
    address: str
    symbol: str
    decimals: int
    eip712_name: str
    eip712_version: str
    currency: str = "USD"
    transfer_method: str = EIP3009
    supports_eip2612: bool = False


class Networks:
    """An immutable table of networks and their tokens. The first token of a network is its default."""

    __slots__ = ("_networks", "_tokens", "_tokens_of")

    def __init__(self, networks: tuple[Network, ...] = (), tokens: tuple[Token, ...] = ()) -> None:
        """Make a table; a later entry of the same name or address takes the earlier one's place."""
        self._networks: Mapping[str, Network] = MappingProxyType({each.caip2: each for each in networks})
        by_address = {(each.network, each.address.lower()): each for each in tokens}
        self._tokens: Mapping[tuple[str, str], Token] = MappingProxyType(by_address)
        tokens_of: dict[str, tuple[Token, ...]] = {}
        for each in by_address.values():
            tokens_of[each.network] = (*tokens_of.get(each.network, ()), each)
        self._tokens_of: Mapping[str, tuple[Token, ...]] = MappingProxyType(tokens_of)

    def __iter__(self) -> Iterator[Network]:
        """Go through the networks."""
        return iter(self._networks.values())

    def find(self, caip2: str) -> Network | None:
        """Find a network by its CAIP-2 name; None where the table has none."""
        return self._networks.get(caip2)

    def tokens(self, caip2: str) -> tuple[Token, ...]:
        """The tokens of a network, the default first."""
        return self._tokens_of.get(caip2) or _credit(caip2)

    def token(self, caip2: str, address: str) -> Token | None:
        """Find a token by network and address (in any case of its digits)."""
        known = self._tokens.get((caip2, address.lower()))
        return known or next((each for each in _credit(caip2) if each.address == address), None)

    def token_for(self, caip2: str, wanted: str = "USD") -> Token | None:
        """Find the first token of a network that has `wanted` as its currency or its symbol."""
        upper = wanted.upper()
        return next((each for each in self.tokens(caip2) if upper in {each.currency, each.symbol.upper()}), None)

    def with_network(self, network: Network) -> Networks:
        """Make a table that has `network` too, or instead of one of the same name."""
        split_name(network.caip2)
        return Networks((*self._networks.values(), network), tuple(self._tokens.values()))

    def with_token(self, token: Token) -> Networks:
        """Make a table that has `token` too, or instead of one of the same address."""
        return Networks(tuple(self._networks.values()), (*self._tokens.values(), token))


@lru_cache(maxsize=64)  # a program speaks with a handful of networks
def _credit(caip2: str) -> tuple[Token, ...]:
    """The currencies of a network that promises are made on. There are as many such networks as clearing houses.

    A clearing house counts millionths; `cloudflare:402` counts cents, and no table of ours may say otherwise.
    """
    namespace, _, reference = caip2.partition(":")
    if namespace == "clearing" and reference:
        return tuple(_currency(caip2, code, 6) for code in ("USD", "EUR"))
    return (_currency(caip2, "USD", 2),) if caip2 == "cloudflare:402" else ()


def _currency(caip2: str, code: str, decimals: int) -> Token:
    return Token(
        network=caip2,
        address=code,
        symbol=code,
        decimals=decimals,
        eip712_name="",
        eip712_version="",
        currency=code,
        transfer_method="",
    )


def split_name(caip2: str) -> tuple[str, str]:
    """Take a network's name apart: namespace and reference.

    Lenient, since names that CAIP-2's pattern refuses are in use (`cloudflare:402` has ten letters, and `sepa:eu` and
    `card:visa` exist): anything with one colon and something on both sides. Raises `ConfigError`.
    """
    namespace, colon, reference = caip2.partition(":")
    if not (namespace and colon and reference) or ":" in reference:
        message = f"{caip2!r} is no network name; write it like 'eip155:8453'."
        raise ConfigError(message)
    return namespace, reference


# A process serves a handful of networks; offers can name any, so that the cache is small and bounded.
@lru_cache(maxsize=128)
def eip155_chain_id(caip2: str) -> int | None:
    """The chain id of an `eip155:…` name: decimal, ASCII, no sign and no leading zero. None for any other name."""
    digits = caip2.removeprefix("eip155:")
    if digits == caip2 or not (digits.isascii() and digits.isdecimal()) or len(digits) > _CHAIN_ID_DIGITS_MAX:
        return None
    return None if digits[0] == "0" else int(digits)


def find(caip2: str) -> Network | None:
    """Find a network in the table that comes with Farthing."""
    return KNOWN.find(caip2)


def _chain(
    chain_id: int,
    name: str,
    confirmations: int,
    block_time_milliseconds: int,
    native_currency: str = "ETH",
    *,
    testnet: bool = False,
) -> Network:
    return Network(
        caip2=f"eip155:{chain_id}",
        name=name,
        confirmations=confirmations,
        block_time_milliseconds=block_time_milliseconds,
        native_currency=native_currency,
        testnet=testnet,
    )


def _usd(
    chain_id: int,
    address: str,
    symbol: str = "USDC",
    eip712_name: str = "USDC",
    eip712_version: str = "2",
    *,
    decimals: int = 6,
    transfer_method: str = EIP3009,
    supports_eip2612: bool = False,
) -> Token:
    return Token(
        network=f"eip155:{chain_id}",
        address=address,
        symbol=symbol,
        decimals=decimals,
        eip712_name=eip712_name,
        eip712_version=eip712_version,
        transfer_method=transfer_method,
        supports_eip2612=supports_eip2612,
    )


# Farthing's own chain: the id means nothing elsewhere, so that no signature made on it is worth anything elsewhere.
# Its token's address comes by configuration (`KNOWN.with_token(…)`).
DEVNET: Final = _chain(402402, "Farthing devnet", 1, 1000, testnet=True)

_CHAINS = (
    # Rollups with one sequencer, and chains that vote on every block, don't reorganise in practice: one block.
    _chain(8453, "Base", 1, 2000),
    _chain(84532, "Base Sepolia", 1, 2000, testnet=True),
    _chain(42161, "Arbitrum One", 1, 250),
    _chain(421614, "Arbitrum Sepolia", 1, 250, testnet=True),
    _chain(43114, "Avalanche C-Chain", 1, 2000, "AVAX"),
    _chain(43113, "Avalanche Fuji", 1, 2000, "AVAX", testnet=True),
    _chain(42220, "Celo", 1, 1000, "CELO"),
    _chain(11142220, "Celo Sepolia", 1, 1000, "CELO", testnet=True),
    _chain(1329, "Sei", 1, 400, "SEI"),
    _chain(1328, "Sei Testnet", 1, 400, "SEI", testnet=True),
    _chain(5042, "Arc", 1, 500, "USDC"),
    _chain(5042002, "Arc Testnet", 1, 500, "USDC", testnet=True),
    _chain(14, "Flare", 1, 1800, "FLR"),
    _chain(988, "Stable", 1, 700, "USDT0"),
    _chain(2201, "Stable Testnet", 1, 700, "USDT0", testnet=True),
    _chain(4326, "MegaETH", 1, 1000),
    _chain(31612, "Mezo", 1, 4000, "BTC"),
    _chain(31611, "Mezo Testnet", 1, 4000, "BTC", testnet=True),
    # Two blocks to finality by design, or blocks that are seldom and shallowly replaced.
    _chain(143, "Monad", 2, 400, "MON"),
    _chain(10143, "Monad Testnet", 2, 400, "MON", testnet=True),
    _chain(1, "Ethereum", 3, 12000),
    _chain(137, "Polygon", 3, 2000, "POL"),
    _chain(80002, "Polygon Amoy", 3, 2000, "POL", testnet=True),
    _chain(50, "XDC Network", 3, 2000, "XDC"),
    _chain(51, "XDC Apothem", 3, 2000, "XDC", testnet=True),
    # Habits unknown to us: the careful default depth.
    _chain(36900, "ADI Chain", _CONFIRMATIONS_UNKNOWN, 2000, "ADI"),
    _chain(190415, "HPP", _CONFIRMATIONS_UNKNOWN, 2000),
    _chain(181228, "HPP Sepolia", _CONFIRMATIONS_UNKNOWN, 2000, testnet=True),
    _chain(38833, "Igra", _CONFIRMATIONS_UNKNOWN, 2000, "iKAS"),
    _chain(723487, "Radius", _CONFIRMATIONS_UNKNOWN, 2000, "RUSD"),
    _chain(72344, "Radius Testnet", _CONFIRMATIONS_UNKNOWN, 2000, "RUSD", testnet=True),
    # No token of these is in the official table.
    _chain(2741, "Abstract", 1, 1000),
    _chain(11124, "Abstract Testnet", 1, 1000, testnet=True),
    _chain(4689, "IoTeX", _CONFIRMATIONS_UNKNOWN, 2500, "IOTX"),
    _chain(3338, "peaq", _CONFIRMATIONS_UNKNOWN, 6000, "PEAQ"),
    _chain(1513, "Story Testnet", _CONFIRMATIONS_UNKNOWN, 2500, "IP", testnet=True),
    _chain(656476, "Open Campus Codex", _CONFIRMATIONS_UNKNOWN, 2000, "EDU", testnet=True),
    _chain(1444673419, "SKALE Base Sepolia", _CONFIRMATIONS_UNKNOWN, 2000, "CREDIT", testnet=True),
    DEVNET,
)

_TOKENS = (
    _usd(8453, "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", eip712_name="USD Coin"),
    _usd(84532, "0x036CbD53842c5426634e7929541eC2318f3dCF7e"),
    _usd(1, "0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48", eip712_name="USD Coin"),
    _usd(43114, "0xB97EF9Ef8734C71904D8002F8b6Bc66Dd9c48a6E", eip712_name="USD Coin"),
    _usd(137, "0x3c499c542cEF5E3811e1192ce70d8cC03d5c3359", eip712_name="USD Coin"),
    _usd(42161, "0xaf88d065e77c8cC2239327C5EDb3A432268e5831", eip712_name="USD Coin"),
    _usd(421614, "0x75faf114eafb1BDbe2F0316DF893fd58CE46AA4d", eip712_name="USD Coin"),
    _usd(143, "0x754704Bc059F8C67012fEd69BC8A327a5aafb603"),
    _usd(10143, "0x534b2f3A21130d7a60830c2Df862319e593943A3"),
    _usd(988, "0x779Ded0c9e1022225f8E0630b35a9b54bE713736", "USDT0", "USDT0", "1"),
    _usd(2201, "0x78Cf24370174180738C5B8E352B6D14c83a6c9A9", "USDT0", "USDT0", "1"),
    _usd(36900, "0x9cb8142aEBBcdc60AF7c97Af897A67A8f3CA71C2", "USDC.e", "USDC.e"),
    _usd(190415, "0x401eCb1D350407f13ba348573E5630B83638E30D", "USDC.e", "Bridged USDC"),
    _usd(181228, "0x401eCb1D350407f13ba348573E5630B83638E30D", "USDC.e", "Bridged USDC"),
    _usd(50, "0xfA2958CB79b0491CC627c1557F441eF849Ca8eb1"),
    _usd(51, "0xb5AB69F7bBada22B28e79C8FFAECe55eF1c771D4"),
    _usd(14, "0xe7cd86e13AC4309349F30B3435a9d337750fC82D", "USDT0", "USD₮0", "1"),
    _usd(42220, "0xcebA9300f2b948710d2653dD7B07f33A8B32118C"),
    _usd(42220, "0x48065fbBE25f71C9282ddf5e1cD6D6A887483D5e", "USDT", "Tether USD", "1"),
    _usd(42220, "0xD2ab3C9A02DBBAB236BfEC45D1d755DF4267F771", "USAT", "Tether America USD", "1"),
    _usd(11142220, "0x01C5C0122039549AD1493B8220cABEdD739BC44E"),
    _usd(1329, "0xe15fC38F6D8c56aF07bbCBe3BAf5708A2Bf42392"),
    _usd(1328, "0x4fCF1784B31630811181f670Aea7A7bEF803eaED"),
    _usd(5042, "0x3600000000000000000000000000000000000000"),
    _usd(5042002, "0x3600000000000000000000000000000000000000"),
    # No EIP-3009: paid by Permit2 alone.
    _usd(4326, "0xFAfDdbb3FC7688494971a79cc65DCa3EF82079E7", "MegaUSD", "MegaUSD", "1", decimals=18,
         transfer_method=PERMIT2, supports_eip2612=True),
    _usd(31612, "0xdD468A1DDc392dcdbEf6db6e34E89AA338F9F186", "mUSD", "Mezo USD", "1", decimals=18,
         transfer_method=PERMIT2, supports_eip2612=True),
    _usd(31611, "0x118917a40FAF1CD7a13dB0Ef56C86De7973Ac503", "mUSD", "Mezo USD", "1", decimals=18,
         transfer_method=PERMIT2, supports_eip2612=True),
    _usd(723487, "0x33ad9e4BD16B69B5BFdED37D8B5D9fF9aba014Fb", "SBC", "Stable Coin", "1", transfer_method=PERMIT2,
         supports_eip2612=True),
    _usd(72344, "0x33ad9e4BD16B69B5BFdED37D8B5D9fF9aba014Fb", "SBC", "Stable Coin", "1", transfer_method=PERMIT2,
         supports_eip2612=True),
    _usd(38833, "0xA5b8BF902b2844dA17d4506cc827F7F1681735E7", eip712_version="1", transfer_method=PERMIT2),
)  # fmt: skip

KNOWN: Final = Networks(_CHAINS, _TOKENS)
