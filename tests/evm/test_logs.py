"""Events and refusals, as nodes report them."""

from __future__ import annotations

from typing import Any

import pytest
from eth_abi.abi import encode
from eth_utils.crypto import keccak
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.errors import NodeUnavailable
from farthing.evm.hexadecimal import read_data, read_quantity, write_data
from farthing.evm.logs import AuthorizationCanceled, AuthorizationUsed, Transfer, read_event, read_log
from farthing.evm.reverts import REASON_SIZE_MAX, read_revert

TOKEN, ALICE, BOB = b"\x01" * 20, b"\x0a" * 20, b"\x0b" * 20
NONCE = b"\x33" * 32


def topic(signature: str) -> str:
    return "0x" + keccak(text=signature).hex()


def word(data: bytes) -> str:
    return "0x" + data.rjust(32, b"\x00").hex()


def raw_log(*topics: str, data: str = "0x", **changes: Any) -> dict[str, Any]:
    return {
        "address": write_data(TOKEN),
        "topics": list(topics),
        "data": data,
        "transactionHash": "0x" + "44" * 32,
        "blockNumber": "0x10",
        "blockHash": "0x" + "55" * 32,
        "logIndex": "0x2",
        "removed": False,
    } | changes


TRANSFER = topic("Transfer(address,address,uint256)")
USED = topic("AuthorizationUsed(address,bytes32)")
CANCELED = topic("AuthorizationCanceled(address,bytes32)")


def event(*topics: str, data: str = "0x") -> Any:
    log = read_log(raw_log(*topics, data=data))
    assert log is not None
    return read_event(log)


def test_the_three_events_are_read() -> None:
    transfer = event(TRANSFER, word(ALICE), word(BOB), data=word((7).to_bytes(32, "big")))
    assert transfer == Transfer(TOKEN, ALICE, BOB, 7)
    assert event(USED, word(ALICE), write_data(NONCE)) == AuthorizationUsed(TOKEN, ALICE, NONCE)
    assert event(CANCELED, word(ALICE), write_data(NONCE)) == AuthorizationCanceled(TOKEN, ALICE, NONCE)


def test_what_only_looks_like_them_is_none() -> None:
    seven = word((7).to_bytes(32, "big"))
    assert event(TRANSFER, word(ALICE), word(BOB), seven) is None  # ERC-721
    assert event(TRANSFER, word(ALICE), word(BOB)) is None
    assert event(TRANSFER, word(ALICE), word(BOB), data=seven + "00") is None
    assert event(TRANSFER, "0x" + "ff" * 32, word(BOB), data=seven) is None
    assert event(USED, word(ALICE)) is None
    assert event(USED, word(ALICE), write_data(NONCE), data=seven) is None
    assert event(topic("Approval(address,address,uint256)"), word(ALICE), word(BOB), data=seven) is None
    assert event() is None


def test_a_removed_log_is_none() -> None:
    assert read_log(raw_log(USED, word(ALICE), write_data(NONCE), removed=True)) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"address": "0x01"},
        {"address": None},
        {"topics": ["0x01"]},
        {"topics": [TRANSFER] * 5},
        {"topics": "x"},
        {"data": "zz"},
        {"data": "0x0"},
        {"data": "0x0 0 "},
        {"blockNumber": 16},
        {"blockNumber": "16"},
        {"blockNumber": "0x"},
        {"blockNumber": "0x1_0"},
        {"logIndex": "-0x1"},
        {"transactionHash": "0x"},
        {"blockHash": "0x00"},
    ],
)
def test_F3_a_broken_log_is_an_outage(changes: dict[str, Any]) -> None:
    with pytest.raises(NodeUnavailable):
        read_log(raw_log(**changes))


@pytest.mark.parametrize("raw", [None, 1, [], "0x", "x"])
def test_F3_no_log_is_an_outage(raw: Any) -> None:
    with pytest.raises(NodeUnavailable):
        read_log(raw)


def test_quantities_and_data() -> None:
    assert read_quantity("0x0") == 0
    assert read_quantity("0xFf") == 255
    assert read_quantity("0x" + "f" * 64) == 2**256 - 1
    assert read_data("0x") == b""
    assert read_data("0xAa00") == b"\xaa\x00"
    for bad in ("0x" + "f" * 65, "0x-1", "0x 1", "0x\uff11", 1, None, True):
        with pytest.raises(NodeUnavailable):
            read_quantity(bad)


def revert(signature: str, types: list[str], values: list[Any]) -> bytes:
    return keccak(text=signature)[:4] + encode(types, values)


def test_refusals_are_read() -> None:
    assert read_revert(b"").kind == "none"
    text = read_revert(revert("Error(string)", ["string"], ["FiatTokenV2: invalid signature"]))
    assert (text.kind, text.reason) == ("error", "FiatTokenV2: invalid signature")
    assert read_revert(revert("Panic(uint256)", ["uint256"], [0x11])).reason == "arithmetic overflow"
    assert read_revert(revert("Panic(uint256)", ["uint256"], [0x99])).reason == "0x99"
    custom = revert(
        "ERC20InsufficientBalance(address,uint256,uint256)", ["address", "uint256", "uint256"], [ALICE, 1, 2]
    )
    assert (read_revert(custom).kind, read_revert(custom).reason) == ("custom", "ERC20InsufficientBalance")
    assert read_revert(b"\x01\x02\x03\x04").reason == "0x01020304"


def test_A4_a_hostile_reason_is_cut_and_cleaned() -> None:
    reason = read_revert(revert("Error(string)", ["string"], ["\n\x1b[31m" + "x" * 10_000])).reason
    assert reason.startswith("??[31mx")
    assert len(reason) == REASON_SIZE_MAX


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_reading_a_refusal_never_fails(data: bytes) -> None:
    read_revert(data)
    read_revert(keccak(text="Error(string)")[:4] + data)
