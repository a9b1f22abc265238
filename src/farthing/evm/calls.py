"""The calls that payments make to contracts: calldata, and what the answers mean.

EIP-20, EIP-3009 (both overloads, as USDC has them), EIP-712's getters and Multicall3's `aggregate3`. Every builder
gives the calldata as bytes; answers are read by `farthing.evm.abi` or the readers here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from farthing.evm.abi import (
    WORD_SIZE_BYTES,
    AbiInvalid,
    pack_address,
    pack_bytes,
    pack_uint,
    pack_word,
    read_bool,
    read_bytes,
    read_uint,
    selector,
)
from farthing.evm.addresses import parse_address
from farthing.evm.signatures import split_signature

if TYPE_CHECKING:
    from farthing.evm.typed_data import CancelAuthorization, ReceiveWithAuthorization, TransferWithAuthorization

MULTICALL3: Final = parse_address("0xcA11bde05977b3631167028862bE2a173976CA11")

# What an answer may hold is bounded by what was asked: one transaction joins far fewer members than this.
AGGREGATE_RESULTS_MAX: Final = 1024

_AUTHORIZATION = "address,address,uint256,uint256,uint256,bytes32"
TRANSFER_WITH_AUTHORIZATION_VRS: Final = selector(f"transferWithAuthorization({_AUTHORIZATION},uint8,bytes32,bytes32)")
TRANSFER_WITH_AUTHORIZATION_BYTES: Final = selector(f"transferWithAuthorization({_AUTHORIZATION},bytes)")
RECEIVE_WITH_AUTHORIZATION_VRS: Final = selector(f"receiveWithAuthorization({_AUTHORIZATION},uint8,bytes32,bytes32)")
RECEIVE_WITH_AUTHORIZATION_BYTES: Final = selector(f"receiveWithAuthorization({_AUTHORIZATION},bytes)")
CANCEL_AUTHORIZATION_VRS: Final = selector("cancelAuthorization(address,bytes32,uint8,bytes32,bytes32)")
CANCEL_AUTHORIZATION_BYTES: Final = selector("cancelAuthorization(address,bytes32,bytes)")
AUTHORIZATION_STATE: Final = selector("authorizationState(address,bytes32)")
BALANCE_OF: Final = selector("balanceOf(address)")
TRANSFER: Final = selector("transfer(address,uint256)")
AGGREGATE3: Final = selector("aggregate3((address,bool,bytes)[])")

# Calls without arguments are their selector.
NAME_CALL: Final = selector("name()")
VERSION_CALL: Final = selector("version()")
SYMBOL_CALL: Final = selector("symbol()")
DECIMALS_CALL: Final = selector("decimals()")
DOMAIN_SEPARATOR_CALL: Final = selector("DOMAIN_SEPARATOR()")

# Six words of authorisation and the word that points behind itself: where the bytes of the second overload begin.
_BYTES_OFFSET = pack_uint(7 * WORD_SIZE_BYTES)
_CANCEL_BYTES_OFFSET = pack_uint(3 * WORD_SIZE_BYTES)
_V_WORDS = {27: pack_uint(27), 28: pack_uint(28)}


def _vrs_words(signature: bytes) -> bytes:
    v, r, s = split_signature(signature)
    return _V_WORDS[v] + r + s


def transfer_with_authorization_vrs(message: TransferWithAuthorization, signature: bytes) -> bytes:
    """Submit an authorisation with a signature of 65 bytes, taken apart: EIP-3009's own form."""
    return TRANSFER_WITH_AUTHORIZATION_VRS + message.words() + _vrs_words(signature)


def transfer_with_authorization_bytes(message: TransferWithAuthorization, signature: bytes) -> bytes:
    """Submit an authorisation with a signature of any shape: USDC 2.2's form, for EIP-1271 payers."""
    return TRANSFER_WITH_AUTHORIZATION_BYTES + message.words() + _BYTES_OFFSET + pack_bytes(signature)


def receive_with_authorization_vrs(message: ReceiveWithAuthorization, signature: bytes) -> bytes:
    """Take an authorised payment as its payee, signature of 65 bytes."""
    return RECEIVE_WITH_AUTHORIZATION_VRS + message.words() + _vrs_words(signature)


def receive_with_authorization_bytes(message: ReceiveWithAuthorization, signature: bytes) -> bytes:
    """Take an authorised payment as its payee, signature of any shape."""
    return RECEIVE_WITH_AUTHORIZATION_BYTES + message.words() + _BYTES_OFFSET + pack_bytes(signature)


def cancel_authorization_vrs(message: CancelAuthorization, signature: bytes) -> bytes:
    """Use a nonce up without a payment, signature of 65 bytes."""
    return (
        CANCEL_AUTHORIZATION_VRS + pack_address(message.authorizer) + pack_word(message.nonce) + _vrs_words(signature)
    )


def cancel_authorization_bytes(message: CancelAuthorization, signature: bytes) -> bytes:
    """Use a nonce up without a payment, signature of any shape."""
    head = pack_address(message.authorizer) + pack_word(message.nonce) + _CANCEL_BYTES_OFFSET
    return CANCEL_AUTHORIZATION_BYTES + head + pack_bytes(signature)


def authorization_state(authorizer: bytes, nonce: bytes) -> bytes:
    """Ask whether an EIP-3009 nonce is used (paid or cancelled): `read_bool`."""
    return AUTHORIZATION_STATE + pack_address(authorizer) + pack_word(nonce)


def balance_of(owner: bytes) -> bytes:
    """Ask for a balance in atomic units: `read_uint`."""
    return BALANCE_OF + pack_address(owner)


def transfer(to: bytes, value: int) -> bytes:
    """Send `value` atomic units of the sender's own: `read_bool`."""
    return TRANSFER + pack_address(to) + pack_uint(value)


class Call3(msgspec.Struct, frozen=True):
    """One call of Multicall3's `aggregate3`."""

    target: bytes
    calldata: bytes
    allow_failure: bool = True


class Call3Result(msgspec.Struct, frozen=True):
    """What became of one call: whether it went through, and what it returned (its refusal, where it did not)."""

    success: bool
    return_data: bytes


def aggregate3(calls: tuple[Call3, ...]) -> bytes:
    """Make several calls in one. Multicall3 gets no allowance, ever: anybody can call through it."""
    heads: list[bytes] = []
    tails: list[bytes] = []
    offset = len(calls) * WORD_SIZE_BYTES
    for call in calls:
        tail = (
            pack_address(call.target)
            + pack_uint(int(call.allow_failure))
            + pack_uint(3 * WORD_SIZE_BYTES)
            + pack_bytes(call.calldata)
        )
        heads.append(pack_uint(offset))
        tails.append(tail)
        offset += len(tail)
    return AGGREGATE3 + pack_uint(WORD_SIZE_BYTES) + pack_uint(len(calls)) + b"".join(heads) + b"".join(tails)


def read_aggregate3(answer: bytes) -> tuple[Call3Result, ...]:
    """Read the answer of `aggregate3`. Raises `AbiInvalid`."""
    body = _tail(answer, read_uint(answer))
    count = read_uint(body)
    if count > AGGREGATE_RESULTS_MAX:
        message = f"{count} results are announced, at most {AGGREGATE_RESULTS_MAX} are read."
        raise AbiInvalid(message)
    elements = body[WORD_SIZE_BYTES:]
    results: list[Call3Result] = []
    for index in range(count):
        element = _tail(elements, read_uint(elements, index))
        results.append(Call3Result(read_bool(element), read_bytes(element, 1)))
    return tuple(results)


def _tail(data: bytes, offset: int) -> bytes:
    if offset > len(data):
        message = f"The offset {offset} is behind the end of {len(data)} bytes."
        raise AbiInvalid(message)
    return data[offset:]
