"""The clearing house behind a socket: uvicorn, a port of its choosing, and an end that finishes what was begun."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Final

import uvicorn

from farthing.services.clearing.app import make_app
from farthing.services.clearing.callers import Operators
from farthing.services.clearing.service import ClearingService
from farthing.services.listening import Server, listen

# For the bytes of answers that are ready when the end begins.
_SHUTDOWN_SECONDS: Final = 5
_BACKLOG: Final = 256
# Edges upload every few seconds over connections that stay.
_KEEP_ALIVE_SECONDS: Final = 30
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


async def serve(
    service: ClearingService,
    *,
    operators: Operators,
    host: str,
    port: int,
    ready: Callable[[str], None],
    signals: bool = True,
) -> None:
    """Start the service, listen, and end gracefully on SIGINT or SIGTERM. `ready` is given the URL.

    Raises `ConfigError` where the address can't be had.
    """
    listening = listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{listening.getsockname()[1]}"
    server = Server(
        uvicorn.Config(
            make_app(service, operators),
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
        server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in _SIGNALS if signals else ():
        loop.add_signal_handler(number, end)
    try:
        await service.start()
        await server.serve(sockets=[listening])
    finally:
        listening.close()
        await service.aclose()
        for number in _SIGNALS if signals else ():
            loop.remove_signal_handler(number)
