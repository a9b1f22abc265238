"""Reconciliation for operators: every payment that is not over, looked up on chain and compared with the ledger.

Reads store and chain and changes neither, beside running services too; it needs no key.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from farthing.errors import NodeUnavailable, StoreError
from farthing.evm.node import AskNode, NodeCall
from farthing.facilitator.chain import Head, block_call, read_final_head, read_head, read_receipt, receipt_call
from farthing.facilitator.reconcile import Finding, could_not, find_out
from farthing.facilitator.states import CONFIRMED, FINAL, IN_BATCH, READY, RECEIVED, REFUSED
from farthing.facilitator.store import FindRecord, LoadBodies, PaymentRecord
from farthing.mechanisms.exact_evm import ExactEvmFacilitator
from farthing.mechanisms.interface import Evidence, FacilitatorMechanism, SignedPayment
from farthing.mechanisms.registry import Registry
from farthing.protocol.codec import decode_payment_json
from farthing.services.facilitator.config import Config, networks_of, urls_of
from farthing.world.facilitator_store import FacilitatorStore
from farthing.world.jsonrpc import Node, Nodes
from farthing.world.performers import Performer

# What is not over by its state; and what is, which is looked at where all are asked for.
OPEN: Final = (RECEIVED, READY, IN_BATCH, CONFIRMED)
OVER: Final = (FINAL, REFUSED)
# Payments read from the store at once.
PAGE_ROWS: Final = 200


class Reconciliation:
    """Looks payments up, one by one."""

    def __init__(self, config: Config, *, environment: Mapping[str, str] | None = None) -> None:
        """Take the service's own configuration. Raises `ConfigError`."""
        source = os.environ if environment is None else environment
        self._networks = networks_of(config)
        self._urls = {table.id: urls_of(table, source) for table in config.network}
        self._store_url = config.store
        self._mechanisms: Registry[FacilitatorMechanism] = Registry([ExactEvmFacilitator(self._networks)])

    async def run(self, *, everything: bool = False) -> AsyncIterator[Finding]:
        """Find out about each payment that is not over, or about all. Raises `StoreError`."""
        store = FacilitatorStore(self._store_url)
        nodes = Nodes({network: Node(network, urls) for network, urls in self._urls.items()})
        looking = _Looking(self, store, Performer({**store.handlers(), **nodes.handlers()}))
        try:
            for state in (*OPEN, *OVER) if everything else OPEN:
                after = ""
                while records := store.books.payments(state=state, after=after, rows_max=PAGE_ROWS):
                    after = records[-1].payment_id
                    for record in records:
                        yield await looking.twice(record)
        finally:
            await nodes.aclose()
            store.close()

    def depth(self, network: str) -> int:
        """How deep evidence must be in the chain to count, the block itself being 1."""
        known = self._networks.find(network)
        return known.confirmations if known is not None else 1

    def find_face(self, scheme: str, network: str) -> FacilitatorMechanism | None:
        """Find the mechanism of a payment; None where it is not configured any more."""
        return self._mechanisms.find(scheme, network) if network in self._urls else None


class _Looking:
    def __init__(self, about: Reconciliation, store: FacilitatorStore, performer: Performer) -> None:
        self._about, self._store, self._performer = about, store, performer

    async def twice(self, record: PaymentRecord) -> Finding:
        """Look again where store and chain differ: a service beside may have been about to record it."""
        finding = await self.at(record)
        if finding.agrees:
            return finding
        again = await self._performer.awaiting(FindRecord(record.payment_id))
        return await self.at(again or record)

    async def at(self, record: PaymentRecord) -> Finding:
        booked = sum((-1 if row.reverses else 1) * row.amount for row in self._credits(record))
        face = self._about.find_face(record.scheme, record.network)
        if face is None:
            why = f"{record.scheme} on {record.network} is not in the configuration any more."
            return could_not(record, why, booked=booked)
        bodies = await self._performer.awaiting(LoadBodies((record.payment_id,)))
        body = bodies.get(record.payment_id)
        if body is None:
            message = f"{record.payment_id} has no body in the store."
            raise StoreError(message)
        signed = face.read(decode_payment_json(body.payment))
        try:
            head, final, evidence = await self._ask(record, face, signed)
        except NodeUnavailable as error:
            return could_not(record, str(error), booked=booked)
        depth = self._about.depth(record.network)
        return find_out(record, evidence, head=head, final=final, depth=depth, booked=booked)

    def _credits(self, record: PaymentRecord) -> list[Any]:
        return [row for row in self._store.books.entries(record.payment_id) if row.side == "credit"]

    async def _ask(
        self, record: PaymentRecord, face: FacilitatorMechanism, signed: SignedPayment
    ) -> tuple[Head, Head | None, Evidence]:
        """Ask for the head, the finalised block, and the evidence; by the receipt where a block is on record.

        Raises `NodeUnavailable`.
        """
        heads = (block_call("latest"), block_call("finalized"))
        if record.block_number is not None:
            calls = (*heads, receipt_call(record.transaction), block_call(record.block_number))
            latest, finalised, answer, block = await self._performer.awaiting(AskNode(record.network, calls))
            receipt, stands = read_receipt(answer), read_head(block)
            head = _head(latest)
            # A receipt counts in the block that the chain has at its height; else the search decides.
            if (
                receipt is not None
                and stands is not None
                and (receipt.block_hash, receipt.transaction)
                == (
                    stands.hash,
                    record.transaction,
                )
            ):
                return head, read_final_head(finalised), face.judge_receipt(signed, receipt.raw)
        search: tuple[NodeCall, ...] = face.evidence_calls(signed, from_block=record.recorded_block)
        latest, finalised, *answers = await self._performer.awaiting(AskNode(record.network, (*heads, *search)))
        return _head(latest), read_final_head(finalised), face.judge_evidence(signed, tuple(answers))


def _head(answer: Any) -> Head:
    head = read_head(answer)
    if head is None:
        message = "The node has no latest block."
        raise NodeUnavailable(message)
    return head
