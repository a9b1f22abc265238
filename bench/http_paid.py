"""`http_paid`: paid requests a second on one core, with a canned facilitator, against the bare route.

Each request has a payment of its own: it is read, matched, verified, claimed, served, settled and booked. The canned
facilitator names the payer that it says yes to, as facilitators do, so that no signature is checked a second time here
(decision 008); that of the official package's side is canned likewise.
The target is for the default, which keeps the response on disk until it is delivered; beside it a route that gives that
up, and the flows alone, over a store in memory. The official package keeps nothing.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from bench.apps import PAID_PATH
from bench.figure import Figure
from bench.http_rounds import Contender, Paid, fsync_microseconds, measure, to_note
from bench.serving import Server

TARGET = 0.30
TARGET_STORELESS = 0.6


def run() -> list[Figure]:
    """Measure."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="farthing-bench-")))

        def serve(module: str, name: str) -> Contender:
            return Contender(stack.enter_context(Server(module, name, folder / name)), Paid(PAID_PATH), 200)

        found = measure(
            {
                "bare": serve("bench.apps", "bare"),
                "stored": serve("bench.apps", "farthing"),
                "unstored": serve("bench.apps", "farthing_unstored"),
                "storeless": serve("bench.apps", "farthing_storeless"),
                "official": serve("bench.official_apps", "official"),
                "FastAPI": serve("bench.apps", "fastapi"),
            }
        )
    notes = (to_note(found, "bare"), f"fsync p50 {fsync_microseconds():.0f} µs")
    targets = {"stored": TARGET, "unstored": None, "storeless": TARGET_STORELESS}
    return [
        Figure(
            name="http_paid" if name == "stored" else f"http_paid_{name}",
            ours=found[name].per_second,
            unit="requests/s",
            better="higher",
            limit=found["bare"].per_second,
            official=found["official"].per_second,
            target=target,
            notes=notes if name == "storeless" else (),
        )
        for name, target in targets.items()
    ]
