"""Outgoing HTTP: bounded, without redirects, honest about what left the machine, and put away with its loop."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from farthing.errors import ConfigError
from farthing.world.http import HttpAnswer, HttpClient, NoAnswer, RequestNotSent, check_url, is_loopback, origin_of


def get(url: str, **options: Any) -> HttpAnswer:
    return asyncio.run(HttpClient().request("GET", url, **{"timeout_seconds": 5.0, "max_bytes": 100, **options}))


def ask(server: Any, *answers: bytes, **options: Any) -> HttpAnswer:
    async def scene() -> HttpAnswer:
        async with server(*answers) as raw:
            options.setdefault("timeout_seconds", 5.0)
            options.setdefault("max_bytes", 100)
            return await HttpClient().request("POST", raw.url + "/path?key=s3cret", body=b"x", **options)

    return asyncio.run(scene())


def test_an_answer_is_whole_whatever_its_status(raw_server: Any) -> None:
    answer = ask(raw_server, raw_server.answer(302, b"body", "Location: /x", "Content-Type: Text/Plain; charset=x"))
    assert (answer.status, answer.body, answer.headers["location"]) == (302, b"body", "/x")
    assert answer.media_type == "text/plain"


def test_A1_a_body_has_a_limit_and_may_reach_it(raw_server: Any) -> None:
    assert ask(raw_server, raw_server.answer(200, b"x" * 100)).body == b"x" * 100
    with pytest.raises(NoAnswer, match="more than 100 bytes"):
        ask(raw_server, raw_server.answer(200, b"x" * 101))


NO_ANSWER: dict[str, Callable[[Any], bytes]] = {
    "time": lambda s: s.HANG,
    "cut": lambda _: b"",
    "cut in the body": lambda s: s.answer(200, b"half", length=8),
    "not HTTP": lambda _: b"220 mail.example ESMTP\r\n\r\n",
    "a huge header": lambda s: s.answer(200, b"", "X: " + "x" * 40_000),
    "many headers": lambda s: s.answer(200, b"", *[f"X-{number}: x" for number in range(500)]),
    "a bad length": lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nxxxxx",
    "compressed": lambda s: s.answer(200, b"x", "Content-Encoding: br"),
}


@pytest.mark.parametrize("trouble", NO_ANSWER.values(), ids=NO_ANSWER.keys())
def test_what_may_have_arrived_is_no_answer_and_never_not_sent(
    raw_server: Any, trouble: Callable[[Any], bytes]
) -> None:
    answer = trouble(raw_server)
    with pytest.raises(NoAnswer) as caught:
        ask(raw_server, answer, timeout_seconds=0.2 if answer == raw_server.HANG else 5.0)
    assert "s3cret" not in str(caught.value)


def test_no_connection_is_not_sent() -> None:
    for url in ("http://127.0.0.1:1/s3cret", "http://nowhere.invalid/s3cret"):
        with pytest.raises(RequestNotSent) as caught:
            get(url)
        assert "s3cret" not in str(caught.value)


def test_a_handshake_that_hangs_is_not_sent(raw_server: Any) -> None:
    async def scene() -> None:
        async with raw_server(raw_server.HANG) as raw:
            url = raw.url.replace("http:", "https:")
            await HttpClient().request("POST", url, body=b"x", timeout_seconds=0.3, max_bytes=100)

    with pytest.raises(RequestNotSent):
        asyncio.run(scene())


@pytest.mark.parametrize("headers", [{"X": "a\r\nY: b"}, {"X\n": "a"}, {"X": "a\0"}])
def test_a_header_that_would_be_two_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        get("http://127.0.0.1:1/", headers=headers)


def test_one_client_serves_many_loops_and_opens_again_after_closing(raw_server: Any) -> None:
    client = HttpClient()

    async def scene() -> None:
        async with raw_server(raw_server.answer(200, b"x")) as raw:
            for _ in range(2):
                answer = await client.request("GET", raw.url, timeout_seconds=5, max_bytes=100)
                assert answer.body == b"x"
                await client.aclose()
                await client.aclose()

    for _ in range(2):
        asyncio.run(scene())


PROGRAM = """
import asyncio, sys
from farthing.world.http import HttpClient
from farthing.world.loop import run_blocking
client = HttpClient()
async def serve(reader, writer):
    try:
        while line := await reader.readline():
            if line == b"\\r\\n":
                writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")
    except asyncio.CancelledError:
        writer.close()
async def scene():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    ask = lambda: client.request("GET", url, timeout_seconds=5, max_bytes=10)
    first, second = await asyncio.gather(ask(), ask())
    third = await asyncio.to_thread(lambda: run_blocking(ask()))
    print(first.body, second.body, third.body)
asyncio.run(scene())
"""


def test_connections_are_put_away_with_their_loop_without_a_word() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", PROGRAM], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stdout == "b'ok' b'ok' b'ok'\n", done.stderr
    noise = [line for line in done.stderr.splitlines() if "Unclosed" in line or "never" in line or "Traceback" in line]
    assert noise == []


def test_a_client_that_nobody_has_puts_its_connections_away_without_a_word(raw_server: Any) -> None:
    told: list[dict[str, Any]] = []

    async def scene() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        async with raw_server(raw_server.answer(200, b"x")) as raw:
            client = HttpClient()
            client.itself = client  # type: ignore[attr-defined]
            await client.request("GET", raw.url, timeout_seconds=5, max_bytes=100)
            (pool,) = client._pools.values()
            gone, session = weakref.ref(client), weakref.ref(pool.session)
            del client, pool
            gc.collect()
            assert gone() is None
            for _ in range(3):
                await asyncio.sleep(0)
            gc.collect()
            assert session() is None

    asyncio.run(scene())
    assert told == []


def test_a_loop_that_ended_is_not_kept(raw_server: Any) -> None:
    client = HttpClient()

    async def scene() -> None:
        async with raw_server(raw_server.answer(200, b"x")) as raw:
            await client.request("GET", raw.url, timeout_seconds=5, max_bytes=100)

    for _ in range(3):
        asyncio.run(scene())
    assert client._pools == {}


def test_what_of_a_url_is_shown() -> None:
    assert origin_of("https://user:pw@Node.example:8545/v3/key?x=y") == "https://node.example:8545"
    assert origin_of("http://[::1]:1/x") == "http://[::1]:1"
    hosts = ("127.1.2.3", "a.localhost", "[::1]", "a.example", "127.0.0.1.a.example")
    assert [is_loopback(f"http://{host}:1/") for host in hosts] == [True, True, True, False, False]
    assert check_url("https://a.example/x", "it") == "https://a.example/x"
    for url in ("https://a.example/#x", "https://a.example:99999/", "https://k@a.example/", "file:///x", "//a.example"):
        with pytest.raises(ConfigError):
            check_url(url, "it")
