"""The publishers of `farthing demo deferred`, and the crawler's key directory: a process of its own, on loopback.

Neither site knows of payments: an edge stands in front of each. It reads the agent's key from the environment, writes
one JSON line on standard output when it serves (`SitesOpened`), and ends when standard input does.

    python -m farthing.demo.deferred_sites FOLDER ARTICLES ARTICLES
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from html import escape
from pathlib import Path
from typing import Final

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from farthing.demo.child import end_with_stdin
from farthing.signatures import SigningKey
from farthing.world.directories import DirectoryServer, directory_app

AGENT_KEY_VARIABLE: Final = "FARTHING_AGENT_KEY"
NAMES: Final = ("The Gull", "Harbour Post")
# Where a publisher puts the clearing house's challenge; the file is in its folder.
PROOF_PATH: Final = "/.well-known/farthing-clearing"
PROOF_FILE: Final = "proof-{number}.txt"
_HOST: Final = "127.0.0.1"
_BACKLOG: Final = 128
# Some two kilobytes of text: what a short article has.
_SENTENCES: Final = 24


class SitesOpened(msgspec.Struct, frozen=True):
    """Where the sites and the agent's directory are served."""

    sites: tuple[str, ...]
    agent: str


def site(name: str, articles: int, proof: Path) -> Starlette:
    """Make a publisher's site: a front page, which is free, and its articles."""

    async def front(_request: Request) -> Response:
        links = "\n".join(f'<li><a href="/articles/{n}">Article {n}</a>' for n in range(1, articles + 1))
        return HTMLResponse(f"<title>{name}</title><h1>{name}</h1><ul>\n{links}\n</ul>")

    async def article(request: Request) -> Response:
        number = int(request.path_params["number"])
        if not 1 <= number <= articles:
            return PlainTextResponse("no such article", 404)
        text = " ".join(
            f"Line {line} of article {number} of {escape(name)}, as it was told." for line in range(_SENTENCES)
        )
        return HTMLResponse(f'<title>Article {number}</title><p>{text}</p><a href="/">{name}</a>')

    async def robots(_request: Request) -> Response:
        return PlainTextResponse("User-agent: *\nAllow: /\n")

    def shown(_request: Request) -> Response:
        return PlainTextResponse(proof.read_text("utf-8")) if proof.exists() else PlainTextResponse("none", 404)

    routes: tuple[tuple[str, Callable[[Request], Awaitable[Response] | Response]], ...] = (
        ("/", front),
        ("/articles/{number:int}", article),
        ("/robots.txt", robots),
        (PROOF_PATH, shown),
    )
    return Starlette(routes=[Route(path, endpoint) for path, endpoint in routes])


def main(folder: Path, articles: Sequence[int]) -> None:
    """Serve until standard input ends."""
    key = SigningKey(bytes.fromhex(os.environ.pop(AGENT_KEY_VARIABLE)))
    sockets = [socket.create_server((_HOST, 0), backlog=_BACKLOG) for _ in (*articles, key)]
    ports = [each.getsockname()[1] for each in sockets]
    urls = [f"http://{_HOST}:{port}" for port in ports]
    apps = {
        port: site(name, count, folder / PROOF_FILE.format(number=number))
        for number, (port, name, count) in enumerate(zip(ports, NAMES, articles, strict=False))
    }
    apps[ports[-1]] = directory_app(DirectoryServer(urls[-1].removeprefix("http://"), [key]))

    async def by_port(scope: dict[str, object], receive: object, send: object) -> None:
        server = scope["server"]
        await apps[server[1] if isinstance(server, tuple) else 0](scope, receive, send)  # type: ignore[arg-type]

    server = uvicorn.Server(uvicorn.Config(by_port, log_level="warning", lifespan="off", access_log=False))
    end_with_stdin()
    sys.stdout.buffer.write(msgspec.json.encode(SitesOpened(tuple(urls[:-1]), urls[-1])) + b"\n")
    sys.stdout.flush()
    server.run(sockets=sockets)


if __name__ == "__main__":
    main(Path(sys.argv[1]), tuple(map(int, sys.argv[2:])))
