"""The rail's own books: read in finalised blocks alone, and on, whatever a stranger or a node does."""

from __future__ import annotations

from typing import Any

import pytest
from town import NETWORK, TREASURY

from farthing.clearing.rails import RailReport
from farthing.clearing.usdc import BLOCKS_MAX, FINAL_DEPTH, UsdcRail
from farthing.errors import NodeUnavailable
from farthing.evm.abi import pack_address
from farthing.evm.addresses import parse_address
from farthing.evm.hexadecimal import write_data
from farthing.evm.logs import TRANSFER_TOPIC
from farthing.evm.node import AskNode, NodeCall, NodeFailure
from farthing.flow import Effect, drive
from farthing.networks import KNOWN

TOKEN = next(iter(KNOWN.tokens("eip155:84532")))
RAIL = UsdcRail(clearing_network=NETWORK, token=TOKEN, treasury=TREASURY.address, networks=KNOWN)
DUSTER = "0x" + "22" * 20


class Node:
    """A node with one transfer of dust to the treasury in each block, which gives so many logs at once."""

    def __init__(self, *, final: Any, logs_max: int = 10_000) -> None:
        self.final, self.logs_max = final, logs_max
        self.asked = 0

    def perform(self, effect: Effect[Any]) -> Any:
        assert isinstance(effect, AskNode)
        return tuple(self._answer(each) for each in effect.calls)

    def _answer(self, call: NodeCall) -> Any:
        self.asked += 1
        match call.method:
            case "eth_getBlockByNumber":
                number = call.params[0]
                return self.final if number == "finalized" else {"number": number, "timestamp": "0x10"}
            case "eth_blockNumber":
                return hex(1_000)
            case "eth_getTransactionReceipt":
                return {"status": "0x1", "logs": [_log(int(str(call.params[0]), 16))]}
            case _:
                where: Any = call.params[0]
                if len(where["topics"]) == 2:
                    return []
                blocks = range(int(where["fromBlock"], 16), int(where["toBlock"], 16) + 1)
                if len(blocks) > self.logs_max:
                    return NodeFailure(-32005, "query returned more than 10000 results")
                return [_log(each) for each in blocks]


def _log(block: int) -> dict[str, Any]:
    topics = [write_data(TRANSFER_TOPIC)]
    topics += [write_data(pack_address(parse_address(each))) for each in (DUSTER, TREASURY.address)]
    return {
        "address": TOKEN.address, "topics": topics, "data": "0x" + "1".rjust(64, "0"), "blockNumber": hex(block),
        "blockHash": "0x" + f"{block:064x}", "transactionHash": "0x" + f"{block:064x}", "logIndex": "0x0",
        "transactionIndex": "0x0", "removed": False,
    }  # fmt: skip


def report(node: Node, next_block: int) -> RailReport:
    found = drive(RAIL.report(next_block), node.perform)
    assert isinstance(found, RailReport)
    return found


@pytest.mark.parametrize("logs_max", [10_000, 300, 1])
def test_C6_dust_does_not_keep_the_rails_books_from_being_read(logs_max: int) -> None:
    node = Node(final={"number": hex(BLOCKS_MAX + 99), "timestamp": "0x10"}, logs_max=logs_max)
    seen: list[int] = []
    next_block, complete = 100, False
    for _ in range(20):
        found = report(node, next_block)
        seen += [each.block_number for each in found.movements]
        next_block, complete = found.next_block, found.complete
        if complete:
            break
    assert seen == list(range(100, next_block))
    assert complete == (logs_max > 1)


def test_a_node_that_gives_no_logs_of_one_block_is_in_trouble() -> None:
    with pytest.raises(NodeUnavailable, match="10000 results"):
        report(Node(final={"number": hex(200), "timestamp": "0x10"}, logs_max=0), 100)


@pytest.mark.parametrize("code", [-32005, -32000, -32603, 429])
def test_C6_a_node_in_trouble_makes_no_newer_block_final(code: int) -> None:
    with pytest.raises(NodeUnavailable, match="finalised"):
        report(Node(final=NodeFailure(code, "too many requests")), 100)


@pytest.mark.parametrize(
    "final", [None, NodeFailure(-32602, "unknown tag"), NodeFailure(-32000, "finalized block not found")]
)
def test_C6_where_nothing_is_said_to_be_final_what_is_deep_is(final: Any) -> None:
    found = report(Node(final=final), 900)
    assert (found.next_block, found.complete) == (1_000 - FINAL_DEPTH + 1, True)
