"""`clearing_ingest`: commitments a second into PostgreSQL, as the service takes uploads.

Each is unpacked, its lines held to their bases, a sample of signatures checked; then one booking for each upload, payer
and payee, commitments as its lines, all of an upload in one database transaction.
"""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ThreadPoolExecutor

from bench.clearing_lines import AMOUNT, NETWORK, UPLOAD_LINES, uploads
from bench.clearing_store import House, postgres_house
from bench.figure import Figure
from bench.http_rounds import fsync_microseconds
from farthing.clearing import flows
from farthing.clearing.intake import read_upload
from farthing.flow import drive
from farthing.services.clearing.service import UPLOADS_AT_ONCE

TARGET = 20_000.0
ROUNDS = 5
ROUND_LINES = 40_000


class Lost(Exception):
    """A line was taken and is not on the books: no figure is worth that."""


def run(*, rounds: int = ROUNDS, lines: int = ROUND_LINES) -> list[Figure]:
    """Measure."""
    speeds: list[float] = []
    cpu: list[float] = []
    with postgres_house() as house:
        for number in range(rounds + 1):
            made = list(uploads(lines, sequence=1 + number * lines))
            used = time.process_time()
            seconds = _take(house, made)
            if number:  # the first round warms up
                speeds.append(lines / seconds)
                cpu.append((time.process_time() - used) / lines * 1e6)
        total = (rounds + 1) * lines
        if house.owed() != total * AMOUNT:
            message = f"{total} lines were taken, and the books hold {house.owed()} for them."
            raise Lost(message)
        on_disk = {name: house.bytes_of(f"clearing_{name}") / total for name in ("lines", "uploads")}
    sent = sum(map(len, made)) / lines
    return [
        Figure(
            name="clearing_ingest",
            ours=statistics.median(speeds),
            unit="commitments/s",
            better="higher",
            target=TARGET,
            target_is="ours",
            notes=(
                f"uploads of {UPLOAD_LINES} lines, {UPLOADS_AT_ONCE} at once; {total} lines on the books, none lost",
                f"CPU of a commitment in the clearing house: {statistics.median(cpu):.1f} µs",
                f"bytes of a commitment: {sent:.0f} on the way, {on_disk['lines']:.0f} in its row and indexes",
                f"bytes of a commitment as evidence: {on_disk['uploads']:.0f}",
                f"fsync p50 {fsync_microseconds():.0f} µs",
            ),
        )
    ]


def _take(house: House, made: list[bytes]) -> float:
    def take(body: bytes) -> None:
        upload = read_upload(body, NETWORK)
        answer = drive(flows.take(house.desk, upload, house.payees), house.performer.blocking)
        if answer is None or answer.accepted != len(upload.lines):
            raise Lost(str(answer))

    with ThreadPoolExecutor(UPLOADS_AT_ONCE) as threads:
        begin = time.perf_counter()
        list(threads.map(take, made))
        return time.perf_counter() - begin
