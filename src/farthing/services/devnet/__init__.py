"""A local chain with USDC on it, in one command or one `with`: `start_devnet`.

The names below load no part of the chain itself; that runs in a process of its own.
"""

from farthing.services.devnet.genesis import DEFAULT_CHAIN_ID, DEFAULT_TOKEN_ADDRESS, MULTICALL3_ADDRESS, Account
from farthing.services.devnet.handle import Devnet, start_devnet
from farthing.services.devnet.process import NodeName, find_anvil

__all__ = [
    "DEFAULT_CHAIN_ID",
    "DEFAULT_TOKEN_ADDRESS",
    "MULTICALL3_ADDRESS",
    "Account",
    "Devnet",
    "NodeName",
    "find_anvil",
    "start_devnet",
]
