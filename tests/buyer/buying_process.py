"""Buys in processes of its own, to be killed (`forking`).

An order: `{"journal": …, "url": …, "crash_at": "after:RecordPayment", "clock": 0, "file_bytes": 0}`. `clock` is added
to the system's; `file_bytes` bounds the size of any file that is written, as a full disk does.
"""

from __future__ import annotations

import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "clients"))

import httpx2
from doors import NO_TLS
from forking import serve
from shop import NETWORK, SIGNER

import farthing.world.postgres  # noqa: F401 - before the forks, each of which would bring it
from farthing.buyer import Policy
from farthing.clients import Buyer
from farthing.clients.httpx import PayingTransport, receipt_of
from farthing.errors import FarthingError
from farthing.flow import Now


def buy(order: dict[str, Any]) -> str:
    """Buy once, and say what came of it."""
    policy = Policy(networks=[NETWORK], total="$0.01")
    try:
        with Buyer(signer=SIGNER, policy=policy, journal=order["journal"]) as buyer:
            clock = int(order.get("clock", 0))
            buyer.performer = buyer.performer.with_({Now: lambda _effect: int(time.time()) + clock})
            if order.get("file_bytes"):
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (order["file_bytes"], order["file_bytes"]))
            transport = PayingTransport(buyer, inner=httpx2.HTTPTransport(verify=NO_TLS))
            with httpx2.Client(transport=transport, timeout=20) as client:
                answer = client.get(order["url"])
                receipt = receipt_of(answer)
                return f"{answer.status_code} {receipt.state if receipt else 'free'}"
    except (FarthingError, httpx2.HTTPError) as error:
        return type(error).__name__


if __name__ == "__main__":
    serve(buy)
