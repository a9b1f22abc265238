"""What operators and payers declare of keys. Each declaration is in the audit log before it is made."""

from __future__ import annotations

from farthing.clearing.compromise import CompromisedKey, DeclareCompromised, FindCompromised
from farthing.clearing.intake import SKEW_SECONDS
from farthing.clearing.store import Caller, FindPayer
from farthing.protocol.clearing import COMPROMISED_MAX
from farthing.services.clearing.api import KeyAnswer, KeyRequest
from farthing.services.clearing.callers import PAYER
from farthing.services.clearing.refusals import Refused
from farthing.services.clearing.service import ClearingService


class Declaring:
    """Handler of the door that keys are declared at."""

    def __init__(self, service: ClearingService) -> None:
        """Serve from `service`."""
        self._service = service

    async def declare_key(self, caller: Caller, body: KeyRequest) -> KeyAnswer:
        """Declare a key compromised.

        What was declared first stands, whoever says it again and whatever time it names.
        """
        directory = body.payer.rstrip("/") or caller.subject
        if caller.role == PAYER and directory != caller.subject:
            raise Refused("forbidden", f"The token is of {caller.subject}, who declares no keys of others.")
        if await self._service.ask(FindPayer(directory)) is None:
            raise Refused("not-found", f"{directory[:200]} has no account here.")
        for known in await self._service.ask(FindCompromised(directory)):
            if known.thumbprint == body.thumbprint:
                return _answer_of(known)
        now_seconds = await self._service.now()
        since = now_seconds if body.since is None else body.since
        if since > now_seconds + SKEW_SECONDS:
            what = "A key is declared compromised when that is known: `since` is a time in the future."
            raise Refused("malformed-request", what, path="$.since")
        what = f"{body.thumbprint} since {since}"
        await self._service.note(caller, "declare compromised", directory, what)
        found = await self._service.ask(DeclareCompromised(directory, body.thumbprint, since, caller.name, now_seconds))
        if isinstance(found, CompromisedKey):
            return _answer_of(found)
        what = f"{directory} has declared {COMPROMISED_MAX} keys, which is all that edges are told: suspend it."
        raise Refused("conflict", what, reason=found)


def _answer_of(key: CompromisedKey) -> KeyAnswer:
    return KeyAnswer(key.directory, key.thumbprint, key.since, key.declared_at, key.declared_by, key.billed_until)
