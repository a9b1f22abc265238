"""Uploads in the clearing house's store: lines in bulk, one booking for each payer and payee, all in one transaction.

C2: a line is billed once, since (payer, commitment) is a key, and an upload that comes again is answered from the
record. The one window that is open is locked for sharing, so that closing it waits for what is on its way in.
"""

# ruff: noqa: S608 - what is put into statements are names of states, from a table in code, and marks

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from farthing.clearing.books import Booking, Books
from farthing.clearing.intake import (
    AHEAD_MAX_SECONDS,
    FOREIGN_PAYEE,
    NOT_YET,
    TOO_LATE,
    UNKNOWN_PAYEE,
    UNKNOWN_PAYER,
    WRONG_UNITS,
    IntakeLine,
    Upload,
    serves,
)
from farthing.clearing.rules import payee_key, payer_key, upload_key
from farthing.clearing.states import OPEN
from farthing.clearing.store import FindKeys, LoadUnchecked, RecordCheck, StoredUpload, TakeUpload
from farthing.errors import StoreError
from farthing.protocol.clearing import KeyRecord, RefusedLine, UploadAnswer
from farthing.world.clearing_booking import book
from farthing.world.clearing_borne import Bearing, prove_borne
from farthing.world.connection import Connection
from farthing.world.marks import among, slices

# Refusals that an answer lists one by one; the rest is counted by the difference. An edge that is refused more has a
# trouble that the first hundred show.
REFUSED_MAX: Final = 100
_OPEN_WINDOW: Final = f"SELECT number FROM clearing_windows WHERE state = '{OPEN}'"
# Closing the window waits for this lock; and who waited for a close sees no open window, and looks again.
_SHARED: Final = " FOR SHARE"
_WINDOW_TRIES: Final = 3
_KNOWN_UPLOAD: Final = "SELECT digest, answer FROM clearing_uploads WHERE edge = ? AND epoch = ? AND sequence = ?"
_INSERT_UPLOAD: Final = """
INSERT INTO clearing_uploads (upload, edge, epoch, sequence, digest, window_number, received_at, accepted, answer, body)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING
"""
# Of agents that have an account: what edges archive of others nobody will ask for.
_INSERT_KEY: Final = """
INSERT INTO clearing_keys (directory, thumbprint, record, edge, recorded_at)
SELECT directory, ?, ?, ?, ? FROM clearing_payers WHERE directory = ? ON CONFLICT DO NOTHING
"""
# Of lines of the edge's own payees: nobody else can say that their answers went out.
_INSERT_SENT: Final = """
INSERT INTO clearing_sent (payer, commitment) SELECT l.payer, l.commitment FROM clearing_lines l
WHERE l.payer = ? AND l.commitment = ? AND l.payee IN ({marks}) ON CONFLICT DO NOTHING
"""
_LINE_COLUMNS: Final = (
    "payer, commitment, payee, window_number, upload, amount, committed_at, position, flags, resource"
)
_INSERT_LINE: Final = f"INSERT INTO clearing_lines ({_LINE_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
# PostgreSQL takes all lines of an upload as one statement, its columns as arrays in the text that the server reads:
# the driver's own writing of arrays, element by element, was half of what a line cost.
_INSERT_LINES: Final = f"""
INSERT INTO clearing_lines ({_LINE_COLUMNS})
SELECT u.payer, u.commitment, u.payee, ?, ?, u.amount, u.committed_at, u.position, u.flags, u.resource
FROM unnest(?::bigint[], ?::bytea[], ?::bigint[], ?::bigint[], ?::bigint[], ?::integer[], ?::integer[], ?::text[])
    AS u (payer, commitment, payee, amount, committed_at, position, flags, resource)
ON CONFLICT DO NOTHING
"""
_INSERTED: Final = """
SELECT payer, commitment FROM clearing_lines
WHERE payer = ANY(?::bigint[]) AND commitment = ANY(?::bytea[]) AND upload = ?
"""
# Of the payer's own leases: another one's would go on the books as spent, and its credit be given out again.
_SPEND_LEASE: Final = (
    "UPDATE clearing_leases SET lines = lines + ?, spent = spent + ? WHERE lease = ? AND edge = ? AND payer = ?"
)
_UNCHECKED: Final = """
SELECT u.upload, u.window_number, u.body FROM clearing_uploads u
WHERE u.window_number = ? AND u.upload > ? AND u.accepted > 0
    AND NOT EXISTS (SELECT 1 FROM clearing_checks c WHERE c.upload = u.upload)
ORDER BY u.upload LIMIT 1
"""
_INSERT_CHECK: Final = """
INSERT INTO clearing_checks (upload, checked_at, failed) VALUES (?, ?, ?) ON CONFLICT DO NOTHING
"""
_BILLED: Final = """
SELECT l.payee, l.amount, p.currency, r.commitment IS NOT NULL
FROM clearing_lines l JOIN clearing_payers p ON p.payer = l.payer
LEFT JOIN clearing_rejections r ON r.payer = l.payer AND r.commitment = l.commitment
WHERE l.payer = ? AND l.commitment = ? AND l.upload = ?
"""
_REJECT: Final = """
INSERT INTO clearing_rejections (payer, commitment, upload, window_number, reason, rejected_at)
VALUES (?, ?, ?, ?, 'bad_signature', ?)
"""

_answer_decoder = msgspec.json.Decoder(UploadAnswer)
_key_decoder = msgspec.json.Decoder(KeyRecord)


class _Accounts:
    """What the accounts say of the payers and payees that an upload names: two questions, whatever its size.

    A key that nobody archived yet is no reason to refuse a line: its record may be in an upload that comes later, out
    of order. The line stays when the record is here before its window's statements are made, and is taken back if not.
    """

    def __init__(self, at: Connection, upload: Upload, effect: TakeUpload) -> None:
        directories = sorted({line.payer for line in upload.lines})
        names = sorted({line.payee for line in upload.lines})
        self.payers = {
            directory: (key, currency)
            for directory, key, currency in _among(
                at, "SELECT directory, payer, currency FROM clearing_payers WHERE directory IN", directories
            )
        }
        self.payees = {
            name: (key, domain, currency)
            for name, key, domain, currency in _among(
                at, "SELECT name, payee, domain, currency FROM clearing_payees WHERE name IN", names
            )
        }
        self._allowed = effect.payees
        self._oldest = effect.now_seconds - effect.rules.late_limit_seconds
        self._newest = effect.now_seconds + AHEAD_MAX_SECONDS
        self._served: dict[tuple[str, str], bool] = {}

    def refuse(self, line: IntakeLine) -> tuple[str, str] | None:
        """Say why a line is not billed, as a reason and words; None where it is."""
        if not self._oldest <= line.committed <= self._newest:
            early = line.committed > self._newest
            return (NOT_YET, "from a clock far ahead") if early else (TOO_LATE, "older than the late limit")
        payer, payee = self.payers.get(line.payer), self.payees.get(line.payee)
        if payer is None or payee is None:
            return (UNKNOWN_PAYER if payer is None else UNKNOWN_PAYEE), "no such account"
        if line.payee not in self._allowed:
            return FOREIGN_PAYEE, "this edge does not bill for that payee"
        if payer[1] != line.currency or payee[2] != line.currency:
            return WRONG_UNITS, "an account of it is in another currency"
        place = (line.payee, line.authority)
        served = self._served.get(place)
        if served is None:
            served = self._served[place] = serves(payee[1], line.authority)
        return None if served else (FOREIGN_PAYEE, f"{line.authority} is not the payee's domain")


def _among(at: Connection, query: str, values: Sequence[str]) -> Iterable[tuple[Any, ...]]:
    for listed, chunk in among(values):
        yield from at.execute(f"{query} {listed}", chunk).fetchall()


def take_upload(at: Connection, effect: TakeUpload) -> UploadAnswer | None:
    """Perform `TakeUpload`."""
    upload = effect.upload
    header = upload.header
    found, known = _known(at, upload)
    if found:
        return known
    window = open_window_number(at)
    for each in upload.keys:
        record = msgspec.json.encode(each).decode()
        at.execute(_INSERT_KEY, (each.thumbprint, record, header.edge, effect.now_seconds, each.directory))
    refused = [*upload.refused, *effect.bad]
    accounts = _Accounts(at, upload, effect)
    bearing = Bearing(at, header.edge, [payer for payer, _ in accounts.payers.values()])
    rows = _judge(effect, window, accounts, bearing, refused)
    billed = [rows[place] for place in _insert_lines(at, {place: row for place, (row, _) in rows.items()})]
    duplicates = len(upload.lines) + len(upload.refused) - len(refused) - len(billed)
    name = (header.edge, header.epoch, header.sequence)
    answer = UploadAnswer(*name, str(window), len(billed), duplicates, tuple(refused[:REFUSED_MAX]))
    text = msgspec.json.encode(answer).decode()
    key = upload_key(*name)
    row = (key, *name, upload.digest, window, effect.now_seconds, len(billed), text, upload.body)
    if at.execute(_INSERT_UPLOAD, row).rowcount != 1:
        # Another process took the same upload at this moment: all lines are its, and so is the answer.
        return _known(at, upload)[1]
    bearing.set_apart(key, window, effect.now_seconds)
    _book(at, effect, key, billed, bearing)
    payees = sorted(map(payee_key, effect.payees))
    sent = [(payer_key(each.payer), bytes.fromhex(each.id[7:]), *payees) for each in upload.sent]
    if sent and payees:
        at.executemany(_INSERT_SENT.format(marks=", ".join("?" * len(payees))), sent)
    return answer


def _judge(
    effect: TakeUpload, window: int, accounts: _Accounts, bearing: Bearing, refused: list[RefusedLine]
) -> dict[tuple[int, bytes], tuple[tuple[Any, ...], IntakeLine]]:
    """Make the rows of the lines that are billed unless they were before; the others go to `refused`."""
    upload = effect.upload
    key = upload_key(upload.header.edge, upload.header.epoch, upload.header.sequence)
    bad = {each.id for each in effect.bad}
    rows: dict[tuple[int, bytes], tuple[tuple[Any, ...], IntakeLine]] = {}
    for line in upload.lines:
        if line.id in bad:
            continue
        why = accounts.refuse(line)
        if why is not None:
            refused.append(RefusedLine(line.id, *why))
            continue
        payer, payee = accounts.payers[line.payer][0], accounts.payees[line.payee][0]
        place = (payer, bytes.fromhex(line.id[7:]))
        if place in rows:
            continue  # twice in one upload
        why = bearing.judge(place, line)
        if why is not None:
            refused.append(RefusedLine(line.id, *why))
            continue
        what = (line.amount, line.committed, line.position, line.flags, line.resource)
        rows[place] = ((*place, payee, window, key, *what), line)
    return rows


def _known(at: Connection, upload: Upload) -> tuple[bool, UploadAnswer | None]:
    """Whether an upload of this name is on record, and what it was answered: None where it was another one."""
    header = upload.header
    row = at.execute(_KNOWN_UPLOAD, (header.edge, header.epoch, header.sequence)).fetchone()
    if row is None:
        return False, None
    digest, answer = row
    if digest != upload.digest:
        return True, None
    return True, msgspec.structs.replace(_answer_decoder.decode(answer), repeated=True)


def open_window_number(at: Connection) -> int:
    """Give the open window's number, held open until this transaction ends. Raises `StoreError` where there is none."""
    query = _OPEN_WINDOW if isinstance(at, sqlite3.Connection) else _OPEN_WINDOW + _SHARED
    for _ in range(_WINDOW_TRIES):
        row = at.execute(query).fetchone()
        if row is not None:
            return int(row[0])
    raise StoreError("The clearing house has no open window: it was not started on this store. Nothing was written.")


def _insert_lines(at: Connection, rows: dict[tuple[int, bytes], tuple[Any, ...]]) -> list[tuple[int, bytes]]:
    """Insert what is not there yet; the keys of what was inserted."""
    if not rows:
        return []
    if not isinstance(at, sqlite3.Connection):
        return _insert_arrays(at, rows)
    known: set[tuple[int, bytes]] = set()
    places = list(rows)
    for chunk in slices(places):
        listed = ", ".join(["(?, ?)"] * len(chunk))
        query = f"SELECT payer, commitment FROM clearing_lines WHERE (payer, commitment) IN (VALUES {listed})"
        known.update(at.execute(query, tuple(value for place in chunk for value in place)).fetchall())
    fresh = [place for place in places if place not in known]
    at.executemany(_INSERT_LINE, [rows[place] for place in fresh])
    return fresh


def _insert_arrays(at: Connection, rows: dict[tuple[int, bytes], tuple[Any, ...]]) -> list[tuple[int, bytes]]:
    payers, commitments, payees, windows, uploads, amounts, dates, positions, flags, resources = zip(
        *rows.values(), strict=True
    )
    ids = "{" + ",".join([f'"\\\\x{each.hex()}"' for each in commitments]) + "}"
    numbers = (_array(payers), ids, _array(payees), _array(amounts), _array(dates), _array(positions), _array(flags))
    texts = "{" + ",".join(map(_quoted, resources)) + "}"
    if at.execute(_INSERT_LINES, (windows[0], uploads[0], *numbers, texts)).rowcount == len(rows):
        return list(rows)
    found = at.execute(_INSERTED, (_array(set(payers)), ids, uploads[0])).fetchall()
    return [(payer, bytes(commitment)) for payer, commitment in found]


def _array(numbers: Iterable[int]) -> str:
    return "{" + ",".join(map(str, numbers)) + "}"


def _quoted(text: str) -> str:
    """Write an element of an array of texts (PostgreSQL's manual, 8.15.6)."""
    if "\\" in text or '"' in text:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def _book(
    at: Connection,
    effect: TakeUpload,
    key: int,
    billed: list[tuple[tuple[Any, ...], IntakeLine]],
    bearing: Bearing,
) -> None:
    """One booking for each payer and payee; and what the lines' leases have spent."""
    sums: dict[tuple[str, int, int, bool], int] = {}
    leases: dict[tuple[str, int], list[int]] = {}
    for row, line in billed:
        place = (line.currency, row[0], row[2], (row[0], row[1]) in bearing.borne)
        sums[place] = sums.get(place, 0) + line.amount
        if line.lease:
            spent = leases.setdefault((line.lease, row[0]), [0, 0])
            spent[0] += 1
            spent[1] += line.amount
    network = effect.rules.network
    bookings: list[Booking] = [
        (Books.bear if is_borne else Books.accrue)(Books(network, currency), key, payer, payee, amount)
        for (currency, payer, payee, is_borne), amount in sorted(sums.items())
        if amount > 0
    ]
    book(at, bookings, effect.now_seconds)
    for lease, payer in sorted(leases):
        count, amount = leases[lease, payer]
        at.execute(_SPEND_LEASE, (count, amount, lease, effect.upload.header.edge, payer))


def find_keys(at: Connection, effect: FindKeys) -> dict[tuple[str, str], KeyRecord]:
    """Perform `FindKeys`."""
    thumbprints = sorted({thumbprint for _, thumbprint in effect.wanted})
    query = "SELECT directory, thumbprint, record FROM clearing_keys WHERE thumbprint IN"
    found = {(each, name): record for each, name, record in _among(at, query, thumbprints)}
    return {place: _key_decoder.decode(found[place]) for place in effect.wanted if place in found}


def load_unchecked(at: Connection, effect: LoadUnchecked) -> StoredUpload | None:
    """Perform `LoadUnchecked`."""
    row = at.execute(_UNCHECKED, (effect.window, effect.after)).fetchone()
    return None if row is None else StoredUpload(row[0], row[1], bytes(row[2]))


def record_check(at: Connection, effect: RecordCheck) -> bool:
    """Perform `RecordCheck`: what was wrong is taken back by rows of their own."""
    checked = (effect.upload, effect.now_seconds, len(effect.wrong))
    if at.execute(_INSERT_CHECK, checked).rowcount != 1:
        return False
    sums: dict[tuple[str, int, int], int] = {}
    unborne: dict[tuple[str, int, int], int] = {}
    for wrong in effect.wrong:
        payer = payer_key(wrong.payer)
        row = at.execute(_BILLED, (payer, wrong.commitment, effect.upload)).fetchone()
        if row is None:
            continue
        payee, amount, currency, is_borne = row
        taken_back = unborne if is_borne else sums
        if not is_borne:
            at.execute(_REJECT, (payer, wrong.commitment, effect.upload, effect.window, effect.now_seconds))
        taken_back[currency, payer, payee] = taken_back.get((currency, payer, payee), 0) + amount
    network = effect.rules.network
    bookings = [
        Books(network, currency).reject(effect.upload, payer, payee, amount)
        for (currency, payer, payee), amount in sorted(sums.items())
        if amount > 0
    ]
    book(at, bookings, effect.now_seconds)
    prove_borne(at, effect, unborne)
    return True
