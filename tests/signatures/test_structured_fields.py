"""httpwg's vectors through our reading of structured fields, which is stricter in one thing: nothing is given twice."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from http_sf import DisplayString

from farthing.signatures import SignatureInvalid, signature_lines
from farthing.signatures.fields import Token, parse_dictionary, parse_item, parse_list, serialize

if TYPE_CHECKING:
    from tests.signatures.vectors_read import vectors
else:
    from vectors_read import vectors

TESTS = vectors("structured_fields")["tests"]
READERS: dict[str, Any] = {"dictionary": parse_dictionary, "list": parse_list, "item": parse_item}


def bare(value: Any) -> Any:
    """A value as the vectors write it."""
    if isinstance(value, bytes):
        return {"__type": "binary", "value": base64.b32encode(value).decode()}
    if isinstance(value, Token):
        return {"__type": "token", "value": str(value)}
    if isinstance(value, DisplayString):
        return {"__type": "displaystring", "value": str(value)}
    if isinstance(value, datetime):
        return {"__type": "date", "value": int(value.replace(tzinfo=value.tzinfo or UTC).timestamp())}
    return float(value) if isinstance(value, Decimal) else value


def member(said: Any) -> Any:
    value, params = said
    shown = [member(each) for each in value] if isinstance(value, list) else bare(value)
    return [shown, [[name, bare(each)] for name, each in params.items()]]


def structure(kind: str, said: Any) -> Any:
    if kind == "dictionary":
        return [[name, member(each)] for name, each in said.items()]
    return [member(each) for each in said] if kind == "list" else member(said)


def said_twice(case: dict[str, Any]) -> bool:
    return "duplicate" in case["name"]


@pytest.mark.parametrize("case", TESTS, ids=[f"{case['file']}: {case['name']}" for case in TESTS])
def test_structured_fields_read_as_published(case: dict[str, Any]) -> None:
    read, raw = READERS[case["header_type"]], ", ".join(case["raw"])
    if case.get("must_fail") or said_twice(case):
        with pytest.raises(SignatureInvalid):
            read(raw, what=case["name"])
        return
    try:
        found = read(raw, what=case["name"])
    except SignatureInvalid:
        assert case.get("can_fail"), case
        return
    assert structure(case["header_type"], found) == case["expected"]
    if found:
        assert serialize(found) == ", ".join(case.get("canonical", case["raw"]))


@pytest.mark.parametrize("size_bytes", [64, 63, 62, 0])
def test_signature_lines_are_as_the_library_writes_them(size_bytes: int) -> None:
    signature = bytes(range(size_bytes))
    assert signature_lines("sig", "()", signature)[1] == ("Signature", serialize({"sig": signature}))
