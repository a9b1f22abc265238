"""Looks at what a URL asks for, without paying: one request."""

from __future__ import annotations

from typing import Final

import httpx2

from farthing import __version__
from farthing.cli.paying import transport_for
from farthing.errors import ConfigError
from farthing.protocol.http import PAYMENT_REQUIRED, STATUS_PAYMENT_REQUIRED
from farthing.world.urls import check_url, origin_of

LOOK_TIMEOUT_SECONDS: Final = 20.0


def header_of(url: str) -> str:
    """Give the PAYMENT-REQUIRED header that a GET of `url` gets. Raises `ConfigError` where there is none."""
    check_url(url, "the request")
    transport = transport_for(url)
    try:
        with (
            httpx2.Client(transport=transport, timeout=LOOK_TIMEOUT_SECONDS) as client,
            client.stream("GET", url, headers={"User-Agent": f"farthing/{__version__}"}) as response,
        ):
            header = response.headers.get(PAYMENT_REQUIRED)
            status = response.status_code
    except httpx2.RequestError as error:
        raise ConfigError(f"No answer from {origin_of(url)}: {type(error).__name__}.") from None
    if header is None:
        more = "so it is no offer of version 2" if status == STATUS_PAYMENT_REQUIRED else "so it asks for no money"
        raise ConfigError(f"The server answered {status} without a {PAYMENT_REQUIRED} header, {more}.")
    return f"{PAYMENT_REQUIRED}: {header}"
