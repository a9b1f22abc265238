"""The door for httpx2 and httpx, synchronous and asynchronous: a transport that pays.

    client = httpx2.Client(transport=PayingTransport(buyer), timeout=60)
    client = httpx2.AsyncClient(transport=PayingTransport(buyer), timeout=60)

A transport sees every hop and every error, which an `Auth` does not. Which library it serves is seen from the request,
so that nothing but the user's own library is imported. The asynchronous face runs on asyncio.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import threading
from collections.abc import AsyncIterator, Iterator
from functools import lru_cache
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from farthing.buyer import PaidAnswer, PaidRequest, PaymentDemand, Receipt, RequestFacts, describe_request
from farthing.clients.buyer import (
    DEMAND_BODY_MAX_BYTES,
    Buyer,
    Exchange,
    demand_of,
    not_replayable,
    refuse_own_header,
    says_why_in_its_body,
    signed_lines,
    with_body,
)
from farthing.clients.guard import check_name, guard_transport, is_guarded
from farthing.errors import ConfigError
from farthing.protocol.codec import ReceivedOffers
from farthing.protocol.http import PAYMENT_REQUIRED, STATUS_PAYMENT_REQUIRED

if TYPE_CHECKING:
    import httpx
    import httpx2

    class _Transports(httpx2.BaseTransport, httpx2.AsyncBaseTransport, httpx.BaseTransport, httpx.AsyncBaseTransport):
        """What the transport is to a type checker; the clients ask for no base class."""

        def handle_request(self, request: Any) -> Any: ...

        async def handle_async_request(self, request: Any) -> Any: ...

else:
    _Transports = object

# What a paid request whose caller was cancelled may still take: an answer tells what became of the money, and the
# client's own time-outs end it sooner.
ABANDONED_MAX_SECONDS: Final = 60.0
# What closing waits for such requests.
CLOSE_MAX_SECONDS: Final = 5.0

_RECEIPT: Final = "farthing.receipt"
_LIBRARIES: Final = ("httpx2", "httpx")


class PayingTransport(_Transports):
    """Sends requests, and pays where a 402 asks for it and the buyer's policy allows it.

    `inner` is the transport that it sends with: one of the same library and manner as the client (its options for
    proxies, certificates, HTTP/2 and limits belong there). By default the library's own.

    Raises, besides the library's errors for the unpaid request, the errors of `farthing.errors.PaymentError`. A 402 is
    never returned. An answer that redirects after a payment is returned and not followed, whatever the client says.
    """

    def __init__(self, buyer: Buyer, *, inner: Any = None) -> None:
        """Pay with `buyer`, send with `inner`."""
        self._buyer = buyer
        self._inner = guard_transport(inner, buyer.policy) if inner is not None and is_guarded(buyer.policy) else inner
        self._own: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.aclose()

    def handle_request(self, request: Any) -> Any:
        """Send `request`; where a 402 comes back, pay and send it again."""
        inner = self._transport(request, "HTTPTransport")
        refuse_own_header(request.headers)
        check_name(self._buyer.policy, request.url.host)
        response = None
        remembered = self._recall(request)
        if remembered is not None:
            response = self._purchase_blocking(inner, request, Exchange(self._buyer, _facts(request)), remembered)
        if response is None:
            response = inner.handle_request(request)
        if response.status_code != STATUS_PAYMENT_REQUIRED:
            return response
        body = _read_some(request, response)
        exchange = Exchange(self._buyer, _facts(request))
        return self._purchase_blocking(inner, request, exchange, _demand(response, body))

    async def handle_async_request(self, request: Any) -> Any:
        """Send `request`; where a 402 comes back, pay and send it again, in a task that outlives its caller."""
        inner = self._transport(request, "AsyncHTTPTransport")
        refuse_own_header(request.headers)
        check_name(self._buyer.policy, request.url.host)
        response = None
        remembered = self._recall(request)
        if remembered is not None:
            response = await self._outliving(inner, request, remembered)
        if response is None:
            response = await inner.handle_async_request(request)
        if response.status_code != STATUS_PAYMENT_REQUIRED:
            return response
        body = await _read_some_async(request, response)
        return await self._outliving(inner, request, _demand(response, body))

    def _recall(self, request: Any) -> ReceivedOffers | None:
        # Only a body that can be sent again is signed ahead: the seller may ask for another price.
        if self._buyer.remembered is None or not isinstance(request.stream, _library(request).ByteStream):
            return None
        return self._buyer.recall(request.method, str(request.url))

    def _purchase_blocking(
        self, inner: Any, request: Any, exchange: Exchange, demand: PaymentDemand | ReceivedOffers
    ) -> Any:
        with exchange:
            paid = exchange.blocking(exchange.pay_for(demand))
            if paid is None:
                return None
            try:
                answer = inner.handle_request(_with_payment(request, paid))
            except Exception as error:
                exchange.blocking(exchange.lost(error))
                raise
            try:
                said = _answer(answer, paid)
                if says_why_in_its_body(said):
                    said = with_body(said, _read_some(request, answer), _encoding(answer))
                receipt = exchange.blocking(exchange.conclude(said, streams=True))
            except BaseException as error:
                if exchange.asks_anew(error):
                    return answer
                answer.close()
                raise
            return _handed_over(answer, receipt, exchange)

    async def _outliving(self, inner: Any, request: Any, demand: PaymentDemand | ReceivedOffers) -> Any:
        exchange = Exchange(self._buyer, _facts(request))
        task = _task(self._purchase(inner, request, exchange, demand))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            # The caller is gone. Between signature and verdict nothing is cut; then the answer is put away.
            self._outlive(task, exchange)
            raise

    async def _purchase(
        self, inner: Any, request: Any, exchange: Exchange, demand: PaymentDemand | ReceivedOffers
    ) -> Any:
        with exchange:
            paid = await exchange.awaiting(exchange.pay_for(demand))
            if paid is None:
                return None
            try:
                answer = await inner.handle_async_request(_with_payment(request, paid))
            except Exception as error:
                await exchange.awaiting(exchange.lost(error))
                raise
            try:
                said = _answer(answer, paid)
                if says_why_in_its_body(said):
                    said = with_body(said, await _read_some_async(request, answer), _encoding(answer))
                receipt = await exchange.awaiting(exchange.conclude(said, streams=True))
            except BaseException as error:
                if exchange.asks_anew(error):
                    return answer
                await answer.aclose()
                raise
            return _handed_over(answer, receipt, exchange)

    def _outlive(self, task: asyncio.Task[Any], exchange: Exchange) -> None:
        async def put_away() -> None:
            with contextlib.suppress(Exception):  # it is on record, and nobody is left to hear of it
                answer = await asyncio.wait_for(task, ABANDONED_MAX_SECONDS)
                exchange.undelivered()
                await answer.aclose()

        keeper = asyncio.ensure_future(put_away())
        self._tasks.add(keeper)
        keeper.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """Close the transports that it sends with."""
        for each in self._inners():
            if hasattr(each, "close"):
                each.close()

    async def aclose(self) -> None:
        """Wait a little for paid requests whose caller is gone, and close the transports that it sends with."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_MAX_SECONDS)
        for each in self._inners():
            if hasattr(each, "aclose"):
                await each.aclose()

    def _inners(self) -> list[Any]:
        return [*self._own.values(), *([] if self._inner is None else [self._inner])]

    def _transport(self, request: Any, kind: str) -> Any:
        if self._inner is not None:
            return self._inner
        library = _library(request)
        key = f"{library.__name__}.{kind}"
        found = self._own.get(key)
        if found is None:
            with self._lock:
                made = getattr(library, kind)()
                made = guard_transport(made, self._buyer.policy) if is_guarded(self._buyer.policy) else made
                found = self._own.setdefault(key, made)
        return found


def receipt_of(response: Any) -> Receipt | None:
    """What was paid for this response, or None where nothing was."""
    receipt: Receipt | None = response.extensions.get(_RECEIPT)
    return receipt


def _handed_over(answer: Any, receipt: Receipt, exchange: Exchange) -> Any:
    """Make the answer the caller's: with its receipt, still streaming, and not to be redirected."""
    if answer.has_redirect_location:
        answer = _held_class(answer)(
            answer.status_code, headers=answer.headers, stream=answer.stream, extensions=answer.extensions
        )
    watched = _async_stream_of if hasattr(answer.stream, "__aiter__") else _stream_of
    answer.stream = watched(_library_name(answer))(answer.stream, exchange)
    answer.extensions[_RECEIPT] = receipt
    return answer


# The streams of paid answers: a body that is cut is no delivery, and is asked for with the same payment. Each is of its
# library's own class, which the clients ask for.


@lru_cache(maxsize=len(_LIBRARIES))
def _stream_of(name: str) -> Any:
    class PaidStream(importlib.import_module(name).SyncByteStream):  # type: ignore[misc]
        def __init__(self, stream: Any, exchange: Exchange) -> None:
            self._stream, self._exchange = stream, exchange

        def __iter__(self) -> Iterator[bytes]:
            try:
                yield from self._stream
            except GeneratorExit:
                raise  # the caller has read as much as it wants
            except BaseException:
                self._exchange.undelivered()
                raise
            self._exchange.delivered()

        def close(self) -> None:
            self._stream.close()
            self._exchange.delivered()

    return PaidStream


@lru_cache(maxsize=len(_LIBRARIES))
def _async_stream_of(name: str) -> Any:
    class PaidAsyncStream(importlib.import_module(name).AsyncByteStream):  # type: ignore[misc]
        def __init__(self, stream: Any, exchange: Exchange) -> None:
            self._stream, self._exchange = stream, exchange

        async def __aiter__(self) -> AsyncIterator[bytes]:
            try:
                async for part in self._stream:
                    yield part
            except GeneratorExit:
                raise  # as above
            except BaseException:
                self._exchange.undelivered()
                raise
            self._exchange.delivered()

        async def aclose(self) -> None:
            await self._stream.aclose()
            self._exchange.delivered()

    return PaidAsyncStream


def _held_class(response: Any) -> Any:
    # The clients ask the response whether to follow it, so the response says no (SAFETY B5). Status and Location stay.
    return _held_class_of(_library_name(response))


@lru_cache(maxsize=len(_LIBRARIES))
def _held_class_of(name: str) -> Any:
    response_class = importlib.import_module(name).Response
    return type("PaidRedirect", (response_class,), {"has_redirect_location": property(lambda _self: False)})


def _library(message: Any) -> ModuleType:
    return importlib.import_module(_library_name(message))


def _library_name(message: Any) -> str:
    for each in type(message).__mro__:
        name: str = each.__module__.partition(".")[0]
        if name in _LIBRARIES:
            return name
    said = f"PayingTransport serves httpx2 and httpx, not {type(message).__module__}."
    raise ConfigError(said)


def _facts(request: Any) -> RequestFacts:
    stream = request.stream
    if not isinstance(stream, _library(request).ByteStream):
        raise not_replayable(type(stream).__name__)
    return describe_request(request.method, str(request.url), b"".join(stream))


def _with_payment(request: Any, paid: PaidRequest) -> Any:
    # A request of its own: the client builds redirects from the one that it knows, which never has our headers.
    lines = [(name.encode(), value.encode()) for name, value in paid.lines]
    brought = {name.lower() for name, _ in lines}
    return type(request)(
        request.method,
        request.url,
        headers=[*(each for each in request.headers.raw if each[0].lower() not in brought), *lines],
        stream=request.stream,
        extensions=request.extensions,
    )


def _demand(response: Any, body: bytes) -> PaymentDemand:
    return demand_of(response.headers.get(PAYMENT_REQUIRED), body, _encoding(response))


def _encoding(response: Any) -> str:
    encoding: str = response.headers.get("Content-Encoding", "")
    return encoding


def _answer(response: Any, paid: PaidRequest) -> PaidAnswer:
    headers = response.headers
    return PaidAnswer(
        response.status_code,
        headers.get(paid.wire.response_header),
        headers.get(PAYMENT_REQUIRED),
        lines=signed_lines(paid, headers.multi_items()),
    )


def _read_some(request: Any, response: Any) -> bytes:
    # Read to its end, within bounds, so that the connection serves the paid request too.
    seen = b""
    try:
        with contextlib.suppress(_library(request).TransportError):
            for chunk in response.stream:
                seen += chunk
                if len(seen) > DEMAND_BODY_MAX_BYTES:
                    break
    finally:
        response.close()
    return seen[:DEMAND_BODY_MAX_BYTES]


async def _read_some_async(request: Any, response: Any) -> bytes:
    seen = b""
    try:
        with contextlib.suppress(_library(request).TransportError):
            async for chunk in response.stream:
                seen += chunk
                if len(seen) > DEMAND_BODY_MAX_BYTES:
                    break
    finally:
        await response.aclose()
    return seen[:DEMAND_BODY_MAX_BYTES]


def _task(purchase: Any) -> asyncio.Task[Any]:
    try:
        return asyncio.get_running_loop().create_task(purchase)
    except RuntimeError:
        purchase.close()
        message = "Paying asynchronously needs asyncio; under trio, pay from a thread with the synchronous client."
        raise ConfigError(message) from None
