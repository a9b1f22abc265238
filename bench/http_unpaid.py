"""`http_unpaid`: how many 402s a second one core answers, against the bare route that gives it for nothing."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from bench.apps import PAID_PATH
from bench.figure import Figure
from bench.http_rounds import Contender, fsync_microseconds, measure, same, to_note
from bench.serving import Server

TARGET = 1.1


def run() -> list[Figure]:
    """Measure."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="farthing-bench-")))

        def serve(module: str, name: str) -> Server:
            return stack.enter_context(Server(module, name, folder / name))

        requests = same(PAID_PATH)
        found = measure(
            {
                "bare": Contender(serve("bench.apps", "bare"), requests, 200),
                "ours": Contender(serve("bench.apps", "farthing"), requests, 402),
                "official": Contender(serve("bench.official_apps", "official"), requests, 402),
                "FastAPI": Contender(serve("bench.apps", "fastapi"), requests, 200),
            }
        )
    return [
        Figure(
            name="http_unpaid",
            ours=found["ours"].per_second,
            unit="requests/s",
            better="higher",
            limit=found["bare"].per_second,
            official=found["official"].per_second,
            target=TARGET,
            notes=(to_note(found, "bare"), f"fsync p50 {fsync_microseconds():.0f} µs"),
        )
    ]
