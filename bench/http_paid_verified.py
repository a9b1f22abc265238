"""`http_paid_verified`: paid requests a second on one core with everything real in one process but the node.

The facilitator verifies, and keeps its outbox on disk: the transactions of settlements are signed, stored, broadcast to
the canned node and confirmed by its logs. The seller's claim and outcome are on disk too. The official package's
facilitator verifies and keeps nothing, and its transactions need not even be signed here.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from bench.apps import PAID_PATH
from bench.figure import Figure
from bench.http_rounds import Contender, Paid, fsync_microseconds, measure, to_note
from bench.official import BACKENDS
from bench.serving import Server

TARGET_PER_SECOND = 2_000.0
# A settlement waits for its block and its commits: more of them are under way at once.
CONNECTIONS = 256


def run() -> list[Figure]:
    """Measure."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="farthing-bench-")))

        def serve(module: str, name: str, environment: dict[str, str] | None = None) -> Contender:
            server = stack.enter_context(Server(module, name, folder / name, environment))
            return Contender(server, Paid(PAID_PATH), 200, CONNECTIONS)

        found = measure(
            {
                "bare": serve("bench.apps", "bare"),
                "stored": serve("bench.apps", "verified"),
                "unstored": serve("bench.apps", "verified_unstored"),
                "official": serve("bench.official_apps", "official_verified", BACKENDS["native"]),
                "official with coincurve": serve("bench.official_apps", "official_verified", BACKENDS["coincurve"]),
            }
        )
    notes = (to_note(found, "bare"), f"fsync p50 {fsync_microseconds():.0f} µs")
    return [
        Figure(
            name="http_paid_verified" if name == "stored" else f"http_paid_verified_{name}",
            ours=found[name].per_second,
            unit="requests/s",
            better="higher",
            limit=found["bare"].per_second,
            official=found["official"].per_second,
            official_coincurve=found["official with coincurve"].per_second,
            target=TARGET_PER_SECOND if name == "stored" else None,
            target_is="ours",
            notes=notes if name == "unstored" else (),
        )
        for name in ("stored", "unstored")
    ]
