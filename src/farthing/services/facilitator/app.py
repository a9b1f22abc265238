"""The facilitator over HTTP: the endpoints of the specification, section 7, and those of an operator.

What the seller sent wrong is a 400 with problem details. What the *buyer* signed wrong is a verdict on 200: official
clients read nothing but a 200, and a buyer must not be able to make a seller's server fail.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from farthing.errors import FacilitatorUnavailable, RateLimited, RemoteProtocolError
from farthing.facilitator.answers import refusal
from farthing.facilitator.verify import INVALID_PAYLOAD
from farthing.protocol.codec import BODY_MAX_BYTES, decode_with, encode_json
from farthing.protocol.facilitator import PaymentsAsked, PaymentsFound
from farthing.protocol.http import IDEMPOTENCY_KEY
from farthing.protocol.messages import X402_VERSION, VerifyRequest, VerifyResponse
from farthing.protocol.payment_identifier import CONFLICT
from farthing.protocol.versions import CURRENT, VERSIONS, in_all_versions, wire_of_version
from farthing.protocol.wire import Wire
from farthing.services.bodies import RETRY_AFTER_SECONDS, BodyRefused, BodyRoom, RoomLimits
from farthing.services.facilitator.auth import LOOPBACK, Tokens
from farthing.services.facilitator.openapi import openapi_document
from farthing.services.facilitator.problems import (
    PROBLEM_JSON,
    UNEXPECTED_SETTLE_ERROR,
    UNEXPECTED_VERIFY_ERROR,
    problem_body,
    problem_of,
    settle_members,
    verify_members,
)
from farthing.services.facilitator.service import FacilitatorService

JSON: Final = "application/json"
# A payment id has 68 characters, a transaction hash 66; nothing longer is looked up.
NAME_MAX_CHARS: Final = 128
# draft-ietf-httpapi-idempotency-key-header: a UUID or the like; ours are payment ids.
IDEMPOTENCY_KEY_MAX_CHARS: Final = 255

# Requests to verify or settle that are read or wait: two thousand of the longest, and of usual ones more than payments
# may be open (`open_payments_max`). One seller's share is three quarters: many a facilitator has one seller alone. What
# a seller sends are some kilobytes, at once.
BODIES: Final = RoomLimits(bytes_max=128 * 1024 * 1024, caller_bytes_max=96 * 1024 * 1024, read_seconds=10)

_INVALID_VERSION: Final = "invalid_x402_version"
# What stands under this path was made by the buyer, and passed on by the seller.
_BUYERS_PART: Final = "$.paymentPayload."
_OK: Final = 200
_UNHEALTHY: Final = 503

Endpoint = Callable[[Request, str], Awaitable[Response]]
Members = Callable[[str, str], dict[str, Any]]


class _PayloadVersion(msgspec.Struct, frozen=True, rename={"x402_version": "x402Version"}):
    x402_version: int | None = None


class _Versions(msgspec.Struct, frozen=True, rename={"x402_version": "x402Version", "payload": "paymentPayload"}):
    x402_version: int | None = None
    payload: _PayloadVersion = _PayloadVersion()


_versions_decoder = msgspec.json.Decoder(_Versions)
_asked_decoder = msgspec.json.Decoder(PaymentsAsked)


class _Refused(Exception):
    """A request that ends in problem details; known in this file alone."""

    def __init__(self, kind: str, detail: str, *, path: str = "", reason: str = INVALID_PAYLOAD) -> None:
        super().__init__(detail)
        self.kind = kind
        self.reason = reason
        self.detail = detail
        self.path = path


def make_app(service: FacilitatorService, tokens: Tokens | None = None) -> Starlette:
    """Make the ASGI application around a service that somebody else starts and closes."""
    return _App(service, tokens or Tokens({})).starlette()


class _App:
    def __init__(self, service: FacilitatorService, tokens: Tokens) -> None:
        self._service = service
        self._tokens = tokens
        self._bodies = BodyRoom(BODIES)
        self._openapi = msgspec.json.encode(openapi_document(authenticated=bool(tokens)))

    def starlette(self) -> Starlette:
        routes = [
            Route("/verify", self._guarded(self._verify, verify_members), methods=["POST"]),
            Route("/settle", self._guarded(self._settle, settle_members), methods=["POST"]),
            Route("/payments/{name}", self._guarded(self._payment), methods=["GET"]),
            Route("/payments", self._guarded(self._payments), methods=["POST"]),
            # What is public anyway, and what a probe must reach without a secret.
            Route("/supported", self._open(self._supported), methods=["GET"]),
            Route("/healthz", self._open(self._health), methods=["GET"]),
            Route("/metrics", self._guarded(self._metrics), methods=["GET"]),
            Route("/openapi.json", self._open(self._document), methods=["GET"]),
        ]
        return Starlette(routes=routes, exception_handlers={HTTPException: _http_problem})

    # Around every endpoint

    def _open(self, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
        return self._wrap(endpoint, None, guarded=False)

    def _guarded(self, endpoint: Endpoint, members: Members | None = None) -> Callable[[Request], Awaitable[Response]]:
        return self._wrap(endpoint, members, guarded=True)

    def _wrap(
        self, endpoint: Endpoint, members: Members | None, *, guarded: bool
    ) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            begun = time.perf_counter()
            response = await self._answer(endpoint, members, request, guarded=guarded)
            path = request.url.path if request.url.path.count("/") == 1 else "/payments"
            took = time.perf_counter() - begun
            self._service.metrics.requests.labels(path, str(response.status_code)).observe(took)
            return response

        return answer

    async def _answer(
        self, endpoint: Endpoint, members: Members | None, request: Request, *, guarded: bool
    ) -> Response:
        caller = self._tokens.caller(request.headers.get("authorization")) if guarded else LOOPBACK
        try:
            if caller is None:
                self._service.limiter.stranger(request.client.host if request.client is not None else "")
                detail = "The request has no bearer token, or one that is not known here."
                response = _problem("unauthorized", detail, request, members, reason="")
                response.headers["WWW-Authenticate"] = "Bearer"
                return response
            if guarded:
                self._service.limiter.request(caller)
            return await endpoint(request, caller)
        except _Refused as refused:
            return _problem(refused.kind, refused.detail, request, members, path=refused.path, reason=refused.reason)
        except BodyRefused as refused:
            return _body_problem(refused, request, members)
        except FacilitatorUnavailable as error:
            kind, seconds = "unavailable", 1
            if isinstance(error, RateLimited):
                kind, seconds = "rate-limited", error.retry_after_seconds
            response = _problem(kind, str(error), request, members, reason=_unexpected(members))
            response.headers["Retry-After"] = str(seconds)
            return response
        except Exception as error:  # noqa: BLE001 - a bug of ours is no verdict either, and its words are for nobody
            self._service.log.error("a request failed", path=request.url.path, error=type(error).__name__)  # noqa: TRY400
            detail = "The facilitator could not answer this request."
            return _problem("failed", detail, request, members, reason=_unexpected(members))

    # Sellers' endpoints

    async def _verify(self, request: Request, caller: str) -> Response:
        async with self._bodies.body(request, caller, BODY_MAX_BYTES) as body:
            wire, verdict = _judge_request(body)
            if isinstance(verdict, VerifyRequest):
                response = await self._service.verify_for(caller, verdict.payment_payload, verdict.payment_requirements)
                _check_identifier(response.invalid_reason, response.invalid_message)
            else:
                response = VerifyResponse(is_valid=False, invalid_reason=verdict[0], invalid_message=verdict[1])
        return Response(wire.encode_verify_response(response), media_type=JSON)

    async def _settle(self, request: Request, caller: str) -> Response:
        key = request.headers.get(IDEMPOTENCY_KEY, "")
        if len(key) > IDEMPOTENCY_KEY_MAX_CHARS:
            detail = f"{IDEMPOTENCY_KEY} has {len(key)} characters; the limit is {IDEMPOTENCY_KEY_MAX_CHARS}."
            raise _Refused("malformed-request", detail)
        async with self._bodies.body(request, caller, BODY_MAX_BYTES) as body:
            wire, verdict = _judge_request(body)
            if isinstance(verdict, VerifyRequest):
                response = await self._service.settle_as(
                    caller, verdict.payment_payload, verdict.payment_requirements, idempotency_key=key
                )
                _check_identifier(response.error_reason, response.error_message)
            else:
                response = refusal(*verdict, network="")
        return Response(wire.encode_settlement(response), media_type=JSON)

    async def _supported(self, request: Request, caller: str) -> Response:  # noqa: ARG002 - the shape of an endpoint
        return Response(encode_json(in_all_versions(await self._service.supported())), media_type=JSON)

    async def _payment(self, request: Request, caller: str) -> Response:  # noqa: ARG002 - the shape of an endpoint
        name: str = request.path_params["name"]
        status = await self._service.find(name) if len(name) <= NAME_MAX_CHARS else None
        if status is None:
            detail = (
                "No payment of this id, and no settlement of one payment by this transaction, is on record here. "
                "Those that share a transaction are asked for by their payment ids."
            )
            raise _Refused("not-found", detail)
        return Response(encode_json(status), media_type=JSON)

    async def _payments(self, request: Request, caller: str) -> Response:
        async with self._bodies.body(request, caller, BODY_MAX_BYTES) as body:
            try:
                asked = decode_with(_asked_decoder, body, what="the request")
            except RemoteProtocolError as error:
                raise _Refused("malformed-request", str(error), path=error.path) from None
            found = await self._service.find_many(asked.payment_ids)
        return Response(encode_json(PaymentsFound(found)), media_type=JSON)

    # Operators' endpoints

    async def _health(self, request: Request, caller: str) -> Response:  # noqa: ARG002 - the shape of an endpoint
        health = await self._service.health()
        return Response(encode_json(health), _OK if health["ok"] else _UNHEALTHY, media_type=JSON)

    async def _metrics(self, request: Request, caller: str) -> Response:  # noqa: ARG002 - the shape of an endpoint
        await self._service.measure()
        return Response(self._service.metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _document(self, request: Request, caller: str) -> Response:  # noqa: ARG002 - the shape of an endpoint
        return Response(self._openapi, media_type=JSON)


def _check_identifier(reason: str | None, message: str | None) -> None:
    """Refuse with 409, as the extension has it, where another payment has the payment-identifier."""
    if reason == CONFLICT:
        raise _Refused("payment-conflict", message or "", reason=CONFLICT)


def _body_problem(refused: BodyRefused, request: Request, members: Members | None) -> Response:
    """Answer where a body is not taken. Only one that is too large or cut is the seller's mistake."""
    sellers = refused.kind in {"body-too-large", "malformed-request"}
    reason = INVALID_PAYLOAD if sellers else _unexpected(members)
    response = _problem(refused.kind, refused.detail, request, members, reason=reason)
    if refused.kind == "body-too-slow":
        response.headers["Connection"] = "close"  # what is still to come is not waited for
    elif not sellers:
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response


def _unexpected(members: Members | None) -> str:
    return UNEXPECTED_VERIFY_ERROR if members is verify_members else UNEXPECTED_SETTLE_ERROR


def _judge_request(body: bytes) -> tuple[Wire, VerifyRequest | tuple[str, str]]:
    """Decode a request: what the buyer made wrong is a reason and words, what the seller made wrong is refused.

    The wire is the one that the answer goes out over.
    """
    wire = CURRENT
    try:
        try:
            decoded = CURRENT.decode_verify_request(body)
        except RemoteProtocolError:
            outside, inside = _versions_of(body)
            spoken = wire_of_version(outside)
            if spoken is None or outside != inside:
                return CURRENT, _wrong_version(outside, inside)
            if spoken is CURRENT:
                raise
            wire = spoken
            decoded = wire.decode_verify_request(body)
    except RemoteProtocolError as error:
        if error.path.startswith(_BUYERS_PART):
            return wire, (INVALID_PAYLOAD, str(error))
        raise _Refused("malformed-request", str(error), path=error.path) from None
    if decoded.x402_version != X402_VERSION:
        return wire, _wrong_version(decoded.x402_version, X402_VERSION)
    return wire, decoded


def _wrong_version(outside: int, inside: int) -> tuple[str, str]:
    spoken = " and ".join(str(wire.version) for wire in VERSIONS)
    said = f"{outside}" if outside == inside else f"{outside} in the request and {inside} in its payment"
    return _INVALID_VERSION, f"x402Version is {said}; this facilitator speaks {spoken}."


def _versions_of(body: bytes) -> tuple[int, int]:
    """The version that a request that can't be read says it has, outside and in the payment; one stands for both."""
    try:
        versions = _versions_decoder.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return X402_VERSION, X402_VERSION
    outside, inside = versions.x402_version, versions.payload.x402_version
    either = next((each for each in (outside, inside) if each is not None), X402_VERSION)
    return either if outside is None else outside, either if inside is None else inside


def _problem(
    kind: str, detail: str, request: Request, members: Members | None, *, path: str = "", reason: str
) -> Response:
    problem = problem_of(kind, detail, path=path, instance=request.url.path)
    extra = members(reason or kind, detail) if members is not None else {}
    return Response(problem_body(problem, **extra), problem.status, media_type=PROBLEM_JSON)


async def _http_problem(request: Request, error: Exception) -> Response:
    """Starlette's own refusals: no such path, no such method."""
    status = error.status_code if isinstance(error, HTTPException) else _UNHEALTHY
    kind = "method-not-allowed" if status == 405 else "not-found"  # noqa: PLR2004 - RFC 9110, section 15.5.6
    problem = problem_of(kind, f"{request.method} {request.url.path[:NAME_MAX_CHARS]} is not offered here.")
    headers = error.headers if isinstance(error, HTTPException) else None
    return Response(problem_body(problem), problem.status, headers=dict(headers or {}), media_type=PROBLEM_JSON)
