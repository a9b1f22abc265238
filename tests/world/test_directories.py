"""Key directories over HTTP: what is fetched, what never is, what is kept (A1, A2), and what is served."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from farthing.errors import ConfigError, SignerError
from farthing.flow import drive
from farthing.signatures import DIRECTORY_PATH, DIRECTORY_TYPE, SignData, SigningKey, write_directory
from farthing.signatures.directory import FindKey
from farthing.signatures.keys import encode_base64url
from farthing.world import directories as module
from farthing.world.agent_keys import AgentSigner, agent_from_env, agent_from_file, agent_handlers
from farthing.world.directories import Directories, DirectoryRefused, DirectoryServer, directory_app
from farthing.world.http import HttpClient
from farthing.world.performers import Performer

KEYS = [SigningKey(bytes([number]) * 32) for number in range(1, 4)]
START = 1_800_000_000.0


class Server:
    """A directory's host on loopback. `said` overrides the whole answer."""

    def __init__(self) -> None:
        self.clock = START
        self.signers = KEYS[:1]
        self.said: tuple[int, list[tuple[str, str]], bytes] | None = None
        self.asked = 0
        self.authority = ""

    @property
    def origin(self) -> str:
        return f"http://{self.authority}"

    def answer(self, path: str) -> tuple[int, list[tuple[str, str]], bytes]:
        self.asked += 1
        if self.said is not None:
            return self.said
        server = DirectoryServer(self.authority, self.signers, clock=lambda: self.clock)
        status, lines, body = server.answer("GET", path) or (404, (), b"")
        return status, list(lines), body


@pytest.fixture
def host() -> Iterator[Server]:
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_args: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            status, lines, body = server.answer(self.path)
            self.send_response(status)
            for name, value in lines:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(body)

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.authority = f"127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    http.shutdown()
    http.server_close()
    thread.join()


def directories(host: Server, **more: Any) -> Directories:
    return Directories(allowed=[host.origin], clock=lambda: host.clock, **more)


def find(found: Directories, origin: str, key: SigningKey) -> Any:
    async def ask() -> Any:
        try:
            return await found.find(origin, key.public_key.thumbprint)
        finally:
            await found.aclose()

    return asyncio.run(ask())


def test_a_key_is_found_kept_and_archived_as_it_came(host: Server) -> None:
    found = directories(host)
    assert found.known(host.origin, KEYS[0].public_key.thumbprint) is None
    for _ in range(3):
        assert find(found, host.origin, KEYS[0]) == KEYS[0].public_key
    assert host.asked == 1
    kept = found.archived(host.origin, KEYS[0].public_key.thumbprint)
    assert kept is not None
    record = kept.record()
    assert record.directory == host.origin
    assert record.thumbprint == KEYS[0].public_key.thumbprint
    assert record.jwk.x == encode_base64url(KEYS[0].public_key.raw)
    assert (record.fetched, record.answer) == (START, write_directory([KEYS[0].public_key]).decode())
    assert "binding0" in record.signature_input
    assert "binding0" in record.signature


def test_a_failed_fetch_evicts_nothing(host: Server) -> None:
    found = directories(host)
    assert find(found, host.origin, KEYS[0])
    for said in ((500, [], b""), (200, [("Content-Type", DIRECTORY_TYPE)], b"junk"), (404, [], b"")):
        host.clock += 2_000
        host.said = said
        asked = host.asked
        assert find(found, host.origin, KEYS[0]) == KEYS[0].public_key
        assert host.asked == asked + 1


def test_a_rotated_key_is_forgotten_when_its_directory_says_so(host: Server) -> None:
    found = directories(host)
    assert find(found, host.origin, KEYS[0])
    host.signers = KEYS[1:2]
    assert find(found, host.origin, KEYS[0]) == KEYS[0].public_key  # fresh enough
    host.clock += 2_000
    assert find(found, host.origin, KEYS[1]) == KEYS[1].public_key
    assert find(found, host.origin, KEYS[0]) is None
    assert found.archived(host.origin, KEYS[0].public_key.thumbprint) is None


def test_A2_invented_keys_and_dead_hosts_cost_one_request_a_minute(host: Server) -> None:
    found = directories(host)
    for _ in range(5):
        assert find(found, host.origin, KEYS[2]) is None
    assert host.asked == 1
    host.clock += 61
    assert find(found, host.origin, KEYS[2]) is None
    assert host.asked == 2


def test_many_who_ask_at_once_wait_for_one_fetch(host: Server) -> None:
    found = directories(host)

    async def ask() -> list[Any]:
        name = KEYS[0].public_key.thumbprint
        answers = await asyncio.gather(*(found.find(host.origin, name) for _ in range(20)))
        await found.aclose()
        return answers

    assert asyncio.run(ask()) == [KEYS[0].public_key] * 20
    assert host.asked == 1


SIGNED = [("Content-Type", DIRECTORY_TYPE)]


@pytest.mark.parametrize(
    "said",
    [
        (302, [("Location", "http://127.0.0.1:1/")], b""),
        (200, [("Content-Type", "application/json")], write_directory([KEYS[0].public_key])),
        (200, SIGNED, write_directory([KEYS[0].public_key])),
        (200, SIGNED, b" " * 70_000),
        (200, [*SIGNED, ("Content-Encoding", "gzip")], b"x"),
        (206, SIGNED, write_directory([KEYS[0].public_key])),
    ],
    ids=["redirect", "type", "unsigned", "large", "encoded", "status"],
)
def test_A2_what_is_no_signed_directory_is_refused(host: Server, said: Any) -> None:
    host.said = said
    found = directories(host)

    async def fetch() -> None:
        try:
            await found.fetch(host.origin)
        finally:
            await found.aclose()

    with pytest.raises(DirectoryRefused):
        asyncio.run(fetch())
    assert find(found, host.origin, KEYS[0]) is None


def test_an_unsigned_directory_is_taken_where_the_configuration_says_so(host: Server) -> None:
    host.said = (200, SIGNED, write_directory([KEYS[0].public_key]))
    assert find(directories(host, require_signed=False), host.origin, KEYS[0]) == KEYS[0].public_key


def test_A2_C5_an_answer_that_another_key_signed_vouches_for_none(host: Server) -> None:
    """Whoever has the host and not the key can list it, and can't have it archived as the agent's."""
    answer = DirectoryServer(host.authority, KEYS[1:2], clock=lambda: START).answer("GET", DIRECTORY_PATH)
    assert answer is not None
    host.said = (200, list(answer[1]), write_directory([KEYS[0].public_key]))
    found = directories(host)
    assert find(found, host.origin, KEYS[0]) is None
    assert found.archived(host.origin, KEYS[0].public_key.thumbprint) is None


def test_A2_another_hosts_directory_is_not_taken(host: Server) -> None:
    answer = DirectoryServer("crawler.example", KEYS[:1], clock=lambda: START).answer("GET", DIRECTORY_PATH)
    assert answer is not None
    _, lines, body = answer
    host.said = (200, list(lines), body)
    assert find(directories(host), host.origin, KEYS[0]) is None


@pytest.mark.parametrize(
    "origin",
    [
        "http://crawler.example",
        "https://127.0.0.1",
        "https://localhost",
        "https://10.0.0.1:8443",
        "https://[::1]",
        "https://[::ffff:127.0.0.1]",
        "https://169.254.169.254",
        "https://crawler.internal",
        "https://crawler.example/path",
        "https://user@crawler.example",
        "file:///etc/passwd",
        "https://",
    ],
)
def test_A2_what_is_not_public_https_is_never_asked(origin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_request(*_args: object, **_more: object) -> None:
        raise AssertionError

    monkeypatch.setattr(HttpClient, "request", no_request)
    with pytest.raises(DirectoryRefused):
        asyncio.run(Directories().fetch(origin))


@pytest.mark.parametrize("numbers", [["127.0.0.1"], ["93.184.216.34", "10.1.2.3"], ["::1"], ["64:ff9b::a00:1"]])
def test_A2_a_name_that_resolves_to_a_private_address_is_refused(
    numbers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def resolve(*_args: object, **_more: object) -> list[Any]:
        return [
            (socket.AF_INET6 if ":" in each else socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, 443))
            for each in numbers
        ]

    async def fetch() -> None:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
        found = Directories()
        try:
            await found.fetch("https://crawler.example")
        finally:
            await found.aclose()

    with pytest.raises(DirectoryRefused, match="not public"):
        asyncio.run(fetch())


def test_A2_the_default_refuses_loopback(host: Server) -> None:
    assert find(Directories(), host.origin, KEYS[0]) is None
    assert host.asked == 0
    with pytest.raises(ConfigError):
        Directories(allowed=["127.0.0.1"])


def test_A1_what_is_kept_is_bounded(host: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEYS_MAX", 2)
    monkeypatch.setattr(module, "ORIGINS_MAX", 1)
    host.signers = KEYS
    found = directories(host)
    find(found, host.origin, KEYS[0])
    known = [found.known(host.origin, key.public_key.thumbprint) is not None for key in KEYS]
    assert sum(known) == 2
    find(found, "http://other.example", KEYS[0])
    assert len(found._asked) == 1


def test_the_effect_is_performed_by_threads_and_loops_alike(host: Server) -> None:
    found = directories(host)
    performer = Performer(found.handlers())
    effect = FindKey(host.origin, KEYS[0].public_key.thumbprint)
    assert performer.blocking(effect) == KEYS[0].public_key


def test_a_directory_is_served_signed_and_only_at_its_place(host: Server) -> None:
    now = [START]
    server = DirectoryServer("Crawler.Example", KEYS[:2], clock=lambda: now[0])
    assert server.answer("GET", "/") is None
    assert server.answer("POST", DIRECTORY_PATH) == (405, (("Allow", "GET, HEAD"),), b"")
    first = server.answer("GET", DIRECTORY_PATH)
    assert first is not None
    assert server.answer("HEAD", DIRECTORY_PATH) == (200, first[1], b"")
    now[0] += 599
    assert server.answer("GET", DIRECTORY_PATH) == first
    now[0] += 1
    assert server.answer("GET", DIRECTORY_PATH) != first
    with TestClient(directory_app(server)) as client:
        answer = client.get(DIRECTORY_PATH)
        assert (answer.status_code, answer.headers["content-type"]) == (200, DIRECTORY_TYPE)
        assert client.post(DIRECTORY_PATH).status_code == 405
    with pytest.raises(ConfigError):
        DirectoryServer("crawler.example", [])


def test_B7_an_agents_key_is_read_and_never_shown(tmp_path: Path) -> None:
    seed = bytes(range(32))
    jwk = f'{{"kty":"OKP","crv":"Ed25519","d":"{encode_base64url(seed)}"}}'
    for text in (seed.hex(), "0x" + seed.hex() + "\n", jwk):
        agent = agent_from_env("KEY", origin="https://Crawler.example:443", environment={"KEY": text})
        assert agent.agent.origin == "https://crawler.example"
        assert agent.public_key == SigningKey(seed).public_key
        assert seed.hex() not in repr(agent)
        file = tmp_path / "key"
        file.write_text(text)
        file.chmod(0o600)
        assert agent_from_file(file, origin="https://crawler.example").agent == agent.agent
    file.chmod(0o644)
    with pytest.raises(SignerError, match="chmod"):
        agent_from_file(file, origin="https://crawler.example")
    for text in ("", "zz", seed.hex()[2:], "{}", '{"kty":"EC","d":"x"}', jwk[:-1]):
        with pytest.raises(SignerError) as caught:
            agent_from_env("KEY", origin="https://crawler.example", environment={"KEY": text})
        assert caught.value.__cause__ is None
    with pytest.raises(ConfigError):
        AgentSigner("crawler.example", SigningKey(seed))


def test_an_agent_signs_with_its_own_key_alone() -> None:
    agent = AgentSigner("https://crawler.example", KEYS[0])
    performer = Performer(agent_handlers(agent))

    def ask(key: SigningKey) -> Any:
        return (yield SignData(key.public_key.thumbprint, b"data"))

    assert KEYS[0].public_key.verifies(drive(ask(KEYS[0]), performer.blocking), b"data")
    with pytest.raises(SignerError):
        drive(ask(KEYS[1]), performer.blocking)
