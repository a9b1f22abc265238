"""What services listen with: a socket with an error that helps, and a server that leaves signals to its caller."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Generator

import uvicorn

from farthing.errors import ConfigError


class Server(uvicorn.Server):
    """A server that leaves signals to whoever runs it, and says when it listens."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        """Call `ready` once it listens."""
        super().__init__(config)
        self._ready = ready

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Capture none."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        if self.started:
            self._ready()

    def end(self) -> None:
        """End once what is under way has its answer."""
        self.should_exit = True


def listen(host: str, port: int, *, reuse_port: bool = False) -> socket.socket:
    """Bind a socket; port 0 takes a free one. Raises `ConfigError`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        message = f"[server] {host}:{port} can't be listened on: {error.strerror}. Choose another port, or 0 for any."
        raise ConfigError(message) from None
    return listening


def url_of(host: str, port: int) -> str:
    """Write the URL of a socket."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
