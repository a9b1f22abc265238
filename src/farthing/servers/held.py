"""A response that is held until its payment is settled: in memory, or, if large, in a file beside the store."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from farthing.errors import FarthingError
from farthing.seller.store import StoredResponse

# Up to this a body is kept in the store's own row: an answer of an API, seldom more than a few pages.
INLINE_MAX_BYTES: Final = 65_536
# Up to this a body is spooled; a larger one belongs on a route that settles before the work, where it streams.
RESPONSE_MAX_BYTES: Final = 64 * 1024 * 1024
_CHUNK_BYTES: Final = 65_536


class ResponseTooLarge(FarthingError):
    """A held response over the bound: it is not sent, and nothing is charged."""


class HeldBody:
    """The body of one held response, in the order in which it was written."""

    def __init__(self, folder: Path, name: str) -> None:
        """Hold a body; `folder/name` is its file, should it need one."""
        self._folder = folder
        self._name = name
        self._inline = bytearray()
        self._file: IO[bytes] | None = None
        self.size_bytes = 0

    def write(self, chunk: bytes) -> None:
        """Add to the body. Raises `ResponseTooLarge`."""
        self.size_bytes += len(chunk)
        if self.size_bytes > RESPONSE_MAX_BYTES:
            message = (
                f"A response of more than {RESPONSE_MAX_BYTES} bytes can't be held until it is settled; "
                "price its route with payment_flow='upfront'."
            )
            raise ResponseTooLarge(message)
        if self._file is None and self.size_bytes <= INLINE_MAX_BYTES:
            self._inline += chunk
            return
        if self._file is None:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Only the seller reads what its buyers paid for.
            descriptor = os.open(self._folder / self._name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            self._file = os.fdopen(descriptor, "wb")
            self._file.write(self._inline)
            self._inline.clear()
        self._file.write(chunk)

    def restart(self) -> None:
        """Forget what was written so far."""
        self.size_bytes = 0
        self._inline.clear()
        if self._file is not None:
            self._file.seek(0)
            self._file.truncate()

    @property
    def spooled(self) -> bool:
        """Whether the body lies in a file."""
        return self._file is not None

    def store(self, status: int, headers: tuple[tuple[str, str], ...], *, durable: bool = True) -> StoredResponse:
        """End the body and give the response as it is recorded; a file is on disk before this returns."""
        if self._file is None:
            return StoredResponse(status, headers, bytes(self._inline))
        self._file.flush()
        if durable:
            os.fsync(self._file.fileno())
        self._file.close()
        return StoredResponse(status, headers, b"", self._name)

    def discard(self) -> None:
        """Drop the body; a file that can't be removed costs room, not money."""
        if self._file is not None:
            self._file.close()
            with contextlib.suppress(OSError):
                (self._folder / self._name).unlink()


def body_of(response: StoredResponse, folder: Path) -> Iterator[bytes]:
    """Give a recorded body, piece by piece."""
    if not response.spool:
        yield response.body
        return
    with (folder / response.spool).open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def body_size(response: StoredResponse, folder: Path) -> int:
    """Give the size of a recorded body, in bytes."""
    return (folder / response.spool).stat().st_size if response.spool else len(response.body)
