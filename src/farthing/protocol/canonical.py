"""Canonical JSON: RFC 8785 for the values that statements are made of, so that two parties hash the same bytes.

The profile is smaller than the RFC: objects, arrays, text, integers that a double holds exactly (3.2.2.3), booleans and
null. A float is refused, since money never is one.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from farthing.errors import LocalProtocolError

# Beyond it a JSON number is another number for readers that use doubles (RFC 8785, section 3.2.2.3; RFC 7493, 2.2).
INTEGER_MAX: Final = 2**53 - 1
# A statement nests three deep.
_DEPTH_MAX: Final = 16

# "sorted" orders members by code point, and the RFC by UTF-16 unit; they differ above U+FFFF only, which no member here
# has: such a name is refused below.
_encoder = msgspec.json.Encoder(order="sorted")
_BASIC_PLANE_MAX: Final = 0xFFFF


def canonical_json(value: Any) -> bytes:
    """Write `value` (structs too) canonically. Raises `LocalProtocolError` for what the profile does not hold."""
    plain = msgspec.to_builtins(value)
    _check(plain, "$", 0)
    return _encoder.encode(plain)


def canonical_text(members: dict[str, str]) -> bytes:
    """Write one object of text members: what a line of a statement is, a million times over, without the checks."""
    return _encoder.encode(members)


def _check(value: Any, path: str, depth: int) -> None:
    if depth > _DEPTH_MAX:
        message = f"canonical JSON nests at most {_DEPTH_MAX} deep"
        raise LocalProtocolError(message, path=path)
    if value is None or isinstance(value, (bool, str)):
        return
    if isinstance(value, int):
        if abs(value) > INTEGER_MAX:
            message = f"{value} is no number that every reader of JSON holds: write it as text"
            raise LocalProtocolError(message, path=path)
    elif isinstance(value, dict):
        members: dict[Any, Any] = value  # pyright: ignore[reportUnknownVariableType]
        for name, member in members.items():
            if not isinstance(name, str) or any(ord(letter) > _BASIC_PLANE_MAX for letter in name):
                message = f"{name!r} is no name of a member in canonical JSON"
                raise LocalProtocolError(message, path=path)
            _check(member, f"{path}.{name}", depth + 1)
    elif isinstance(value, list):
        entries: list[Any] = value  # pyright: ignore[reportUnknownVariableType]
        for index, member in enumerate(entries):
            _check(member, f"{path}[{index}]", depth + 1)
    else:
        message = f"a {type(value).__name__} has no canonical form here"
        raise LocalProtocolError(message, path=path)
