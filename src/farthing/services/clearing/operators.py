"""What operators and payees ask. Each change is in the audit log before it is made."""

from __future__ import annotations

import hashlib
import secrets
from typing import Final

from farthing.clearing.books import Books
from farthing.clearing.settlement import AssignSuspense, DecideDispute
from farthing.clearing.store import (
    AddToken,
    Balances,
    Caller,
    FindPayee,
    Listing,
    Payee,
    ProvePayee,
    RegisterPayee,
    RegisterPayer,
    RevokeToken,
    SetPayerState,
)
from farthing.evm.addresses import AddressInvalid, checksum_address, parse_address
from farthing.protocol.clearing import Standing
from farthing.protocol.statements import Dispute, PayeeStatus
from farthing.services.clearing.api import (
    PAGE_MAX,
    AssignRequest,
    DecisionRequest,
    Done,
    Entries,
    PayeeAnswer,
    PayeeRequest,
    PayerRequest,
    PayerStateRequest,
    TokenAnswer,
    TokenRequest,
    WindowAnswer,
)
from farthing.services.clearing.callers import EDGE, OPERATOR, PAYEE
from farthing.services.clearing.edges import standing_of
from farthing.services.clearing.refusals import Refused
from farthing.services.clearing.service import ClearingService
from farthing.world.clearing_proof import PATH, RECORD, shows

_TOKEN_BYTES: Final = 32
_CHALLENGE_BYTES: Final = 16
# What lists are counted by: the member of an entry that the next page begins after.
_KEYS: Final = {
    "payers": "directory",
    "payees": "name",
    "windows": "number",
    "leases": "lease",
    "payouts": "payout",
    "covers": "cover",
    "movements": "movement",
    "suspense": "movement",
    "disputes": "dispute",
    "keys": "key",
    "borne": "borne",
    "tokens": "name",
    "audit": "entry",
}
_LIMIT_MAX: Final = 10**15


class Operating:
    """Handlers of operators' and payees' doors."""

    def __init__(self, service: ClearingService) -> None:
        """Serve from `service`."""
        self._service = service

    async def register_payer(self, caller: Caller, body: PayerRequest) -> Standing:
        """Open a payer's account, or change its limit."""
        directory = body.payer.rstrip("/")
        if not directory.startswith(("https://", "http://")) or int(body.credit_limit) > _LIMIT_MAX:
            what = f"`payer` is the origin of the agent's directory, and a limit at most {_LIMIT_MAX}."
            raise Refused("malformed-request", what, path="$.payer")
        if body.currency not in self._service.desk.rails:
            raise Refused("malformed-request", f"No rail here pays {body.currency}.", path="$.currency")
        now_seconds = await self._service.note(
            caller, "register payer", directory, f"{body.credit_limit} {body.currency}"
        )
        effect = RegisterPayer(directory, body.currency, int(body.credit_limit), now_seconds)
        if await self._service.ask(effect) is None:
            raise Refused("conflict", f"{directory} has its account in another currency.")
        return await standing_of(self._service, directory)

    async def payer_state(self, caller: Caller, body: PayerStateRequest) -> Done:
        """Suspend a payer, or let it go on."""
        await self._service.note(caller, body.state, body.payer, body.why)
        if not await self._service.ask(SetPayerState(body.payer, body.state, body.why)):
            raise Refused("not-found", f"{body.payer[:200]} has no account here.")
        return Done()

    async def register_payee(self, caller: Caller, body: PayeeRequest) -> PayeeAnswer:
        """Open a payee's account, or change where it lives and is paid: then it is proved again."""
        try:
            address = checksum_address(parse_address(body.address))
        except AddressInvalid as error:
            raise Refused("malformed-request", str(error), path="$.address") from None
        if " " in body.payee:
            raise Refused("malformed-request", "A payee's name has no space.", path="$.payee")
        challenge = f"farthing-clearing={secrets.token_hex(_CHALLENGE_BYTES)}"
        now_seconds = await self._service.note(caller, "register payee", body.payee, f"{body.domain} {address}")
        effect = RegisterPayee(body.payee, body.domain, body.currency, address, challenge, now_seconds)
        payee = await self._service.ask(effect)
        if payee is None:
            raise Refused("conflict", f"{body.payee} has its account in another currency.")
        return answer_of(payee)

    async def _payee(self, caller: Caller, name: str) -> Payee:
        found = await self._service.ask(FindPayee(name))
        if found is None or (caller.role == PAYEE and name not in caller.subject.split()):
            raise Refused("not-found", f"{name[:128]} is no payee of this account.")
        return found

    async def prove(self, caller: Caller, payee: str) -> PayeeAnswer:
        """Look whether the payee's domain shows its challenge."""
        found = await self._payee(caller, payee)
        if not await shows(found.domain, found.challenge, private_domains=self._service.private_domains):
            what = f"https://{found.domain}{PATH}, or a text record of {RECORD}.{found.domain}"
            raise Refused("conflict", f"{what}, must show {found.challenge}.", reason="not_proved")
        now_seconds = await self._service.note(caller, "prove payee", payee, found.domain)
        await self._service.ask(ProvePayee(payee, found.challenge, now_seconds))
        return answer_of(await self._payee(caller, payee))

    async def payee(self, caller: Caller, payee: str) -> PayeeStatus:
        """How a payee stands."""
        found = await self._payee(caller, payee)
        posted, promised = await self._service.ask(Balances()), await self._service.ask(Balances(pending=True))
        books = Books(self._service.desk.rules.network, found.currency)
        cleared = books.cleared(found.key).name
        instructed = -promised.get(cleared, 0)
        return PayeeStatus(
            payee=payee,
            currency=found.currency,
            accrued=str(posted.get(books.accrued(found.key).name, 0)),
            held=str(posted.get(books.held(found.key).name, 0)),
            cleared=str(posted.get(cleared, 0) - instructed),
            instructed=str(instructed),
            paid=str(await self._paid(payee)),
            guaranteed=bool(found.guaranteed),
            borne=str(posted.get(books.borne(found.key).name, 0)),
        )

    async def _paid(self, payee: str) -> int:
        total, after = 0, ""
        while page := await self._service.ask(Listing("payouts", after, PAGE_MAX)):
            total += sum(each["amount"] for each in page if each["name"] == payee and each["state"] == "settled")
            after = page[-1]["payout"]
        return total

    async def make_token(self, caller: Caller, body: TokenRequest) -> TokenAnswer:
        """Make a bearer token: it is shown once, and kept as a hash."""
        if body.role != OPERATOR and not body.subject:
            raise Refused("malformed-request", f"A token of the role {body.role} has a subject.", path="$.subject")
        if body.role == EDGE and body.name.rpartition(".")[2].isdecimal():
            what = "An edge's name does not end with a dot and a number: its second process has such a label."
            raise Refused("malformed-request", what, path="$.name")
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        digest = hashlib.sha256(token.encode()).hexdigest()
        now_seconds = await self._service.note(caller, "make token", body.name, f"{body.role} {body.subject}")
        if not await self._service.ask(AddToken(digest, body.name, body.role, body.subject, now_seconds)):
            raise Refused("conflict", f"There is a token called {body.name}.")
        return TokenAnswer(body.name, token)

    async def revoke_token(self, caller: Caller, name: str) -> Done:
        """Revoke a token."""
        now_seconds = await self._service.note(caller, "revoke token", name)
        if not await self._service.ask(RevokeToken(name, now_seconds)):
            raise Refused("not-found", f"There is no token called {name[:64]}.")
        return Done()

    async def decide(self, caller: Caller, dispute: str, body: DecisionRequest) -> Dispute:
        """Decide a dispute."""
        now_seconds = await self._service.note(caller, "grant" if body.granted else "reject", dispute, body.note)
        effect = DecideDispute(
            dispute, granted=body.granted, note=body.note, rules=self._service.desk.rules, now_seconds=now_seconds
        )
        decided = await self._service.ask(effect)
        if decided is None:
            raise Refused("not-found", f"{dispute[:64]} is no open dispute.")
        return decided

    async def close_window(self, caller: Caller) -> WindowAnswer:
        """Close the open window now, whatever its time."""
        await self._service.note(caller, "close window", "")
        closed = await self._service.close_window(force=True)
        return WindowAnswer("" if closed is None else str(closed.number))

    async def assign(self, caller: Caller, body: AssignRequest) -> Done:
        """Give money in suspense to a payer's balance."""
        now_seconds = await self._service.note(caller, "assign", f"{body.transaction}:{body.log_index}", body.payer)
        network = self._service.rail.token.network
        effect = AssignSuspense(
            network, body.transaction, body.log_index, body.payer, self._service.desk.rules, now_seconds
        )
        if not await self._service.ask(effect):
            raise Refused("conflict", "No such money is in suspense, or there is no such payer in its currency.")
        return Done()

    async def list_(self, _caller: Caller, what: str, after: str) -> Entries:
        """List accounts, windows, payouts and the like."""
        if what not in _KEYS:
            raise Refused("not-found", f"There are lists of {', '.join(_KEYS)}.")
        entries = await self._service.ask(Listing(what, after, PAGE_MAX))
        return Entries(entries, str(entries[-1][_KEYS[what]]) if len(entries) == PAGE_MAX else "")


def answer_of(payee: Payee) -> PayeeAnswer:
    """Write a payee's account."""
    return PayeeAnswer(
        payee=payee.name,
        domain=payee.domain,
        address=payee.address,
        currency=payee.currency,
        challenge=payee.challenge,
        proved=payee.proved_at is not None,
        guaranteed=bool(payee.guaranteed),
    )
