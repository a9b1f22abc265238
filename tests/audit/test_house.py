"""The auditor's HTTP: a house that is away, in trouble, or sends what no house should (A1, A4)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from farthing.buyer.audit_house import (
    FetchKeys,
    FetchLines,
    FetchStatement,
    HouseAway,
    HouseRefused,
    ListStatuses,
    ReadLeaves,
)
from farthing.clients.statements import Auditor
from farthing.errors import ConfigError
from farthing.protocol.clearing import LINE_MAX_BYTES
from farthing.world.house_client import HouseClient
from farthing.world.journal import Journal

TOKEN = "the-payers-token"


class Site:
    """Answers as a test says."""

    def __init__(self) -> None:
        self.status, self.body, self.seen = 200, b"", ""
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.seen = self.headers.get("Authorization", "")
                self.send_response(site.status)
                self.send_header("Content-Length", str(len(site.body)))
                self.end_headers()
                self.wfile.write(site.body)

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def site() -> Iterator[Site]:
    opened = Site()
    yield opened
    opened.server.shutdown()
    opened.server.server_close()


def ask(client: HouseClient, effect: Any) -> Any:
    async def asking() -> Any:
        answer = client.handlers()[type(effect)](effect)
        found = await answer if asyncio.iscoroutine(answer) else answer
        await client.aclose()
        return found

    return asyncio.run(asking())


def test_what_is_no_clear_answer_is_no_answer(site: Site, tmp_path: Path) -> None:
    client = HouseClient(site.url, TOKEN, folder=tmp_path)
    deep = b'{"x":' * 20_000
    for status, body in (
        (500, b"{}"), (200, b"<html>"), (200, b"[]"), (429, b"{}"),
        (302, b""), (404, b"not found"), (200, deep), (409, deep),
    ):  # fmt: skip
        site.status, site.body = status, body
        with pytest.raises(HouseAway):
            ask(client, FetchStatement("st-1"))
    with pytest.raises(HouseAway):
        ask(client, FetchKeys())
    assert site.seen == ""
    nobody = HouseClient("http://127.0.0.1:1", TOKEN, folder=tmp_path)
    with pytest.raises(HouseAway):
        ask(nobody, ListStatuses(""))


def test_a_clear_no_has_its_reason(site: Site, tmp_path: Path) -> None:
    site.status = 422
    site.body = (
        b'{"type": "urn:farthing:clearing:refused", "title": "t", "status": 422, "detail": "d", "reason": "why"}'
    )
    with pytest.raises(HouseRefused) as raised:
        ask(HouseClient(site.url, TOKEN, folder=tmp_path), FetchStatement("st-1"))
    assert (raised.value.reason, raised.value.status) == ("why", 422)
    assert site.seen == f"Bearer {TOKEN}"


def test_A1_lines_are_bounded_and_whole_or_not_there(site: Site, tmp_path: Path) -> None:
    client = HouseClient(site.url, TOKEN, folder=tmp_path)
    site.body = b'{"id":"a"}\n' * 2_500
    with pytest.raises(HouseAway):
        ask(client, FetchLines("st-1", 100))
    assert list(tmp_path.iterdir()) == []
    ask(client, FetchLines("st-1", 1_000_000))
    assert [path.name for path in tmp_path.iterdir()] == ["st-1.ndjson"]
    found: list[bytes] = []
    offset: int | None = 0
    while offset is not None:
        page = ask(client, ReadLeaves("st-1", offset))
        found += page.leaves
        offset = page.next_offset
    assert found == [b'{"id":"a"}'] * 2_500
    # A line without an end is cut, so that it is none of any statement.
    site.body = b"x" * (2 * LINE_MAX_BYTES)
    ask(client, FetchLines("st-1", 1_000_000))
    assert max(map(len, ask(client, ReadLeaves("st-1", 0)).leaves)) == LINE_MAX_BYTES + 1


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", ".hidden", "a/b", "", "a" * 65, "st\n1"])
def test_A1_a_name_that_a_house_gives_is_no_path(site: Site, tmp_path: Path, name: str) -> None:
    client = HouseClient(site.url, TOKEN, folder=tmp_path / "lines")
    site.body = b"{}\n"
    with pytest.raises(ConfigError):
        ask(client, FetchLines(name, 1_000))
    assert list(tmp_path.iterdir()) == []


def test_A1_a_list_that_goes_on_for_ever_is_ended(site: Site, tmp_path: Path) -> None:
    one = (
        b'[{"statement": "st-1", "payer": "https://a.example", "window": "1", "currency": "USD", "state": "issued",'
        b' "net": "1", "disputed": "0", "payable": "1", "due": 1}]'
    )
    site.body = one
    with auditor(site, tmp_path) as opened, pytest.raises(HouseAway):
        opened.statements()


def test_A4_the_token_is_in_no_repr(site: Site, tmp_path: Path) -> None:
    with auditor(site, tmp_path) as opened:
        assert TOKEN not in f"{opened!r} {opened.house!r} {opened.plan!r}"


def auditor(site: Site, folder: Path, **changes: Any) -> Auditor:
    given: dict[str, Any] = {"payer": "https://crawler.example", "network": "clearing:test"}
    return Auditor(site.url, TOKEN, journal=folder / "journal.sqlite3", **{**given, **changes})


@pytest.mark.parametrize(
    "changes",
    [{"payer": "crawler"}, {"currency": "GBP"}, {"per_statement": "€5"}, {"window_seconds": 0}, {"per_window": "1e3"}],
)
def test_a_mistake_is_named_at_once(site: Site, tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        auditor(site, tmp_path, **changes)


def test_a_journal_that_is_shared_stays_open(site: Site, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "shared.sqlite3")
    with Auditor(site.url, TOKEN, journal=journal, payer="https://crawler.example", network="clearing:test") as opened:
        assert opened.has_paid() is False
    assert journal.audited() == []
    journal.close()
