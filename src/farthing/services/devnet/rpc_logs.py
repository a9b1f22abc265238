"""eth_getLogs: the filter, and the search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from farthing.services.devnet.rpc_values import (
    INVALID_PARAMS,
    REFUSED,
    RpcError,
    invalid,
    logs_view,
    read_address,
    read_hash,
    read_list,
    read_object,
)

if TYPE_CHECKING:
    from farthing.services.devnet.blocks import Block, Log
    from farthing.services.devnet.node import Node

# Public nodes refuse more than some thousands; here a wider search only costs the asker.
_MAX_RESULTS: Final = 10_000
_MAX_TOPICS: Final = 4

FindBlock = Callable[["Node", Any, str], "Block | None"]


def get_logs(node: Node, criteria: Any, find_block: FindBlock) -> list[dict[str, Any]]:
    """List the events that match, oldest first. Raises `RpcError`."""
    criteria = read_object(criteria, "filter")
    addresses = _addresses(criteria.get("address"))
    topics = _topics(criteria.get("topics"))
    found: list[dict[str, Any]] = []
    for block in _blocks(node, criteria, find_block):
        for index, receipt in enumerate(block.receipts):
            matches = [_matches(log, addresses, topics) for log in receipt.logs]
            if any(matches):
                views = logs_view(block, index)
                found += [view for view, matched in zip(views, matches, strict=True) if matched]
        if len(found) > _MAX_RESULTS:
            raise RpcError(REFUSED, f"query returned more than {_MAX_RESULTS} results: ask for fewer blocks")
    return found


def _blocks(node: Node, criteria: dict[str, Any], find_block: FindBlock) -> Sequence[Block]:
    if "blockHash" in criteria:
        if "fromBlock" in criteria or "toBlock" in criteria:
            raise RpcError(INVALID_PARAMS, "cannot specify both blockHash and fromBlock/toBlock, choose one of them")
        block = node.chain.block_by_hash(read_hash(criteria["blockHash"], "filter.blockHash"))
        if block is None:
            raise RpcError(REFUSED, "unknown block")
        return [block]
    head = node.chain.head.number
    first = find_block(node, criteria.get("fromBlock") or "latest", "filter.fromBlock")
    last = find_block(node, criteria.get("toBlock") or "latest", "filter.toBlock")
    start = head + 1 if first is None else first.number
    end = head if last is None else last.number
    if first is not None and last is not None and start > end:
        raise RpcError(INVALID_PARAMS, f"invalid block range params: from {start} is after {end}")
    return [block for number in range(start, end + 1) if (block := node.chain.block(number))]


def _addresses(given: Any) -> frozenset[bytes] | None:
    if given is None:
        return None
    return frozenset(read_address(each, "filter.address") for each in _several(given, "filter.address")) or None


def _topics(given: Any) -> list[frozenset[bytes] | None]:
    if given is None:
        return []
    several = read_list(given, "filter.topics")
    if len(several) > _MAX_TOPICS:
        raise invalid("filter.topics", f"a list of at most {_MAX_TOPICS}", several)
    topics: list[frozenset[bytes] | None] = []
    for index, wanted in enumerate(several):
        name = f"filter.topics[{index}]"
        if wanted is None or wanted == []:
            topics.append(None)
        else:
            topics.append(frozenset(read_hash(each, name) for each in _several(wanted, name)))
    return topics


def _several(given: Any, name: str) -> list[Any]:
    """A list as it is, a single value as a list of one."""
    return read_list(given, name) if isinstance(given, list) else [given]


def _matches(log: Log, addresses: frozenset[bytes] | None, topics: list[frozenset[bytes] | None]) -> bool:
    if addresses is not None and log.address not in addresses:
        return False
    if len(topics) > len(log.topics):
        return False
    return all(wanted is None or topic in wanted for wanted, topic in zip(topics, log.topics, strict=False))
