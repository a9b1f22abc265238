"""Messages that are nearly valid: right but for one thing, such as people, other libraries and attackers send.

    @given(nearly_valid(strategies.payment_payloads(known=True)))
    def test_my_server_answers_400_and_not_500(body: bytes): ...

What is drawn may happen to be valid all the same (a member left out may be optional): who reads it must answer or
refuse in good order, nothing else is promised.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final, TypeAlias, TypeVar, cast

import msgspec
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from farthing.protocol.codec import NESTING_MAX, encode_json, pack_json

M = TypeVar("M", bound=msgspec.Struct)
_Json: TypeAlias = "dict[str, _Json] | list[_Json] | str | int | float | bool | None"

# What stands where something else belongs. Texts are those that lenient readers of numbers and addresses take.
_SPOILT_TEXTS: Final = (
    "", " ", " 10000 ", "010000", "1e4", "-1", "+1", "1.0", "0x10", "1_000", str(2**256), "9" * 79,
    "\uff11\uff10\uff10", "10000\n", "\x00", "NaN", "null", "0x", "0X" + "AB" * 20, "0x" + "aB" * 20,
    "0x" + "00" * 19, "0x" + "g0" * 32, "x" * 5_000, "eip155:", "eip155:0", "eip155:01", "eip155:-1", "solana:x",
    "\u202e", "\ud7ff",
)  # fmt: skip
_SPOILT_NUMBERS: Final = (0, -1, 1.5, 1e400, 2**63, 2**64, 10**30)
_BYTES_MAX: Final = 12
# JSON that a parser may read in more than one way, or should not at all.
_ENDS: Final = (b"", b" ", b"\n", b"\x00", b"}", b"{}", b",", b"//", b"\xef\xbb\xbf", b"\xff")


@st.composite
def nearly_valid(draw: DrawFn, drawn: SearchStrategy[M]) -> bytes:
    """The JSON of a message with one thing wrong: a member, its type, its text, the JSON itself."""
    message: Any = json.loads(encode_json(draw(drawn)))
    how = draw(st.sampled_from(("member", "member", "member", "unknown", "deep", "bytes", "end", "twice")))
    if how == "member":
        places = list(_places(message))
        parent, key = draw(st.sampled_from(places)) if places else (message, None)
        if key is not None and draw(st.integers(0, 3)) == 0:
            del parent[key]
        elif key is not None:
            parent[key] = draw(_spoilt())
    elif how == "unknown" and isinstance(message, dict):
        message[draw(st.text(max_size=8))] = draw(_spoilt())
    elif how == "deep":
        message = _wrapped(message, draw(st.integers(1, 3 * NESTING_MAX)))
    text = json.dumps(message, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    if how == "bytes":
        start = draw(st.integers(0, len(text)))
        text = text[:start] + draw(st.binary(max_size=_BYTES_MAX)) + text[start + draw(st.integers(0, _BYTES_MAX)) :]
    elif how == "end":
        text = draw(st.sampled_from(_ENDS)) + text[: draw(st.integers(0, len(text)))] + draw(st.sampled_from(_ENDS))
    elif how == "twice":
        text = text[:1] + text[1:-1] + b"," + text[1:] if len(text) > 2 else text + text  # noqa: PLR2004 - {}
    return text


@st.composite
def nearly_valid_headers(draw: DrawFn, drawn: SearchStrategy[M]) -> str:
    """A header with one thing wrong: its base64, or the JSON in it."""
    header = pack_json(draw(nearly_valid(drawn)))
    how = draw(st.sampled_from(("json", "json", "pad", "cut", "urlsafe", "space", "text")))
    return {
        "json": header,
        "pad": header.rstrip("=") + "=" * draw(st.integers(0, 4)),
        "cut": header[: draw(st.integers(0, len(header)))],
        "urlsafe": header.replace("+", "-").replace("/", "_"),
        "space": header[:8] + draw(st.sampled_from((" ", "\n", "\t", "\u00a0"))) + header[8:],
        "text": draw(st.text(max_size=40)),
    }[how]


def _spoilt() -> SearchStrategy[Any]:
    containers: tuple[Any, ...] = ([], {}, [[]], {"": None}, [1, "2"])
    return (
        st.sampled_from(_SPOILT_TEXTS)
        | st.sampled_from(_SPOILT_NUMBERS)
        | st.none()
        | st.booleans()
        | st.sampled_from(containers)
    )


def _places(value: _Json) -> Iterator[tuple[Any, Any]]:
    """Every member of every object and list: its container and its key."""
    keys: list[Any] = []
    if isinstance(value, dict):
        keys = list(value)
    elif isinstance(value, list):
        keys = list(range(len(value)))
    for key in keys:
        yield value, key
        yield from _places(cast("Any", value)[key])


def _wrapped(value: Any, depth: int) -> Any:
    for _ in range(depth):
        value = {"extra": value} if depth % 2 else [value]
    return value
