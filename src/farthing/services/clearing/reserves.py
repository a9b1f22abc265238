"""What operators ask about the reserve, and whom it guarantees. Each change is in the audit log before it is made."""

from __future__ import annotations

from typing import Final

from farthing.clearing.guarantee import FindReserve, FundReserve, GuaranteePayee, TakeReserve
from farthing.clearing.store import Caller, FindPayee, Payee
from farthing.services.clearing.api import (
    Done,
    FundRequest,
    GuaranteeRequest,
    PayeeAnswer,
    ReserveStatus,
    TakeRequest,
)
from farthing.services.clearing.operators import answer_of
from farthing.services.clearing.refusals import Refused
from farthing.services.clearing.service import ClearingService

# Why nothing was taken: the kind of problem, and words.
_NOT_TAKEN: Final = {
    "unknown_payee": ("not-found", "There is no such payee."),
    "too_much": ("conflict", "There is less than that in the reserve, beside what it guarantees of issued statements."),
    "request_reused": ("conflict", "Another amount, or for another payee, was taken under this name."),
}


class Reserving:
    """Handlers of the reserve's doors."""

    def __init__(self, service: ClearingService) -> None:
        """Serve from `service`."""
        self._service = service

    async def _payee(self, name: str) -> Payee:
        found = await self._service.ask(FindPayee(name))
        if found is None:
            raise Refused("not-found", f"{name[:128]} is no payee of this house.")
        return found

    async def reserves(self, _caller: Caller) -> tuple[ReserveStatus, ...]:
        """How the reserve of each currency stands."""
        rules, now_seconds = self._service.desk.rules, await self._service.now()
        found = [
            await self._service.ask(FindReserve(currency, rules, now_seconds)) for currency in self._service.desk.rails
        ]
        return tuple(
            ReserveStatus(
                reserve=str(each.amount),
                currency=each.currency,
                recourse=str(each.recourse),
                guaranteed=str(each.guaranteed),
                uncovered=str(each.uncovered),
            )
            for each in found
        )

    async def fund(self, caller: Caller, body: FundRequest) -> Done:
        """Move money in suspense to the reserve."""
        rail = self._service.rail
        now_seconds = await self._service.note(
            caller, "fund reserve", f"{body.transaction}:{body.log_index}", rail.currency
        )
        place = (rail.token.network, body.transaction, body.log_index)
        if not await self._service.ask(FundReserve(*place, rail.currency, self._service.desk.rules, now_seconds)):
            raise Refused("conflict", "No such money is in suspense.")
        return Done()

    async def take_out(self, caller: Caller, body: TakeRequest) -> Done:
        """Take money out of the reserve, to be paid out to an account of the operator's own."""
        payee = await self._payee(body.payee)
        now_seconds = await self._service.note(caller, "take reserve", body.request, f"{body.amount} to {payee.name}")
        effect = TakeReserve(body.request, payee.name, int(body.amount), self._service.desk.rules, now_seconds)
        reason = await self._service.ask(effect)
        if reason:
            kind, what = _NOT_TAKEN[reason]
            raise Refused(kind, what, reason=reason)
        return Done()

    async def guarantee(self, caller: Caller, payee: str, body: GuaranteeRequest) -> PayeeAnswer:
        """Guarantee a payee's shares of the statements that are issued from now on, or no more."""
        found = await self._payee(payee)
        await self._service.note(caller, "guarantee payee", found.name, "on" if body.guaranteed else "off")
        await self._service.ask(GuaranteePayee(found.name, body.guaranteed))
        return answer_of(await self._payee(payee))
