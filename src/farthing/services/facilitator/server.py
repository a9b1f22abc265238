"""The service behind a socket: uvicorn, a port of its choosing, and an end that finishes what was begun."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Generator

import uvicorn

from farthing.errors import ConfigError
from farthing.services.facilitator.app import make_app
from farthing.services.facilitator.auth import Tokens, check_binding
from farthing.services.facilitator.service import FacilitatorService

# Calls that wait are answered with what is known as soon as the end begins; this is for their bytes.
_SHUTDOWN_SECONDS = 5
# Connections that wait to be accepted: a burst of a few hundred payments is one.
_BACKLOG = 1024
# Idle connections of sellers stay open between their payments.
_KEEP_ALIVE_SECONDS = 30


class _Server(uvicorn.Server):
    """A server that leaves signals to whoever runs it, and says when it listens."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()


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
    listening = _listen(host, port)
    url = _url(host, listening.getsockname()[1])
    server = _Server(
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


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        message = f"[server] {host}:{port} can't be listened on: {error.strerror}. Choose another port, or 0 for any."
        raise ConfigError(message) from None
    return listening


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
