"""How a store is named: a path, `sqlite:///path` or `postgresql://user@host:port/name`; and what may be shown of it."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import SplitResult, parse_qs, quote, unquote, urlsplit

from farthing.errors import ConfigError, StoreError


def is_postgres(store: str | os.PathLike[str]) -> bool:
    """Whether `store` is a URL of PostgreSQL."""
    return os.fspath(store).startswith(("postgresql://", "postgres://"))


def sqlite_path(store: str | os.PathLike[str]) -> Path:
    """The file that `store` names: `sqlite:///a.db` is relative, `sqlite:////srv/a.db` absolute (as SQLAlchemy has it).

    Raises `StoreError` for a URL of something else.
    """
    text = os.fspath(store)
    scheme, colon, _ = text.partition("://")
    if not colon or not scheme.replace("+", "").isalnum():
        return Path(store).expanduser()
    parts = urlsplit(text)
    if scheme != "sqlite" or parts.netloc or len(parts.path) < 2 or parts.query:  # noqa: PLR2004 - a slash and a name
        raise StoreError(f"A store is a path, sqlite:///path or postgresql://host/name; {scheme}://… is none of them.")
    return Path(unquote(parts.path[1:])).expanduser()


def shown(store: str | os.PathLike[str]) -> str:
    """How `store` is named in messages: without its password. Raises `ConfigError` where it can't be read."""
    if not is_postgres(store):
        return str(sqlite_path(store))
    parts = _split(os.fspath(store))
    place = parts.netloc.rpartition("@")[2]
    user = f"{parts.username}@" if parts.username else ""
    hosts = "".join(f"?host={host}" for host in parse_qs(parts.query).get("host", ())[:1])
    return f"postgresql://{user}{place}{parts.path}{hosts}"


def secrets(url: str) -> tuple[str, ...]:
    """The passwords in a URL of PostgreSQL, as written and as meant, the longest first: to be kept out of messages."""
    parts = _split(url)
    query = parse_qs(parts.query)
    found = [parts.password or "", *query.get("password", ()), *query.get("sslpassword", ())]
    plain = {unquote(secret) for secret in found if secret}
    return tuple(sorted({*filter(None, found), *plain, *(quote(secret, safe="") for secret in plain)}, key=len)[::-1])


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.password, parts.hostname
    except ValueError:
        # Not chained: the words of the error are of the URL, which may hold a password.
        raise ConfigError("The store's URL can't be read: write postgresql://user@host:5432/name.") from None
    return parts
