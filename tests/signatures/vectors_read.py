"""The published vectors, read: RFC 9421, Web Bot Auth, structured fields. Each file names its source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from farthing.signatures import HttpRequest, HttpResponse, SigningKey, gather_fields
from farthing.signatures.keys import decode_base64url

FOLDER = Path(__file__).parent / "vectors"


def vectors(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text("utf-8"))


def message_of(said: dict[str, Any], more: list[list[str]]) -> HttpRequest | HttpResponse:
    fields = gather_fields((name, value) for name, value in said["fields"] + more)
    if "status" in said:
        return HttpResponse(said["status"], fields)
    return HttpRequest(said["method"], said["authority"], said["path"], said["query"], fields)


def key_of_d(d: str) -> SigningKey:
    seed = decode_base64url(d)
    assert seed is not None
    return SigningKey(seed)


AGENT = key_of_d(vectors("rfc9421")["keys"]["test-key-ed25519"]["d"])
