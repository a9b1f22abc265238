"""Chain nodes over JSON-RPC 2.0: one HTTP batch for whatever is asked at once, time-outs, and failover over endpoints.

SAFETY F3: an outage is `NodeUnavailable`, a refusal of one call is a `NodeFailure`; neither becomes the other. Source:
JSON-RPC 2.0 (jsonrpc.org/specification), section 6 for batches; error codes of EIP-1474.
"""

from __future__ import annotations

import asyncio
import itertools
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from farthing.errors import ConfigError, NodeRefused, NodeUnavailable
from farthing.evm.node import AskNode, NodeCall, NodeFailure
from farthing.flow import Effect
from farthing.world.http import HttpClient, HttpTrouble, RequestNotSent, check_url, origin_of

# One endpoint's time for one batch: the slowest call that flows make (`eth_getLogs`) takes a second or two.
TIMEOUT_SECONDS = 10.0
# Calls in one HTTP request. Hosted nodes take between 100 and 1,000.
BATCH_LIMIT = 100
# Batches on the way at once. Asks that find all of them out wait and share the next: it clocks itself by the node's
# speed, and one slow call does not hold up all others.
BATCHES_IN_FLIGHT_MAX = 4
# Calls that wait. More would time out before their turn.
CALLS_WAITING_MAX = 10_000
# How long an endpoint that failed is asked only after the others.
BAD_ENDPOINT_SECONDS = 15.0
# Of an answer: blocks with their transactions and logs over some thousand blocks stay well under it.
ANSWER_MAX_BYTES = 16 * 1024 * 1024
# How much of a node's own message is repeated.
MESSAGE_MAX_CHARS = 400

STATUS_OK = 200
STATUS_TOO_MANY_REQUESTS = 429
# "Limit exceeded" in EIP-1474 and as hosted nodes write it: an endpoint's trouble, and no answer to the call.
_LIMIT_CODES = frozenset({-32005, -32016, STATUS_TOO_MANY_REQUESTS})
# What has an effect that a second endpoint can't judge: "already known" there may mean that the first one took it.
_BROADCASTS = frozenset({"eth_sendRawTransaction"})


class _Error(msgspec.Struct, frozen=True):
    code: int
    message: str = ""
    data: Any = None


class _Reply(msgspec.Struct, frozen=True):
    id: int | str | None = None
    result: Any = msgspec.UNSET
    error: _Error | None = None


_batch_decoder = msgspec.json.Decoder(list[_Reply])
_reply_decoder = msgspec.json.Decoder(_Reply)


class _Trouble(Exception):
    """An endpoint's failure, known in this file alone: `sent` when the batch may have arrived and been acted on."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class _Endpoint:
    """One URL and how it fared last."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.origin = origin_of(url)
        self.bad_until = 0.0


class _Ask:
    """One caller's calls and the future of their answers."""

    __slots__ = ("answers", "calls")

    def __init__(self, calls: tuple[NodeCall, ...], answers: asyncio.Future[tuple[Any, ...]]) -> None:
        self.calls = calls
        self.answers = answers

    @property
    def broadcasts(self) -> bool:
        return any(call.method in _BROADCASTS for call in self.calls)


class _Lane:
    """What waits and what is on the way on one event loop."""

    def __init__(self) -> None:
        self.waiting: deque[_Ask] = deque()
        self.calls_waiting = 0
        self.scheduled = False
        self.in_flight: set[asyncio.Task[None]] = set()


class Node:
    """A node of `network` (CAIP-2), behind one endpoint or several that are tried in their order.

    Safe to share between loops and threads. That the endpoints are of this network is for the caller to check
    (`eth_chainId`), once.
    """

    def __init__(
        self,
        network: str,
        urls: Sequence[str],
        *,
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        batch_limit: int = BATCH_LIMIT,
        client: HttpClient | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the endpoints' URLs, and headers that all of them get. Raises `ConfigError`."""
        if isinstance(urls, str) or not urls:
            raise ConfigError(f"A node of {network} needs a list of at least one URL.")
        if batch_limit < 1:
            raise ConfigError(f"A batch of {network} holds at least one call, not {batch_limit}.")
        self.network = network
        self._endpoints = [_Endpoint(check_url(url, f"a node of {network}")) for url in urls]
        self._headers = {"Content-Type": "application/json", "Accept": "application/json", **(headers or {})}
        self._timeout_seconds = timeout_seconds
        self._batch_limit = batch_limit
        self._client = client or HttpClient()
        self._monotonic = monotonic
        self._ids = itertools.count(1)
        self._lanes: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Lane] = weakref.WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"Node({self.network!r}, {[endpoint.origin for endpoint in self._endpoints]!r})"

    async def ask(self, calls: tuple[NodeCall, ...]) -> tuple[Any, ...]:
        """Send `calls` in one HTTP request, shared with whatever else is asked just then.

        One entry a call, in their order: the JSON result, or a `NodeFailure`. Raises `NodeUnavailable` when no
        endpoint gave a whole answer; a broadcast that was sent and not answered goes to no other endpoint, and the
        message says so. Over `batch_limit` calls go in several requests.
        """
        if len(calls) > self._batch_limit:
            parts = [calls[at : at + self._batch_limit] for at in range(0, len(calls), self._batch_limit)]
            return tuple(itertools.chain.from_iterable(await asyncio.gather(*map(self.ask, parts))))
        if not calls:
            return ()
        loop = asyncio.get_running_loop()
        lane = self._lanes.get(loop)
        if lane is None:
            lane = self._lanes[loop] = _Lane()
        if lane.calls_waiting + len(calls) > CALLS_WAITING_MAX:
            raise NodeUnavailable(f"{lane.calls_waiting} calls wait for a node of {self.network} already.")
        answers: asyncio.Future[tuple[Any, ...]] = loop.create_future()
        lane.waiting.append(_Ask(calls, answers))
        lane.calls_waiting += len(calls)
        self._schedule(loop, lane)
        return await answers

    async def request(self, method: str, *params: Any) -> Any:
        """Make one call. Raises `NodeRefused` with the node's own error, or `NodeUnavailable`."""
        (answer,) = await self.ask((NodeCall(method, params),))
        if isinstance(answer, NodeFailure):
            raise NodeRefused(f"{method}: {answer.message}", code=answer.code, data=answer.data)
        return answer

    async def aclose(self) -> None:
        """Close the connections of the running loop."""
        await self._client.aclose()

    # Batches

    def _schedule(self, loop: asyncio.AbstractEventLoop, lane: _Lane) -> None:
        if lane.waiting and not lane.scheduled and len(lane.in_flight) < BATCHES_IN_FLIGHT_MAX:
            lane.scheduled = True
            loop.call_soon(self._depart, loop, lane)  # what is asked in this turn of the loop still gets on

    def _depart(self, loop: asyncio.AbstractEventLoop, lane: _Lane) -> None:
        lane.scheduled = False
        asks: list[_Ask] = []
        room = self._batch_limit
        while lane.waiting and len(lane.waiting[0].calls) <= room:
            ask = lane.waiting.popleft()
            lane.calls_waiting -= len(ask.calls)
            if not ask.answers.done():  # else its caller was cancelled
                asks.append(ask)
                room -= len(ask.calls)
        if asks:
            task = loop.create_task(self._carry(asks))
            lane.in_flight.add(task)
            task.add_done_callback(lambda done: self._arrive(loop, lane, done))
        self._schedule(loop, lane)

    def _arrive(self, loop: asyncio.AbstractEventLoop, lane: _Lane, task: asyncio.Task[None]) -> None:
        lane.in_flight.discard(task)
        if not loop.is_closed():
            self._schedule(loop, lane)

    async def _carry(self, asks: list[_Ask]) -> None:
        """Get `asks` answered by the first endpoint that can, and resolve their futures whatever happens."""
        troubles: list[str] = []
        try:
            for endpoint in self._in_order():
                try:
                    answers = await self._exchange(endpoint, [call for ask in asks for call in ask.calls])
                except _Trouble as trouble:
                    endpoint.bad_until = self._monotonic() + BAD_ENDPOINT_SECONDS
                    troubles.append(str(trouble))
                    if trouble.sent:
                        asks = _keep_repeatable(asks, str(trouble))
                    if not asks:
                        return
                else:
                    endpoint.bad_until = 0.0
                    _hand_out(asks, answers)
                    return
            _fail(asks, f"No node of {self.network} answered: {' '.join(troubles)}")
        except Exception as error:  # noqa: BLE001 - callers wait for the futures: a bug must reach them
            _fail(asks, f"Asking a node of {self.network} failed: {type(error).__name__}.")
        finally:
            _fail(asks, f"Asking a node of {self.network} was cut off.")

    def _in_order(self) -> list[_Endpoint]:
        """The endpoints as configured, those that failed lately at the end."""
        now = self._monotonic()
        return sorted(self._endpoints, key=lambda endpoint: endpoint.bad_until > now)

    async def _exchange(self, endpoint: _Endpoint, calls: list[NodeCall]) -> list[Any]:
        ids = [next(self._ids) for _ in calls]
        requests = [
            {"jsonrpc": "2.0", "id": id_, "method": call.method, "params": call.params}
            for id_, call in zip(ids, calls, strict=True)
        ]
        # One call goes as an object: some endpoints take no batches, and all take this.
        body = msgspec.json.encode(requests if len(requests) > 1 else requests[0])
        try:
            answer = await self._client.request(
                "POST",
                endpoint.url,
                headers=self._headers,
                body=body,
                timeout_seconds=self._timeout_seconds,
                max_bytes=ANSWER_MAX_BYTES,
            )
        except HttpTrouble as error:
            raise _Trouble(str(error), sent=not isinstance(error, RequestNotSent)) from error
        if answer.status != STATUS_OK:
            sent = answer.status != STATUS_TOO_MANY_REQUESTS
            raise _Trouble(f"{endpoint.origin} answered {answer.status}.", sent=sent)
        return _match(endpoint.origin, ids, answer.body)


class Nodes:
    """The nodes of several networks, by CAIP-2 name."""

    def __init__(self, nodes: Mapping[str, Node]) -> None:
        """Take the nodes. The table is copied."""
        self._nodes = dict(nodes)

    def node(self, network: str) -> Node:
        """The node of `network`, or `ConfigError`."""
        node = self._nodes.get(network)
        if node is None:
            known = ", ".join(sorted(self._nodes)) or "none"
            raise ConfigError(f"No node is configured for {network} (configured: {known}).")
        return node

    async def ask(self, effect: AskNode) -> tuple[Any, ...]:
        """Perform `AskNode`."""
        return await self.node(effect.network).ask(effect.calls)

    def handlers(self) -> dict[type[Effect[Any]], Any]:
        """The handler of `AskNode`, for a `Performer`."""
        return {AskNode: self.ask}

    async def aclose(self) -> None:
        """Close the connections of the running loop."""
        for node in self._nodes.values():
            await node.aclose()


def _match(origin: str, ids: list[int], body: bytes) -> list[Any]:
    """Put the replies in the order of the calls. Every id once, or it was no answer."""
    try:
        # Some endpoints answer a batch of one with an object, and all of them a batch that they refuse.
        replies = [_reply_decoder.decode(body)] if body[:1] == b"{" else _batch_decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _Trouble(f"{origin} sent no JSON-RPC: {error}.", sent=True) from None
    whole = replies[0].error if len(replies) == 1 and replies[0].id is None else None
    if whole is not None:  # section 5: an error without an id is about the request
        text = f"{origin} refused the request as a whole: {whole.message[:MESSAGE_MAX_CHARS]} ({whole.code})."
        raise _Trouble(text, sent=True)
    by_id: dict[int | str | None, _Reply] = {reply.id: reply for reply in replies}
    if len(replies) != len(ids) or by_id.keys() != set(ids):
        raise _Trouble(f"{origin} sent {len(replies)} replies that do not match the {len(ids)} calls.", sent=True)
    answers: list[Any] = []
    for id_ in ids:
        reply = by_id[id_]
        if reply.error is not None:
            if reply.error.code in _LIMIT_CODES:
                text = f"{origin} is over its limit: {reply.error.message[:MESSAGE_MAX_CHARS]} ({reply.error.code})."
                raise _Trouble(text, sent=True)
            answers.append(NodeFailure(reply.error.code, reply.error.message, reply.error.data))
        elif reply.result is msgspec.UNSET:
            raise _Trouble(f"{origin} sent a reply with neither result nor error.", sent=True)
        else:
            answers.append(reply.result)
    return answers


def _keep_repeatable(asks: list[_Ask], trouble: str) -> list[_Ask]:
    """Tell the broadcasters that nobody knows, and keep the others for the next endpoint."""
    _fail([ask for ask in asks if ask.broadcasts], f"The broadcast was sent, and its result is unknown: {trouble}")
    return [ask for ask in asks if not ask.broadcasts]


def _hand_out(asks: list[_Ask], answers: list[Any]) -> None:
    position = 0
    for ask in asks:
        end = position + len(ask.calls)
        if not ask.answers.done():
            ask.answers.set_result(tuple(answers[position:end]))
        position = end


def _fail(asks: list[_Ask], message: str) -> None:
    for ask in asks:
        if not ask.answers.done():
            ask.answers.set_exception(NodeUnavailable(message))
