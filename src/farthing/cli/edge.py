"""`farthing edge`: a gate in front of a site, where crawlers pay by promises, until Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

if TYPE_CHECKING:
    from farthing.services.edge import EdgeConfig


def edge(
    *,
    config: Annotated[
        Path,
        typer.Option(
            "--config", "-c", metavar="FILE", dir_okay=False, help="The configuration, in TOML.", show_default=False
        ),
    ],
    host: Annotated[str | None, typer.Option(help="Listen here instead of where the configuration says.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port, instead of the configuration's; 0 takes a free one.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Check the configuration, then exit.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Say that it is ready in one line of JSON.")] = False,
) -> None:
    """Stand in front of a site and take promises for its pages, which a clearing house bills once a day.

    \b
    Examples:
      farthing edge --config edge.toml --check    is all as it should be?
      farthing edge --config edge.toml            on 127.0.0.1:4040

    \b
    A configuration (the clearing house's operator gives the token and the challenge):
      name = "news-1"
      base_url = "https://news.example"
      [clearing]
      url = "https://clearing.example"
      network = "clearing:example"
      token_env = "EDGE_TOKEN"
      payee = "news"
      challenge = "…"
      [receipts]
      key_env = "RECEIPT_KEY"        # openssl rand -hex 32
      [upstream]
      url = "http://127.0.0.1:8000"
      [[route]]
      route = "GET /articles/{id}"
      price = "$0.001"
    """  # noqa: D301 - click's mark for lines that are not to be joined
    from farthing.services.edge import load_config  # noqa: PLC0415 - heavy only when run
    from farthing.services.edge.config import receipt_key_of, token_of  # noqa: PLC0415

    loaded = _override(load_config(config), host=host, port=port)
    if check:
        key = receipt_key_of(loaded.receipts)
        token_of(loaded.clearing)
        print(f"configuration in order; receipts are signed by {key.public_key.thumbprint}")
        return
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    _run(loaded, as_json=as_json)


def _override(config: EdgeConfig, *, host: str | None, port: int | None) -> EdgeConfig:
    server = config.server
    server = msgspec.structs.replace(
        server, host=server.host if host is None else host, port=server.port if port is None else port
    )
    return msgspec.structs.replace(config, server=server)


def _run(config: EdgeConfig, *, as_json: bool) -> None:
    from farthing.services.edge.server import serve  # noqa: PLC0415 - heavy only when run

    def ready(url: str) -> None:
        if as_json:
            print(json.dumps({"ready": True, "url": url, "name": config.name}), flush=True)
        else:
            print(f"Edge {config.name} at {url}, in front of {config.upstream.url}. Ctrl-C ends it.", flush=True)

    running = serve(config, ready=ready)
    if sys.platform == "win32":
        asyncio.run(running)
        return
    import uvloop  # noqa: PLC0415

    uvloop.run(running)
