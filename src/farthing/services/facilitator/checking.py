"""Whether the nodes of a configuration answer, and for the chain that the configuration says."""

from __future__ import annotations

from collections.abc import Mapping

from farthing.errors import NodeError
from farthing.evm.node import AskNode, NodeCall
from farthing.facilitator.chain import block_call, read_head
from farthing.world.jsonrpc import Node, Nodes
from farthing.world.performers import Performer


async def check_nodes(node_urls: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Ask each network's node for its chain: an empty text where it is the configured one, else what is wrong."""
    nodes = Nodes({network: Node(network, urls) for network, urls in node_urls.items()})
    performer = Performer(nodes.handlers())
    found: dict[str, str] = {}
    try:
        for network in node_urls:
            found[network] = await _check_node(performer, network)
    finally:
        await nodes.aclose()
    return found


async def _check_node(performer: Performer, network: str) -> str:
    try:
        calls = (NodeCall("eth_chainId"), block_call("latest"))
        chain_id, head = await performer.awaiting(AskNode(network, calls))
        if not isinstance(chain_id, str) or f"eip155:{int(chain_id, 16)}" != network:
            return f"The node serves another chain: {str(chain_id)[:80]!r}."
        return "" if read_head(head) is not None else "The node has no block."
    except (NodeError, ValueError) as error:
        return str(error)
