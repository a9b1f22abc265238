"""Canonical JSON: one text for one value."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.errors import LocalProtocolError
from farthing.protocol.canonical import canonical_json
from farthing.protocol.statements import StatementLine

names = st.text(st.characters(max_codepoint=0xD7FF), max_size=8)
texts = st.text(st.characters(codec="utf-8"), max_size=20)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)


@given(values)
def test_as_pythons_own_writer_with_sorted_members_has_it(value: Any) -> None:
    # json writes what RFC 8785, 3.2.2.2 asks for: the short escapes, \u00xx in lower case, all else as it is.
    expected = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
    assert canonical_json(value) == expected
    assert json.loads(expected) == value


def test_the_strings_of_the_rfc() -> None:
    # RFC 8785, section 3.2.2: the sample's "string" and "literals".
    value = {"string": '\u20ac$\u000f\nA\'B"\\\\"/', "literals": [None, True, False]}
    assert canonical_json(value) == '{"literals":[null,true,false],"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'.encode()


@pytest.mark.parametrize("value", [1.5, {"a": [0.0]}, 2**53, -(2**53), {"\U00010000": 1}, {1: 2}], ids=repr)
def test_what_two_readers_may_read_differently_is_refused(value: Any) -> None:
    with pytest.raises(LocalProtocolError):
        canonical_json(value)


def test_a_lines_leaf_holds_all_its_members() -> None:
    line = StatementLine("sha256:00", "shop", "https://a.example/é", "10", "10", "USD", "1700000000")
    members = json.loads(line.leaf())
    assert list(members) == sorted(StatementLine.__struct_fields__)
    assert line.leaf() == canonical_json(members)
