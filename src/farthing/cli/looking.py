"""Looks at what a URL asks for, without paying: one request."""

from __future__ import annotations

from typing import Final

import httpx2

from farthing import __version__
from farthing.cli.paying import beginning, transport_for
from farthing.clients.buyer import demand_of
from farthing.errors import ConfigError
from farthing.protocol.http import PAYMENT_REQUIRED, STATUS_PAYMENT_REQUIRED
from farthing.world.urls import check_url, origin_of

LOOK_TIMEOUT_SECONDS: Final = 20.0


def demand_at(url: str) -> str:
    """Give what a GET of `url` is asked to pay: the header with its name, or the body of a version that offers there.

    Raises `ConfigError` where nothing is asked for.
    """
    check_url(url, "the request")
    try:
        with (
            httpx2.Client(transport=transport_for(url), timeout=LOOK_TIMEOUT_SECONDS) as client,
            client.stream("GET", url, headers={"User-Agent": f"farthing/{__version__}"}) as response,
        ):
            status, header = response.status_code, response.headers.get(PAYMENT_REQUIRED)
            body = beginning(response) if status == STATUS_PAYMENT_REQUIRED else b""
            encoding = response.headers.get("Content-Encoding", "")
    except (httpx2.RequestError, httpx2.InvalidURL, UnicodeError) as error:
        raise ConfigError(f"No answer from {origin_of(url)}: {type(error).__name__}.") from None
    if header is not None:
        return f"{PAYMENT_REQUIRED}: {header}"
    body = demand_of(None, body, encoding).body
    if status != STATUS_PAYMENT_REQUIRED or not body.lstrip().startswith(b"{"):
        more = "and offers nothing that x402 knows" if status == STATUS_PAYMENT_REQUIRED else "so it asks for no money"
        raise ConfigError(f"The server answered {status} without a {PAYMENT_REQUIRED} header, {more}.")
    return body.decode("utf-8", "replace").strip()
