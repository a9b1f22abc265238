"""The OpenAPI 3.1 document, made from the table of doors and from the very structs that are decoded and encoded."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from farthing import __version__
from farthing.protocol.clearing import Commitment, KeyRecord, Sent, UploadHeader
from farthing.protocol.statements import Problem, Statement, StatementLine
from farthing.services.clearing.api import DOORS, PART_MAX_CHARS, QUERY_MAX_CHARS, Door
from farthing.services.clearing.callers import EDGE
from farthing.services.clearing.problems import KINDS, LATER, PROBLEM_JSON

_REF: Final = "#/components/schemas/{name}"
_JSON: Final = "application/json"
_RETRY_AFTER: Final = {
    "description": "Seconds after which the same request is welcome.",
    "required": True,
    "schema": {"type": "integer", "minimum": 1},
}
# What is described although no body is all of it: lines of uploads and of statements, and what a JWS holds.
_INSIDE: Final[tuple[type[msgspec.Struct], ...]] = (UploadHeader, Commitment, KeyRecord, Sent, Statement, StatementLine)


def openapi_document(network: str) -> dict[str, Any]:
    """Describe the service."""
    structs: set[type[msgspec.Struct]] = {Problem, *_INSIDE}
    structs.update(each for door in DOORS for each in (door.takes, door.gives) if each is not None)
    ordered = sorted(structs, key=lambda each: each.__name__)
    _, components = msgspec.json.schema_components(ordered, ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for door in DOORS:
        paths.setdefault(door.path, {})[door.method.lower()] = _operation(door)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Farthing clearing house",
            "version": __version__,
            "description": f"Takes commitments on {network}, issues statements, pays payees. Amounts are strings of "
            "atomic units (six decimals), times Unix seconds.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}}},
    }


def _operation(door: Door) -> dict[str, Any]:
    operation: dict[str, Any] = {"operationId": door.handler.rstrip("_"), "summary": door.summary}
    if door.roles:
        operation["security"] = [{"bearer": []}]
        operation["description"] = f"For tokens of the roles: {', '.join(door.roles)}."
    names = re.findall(r"{(\w+)}", door.path)
    parameters = [_parameter(name, "path") for name in names] + [_parameter(name, "query") for name in door.query]
    if parameters:
        operation["parameters"] = parameters
    if door.takes is not None:
        operation["requestBody"] = _body(door, _JSON, _ref(door.takes))
    elif door.takes_upload:
        packed = {"type": "string", "contentMediaType": "application/gzip", "maxLength": door.body_max_bytes}
        operation["requestBody"] = _body(door, "application/gzip", packed)
    content = {media: {"schema": _given(door)} for media in (door.media, *door.other_media)}
    operation["responses"] = {"200": {"description": door.summary, "content": content}}
    for kind in _problems(door):
        status, title, _ = KINDS[kind]
        described: dict[str, Any] = {"description": title, "content": {PROBLEM_JSON: {"schema": _ref(Problem)}}}
        if kind in LATER:
            described["headers"] = {"Retry-After": _RETRY_AFTER}
        operation["responses"][str(status)] = described
    return operation


def _body(door: Door, media_type: str, schema: dict[str, Any]) -> dict[str, Any]:
    what = f"At most {door.body_max_bytes} bytes."
    return {"description": what, "required": True, "content": {media_type: {"schema": schema}}}


def _problems(door: Door) -> list[str]:
    kinds = ["failed", "unavailable"]
    if door.roles:
        kinds += ["unauthorized", "forbidden", "malformed-request", "not-found", "conflict"]
    if door.takes is not None or door.takes_upload:
        kinds += ["body-too-large", "body-too-slow", "rate-limited"]
    if door.handler == "pay":
        kinds += ["refused"]
    if door.roles == (EDGE,):
        kinds += ["no-credit"]
    return kinds


def _given(door: Door) -> dict[str, Any]:
    if door.gives is None:
        return {"type": "string"} if door.media != _JSON else {"type": "object"}
    return {"type": "array", "items": _ref(door.gives)} if door.many else _ref(door.gives)


def _parameter(name: str, place: str) -> dict[str, Any]:
    length = PART_MAX_CHARS if place == "path" else QUERY_MAX_CHARS
    return {"name": name, "in": place, "required": place == "path", "schema": {"type": "string", "maxLength": length}}


def _ref(struct: type[msgspec.Struct]) -> dict[str, Any]:
    return {"$ref": _REF.format(name=struct.__name__)}
