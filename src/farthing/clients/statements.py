"""The auditor as an object: fetches statements, compares them with the journal, disputes, and pays what is owed.

    auditor = Auditor("https://clearing.example", token, payer="https://crawler.example", network="clearing:house",
                      journal=journal, signer=signer, per_statement="$50", per_window="$100")
    for conclusion in auditor.round():
        print(conclusion.statement, conclusion.outcome, conclusion.reason)

Needs the extra `credit`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from farthing.buyer.audit import Expected
from farthing.buyer.audit_flow import (
    LINES_MAX_BYTES,
    Audit,
    Conclusion,
    Plan,
    audit,
    conclude,
    list_statements,
    look,
    settle,
)
from farthing.buyer.audit_house import FetchLines, FetchStatement, HouseAway
from farthing.errors import ConfigError
from farthing.flow import Effect, Flow, drive, drive_async
from farthing.money import parse_price, to_atomic
from farthing.networks import KNOWN, Networks
from farthing.protocol.clearing import CURRENCIES, DECIMALS
from farthing.protocol.statements import StatementAnswer, StatementStatus
from farthing.signatures.agent import agent_origin
from farthing.signatures.fields import SignatureInvalid
from farthing.world.house_client import HouseClient
from farthing.world.journal import Journal
from farthing.world.keys import signer_handlers
from farthing.world.loop import run_blocking
from farthing.world.performers import Performer, system_handlers

if TYPE_CHECKING:
    from farthing.buyer.policy import PriceText
    from farthing.evm.signing import Signer

# What a statement and a day may cost that say nothing else: small money, so that a mistake is cheap.
PER_STATEMENT_DEFAULT: Final = "$10"
PER_WINDOW_DEFAULT: Final = "$10"
WINDOW_DEFAULT_SECONDS: Final = 86_400

T = TypeVar("T")


class Auditor:
    """Audits and pays the statements of one payer at one clearing house.

    Args:
        url: the clearing house.
        token: the payer's bearer token there.
        payer: the origin of the agent's key directory: whose statements they are.
        network: the clearing network, like `clearing:house`.
        journal: what the agent promised: the journal that its buyers keep.
        signer: signs for the account that pays; None: audits and disputes, and pays nothing.
        networks: the table of networks and tokens; statements are paid in its tokens of the currency alone.
        rail_networks: the chains (CAIP-2) on which may be paid. None: all of the table.
        per_statement: the most that one statement may cost.
        per_window: the most that all statements signed in `window_seconds` may cost.
        treasury: where statements are paid; empty: where the first one says, from then on.
        house_keys: thumbprints of the keys that sign statements; none: the key of the first one, from then on.
        folder: where lines are kept while they are read; by default a temporary one.
        accept_decisions: pay also what the house decided against the journal. A person says so; else such a statement
            is held.

    Raises `ConfigError`, and `StoreError` for a journal that can't be opened. Safe for one thread at a time.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        payer: str,
        network: str,
        journal: Journal | str | Path,
        signer: Signer | None = None,
        networks: Networks = KNOWN,
        rail_networks: Iterable[str] | None = None,
        per_statement: PriceText = PER_STATEMENT_DEFAULT,
        per_window: PriceText = PER_WINDOW_DEFAULT,
        window_seconds: int = WINDOW_DEFAULT_SECONDS,
        currency: str = "USD",
        treasury: str = "",
        house_keys: Iterable[str] = (),
        folder: Path | None = None,
        accept_decisions: bool = False,
    ) -> None:
        """Join the parts; the class says what each is."""
        if currency not in CURRENCIES or window_seconds <= 0:
            message = f"Auditor: a currency ({', '.join(sorted(CURRENCIES))}) and a window of some seconds."
            raise ConfigError(message)
        try:
            origin = agent_origin(payer)
        except SignatureInvalid as error:
            message = f"The payer's origin: {error}."
            raise ConfigError(message) from None
        chains = frozenset(each.caip2 for each in networks) if rail_networks is None else frozenset(rail_networks)
        tokens = frozenset(
            (token_.network, token_.address.lower())
            for chain in chains
            for token_ in networks.tokens(chain)
            if token_.currency == currency and token_.decimals == DECIMALS
        )
        self.plan = Plan(
            expected=Expected(
                network=network,
                payer=origin,
                currency=currency,
                rail_networks=chains,
                tokens=tokens,
                treasury=treasury,
                keys=frozenset(house_keys),
            ),
            networks=networks,
            account="" if signer is None else signer.address,
            per_statement=_limit(per_statement, currency),
            per_window=_limit(per_window, currency),
            window_seconds=window_seconds,
            accepts_decisions=accept_decisions,
        )
        self._temporary = tempfile.TemporaryDirectory(prefix="farthing-statements-") if folder is None else None
        self.house = HouseClient(url, token, folder=folder or Path(str(self._temporary and self._temporary.name)))
        self._owns_journal = not isinstance(journal, Journal)
        self.journal = journal if isinstance(journal, Journal) else Journal(journal)
        signing = {} if signer is None else signer_handlers(signer)
        handlers: dict[type[Effect[Any]], Any] = {
            **system_handlers(),
            **signing,
            **self.journal.audit_handlers(),
            **self.house.handlers(),
        }
        self._performer = Performer(handlers)

    def __repr__(self) -> str:
        """Name the house and whose statements they are."""
        return f"Auditor({self.house.url!r}, payer={self.plan.expected.payer!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close connections, the temporary folder, and the journal where the auditor opened it."""
        run_blocking(self.house.aclose())
        if self._temporary is not None:
            self._temporary.cleanup()
        if self._owns_journal:
            self.journal.close()

    # Blocking

    def statements(self) -> tuple[StatementStatus, ...]:
        """List the payer's statements and where they stand, oldest first. Raises `HouseAway`, `HouseRefused`."""
        return self._drive(list_statements())

    def fetch(self, statement: str) -> StatementAnswer:
        """Fetch a statement, and keep its lines (`house.lines_file`)."""
        return self._drive(_fetch(statement))

    def audit(self, statement: str) -> Audit:
        """Compare a statement with the journal, line by line; nothing is disputed or paid."""
        return self._drive(audit(self.plan, statement, again=True))

    def pay(self, statement: str) -> Conclusion:
        """Audit a statement, dispute what is wrong in it, and pay the rest: at most once, whatever is cut."""
        return self._drive(conclude(self.plan, statement))

    def look(self, statement: str) -> Audit | Conclusion:
        """Audit a statement where that was not done before; a conclusion where it is settled already."""
        return self._drive(look(self.plan, statement))

    def settle(self, audited: Audit) -> Conclusion:
        """Dispute what is wrong in a statement that was looked at, and pay the rest."""
        return self._drive(settle(self.plan, audited))

    def has_paid(self) -> bool:
        """Tell whether a statement of this network was ever signed for: then its treasury is known."""
        return any(each.network == self.plan.expected.network and each.payment for each in self.journal.audited())

    def round(self) -> Iterator[Conclusion]:
        """Do so with all statements, oldest first. One that is held is told, and the next ones are looked at."""
        for status in self.statements():
            yield self._tell(status.statement)

    def _tell(self, statement: str) -> Conclusion:
        try:
            return self.pay(statement)
        except HouseAway as error:
            return Conclusion(statement=statement, outcome="unknown", reason="house_away", detail=str(error))

    def _drive(self, flow: Flow[T]) -> T:
        return drive(flow, self._performer.blocking)

    # Awaiting

    async def pay_async(self, statement: str) -> Conclusion:
        """`pay`, on the running loop."""
        return await drive_async(conclude(self.plan, statement), self._performer.awaiting)

    async def round_async(self) -> list[Conclusion]:
        """`round`, on the running loop. Raises `HouseAway` at the first statement that the house does not give."""
        listed = await drive_async(list_statements(), self._performer.awaiting)
        return [await self.pay_async(each.statement) for each in listed]


def _fetch(statement: str) -> Flow[StatementAnswer]:
    answer = yield from FetchStatement(statement)
    yield from FetchLines(statement, LINES_MAX_BYTES)
    return answer


def _limit(price: PriceText, currency: str) -> int:
    parsed = parse_price(price)
    if parsed.currency not in {"", currency}:
        message = f"Auditor: limits are in {currency}, not in {parsed.currency}."
        raise ConfigError(message)
    return to_atomic(parsed.number, DECIMALS)
