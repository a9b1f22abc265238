"""What the clearing house does: takes uploads, closes windows, proves lines, hears disputes.

Each is a flow whose every effect leaves something that another process, or this one after a crash, can take up: closing
a window twice, by one process or two, makes one statement a payer.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from typing import Final

import msgspec

from farthing.clearing.checking import (
    commitments_of,
    key_of_record,
    keys_wanted,
    refuse_unsigned,
    sample,
    sample_bytes,
    wrong_lines,
)
from farthing.clearing.intake import Upload, find_commitment, unpack
from farthing.clearing.rails import Rail
from farthing.clearing.rules import Rules, statement_id
from farthing.clearing.settlement import OpenDisputes
from farthing.clearing.statements import draft, leaves_of, read_line
from farthing.clearing.store import (
    BuildRuns,
    ClosedWindows,
    CloseWindow,
    FindEvidence,
    FindKeys,
    FindRun,
    IssueStatement,
    LoadUnchecked,
    MarkIssued,
    Payer,
    PayersOfWindow,
    PreviousStatement,
    RecordCheck,
    RunRoots,
    StatementRecord,
    TakeUpload,
    Window,
)
from farthing.errors import RemoteProtocolError
from farthing.flow import Flow, Now, RandomBytes
from farthing.ledger.merkle import leaf_hash, path_through_runs, root_of
from farthing.protocol.clearing import Commitment, KeyRecord, RefusedLine, UploadAnswer
from farthing.protocol.signed_statements import compact, signing_input
from farthing.protocol.statements import RUN_LINES, Dispute, DisputedLine, Proof, StatementLine
from farthing.signatures.keys import SignData

# Statements that were never asked about by number begin before every upload.
_BEGINNING: Final = -1
_COMMITMENT: Final = "sha256:"


class Desk(msgspec.Struct, frozen=True):
    """What every flow knows: the rules, how statements in each currency are paid, and the key that signs them."""

    rules: Rules
    rails: dict[str, Rail]
    key_id: str


class FoundLine(msgspec.Struct, frozen=True):
    """A line of a statement: its leaf, its place, and its audit path."""

    line: StatementLine
    index: int
    path: tuple[bytes, ...]


def take(desk: Desk, upload: Upload, payees: frozenset[str]) -> Flow[UploadAnswer | None]:
    """Take an upload that was read already: a sample of its signatures is checked, then all of it is one transaction.

    None where an upload of this name was another. Raises `RemoteProtocolError` for a key that is not what it says.
    """
    for number, each in enumerate(upload.keys):
        if key_of_record(each) is None:
            message = "a key record's thumbprint is not that of its key"
            raise RemoteProtocolError(message, path=f"$.keys[{number}].thumbprint")
    now_seconds = yield from Now()
    bad: tuple[RefusedLine, ...] = ()
    if upload.lines:
        positions = [line.position for line in upload.lines]
        random = yield from RandomBytes(sample_bytes(len(positions)))
        lines = commitments_of(upload.raw, sample(positions, random))
        wanted = frozenset((line.payer, line.key) for line in upload.lines)
        archived = yield from FindKeys(wanted)
        # A key's record may come with a later upload: such lines are checked before the statement.
        keys = {(each.directory, each.thumbprint): each for each in upload.keys} | archived
        if refuse_unsigned([line for line in lines if (line.payer, line.key) in keys], keys):
            bad = refuse_unsigned([line for line in commitments_of(upload.raw) if (line.payer, line.key) in keys], keys)
    return (yield from TakeUpload(upload, payees, bad, desk.rules, now_seconds))


def close(desk: Desk, *, force: bool = False) -> Flow[Window | None]:
    """Close the open window if its time is over (or by force), and finish whatever closed windows there are."""
    now_seconds = yield from Now()
    closed = yield from CloseWindow(desk.rules, now_seconds, force)
    for window in (yield from ClosedWindows()):
        yield from finish(desk, window)
    return closed


def finish(desk: Desk, window: Window) -> Flow[int]:
    """Check every signature of a closed window and issue its statements; the answer is how many were issued here."""
    yield from check(desk, window.number)
    issued = 0
    for payer in (yield from PayersOfWindow(window.number)):
        issued += yield from issue(desk, window, payer)
    yield from MarkIssued(window.number)
    return issued


def check(desk: Desk, window: int) -> Flow[int]:
    """Check the signatures of a window's uploads that were not checked yet; the answer is how many lines were wrong."""
    after, wrong_count = _BEGINNING, 0
    while True:
        stored = yield from LoadUnchecked(window, after)
        if stored is None:
            return wrong_count
        lines = commitments_of(unpack(stored.body))
        keys = yield from FindKeys(keys_wanted(lines))
        wrong = wrong_lines(lines, keys)
        now_seconds = yield from Now()
        yield from RecordCheck(stored.upload, window, wrong, desk.rules, now_seconds)
        wrong_count += len(wrong)
        after = stored.upload


def issue(desk: Desk, window: Window, payer: Payer) -> Flow[bool]:
    """Make a payer's statement for a closed window; False where another process was first, with the same bytes."""
    rail = desk.rails[payer.currency]
    from_previous = yield from PreviousStatement(payer.key, window.number)
    totals = yield from BuildRuns(statement_id(window.number, payer.key), payer.key, window.number)
    statement = draft(
        rules=desk.rules,
        window=window,
        payer=payer.key,
        directory=payer.directory,
        currency=payer.currency,
        totals=totals,
        previous=hashlib.sha256(from_previous.encode()).hexdigest() if from_previous else "",
        terms=rail.terms,
    )
    signed = signing_input(statement, desk.key_id)
    signature = yield from SignData(desk.key_id, signed)
    return (
        yield from IssueStatement(
            statement=statement.id,
            payer=payer.key,
            window=window.number,
            currency=payer.currency,
            totals=totals,
            net=int(statement.net),
            rounding=int(statement.rounding),
            issued_at=statement.issued,
            due_at=statement.due,
            dispute_until=statement.dispute_until,
            reference=statement.rail.reference,
            jws=compact(signed, signature),
            rules=desk.rules,
        )
    )


def find_line(statement: str, line: str) -> Flow[FoundLine | None]:
    """Find a line of a statement by its id: one run of it is read, whatever its size."""
    roots = yield from RunRoots(statement)
    number = bisect_right([first for first, _ in roots], line) - 1
    if number < 0:
        return None
    body = yield from FindRun(statement, number)
    leaves = [] if body is None else leaves_of(body)
    for inside, leaf in enumerate(leaves):
        read = read_line(leaf)
        if read.id == line:
            index = number * RUN_LINES + inside
            hashes = [leaf_hash(each) for each in leaves]
            path = path_through_runs(index, run=hashes, runs=[root for _, root in roots], run_leaves=RUN_LINES)
            return FoundLine(read, index, path)
    return None


def prove(record: StatementRecord, line: str) -> Flow[Proof | None]:
    """Prove that a line is in a statement, with the payer's own signature for it; None where it is not."""
    found = yield from find_line(record.statement, line)
    if found is None:
        return None
    commitment: Commitment | None = None
    key: KeyRecord | None = None
    if line.startswith(_COMMITMENT):
        evidence = yield from FindEvidence(record.payer, bytes.fromhex(line.removeprefix(_COMMITMENT)))
        if evidence is not None:
            body, position, directory = evidence
            commitment = find_commitment(body, position)
            place = (directory, commitment.key)
            key = (yield from FindKeys(frozenset({place}))).get(place)
    roots = yield from RunRoots(record.statement)
    return Proof(
        statement=record.statement,
        index=found.index,
        count=record.count,
        root=root_of([root for _, root in roots]).hex(),
        line={name: getattr(found.line, name) for name in StatementLine.__struct_fields__},
        path=tuple(each.hex() for each in found.path),
        commitment=commitment,
        key=key,
    )


def dispute(desk: Desk, record: StatementRecord, lines: tuple[DisputedLine, ...]) -> Flow[tuple[Dispute, ...] | str]:
    """Dispute lines of a statement; a reason where that can't be, `unknown_line` among them.

    The charge of a dispute that was rejected is `already_decided`: disputed for ever, it would never be paid.
    """
    found: list[tuple[DisputedLine, dict[str, str]]] = []
    for each in lines:
        line = yield from find_line(record.statement, each.id)
        if line is None:
            return f"unknown_line {each.id}"
        if line.line.adjustment and int(line.line.charged) > 0:
            return f"already_decided {each.id}"
        found.append((each, {name: getattr(line.line, name) for name in StatementLine.__struct_fields__}))
    now_seconds = yield from Now()
    return (yield from OpenDisputes(record.statement, tuple(found), desk.rules, now_seconds))
