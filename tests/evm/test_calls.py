"""Calldata and answers against eth-abi."""

from __future__ import annotations

import pytest
from eth_abi.abi import decode, encode
from eth_utils.abi import function_signature_to_4byte_selector as selector
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.evm import calls
from farthing.evm.abi import (
    AbiInvalid,
    pack_address,
    pack_uint,
    pack_word,
    read_address,
    read_bool,
    read_bytes,
    read_string,
    read_uint,
)
from farthing.evm.calls import Call3, Call3Result
from farthing.evm.signatures import PrivateKey, SignatureInvalid, split_signature
from farthing.evm.typed_data import CancelAuthorization, ReceiveWithAuthorization, TransferWithAuthorization

addresses = st.binary(min_size=20, max_size=20)
words = st.binary(min_size=32, max_size=32)
uints = st.one_of(st.integers(0, 2**256 - 1), st.integers(0, 2**40))
authorizations = (addresses, addresses, uints, uints, uints, words)
KEY = PrivateKey(b"\x07" * 32)
signatures = words.map(KEY.sign_digest)
WORDS = ["address", "address", "uint256", "uint256", "uint256", "bytes32"]
MEMBERS = "address,address,uint256,uint256,uint256,bytes32"


@settings(max_examples=200, deadline=None)
@given(st.builds(TransferWithAuthorization, *authorizations), signatures, st.binary(max_size=200))
def test_both_overloads_of_transfer(message: TransferWithAuthorization, signature: bytes, other: bytes) -> None:
    members = (message.from_, message.to, message.value, message.valid_after, message.valid_before, message.nonce)
    v, r, s = split_signature(signature)
    name = f"transferWithAuthorization({MEMBERS}"
    assert calls.transfer_with_authorization_vrs(message, signature) == selector(
        f"{name},uint8,bytes32,bytes32)"
    ) + encode([*WORDS, "uint8", "bytes32", "bytes32"], [*members, v, r, s])
    assert calls.transfer_with_authorization_bytes(message, other) == selector(f"{name},bytes)") + encode(
        [*WORDS, "bytes"], [*members, other]
    )


@settings(max_examples=100, deadline=None)
@given(st.builds(ReceiveWithAuthorization, *authorizations), signatures, st.binary(max_size=200))
def test_both_overloads_of_receive(message: ReceiveWithAuthorization, signature: bytes, other: bytes) -> None:
    members = (message.from_, message.to, message.value, message.valid_after, message.valid_before, message.nonce)
    v, r, s = split_signature(signature)
    name = f"receiveWithAuthorization({MEMBERS}"
    assert calls.receive_with_authorization_vrs(message, signature) == selector(
        f"{name},uint8,bytes32,bytes32)"
    ) + encode([*WORDS, "uint8", "bytes32", "bytes32"], [*members, v, r, s])
    assert calls.receive_with_authorization_bytes(message, other) == selector(f"{name},bytes)") + encode(
        [*WORDS, "bytes"], [*members, other]
    )


@settings(max_examples=100, deadline=None)
@given(addresses, words, signatures, st.binary(max_size=200))
def test_cancel_and_state(authorizer: bytes, nonce: bytes, signature: bytes, other: bytes) -> None:
    v, r, s = split_signature(signature)
    message = CancelAuthorization(authorizer, nonce)
    assert calls.cancel_authorization_vrs(message, signature) == selector(
        "cancelAuthorization(address,bytes32,uint8,bytes32,bytes32)"
    ) + encode(["address", "bytes32", "uint8", "bytes32", "bytes32"], [authorizer, nonce, v, r, s])
    assert calls.cancel_authorization_bytes(message, other) == selector(
        "cancelAuthorization(address,bytes32,bytes)"
    ) + encode(["address", "bytes32", "bytes"], [authorizer, nonce, other])
    assert calls.authorization_state(authorizer, nonce) == selector("authorizationState(address,bytes32)") + encode(
        ["address", "bytes32"], [authorizer, nonce]
    )


@settings(max_examples=100, deadline=None)
@given(addresses, uints)
def test_token_calls(address: bytes, value: int) -> None:
    assert calls.balance_of(address) == selector("balanceOf(address)") + encode(["address"], [address])
    assert calls.transfer(address, value) == selector("transfer(address,uint256)") + encode(
        ["address", "uint256"], [address, value]
    )


def test_calls_without_arguments() -> None:
    assert selector("name()") == calls.NAME_CALL
    assert selector("version()") == calls.VERSION_CALL
    assert selector("symbol()") == calls.SYMBOL_CALL
    assert selector("decimals()") == calls.DECIMALS_CALL
    assert selector("DOMAIN_SEPARATOR()") == calls.DOMAIN_SEPARATOR_CALL


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(addresses, st.booleans(), st.binary(max_size=80)), max_size=6),
    st.lists(st.tuples(st.booleans(), st.binary(max_size=80)), max_size=6),
)
def test_aggregate3(asked: list[tuple[bytes, bool, bytes]], answered: list[tuple[bool, bytes]]) -> None:
    built = calls.aggregate3(tuple(Call3(target, data, allow) for target, allow, data in asked))
    assert built == selector("aggregate3((address,bool,bytes)[])") + encode(["(address,bool,bytes)[]"], [asked])
    answer = encode(["(bool,bytes)[]"], [answered])
    assert calls.read_aggregate3(answer) == tuple(Call3Result(ok, data) for ok, data in answered)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_answers_of_a_lying_node_are_an_error_of_their_own(answer: bytes) -> None:
    for read in (calls.read_aggregate3, read_uint, read_bool, read_address, read_bytes, read_string):
        try:
            read(answer)
        except AbiInvalid:
            continue


def test_an_answer_that_announces_too_much_is_refused() -> None:
    for answer in (
        encode(["uint256", "uint256"], [32, 2**200]),
        encode(["uint256", "uint256"], [32, calls.AGGREGATE_RESULTS_MAX + 1]),
        encode(["uint256"], [2**255]),
    ):
        with pytest.raises(AbiInvalid):
            calls.read_aggregate3(answer)
    with pytest.raises(AbiInvalid):
        read_bytes(encode(["uint256", "uint256"], [32, 1]))


@settings(max_examples=100, deadline=None)
@given(addresses, uints, st.booleans(), st.text(st.characters(exclude_categories=["Cs"]), max_size=50))
def test_readers_read_what_eth_abi_writes(address: bytes, number: int, flag: bool, text: str) -> None:  # noqa: FBT001
    data = encode(["address", "uint256", "bool", "string", "bytes"], [address, number, flag, text, text.encode()])
    assert read_address(data, 0) == address
    assert read_uint(data, 1) == number
    assert read_bool(data, 2) is flag
    assert read_string(data, 3) == text
    assert read_bytes(data, 4) == text.encode()
    assert decode(["uint256"], pack_uint(number)) == (number,)


def test_values_that_their_types_cannot_hold_are_refused() -> None:
    for number in (-1, 2**256):
        with pytest.raises(AbiInvalid):
            pack_uint(number)
    with pytest.raises(AbiInvalid):
        pack_address(bytes(19))
    with pytest.raises(AbiInvalid):
        pack_word(bytes(33))
    with pytest.raises(AbiInvalid):
        read_bool(pack_uint(2))
    with pytest.raises(AbiInvalid):
        read_address(b"\x01" + bytes(31))
    with pytest.raises(SignatureInvalid):
        calls.transfer_with_authorization_vrs(TransferWithAuthorization(bytes(20), bytes(20), 1, 2, 3, bytes(32)), b"1")
