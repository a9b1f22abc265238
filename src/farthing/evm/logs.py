"""The events that say what happened to a payment: `Transfer`, `AuthorizationUsed`, `AuthorizationCanceled`."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import msgspec

from farthing.errors import NodeUnavailable
from farthing.evm.abi import AbiInvalid, event_topic, read_address, read_uint
from farthing.evm.addresses import ADDRESS_SIZE_BYTES
from farthing.evm.hexadecimal import read_data, read_quantity

TRANSFER_TOPIC: Final = event_topic("Transfer(address,address,uint256)")
AUTHORIZATION_USED_TOPIC: Final = event_topic("AuthorizationUsed(address,bytes32)")
AUTHORIZATION_CANCELED_TOPIC: Final = event_topic("AuthorizationCanceled(address,bytes32)")

# The EVM has LOG0 to LOG4.
_TOPICS_MAX = 4
# The signature and two indexed members.
_TOPICS_OF_EVENTS = 3
_WORD = 32


class Log(msgspec.Struct, frozen=True):
    """One log as a node reports it: the contract, the topics, the data, and where it stands."""

    address: bytes
    topics: tuple[bytes, ...]
    data: bytes
    transaction_hash: bytes
    block_number: int
    block_hash: bytes
    index: int


class Transfer(msgspec.Struct, frozen=True):
    """EIP-20: `value` atomic units of `token` went from `from_` to `to`."""

    token: bytes
    from_: bytes
    to: bytes
    value: int


class AuthorizationUsed(msgspec.Struct, frozen=True):
    """EIP-3009: the authorisation of `authorizer` with `nonce` was paid."""

    token: bytes
    authorizer: bytes
    nonce: bytes


class AuthorizationCanceled(msgspec.Struct, frozen=True):
    """EIP-3009: the authorisation of `authorizer` with `nonce` was cancelled."""

    token: bytes
    authorizer: bytes
    nonce: bytes


Event: TypeAlias = "Transfer | AuthorizationUsed | AuthorizationCanceled"


class _RawLog(msgspec.Struct, frozen=True, rename="camel"):
    address: str
    topics: list[str]
    data: str
    transaction_hash: str
    block_number: str
    block_hash: str
    log_index: str
    removed: bool = False


def read_log(raw: Any) -> Log | None:
    """Read a log of a receipt or of `eth_getLogs`; None where the node says that it was removed by a reorganisation.

    Raises `NodeUnavailable` for what is no log: a broken node is an outage, never a verdict.
    """
    try:
        log = msgspec.convert(raw, _RawLog)
    except msgspec.ValidationError as error:
        message = f"The node sent a log that can't be read: {error}"
        raise NodeUnavailable(message) from error
    if log.removed:
        return None
    read = Log(
        address=read_data(log.address),
        topics=tuple([read_data(topic) for topic in log.topics]),
        data=read_data(log.data),
        transaction_hash=read_data(log.transaction_hash),
        block_number=read_quantity(log.block_number),
        block_hash=read_data(log.block_hash),
        index=read_quantity(log.log_index),
    )
    words = (*read.topics, read.transaction_hash, read.block_hash)
    if len(read.address) != ADDRESS_SIZE_BYTES or len(read.topics) > _TOPICS_MAX or any(len(w) != _WORD for w in words):
        message = "The node sent a log whose members have wrong sizes."
        raise NodeUnavailable(message)
    return read


def read_event(log: Log) -> Event | None:
    """Read one of the three events; None for any other log.

    None also for what only looks like them: ERC-721's `Transfer` has the same topic and one more indexed member.
    """
    if len(log.topics) != _TOPICS_OF_EVENTS:
        return None
    topic, first, second = log.topics
    try:
        if topic == TRANSFER_TOPIC and len(log.data) == _WORD:
            return Transfer(log.address, read_address(first), read_address(second), read_uint(log.data))
        if topic == AUTHORIZATION_USED_TOPIC and not log.data:
            return AuthorizationUsed(log.address, read_address(first), second)
        if topic == AUTHORIZATION_CANCELED_TOPIC and not log.data:
            return AuthorizationCanceled(log.address, read_address(first), second)
    except AbiInvalid:
        pass
    return None
