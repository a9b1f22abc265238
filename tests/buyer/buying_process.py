"""Buys in processes of its own, to be killed: reads orders as lines of JSON, forks for each, and says how it ended.

An order: `{"journal": …, "url": …, "crash_at": "after:RecordPayment", "clock": 0, "file_bytes": 0}`. `clock` is added
to the system's; `file_bytes` bounds the size of any file that is written, as a full disk does. It answers with
`{"exit": …}`, a signal as a negative number, and what the process said.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "clients"))

import httpx2
from doors import NO_TLS
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


def main() -> None:
    """Serve orders until there are no more."""
    for line in sys.stdin:
        order = json.loads(line)
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.environ["FARTHING_CRASH_AT"] = order.get("crash_at", "")
            os.write(writing, buy(order).encode())
            os._exit(0)
        os.close(writing)
        if order.get("kill_after_seconds") is not None:
            time.sleep(order["kill_after_seconds"])
            os.kill(pid, signal.SIGKILL)
        else:
            # Said before the end, so that whoever misbehaves on cue knows whom to kill.
            sys.stdout.write(json.dumps({"pid": pid}) + "\n")
            sys.stdout.flush()
        said = os.read(reading, 4096).decode()
        _, status = os.waitpid(pid, 0)
        os.close(reading)
        sys.stdout.write(json.dumps({"exit": os.waitstatus_to_exitcode(status), "said": said}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
