"""What may be a URL here, and what of one may be shown. Apart from the HTTP client, which not every command needs."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from farthing.errors import ConfigError


def origin_of(url: str) -> str:
    """The part of a URL that may be shown: scheme, host and port. Paths, queries and user names hold keys."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or "?"
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else "")


def check_url(url: str, what: str) -> str:
    """Hold a configured URL to http or https with a host and without user name or fragment. Raises `ConfigError`."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises ValueError for a port that is none
    except ValueError as error:
        raise ConfigError(f"The URL of {what} can't be read: {error}.") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"The URL of {what} is like https://host/path; this one starts with {parts.scheme!r}.")
    if parts.username is not None or parts.password is not None:
        raise ConfigError(f"The URL of {what} ({origin_of(url)}) holds a user name: credentials go into headers.")
    if parts.fragment:
        raise ConfigError(f"The URL of {what} ({origin_of(url)}) has a fragment, which is never sent: leave it out.")
    return url


def is_loopback(url: str) -> bool:
    """Whether the URL's host is this machine by its own name or number (RFC 6761, section 6.3)."""
    host = (urlsplit(url).hostname or "").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
