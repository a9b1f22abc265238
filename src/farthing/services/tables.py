"""Configurations of services: TOML files read into frozen structs, with errors that name file, line and field."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from farthing.errors import ConfigError

# A configuration is a page of text.
CONFIG_MAX_BYTES: Final = 1_000_000
_WHERE = re.compile(r"(?P<what>.*?) - at `\$\.?(?P<path>[^`]*)`\Z", re.DOTALL)

C = TypeVar("C", bound=msgspec.Struct)


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file: what is not known is a mistake, most often a spelling."""


def read_text(path: Path) -> str:
    """Read a configuration's file. Raises `ConfigError`."""
    try:
        text = path.read_bytes()
    except OSError as error:
        message = f"{path} can't be read: {error.strerror}."
        raise ConfigError(message) from None
    if len(text) > CONFIG_MAX_BYTES:
        message = f"{path} has {len(text)} bytes; a configuration has at most {CONFIG_MAX_BYTES}."
        raise ConfigError(message)
    return text.decode("utf-8", "replace")


def read_table(text: str, kind: type[C], *, where: str) -> C:
    """Read a configuration's text. Raises `ConfigError` that names the field and, where it can be found, the line."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = f"{where}: not TOML: {error}"
        raise ConfigError(message) from None
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        found = _WHERE.match(str(error))
        what, field = (found["what"], found["path"]) if found else (str(error), "")
        place = f" [{field}]" if field else ""
        message = f"{where}{_line_of(text, what, field)}{place}: {what}"
        raise ConfigError(message) from None


def _line_of(text: str, what: str, field: str) -> str:
    """Find the line of a key, where it stands only once: TOML's reader keeps no places."""
    unknown = re.search(r"unknown field `([^`]+)`", what)
    key = unknown[1] if unknown else field.rpartition(".")[2].partition("[")[0]
    if not key:
        return ""
    pattern = re.compile(rf"\s*{re.escape(key)}\s*=|\s*\[+\s*(?:[\w.]+\.)?{re.escape(key)}\s*\]+")
    lines = [number for number, line in enumerate(text.splitlines(), 1) if pattern.match(line)]
    return f":{lines[0]}" if len(lines) == 1 else ""
