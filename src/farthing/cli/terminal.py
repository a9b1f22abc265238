"""The person at the terminal, if there is one: what is said goes to stderr, what is asked is answered by the keyboard.

Nobody is asked unless stderr is a terminal, and the answer comes from standard input or, where that is a pipe with the
request's body, from the controlling terminal.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Generator
from typing import TextIO

from farthing.errors import SignerError

# An offer is agreed to as it is shown. Who comes back from lunch is asked again.
ANSWER_MAX_SECONDS = 300.0

_TERMINAL = "/dev/tty"


class Terminal:
    """Says and asks."""

    def __init__(self, *, stdin_is_body: bool = False) -> None:
        """`stdin_is_body`: standard input is the request's, so that answers come from the controlling terminal."""
        self._stdin_is_body = stdin_is_body
        self.shows_progress = _is_terminal(sys.stderr)

    @property
    def can_ask(self) -> bool:
        """Tell whether somebody is there to be asked."""
        if not self.shows_progress:
            return False
        return os.path.exists(_TERMINAL) if self._stdin_is_body else _is_terminal(sys.stdin)  # noqa: PTH110 - a device

    def say(self, text: str) -> None:
        """Say a line, without whatever could move the cursor. A stderr that is closed hears nothing."""
        with contextlib.suppress(OSError):
            print(plain(text), file=sys.stderr, flush=True)

    def confirms(self, question: str) -> bool:
        """Ask a question whose answer is no unless it is `y` or `yes`, given in time."""
        started = time.monotonic()
        with self._keyboard() as keyboard:
            print(f"{plain(question)} [y/N] ", end="", file=sys.stderr, flush=True)
            try:
                answer = keyboard.readline()
            except (OSError, UnicodeDecodeError):
                answer = ""
        if not answer.endswith("\n"):
            self.say("")
        if time.monotonic() - started > ANSWER_MAX_SECONDS:
            self.say(f"That took longer than {ANSWER_MAX_SECONDS:.0f} seconds, so it counts as no.")
            return False
        return answer.strip().lower() in {"y", "yes"}

    def secret(self, prompt: str) -> str:
        """Ask for a secret, which is not shown while it is typed."""
        import getpass  # noqa: PLC0415 - only where somebody is asked

        with contextlib.suppress(EOFError, UnicodeDecodeError):
            return getpass.getpass(f"{plain(prompt)}: ", stream=None)
        raise SignerError("Nothing was typed.")

    @contextlib.contextmanager
    def _keyboard(self) -> Generator[TextIO]:
        if not self._stdin_is_body:
            yield sys.stdin
            return
        with open(_TERMINAL, encoding="utf-8", errors="replace") as keyboard:  # noqa: PTH123 - a device
            yield keyboard


def plain(text: str) -> str:
    """Take out of a text what a terminal would act on: words of a seller may be among it."""
    return "".join(each if each.isprintable() or each == "\n" else "?" for each in text)


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False
