"""The service behind a socket: uvicorn, a port of its choosing, and an end that finishes what was begun."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

import uvicorn

from farthing.services.facilitator.app import make_app
from farthing.services.facilitator.auth import Tokens, check_binding
from farthing.services.facilitator.service import FacilitatorService
from farthing.services.listening import Server, listen, url_of

# Calls that wait are answered with what is known as soon as the end begins; this is for their bytes.
_SHUTDOWN_SECONDS = 5
# Connections that wait to be accepted: a burst of a few hundred payments is one.
_BACKLOG = 1024
# Idle connections of sellers stay open between their payments.
_KEEP_ALIVE_SECONDS = 30


async def serve(
    service: FacilitatorService,
    *,
    tokens: Tokens,
    host: str,
    port: int,
    ready: Callable[[str], None],
    signals: bool = True,
) -> None:
    """Start the service, listen, and end gracefully on SIGINT or SIGTERM. `ready` is given the URL.

    Raises `ConfigError` where the address can't be had, or is reached from elsewhere without tokens.
    """
    check_binding(host, tokens)
    listening = listen(host, port)
    url = url_of(host, listening.getsockname()[1])
    server = Server(
        uvicorn.Config(
            make_app(service, tokens),
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            backlog=_BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        ),
        lambda: ready(url),
    )

    def end() -> None:
        service.drain()
        server.should_exit = True

    loop = asyncio.get_running_loop()
    if signals:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, end)
    try:
        await service.start()
        await server.serve(sockets=[listening])
    finally:
        listening.close()
        await service.aclose()
        if signals:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
