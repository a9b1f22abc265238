"""What is said on a terminal, and when."""

from __future__ import annotations

import io
import sys

import pytest

from farthing.cli import body, terminal
from farthing.cli.body import Progress, show_size
from farthing.cli.terminal import Terminal, plain


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def show_on(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """Make stderr a terminal. In the test's own phase: pytest sets it anew for each."""
    shown = Screen()
    monkeypatch.setattr(sys, "stderr", shown)
    return shown


def test_an_answer_that_comes_too_late_is_no(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = show_on(monkeypatch)
    for seconds, expected in ((60.0, True), (-1.0, False)):
        monkeypatch.setattr(terminal, "ANSWER_MAX_SECONDS", seconds)
        monkeypatch.setattr(sys, "stdin", Screen("yes\n"))
        assert Terminal().confirms("Pay?") is expected
    assert "counts as no" in screen.getvalue()


def test_nobody_is_asked_unless_both_ends_are_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = show_on(monkeypatch)
    monkeypatch.setattr(sys, "stdin", Screen())
    assert Terminal().can_ask
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert not Terminal().can_ask
    monkeypatch.setattr(sys, "stdin", Screen())
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert not Terminal().can_ask
    assert screen.getvalue() == ""


def test_a_long_body_shows_how_far_it_is_and_wipes_it_away(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = show_on(monkeypatch)
    monkeypatch.setattr(body, "PROGRESS_AFTER_SECONDS", -1.0)
    monkeypatch.setattr(body, "PROGRESS_SECONDS", -1.0)
    progress = Progress(Terminal())
    progress.begin(4_000_000)
    progress.moved(1_000_000)
    progress.end()
    assert "1.0 MB of 4.0 MB (25 %)" in screen.getvalue()
    assert screen.getvalue().endswith("\r\033[K")
    no_terminal = io.StringIO()
    monkeypatch.setattr(sys, "stderr", no_terminal)
    silent = Progress(Terminal())
    silent.begin(None)
    silent.moved(1_000_000)
    silent.end()
    assert no_terminal.getvalue() == ""


def test_a_short_body_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = show_on(monkeypatch)
    progress = Progress(Terminal())
    progress.begin(10)
    progress.moved(10)
    progress.end()
    assert screen.getvalue() == ""


def test_what_could_move_the_cursor_is_not_said(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = show_on(monkeypatch)
    Terminal().say("a\x1b[2Jb\r\u202ec\nd")
    assert screen.getvalue() == "a?[2Jb??c\nd\n"
    assert plain("ünïcode €") == "ünïcode €"


@pytest.mark.parametrize(
    ("size_bytes", "shown"), [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (2_500_000_000, "2.5 GB")]
)
def test_sizes(size_bytes: int, shown: str) -> None:
    assert show_size(size_bytes) == shown
