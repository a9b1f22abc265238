"""Numbers and bytes as JSON-RPC writes them: QUANTITY and DATA of the execution API specification, and their holders.

The readers judge what a node sent, so that they raise `NodeUnavailable`: a node that answers with something else is out
of order, and its answer is no verdict on anything.
"""

from __future__ import annotations

from typing import Any, Final, cast

from farthing.errors import NodeUnavailable

# A uint256 and its prefix; the longest number that a chain knows.
_QUANTITY_SIZE_MAX: Final = 2 + 64


def read_quantity(raw: Any) -> int:
    """Read a number: `0x` and hexadecimal digits."""
    if isinstance(raw, str) and raw[:2] == "0x" and 2 < len(raw) <= _QUANTITY_SIZE_MAX:  # noqa: PLR2004 - the prefix
        digits = raw[2:]
        # int() would pass over underscores, signs and white space.
        if digits.isascii() and digits.isalnum():
            try:
                return int(digits, 16)
            except ValueError:
                pass
    message = f"The node sent {_shown(raw)} where a number in hexadecimal digits belongs."
    raise NodeUnavailable(message)


def read_word(raw: Any) -> int | None:
    """Read the one word that a view function answers, as a number; None where there is no answer (`0x`)."""
    # 0x and 64 digits, which is what int() is given: no sign, no space, no underscore.
    if (
        isinstance(raw, str)
        and len(raw) == _QUANTITY_SIZE_MAX
        and raw.startswith("0x")
        and raw.isascii()
        and raw.isalnum()
    ):
        try:
            return int(raw, 16)
        except ValueError:
            pass
    if not read_data(raw):
        return None
    message = f"The node sent {_shown(raw)} where one word of 32 bytes belongs."
    raise NodeUnavailable(message)


def read_data(raw: Any) -> bytes:
    """Read bytes: `0x` and two hexadecimal digits a byte."""
    if isinstance(raw, str) and raw[:2] == "0x":
        try:
            data = bytes.fromhex(raw[2:])
        except ValueError:
            data = None
        # bytes.fromhex passes over white space; the size tells.
        if data is not None and 2 * len(data) == len(raw) - 2:
            return data
    message = f"The node sent {_shown(raw)} where bytes in hexadecimal digits belong."
    raise NodeUnavailable(message)


def read_object(raw: Any) -> dict[str, Any]:
    """Read a JSON object: a block, a receipt."""
    if isinstance(raw, dict):
        return cast("dict[str, Any]", raw)
    message = f"The node sent {_shown(raw)} where an object belongs."
    raise NodeUnavailable(message)


def read_list(raw: Any, *, size_max: int) -> list[Any]:
    """Read a JSON list of at most `size_max` entries."""
    if isinstance(raw, list) and len(cast("list[object]", raw)) <= size_max:
        return cast("list[Any]", cast("object", raw))
    message = f"The node sent {_shown(raw)} where a list of at most {size_max} entries belongs."
    raise NodeUnavailable(message)


def write_data(data: bytes) -> str:
    """Write bytes as `0x` and hexadecimal digits."""
    return "0x" + data.hex()


def _shown(raw: Any) -> str:
    # A hostile answer may be megabytes: only what is short is written out.
    if isinstance(raw, (dict, list)):
        return f"a {type(cast('object', raw)).__name__}"
    text = ascii(raw[:_QUANTITY_SIZE_MAX] if isinstance(raw, str) else raw)
    return text if len(text) <= _QUANTITY_SIZE_MAX else text[:_QUANTITY_SIZE_MAX] + "…"
