"""The extension `payment-identifier`: an id of the client's, under which a repeat gets the earlier answer.

Source: `specs/extensions/payment_identifier.md`. The server says in its 402 that it takes ids; the client echoes that
and appends its own: `declaration` on one side, `extensions.echo(received, {NAME: {"id": …}})` on the other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, cast

from farthing.errors import RemoteProtocolError

NAME: Final = "payment-identifier"
ID_MIN_CHARS: Final = 16
ID_MAX_CHARS: Final = 128
# The reason of a payment whose id another payment has. The extension says 409 and names no code; this one is ours.
CONFLICT: Final = "payment_identifier_conflict"

_ID = re.compile(rf"[A-Za-z0-9_-]{{{ID_MIN_CHARS},{ID_MAX_CHARS}}}")
_PATH = f"$.extensions.{NAME}"
# Clients validate their own `info` by it; without one some of them pass the extension over.
_SCHEMA: Final[Mapping[str, Any]] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {
        "required": {"type": "boolean"},
        "id": {"type": "string", "minLength": ID_MIN_CHARS, "maxLength": ID_MAX_CHARS},
    },
    "required": ["required"],
}


def declaration(*, required: bool) -> dict[str, Any]:
    """Say in a 402 that an id is taken; `required`: that there must be one. Goes under `NAME` of the extensions."""
    return {"info": {"required": required}, "schema": dict(_SCHEMA)}


def is_identifier(text: str) -> bool:
    """Tell whether a text is an id: 16 to 128 of `A-Za-z0-9_-`."""
    return _ID.fullmatch(text) is not None


def identifier_of(extensions: Mapping[str, Any] | None) -> str:
    """Read the id from a payment's extensions; empty where there is none.

    Raises `RemoteProtocolError` with the JSON path for one that is no id.
    """
    extension: object = (extensions or {}).get(NAME)
    if extension is None:
        return ""
    if not isinstance(extension, dict):
        message = f"{NAME} is an object with info"
        raise RemoteProtocolError(message, path=_PATH)
    info: object = cast("dict[str, object]", extension).get("info")
    if info is None:
        return ""
    if not isinstance(info, dict):
        message = "info is an object"
        raise RemoteProtocolError(message, path=f"{_PATH}.info")
    identifier: object = cast("dict[str, object]", info).get("id")
    if identifier is None:
        return ""
    if not isinstance(identifier, str) or not is_identifier(identifier):
        message = f"an id has {ID_MIN_CHARS} to {ID_MAX_CHARS} characters of A-Z, a-z, 0-9, - and _"
        raise RemoteProtocolError(message, path=f"{_PATH}.info.id")
    return identifier
