"""What the WSGI door keeps and sends: an application run to its end, and an answer that says when it is out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Protocol, TypeAlias

from farthing.seller.headers import HeaderList

Environ: TypeAlias = dict[str, Any]
ExcInfo: TypeAlias = "tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]"
StartResponse: TypeAlias = Callable[..., Callable[[bytes], object]]
App: TypeAlias = Callable[[Environ, StartResponse], Iterable[bytes]]


class Body(Protocol):
    """What takes the pieces of an answer."""

    def write(self, chunk: bytes) -> object:
        """Take a piece."""
        ...

    def restart(self) -> None:
        """Forget what was taken."""
        ...


class Unread:
    """Takes a body that nobody reads."""

    def write(self, chunk: bytes) -> None:
        """Drop a piece."""

    def restart(self) -> None:
        """Forget nothing."""


class Held:
    """Runs an application to its end and keeps all that it answers."""

    def __init__(self, body: Body) -> None:
        self.body = body
        self.status = 0
        self.status_line = ""
        self.headers: HeaderList = ()

    def run(self, app: App, environ: Environ) -> None:
        """Run it. Raises what it raises."""
        iterable = app(environ, self._start_response)
        try:
            for chunk in iterable:
                self.body.write(chunk)
        finally:
            close = getattr(iterable, "close", None)
            if close is not None:
                close()
        if self.status == 0:
            message = "The application returned without calling start_response."
            raise RuntimeError(message)

    def _start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], object]:
        if self.status and exc_info is None:
            message = "start_response was called twice without exc_info (PEP 3333)."
            raise RuntimeError(message)
        if self.status:
            # Nothing has left, so that a second call with exc_info may replace the first, and what belonged to it: an
            # error page that costs nothing must not begin with what was to be paid for.
            self.body.restart()
        self.status_line, self.status, self.headers = status, int(status[:3]), tuple(headers)
        return self.body.write


class Sending:
    """The iterable of a stored answer: `sent` is called when the server has taken all of it, else `cut`, once."""

    def __init__(
        self, chunks: Iterator[bytes], sent: Callable[[], object], cut: Callable[[], object] | None = None
    ) -> None:
        self._chunks, self._sent, self._cut = chunks, sent, cut or sent

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._chunks)
        except StopIteration:
            sent, self._sent, self._cut = self._sent, _nothing, _nothing
            sent()
            raise

    def close(self) -> None:
        """Close it: what was not taken by now never will be."""
        close = getattr(self._chunks, "close", None)
        if close is not None:
            close()
        cut, self._sent, self._cut = self._cut, _nothing, _nothing
        cut()


def _nothing() -> None:
    return None
