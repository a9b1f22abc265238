"""What a flow asks a chain node: one effect, one batched round trip."""

from __future__ import annotations

from typing import Any

import msgspec

from farthing.flow import Effect


class NodeCall(msgspec.Struct, frozen=True):
    """One JSON-RPC call, as `eth_call` and its like take it."""

    method: str
    params: tuple[Any, ...] = ()


class NodeFailure(msgspec.Struct, frozen=True):
    """The node's own refusal of one call: JSON-RPC 2.0, section 5.1 (a revert has code 3 and its data)."""

    code: int
    message: str
    data: Any = None


class AskNode(Effect["tuple[Any, ...]"], frozen=True):
    """Send `calls` to a node of `network` (CAIP-2) in one batch.

    The answer has one entry a call, in their order: the JSON result, or a `NodeFailure`. An outage, a time-out or an
    answer that is not JSON-RPC raises `NodeUnavailable`; it is never turned into a result.
    """

    network: str
    calls: tuple[NodeCall, ...]
