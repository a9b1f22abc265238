"""The first block of the devnet: its accounts, its contracts, and the same as a `genesis.json` for other nodes.

Every key here is derived from a public label, so anybody has it. They are worthless by design: never send anything of
value to one of these addresses, on any chain.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import msgspec

from farthing.evm.addresses import checksum_address, parse_address
from farthing.evm.keccak import keccak256
from farthing.evm.signatures import PrivateKey
from farthing.services.devnet.contracts import Contract, load_contract

# A chain id that no public network has, so that no signature made here is worth anything elsewhere.
DEFAULT_CHAIN_ID: Final = 402402
# Where USDC stands: the last 20 bytes of keccak256("farthing devnet USDC").
DEFAULT_TOKEN_ADDRESS: Final = checksum_address(keccak256(b"farthing devnet USDC")[12:])
# Where the token's code stands, behind the proxy at the token's own address, as on public chains.
TOKEN_IMPLEMENTATION_ADDRESS: Final = checksum_address(keccak256(b"farthing devnet USDC implementation")[12:])
# Where Multicall3 stands on every public chain.
MULTICALL3_ADDRESS: Final = "0xcA11bde05977b3631167028862bE2a173976CA11"

ACCOUNT_COUNT: Final = 10
# What each account starts with: 10,000 ether for gas and a million dollars.
ACCOUNT_WEI: Final = 10_000 * 10**18
ACCOUNT_USDC: Final = 1_000_000 * 10**6
# The faucet owns the token (it mints) and has a billion ether.
FAUCET_WEI: Final = 10**9 * 10**18

# Those of a public chain: 30 million gas a block, and one gwei of base fee to start from.
BLOCK_GAS_LIMIT: Final = 30_000_000
INITIAL_BASE_FEE: Final = 10**9

_WORD_BYTES: Final = 32


class Account(msgspec.Struct, frozen=True):
    """A funded account: EIP-55 address and `0x` private key. Worthless, see above."""

    address: str
    private_key: str


class GenesisAccount(msgspec.Struct, frozen=True):
    """What an address has in the first block."""

    balance_wei: int = 0
    nonce: int = 0
    code: bytes = b""
    storage: dict[int, int] = {}


class Genesis(msgspec.Struct, frozen=True):
    """The first block: chain id, unix time, the token's address (EIP-55), and accounts by 20-byte address."""

    chain_id: int
    timestamp_seconds: int
    token_address: str
    accounts: dict[bytes, GenesisAccount]


@cache
def account(label: str) -> Account:
    """Derive an account from its label: the private key is keccak256 of the label's bytes."""
    secret = keccak256(label.encode())
    return Account(PrivateKey(secret).address, "0x" + secret.hex())


def faucet_account() -> Account:
    """The account that owns the token and hands out both currencies."""
    return account("farthing devnet faucet")


def funded_accounts() -> tuple[Account, ...]:
    """The accounts that are rich from the first block on."""
    return tuple(account(f"farthing devnet account {index}") for index in range(ACCOUNT_COUNT))


def build_genesis(*, chain_id: int, timestamp_seconds: int, token_address: str | None = None) -> Genesis:
    """Lay out the first block. Raises `AddressInvalid` for a token address that is none."""
    token = parse_address(token_address or DEFAULT_TOKEN_ADDRESS)
    accounts = {parse_address(each.address): GenesisAccount(ACCOUNT_WEI) for each in funded_accounts()}
    accounts[parse_address(faucet_account().address)] = GenesisAccount(FAUCET_WEI)
    accounts[parse_address(MULTICALL3_ADDRESS)] = _contract(load_contract("Multicall3"), {})
    usdc, proxy = load_contract("USDC"), load_contract("TokenProxy")
    implementation = parse_address(TOKEN_IMPLEMENTATION_ADDRESS)
    behind = {proxy.storage_slots["implementation"]: int.from_bytes(implementation, "big")}
    accounts[implementation] = _contract(usdc, {})
    accounts[token] = _contract(proxy, _token_storage(usdc, token) | behind)
    return Genesis(chain_id, timestamp_seconds, checksum_address(token), accounts)


def genesis_json(genesis: Genesis) -> dict[str, Any]:
    """Write the genesis as geth's `genesis.json`, which `anvil --init` reads."""
    return {
        "config": {"chainId": genesis.chain_id},
        "nonce": "0x0",
        "timestamp": hex(genesis.timestamp_seconds),
        "extraData": "0x",
        "gasLimit": hex(BLOCK_GAS_LIMIT),
        "difficulty": "0x0",
        "mixHash": "0x" + bytes(_WORD_BYTES).hex(),
        "coinbase": "0x" + bytes(20).hex(),
        "baseFeePerGas": hex(INITIAL_BASE_FEE),
        "alloc": {
            "0x" + address.hex(): {
                "balance": hex(entry.balance_wei),
                "nonce": hex(entry.nonce),
                "code": "0x" + entry.code.hex(),
                "storage": {_word(slot): _word(value) for slot, value in entry.storage.items()},
            }
            for address, entry in genesis.accounts.items()
        },
    }


def _contract(contract: Contract, storage: dict[int, int]) -> GenesisAccount:
    # A contract's nonce starts at one (EIP-161).
    return GenesisAccount(0, 1, bytes.fromhex(contract.runtime_code[2:]), storage)


def _token_storage(usdc: Contract, token: bytes) -> dict[int, int]:
    """The token's storage as its constructor and one mint for each account would have left it."""
    slots = usdc.storage_slots
    holders = funded_accounts()
    storage = {
        slots["owner"]: int.from_bytes(parse_address(faucet_account().address), "big"),
        slots["totalSupply"]: ACCOUNT_USDC * len(holders),
        # The real one blocks itself, so that nobody loses money by paying the token.
        _map_slot(slots["isBlacklisted"], token): 1,
    }
    for holder in holders:
        storage[_map_slot(slots["balanceOf"], parse_address(holder.address))] = ACCOUNT_USDC
    return storage


def _map_slot(slot: int, key: bytes) -> int:
    # Vyper hashes slot, then key (Solidity the other way round).
    return int.from_bytes(keccak256(slot.to_bytes(_WORD_BYTES, "big") + key.rjust(_WORD_BYTES, b"\0")), "big")


def _word(value: int) -> str:
    return "0x" + value.to_bytes(_WORD_BYTES, "big").hex()
