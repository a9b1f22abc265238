"""Reconciliation with the world: finds out what became of every payment that nobody answered for.

    for finding in Reconciliation(journal, nodes={"eip155:8453": ["https://…"]}).blocking():
        print(finding.purchase.payment_id, finding.verdict, finding.evidence[0].says)

It needs no key, since nothing is signed. What it finds stands in the journal when it is told.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from farthing.buyer.journal import OpenEntry, PresentAgain
from farthing.buyer.reconcile import Finding, PresentedAnswer, PresentPayment, Ways, find_out, open_entries
from farthing.buyer.verdict import NoAnswer, PaidAnswer
from farthing.errors import ConfigError
from farthing.flow import Effect, drive, drive_async
from farthing.mechanisms.exact_evm import ExactEvmTracer
from farthing.mechanisms.interface import Tracer
from farthing.mechanisms.registry import Registry
from farthing.protocol.http import PAYMENT_REQUIRED, STATUS_PAYMENT_REQUIRED
from farthing.world.journal import Journal
from farthing.world.performers import Performer, system_handlers

if TYPE_CHECKING:
    from farthing.protocol.facilitator import Facilitator

# A seller that settles waits for a block or two; its answer is kept whole up to this.
PRESENT_TIMEOUT_SECONDS: Final = 60.0
PRESENT_BODY_MAX_BYTES: Final = 16 * 1024 * 1024


class Reconciliation:
    """Asks whom it is told of, about each open payment of a journal, oldest first.

    Args:
        journal: the buyer's journal.
        nodes: by network (CAIP-2) the URLs of its nodes; each is asked by itself, and no two may disagree.
        facilitator: asked at `/payments`: a URL, or a `Facilitator`.
        present: present each payment to its seller again, where its request is on record whole (it had no body).
        tracers: how payments are found on chain; by default `exact` on EVM networks.

    Raises `ConfigError` where there is nobody to ask.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        nodes: Mapping[str, Sequence[str]] | None = None,
        facilitator: Facilitator | str | None = None,
        present: bool = False,
        tracers: Iterable[Tracer] | None = None,
    ) -> None:
        """Open nothing yet; the class says what each is."""
        if not nodes and facilitator is None and not present:
            message = "There is nobody to ask: name nodes, a facilitator, or let the payments be presented again."
            raise ConfigError(message)
        self._journal = journal
        self._busy_with: set[str] = set()
        handlers: dict[type[Effect[Any]], Any] = {**system_handlers(), **journal.handlers()}
        names = {
            network: tuple(f"{network}#{at}" for at, _ in enumerate(urls)) for network, urls in (nodes or {}).items()
        }
        self._close: list[Callable[[], Coroutine[Any, Any, None]]] = []
        if nodes:
            handlers |= self._node_handlers(nodes)
        if facilitator is not None:
            handlers |= self._facilitator_handlers(facilitator)
        if present:
            handlers[PresentPayment] = self._presenter()
            handlers[PresentAgain] = self._noting(handlers[PresentAgain])
        self._performer = Performer(handlers)
        faces: Iterable[Tracer] = (ExactEvmTracer(),) if tracers is None else tracers
        self._ways = Ways(tracers=Registry(faces), nodes=names, facilitator=facilitator is not None, present=present)

    def blocking(self) -> Iterator[Finding]:
        """Find out, one payment after the other, waiting in this thread."""
        from farthing.world.loop import run_blocking  # noqa: PLC0415 - as below

        try:
            for entry in drive(open_entries(), self._performer.blocking):
                try:
                    yield drive(find_out(entry, self._ways), self._performer.blocking)
                finally:
                    self._done(entry)
        finally:
            for close in self._close:
                run_blocking(close())

    async def awaiting(self) -> AsyncIterator[Finding]:
        """Find out, one payment after the other, on the running loop."""
        try:
            for entry in await drive_async(open_entries(), self._performer.awaiting):
                try:
                    yield await drive_async(find_out(entry, self._ways), self._performer.awaiting)
                finally:
                    self._done(entry)
        finally:
            for close in self._close:
                await close()

    def _noting(self, present_again: Callable[[Any], Any]) -> Callable[[PresentAgain], Any]:
        def note(effect: PresentAgain) -> Any:
            self._busy_with.add(effect.purchase_id)
            return present_again(effect)

        return note

    def _done(self, entry: OpenEntry) -> None:
        # From then on the journal takes what is not concluded for open again.
        if entry.purchase.purchase_id in self._busy_with:
            self._journal.end(entry.purchase.purchase_id)

    def _node_handlers(self, nodes: Mapping[str, Sequence[str]]) -> dict[type[Effect[Any]], Any]:
        from farthing.world.jsonrpc import Node, Nodes  # noqa: PLC0415 - it loads an HTTP client that a buyer may not have

        table = {
            f"{network}#{at}": Node(network, [url]) for network, urls in nodes.items() for at, url in enumerate(urls)
        }
        opened = Nodes(table)
        self._close.append(opened.aclose)
        return opened.handlers()

    def _facilitator_handlers(self, facilitator: Facilitator | str) -> dict[type[Effect[Any]], Any]:
        from farthing.world.facilitator_client import (  # noqa: PLC0415 - likewise
            RemoteFacilitator,
            facilitator_handlers,
        )

        if not isinstance(facilitator, str):
            return facilitator_handlers(facilitator)
        opened = RemoteFacilitator(facilitator)
        self._close.append(opened.aclose)
        return facilitator_handlers(opened)

    def _presenter(self) -> Callable[[PresentPayment], Any]:
        from farthing.world.http import HttpClient, HttpTrouble  # noqa: PLC0415 - likewise

        client = HttpClient()
        self._close.append(client.aclose)

        async def present(effect: PresentPayment) -> PresentedAnswer:
            try:
                answer = await client.request(
                    effect.method,
                    effect.url,
                    headers={effect.name: effect.value},
                    timeout_seconds=PRESENT_TIMEOUT_SECONDS,
                    max_bytes=PRESENT_BODY_MAX_BYTES,
                )
            except HttpTrouble as error:
                return PresentedAnswer(NoAnswer(type(error).__name__))
            said = PaidAnswer(
                answer.status,
                answer.headers.get(effect.response_header),
                answer.headers.get(PAYMENT_REQUIRED),
                answer.body if answer.status == STATUS_PAYMENT_REQUIRED else b"",
            )
            return PresentedAnswer(said, answer.body)

        return present
