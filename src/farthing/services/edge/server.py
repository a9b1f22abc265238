"""The edge behind a socket: uvicorn, a port of its choosing, and an end that passes on what was logged."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping

import uvicorn

from farthing.services.edge.config import EdgeConfig
from farthing.services.edge.site import make_site
from farthing.services.listening import Server, listen, url_of

# Requests under way when the end begins are finished within this.
_SHUTDOWN_SECONDS = 10
_BACKLOG = 2048
_KEEP_ALIVE_SECONDS = 30


async def serve(
    config: EdgeConfig,
    *,
    ready: Callable[[str], None],
    environment: Mapping[str, str] | None = None,
    signals: bool = True,
) -> None:
    """Listen, and end gracefully on SIGINT or SIGTERM. `ready` is given the URL. Raises `ConfigError`.

    An empty `base_url` stands for the address that is listened on, which is for tests and demos.
    """
    table = config.server
    listening = listen(table.host, table.port, reuse_port=table.reuse_port)
    url = url_of(table.host, listening.getsockname()[1])
    try:
        site = await asyncio.to_thread(make_site, config, base_url=config.base_url or url, environment=environment)
    except BaseException:
        listening.close()
        raise
    server = Server(
        uvicorn.Config(
            site,
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            backlog=_BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        ),
        lambda: ready(url),
    )
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM) if signals else ()
    for number in numbers:
        loop.add_signal_handler(number, server.end)
    try:
        await server.serve(sockets=[listening])
    finally:
        listening.close()
        await asyncio.to_thread(site.close)
        for number in numbers:
            loop.remove_signal_handler(number)
