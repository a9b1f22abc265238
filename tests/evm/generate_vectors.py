"""Makes the golden vectors of EIP-712 and EIP-3009 with eth-account: `python tests/evm/generate_vectors.py`.

The file is checked in; `test_vectors.py` fails when it and eth-account, or it and Farthing, drift apart.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from eth_account import Account
from eth_account.messages import encode_typed_data

PATH = Path(__file__).with_name("vectors") / "typed_data.json"

DOMAINS = [
    {
        "name": "USD Coin",
        "version": "2",
        "chainId": 8453,
        "verifyingContract": "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913",
    },
    {
        "name": "USDC",
        "version": "2",
        "chainId": 84532,
        "verifyingContract": "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
    },
    {
        "name": "USD₮0",
        "version": "1",
        "chainId": 14,
        "verifyingContract": "0xe7cd86e13AC4309349F30B3435a9d337750fC82D",
    },
    {"name": "", "version": "", "chainId": 402402, "verifyingContract": "0x" + "00" * 20},
]

_TRANSFER = [
    ("from", "address"),
    ("to", "address"),
    ("value", "uint256"),
    ("validAfter", "uint256"),
    ("validBefore", "uint256"),
    ("nonce", "bytes32"),
]
TYPES: dict[str, list[tuple[str, str]]] = {
    "TransferWithAuthorization": _TRANSFER,
    "ReceiveWithAuthorization": _TRANSFER,
    "CancelAuthorization": [("authorizer", "address"), ("nonce", "bytes32")],
    "Permit": [
        ("owner", "address"),
        ("spender", "address"),
        ("value", "uint256"),
        ("nonce", "uint256"),
        ("deadline", "uint256"),
    ],
}
_DOMAIN_TYPE = [("name", "string"), ("version", "string"), ("chainId", "uint256"), ("verifyingContract", "address")]


def typed_data(primary_type: str, domain: dict[str, Any], message: dict[str, Any]) -> dict[str, Any]:
    """The JSON form of EIP-712, written out here and not by the code under test."""
    types = {"EIP712Domain": _DOMAIN_TYPE, primary_type: TYPES[primary_type]}
    return {
        "types": {name: [{"name": n, "type": t} for n, t in fields] for name, fields in types.items()},
        "primaryType": primary_type,
        "domain": domain,
        "message": message,
    }


def oracle_digest(full: dict[str, Any]) -> bytes:
    """eth-account's digest of a typed message."""
    signable = encode_typed_data(full_message=full)
    from eth_utils.crypto import keccak  # noqa: PLC0415 - slow to import

    return keccak(b"\x19" + signable.version + signable.header + signable.body)


def generate() -> list[dict[str, Any]]:
    """Make all vectors; deterministic."""
    vectors = []
    for at, domain in enumerate(DOMAINS):
        for primary_type, fields in TYPES.items():
            for case in ("usual", "zero", "largest"):
                seed = f"{at} {primary_type} {case}"
                key = hashlib.sha256(("key " + seed).encode()).digest()
                message = {name: _value(kind, case, f"{seed} {name}") for name, kind in fields}
                full = typed_data(primary_type, domain, message)
                signed = Account.sign_typed_data(key, full_message=full)
                vectors.append(
                    {
                        "typedData": full,
                        "privateKey": "0x" + key.hex(),
                        "address": Account.from_key(key).address,
                        "digest": "0x" + oracle_digest(full).hex(),
                        "signature": "0x" + bytes(signed.signature).hex(),
                    }
                )
    return vectors


def _value(kind: str, case: str, seed: str) -> Any:
    entropy = hashlib.sha256(seed.encode()).digest()
    if kind == "address":
        from eth_utils.address import to_checksum_address  # noqa: PLC0415 - slow to import

        return to_checksum_address({"usual": entropy[:20], "zero": bytes(20), "largest": b"\xff" * 20}[case])
    if kind == "bytes32":
        return "0x" + {"usual": entropy, "zero": bytes(32), "largest": b"\xff" * 32}[case].hex()
    return str({"usual": int.from_bytes(entropy[:4], "big"), "zero": 0, "largest": 2**256 - 1}[case])


def render() -> str:
    """The text of the file."""
    return json.dumps(generate(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    PATH.write_text(render(), encoding="utf-8")
