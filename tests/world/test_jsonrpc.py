"""Nodes: one batch for what is asked at once, failover, and an outage that is never a verdict (F3)."""

from __future__ import annotations

import asyncio
import gc
import json
import random
from collections.abc import Awaitable, Callable
from typing import Any, Self

import pytest

from farthing.errors import ConfigError, NodeRefused, NodeUnavailable
from farthing.evm.node import AskNode, NodeCall, NodeFailure
from farthing.world import jsonrpc
from farthing.world.jsonrpc import Node, Nodes
from farthing.world.performers import Performer

NETWORK = "eip155:402402"
REVERT = {"code": 3, "message": "execution reverted", "data": "0x08c379a0"}


class RecordingNode:
    """A node's HTTP side, real sockets: answers calls by `reply`, holds answers while `gate` is closed."""

    def __init__(self, reply: Callable[[str, list[Any]], dict[str, Any]] | None = None) -> None:
        self.batches: list[list[dict[str, Any]]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.arrived = asyncio.Event()
        self.reply = reply or (lambda method, params: {"result": [method, *params]})
        self.shape: Callable[[list[dict[str, Any]], object], tuple[int, Any]] = self.whole
        self._tasks: set[asyncio.Task[None]] = set()

    def whole(self, replies: list[dict[str, Any]], is_list: object) -> tuple[int, Any]:
        random.shuffle(replies)
        return 200, replies if is_list else replies[0]

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v3/s3cret"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(
                    int(line.split(b":")[1])
                    for line in head.split(b"\r\n")
                    if line.lower().startswith(b"content-length")
                )
                sent = json.loads(await reader.readexactly(length))
                batch = sent if isinstance(sent, list) else [sent]
                self.batches.append(batch)
                self.arrived.set()
                await self.gate.wait()
                replies = [
                    {"jsonrpc": "2.0", "id": call["id"], **self.reply(call["method"], call["params"])} for call in batch
                ]
                status, value = self.shape(replies, isinstance(sent, list))
                body = value if isinstance(value, bytes) else json.dumps(value).encode()
                writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.close()


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def scene(play: Callable[[RecordingNode, RecordingNode], Awaitable[None]]) -> None:
    async def run() -> None:
        async with RecordingNode() as first, RecordingNode() as second:
            await play(first, second)

    asyncio.run(run())
    gc.collect()  # a future that nobody asked for would complain here


def numbered(count: int, start: int = 0) -> tuple[NodeCall, ...]:
    return tuple(NodeCall("echo", (number,)) for number in range(start, start + count))


def echoed(count: int, start: int = 0) -> tuple[Any, ...]:
    return tuple(["echo", number] for number in range(start, start + count))


def test_one_ask_is_one_request_and_the_order_of_replies_is_nothing() -> None:
    async def play(first: RecordingNode, _: RecordingNode) -> None:
        node = Node(NETWORK, [first.url])
        assert await node.ask(numbered(20)) == echoed(20)
        assert len(first.batches) == 1
        assert await node.ask(()) == ()
        assert len(first.batches) == 1

    scene(play)


def test_what_is_asked_at_once_shares_a_request() -> None:
    async def play(first: RecordingNode, _: RecordingNode) -> None:
        node = Node(NETWORK, [first.url])
        answers = await asyncio.gather(*[node.ask(numbered(3, 10 * n)) for n in range(10)])
        assert list(answers) == [echoed(3, 10 * n) for n in range(10)]
        assert [len(batch) for batch in first.batches] == [30]

    scene(play)


def test_what_is_asked_while_all_ways_are_taken_shares_the_next() -> None:
    async def play(first: RecordingNode, _: RecordingNode) -> None:
        node = Node(NETWORK, [first.url])
        first.gate.clear()
        tasks = []
        for number in range(jsonrpc.BATCHES_IN_FLIGHT_MAX):
            first.arrived.clear()
            tasks.append(asyncio.create_task(node.ask(numbered(1, number))))
            await first.arrived.wait()
        for _task in range(20):
            tasks.append(asyncio.create_task(node.ask(numbered(2))))
            for _turn in range(3):
                await asyncio.sleep(0)  # a turn of the loop of its own for each
        assert len(first.batches) == jsonrpc.BATCHES_IN_FLIGHT_MAX
        first.gate.set()
        await asyncio.gather(*tasks)
        assert [len(batch) for batch in first.batches] == [1] * jsonrpc.BATCHES_IN_FLIGHT_MAX + [40]

    scene(play)


def test_A1_a_batch_and_the_queue_have_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play(first: RecordingNode, _: RecordingNode) -> None:
        node = Node(NETWORK, [first.url], batch_limit=10)
        assert await node.ask(numbered(35)) == echoed(35)
        assert sorted(len(batch) for batch in first.batches) == [5, 10, 10, 10]
        first.batches.clear()
        await asyncio.gather(*[node.ask(numbered(4)) for _ in range(6)])
        assert max(len(batch) for batch in first.batches) == 8
        monkeypatch.setattr(jsonrpc, "CALLS_WAITING_MAX", 5)
        asked = await asyncio.gather(*[node.ask(numbered(2)) for _ in range(4)], return_exceptions=True)
        assert [isinstance(answer, NodeUnavailable) for answer in asked] == [False, False, True, True]

    scene(play)


def test_a_refusal_of_one_call_is_a_value_and_the_others_go_on() -> None:
    async def play(first: RecordingNode, _: RecordingNode) -> None:
        first.reply = lambda method, _params: {"error": REVERT} if method == "bad" else {"result": None}
        node = Node(NETWORK, [first.url])
        answers = await node.ask((NodeCall("good"), NodeCall("bad"), NodeCall("good")))
        assert answers == (None, NodeFailure(3, "execution reverted", "0x08c379a0"), None)
        assert await node.request("good") is None
        with pytest.raises(NodeRefused, match="execution reverted") as caught:
            await node.request("bad", 1)
        assert (caught.value.code, caught.value.data) == (3, "0x08c379a0")

    scene(play)


Shape = Callable[[list[dict[str, Any]], object], tuple[int, Any]]
OUTAGES: dict[str, Shape] = {
    "HTTP 500": lambda replies, _: (500, replies),
    "HTTP 503": lambda _r, _: (503, b"busy"),
    "HTTP 429": lambda _r, _: (429, {"error": "slow down"}),
    "a page": lambda _r, _: (200, b"<html>"),
    "nothing": lambda _r, _: (200, b""),
    "a reply missing": lambda replies, _: (200, replies[1:]),
    "a reply twice": lambda replies, _: (200, [*replies, replies[0]]),
    "one twice, one missing": lambda replies, _: (200, [replies[0]] * len(replies)),
    "another id": lambda replies, _: (200, [{**reply, "id": reply["id"] + 1000} for reply in replies]),
    "ids as text": lambda replies, _: (200, [{**reply, "id": str(reply["id"])} for reply in replies]),
    "neither result nor error": lambda replies, _: (200, [{"id": reply["id"]} for reply in replies]),
    "refused as a whole": lambda _r, _: (200, {"id": None, "error": {"code": -32600, "message": "no batches"}}),
    "refused in a list": lambda _r, _: (200, [{"id": None, "error": {"code": -32600, "message": "no"}}]),
    "over the limit": lambda replies, _: (
        200,
        [{"id": reply["id"], "error": {"code": -32005, "message": "limit exceeded"}} for reply in replies],
    ),
    "error of a wrong type": lambda replies, _: (200, [{"id": reply["id"], "error": "bad"} for reply in replies]),
}


@pytest.mark.parametrize("shape", OUTAGES.values(), ids=OUTAGES.keys())
def test_F3_an_outage_is_the_next_endpoints_turn_and_then_an_outage(shape: Shape) -> None:
    async def play(first: RecordingNode, second: RecordingNode) -> None:
        first.shape = shape
        assert await Node(NETWORK, [first.url, second.url]).ask(numbered(3)) == echoed(3)
        assert (len(first.batches), len(second.batches)) == (1, 1)
        with pytest.raises(NodeUnavailable) as caught:
            await Node(NETWORK, [first.url]).ask(numbered(3))
        assert "s3cret" not in str(caught.value), "a hosted node's URL holds a key"

    scene(play)


def test_an_object_answers_a_batch_of_one_and_a_list_does_too() -> None:
    async def play(first: RecordingNode, _: RecordingNode) -> None:
        node = Node(NETWORK, [first.url])
        for as_list in (False, True):
            first.shape = lambda replies, _l, as_list=as_list: (200, replies if as_list else replies[0])  # type: ignore[misc]
            assert await node.ask(numbered(1)) == echoed(1)

    scene(play)


def test_a_bad_endpoint_is_asked_last_for_a_while() -> None:
    async def play(first: RecordingNode, second: RecordingNode) -> None:
        clock = Clock()
        node = Node(NETWORK, [first.url, second.url], monotonic=clock)
        first.shape = OUTAGES["HTTP 500"]
        await node.ask(numbered(1))
        first.shape = first.whole
        await node.ask(numbered(1))
        assert (len(first.batches), len(second.batches)) == (1, 2)
        second.shape = OUTAGES["HTTP 500"]
        await node.ask(numbered(1))  # the second fails: the first is asked although it was bad
        assert (len(first.batches), len(second.batches)) == (2, 3)
        second.shape = second.whole
        clock.now += jsonrpc.BAD_ENDPOINT_SECONDS + 1
        await node.ask(numbered(1))
        assert (len(first.batches), len(second.batches)) == (3, 3)

    scene(play)


def test_a_slow_endpoint_is_given_up_and_an_absent_one_passed_over() -> None:
    async def play(first: RecordingNode, second: RecordingNode) -> None:
        first.gate.clear()
        node = Node(NETWORK, ["http://127.0.0.1:1", first.url, second.url], timeout_seconds=0.2)
        assert await node.ask(numbered(2)) == echoed(2)
        with pytest.raises(NodeUnavailable, match=r"within 0\.2 seconds"):
            await Node(NETWORK, [first.url], timeout_seconds=0.2).ask(numbered(2))

    scene(play)


@pytest.mark.parametrize("trouble", ["HTTP 500", "a page", "time"])
def test_a_broadcast_that_was_sent_goes_nowhere_else_and_says_so(trouble: str) -> None:
    async def play(first: RecordingNode, second: RecordingNode) -> None:
        if trouble == "time":
            first.gate.clear()
        else:
            first.shape = OUTAGES[trouble]
        second.reply = lambda _m, _: {"error": {"code": -32000, "message": "already known"}}
        node = Node(NETWORK, [first.url, second.url], timeout_seconds=0.3)
        broadcast, other = await asyncio.gather(
            node.request("eth_sendRawTransaction", "0x02"), node.ask(numbered(1)), return_exceptions=True
        )
        assert isinstance(broadcast, NodeUnavailable)
        assert "was sent, and its result is unknown" in str(broadcast)
        assert other == (NodeFailure(-32000, "already known"),), "what can be repeated is asked of the next"
        assert [call["method"] for batch in second.batches for call in batch] == ["echo"]

    scene(play)


def test_a_broadcast_that_was_not_sent_goes_to_the_next() -> None:
    async def play(first: RecordingNode, second: RecordingNode) -> None:
        first.shape = OUTAGES["HTTP 429"]
        second.reply = lambda _method, _params: {"result": "0xhash"}
        node = Node(NETWORK, ["http://127.0.0.1:1", first.url, second.url])
        assert await node.request("eth_sendRawTransaction", "0x02") == "0xhash"

    scene(play)


def test_a_cancelled_caller_spoils_nobody_elses_answer() -> None:
    async def play(first: RecordingNode, _: RecordingNode) -> None:
        node = Node(NETWORK, [first.url])
        first.gate.clear()
        early, late = asyncio.create_task(node.ask(numbered(1))), asyncio.create_task(node.ask(numbered(1, 5)))
        await first.arrived.wait()
        early.cancel()
        first.gate.set()
        assert await late == echoed(1, 5)
        with pytest.raises(asyncio.CancelledError):
            await early
        never = asyncio.create_task(node.ask(numbered(1)))
        await asyncio.sleep(0)
        never.cancel()
        assert await node.ask(numbered(1, 7)) == echoed(1, 7)
        assert len(first.batches[-1]) == 1, "who was cancelled before the departure is not on board"

    scene(play)


def test_networks_have_their_nodes_under_both_drivers() -> None:
    async def play(first: RecordingNode, second: RecordingNode) -> None:
        nodes = Nodes({NETWORK: Node(NETWORK, [first.url]), "eip155:1": Node("eip155:1", [second.url])})
        performer = Performer(nodes.handlers())
        assert await performer.awaiting(AskNode("eip155:1", numbered(1))) == echoed(1)
        assert await asyncio.to_thread(performer.blocking, AskNode(NETWORK, numbered(2))) == echoed(2)
        assert (len(first.batches), len(second.batches)) == (1, 1)
        with pytest.raises(ConfigError, match=r"eip155:9.*configured: eip155:1, eip155:402402"):
            await performer.awaiting(AskNode("eip155:9", numbered(1)))

    scene(play)


@pytest.mark.parametrize("urls", [[], "http://x.example", ["ftp://x.example"], ["http://u:p@x.example"]])
def test_urls_that_are_none_are_refused(urls: Any) -> None:
    with pytest.raises(ConfigError):
        Node(NETWORK, urls)


def test_A4_a_nodes_repr_shows_no_path() -> None:
    assert "s3cret" not in repr(Node(NETWORK, ["https://node.example/v3/s3cret"]))
