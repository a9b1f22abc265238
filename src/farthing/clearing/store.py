"""What the clearing house asks of its store: each effect is one transaction of the database, and its answer a verdict.

The store is `farthing.world.clearing_store`. Names are the wire's: payers by directory URL, payees by name.
"""

from __future__ import annotations

from typing import Any

import msgspec

from farthing.clearing.intake import Upload
from farthing.clearing.rules import Rules
from farthing.flow import Effect
from farthing.protocol.clearing import (
    KeyRecord,
    Lease,
    LeaseClose,
    LeaseClosed,
    LeaseRequest,
    RefusedLine,
    UploadAnswer,
)


class Payer(msgspec.Struct, frozen=True):
    """A payer's account; sums in atomic units. `leased` is what open leases may still spend.

    `recourse` is what of `owed` goes to the reserve, which paid it to payees.
    """

    key: int
    directory: str
    currency: str
    state: str
    why: str
    credit_limit: int
    owed: int
    prepaid: int
    leased: int = 0
    recourse: int = 0


class Payee(msgspec.Struct, frozen=True):
    """A payee's account. `proved_at` is None until its domain showed `challenge`; `guaranteed` is 1 or 0."""

    key: int
    name: str
    domain: str
    currency: str
    address: str
    challenge: str
    proved_at: int | None
    guaranteed: int = 0


class Window(msgspec.Struct, frozen=True):
    """A clearing window."""

    number: int
    opened_at: int
    closes_at: int
    state: str
    closed_at: int | None


class StatementRecord(msgspec.Struct, frozen=True):
    """A statement as it stands. `payment` is the JSON of the payment that accepted it."""

    statement: str
    payer: int
    directory: str
    window: int
    currency: str
    state: str
    count: int
    net: int
    disputed: int
    issued_at: int
    due_at: int
    dispute_until: int
    reference: str
    jws: str
    payment: str
    payment_until: int
    attempts: int
    transaction: str

    @property
    def payable(self) -> int:
        """What is asked for now."""
        return self.net - self.disputed


class LeaseRefused(msgspec.Struct, frozen=True):
    """No lease: `reason` is `unknown_payer`, `suspended`, `over_limit`, `fenced` or `wrong_currency`."""

    reason: str
    detail: str


# Accounts


class RegisterPayer(Effect[Payer | None], frozen=True):
    """Open a payer's account, or change its limit; None where it is open in another currency."""

    directory: str
    currency: str
    credit_limit: int
    now_seconds: int


class RegisterPayee(Effect[Payee | None], frozen=True):
    """Open a payee's account; None where the name is another's. A new address or domain must be proved again."""

    name: str
    domain: str
    currency: str
    address: str
    challenge: str
    now_seconds: int


class ProvePayee(Effect[bool], frozen=True):
    """The payee's domain showed the challenge."""

    name: str
    challenge: str
    now_seconds: int


class SetPayerState(Effect[bool], frozen=True):
    """Suspend a payer, or let it go on."""

    directory: str
    state: str
    why: str


class FindPayer(Effect[Payer | None], frozen=True):
    """Find a payer's account."""

    directory: str


class FindPayee(Effect[Payee | None], frozen=True):
    """Find a payee's account."""

    name: str


class AddToken(Effect[bool], frozen=True):
    """Know a bearer token by its SHA-256; False where its name is taken."""

    digest: str
    name: str
    role: str
    subject: str
    now_seconds: int


class RevokeToken(Effect[bool], frozen=True):
    """Know a token no more."""

    name: str
    now_seconds: int


class Caller(msgspec.Struct, frozen=True):
    """Whoever holds a token: its name, role and subject."""

    name: str
    role: str
    subject: str


class FindToken(Effect[Caller | None], frozen=True):
    """Find who holds a token, by its SHA-256."""

    digest: str


class Audit(Effect[None], frozen=True):
    """Write down who changed what, before it is done."""

    now_seconds: int
    who: str
    what: str
    subject: str
    detail: str = ""


# Credit


class StartEdge(Effect[int], frozen=True):
    """Begin a new life of an edge; the answer is its epoch."""

    edge: str
    now_seconds: int


class GrantLease(Effect[Lease | LeaseRefused], frozen=True):
    """Grant credit, as much as asked for and is there; the same request again gets the same lease."""

    request: LeaseRequest
    lease: str
    rules: Rules
    now_seconds: int


class CloseLease(Effect[LeaseClosed | None], frozen=True):
    """Take a lease back, once all its lines are here; None for a lease that is not this edge's."""

    edge: str
    close: LeaseClose
    now_seconds: int


class LapseLeases(Effect[int], frozen=True):
    """Give back what expired leases held whose lines would be too late by now; the answer is how many."""

    now_seconds: int
    late_limit_seconds: int


# Uploads


class TakeUpload(Effect[UploadAnswer | None], frozen=True):
    """Take an upload: lines, keys and bookings in one transaction; None where its name was used for another.

    `payees` are those that the edge may bill for. `bad` are lines of a sample whose signatures were wrong.
    """

    upload: Upload
    payees: frozenset[str]
    bad: tuple[RefusedLine, ...]
    rules: Rules
    now_seconds: int


class FindKeys(Effect[dict[tuple[str, str], KeyRecord]], frozen=True):
    """Find archived keys by (directory, thumbprint)."""

    wanted: frozenset[tuple[str, str]]


class StoredUpload(msgspec.Struct, frozen=True):
    """An upload as it was kept."""

    upload: int
    window: int
    body: bytes


class LoadUnchecked(Effect[StoredUpload | None], frozen=True):
    """Find an upload of a window whose signatures were not all checked, the first after `after`."""

    window: int
    after: int


class WrongLine(msgspec.Struct, frozen=True):
    """A line of an upload whose signature is wrong. It is taken back only where it is billed by that upload."""

    payer: str
    commitment: bytes


class RecordCheck(Effect[bool], frozen=True):
    """All signatures of an upload were checked; what was wrong is taken back. False where another was first."""

    upload: int
    window: int
    wrong: tuple[WrongLine, ...]
    rules: Rules
    now_seconds: int


# Windows and statements


class OpenWindow(Effect[Window], frozen=True):
    """Give the open window; open one where there is none."""

    rules: Rules
    now_seconds: int


class CloseWindow(Effect[Window | None], frozen=True):
    """Close the open window and open the next, in one transaction; None where its time is not over (nor forced)."""

    rules: Rules
    now_seconds: int
    force: bool = False


class ClosedWindows(Effect[tuple[Window, ...]], frozen=True):
    """Give the windows that are closed and not issued, oldest first."""


class PayersOfWindow(Effect[tuple[Payer, ...]], frozen=True):
    """Give the payers that have lines or adjustments in a window, and no statement for it yet."""

    window: int


class Totals(msgspec.Struct, frozen=True):
    """What a statement's lines come to: atomic units by payee in `shares`; `root` is the Merkle root."""

    count: int
    gross: int
    adjustments: int
    root: bytes
    shares: dict[int, int]


class BuildRuns(Effect[Totals], frozen=True):
    """Write a statement's lines down in runs, in the order of their ids, and add them up. Twice writes the same."""

    statement: str
    payer: int
    window: int


class PreviousStatement(Effect[str], frozen=True):
    """Give the JWS of the payer's latest statement before a window; empty where there is none."""

    payer: int
    window: int


class IssueStatement(Effect[bool], frozen=True):
    """Put a statement on record, with what its sum was rounded by; False where it is there already."""

    statement: str
    payer: int
    window: int
    currency: str
    totals: Totals
    net: int
    rounding: int
    issued_at: int
    due_at: int
    dispute_until: int
    reference: str
    jws: str
    rules: Rules


class MarkIssued(Effect[bool], frozen=True):
    """All payers of a window have their statement."""

    window: int


class FindStatement(Effect[StatementRecord | None], frozen=True):
    """Find a statement."""

    statement: str


class ListStatements(Effect[tuple[StatementRecord, ...]], frozen=True):
    """List statements by id: all, of one payer, or in one state; a page at a time."""

    payer: int | None = None
    state: str = ""
    after: str = ""
    count_max: int = 100


class FindRun(Effect[bytes | None], frozen=True):
    """Give one run of a statement's lines: gzip of NDJSON."""

    statement: str
    run: int


class RunRoots(Effect[tuple[tuple[str, bytes], ...]], frozen=True):
    """Give first id and root of each run of a statement."""

    statement: str


class FindEvidence(Effect[tuple[bytes, int, str] | None], frozen=True):
    """Find the upload's body, the position of a commitment in it, and its payer's directory."""

    payer: int
    commitment: bytes


# Looking


class Balances(Effect[dict[str, int]], frozen=True):
    """Sum the books: credits less debits by account name; `pending` promises instead of what is posted."""

    pending: bool = False


class Listing(Effect[tuple[dict[str, Any], ...]], frozen=True):
    """List one kind of entry, a page at a time by its key.

    `what` is `payers`, `payees`, `windows`, `leases`, `payouts`, `covers`, `movements` (what the rail reported),
    `suspense` (what of it is nobody's), `disputes`, `keys` (declared compromised), `borne`, `tokens` or `audit`.
    """

    what: str
    after: str = ""
    count_max: int = 100
