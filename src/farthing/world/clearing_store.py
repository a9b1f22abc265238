"""The clearing house's store, on a file of SQLite or on PostgreSQL: performs the effects of `farthing.clearing.store`.

Each effect is one transaction, and those of one store follow one another over all processes: on a file by its lock, on
PostgreSQL by the store's (decision 012). What reads and then writes locks its row all the same: the payer's for credit,
the window's for uploads and its close, the statement's for disputes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from farthing.clearing import compromise, guarantee, settlement
from farthing.clearing import store as effects
from farthing.flow import Effect
from farthing.world import clearing_accounts as accounts
from farthing.world import clearing_borne as borne
from farthing.world import clearing_compromise as compromised
from farthing.world import clearing_intake as intake
from farthing.world import clearing_money as money
from farthing.world import clearing_reserve as reserve
from farthing.world import clearing_statements as statements
from farthing.world.clearing_booking import balances
from farthing.world.connection import INTEGER_MAX, Connection
from farthing.world.database import off_the_loop, open_database
from farthing.world.pending import Pending

E = TypeVar("E", bound=Effect[Any])
R = TypeVar("R")

# What lists show, by their name: the table, its columns, and the one that pages are counted by.
_LISTS: Final = {
    "payers": (
        "clearing_payers",
        "directory, currency, state, why, credit_limit, owed, prepaid, recourse",
        "directory",
    ),
    "payees": ("clearing_payees", "name, domain, currency, address, challenge, proved_at, guaranteed", "name"),
    "windows": ("clearing_windows", "number, opened_at, closes_at, state, closed_at", "number"),
    "leases": ("clearing_leases", "lease, edge, epoch, payer, amount, spent, lines, expires_at, state", "lease"),
    "payouts": (
        "clearing_payouts o JOIN clearing_payees p ON p.payee = o.payee",
        "payout, name, amount, o.currency, o.address, reference, state, transaction_hash",
        "payout",
    ),
    # What the reserve paid, and where the statement stands by which it comes back.
    "covers": (
        (
            "clearing_covers c JOIN clearing_statements t ON t.statement = c.statement "
            "JOIN clearing_payers y ON y.payer = t.payer JOIN clearing_payees p ON p.payee = c.payee"
        ),
        (
            "c.statement || ':' || p.name || ':' || c.step AS cover, c.statement, name, directory, c.amount, "
            "t.currency, covered_at, t.state"
        ),
        "c.statement || ':' || p.name || ':' || c.step",
    ),
    "movements": (
        "clearing_movements",
        (
            "transaction_hash || ':' || log_index AS movement, transaction_hash, log_index, network, direction, "
            "counterparty, amount, reference, matched"
        ),
        "transaction_hash || ':' || log_index",
    ),
    # Money that came and is nobody's yet.
    "suspense": (
        (
            "(SELECT * FROM clearing_movements WHERE direction = 'in' AND matched = '' AND NOT EXISTS (SELECT 1 FROM "
            "clearing_transfers t WHERE t.transfer = 'assign:' || network || ':' || transaction_hash || ':' || "
            "log_index)) s"
        ),
        "transaction_hash || ':' || log_index AS movement, transaction_hash, log_index, network, counterparty, amount",
        "transaction_hash || ':' || log_index",
    ),
    "disputes": (
        "clearing_disputes d JOIN clearing_payees p ON p.payee = d.payee",
        (
            "dispute, d.state, reason, amount, p.currency, name AS payee, statement, line, resource, evidence, "
            "opened_at, decided_at, note"
        ),
        "dispute",
    ),
    # Keys that were declared compromised; and what the network bears of them, by upload and payee.
    "keys": (
        "clearing_compromised c JOIN clearing_payers y ON y.payer = c.payer",
        "directory || ' ' || thumbprint AS key, directory, thumbprint, since, declared_at, declared_by",
        "directory || ' ' || thumbprint",
    ),
    "borne": (
        "clearing_borne b JOIN clearing_payees p ON p.payee = b.payee",
        "b.upload || ':' || p.name AS borne, name, amount, b.currency, b.proved_at, paid_at",
        "b.upload || ':' || p.name",
    ),
    "tokens": ("clearing_tokens", "name, role, subject, created_at, revoked_at", "name"),
    "audit": ("clearing_audit", "entry, at, who, what, subject, detail", "entry"),
}
_NUMBERED: Final = frozenset({"windows", "audit"})


class ClearingStore:
    """Performs the clearing house's store effects."""

    def __init__(self, store: str | Path) -> None:
        """Open `store`, a path or URL (`farthing.world.database`). Raises `StoreError`."""
        self.database = open_database(store, family="clearing")
        # Statements are built beside all else: a window of a million lines takes a minute.
        self._builder = ThreadPoolExecutor(1, thread_name_prefix="farthing-statements")

    def close(self) -> None:
        """Finish what was submitted, and close."""
        self._builder.shutdown(wait=True, cancel_futures=True)
        self.database.close()

    def handlers(self) -> Mapping[type[Effect[Any]], Callable[[Any], Any]]:
        """The handlers for a `Performer`."""
        return {
            **self._account_handlers(),
            effects.TakeUpload: self._writing(intake.take_upload),
            effects.FindKeys: self._reading(intake.find_keys),
            effects.LoadUnchecked: self._reading(intake.load_unchecked),
            effects.RecordCheck: self._writing(intake.record_check),
            effects.OpenWindow: self._writing(statements.open_window),
            effects.CloseWindow: self._writing(statements.close_window),
            effects.ClosedWindows: self._reading(statements.closed_windows),
            effects.PayersOfWindow: self._reading(statements.payers_of_window),
            effects.BuildRuns: self._build,
            effects.PreviousStatement: self._reading(statements.previous_statement),
            effects.IssueStatement: self._writing(statements.issue_statement),
            effects.MarkIssued: self._writing(statements.mark_issued),
            effects.FindStatement: self._reading(statements.find_statement),
            effects.ListStatements: self._reading(statements.list_statements),
            effects.FindRun: self._reading(statements.find_run),
            effects.RunRoots: self._reading(statements.run_roots),
            effects.FindEvidence: self._reading(statements.find_evidence),
            **self._money_handlers(),
            **self._reserve_handlers(),
            effects.Balances: self._reading(_balances),
            effects.Listing: self._reading(_listing),
        }

    def _account_handlers(self) -> dict[type[Effect[Any]], Callable[[Any], Any]]:
        return {
            effects.RegisterPayer: self._writing(accounts.register_payer),
            effects.RegisterPayee: self._writing(accounts.register_payee),
            effects.ProvePayee: self._writing(accounts.prove_payee),
            effects.SetPayerState: self._writing(accounts.set_payer_state),
            effects.FindPayer: self._reading(accounts.find_payer),
            effects.FindPayee: self._reading(accounts.find_payee),
            effects.AddToken: self._writing(accounts.add_token),
            effects.RevokeToken: self._writing(accounts.revoke_token),
            effects.FindToken: self._reading(accounts.find_token),
            effects.Audit: self._writing(accounts.audit),
            effects.StartEdge: self._writing(accounts.start_edge),
            effects.GrantLease: self._writing(accounts.grant_lease),
            effects.CloseLease: self._writing(accounts.close_lease),
            effects.LapseLeases: self._writing(accounts.lapse_leases),
        }

    def _money_handlers(self) -> dict[type[Effect[Any]], Callable[[Any], Any]]:
        return {
            settlement.OpenDisputes: self._writing(money.open_disputes),
            settlement.DecideDispute: self._writing(money.decide_dispute),
            settlement.ListDisputes: self._reading(money.list_disputes),
            settlement.AcceptStatement: self._writing(money.accept_statement),
            settlement.InstructStatement: self._writing(money.instruct_statement),
            settlement.ReturnStatement: self._writing(money.return_statement),
            settlement.PayFromBalance: self._writing(money.pay_from_balance),
            settlement.RecordMovements: self._writing(money.record_movements),
            settlement.FindScan: self._reading(_find_scan),
            settlement.AssignSuspense: self._writing(money.assign_suspense),
            settlement.PlanPayouts: self._writing(money.plan_payouts),
            settlement.OpenPayouts: self._reading(money.open_payouts),
            settlement.StoreSignedPayout: self._writing(money.store_signed_payout),
            settlement.SuspendOverdue: self._writing(money.suspend_overdue),
        }

    def _reserve_handlers(self) -> dict[type[Effect[Any]], Callable[[Any], Any]]:
        return {
            guarantee.GuaranteePayee: self._writing(reserve.guarantee_payee),
            guarantee.FundReserve: self._writing(reserve.fund_reserve),
            guarantee.TakeReserve: self._writing(reserve.take_reserve),
            guarantee.CoverDefaults: self._writing(reserve.cover_defaults),
            guarantee.FindReserve: self._reading(reserve.find_reserve),
            compromise.DeclareCompromised: self._writing(compromised.declare_compromised),
            compromise.FindCompromised: self._reading(compromised.find_compromised),
            compromise.PayBorne: self._writing(borne.pay_borne),
        }

    def _build(self, effect: effects.BuildRuns) -> Future[effects.Totals]:
        return self._builder.submit(statements.build_runs, self.database, effect)

    def _reading(self, query: Callable[[Connection, E], R]) -> Callable[[E], R | Pending[R]]:
        return off_the_loop(self.database, lambda effect: self.database.read(lambda at: query(at, effect)))

    def _writing(self, step: Callable[[Connection, E], R]) -> Callable[[E], Pending[R]]:
        return lambda effect: self.database.submit(lambda at: step(at, effect))


def _balances(at: Connection, effect: effects.Balances) -> dict[str, int]:
    return balances(at, pending=effect.pending)


def _find_scan(at: Connection, effect: settlement.FindScan) -> int | None:
    row = at.execute("SELECT next_block FROM clearing_scans WHERE network = ?", (effect.network,)).fetchone()
    return None if row is None else int(row[0])


def _number(after: str) -> int:
    """Read what a page of numbered entries begins after; beyond eighteen digits there is none."""
    if not after.isdecimal():
        return 0
    return int(after) if len(after) < len(str(INTEGER_MAX)) else INTEGER_MAX


def _listing(at: Connection, effect: effects.Listing) -> tuple[dict[str, Any], ...]:
    table, columns, key = _LISTS[effect.what]
    after: str | int = effect.after
    if effect.what in _NUMBERED:
        after = _number(effect.after)
    query = f"SELECT {columns} FROM {table} WHERE {key} > ? ORDER BY {key} LIMIT ?"  # noqa: S608 - from the table
    names = [each.rpartition(" AS ")[2].rpartition(".")[2] for each in columns.split(", ")]
    rows = at.execute(query, (after, effect.count_max)).fetchall()
    return tuple(dict(zip(names, row, strict=True)) for row in rows)
