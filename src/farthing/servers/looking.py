"""A seller's own look on chain (`farthing.seller.looking`): every node of the network is asked by itself."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final

from farthing.errors import NodeError, RemoteProtocolError
from farthing.flow import Effect, drive_async
from farthing.mechanisms.exact_evm import ExactEvmTracer
from farthing.mechanisms.interface import SignedPayment, Traced, Tracer
from farthing.mechanisms.registry import Registry
from farthing.seller.looking import LookOnChain
from farthing.world.jsonrpc import Node, Nodes
from farthing.world.performers import Performer

# Looks of one process at once. Each is some round trips to a node, and a buyer may ask as often as it likes.
LOOKS_MAX: Final = 8


class Looking:
    """Performs `LookOnChain` by the nodes of `nodes`: by network (CAIP-2) the URLs of its nodes."""

    def __init__(self, nodes: Mapping[str, Sequence[str]]) -> None:
        """Open nothing yet. Raises `ConfigError` for what is no URL of a node."""
        table = {
            f"{network}#{at}": Node(network, [url]) for network, urls in nodes.items() for at, url in enumerate(urls)
        }
        self._names = {network: [f"{network}#{at}" for at, _ in enumerate(urls)] for network, urls in nodes.items()}
        self._perform = Performer(Nodes(table).handlers()).awaiting
        self._tracers: Registry[Tracer] = Registry([ExactEvmTracer()])
        self._lock = threading.Lock()
        self._under_way: set[str] = set()

    def handlers(self) -> dict[type[Effect[Any]], Any]:
        """Give the handlers, for a `Performer`."""
        return {LookOnChain: self.look}

    async def look(self, effect: LookOnChain) -> Traced | None:
        """Look for a payment; None where nothing is shown, which is no verdict."""
        accepted = effect.payment.accepted
        names, tracer = self._names.get(accepted.network, []), self._tracers.find(accepted.scheme, accepted.network)
        if not names or tracer is None:
            return None
        try:
            signed = tracer.read(effect.payment)
        except RemoteProtocolError:
            return None
        with self._lock:
            if signed.payment_id in self._under_way or len(self._under_way) >= LOOKS_MAX:
                return None
            self._under_way.add(signed.payment_id)
        try:
            found = await asyncio.gather(*(self._ask(tracer, signed, name, effect.recorded_at) for name in names))
        except NodeError:
            return None
        finally:
            with self._lock:
                self._under_way.discard(signed.payment_id)
        agreed = {(each.verdict, each.transaction) for each in found}
        return found[0] if len(agreed) == 1 else None

    async def _ask(self, tracer: Tracer, signed: SignedPayment, node: str, recorded_at: int) -> Traced:
        return await drive_async(tracer.trace(signed, node=node, recorded_at=recorded_at), self._perform)
