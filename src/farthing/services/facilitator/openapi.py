"""The OpenAPI 3.1 document: paths written by hand, schemas made from the very structs that are decoded and encoded."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from farthing import __version__
from farthing.protocol.facilitator import PAYMENTS_MAX, PaymentsAsked, PaymentsFound, PaymentStatus
from farthing.protocol.http import IDEMPOTENCY_KEY
from farthing.protocol.messages import SettlementResponse, SupportedResponse, VerifyRequest, VerifyResponse
from farthing.services.facilitator.problems import PROBLEM_JSON, Problem

_REF: Final = "#/components/schemas/{name}"
_JSON: Final = "application/json"
_PROBLEMS: Final = {
    "400": "The seller's part of the request is malformed.",
    "401": "A bearer token is configured, and the request has none of them.",
    "404": "Nothing is known by this name.",
    "408": "The request had not come whole in time. Never a verdict.",
    "409": "Another payment has the payment-identifier, and was settled or may be.",
    "413": "The request is too large.",
    "429": "A limit on the caller (also on what it has under way) or the payer: the same again after `Retry-After` "
    "seconds. Never a verdict.",
    "500": "The facilitator failed: a bug of its own. Never a verdict on the payment.",
    "503": "It could not be found out: node or store did not answer, or too much is under way. Never a verdict on the "
    "payment.",
}


def openapi_document(*, authenticated: bool) -> dict[str, Any]:
    """Describe the service. `authenticated` says whether bearer tokens are configured."""
    messages = (VerifyRequest, VerifyResponse, SettlementResponse, SupportedResponse)
    structs = (*messages, PaymentStatus, PaymentsAsked, PaymentsFound, Problem)
    _, components = msgspec.json.schema_components(structs, ref_template=_REF)
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "Farthing facilitator",
            "version": __version__,
            "description": "Verifies and settles x402 payments (specification version 2, section 7).",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            "/verify": {"post": _verify()},
            "/settle": {"post": _settle()},
            "/supported": {"get": _get("supported", "Say which kinds are settled here", _body("SupportedResponse"))},
            "/payments/{id}": {"get": _payment()},
            "/payments": {"post": _payments()},
            "/healthz": {"get": _health()},
            "/metrics": {
                "get": _get("metrics", "Counters for Prometheus", _content("text/plain", {"type": "string"}), ("401",))
                | _secured()
            },
            "/openapi.json": {"get": _get("openapi", "This document", _content(_JSON, {"type": "object"}))},
        },
        "components": {"schemas": components},
    }
    if authenticated:
        document["components"]["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
    else:
        for path in document["paths"].values():
            for operation in path.values():
                operation.pop("security", None)
    return document


def _verify() -> dict[str, Any]:
    operation = _get("verify", "Judge a payment without committing to anything", _body("VerifyResponse"))
    operation["requestBody"] = {"required": True, **_body("VerifyRequest")}
    operation["responses"] |= _problems("400", "401", "408", "409", "413", "429", "500", "503")
    return operation | _secured()


def _settle() -> dict[str, Any]:
    what = (
        "Success is told once: to the one live caller, again only under the same idempotency key (scoped by bearer "
        "token). `settlement_pending` means on record and not confirmed yet; any other repeat is "
        "`duplicate_settlement`, with the transaction named."
    )
    operation = _get("settle", "Settle a payment", _body("SettlementResponse"))
    operation["description"] = what
    operation["requestBody"] = {"required": True, **_body("VerifyRequest")}
    operation["parameters"] = [
        {
            "name": IDEMPOTENCY_KEY,
            "in": "header",
            "required": False,
            "schema": {"type": "string", "maxLength": 255},
            "description": "Whoever repeats the call under the same key is given the same answer.",
        }
    ]
    operation["responses"] |= _problems("400", "401", "408", "409", "413", "429", "500", "503")
    return operation | _secured()


def _payment() -> dict[str, Any]:
    operation = _get("payment", "Where is my payment", _body("PaymentStatus"), ("401", "404", "429", "503"))
    operation["parameters"] = [
        {
            "name": "id",
            "in": "path",
            "required": True,
            "schema": {"type": "string", "maxLength": 128},
            "description": "A payment id (`pay_…`) or a transaction hash.",
        }
    ]
    return operation | _secured()


def _payments() -> dict[str, Any]:
    operation = _get("payments", "Where are my payments", _body("PaymentsFound"))
    operation["requestBody"] = {"required": True, **_body("PaymentsAsked")}
    operation["responses"] |= _problems("400", "401", "408", "413", "429", "500", "503")
    operation["description"] = f"At most {PAYMENTS_MAX} at once; those that are not known are left out."
    return operation | _secured()


def _health() -> dict[str, Any]:
    wallet = {
        "type": "object",
        "properties": {
            "wallet": {"type": "string"},
            "lease": {"type": "boolean"},
            "stopped": {"type": "string"},
            "unfunded": {"type": "boolean"},
            "open_transactions": {"type": "integer"},
        },
    }
    schema = {
        "type": "object",
        "required": ["ok", "store", "payments", "networks"],
        "properties": {
            "ok": {"type": "boolean"},
            "store": {"type": "boolean"},
            "payments": {"type": "object", "additionalProperties": {"type": "integer"}},
            "networks": {
                "type": "object",
                "additionalProperties": {
                    "type": "object",
                    "properties": {
                        "node": {"type": "boolean"},
                        "head": {"type": ["integer", "null"]},
                        "wallets": {"type": "array", "items": wallet},
                    },
                },
            },
        },
    }
    operation = _get("health", "Node, store and wallet", _content(_JSON, schema))
    broken = {"description": "Something is broken; the body says what."}
    operation["responses"]["503"] = broken | _content(_JSON, schema)
    return operation


def _get(name: str, summary: str, content: dict[str, Any], problems: tuple[str, ...] = ()) -> dict[str, Any]:
    responses = {"200": {"description": summary} | content} | _problems(*problems)
    return {"operationId": name, "summary": summary, "responses": responses}


def _secured() -> dict[str, Any]:
    return {"security": [{"bearer": []}]}


def _problems(*statuses: str) -> dict[str, Any]:
    return {status: {"description": _PROBLEMS[status]} | _content(PROBLEM_JSON, _ref("Problem")) for status in statuses}


def _body(name: str) -> dict[str, Any]:
    return _content(_JSON, _ref(name))


def _content(media_type: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"content": {media_type: {"schema": schema}}}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": _REF.format(name=name)}
