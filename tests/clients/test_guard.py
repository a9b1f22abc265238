"""B6: private addresses are refused by name, by number, after DNS and after redirects, before a byte is sent."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import httpx2
import pytest
import requests
from doors import Fetch
from shop import Shop, make_buyer

from farthing.clients import Buyer
from farthing.clients.httpx import PayingTransport
from farthing.clients.requests import PayingAdapter, paying_session
from farthing.errors import ConfigError, PolicyRefused


@pytest.fixture
def careful(tmp_path: Path) -> Iterator[Buyer]:
    with make_buyer(tmp_path / "careful", private_hosts=[]) as made:
        yield made


@pytest.fixture(autouse=True)
def lying_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every name be this machine's, as whoever owns it could."""
    real = socket.getaddrinfo

    def lie(host: Any, *arguments: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        return real("127.0.0.1" if name and name.endswith(".example") else name, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", lie)


def named(shop: Shop, host: str) -> str:
    return f"http://{host}:{urlsplit(shop.url).port}/thing"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "shop.example"])
def test_B6_nothing_is_sent_to_a_private_address(fetch: Fetch, shop: Shop, careful: Buyer, host: str) -> None:
    with pytest.raises(PolicyRefused) as caught:
        fetch(careful, "GET", named(shop, host))
    assert caught.value.reason == "private_host"
    assert shop.seen == []
    assert careful.journal.purchases() == []


def test_B6_a_redirect_leads_to_no_private_address(fetch: Fetch, shop: Shop, other_shop: Shop, tmp_path: Path) -> None:
    # The first host is known, and may be private; where it leads is not.
    shop.plain["/thing"] = (302, {"Location": named(other_shop, "other.example")}, b"")
    with make_buyer(tmp_path, private_hosts=["shop.example"]) as buyer, pytest.raises(PolicyRefused) as caught:
        fetch(buyer, "GET", named(shop, "shop.example"), follow=True)
    assert caught.value.reason == "private_host"
    assert (len(shop.seen), other_shop.seen) == (1, [])


def test_B6_a_host_that_the_policy_names_may_be_private(fetch: Fetch, shop: Shop, tmp_path: Path) -> None:
    with make_buyer(tmp_path, private_hosts=["*.example"]) as buyer:
        assert fetch(buyer, "GET", named(shop, "shop.example")).status_code == 200
    assert len(shop.transfers) == 1


def test_B6_what_can_t_be_judged_is_said_at_the_start(careful: Buyer) -> None:
    def app(_request: Any) -> Any:
        raise AssertionError

    for library in (httpx, httpx2):
        for inner in (library.MockTransport(app), library.HTTPTransport(proxy="http://proxy.example:3128")):
            with pytest.raises(ConfigError, match="can't be seen"):
                PayingTransport(careful, inner=inner)
    with pytest.raises(ConfigError, match="HTTPAdapter"):
        PayingAdapter(careful, inner=PayingAdapter(careful))
    session = paying_session(careful, session=requests.Session())
    with pytest.raises(ConfigError, match="proxy"):
        session.get("http://a.example/", proxies={"http": "http://proxy.example:3128"}, timeout=5)


def test_B6_the_libraries_own_transports_are_judged_too(shop: Shop, careful: Buyer) -> None:
    for library in (httpx, httpx2):
        with library.Client(transport=PayingTransport(careful)) as client, pytest.raises(PolicyRefused):
            client.get(named(shop, "shop.example"))
    assert shop.seen == []
