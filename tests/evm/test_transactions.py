"""Transactions against eth-account, and RLP against `rlp`."""

from __future__ import annotations

from typing import Any

import pytest
import rlp as oracle  # type: ignore[import-untyped]
from eth_account import Account
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.evm import rlp
from farthing.evm.addresses import checksum_address
from farthing.evm.signatures import PrivateKey
from farthing.evm.transactions import (
    AccessTuple,
    Transaction,
    TransactionInvalid,
    decode_transaction,
)

addresses = st.binary(min_size=20, max_size=20)
keys = st.binary(min_size=32, max_size=32)
access = st.lists(st.builds(AccessTuple, addresses, st.lists(keys, max_size=3).map(tuple)), max_size=3).map(tuple)
numbers = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([0, 1, 127, 128, 255, 256]))
transactions = st.builds(
    Transaction,
    chain_id=st.integers(1, 2**32),
    nonce=numbers,
    max_priority_fee_per_gas=numbers,
    max_fee_per_gas=numbers,
    gas_limit=numbers,
    to=addresses,
    value=st.integers(0, 2**256 - 1),
    data=st.binary(max_size=400),
    access_list=access,
)
SECRET = b"\x11" * 32
KEY = PrivateKey(SECRET)
USUAL = Transaction(
    chain_id=84532, nonce=7, max_priority_fee_per_gas=1, max_fee_per_gas=10**9, gas_limit=90_000, to=bytes(20)
)


def as_dict(transaction: Transaction) -> dict[str, Any]:
    return {
        "type": 2,
        "chainId": transaction.chain_id,
        "nonce": transaction.nonce,
        "maxPriorityFeePerGas": transaction.max_priority_fee_per_gas,
        "maxFeePerGas": transaction.max_fee_per_gas,
        "gas": transaction.gas_limit,
        "to": checksum_address(transaction.to) if transaction.to else b"",
        "value": transaction.value,
        "data": transaction.data,
        "accessList": [
            {"address": checksum_address(each.address), "storageKeys": ["0x" + key.hex() for key in each.storage_keys]}
            for each in transaction.access_list
        ],
    }


@settings(max_examples=300, deadline=None)
@given(transactions)
def test_signed_bytes_and_hash_are_eth_accounts(transaction: Transaction) -> None:
    expected = Account.sign_transaction(as_dict(transaction), SECRET)
    signed = transaction.sign(KEY)
    assert signed.raw == bytes(expected.raw_transaction)
    assert signed.hash == bytes(expected.hash)
    assert checksum_address(signed.sender) == KEY.address == Account.recover_transaction(signed.raw)
    assert decode_transaction(signed.raw) == signed


def test_a_contract_creation_has_no_to() -> None:
    creation = Transaction(
        chain_id=1, nonce=0, max_priority_fee_per_gas=1, max_fee_per_gas=2, gas_limit=3, to=b"", data=b"\x60\x00"
    )
    signed = creation.sign(KEY)
    assert signed.raw == bytes(Account.sign_transaction(as_dict(creation), SECRET).raw_transaction)
    assert decode_transaction(signed.raw).transaction == creation


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_a_changed_byte_is_refused_or_another_sender(data: st.DataObject) -> None:
    signed = USUAL.sign(KEY)
    at = data.draw(st.integers(0, len(signed.raw) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != signed.raw[at]))
    try:
        read = decode_transaction(signed.raw[:at] + bytes([byte]) + signed.raw[at + 1 :])
    except TransactionInvalid:
        return
    assert read.sender != signed.sender


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_junk_is_refused(junk: bytes) -> None:
    with pytest.raises(TransactionInvalid):
        decode_transaction(b"\x02" + junk)


def test_what_is_no_transaction_is_refused() -> None:
    signed = USUAL.sign(KEY)
    for raw in (b"", b"\x01" + signed.raw[1:], signed.raw + b"\x00", signed.raw[:-1], b"\x02" + bytes(200_000)):
        with pytest.raises(TransactionInvalid):
            decode_transaction(raw)
    with pytest.raises(TransactionInvalid):
        USUAL.with_signature(bytes(65))
    for bad in ({"to": bytes(19)}, {"nonce": -1}, {"value": -1}):
        fields: dict[str, Any] = {name: getattr(USUAL, name) for name in USUAL.__struct_fields__} | bad
        with pytest.raises(TransactionInvalid):
            Transaction(**fields).sign(KEY)


items: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.binary(max_size=70), st.binary(min_size=250, max_size=300)),
    lambda inner: st.lists(inner, max_size=4).map(tuple),
    max_leaves=12,
)


def depth(item: Any) -> int:
    return 1 if isinstance(item, bytes) else 1 + max(map(depth, item), default=0)


@settings(max_examples=300, deadline=None)
@given(items.filter(lambda item: depth(item) <= rlp.DEPTH_MAX))
def test_rlp_is_the_librarys_and_reads_back(item: Any) -> None:
    assert rlp.encode(item) == oracle.encode(item)
    assert rlp.decode(rlp.encode(item)) == item


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=80))
def test_rlp_refuses_what_the_library_refuses(junk: bytes) -> None:
    try:
        expected: Any = oracle.decode(junk)
    except oracle.DecodingError:
        with pytest.raises(rlp.RlpInvalid):
            rlp.decode(junk)
        return

    def frozen(item: Any) -> Any:
        return item if isinstance(item, bytes) else tuple(map(frozen, item))

    if depth(frozen(expected)) <= rlp.DEPTH_MAX:
        assert rlp.decode(junk) == frozen(expected)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x81", b"\x81\x01", b"\xb8", b"\xb8\x01\x00", b"\xb9\x00\x01", b"\xc1", b"\xf8\x00", b"\x00\x00",
     b"\xc0" * 2, bytes([0xC1] * 60) + b"\xc0"],
)  # fmt: skip
def test_rlp_that_is_not_canonical_is_refused(data: bytes) -> None:
    with pytest.raises(rlp.RlpInvalid):
        rlp.decode(data)


def test_numbers_have_no_leading_zero() -> None:
    with pytest.raises(rlp.RlpInvalid):
        rlp.decode_int(b"\x00\x01")
    with pytest.raises(rlp.RlpInvalid):
        rlp.decode_int((b"\x01",))
