"""The log of an edge: commitments in the order in which they became durable, until the clearing house has them.

A commitment is one row, inserted with its group and never changed. An upload is a range of rows, fixed before it is
sent. One process writes for one label (`farthing.world.edge_label`); several may share a file, whose unique index lets
one of them alone have a commitment.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec

from farthing.protocol.clearing import KeyRecord
from farthing.seller.repeats import Bound
from farthing.world import edge_answers
from farthing.world.connection import Connection
from farthing.world.database import off_the_loop, open_database
from farthing.world.many_rows import write
from farthing.world.pending import Pending

_LOG: Final = (
    "INSERT INTO edge_commitment (edge, payer, id, nonce, expires, lease, amount, key_id, line) "
    "VALUES {} ON CONFLICT (expires, id) DO NOTHING"
)
_LOG_COLUMNS: Final = 9
_LAST: Final = "SELECT COALESCE(MAX(seq), 0) FROM edge_commitment"
_SINCE: Final = "SELECT id FROM edge_commitment WHERE seq > ?"
_COUNT: Final = "UPDATE edge_lease SET count = count + ?, spent = spent + ? WHERE lease = ?"
_NOTE: Final = "INSERT INTO edge_sent (edge, payer, id, expires) VALUES {}"
_NOTE_COLUMNS: Final = 4
_TAKEN_BY: Final = "SELECT edge FROM edge_commitment WHERE expires = ? AND id = ?"
_RECENT: Final = "SELECT payer, nonce, id, expires FROM edge_commitment WHERE expires >= ?"
_CURSOR: Final = "SELECT COALESCE(MAX(last_seq), 0), COALESCE(MAX(last_note), 0) FROM edge_upload WHERE edge = ?"
_SEQUENCE: Final = "SELECT COALESCE(MAX(sequence), 0) FROM edge_upload WHERE edge = ? AND epoch = ?"
_LINES: Final = "SELECT seq, payer, key_id, line FROM edge_commitment WHERE edge = ? AND seq > ? ORDER BY seq LIMIT ?"
# A long answer may end after its commitment was uploaded and dropped here: number 0 stands for what is there already.
_NOTES: Final = (
    "SELECT n.note, COALESCE(c.seq, 0), n.payer, n.id FROM edge_sent n "
    "LEFT JOIN edge_commitment c ON c.expires = n.expires AND c.id = n.id "
    "WHERE n.edge = ? AND n.note > ? ORDER BY n.note LIMIT ?"
)
_ADD_UPLOAD: Final = (
    "INSERT INTO edge_upload (edge, epoch, sequence, last_seq, last_note, made_at, body, answer) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_PENDING: Final = (
    "SELECT epoch, sequence, last_seq, last_note, made_at, body FROM edge_upload "
    "WHERE edge = ? AND length(body) > 0 ORDER BY epoch, sequence LIMIT 1"
)
_ACKNOWLEDGE: Final = "UPDATE edge_upload SET body = ?, answer = ? WHERE edge = ? AND epoch = ? AND sequence = ?"
_WAITING: Final = "SELECT COUNT(*) FROM edge_commitment WHERE edge = ? AND seq > ?"
_ACKNOWLEDGED: Final = (
    "SELECT COALESCE(MAX(last_seq), 0), COALESCE(MAX(last_note), 0) FROM edge_upload "
    "WHERE edge = ? AND length(body) = 0"
)
_PRUNE: Final = "DELETE FROM edge_commitment WHERE edge = ? AND seq <= ? AND expires < ?"
_PRUNE_NOTES: Final = "DELETE FROM edge_sent WHERE edge = ? AND note <= ?"
_ADD_KEY: Final = (
    "INSERT INTO edge_key (directory, thumbprint, record) VALUES (?, ?, ?) ON CONFLICT (directory, thumbprint) "
    "DO NOTHING"
)
_FIND_KEY: Final = "SELECT record FROM edge_key WHERE directory = ? AND thumbprint = ?"
_KEYS: Final = "SELECT record FROM edge_key"
_ADD_LEASE: Final = (
    "INSERT INTO edge_lease (lease, edge, epoch, payer, amount, count, spent, state) VALUES (?, ?, ?, ?, ?, 0, 0, ?) "
    "ON CONFLICT (lease) DO NOTHING"
)
_OPEN_LEASES: Final = (
    "SELECT lease, epoch, payer, amount, count, spent FROM edge_lease WHERE edge = ? AND state = ? ORDER BY lease"
)
_CLOSE_LEASE: Final = "UPDATE edge_lease SET state = ? WHERE lease = ?"
_IS_LEFT: Final = (
    "SELECT 1 WHERE EXISTS (SELECT 1 FROM edge_commitment WHERE edge = ? AND seq > "
    "(SELECT COALESCE(MAX(last_seq), 0) FROM edge_upload WHERE edge = ? AND length(body) = 0)) "
    "OR EXISTS (SELECT 1 FROM edge_sent WHERE edge = ? AND note > "
    "(SELECT COALESCE(MAX(last_note), 0) FROM edge_upload WHERE edge = ? AND length(body) = 0)) "
    "OR EXISTS (SELECT 1 FROM edge_lease WHERE edge = ? AND state = ?)"
)
_LEASE_UPLOADED: Final = "SELECT COUNT(*) FROM edge_commitment WHERE edge = ? AND lease = ? AND seq > ?"

OPEN: Final = "open"
CLOSED: Final = "closed"
# Keys that are read back at the start: an edge has as many agents as a publisher has crawlers.
_KEYS_MAX: Final = 100_000

_key_decoder = msgspec.json.Decoder(KeyRecord)


class LoggedLine(msgspec.Struct, frozen=True, gc=False):
    """A commitment on its way into the log. `line` is as `farthing.mechanisms.batch_credit.kept` keeps it."""

    payer: str
    id: str
    nonce: str
    expires: int
    lease: str
    amount: int
    key_id: str
    line: bytes


class Waiting(msgspec.Struct, frozen=True):
    """A commitment that is not uploaded yet."""

    seq: int
    payer: str
    key_id: str
    line: bytes


class Note(msgspec.Struct, frozen=True):
    """A note that an answer went out whole."""

    note: int
    seq: int
    payer: str
    id: str


class UploadRecord(msgspec.Struct, frozen=True):
    """An upload as it is sent, as often as need be."""

    epoch: int
    sequence: int
    last_seq: int
    last_note: int
    made_at: int
    body: bytes


class LeaseRecord(msgspec.Struct, frozen=True):
    """A lease, and what was committed under it."""

    lease: str
    epoch: int
    payer: str
    amount: int
    count: int
    spent: int


class EdgeStore:
    """The log, for the process that holds `edge`."""

    def __init__(self, path: str | Path, edge: str) -> None:
        """Open or make it: a path, or a URL of PostgreSQL. Raises `StoreError`."""
        self.edge = edge
        self._database = open_database(path, family="edge")
        self._find = off_the_loop(self._database, self._read_bound)
        self._dropped = 0

    def close(self) -> None:
        """Write what was submitted, and close."""
        self._database.close()

    # The log

    def log(self, line: LoggedLine) -> Pending[bool]:
        """Append a commitment; True once it is durable, False where it is there already."""
        return self._database.join(self._log_together, line)

    def note_sent(self, payer: str, commitment_id: str, expires: int) -> None:
        """Note, without waiting, that the answer to a commitment that expires then went out whole."""
        self._database.join(_note_together, (self.edge, payer, commitment_id, expires), awaited=False)

    def recent(self, since_seconds: int) -> list[tuple[str, str, str, int]]:
        """Give (payer, nonce, id, expires) of the commitments that expire at `since_seconds` or later."""
        return [(row[0], row[1], row[2], row[3]) for row in self._database.fetch(_RECENT, (since_seconds,))]

    def _log_together(self, connection: Any, lines: list[LoggedLine]) -> list[bool]:
        last = connection.execute(_LAST).fetchone()[0]
        rows = [
            (self.edge, each.payer, each.id, each.nonce, each.expires, each.lease, each.amount, each.key_id, each.line)
            for each in lines
        ]
        if write(connection, _LOG, _LOG_COLUMNS, rows) == len(lines):
            new = [True] * len(lines)
        else:
            # A batch holds the store's lock: what has a later number is its own. Of copies in it the first is new.
            ours = {row[0] for row in connection.execute(_SINCE, (last,))}
            new = [_taken_from(ours, each.id) for each in lines]
        spent: dict[str, tuple[int, int]] = {}
        for line, is_new in zip(lines, new, strict=True):
            if is_new and line.lease:
                count, amount = spent.get(line.lease, (0, 0))
                spent[line.lease] = (count + 1, amount + line.amount)
        for lease, (count, amount) in spent.items():
            connection.execute(_COUNT, (count, amount, lease))
        return new

    # Requests that are repeated under an id

    def log_bound(self, line: LoggedLine, bound: Bound, now_seconds: int) -> Pending[edge_answers.Became]:
        """Append a commitment and bind its id to it, in one transaction; what became of it, once that is durable."""
        return self._database.join(self._bind_together, edge_answers.BoundLine(line, bound, now_seconds))

    def find_bound(self, scope: str, now_seconds: int) -> Bound | Pending[Bound | None] | None:
        """Find what an id is bound to; in a future where the database is not on this machine's disk."""
        return self._find((scope, now_seconds))

    def note_repeated(self, scope: str) -> None:
        """Note, without waiting, that an earlier answer went out whole again."""
        self._database.join(self._note_repeated_together, scope, awaited=False)

    def _read_bound(self, asked: tuple[str, int]) -> Bound | None:
        return edge_answers.find_bound(self._database.fetch, *asked)

    def _bind_together(self, connection: Connection, items: list[edge_answers.BoundLine]) -> list[edge_answers.Became]:
        now_seconds = items[-1].now_seconds
        if now_seconds > self._dropped:
            self._dropped = now_seconds
            edge_answers.drop_over(connection, now_seconds)
        return edge_answers.bind_together(connection, items, self._log_together)

    def _note_repeated_together(self, connection: Connection, scopes: list[str]) -> list[None]:
        found = [edge_answers.note_repeated(connection, each) for each in scopes]
        _note_together(connection, [(self._taken_by(connection, each), *each) for each in found if each is not None])
        return [None] * len(scopes)

    def _taken_by(self, connection: Connection, noted: tuple[str, str, int]) -> str:
        """Say which label uploads a commitment that was repeated here: the house takes no note before its line."""
        _, commitment_id, expires = noted
        row = connection.execute(_TAKEN_BY, (expires, commitment_id)).fetchone()
        return self.edge if row is None else str(row[0])

    # Uploads

    def waiting(self, limit: int) -> tuple[list[Waiting], list[Note], int, int]:
        """Give what is in no upload yet, at most `limit` of each: lines, notes, and up to where uploads have come."""
        last_seq, last_note = self._database.fetch(_CURSOR, (self.edge,))[0]
        lines = [Waiting(*row) for row in self._database.fetch(_LINES, (self.edge, last_seq, limit))]
        notes = [Note(*row) for row in self._database.fetch(_NOTES, (self.edge, last_note, limit))]
        return lines, notes, last_seq, last_note

    def behind(self) -> int:
        """Count the commitments that the clearing house does not have."""
        acknowledged = self._database.fetch(_ACKNOWLEDGED, (self.edge,))[0][0]
        return int(self._database.fetch(_WAITING, (self.edge, acknowledged))[0][0])

    def is_left(self, label: str) -> bool:
        """Tell whether a process of another label left commitments or notes that are not uploaded, or leases."""
        return bool(self._database.fetch(_IS_LEFT, (label, label, label, label, label, OPEN)))

    def next_sequence(self, epoch: int) -> int:
        """Give the number of the next upload of this life."""
        return int(self._database.fetch(_SEQUENCE, (self.edge, epoch))[0][0]) + 1

    def add_upload(self, upload: UploadRecord) -> Pending[None]:
        """Fix an upload."""
        row = (self.edge, upload.epoch, upload.sequence, upload.last_seq, upload.last_note, upload.made_at, upload.body)
        return self._database.submit(lambda connection: _run(connection, _ADD_UPLOAD, (*row, b"")))

    def pending_upload(self) -> UploadRecord | None:
        """Give the oldest upload that the clearing house has not answered."""
        rows = self._database.fetch(_PENDING, (self.edge,))
        if not rows:
            return None
        epoch, sequence, last_seq, last_note, made_at, body = rows[0]
        return UploadRecord(epoch, sequence, last_seq, last_note, made_at, bytes(body))

    def acknowledge(self, upload: UploadRecord, answer: bytes) -> Pending[None]:
        """Note the clearing house's answer: what was uploaded may be forgotten."""
        row = (b"", answer, self.edge, upload.epoch, upload.sequence)
        return self._database.submit(lambda connection: _run(connection, _ACKNOWLEDGE, row))

    def prune(self, before_seconds: int) -> Pending[None]:
        """Drop what the clearing house has and no copy can come of any more (it expired before `before_seconds`)."""
        last_seq, last_note = self._database.fetch(_ACKNOWLEDGED, (self.edge,))[0]

        def drop(connection: Any) -> None:
            connection.execute(_PRUNE_NOTES, (self.edge, last_note))
            connection.execute(_PRUNE, (self.edge, last_seq, before_seconds))
            edge_answers.drop_over(connection, before_seconds)

        return self._database.submit(drop)

    # Keys

    def add_key(self, record: KeyRecord) -> Pending[None]:
        """Archive a key as it was found; the first record of a key stands."""
        row = (record.directory, record.thumbprint, msgspec.json.encode(record))
        return self._database.submit(lambda connection: _run(connection, _ADD_KEY, row))

    def find_key(self, directory: str, thumbprint: str) -> KeyRecord | None:
        """Find an archived key."""
        rows = self._database.fetch(_FIND_KEY, (directory, thumbprint))
        return _key_decoder.decode(rows[0][0]) if rows else None

    def keys(self) -> list[KeyRecord]:
        """Give the archive."""
        return [_key_decoder.decode(row[0]) for row in self._database.fetch(f"{_KEYS} LIMIT {_KEYS_MAX}")]

    # Leases

    def add_lease(self, lease: str, epoch: int, payer: str, amount: int) -> Pending[None]:
        """Put a lease on record, before anything is committed under it."""
        row = (lease, self.edge, epoch, payer, amount, OPEN)
        return self._database.submit(lambda connection: _run(connection, _ADD_LEASE, row))

    def open_leases(self) -> list[LeaseRecord]:
        """Give the leases that are not given back."""
        return [LeaseRecord(*row) for row in self._database.fetch(_OPEN_LEASES, (self.edge, OPEN))]

    def lease_is_uploaded(self, lease: str) -> bool:
        """Tell whether the clearing house has every line of a lease."""
        acknowledged = self._database.fetch(_ACKNOWLEDGED, (self.edge,))[0][0]
        return not self._database.fetch(_LEASE_UPLOADED, (self.edge, lease, acknowledged))[0][0]

    def close_lease(self, lease: str) -> Pending[None]:
        """Note that a lease was given back."""
        return self._database.submit(lambda connection: _run(connection, _CLOSE_LEASE, (CLOSED, lease)))


def _note_together(connection: Any, notes: list[tuple[str, str, str, int]]) -> list[None]:
    write(connection, _NOTE, _NOTE_COLUMNS, notes)
    return [None] * len(notes)


def _taken_from(ours: set[str], named: str) -> bool:
    if named not in ours:
        return False
    ours.remove(named)
    return True


def _run(connection: Any, sql: str, parameters: tuple[Any, ...]) -> None:
    connection.execute(sql, parameters)
