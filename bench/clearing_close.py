"""`close`: a window of a million commitments: every signature checked, statements made run by run, and signed."""

from __future__ import annotations

import time

from bench.clearing_lines import AMOUNT, NETWORK, PAYERS, uploads
from bench.clearing_store import House, peak_megabytes, postgres_house
from bench.figure import Figure
from farthing.clearing import flows
from farthing.clearing.intake import read_upload
from farthing.clearing.store import ListStatements
from farthing.flow import drive

SECONDS_TARGET = 600.0
MEGABYTES_TARGET = 2_000.0
LINES = 1_000_000
# Lines that are made at a time.
_BATCH = 50_000


def run(*, lines: int = LINES) -> list[Figure]:
    """Measure: the seconds of the close, and the most memory that the process has had until its end."""
    with postgres_house() as house:
        made = 0
        while made < lines:
            count = min(_BATCH, lines - made)
            for body in uploads(count, sequence=1 + made):
                upload = read_upload(body, NETWORK)
                drive(flows.take(house.desk, upload, house.payees), house.performer.blocking)
            made += count
        seconds = _close(house, made)
        runs = house.bytes_of("clearing_runs") / made
    return [
        Figure(
            name="close",
            ours=seconds,
            unit="s",
            better="lower",
            target=SECONDS_TARGET,
            target_is="ours",
            notes=(
                f"{made} commitments of {PAYERS} payers, every signature checked",
                f"bytes of a commitment as a line of its statement: {runs:.0f}",
            ),
        ),
        Figure(
            name="close_memory",
            ours=float(peak_megabytes()),
            unit="MB",
            better="lower",
            target=MEGABYTES_TARGET,
            target_is="ours",
        ),
    ]


def _close(house: House, made: int) -> float:
    begin = time.perf_counter()
    drive(flows.close(house.desk, force=True), house.performer.blocking)
    seconds = time.perf_counter() - begin
    statements = house.performer.blocking(ListStatements())
    if sum(each.count for each in statements) != made or sum(each.net for each in statements) != made * AMOUNT:
        message = f"{made} lines went in, and the statements hold {sum(each.count for each in statements)}."
        raise AssertionError(message)
    return seconds
