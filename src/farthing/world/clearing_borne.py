"""What the network bears in the clearing house's store: lines under compromised keys, set apart, proved and paid.

Such a line stands among all lines, so that it counts once (C2), and among the rejected ones, so that it is on no
statement. It is paid for when its window's signatures were checked, and the reserve reaches.
"""

# ruff: noqa: S608 - what is put into statements is the name of a reason, from code

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from farthing.clearing.books import Booking, Books
from farthing.clearing.compromise import BORNE_MAX, PayBorne
from farthing.clearing.intake import KEY_COMPROMISED, IntakeLine
from farthing.clearing.store import RecordCheck
from farthing.protocol.clearing import KEY_CACHE_SECONDS
from farthing.world.clearing_booking import book
from farthing.world.clearing_compromise import declared_at
from farthing.world.clearing_reserve import unpledged
from farthing.world.connection import Connection

_KNOWN: Final = "SELECT 1 FROM clearing_lines WHERE payer = ? AND commitment = ?"
# Of the edge's own lease of this payer, granted before the key was declared: what is left of it.
_LEFT: Final = """
SELECT amount - spent FROM clearing_leases WHERE lease = ? AND edge = ? AND payer = ? AND granted_at < ?
"""
_SET_APART: Final = f"""
INSERT INTO clearing_rejections (payer, commitment, upload, window_number, reason, rejected_at)
VALUES (?, ?, ?, ?, '{KEY_COMPROMISED}', ?)
"""
_SUMS: Final = f"""
SELECT p.currency, l.payer, l.payee, SUM(l.amount) FROM clearing_rejections r
JOIN clearing_lines l ON l.payer = r.payer AND l.commitment = r.commitment
JOIN clearing_payers p ON p.payer = l.payer
WHERE r.window_number = ? AND r.upload = ? AND r.reason = '{KEY_COMPROMISED}' GROUP BY p.currency, l.payer, l.payee
"""
_INSERT: Final = """
INSERT INTO clearing_borne (upload, payee, currency, amount, proved_at) VALUES (?, ?, ?, ?, ?)
"""
_OPEN: Final = """
SELECT upload, payee, amount FROM clearing_borne WHERE paid_at IS NULL AND currency = ?
ORDER BY proved_at, upload, payee LIMIT ?
"""
_PAY: Final = "UPDATE clearing_borne SET paid_at = ? WHERE upload = ? AND payee = ? AND paid_at IS NULL"

Place = tuple[int, bytes]


class Bearing:
    """Tells which lines of an upload the network bears: `borne`, by payer and commitment."""

    def __init__(self, at: Connection, edge: str, payers: Iterable[int]) -> None:
        """Look up what was declared of the payers that an upload names."""
        self._at, self._edge = at, edge
        self._declared = declared_at(at, set(payers))
        self._left: dict[tuple[str, int], int] = {}
        self.borne: set[Place] = set()

    def judge(self, place: Place, line: IntakeLine) -> tuple[str, str] | None:
        """Say why a line under a compromised key is nobody's to pay, as a reason and words; None for all others."""
        payer = place[0]
        declared = self._declared.get((payer, line.key))
        if declared is None or line.committed <= declared + KEY_CACHE_SECONDS:
            return None
        if place in self.borne or self._at.execute(_KNOWN, place).fetchone() is not None:
            return None
        lease = (line.lease, payer)
        if lease not in self._left:
            row = self._at.execute(_LEFT, (line.lease, self._edge, payer, declared)).fetchone()
            self._left[lease] = 0 if row is None else int(row[0])
        if line.amount > self._left[lease]:
            return KEY_COMPROMISED, "taken long after the key was declared compromised, within no lease from before"
        self._left[lease] -= line.amount
        self.borne.add(place)
        return None

    def set_apart(self, upload: int, window: int, now_seconds: int) -> None:
        """Keep what the network bears off all statements."""
        rows = [(*place, upload, window, now_seconds) for place in sorted(self.borne)]
        if rows:
            self._at.executemany(_SET_APART, rows)


def prove_borne(at: Connection, effect: RecordCheck, wrong: Mapping[tuple[str, int, int], int]) -> None:
    """Put on record what the network owes for an upload whose signatures were checked; take back what was forged."""
    owed: dict[tuple[str, int], int] = {}
    bookings: list[Booking] = []
    for currency, payer, payee, amount in at.execute(_SUMS, (effect.window, effect.upload)).fetchall():
        back = wrong.get((currency, payer, payee), 0)
        if back > 0:
            bookings.append(Books(effect.rules.network, currency).unbear(effect.upload, payer, payee, back))
        owed[currency, payee] = owed.get((currency, payee), 0) + int(amount) - back
    book(at, bookings, effect.now_seconds)
    for (currency, payee), amount in sorted(owed.items()):
        if amount > 0:
            at.execute(_INSERT, (effect.upload, payee, currency, amount, effect.now_seconds))


def pay_borne(at: Connection, effect: PayBorne) -> int:
    """Perform `PayBorne`: what the reserve does not reach for waits, and what came later waits behind it."""
    rows = at.execute(_OPEN, (effect.currency, BORNE_MAX)).fetchall()
    if not rows:
        return 0
    free = left = unpledged(at, effect.currency, effect.rules, effect.now_seconds)
    books = Books(effect.rules.network, effect.currency)
    bookings: list[Booking] = []
    for upload, payee, amount in rows:
        if amount > left:
            break
        if at.execute(_PAY, (effect.now_seconds, upload, payee)).rowcount == 1:
            bookings += books.pay_borne(upload, payee, amount)
            left -= amount
    book(at, bookings, effect.now_seconds)
    return free - left
