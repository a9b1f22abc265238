"""What edges ask: a new life, credit, and that their commitments are taken."""

from __future__ import annotations

from farthing.clearing.compromise import FindCompromised
from farthing.clearing.rules import room
from farthing.clearing.store import Caller, CloseLease, FindPayer, GrantLease, LeaseRefused, StartEdge
from farthing.protocol.clearing import (
    EdgeStarted,
    Lease,
    LeaseClose,
    LeaseClosed,
    LeaseRequest,
    Standing,
    UploadAnswer,
)
from farthing.services.clearing.callers import PAYER
from farthing.services.clearing.refusals import Refused
from farthing.services.clearing.service import ClearingService


class Edges:
    """Handlers of edges' doors. A token's name is the edge's; its subject, by spaces, the payees it bills for.

    The processes of one edge that share its store have labels of their own, `news-1.2` beside `news-1`, and its token.
    """

    def __init__(self, service: ClearingService) -> None:
        """Serve from `service`."""
        self._service = service

    async def start_edge(self, caller: Caller, edge: str) -> EdgeStarted:
        """Begin a new life of an edge: older ones get no lease any more."""
        _own(caller, edge)
        rules = self._service.desk.rules
        epoch = await self._service.ask(StartEdge(edge, await self._service.now()))
        return EdgeStarted(edge, epoch, rules.network, rules.lease_seconds_max, rules.offline_limit_seconds)

    async def grant_lease(self, caller: Caller, body: LeaseRequest) -> Lease:
        """Grant credit, or say why not."""
        _own(caller, body.edge)
        service = self._service
        effect = GrantLease(body, service.lease_name(), service.desk.rules, await service.now())
        answer = await service.ask(effect)
        if isinstance(answer, LeaseRefused):
            kind = "conflict" if answer.reason == "fenced" else "no-credit"
            raise Refused(kind, answer.detail, reason=answer.reason)
        return answer

    async def close_lease(self, caller: Caller, body: LeaseClose) -> LeaseClosed:
        """Take a lease back."""
        edge = body.edge or caller.name
        _own(caller, edge)
        answer = await self._service.ask(CloseLease(edge, body, await self._service.now()))
        if answer is None:
            raise Refused("not-found", f"{body.lease} is no lease of this edge.")
        return answer

    async def upload(self, caller: Caller, body: bytes) -> UploadAnswer:
        """Take an upload."""
        answer = await self._service.take(body, frozenset(caller.subject.split()), lambda edge: is_own(caller, edge))
        if answer is None:
            detail = "This edge, epoch and sequence named another upload before, or the upload is another edge's."
            raise Refused("conflict", detail, reason="sequence_reused")
        return answer

    async def standing(self, caller: Caller, payer: str) -> Standing:
        """How a payer stands: its own where a payer asks."""
        directory = caller.subject if caller.role == PAYER else payer
        return await standing_of(self._service, directory)


async def standing_of(service: ClearingService, directory: str) -> Standing:
    """Give a payer's standing. Raises `Refused`."""
    found = await service.ask(FindPayer(directory))
    if found is None:
        raise Refused("not-found", f"{directory[:200]} has no account here.")
    told = await service.ask(FindCompromised(directory))
    free = room(credit_limit=found.credit_limit, prepaid=found.prepaid, owed=found.owed, leased=found.leased)
    return Standing(
        payer=found.directory,
        state=found.state,
        currency=found.currency,
        credit_limit=str(found.credit_limit),
        prepaid=str(found.prepaid),
        owed=str(found.owed),
        leased=str(found.leased),
        exposure=str(found.credit_limit + found.prepaid - free),
        compromised=tuple(each.thumbprint for each in told),
    )


def is_own(caller: Caller, edge: str) -> bool:
    """Tell whether a label is the token's: its name, or its name with the number of a process."""
    name, _, number = edge.rpartition(".")
    return edge == caller.name or (name == caller.name and number.isdecimal() and number.isascii())


def _own(caller: Caller, edge: str) -> None:
    if not is_own(caller, edge):
        raise Refused("forbidden", f"The token is of the edge {caller.name}, not of {edge[:64]}.")
