"""Errors as RFC 9457 problem details: what was wrong, where, and what to do.

Beside the members of the RFC a problem of `/verify` says `isValid: false`, one of `/settle` `success: false`, with the
protocol's reason code: clients that read a verdict find one, and it is never a false "invalid" for our own trouble.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

PROBLEM_JSON: Final = "application/problem+json"
_TYPE_PREFIX: Final = "urn:farthing:facilitator:"

UNEXPECTED_VERIFY_ERROR: Final = "unexpected_verify_error"
UNEXPECTED_SETTLE_ERROR: Final = "unexpected_settle_error"
INVALID_PAYLOAD: Final = "invalid_payload"


class Problem(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Problem details. `path` is the JSON path of the field at fault, `advice` what to do next."""

    type: str
    title: str
    status: int
    detail: str
    path: str = ""
    advice: str = ""
    instance: str = ""


# What each kind of problem is called, its status, and what to do about it.
_KINDS: Final[dict[str, tuple[int, str, str]]] = {
    "malformed-request": (400, "The request is malformed", "Correct the field that `path` names and send it again."),
    "unauthorized": (
        401,
        "A bearer token is needed",
        "Send `Authorization: Bearer …` with a token of the configuration.",
    ),
    "not-found": (404, "Nothing is known by this name", "Check the payment id or transaction hash."),
    "method-not-allowed": (405, "This method is not offered here", "See /openapi.json."),
    "body-too-slow": (
        408,
        "The request came too slowly",
        "Nothing was judged. Send the same payment again, all of the request at once.",
    ),
    "payment-conflict": (
        409,
        "The payment-identifier is taken",
        "Have the buyer send the payment that it first sent with this id, or take another id for another purchase.",
    ),
    "body-too-large": (413, "The request is too large", "Send one payment and its requirements, nothing else."),
    "rate-limited": (
        429,
        "Too much was asked for in a while",
        "Nothing was judged. Send the same payment again after the seconds in `Retry-After`; never a new one.",
    ),
    "failed": (
        500,
        "The facilitator failed",
        "Nothing was judged. Send the same payment again, never a new one, and tell the operator: it is in the log.",
    ),
    "unavailable": (
        503,
        "It could not be found out",
        "Nothing was judged. Send the same payment again in a moment; never a new one.",
    ),
}


def problem_of(kind: str, detail: str, *, path: str = "", instance: str = "") -> Problem:
    """Make the problem details of a known kind."""
    status, title, advice = _KINDS[kind]
    return Problem(
        type=_TYPE_PREFIX + kind, title=title, status=status, detail=detail, path=path, advice=advice, instance=instance
    )


def problem_body(problem: Problem, **members: Any) -> bytes:
    """Write problem details as JSON, with the members that clients of an endpoint look for."""
    return msgspec.json.encode({**msgspec.to_builtins(problem), **members})


def verify_members(reason: str, detail: str) -> dict[str, Any]:
    """The members of a verification that did not happen."""
    return {"isValid": False, "invalidReason": reason, "invalidMessage": detail}


def settle_members(reason: str, detail: str) -> dict[str, Any]:
    """The members of a settlement that did not happen."""
    return {"success": False, "errorReason": reason, "errorMessage": detail, "transaction": "", "network": ""}
