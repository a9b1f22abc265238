"""Statements: made from their lines, signed, and checked by whoever has the lines.

C5: a statement is a function of its lines and of dates that are on record; making it twice makes the same bytes.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import msgspec

from farthing.clearing.rules import Rules, round_net, statement_id
from farthing.clearing.store import Totals, Window
from farthing.errors import RemoteProtocolError
from farthing.ledger.merkle import MerkleTree, leaf_hash, root_of
from farthing.protocol.clearing import DECIMALS
from farthing.protocol.statements import (
    RUN_LINES,
    RailTerms,
    Statement,
    StatementLine,
    StatementWindow,
)

# Of a run's gzip: a thousand lines of some 300 bytes take 5 ms at this level.
_LEVEL: Final = 6

_line_decoder = msgspec.json.Decoder(StatementLine)


class Run(msgspec.Struct, frozen=True):
    """Up to 1,024 lines of a statement: gzip of their leaves as NDJSON, and the Merkle root over them."""

    number: int
    first_id: str
    root: bytes
    body: bytes


class Builder:
    """Takes a statement's lines in the order of their ids and adds them up; keeps no more than one run of them."""

    def __init__(self) -> None:
        """Begin with none."""
        self._tree = MerkleTree()
        self._leaves: list[bytes] = []
        self._hashes: list[bytes] = []
        self._first_id = self._last_id = ""
        self._runs = 0
        self._gross = self._adjustments = 0
        self._shares: dict[int, int] = {}

    def add(self, line: StatementLine, *, payee: int, share: int) -> Run | None:
        """Add a line, of which `share` goes to `payee` once the statement is paid; gives a run when one is full."""
        if line.id <= self._last_id:
            message = f"Lines come in the order of their ids, each once: {line.id} came after {self._last_id}."
            raise ValueError(message)
        self._last_id = line.id
        charged = int(line.charged)
        if line.adjustment:
            self._adjustments += charged
        else:
            self._gross += charged
        self._shares[payee] = self._shares.get(payee, 0) + share
        if not self._leaves:
            self._first_id = line.id
        leaf = line.leaf()
        self._leaves.append(leaf)
        self._hashes.append(leaf_hash(leaf))
        return self._end_run() if len(self._leaves) == RUN_LINES else None

    def _end_run(self) -> Run:
        for hashed in self._hashes:
            self._tree.append(hashed)
        run = Run(self._runs, self._first_id, root_of(self._hashes), pack_run(self._leaves))
        self._runs += 1
        self._leaves, self._hashes = [], []
        return run

    def finish(self) -> tuple[Run | None, Totals]:
        """Give the last run, where it is not empty, and what all came to."""
        last = self._end_run() if self._leaves else None
        shares = {payee: share for payee, share in self._shares.items() if share}
        return last, Totals(self._tree.size, self._gross, self._adjustments, self._tree.root(), shares)


def pack_run(leaves: Iterable[bytes]) -> bytes:
    """Write leaves as gzip of NDJSON; without a time in it, so that twice is the same."""
    return gzip.compress(b"".join(leaf + b"\n" for leaf in leaves), _LEVEL, mtime=0)


def leaves_of(body: bytes) -> list[bytes]:
    """Read a run of ours again."""
    return gzip.decompress(body).splitlines()


def read_line(leaf: bytes) -> StatementLine:
    """Read a leaf. Raises `RemoteProtocolError`."""
    try:
        return _line_decoder.decode(leaf)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = f"a statement's line can't be read: {error}"
        raise RemoteProtocolError(message) from None


def as_csv(leaves: Iterable[bytes], *, header: bool) -> Iterator[bytes]:
    """Write lines as CSV (RFC 4180), amounts in atomic units, as the leaves have them."""
    if header:
        yield ",".join(StatementLine.__struct_fields__).encode() + b"\r\n"
    for leaf in leaves:
        text = io.StringIO()
        csv.writer(text).writerow([_safe(each) for each in msgspec.structs.astuple(read_line(leaf))])
        yield text.getvalue().encode()


def _safe(cell: str) -> str:
    # A URL is a stranger's text, and spreadsheets run what begins like a formula; numbers stay numbers.
    return "'" + cell if cell[:1] in {"=", "+", "@", "\t", "\r"} else cell


def draft(
    *,
    rules: Rules,
    window: Window,
    payer: int,
    directory: str,
    currency: str,
    totals: Totals,
    previous: str,
    terms: Callable[[str, int], RailTerms],
) -> Statement:
    """Make a statement of its lines' totals. All dates count from when the window was closed, which is on record.

    `terms` gives the rail's terms for the statement's id and its authorisation's end.
    """
    closed = window.closed_at
    if closed is None:
        message = f"Window {window.number} is not closed."
        raise ValueError(message)
    exact = totals.gross + totals.adjustments
    net = round_net(exact, rules.statement_decimals)
    name = statement_id(window.number, payer)
    due = closed + rules.due_seconds
    return Statement(
        id=name,
        network=rules.network,
        payer=directory,
        currency=currency,
        decimals=DECIMALS,
        window=StatementWindow(str(window.number), window.opened_at, closed),
        count=totals.count,
        gross=str(totals.gross),
        adjustments=str(totals.adjustments),
        rounding=str(net - exact),
        net=str(net),
        root=totals.root.hex(),
        previous=previous,
        issued=closed,
        due=due,
        dispute_until=closed + rules.dispute_seconds,
        rail=terms(name, due + rules.grace_seconds),
    )
