"""What payers ask: statements, lines, proofs; and what they answer: disputes and payments."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from starlette.responses import Response, StreamingResponse

from farthing.clearing import flows
from farthing.clearing.rails import UnfitPayment
from farthing.clearing.rules import payer_key
from farthing.clearing.settlement import AcceptStatement, ListDisputes, PayFromBalance
from farthing.clearing.statements import as_csv, leaves_of, read_line
from farthing.clearing.states import ISSUED, SETTLED
from farthing.clearing.store import Caller, FindRun, FindStatement, ListStatements, StatementRecord
from farthing.protocol.signed_statements import open_statement
from farthing.protocol.statements import (
    DISPUTE_REASONS,
    Dispute,
    DisputeRequest,
    Proof,
    StatementAnswer,
    StatementPayment,
    StatementStatus,
)
from farthing.services.clearing.api import PAGE_MAX
from farthing.services.clearing.callers import PAYER
from farthing.services.clearing.pages import LINES_SHOWN, POLICY, statement_page
from farthing.services.clearing.refusals import Refused
from farthing.services.clearing.service import ClearingService

_CSV: Final = "csv"


def status_of(record: StatementRecord) -> StatementStatus:
    """Write where a statement stands."""
    payable = 0 if record.state == SETTLED else max(0, record.payable)
    return StatementStatus(
        statement=record.statement,
        payer=record.directory,
        window=str(record.window),
        currency=record.currency,
        state=record.state,
        net=str(record.net),
        disputed=str(record.disputed),
        payable=str(payable),
        due=record.due_at,
        transaction=record.transaction,
    )


class Payers:
    """Handlers of payers' doors. A payer sees its own statements alone; an operator sees all."""

    def __init__(self, service: ClearingService) -> None:
        """Serve from `service`."""
        self._service = service

    async def _find(self, caller: Caller, statement: str) -> StatementRecord:
        record = await self._service.ask(FindStatement(statement))
        if record is None or (caller.role == PAYER and record.directory != caller.subject):
            raise Refused("not-found", f"{statement[:64]} is no statement of this account.")
        return record

    async def statements(self, caller: Caller, after: str, state: str, payer: str) -> tuple[StatementStatus, ...]:
        """List statements by id, a page at a time."""
        directory = caller.subject if caller.role == PAYER else payer
        owner = payer_key(directory) if directory else None
        records = await self._service.ask(ListStatements(owner, state, after, PAGE_MAX))
        return tuple(map(status_of, records))

    async def statement(self, caller: Caller, statement: str) -> StatementAnswer:
        """Give a statement, signed."""
        record = await self._find(caller, statement)
        return StatementAnswer(record.jws, status_of(record))

    async def lines(self, caller: Caller, statement: str, format: str) -> Response:  # noqa: A002 - the query's name
        """Give all lines, a run at a time."""
        await self._find(caller, statement)
        csv = format == _CSV
        disposition = {"Content-Disposition": f'attachment; filename="{statement}.{"csv" if csv else "ndjson"}"'}
        media = "text/csv; charset=utf-8" if csv else "application/x-ndjson"
        return StreamingResponse(self._runs(statement, csv=csv), media_type=media, headers=disposition)

    async def _runs(self, statement: str, *, csv: bool) -> AsyncIterator[bytes]:
        number = 0
        while (body := await self._service.ask(FindRun(statement, number))) is not None:
            leaves = leaves_of(body)
            yield b"".join(as_csv(leaves, header=number == 0)) if csv else b"\n".join(leaves) + b"\n"
            number += 1

    async def page(self, caller: Caller, statement: str) -> Response:
        """Give the page for people."""
        record = await self._find(caller, statement)
        body = await self._service.ask(FindRun(statement, 0))
        leaves = [] if body is None else leaves_of(body)
        opened, *_ = open_statement(record.jws)
        page = statement_page(opened, status_of(record), map(read_line, leaves[:LINES_SHOWN]))
        headers = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Cache-Control": "private"}
        return Response(page, media_type="text/html; charset=utf-8", headers=headers)

    async def proof(self, caller: Caller, statement: str, line: str) -> Proof:
        """Prove a line."""
        record = await self._find(caller, statement)
        found = await self._service.work(flows.prove(record, line))
        if found is None:
            raise Refused("not-found", f"{line[:100]} is no line of {statement}.")
        return found

    async def disputes(self, caller: Caller, statement: str, after: str) -> tuple[Dispute, ...]:
        """List a statement's disputes."""
        await self._find(caller, statement)
        return await self._service.ask(ListDisputes(statement, "", after, PAGE_MAX))

    async def dispute(self, caller: Caller, statement: str, body: DisputeRequest) -> tuple[Dispute, ...]:
        """Dispute lines of a statement."""
        record = await self._find(caller, statement)
        for number, each in enumerate(body.lines):
            if each.reason not in DISPUTE_REASONS:
                what = f"{each.reason!r} is no reason; there are {', '.join(DISPUTE_REASONS)}."
                raise Refused("malformed-request", what, path=f"$.lines[{number}].reason")
        opened = await self._service.work(flows.dispute(self._service.desk, record, body.lines))
        if isinstance(opened, str):
            reason, _, what = opened.partition(" ")
            raise Refused("conflict", f"The lines can't be disputed: {reason} {what}".rstrip() + ".", reason=reason)
        await self._service.note(caller, "dispute", statement, f"{len(opened)} lines")
        return opened

    async def pay(self, caller: Caller, statement: str, body: StatementPayment) -> StatementStatus:
        """Accept a statement and pay it."""
        record = await self._find(caller, statement)
        service = self._service
        now_seconds = await service.now()
        if record.state == SETTLED:
            return status_of(record)
        if body.prepaid:
            if not await service.ask(PayFromBalance(statement, service.desk.rules, now_seconds)):
                what = (
                    "The prepaid balance does not reach (what guarantees of other statements count on is not spent), "
                    "or a payment is under way."
                )
                raise Refused("refused", what)
        elif body.payment is None:
            raise Refused("malformed-request", "Give `payment`, or say `prepaid`.", path="$.payment")
        else:
            fit = service.desk.rails[record.currency].fit(body.payment, record, now_seconds=now_seconds)
            if isinstance(fit, UnfitPayment):
                raise Refused("refused", fit.detail, reason=fit.reason)
            accepted = AcceptStatement(statement, fit.payment, fit.until, record.disputed)
            if not await service.ask(accepted) and record.state == ISSUED:
                raise Refused("conflict", "The statement's disputes have changed, or another payment is under way.")
        await service.note(caller, "pay", statement, "prepaid" if body.prepaid else "")
        return status_of(await self._find(caller, statement))
