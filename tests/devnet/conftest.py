"""What the devnet's tests share: a token to talk to, with eth-account and eth-abi as the oracle of what is signed."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from eth_abi.abi import decode, encode
from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from farthing.errors import NodeRefused
from farthing.services.devnet import Devnet

FAR_FUTURE = 2**40
TRANSFER_FIELDS = ("from", "to", "value", "validAfter", "validBefore", "nonce")
TRANSFER_TYPES = ("address", "address", "uint256", "uint256", "uint256", "bytes32")
_STRUCTS = {
    "TransferWithAuthorization": tuple(zip(TRANSFER_FIELDS, TRANSFER_TYPES, strict=True)),
    "ReceiveWithAuthorization": tuple(zip(TRANSFER_FIELDS, TRANSFER_TYPES, strict=True)),
    "CancelAuthorization": (("authorizer", "address"), ("nonce", "bytes32")),
    "Permit": (
        ("owner", "address"),
        ("spender", "address"),
        ("value", "uint256"),
        ("nonce", "uint256"),
        ("deadline", "uint256"),
    ),
}
_DOMAIN = (("name", "string"), ("version", "string"), ("chainId", "uint256"), ("verifyingContract", "address"))
_labels = itertools.count()


def new_account() -> LocalAccount:
    """An account that no other test has."""
    account: LocalAccount = Account.from_key(keccak(text=f"farthing devnet test {next(_labels)}"))
    return account


def calldata(signature: str, *values: Any) -> str:
    types = _arguments(signature)
    return "0x" + (keccak(text=signature)[:4] + encode(types, values)).hex()


def _arguments(signature: str) -> list[str]:
    inside = signature[signature.index("(") + 1 : -1]
    types, depth, start = [], 0, 0
    for index, letter in enumerate(inside):
        depth += (letter == "(") - (letter == ")")
        if letter == "," and not depth:
            types.append(inside[start:index])
            start = index + 1
    return [*types, inside[start:]] if inside else []


class Chain:
    """A devnet with shorthands. Amounts are atomic units."""

    def __init__(self, devnet: Devnet) -> None:
        self.devnet = devnet
        self.usdc = devnet.usdc
        self.rpc = devnet.rpc

    def read(self, signature: str, *values: Any, returns: str = "uint256", to: str | None = None, **fields: Any) -> Any:
        request = {"to": to or self.usdc, "data": calldata(signature, *values), **fields}
        return decode([returns], bytes.fromhex(self.rpc("eth_call", request, "latest")[2:]))[0]

    def refusal(self, signature: str, *values: Any, sender: str | None = None, to: str | None = None) -> str:
        """The text with which a call reverts."""
        request = {"to": to or self.usdc, "data": calldata(signature, *values)} | ({"from": sender} if sender else {})
        with pytest.raises(NodeRefused) as refused:
            self.rpc("eth_call", request, "latest")
        assert refused.value.code == 3
        data = bytes.fromhex(refused.value.data[2:])
        assert data[:4] == keccak(text="Error(string)")[:4]
        text: str = decode(["string"], data[4:])[0]
        assert text in str(refused.value)
        return text

    def sign(self, account: LocalAccount, fields: dict[str, Any]) -> str:
        """Sign a transaction whose fields may leave out the usual ones."""
        full = {
            "chainId": self.devnet.chain_id,
            "nonce": None,
            "maxFeePerGas": 10**10,
            "maxPriorityFeePerGas": 10**9,
            "gas": 300_000,
            "value": 0,
            **fields,
        }
        if "to" in full:
            full["to"] = to_checksum_address(full["to"])
        if full["nonce"] is None:
            full["nonce"] = int(self.rpc("eth_getTransactionCount", account.address, "pending"), 16)
        if "gasPrice" not in full:
            full["type"] = 2
        else:
            del full["maxFeePerGas"], full["maxPriorityFeePerGas"]
        raw: str = account.sign_transaction(full).raw_transaction.to_0x_hex()
        return raw

    def send(self, account: LocalAccount, **fields: Any) -> dict[str, Any]:
        """Send a transaction and wait for its receipt."""
        return self.devnet.wait_for_receipt(self.rpc("eth_sendRawTransaction", self.sign(account, fields)))

    def transact(self, account: LocalAccount, signature: str, *values: Any, to: str | None = None) -> dict[str, Any]:
        """Call a function by a transaction that must succeed."""
        receipt = self.send(account, to=to or self.usdc, data=calldata(signature, *values))
        assert receipt["status"] == "0x1"
        return receipt

    def typed_signature(self, key: LocalAccount, struct: str, message: dict[str, Any], **domain: Any) -> Any:
        """Sign a struct of the token's as eth-account does."""
        full = {
            "types": {
                "EIP712Domain": [{"name": name, "type": kind} for name, kind in _DOMAIN],
                struct: [{"name": name, "type": kind} for name, kind in _STRUCTS[struct]],
            },
            "primaryType": struct,
            "domain": {
                "name": "USDC",
                "version": "2",
                "chainId": self.devnet.chain_id,
                "verifyingContract": self.usdc,
                **domain,
            },
            "message": message,
        }
        return key.sign_typed_data(full_message=full)

    def funded(self, usdc: int | str = 0, eth: int | str = 0) -> LocalAccount:
        account = new_account()
        self.devnet.faucet(account.address, usdc=usdc, eth=eth)
        return account

    def named(self, label: str) -> LocalAccount:
        """The same account on every node."""
        account: LocalAccount = Account.from_key(keccak(text=f"farthing devnet test account {label}"))
        return account

    @property
    def owner(self) -> LocalAccount:
        account: LocalAccount = Account.from_key(self.devnet.owner[1])
        return account

    def balance(self, account: LocalAccount | str) -> int:
        return self.devnet.usdc_balance(account if isinstance(account, str) else account.address)

    def deploy(self, sender: LocalAccount, init_code: bytes) -> str:
        receipt = self.send(sender, data=init_code, gas=2_000_000)
        assert receipt["status"] == "0x1"
        return to_checksum_address(receipt["contractAddress"])


@pytest.fixture
def chain(devnet: Devnet) -> Chain:
    return Chain(devnet)


@pytest.fixture
def chain_pyevm(devnet_pyevm: Devnet) -> Chain:
    return Chain(devnet_pyevm)


@pytest.fixture
def account() -> Callable[[], LocalAccount]:
    return new_account


@pytest.fixture
def pack() -> Callable[..., str]:
    return calldata


@pytest.fixture
def chain_type() -> type[Chain]:
    return Chain
