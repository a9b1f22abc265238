"""Addresses: EIP-55 against eth-utils, and what is refused."""

from __future__ import annotations

import pytest
from eth_utils.address import to_checksum_address
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.evm.addresses import AddressInvalid, checksum_address, is_address, parse_address

USDC = "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913"


@settings(max_examples=1000, deadline=None)
@given(st.binary(min_size=20, max_size=20))
def test_checksum_is_eth_utils_checksum_and_reads_back(address: bytes) -> None:
    text = checksum_address(address)
    assert text == to_checksum_address(address)
    assert parse_address(text) == address
    assert parse_address("0x" + address.hex()) == address
    assert parse_address("0x" + address.hex().upper()) == address
    assert parse_address("0X" + address.hex().upper()) == address


@settings(max_examples=300, deadline=None)
@given(st.binary(min_size=20, max_size=20), st.integers(0, 39))
def test_mixed_case_with_one_letter_turned_is_refused(address: bytes, at: int) -> None:
    text = checksum_address(address)
    turned = text[: 2 + at] + text[2 + at :][:1].swapcase() + text[3 + at :]
    digits = turned[2:]
    if turned == text or digits in {digits.lower(), digits.upper()}:
        return
    with pytest.raises(AddressInvalid, match="checksum"):
        parse_address(turned)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0x",
        USDC[2:],
        USDC[:-1],
        USDC + "0",
        USDC[:-1] + "g",
        USDC[:-2] + "  ",
        USDC[:-1] + " ",
        "0x" + "12" * 19 + "  ",
        " " + USDC[1:],
        USDC[:-1] + "\uff13",  # full-width digit
        USDC[:-1] + "\u0663",  # Arabic digit
        USDC + "\n",
        "0b" + USDC[2:],
        "x" * 100_000,
    ],
)
def test_S10_text_that_is_no_address_is_refused_shortly(text: str) -> None:
    assert not is_address(text)
    with pytest.raises(AddressInvalid) as caught:
        parse_address(text)
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


def test_other_sizes_have_no_checksum() -> None:
    with pytest.raises(AddressInvalid):
        checksum_address(bytes(19))
