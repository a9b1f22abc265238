"""The extension `payment-identifier`, beside the official package's reading of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from x402.extensions import payment_identifier as official

from farthing.errors import RemoteProtocolError
from farthing.protocol.extensions import echo
from farthing.protocol.payment_identifier import NAME, declaration, identifier_of, is_identifier

ID = "pay_7d5d747be160e280504c099d984bcfe0"


@pytest.mark.parametrize("required", [True, False])
def test_the_official_client_appends_its_id_to_what_we_declare(required: bool) -> None:  # noqa: FBT001 - a parameter
    offered = {NAME: declaration(required=required)}
    assert official.is_payment_identifier_extension(offered[NAME])
    assert official.is_payment_identifier_required(offered[NAME]) is required
    echoed = official.append_payment_identifier_to_extensions(dict(offered), ID)
    assert identifier_of(echoed) == ID
    assert echoed == echo(offered, {NAME: {"id": ID}})


def test_the_official_server_reads_our_id() -> None:
    echoed = echo({NAME: official.declare_payment_identifier_extension()}, {NAME: {"id": ID}})
    assert official.validate_payment_identifier(echoed[NAME]).valid
    assert identifier_of(echoed) == ID


@pytest.mark.parametrize(
    "extensions", [None, {}, {"other": 1}, {NAME: None}, {NAME: {}}, {NAME: {"info": {"required": False}}}]
)
def test_no_id_is_none(extensions: Any) -> None:
    assert identifier_of(extensions) == ""


@pytest.mark.parametrize(
    ("extension", "path"),
    [
        ([], NAME),
        ("x", NAME),
        ({"info": 1}, f"{NAME}.info"),
        ({"info": {"id": 1}}, f"{NAME}.info.id"),
        ({"info": {"id": "x" * 15}}, f"{NAME}.info.id"),
        ({"info": {"id": "x" * 129}}, f"{NAME}.info.id"),
        ({"info": {"id": "x" * 16 + "\n"}}, f"{NAME}.info.id"),
        ({"info": {"id": "\uff11" * 16}}, f"{NAME}.info.id"),
    ],
)
def test_S10_what_is_no_id_is_refused_with_its_path(extension: Any, path: str) -> None:
    with pytest.raises(RemoteProtocolError) as refused:
        identifier_of({NAME: extension})
    assert refused.value.path == f"$.extensions.{path}"


@given(st.text(max_size=140))
def test_what_the_official_package_takes_for_an_id_is_one(text: str) -> None:
    # Python's $ lets a newline stand at the end; an id has none.
    assert is_identifier(text) == (official.is_valid_payment_id(text) and not text.endswith("\n"))
