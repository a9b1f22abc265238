"""Errors of the clearing house's HTTP as RFC 9457 problem details: what was wrong, where, and what to do."""

from __future__ import annotations

from typing import Final

from farthing.protocol.messages import TEXT_MAX_CHARS
from farthing.protocol.statements import Problem

PROBLEM_JSON: Final = "application/problem+json"
_TYPE_PREFIX: Final = "urn:farthing:clearing:"

# Kinds after which the same request is welcome, in a moment.
LATER: Final = frozenset({"rate-limited", "unavailable"})
# What each kind of problem is called, its status, and what to do about it.
KINDS: Final[dict[str, tuple[int, str, str]]] = {
    "malformed-request": (400, "The request is malformed", "Correct the field that `path` names and send it again."),
    "unauthorized": (401, "A bearer token is needed", "Send `Authorization: Bearer …` with a token of this house."),
    "no-credit": (402, "No credit", "Serve nothing on credit to this payer; it may pay, or ask its operator."),
    "forbidden": (403, "This token may not", "Use a token of the role that /openapi.json names."),
    "not-found": (404, "Nothing is known by this name", "Check the id; it may be another account's."),
    "method-not-allowed": (405, "This method is not offered here", "See /openapi.json."),
    "body-too-slow": (408, "The body came too slowly", "Send the same request again, all of it at once."),
    "conflict": (409, "It stands differently by now", "Look at the present state, then decide again."),
    "body-too-large": (413, "The request is too large", "Send less at once; the limits are in /openapi.json."),
    "refused": (422, "The payment does not fit", "Correct what `detail` says; nothing was taken."),
    "rate-limited": (
        429,
        "Too much of yours is under way",
        "Send the same request again after the seconds in `Retry-After`.",
    ),
    "failed": (500, "The clearing house failed", "Nothing was done that is not on record. Ask again, as before."),
    "unavailable": (503, "It could not be done now", "Ask again in a moment, with the same request."),
}


def problem_of(kind: str, detail: str, *, reason: str = "", path: str = "") -> Problem:
    """Make the problem details of a known kind; `reason` is a stable code for programs."""
    status, title, advice = KINDS[kind]
    # A directory in it may be longer than any text of a message.
    detail = detail[:TEXT_MAX_CHARS]
    return Problem(
        type=_TYPE_PREFIX + kind, title=title, status=status, detail=detail, reason=reason, path=path, advice=advice
    )
