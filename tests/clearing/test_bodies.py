"""What bounds the bodies that a clearing house reads or holds: size, time, and a room that callers share (A1)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import httpx
import pytest
from raw_request import RawRequest
from serving import OPERATOR, Parties, Served, Town, serving, until
from starlette.requests import Request
from town import pack

from farthing.protocol.clearing import UPLOAD_MAX_BYTES
from farthing.services.bodies import RETRY_AFTER_SECONDS, BodyRefused, BodyRoom, RoomLimits
from farthing.services.clearing import app as app_module
from farthing.services.clearing import read_config
from farthing.services.clearing.api import DOORS
from farthing.services.clearing.app import REQUESTS, UPLOADS, make_app
from farthing.services.clearing.callers import Operators
from farthing.services.clearing.server import serve
from farthing.services.clearing.service import ClearingService
from farthing.world.clearing_client import ClearingAway, ClearingClient

if TYPE_CHECKING:
    from tests.raw_request import RawRequest as Raw

BY_ONE = UPLOADS.caller_bytes_max // UPLOAD_MAX_BYTES
IN_ALL = UPLOADS.bytes_max // UPLOAD_MAX_BYTES


@pytest.fixture
def town(devnet_pyevm: Any, tmp_path: Path) -> Town:
    return Town(devnet_pyevm, tmp_path)


def run_with_edges(town: Town, story: Callable[[Served, Any, list[str]], Any], *, edges: int = 1) -> None:
    """Tell a story of a house and edges' tokens; the application is handed over too."""

    async def run() -> None:
        async with serving(town, town.facilitator()) as served:
            app = make_app(served.service, Operators(read_config(town.config()).server, town.environment))
            tokens = [
                (await served.client(f"edge-{n}", "edge", "news")).headers["Authorization"].removeprefix("Bearer ")
                for n in range(edges)
            ]
            await story(served, app, tokens)

    asyncio.run(run())


def test_A1_an_upload_without_room_is_refused_before_a_byte_of_it_is_read(town: Town) -> None:
    def upload(app: Any, token: str, sequence: int, edge: str = "edge-0") -> Raw:
        body = pack([], edge=edge, sequence=sequence)
        asked: Raw = RawRequest(app, "/uploads", token=token, content=body, length=UPLOAD_MAX_BYTES)
        return asked

    async def story(served: Served, app: Any, tokens: list[str]) -> None:
        held = [await upload(app, token, 1, f"edge-{n}").until_read() for n, token in enumerate(tokens[:-1])]
        held += [await upload(app, token, 2, f"edge-{n}").until_read() for n, token in enumerate(tokens[:-1])]
        assert len(held) == IN_ALL
        # Its own share first: nobody else's are in its way.
        over = await upload(app, tokens[0], 3).refused()
        assert (over.status, over.was_read) == (429, False)
        assert over.headers["retry-after"] == str(RETRY_AFTER_SECONDS)
        assert over.problem["type"] == "urn:farthing:clearing:rate-limited"
        full = await upload(app, tokens[-1], 1, f"edge-{len(tokens) - 1}").refused()
        assert (full.status, full.was_read) == (503, False)
        assert full.headers["retry-after"] == str(RETRY_AFTER_SECONDS)
        assert full.problem["advice"]
        # Uploads keep nobody from what else there is to ask.
        standing = await RawRequest(app, "/tokens", token=OPERATOR, content=b"{", length=1).answered()
        assert standing.status == 400
        assert [(await each.answered()).status for each in held] == [200] * IN_ALL
        # What was refused is taken when it comes again: every place was given back.
        assert (await upload(app, tokens[0], 3).answered()).status == 200
        assert (await upload(app, tokens[-1], 1, f"edge-{len(tokens) - 1}").answered()).status == 200

    assert BY_ONE == 2
    run_with_edges(town, story, edges=IN_ALL // BY_ONE + 1)


def test_A1_a_length_that_is_not_named_counts_as_the_longest_and_one_that_is_wrong_helps_nobody(town: Town) -> None:
    async def story(_served: Served, app: Any, tokens: list[str]) -> None:
        held = [await RawRequest(app, "/uploads", token=tokens[0]).until_read() for _ in range(BY_ONE)]
        assert (await RawRequest(app, "/uploads", token=tokens[0], length=1).refused()).status == 429
        for each in held:
            assert (await each.answered(gone=True)).status == 400
        for length in (UPLOAD_MAX_BYTES + 1, 10**40):
            large = await RawRequest(app, "/uploads", token=tokens[0], length=length).refused()
            assert (large.status, large.was_read) == (413, False)
        longer = await RawRequest(app, "/uploads", token=tokens[0], content=b"12345", length=4).answered()
        assert longer.status == 413

    run_with_edges(town, story)


def test_A1_nothing_is_read_of_whoever_has_no_token_or_none_for_this_door(town: Town) -> None:
    async def story(_served: Served, app: Any, tokens: list[str]) -> None:
        for door in DOORS:
            if door.takes is None and not door.takes_upload:
                continue
            path = door.path.replace("{", "").replace("}", "")
            for token in ("", "nobodys-token", OPERATOR if "operator" not in door.roles else tokens[0]):
                asked = await RawRequest(app, path, token=token, length=door.body_max_bytes).refused()
                assert asked.status == (403 if token in {OPERATOR, *tokens} else 401), door.path
                assert not asked.was_read

    run_with_edges(town, story)


def test_A1_no_body_is_longer_than_its_door_says_and_the_document_says_it_too(town: Town) -> None:
    async def story(served: Served, app: Any, tokens: list[str]) -> None:
        document = (await served.http.get("/openapi.json")).json()["paths"]
        for door in DOORS:
            if "operator" in door.roles and door.takes is not None:
                large = await RawRequest(app, door.path, token=OPERATOR, length=door.body_max_bytes + 1).refused()
                assert (large.status, large.was_read) == (413, False)
            if door.takes is not None or door.takes_upload:
                described = document[door.path]["post"]
                assert str(door.body_max_bytes) in described["requestBody"]["description"]
                assert {"408", "413", "429", "503"} <= set(described["responses"])
                assert described["responses"]["429"]["headers"]["Retry-After"]["required"] is True
                assert door.body_max_bytes <= (UPLOADS if door.takes_upload else REQUESTS).caller_bytes_max

    run_with_edges(town, story)


def test_A1_a_body_that_drips_is_given_up_and_its_place_given_back(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    one = RoomLimits(bytes_max=UPLOAD_MAX_BYTES, caller_bytes_max=UPLOAD_MAX_BYTES, read_seconds=0)
    monkeypatch.setattr(app_module, "UPLOADS", one)
    monkeypatch.setattr(app_module, "REQUESTS", one)

    async def story(_served: Served, app: Any, tokens: list[str]) -> None:
        for _ in range(2):
            for path, token in (("/uploads", tokens[0]), ("/tokens", OPERATOR)):
                slow = await RawRequest(app, path, token=token, length=UPLOAD_MAX_BYTES // 256).refused()
                assert (slow.status, slow.was_read, slow.headers["connection"]) == (408, True, "close")
                assert slow.problem["advice"]

    run_with_edges(town, story)


def test_A1_small_requests_are_bounded_in_number() -> None:
    async def run() -> int:
        room = BodyRoom(RoomLimits(bytes_max=100_000, caller_bytes_max=50_000, read_seconds=1))

        async def app(scope: Any, receive: Any, send: Any) -> None:
            async with room.body(Request(scope, receive), "a", 10):
                raise AssertionError

        asked = [RawRequest(app, "/", length=0) for _ in range(7)]
        for each in asked[:6]:
            await each.until_read()
        with pytest.raises(BodyRefused, match="one caller's share"):
            await asked[6].refused()
        held = room.held_bytes
        for each in asked[:6]:
            with pytest.raises(BodyRefused, match="cut off"):
                await each.answered(gone=True)
        assert room.held_bytes == 0
        return held

    assert asyncio.run(run()) == 6 * 8_192


@asynccontextmanager
async def over_sockets(town: Town) -> AsyncIterator[str]:
    """The house behind a real socket."""
    loaded = read_config(town.config())
    service = ClearingService.from_config(loaded, environment=town.environment, facilitator=town.facilitator())
    url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    operators = Operators(loaded.server, town.environment)
    running = asyncio.create_task(
        serve(service, operators=operators, host="127.0.0.1", port=0, ready=url.set_result, signals=False)
    )
    running.add_done_callback(
        lambda ended: None if url.done() else url.set_exception(ended.exception() or SystemExit())
    )
    await url
    try:
        yield url.result()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await service.aclose()


async def announce(url: str, token: str) -> tuple[asyncio.StreamWriter, bytes]:
    """Announce the longest upload, and give the answer's first line: 100 where the body is asked for."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    head = f"POST /uploads HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\nExpect: 100-continue\r\n"
    writer.write(f"{head}Content-Length: {UPLOAD_MAX_BYTES}\r\n\r\n".encode())
    return writer, await reader.readline()


def test_C2_A1_an_edge_that_finds_no_room_is_told_to_come_again_and_loses_nothing(town: Town) -> None:
    async def run() -> None:
        async with over_sockets(town) as url, httpx.AsyncClient(base_url=url, timeout=30) as http:
            served = Served(cast("Any", None), http)
            parties = Parties(town, served, "news.example")
            await served.operator.post("/payers", {"payer": town.crawler.directory, "creditLimit": "1000000"})
            payee = {"payee": "news", "domain": "news.example", "address": town.address("payee")}
            await served.operator.post("/payees", payee)
            parties.edge = await served.client("edge-1", "edge", "news")
            token = parties.edge.headers["Authorization"].removeprefix("Bearer ")
            writer, line = await announce(url, "nobodys-token")
            assert b" 401 " in line
            writers = [writer]
            for _ in range(BY_ONE):
                writer, line = await announce(url, token)
                assert b" 100 " in line
                writers.append(writer)
            lines = [town.crawler.commit(f"/{n}", at=int(time.time())) for n in range(3)]
            upload = pack([town.crawler.record, *lines])
            client = ClearingClient(url, token)
            with pytest.raises(ClearingAway, match="share") as refused:
                await client.upload(upload)
            assert refused.value.retry_after_seconds == RETRY_AFTER_SECONDS
            for each in writers:
                each.close()

            async def taken() -> Any:
                try:
                    return (await client.upload(upload))[0]
                except ClearingAway:
                    return None

            answer = await until(taken, what="room")
            assert (answer.accepted, answer.repeated) == (3, False)
            again, _ = await client.upload(upload)
            assert (again.accepted, again.repeated) == (3, True)
            standing = await served.operator.get(f"/standing?payer={town.crawler.directory}")
            assert standing["owed"] == "30000"
            await client.aclose()

    asyncio.run(run())
