"""Buys on credit in processes of its own, to be killed (`forking`).

An order: `{"journal": …, "agent": …, "edge": …, "paths": ["/articles/1", …], "sent": …, "crash_at": "before:SignData",
"clock": 0}`. The paths are bought one after the other by one buyer. `sent` is a file: before a request leaves with a
promise, its path and signature are written there.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[1] / "buyer"))

import httpx2
from forking import serve
from network import NETWORK

from farthing.buyer import Policy
from farthing.clients import Buyer
from farthing.clients.httpx import PayingTransport, receipt_of
from farthing.errors import FarthingError
from farthing.flow import Now
from farthing.signatures import SigningKey
from farthing.world.agent_keys import AgentSigner
from farthing.world.directories import Directories

KEY = SigningKey(b"\x07" * 32)


class Recording(httpx2.HTTPTransport):
    """Writes down what leaves, before it does."""

    def __init__(self, path: str) -> None:
        super().__init__(verify=False)
        self._path = path

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        if "Signature" in request.headers:
            with Path(self._path).open("a", encoding="utf-8") as sent:
                sent.write(f"{request.url.path} {request.headers['Signature']}\n")
        return super().handle_request(request)


def buy(order: dict[str, Any]) -> str:
    """Buy, and say what came of the last one."""
    said = "nothing"
    policy = Policy(networks=[NETWORK], per_request="$0.01", total="$10", private_hosts=["127.0.0.1"])
    agent = AgentSigner(order["agent"], KEY)
    directories = Directories(allowed=[order["edge"]])
    with Buyer(agent=agent, policy=policy, journal=order["journal"], directories=directories) as buyer:
        clock = int(order.get("clock", 0))
        if clock:
            buyer.performer = buyer.performer.with_({Now: lambda _effect: int(time.time()) + clock})
        transport = PayingTransport(buyer, inner=Recording(order["sent"]))
        with httpx2.Client(transport=transport, timeout=20) as client:
            for path in order["paths"]:
                try:
                    answer = client.get(order["edge"] + path)
                    receipt = receipt_of(answer)
                    said = f"{answer.status_code} {receipt.state if receipt else 'free'}"
                except (FarthingError, httpx2.HTTPError) as error:
                    said = f"{type(error).__name__} {getattr(error, 'reason', '')}"
    return said


if __name__ == "__main__":
    serve(buy)
