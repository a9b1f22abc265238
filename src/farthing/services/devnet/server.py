"""The devnet's HTTP server: JSON-RPC 2.0 over POST, single calls and batches, on loopback only."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from farthing.errors import ConfigError
from farthing.services.devnet.process import require_loopback
from farthing.services.devnet.rpc import call_method
from farthing.services.devnet.rpc_values import (
    INTERNAL_ERROR,
    INVALID_REQUEST,
    PARSE_ERROR,
    RpcError,
    read_list,
)

if TYPE_CHECKING:
    from farthing.services.devnet.node import Node

# geth's limits for HTTP: 5 MiB a body and 1,000 calls a batch.
BODY_MAX_BYTES: Final = 5 * 1024 * 1024
BATCH_MAX_CALLS: Final = 1000
# Bound for connections that the system has accepted and uvicorn has not yet.
_BACKLOG: Final = 1024
# Requests that are under way when the server is told to end get this long; they take milliseconds.
_SHUTDOWN_SECONDS: Final = 1

_log = logging.getLogger(__name__)


def build_app(node: Node, on_ready: Callable[[], None] | None = None) -> Starlette:
    """Build the ASGI application of one node; `on_ready` is called once it is about to serve."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        miner = asyncio.create_task(_mine_by_clock(node))
        if on_ready:
            on_ready()
        try:
            yield
        finally:
            miner.cancel()

    async def endpoint(request: Request) -> Response:
        try:
            body = await _read_body(request)
        except ClientDisconnect:
            return Response(status_code=400)
        if body is None:
            return Response(f"The body is longer than {BODY_MAX_BYTES} bytes.\n", 413)
        answer = answer_body(node, body)
        return Response(answer, media_type="application/json")

    async def greeting(_: Request) -> Response:
        return Response("This is a devnet of Farthing: POST JSON-RPC 2.0 here.\n", media_type="text/plain")

    return Starlette(
        routes=[Route("/", endpoint, methods=["POST"]), Route("/", greeting, methods=["GET"])], lifespan=lifespan
    )


def answer_body(node: Node, body: bytes) -> bytes:
    """Answer a JSON-RPC body: one call, or a batch in its order. Never raises."""
    try:
        message: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return msgspec.json.encode(_error(None, PARSE_ERROR, f"parse error: {error}"))
    if not isinstance(message, list):
        answer = _answer_call(node, message)
        return b"" if answer is None else msgspec.json.encode(answer)
    calls = read_list(message, "batch")
    if not calls:
        return msgspec.json.encode(_error(None, INVALID_REQUEST, "empty batch"))
    if len(calls) > BATCH_MAX_CALLS:
        return msgspec.json.encode(_error(None, INVALID_REQUEST, f"batch too large: at most {BATCH_MAX_CALLS} calls"))
    answers = [answer for call in calls if (answer := _answer_call(node, call)) is not None]
    return msgspec.json.encode(answers) if answers else b""


def serve(node: Node, listener: socket.socket, *, on_ready: Callable[[], None] | None = None) -> None:
    """Serve until SIGINT or SIGTERM."""
    config = uvicorn.Config(
        build_app(node, on_ready),
        log_level="warning",
        access_log=False,
        backlog=_BACKLOG,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        ws="none",
        loop="asyncio",
    )
    uvicorn.Server(config).run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    """Bind a loopback socket; port 0 takes a free one. Raises `ConfigError` for another host or a port in use."""
    require_loopback(host)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigError(f"Can't listen on {host}:{port}: {error.strerror}. Choose another --port.") from error
    listener.listen(_BACKLOG)
    return listener


async def _mine_by_clock(node: Node) -> None:
    """Make a block every `block_time_seconds`, as long as it is set."""
    while True:
        pace = node.pace
        if node.block_time_seconds is None:
            await pace.wait()
            continue
        try:
            async with asyncio.timeout(node.block_time_seconds):
                await pace.wait()
        except TimeoutError:
            node.mine()


async def _read_body(request: Request) -> bytes | None:
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > BODY_MAX_BYTES:
            return None
        chunks.append(chunk)
    return b"".join(chunks)


def _answer_call(node: Node, message: Any) -> dict[str, Any] | None:
    call = cast("dict[str, Any]", message) if isinstance(message, dict) else {}
    method, call_id, params = call.get("method"), call.get("id"), call.get("params", [])
    if not isinstance(method, str):
        return _error(None, INVALID_REQUEST, "invalid request: a call is an object with a method")
    if not isinstance(call_id, (str, int, float, type(None))):
        return _error(None, INVALID_REQUEST, "invalid request: the id is a string or a number")
    try:
        result = call_method(node, method, read_list(params, "params"))
    except RpcError as error:
        answer = _error(call_id, error.code, error.message, error.data)
    except Exception as error:  # noqa: BLE001 - the last line of defence
        # A bug here must not look like a verdict of the chain, and must not end the devnet.
        _log.exception("%s failed", method)
        answer = _error(call_id, INTERNAL_ERROR, f"internal error: {type(error).__name__}: {error}")
    else:
        answer = {"jsonrpc": "2.0", "id": call_id, "result": result}
    return answer if "id" in call else None  # a notification gets no answer


def _error(call_id: Any, code: int, message: str, data: str | None = None) -> dict[str, Any]:
    error: dict[str, Any] = {"code": code, "message": message}
    if data is not None:
        error["data"] = data
    return {"jsonrpc": "2.0", "id": call_id, "error": error}
