"""The golden vectors: checked in, made by eth-account, met by Farthing to the byte."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from farthing.evm.addresses import parse_address
from farthing.evm.signatures import PrivateKey, recover_address
from farthing.evm.typed_data import (
    CancelAuthorization,
    Domain,
    Permit,
    ReceiveWithAuthorization,
    TransferWithAuthorization,
    TypedStruct,
)

HERE = Path(__file__).parent
VECTORS: list[dict[str, Any]] = json.loads((HERE / "vectors" / "typed_data.json").read_text(encoding="utf-8"))


def read_domain(domain: dict[str, Any]) -> Domain:
    return Domain(domain["name"], domain["version"], domain["chainId"], parse_address(domain["verifyingContract"]))


def read_message(primary_type: str, message: dict[str, str]) -> TypedStruct:
    def address(name: str) -> bytes:
        return parse_address(message[name])

    def nonce() -> bytes:
        return bytes.fromhex(message["nonce"][2:])

    if primary_type == "CancelAuthorization":
        return CancelAuthorization(address("authorizer"), nonce())
    if primary_type == "Permit":
        numbers = (int(message[name]) for name in ("value", "nonce", "deadline"))
        return Permit(address("owner"), address("spender"), *numbers)
    kind = TransferWithAuthorization if primary_type.startswith("Transfer") else ReceiveWithAuthorization
    value, after, before = (int(message[name]) for name in ("value", "validAfter", "validBefore"))
    return kind(address("from"), address("to"), value, after, before, nonce())


def test_vectors_are_those_that_the_generator_makes() -> None:
    spec = importlib.util.spec_from_file_location("generate_vectors", HERE / "generate_vectors.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (HERE / "vectors" / "typed_data.json").read_text(encoding="utf-8") == module.render()


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["digest"][:10])
def test_digest_signature_and_rendering_are_the_vectors(vector: dict[str, Any]) -> None:
    full = vector["typedData"]
    domain = read_domain(full["domain"])
    message = read_message(full["primaryType"], full["message"])
    key = PrivateKey.from_hex(vector["privateKey"])
    digest = bytes.fromhex(vector["digest"][2:])
    signature = bytes.fromhex(vector["signature"][2:])
    assert message.digest(domain) == digest
    assert message.bind(domain).to_json() == full
    assert key.address == vector["address"]
    # RFC 6979 makes signatures deterministic, so that two libraries agree on every byte.
    assert key.sign_typed_data(message.bind(domain)) == signature
    assert recover_address(digest, signature) == parse_address(vector["address"])
