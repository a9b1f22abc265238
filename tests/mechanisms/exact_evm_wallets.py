"""Payers with code, on a real node: a contract wallet, one that is not deployed yet, and an account that delegates."""

from __future__ import annotations

from typing import Any

import msgspec
from eth_abi.abi import encode
from eth_account import Account
from eth_utils.crypto import keccak
from exact_evm_market import Market

from farthing.evm.abi import selector
from farthing.evm.addresses import checksum_address, parse_address
from farthing.evm.counterfactual import WrappedSignature, wrap_signature
from farthing.evm.signatures import PrivateKey
from farthing.mechanisms.exact_evm.payload import signed_payment, write_payload
from farthing.mechanisms.interface import PreparedPayment
from farthing.services.devnet.contracts import load_contract

# ERC-5202: what a blueprint begins with, so that nobody calls it.
BLUEPRINT = b"\xfe\x71\x00"
# Deploys the bytes that follow it: CODECOPY and RETURN of all but the first eleven.
_STORE = bytes.fromhex("600b5981380380925939f3")


def deploy(market: Market, init_code: bytes) -> str:
    """Deploy a contract from the hot wallet's key; gives its address."""
    nonce = int(market.devnet.rpc("eth_getTransactionCount", market.wallet.address, "latest"), 16)
    fields = {
        "chainId": market.devnet.chain_id, "nonce": nonce, "type": 2, "gas": 3_000_000, "value": 0, "data": init_code,
        "maxFeePerGas": 10**12, "maxPriorityFeePerGas": 1,
    }  # fmt: skip
    secret = market.devnet.accounts[-1][1]
    raw = Account.sign_transaction(fields, secret).raw_transaction.to_0x_hex()
    receipt = market.devnet.wait_for_receipt(market.devnet.rpc("eth_sendRawTransaction", raw))
    assert receipt["status"] == "0x1"
    return checksum_address(parse_address(receipt["contractAddress"]))


def deploy_wallet(market: Market, owner: str) -> str:
    return deploy(market, _wallet_code() + encode(["address"], [owner]))


def deploy_factory(market: Market) -> str:
    blueprint = deploy(market, _STORE + BLUEPRINT + _wallet_code())
    code = bytes.fromhex(load_contract("WalletFactory").init_code[2:])
    return deploy(market, code + encode(["address"], [blueprint]))


def _wallet_code() -> bytes:
    return bytes.fromhex(load_contract("Wallet").init_code[2:])


def factory_call(owner: str, salt: bytes) -> bytes:
    return selector("create(address,bytes32)") + encode(["address", "bytes32"], [owner, salt])


def wallet_address(factory: str, owner: str, salt: bytes) -> str:
    """Where CREATE2 puts the wallet (EIP-1014)."""
    code = _wallet_code() + encode(["address"], [owner])
    return checksum_address(keccak(b"\xff" + parse_address(factory) + salt + keccak(code))[12:])


def delegate(market: Market, key: PrivateKey, secret: bytes, to: str) -> None:
    """Have an account delegate its code (EIP-7702); somebody else pays for the transaction."""
    devnet = market.devnet
    sender = devnet.accounts[-1]
    nonce = int(devnet.rpc("eth_getTransactionCount", sender[0], "latest"), 16)
    its_nonce = int(devnet.rpc("eth_getTransactionCount", key.address, "latest"), 16)
    authorization = Account.from_key(secret).sign_authorization(
        {"chainId": devnet.chain_id, "address": parse_address(to), "nonce": its_nonce}
    )
    fields: dict[str, Any] = {
        "chainId": devnet.chain_id, "nonce": nonce, "gas": 200_000, "value": 0, "to": sender[0],
        "data": b"", "maxFeePerGas": 10**12, "maxPriorityFeePerGas": 1, "authorizationList": [authorization],
    }  # fmt: skip
    raw = Account.sign_transaction(fields, sender[1]).raw_transaction.to_0x_hex()
    assert devnet.wait_for_receipt(devnet.rpc("eth_sendRawTransaction", raw))["status"] == "0x1"
    code = devnet.rpc("eth_getCode", key.address, "latest")
    assert code.lower() == "0xef0100" + to[2:].lower()


def pay_as(
    market: Market, payer: str, *, key: PrivateKey | None = None, wrapped: WrappedSignature | None = None
) -> PreparedPayment:
    """Pay from `payer`, signed by `key` (the buyer's by default), in a wrapper where one is given."""
    made: PreparedPayment = market.pay(payer=payer, key=key)
    if wrapped is None:
        return made
    detail = made.signed.detail
    outside = msgspec.structs.replace(wrapped, signature=detail.signature)
    return with_signature(market, made, wrap_signature(outside))


def with_signature(market: Market, made: PreparedPayment, signature: bytes) -> PreparedPayment:
    detail = msgspec.structs.replace(made.signed.detail, signature=signature)
    return PreparedPayment(write_payload(detail), signed_payment(market.offer.network, detail))
