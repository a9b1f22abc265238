"""What a command sends (`-d`, `-H`), and where the answer goes: standard output, or a file, whole or not there."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import secrets
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Final, Self

import msgspec

from farthing.cli.outcome import Result
from farthing.cli.terminal import Terminal
from farthing.errors import ConfigError

# A paid request is sent twice, so that its body is held in memory.
SENT_BODY_MAX_BYTES: Final = 64 * 1024 * 1024
# With --json and no file, an answer up to this size stands in the line itself; a larger one is put into a file.
JSON_BODY_MAX_BYTES: Final = 8 * 1024 * 1024
# How much of an answer that says no is shown.
ERROR_SHOWN_BYTES: Final = 2_000
PROGRESS_SECONDS: Final = 0.25
# A body that has come sooner than this needs no progress.
PROGRESS_AFTER_SECONDS: Final = 1.0

_HEADER = re.compile(r"(?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}):[ \t]*(?P<value>[^\r\n\0]*?)[ \t]*\Z")


def read_headers(texts: Sequence[str]) -> list[tuple[str, str]]:
    """Read `Name: value` texts. Raises `ConfigError`."""
    headers: list[tuple[str, str]] = []
    for text in texts:
        found = _HEADER.match(text)
        if found is None:
            raise ConfigError(f"-H {text.partition(':')[0][:80]!r}: a header is written like 'Accept: text/html'.")
        headers.append((found["name"], found["value"]))
    return headers


def read_body(parts: Sequence[str]) -> bytes | None:
    """Read `-d` options as curl does: text, `@file` or `@-`, joined by `&`; None where there is none."""
    if not parts:
        return None
    if list(parts).count("@-") > 1:
        raise ConfigError("-d @-: standard input can be read only once.")
    body = b"&".join(_part(each) for each in parts)
    if len(body) > SENT_BODY_MAX_BYTES:
        raise ConfigError(f"The body has more than {SENT_BODY_MAX_BYTES} bytes, and it has to be sent twice.")
    return body


def _part(text: str) -> bytes:
    if not text.startswith("@"):
        return text.encode("utf-8", "surrogateescape")
    try:
        if text == "@-":
            return sys.stdin.buffer.read(SENT_BODY_MAX_BYTES + 1)
        with Path(text[1:]).open("rb") as file:
            return file.read(SENT_BODY_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"-d {text}: the file can't be read: {error.strerror}.") from None


def content_type_of(body: bytes) -> str:
    """The Content-Type of a body that comes without one: JSON's where it is an object or a list, else curl's."""
    if body.lstrip()[:1] in {b"{", b"["}:
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            msgspec.json.decode(body)
            return "application/json"
    return "application/x-www-form-urlencoded"


class Answer:
    """Takes an answer's body, piece by piece, and puts it where it belongs. A context manager.

    A file is written under a name of its own and renamed when it is whole. It is opened before anything is paid, so
    that a folder that can't be written to costs nothing.
    """

    def __init__(self, path: Path | None, *, as_json: bool, terminal: Terminal) -> None:
        """`path` or standard output; with `as_json` the body goes into the result's line."""
        self._path = path
        self._in_line = as_json and path is None
        self._terminal = terminal
        self._stdout: BinaryIO = sys.stdout.buffer
        self._held: list[bytes] = []
        self._file: BinaryIO | None = None
        self._draft: Path | None = None
        self._progress = Progress(terminal)
        self.size_bytes = 0
        self.reader_gone = False
        if path is not None:
            self._open(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.end()
        if self._file is not None:
            self._file.close()
        if self._draft is not None:
            self._draft.unlink(missing_ok=True)

    def expect(self, size_bytes: int | None) -> None:
        """Say how long the body will be, where it is known."""
        self._progress.begin(size_bytes)

    def take(self, part: bytes) -> None:
        """Take a piece of the body."""
        first = self.size_bytes == 0
        self.size_bytes += len(part)
        self._progress.moved(self.size_bytes)
        if self._in_line and self._file is None:
            self._held.append(part)
            if self.size_bytes > JSON_BODY_MAX_BYTES:
                self._open(_free_name())
                held, self._held = b"".join(self._held), []
                self._write(held)
            return
        if self._path is None and first and _is_terminal(self._stdout) and not _is_text(part):
            # Bytes could do anything to a terminal, and what is paid for must not be lost.
            self._open(_free_name())
        self._write(part)

    def finish(self, result: Result) -> None:
        """The body is whole: rename its file, or hand it over."""
        self._progress.end()
        result.size_bytes = self.size_bytes
        if self._file is not None and self._path is not None:
            self._file.flush()
            if self._draft is not None:
                os.fsync(self._file.fileno())
                self._file.close()
                self._draft.replace(self._path)
                self._draft = None
            result.file = str(self._path)
        elif self._in_line:
            whole = b"".join(self._held)
            try:
                result.body = whole.decode()
            except UnicodeDecodeError:
                result.body_base64 = base64.b64encode(whole).decode()
        else:
            self._flush()

    def keep_part(self) -> str:
        """The body broke off: keep what came of it under a name that says so. Empty where there is nothing."""
        self._progress.end()
        if self._file is None or self._path is None or self._draft is None or not self.size_bytes:
            self._flush()
            return ""
        self._file.close()
        kept = self._path.with_name(self._path.name + ".part")
        self._draft.replace(kept)
        self._draft = None
        return str(kept)

    def _open(self, path: Path) -> None:
        if path.is_dir():
            raise ConfigError(f"-o {path} is a folder.")
        self._path = path
        try:
            if path.exists() and not path.is_file():
                # A device or a pipe is written to, and never replaced.
                self._file = path.open("wb")
                return
            # A link is followed: the file behind it is replaced.
            self._path = path = path.resolve()
            self._draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
            self._file = self._draft.open("xb")
        except OSError as error:
            self._draft = None
            raise ConfigError(f"{path} can't be written: {error.strerror}.") from None

    def _write(self, part: bytes) -> None:
        if self._file is not None:
            self._file.write(part)
            return
        try:
            self._stdout.write(part)
            self._stdout.flush()
        except BrokenPipeError:
            self._lose_reader()

    def _flush(self) -> None:
        try:
            self._stdout.flush()
        except BrokenPipeError:
            self._lose_reader()

    def _lose_reader(self) -> None:
        # `| head` has what it wants. Python would complain once more when it flushes at exit.
        self.reader_gone = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Progress:
    """A line on a terminal that says how far a long body is."""

    def __init__(self, terminal: Terminal) -> None:
        """Show it on `terminal`, if that is one."""
        self._shown = terminal.shows_progress
        self._expected: int | None = None
        self._started = self._last = time.monotonic()
        self._written = False

    def begin(self, expected_bytes: int | None) -> None:
        """Start the clock."""
        self._expected = expected_bytes
        self._started = self._last = time.monotonic()

    def moved(self, size_bytes: int) -> None:
        """Show where it is, now and then."""
        now = time.monotonic()
        late = now - self._started > PROGRESS_AFTER_SECONDS and now - self._last > PROGRESS_SECONDS
        if not self._shown or not late:
            return
        self._last, self._written = now, True
        whole = f" of {show_size(self._expected)} ({100 * size_bytes // self._expected} %)" if self._expected else ""
        rate = show_size(int(size_bytes / (now - self._started)))
        sys.stderr.write(f"\r\033[K{show_size(size_bytes)}{whole}, {rate}/s")
        sys.stderr.flush()

    def end(self) -> None:
        """Wipe the line away."""
        if self._written:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
        self._written = False


def show_size(size_bytes: int) -> str:
    """Write a size as people read it."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes} bytes"


def _is_text(part: bytes) -> bool:
    return b"\0" not in part and b"\x1b" not in part


def _is_terminal(stream: BinaryIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:
        return False


def _free_name() -> Path:
    return Path(f"farthing-answer-{secrets.token_hex(4)}")
