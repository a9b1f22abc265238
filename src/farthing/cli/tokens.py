"""The networks and tokens that the command knows: Farthing's own table, and what the user adds to it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from farthing.errors import ConfigError

if TYPE_CHECKING:
    from farthing.networks import Networks, Token

TOKENS_VARIABLE: Final = "FARTHING_TOKENS"
NETWORKS_VARIABLE: Final = "FARTHING_NETWORKS"

# eip155:402402/0x…:USDC:2:6, as CAIP-19 begins; what follows is the EIP-712 name and version, and the decimals.
_TOKEN = re.compile(
    r"(?P<network>[a-z0-9-]+:[A-Za-z0-9-]+)/(?:erc20:)?(?P<address>0x[0-9a-fA-F]{40})"
    r"(?::(?P<name>[^:]{1,64}))?(?::(?P<version>[^:]{1,16}))?(?::(?P<decimals>[0-9]{1,2}))?\Z"
)
_DECIMALS_MAX: Final = 36


def known_networks(tokens: Sequence[str] = ()) -> Networks:
    """Give the table: Farthing's own, FARTHING_TOKENS, and `tokens`, of which the later counts."""
    from farthing.networks import KNOWN  # noqa: PLC0415 - heavy parts only when run

    table = KNOWN
    for text in (*os.environ.get(TOKENS_VARIABLE, "").split(), *tokens):
        table = table.with_token(_token(text))
    return table


def payable_networks(table: Networks, named: Sequence[str]) -> tuple[str, ...]:
    """Give the networks that may be paid on: those named, or FARTHING_NETWORKS, or all that have a dollar we know."""
    wanted = tuple(named) or tuple(os.environ.get(NETWORKS_VARIABLE, "").replace(",", " ").split())
    if wanted:
        return wanted
    return tuple(each.caip2 for each in table if any(token.currency == "USD" for token in table.tokens(each.caip2)))


def _token(text: str) -> Token:
    from farthing.evm.addresses import AddressInvalid, checksum_address, parse_address  # noqa: PLC0415
    from farthing.networks import Token  # noqa: PLC0415

    found = _TOKEN.match(text)
    decimals = int((found and found["decimals"]) or 6)
    if found is None or decimals > _DECIMALS_MAX:
        raise ConfigError(
            f"{text[:120]!r} is no token; write it like eip155:402402/0x…:USDC:2 (network/contract, then the name and "
            "the version of its EIP-712 domain, and its decimals where they are not 6)."
        )
    try:
        address = checksum_address(parse_address(found["address"]))
    except AddressInvalid as error:
        raise ConfigError(f"The token {text[:120]!r}: {error}") from None
    name = found["name"] or "USDC"
    return Token(
        network=found["network"],
        address=address,
        symbol=name,
        decimals=decimals,
        eip712_name=name,
        eip712_version=found["version"] or "2",
    )
