"""Runs the examples of a Markdown page, and finds its links.

The convention:

- A fenced `python` block runs. The blocks of a page run in order and share one namespace; `await` may stand at the top.
- `<!-- not run: the reason -->` just before a block keeps it from running.
- `<!-- setup … -->` and `<!-- check … -->` hold Python that readers don't see; it runs in its place among the blocks.
- `toml` and `json` blocks have to parse, but for `json` with a `…` in it; the last `toml` block is `toml` in the
  namespace.

In the namespace stand, besides: `local` (a chain, a facilitator, wallets and sockets on loopback: `LocalServices` in
`tests/local_services.py`, started when first used), and `replace(old, new)`, which the following blocks are read
through, so that a page can show `https://api.example.com` and run against a seller that is there. The working folder is
an empty one, and the environment is restored afterwards.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

_PART = re.compile(
    r"""
    ^<!--\s*(?P<hidden>setup|check)\s*\n(?P<secret>.*?)-->[ \t]*$
    | (?:^<!--\s*not[ ]run:(?P<reason>.*?)-->\s*\n)?
      ^(?P<fence>```+|~~~+)(?P<language>\w*)[^\n]*\n(?P<code>.*?)^(?P=fence)[ \t]*$
    """,
    re.MULTILINE | re.DOTALL | re.VERBOSE,
)
_LINK = re.compile(
    r"""
    (?<!\\) \[ (?:[^\]\\]|\\.)* \] \( (?P<target>[^)\s]+) (?:\s+"[^"]*")? \)
    | ^ \[ [^\]]+ \]: \s* (?P<named>\S+)
    """,
    re.MULTILINE | re.VERBOSE,
)
_HEADING = re.compile(r"^#{1,6}\s+(?P<title>.+?)\s*#*$", re.MULTILINE)


class Part(msgspec.Struct, frozen=True):
    """A block of a page, or a comment that runs. `line` is where its text begins, from 1."""

    language: str
    text: str
    line: int
    skipped: str = ""


class PageError(AssertionError):
    """A page that does not keep the convention."""


def parts_of(page: str) -> Iterator[Part]:
    """Find the blocks and the comments that run, in their order."""
    for found in _PART.finditer(page):
        if found["hidden"]:
            yield Part("python", found["secret"], page.count("\n", 0, found.start("secret")) + 1)
            continue
        line = page.count("\n", 0, found.start("code")) + 1
        if found["reason"] is not None and not found["reason"].strip():
            raise PageError(f"line {line}: 'not run' gives no reason")
        yield Part(found["language"], found["code"], line, (found["reason"] or "").strip())


class Page:
    """One page that runs."""

    def __init__(self, path: Path, **names: Any) -> None:
        self.path = path
        self._replacements: list[tuple[str, str]] = []
        # Structs, dataclasses and web frameworks look annotations up in the module of a class.
        self._module = ModuleType("page_" + re.sub(r"\W", "_", path.stem))
        vars(self._module).update(names, replace=lambda old, new: self._replacements.append((old, new)))

    def run(self) -> int:
        """Run all of it; the answer is how many blocks ran."""
        ran = 0
        sys.modules[self._module.__name__] = self._module
        try:
            with asyncio.Runner() as runner:
                for part in parts_of(self.path.read_text("utf-8")):
                    ran += self._run_part(part, runner)
        finally:
            del sys.modules[self._module.__name__]
        return ran

    def _run_part(self, part: Part, runner: asyncio.Runner) -> bool:
        if part.skipped:
            return False
        text = part.text
        for old, new in self._replacements:
            text = text.replace(old, new)
        if part.language == "toml":
            tomllib.loads(text)
            vars(self._module)["toml"] = text
        elif part.language == "json":
            if "…" not in text:
                json.loads(text)
        elif part.language in {"python", "py"}:
            flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
            code = compile("\n" * (part.line - 1) + text, str(self.path), "exec", flags=flags, dont_inherit=True)
            result = eval(code, vars(self._module))  # noqa: S307 - the examples of our own pages
            if inspect.iscoroutine(result):
                runner.run(result)
        else:
            return False
        return True


def anchors_of(page: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    without_code = _PART.sub("", page)
    anchors: set[str] = set()
    for found in _HEADING.finditer(without_code):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)|[`*]", r"\1", found["title"]).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        number = 0
        while (anchor := slug if number == 0 else f"{slug}-{number}") in anchors:
            number += 1
        anchors.add(anchor)
    return anchors


def links_of(page: str) -> list[str]:
    """The targets of a page's links, without those into the outside world."""
    without_code = re.sub(r"`[^`\n]*`", "", _PART.sub("", page))
    targets = [found["target"] or found["named"] for found in _LINK.finditer(without_code)]
    return [target for target in targets if not re.match(r"[a-z][a-z0-9+.-]*:", target)]


def broken_links(path: Path) -> list[str]:
    """The links of a page that lead nowhere."""
    page = path.read_text("utf-8")
    broken: list[str] = []
    for target in links_of(page):
        name, _, anchor = target.partition("#")
        there = (path.parent / name).resolve() if name else path
        if not there.exists() or (
            anchor and there.suffix == ".md" and anchor not in anchors_of(there.read_text("utf-8"))
        ):
            broken.append(target)
    return broken
