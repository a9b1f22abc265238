"""The clearing house over HTTP: the doors of `api`, each with its guard; errors are problem details."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from farthing.clearing.store import Balances, Caller, FindToken
from farthing.errors import FarthingError, RemoteProtocolError
from farthing.protocol.codec import decode_with
from farthing.services.bodies import RETRY_AFTER_SECONDS, BodyRefused, BodyRoom, RoomLimits
from farthing.services.clearing.api import DOORS, PART_MAX_CHARS, QUERY_MAX_CHARS, Door
from farthing.services.clearing.callers import ANYBODY, Operators, digest_of
from farthing.services.clearing.declaring import Declaring
from farthing.services.clearing.edges import Edges
from farthing.services.clearing.openapi import openapi_document
from farthing.services.clearing.operators import Operating
from farthing.services.clearing.payers import Payers
from farthing.services.clearing.problems import LATER, PROBLEM_JSON, problem_of
from farthing.services.clearing.refusals import Refused
from farthing.services.clearing.reserves import Reserving
from farthing.services.clearing.service import ClearingService

JSON: Final = "application/json"
# Uploads that are read or wait: fifty full ones (ten thousand lines, 2.5 MB), or eight of the longest that may be; of
# one edge, whose processes have one at a time each, a quarter. What four of them unpack to comes on top
# (`UPLOADS_AT_ONCE`, `UPLOAD_UNPACKED_MAX_BYTES`). An edge gives an upload up after as many seconds itself.
UPLOADS: Final = RoomLimits(bytes_max=128 * 1024 * 1024, caller_bytes_max=32 * 1024 * 1024, read_seconds=60)
# All other bodies: questions for leases, disputes, payments, what operators say. A room of their own, so that uploads
# keep nobody from them. The longest, a thousand disputes, comes in time at a megabit a second.
REQUESTS: Final = RoomLimits(bytes_max=64 * 1024 * 1024, caller_bytes_max=16 * 1024 * 1024, read_seconds=30)
_METHOD_NOT_ALLOWED: Final = 405

Handler = Callable[..., Awaitable[Any]]


def make_app(service: ClearingService, operators: Operators) -> Starlette:
    """Make the ASGI application around a service that somebody else starts and closes."""
    return _App(service, operators).starlette()


class _App:
    def __init__(self, service: ClearingService, operators: Operators) -> None:
        self._service = service
        self._operators = operators
        self._parts = (
            Edges(service),
            Payers(service),
            Operating(service),
            Reserving(service),
            Declaring(service),
            self,
        )
        self._uploads, self._requests = BodyRoom(UPLOADS), BodyRoom(REQUESTS)
        self._document = msgspec.json.encode(openapi_document(service.desk.rules.network))

    def starlette(self) -> Starlette:
        routes = [Route(door.path, self._serve(door), methods=[door.method]) for door in DOORS]
        return Starlette(routes=routes, exception_handlers={HTTPException: _http_problem})

    def _serve(self, door: Door) -> Callable[[Request], Awaitable[Response]]:
        handler: Handler = next(getattr(part, door.handler) for part in self._parts if hasattr(part, door.handler))
        decoder = None if door.takes is None else msgspec.json.Decoder(door.takes)

        async def answer(request: Request) -> Response:
            try:
                return await self._answer(door, handler, decoder, request)
            except Refused as refused:
                return _problem(refused.kind, refused.detail, reason=refused.reason, path=refused.path)
            except BodyRefused as refused:
                return _problem(refused.kind, refused.detail)
            except RemoteProtocolError as error:
                return _problem("malformed-request", str(error), path=error.path)
            except FarthingError as error:
                return _problem("unavailable", str(error))
            except Exception as error:  # noqa: BLE001 - a bug of ours; its words are for the log alone
                self._service.log.error("a request failed", door=door.path, error=type(error).__name__)  # noqa: TRY400
                return _problem("failed", "The clearing house could not answer this request.")

        return answer

    async def _answer(
        self, door: Door, handler: Handler, decoder: msgspec.json.Decoder[Any] | None, request: Request
    ) -> Response:
        caller = ANYBODY if not door.roles else await self._caller(door, request)
        given = _names_in(door, request)
        if decoder is None and not door.takes_upload:
            answer = await handler(caller, **given)
        else:
            room = self._uploads if door.takes_upload else self._requests
            async with room.body(request, f"{caller.role} {caller.name}", door.body_max_bytes) as body:
                given["body"] = body if decoder is None else decode_with(decoder, body, what="request body")
                answer = await handler(caller, **given)
        if isinstance(answer, Response):
            return answer
        return Response(msgspec.json.encode(answer), media_type=JSON)

    async def _caller(self, door: Door, request: Request) -> Caller:
        digest = digest_of(request.headers.get("authorization"))
        caller = None
        if digest is not None:
            caller = self._operators.find(digest) or await self._service.ask(FindToken(digest.hex()))
        if caller is None:
            raise Refused("unauthorized", "The request has no bearer token, or one that is not known here.")
        if caller.role not in door.roles:
            what = f"{door.method} {door.path} is for {' or '.join(door.roles)}; the token is of the role {caller.role}"
            raise Refused("forbidden", f"{what}.")
        return caller

    # What anybody may ask

    async def keys(self, _caller: Caller) -> Any:
        """The keys that sign statements, as a JWKS."""
        return {"keys": [self._service.statement_key.public_key.jwk()]}

    async def health(self, _caller: Caller) -> Any:
        """Whether the store answers."""
        await self._service.ask(FindToken(""))
        return {"ok": True, "network": self._service.desk.rules.network}

    async def document(self, _caller: Caller) -> Response:
        """The OpenAPI document."""
        return Response(self._document, media_type=JSON)

    async def balances(self, _caller: Caller, pending: str) -> Any:
        """The books."""
        return await self._service.ask(Balances(pending=bool(pending)))


def _names_in(door: Door, request: Request) -> dict[str, Any]:
    """Give the parts of path and query that a door asks for. Raises `Refused` for what is longer than any."""
    if any(len(part) > PART_MAX_CHARS for part in request.path_params.values()):
        raise Refused("not-found", "A name in the path is longer than any here.")
    query = {name: request.query_params.get(name, "") for name in door.query}
    for name, value in query.items():
        if len(value) > QUERY_MAX_CHARS:
            raise Refused("malformed-request", f"`{name}` in the query has over {QUERY_MAX_CHARS} characters.")
    return {**request.path_params, **query}


def _problem(kind: str, detail: str, *, reason: str = "", path: str = "") -> Response:
    problem = problem_of(kind, detail, reason=reason, path=path)
    response = Response(msgspec.json.encode(problem), problem.status, media_type=PROBLEM_JSON)
    if kind == "unauthorized":
        response.headers["WWW-Authenticate"] = "Bearer"
    if kind in LATER:
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    if kind == "body-too-slow":
        response.headers["Connection"] = "close"  # what is still to come is not waited for
    return response


async def _http_problem(request: Request, error: Exception) -> Response:
    """Starlette's own refusals: no such path, no such method."""
    status = error.status_code if isinstance(error, HTTPException) else _METHOD_NOT_ALLOWED
    kind = "method-not-allowed" if status == _METHOD_NOT_ALLOWED else "not-found"
    response = _problem(kind, f"{request.method} {request.url.path[:PART_MAX_CHARS]} is not offered here.")
    if isinstance(error, HTTPException) and error.headers:
        response.headers.update(error.headers)
    return response
