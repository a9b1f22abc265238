"""What the command line says, before anything is done about it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from farthing import __version__
from farthing.cli.body import content_type_of, read_body, read_headers
from farthing.cli.signing import KeySource
from farthing.world.urls import check_url


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says, as it is written there."""

    method: str
    url: str
    price_max: str
    per_day: str
    journal: str
    key: KeySource
    headers: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    output: Path | None = None
    networks: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()
    timeout_seconds: float = 60.0
    follow: bool = False
    yes: bool = False
    dry_run: bool = False
    as_json: bool = False
    verbose: bool = False


def read_request(order: Order) -> tuple[str, list[tuple[bytes, bytes]], bytes | None]:
    """Read the request: URL, headers and body. Raises `ConfigError` for what can't be meant."""
    url = check_url(order.url, "the request")
    headers, body = read_headers(order.headers), read_body(order.data)
    names = {name.lower() for name, _ in headers}
    given: list[tuple[str, str]] = [] if "user-agent" in names else [("User-Agent", f"farthing/{__version__}")]
    if body is not None and "content-type" not in names:
        given.append(("Content-Type", content_type_of(body)))
    # What is no ASCII is sent as UTF-8, as curl does.
    sent = [(name.encode(), value.encode("utf-8", "surrogateescape")) for name, value in (*given, *headers)]
    return url, sent, body
