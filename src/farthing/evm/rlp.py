"""RLP, the recursive length prefix of transactions: byte strings and lists of them, written and read strictly.

Source: the yellow paper, appendix B. Proved against eth-account's `rlp` in `tests/evm/test_transactions.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

from farthing.errors import FarthingError

Item: TypeAlias = "bytes | Sequence[Item]"

_SHORT_MAX = 55
_STRING = 0x80
_LIST = 0xC0

# A transaction is a list of fields, an access list of pairs in it, and keys in those: four levels. Deeper is hostile.
DEPTH_MAX: Final = 8


class RlpInvalid(FarthingError, ValueError):
    """Bytes that are no RLP, or not in its one canonical form."""


def encode(item: Item) -> bytes:
    """Write bytes or a (nested) sequence of them."""
    if isinstance(item, bytes):
        return item if len(item) == 1 and item[0] < _STRING else _prefix(len(item), _STRING) + item
    body = b"".join([encode(each) for each in item])
    return _prefix(len(body), _LIST) + body


def encode_int(value: int) -> bytes:
    """The bytes of a number as RLP wants them: big-endian, no leading zero, zero is empty."""
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def decode_int(item: Item) -> int:
    """Read a number. Raises `RlpInvalid` for a list or a leading zero."""
    if not isinstance(item, bytes) or item[:1] == b"\x00":
        message = "A number in RLP is bytes without a leading zero."
        raise RlpInvalid(message)
    return int.from_bytes(item, "big")


def decode(data: bytes) -> Item:
    """Read exactly one item; anything behind it is refused."""
    item, end = _read(data, 0, len(data), DEPTH_MAX)
    if end != len(data):
        message = f"There are {len(data) - end} bytes behind the RLP item."
        raise RlpInvalid(message)
    return item


def _prefix(size: int, offset: int) -> bytes:
    if size <= _SHORT_MAX:
        return bytes((offset + size,))
    digits = encode_int(size)
    return bytes((offset + _SHORT_MAX + len(digits),)) + digits


def _read(data: bytes, start: int, limit: int, depth: int) -> tuple[Item, int]:
    if start >= limit or depth == 0:
        message = "The RLP ends too early." if depth else f"The RLP is nested deeper than {DEPTH_MAX} levels."
        raise RlpInvalid(message)
    first = data[start]
    if first < _STRING:
        return data[start : start + 1], start + 1
    offset = _STRING if first < _LIST else _LIST
    begin, end = _extent(data, start, limit, first - offset)
    if offset == _STRING:
        if end - begin == 1 and data[begin] < _STRING:
            message = "A single byte below 0x80 stands for itself in RLP."
            raise RlpInvalid(message)
        return data[begin:end], end
    items: list[Item] = []
    while begin < end:
        item, begin = _read(data, begin, end, depth - 1)
        items.append(item)
    return tuple(items), end


def _extent(data: bytes, start: int, limit: int, size: int) -> tuple[int, int]:
    begin = start + 1
    if size > _SHORT_MAX:
        digits = data[begin : min(begin + size - _SHORT_MAX, limit)]
        begin += size - _SHORT_MAX
        size = int.from_bytes(digits, "big")
        if len(digits) != begin - start - 1 or digits[:1] == b"\x00" or size <= _SHORT_MAX:
            message = "The length of an RLP item is not in its shortest form."
            raise RlpInvalid(message)
    if begin + size > limit:
        message = "The RLP ends too early."
        raise RlpInvalid(message)
    return begin, begin + size
