"""The echo of extensions: members may be added; nothing that the server said is changed or taken away."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.errors import LocalProtocolError, RemoteProtocolError
from farthing.protocol.extensions import covers, echo

texts = st.text(max_size=6)
leaves = st.none() | st.booleans() | st.integers() | texts
jsons: st.SearchStrategy[Any] = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8
)
advertised = st.dictionaries(
    texts, st.fixed_dictionaries({"info": st.dictionaries(texts, jsons, max_size=3), "schema": jsons}), max_size=3
)
ADVERTISED: dict[str, Any] = {
    "payment-identifier": {"info": {"required": True}, "schema": {"type": "object"}},
    "bazaar": {"info": {"input": {"method": "GET"}, "tags": ["a", "b"]}},
}


@given(advertised)
def test_an_echo_says_what_was_said(received: dict[str, Any]) -> None:
    before = copy.deepcopy(received)
    assert echo(received) == received == before
    assert covers(received, echo(received)) is None


@given(advertised, texts, jsons)
def test_what_is_added_stands_beside_what_was_said(received: dict[str, Any], member: str, value: Any) -> None:
    before = copy.deepcopy(received)
    for name, extension in received.items():
        if member in extension["info"]:
            continue
        echoed = echo(received, {name: {member: value}})
        assert echoed[name]["info"] == {**extension["info"], member: value}
        assert echoed[name]["schema"] == extension["schema"]
        assert covers(received, echoed) is None
    assert received == before


def test_adding_what_was_said_already_changes_nothing() -> None:
    assert echo(ADVERTISED, {"payment-identifier": {"required": True}}) == ADVERTISED


def test_overwriting_is_refused_by_its_path() -> None:
    with pytest.raises(LocalProtocolError) as caught:
        echo(ADVERTISED, {"payment-identifier": {"required": False}})
    assert caught.value.path == "$.extensions.payment-identifier.info.required"


def test_an_extension_that_nobody_advertises_is_not_added() -> None:
    with pytest.raises(LocalProtocolError) as caught:
        echo(ADVERTISED, {"sign-in-with-x": {"nonce": "1"}})
    assert caught.value.path == "$.extensions.sign-in-with-x"


@pytest.mark.parametrize("extension", ["text", 7, ["a"], None, {"info": "text"}, {"info": ["a", "b"]}])
def test_what_is_no_object_is_echoed_but_not_added_to(extension: Any) -> None:
    assert echo({"odd": extension}) == {"odd": extension}
    with pytest.raises(RemoteProtocolError) as caught:
        echo({"odd": extension}, {"odd": {"id": "1"}})
    assert caught.value.path.startswith("$.extensions.odd")


def changed(*path: Any, to: Any = ...) -> dict[str, Any]:
    echoed = copy.deepcopy(ADVERTISED)
    inner: Any = echoed
    for part in path[:-1]:
        inner = inner[part]
    if to is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = to
    return echoed


@pytest.mark.parametrize(
    ("echoed", "path"),
    [
        (changed("payment-identifier", "info", "required"), "$.extensions.payment-identifier.info.required"),
        (changed("payment-identifier", "info", "required", to=False), "$.extensions.payment-identifier.info.required"),
        (changed("payment-identifier", "info"), "$.extensions.payment-identifier.info"),
        (changed("payment-identifier", "schema"), "$.extensions.payment-identifier.schema"),
        (changed("bazaar", to=7), "$.extensions.bazaar"),
        (changed("bazaar", "info", to=[]), "$.extensions.bazaar.info"),
        (changed("bazaar", "info", "input", "method", to="POST"), "$.extensions.bazaar.info.input.method"),
        (changed("bazaar", "info", "tags", to=["b", "a"]), "$.extensions.bazaar.info.tags"),
        (changed("bazaar", "info", "tags", to=["a"]), "$.extensions.bazaar.info.tags"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_client_deletes_or_changes_is_named(echoed: dict[str, Any], path: str) -> None:
    assert covers(ADVERTISED, echoed) == path


@pytest.mark.parametrize("echoed", [None, {}, changed("bazaar"), {**ADVERTISED, "of-the-client": {"info": {}}}])
def test_an_extension_is_optional(echoed: dict[str, Any] | None) -> None:
    assert covers(ADVERTISED, echoed) is None


@given(advertised, jsons | st.dictionaries(texts, jsons, max_size=3))
def test_any_echo_gets_a_verdict(received: dict[str, Any], echoed: Any) -> None:
    found = covers(received, echoed if isinstance(echoed, dict) else None)
    assert found is None or found.startswith("$.extensions.")
