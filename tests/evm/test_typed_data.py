"""Every digest against eth-account, over thousands of generated cases."""

from __future__ import annotations

from typing import Any

import pytest
from eth_account.messages import encode_typed_data
from eth_utils.crypto import keccak
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.evm.addresses import parse_address
from farthing.evm.typed_data import (
    CancelAuthorization,
    Domain,
    Permit,
    ReceiveWithAuthorization,
    TransferWithAuthorization,
    TypedDataInvalid,
    TypedStruct,
)

uints = st.one_of(st.integers(0, 2**256 - 1), st.integers(0, 2**64), st.sampled_from([0, 2**255, 2**256 - 1]))
addresses = st.binary(min_size=20, max_size=20)
nonces = st.binary(min_size=32, max_size=32)
# No surrogates: they are no Unicode text, and Farthing refuses them (below).
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
domains = st.builds(Domain, texts, texts, uints, addresses)
authorizations = (addresses, addresses, uints, uints, uints, nonces)
messages: st.SearchStrategy[TypedStruct] = st.one_of(
    st.builds(TransferWithAuthorization, *authorizations),
    st.builds(ReceiveWithAuthorization, *authorizations),
    st.builds(CancelAuthorization, addresses, nonces),
    st.builds(Permit, addresses, addresses, uints, uints, uints),
)


def oracle(full: dict[str, Any]) -> bytes:
    signable = encode_typed_data(full_message=full)
    return keccak(b"\x19" + signable.version + signable.header + signable.body)


@settings(max_examples=3000, deadline=None)
@given(domains, messages)
def test_digest_is_eth_accounts_digest_of_the_rendering(domain: Domain, message: TypedStruct) -> None:
    assert message.digest(domain) == oracle(message.bind(domain).to_json())
    assert message.bind(domain).digest() == message.digest(domain)


@settings(max_examples=200, deadline=None)
@given(domains, st.builds(TransferWithAuthorization, *authorizations))
def test_rendering_carries_every_member(domain: Domain, message: TransferWithAuthorization) -> None:
    full = message.bind(domain).to_json()
    shown = full["message"]
    assert parse_address(shown["from"]) == message.from_
    assert parse_address(shown["to"]) == message.to
    assert [int(shown[name]) for name in ("value", "validAfter", "validBefore")] == [
        message.value,
        message.valid_after,
        message.valid_before,
    ]
    assert shown["nonce"] == "0x" + message.nonce.hex()
    assert full["domain"]["chainId"] == domain.chain_id


def test_separator_of_usdc_on_base_is_the_one_on_chain() -> None:
    # DOMAIN_SEPARATOR() of 0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913.
    domain = Domain("USD Coin", "2", 8453, parse_address("0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913"))
    assert domain.separator.hex() == "02fa7265e7c5d81118673727957699e4d68f74cd74b7db77da710fe8a2c7834f"


@pytest.mark.parametrize("bad", [-1, 2**256])
@pytest.mark.parametrize("at", [2, 3, 4])
def test_a_number_that_is_no_uint256_is_refused(bad: int, at: int) -> None:
    members: list[Any] = [bytes(20), bytes(20), 1, 2, 3, bytes(32)]
    members[at] = bad
    with pytest.raises(TypedDataInvalid):
        TransferWithAuthorization(*members).digest(Domain("USDC", "2", 1, bytes(20)))


@pytest.mark.parametrize(("at", "size"), [(0, 19), (0, 21), (1, 0), (5, 31), (5, 33)])
def test_members_of_another_size_are_refused(at: int, size: int) -> None:
    members: list[Any] = [bytes(20), bytes(20), 1, 2, 3, bytes(32)]
    members[at] = bytes(size)
    with pytest.raises(TypedDataInvalid):
        TransferWithAuthorization(*members)
    with pytest.raises(TypedDataInvalid):
        ReceiveWithAuthorization(*members)


def test_other_structs_and_domains_check_their_sizes() -> None:
    with pytest.raises(TypedDataInvalid):
        Domain("USDC", "2", 1, bytes(19))
    with pytest.raises(TypedDataInvalid):
        CancelAuthorization(bytes(19), bytes(32))
    with pytest.raises(TypedDataInvalid):
        CancelAuthorization(bytes(20), bytes(31))
    with pytest.raises(TypedDataInvalid):
        Permit(bytes(20), bytes(21), 1, 1, 1)


def test_half_a_surrogate_pair_is_no_name() -> None:
    with pytest.raises(TypedDataInvalid):
        _ = Domain("\ud800", "2", 1, bytes(20)).separator
