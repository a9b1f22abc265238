"""Extensions: what a server advertises in a 402 and a client echoes in its payment.

Source: `specs/x402-specification-v2.md`, section 5.1.2: "The client must include at least the info received; it may
append additional info but cannot delete or overwrite existing info."
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from farthing.errors import LocalProtocolError, RemoteProtocolError


def echo(received: Mapping[str, Any], added: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, Any]:
    """Echo the extensions of a 402, with `added` members in their `info` (extension → member → value).

    Raises `LocalProtocolError` where an addition would overwrite what the server said, or names an extension that the
    server did not advertise; `RemoteProtocolError` where what the server said can't be added to.
    """
    echoed: dict[str, Any] = dict(received)
    for name, members in (added or {}).items():
        if name not in received:
            message = f"the server does not advertise the extension {name!r}"
            raise LocalProtocolError(message, path=f"$.extensions.{name}")
        extension = _object(received[name], f"$.extensions.{name}")
        info = _object(extension.get("info") or {}, f"$.extensions.{name}.info")
        for member, value in members.items():
            if member in info and info[member] != value:
                message = f"{member!r} is the server's and can't be overwritten"
                raise LocalProtocolError(message, path=f"$.extensions.{name}.info.{member}")
            info[member] = value
        extension["info"] = info
        echoed[name] = extension
    return echoed


def covers(advertised: Mapping[str, Any], echoed: Mapping[str, Any] | None) -> str | None:
    """Check an echo on the seller's side: the JSON path of the first thing deleted or changed, or None.

    A client that echoes nothing at all is let pass: extensions are optional, and older clients know none.
    """
    if not echoed:
        return None
    for name, extension in advertised.items():
        if name not in echoed:
            continue
        path = _first_difference(extension, echoed[name], f"$.extensions.{name}")
        if path is not None:
            return path
    return None


def _object(value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        message = "an extension and its info are objects"
        raise RemoteProtocolError(message, path=path)
    return dict(cast("dict[str, Any]", value))


def _first_difference(ours: Any, theirs: Any, path: str) -> str | None:
    if not isinstance(ours, dict):
        return None if ours == theirs else path
    if not isinstance(theirs, dict):
        return path
    found = cast("dict[str, Any]", theirs)
    for member, value in cast("dict[str, Any]", ours).items():
        if member not in found:
            return f"{path}.{member}"
        difference = _first_difference(value, found[member], f"{path}.{member}")
        if difference is not None:
            return difference
    return None
