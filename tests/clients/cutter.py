"""A wire that is cut: a TCP relay between a client and a server that ends both after so many bytes one way."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Literal

Way = Literal["up", "down"]

# An abrupt end: RST instead of FIN, as a broken line has it.
_ABRUPT = struct.pack("ii", 1, 0)


class Cutter:
    """Relays; `cut` says after how many bytes, over all connections, which way the wire is cut, once."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.listening = socket.create_server(("127.0.0.1", 0), backlog=16)
        self.url = f"http://127.0.0.1:{self.listening.getsockname()[1]}"
        self.carried: dict[Way, int] = {"up": 0, "down": 0}
        self.cut: tuple[Way, int] | None = None
        self.was_cut = False
        self.lock = threading.Lock()

    def serve(self) -> None:
        """Relay until the listening socket is closed."""
        while True:
            try:
                client, _ = self.listening.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.port))
            for way, source, target in (("up", client, server), ("down", server, client)):
                threading.Thread(target=self._carry, args=(way, source, target), daemon=True).start()

    def _carry(self, way: Way, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                with self.lock:
                    room = self._room(way, len(data))
                    self.carried[way] += len(data)
                if room is not None:
                    target.sendall(data[:room])
                    for each in (source, target):
                        each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABRUPT)
                        # Closing alone would leave the other thread's read, and so the connection, as it is.
                        each.shutdown(socket.SHUT_RDWR)
                        each.close()
                    return
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def _room(self, way: Way, size: int) -> int | None:
        """How many of the next `size` bytes get through before the cut, or None where there is none among them."""
        if self.cut is None or self.cut[0] != way:
            return None
        left = self.cut[1] - self.carried[way]
        if left >= size:
            return None
        self.cut, self.was_cut = None, True
        return max(0, left)


@contextlib.contextmanager
def open_cutter(url: str) -> Iterator[Cutter]:
    """Run a relay to the server at `url` in a thread."""
    cutter = Cutter(int(url.rpartition(":")[2]))
    thread = threading.Thread(target=cutter.serve, daemon=True)
    thread.start()
    try:
        yield cutter
    finally:
        with contextlib.suppress(OSError):
            cutter.listening.shutdown(socket.SHUT_RDWR)
        cutter.listening.close()
