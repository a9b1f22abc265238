"""A process that buys without a network: `spender.py JOURNAL TOTAL COUNT [crash]` prints how many payments it made.

With `crash` it stops for ever once its first payment is on record, and says so, to be killed.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "clients"))

from shop import NETWORK, SIGNER, offer, required, response

from farthing.buyer import PaidAnswer, PaymentDemand, Policy, describe_request
from farthing.clients import Buyer
from farthing.clients.buyer import Exchange
from farthing.errors import PolicyRefused


def main(journal: str, total: str, count: str, *rest: str) -> None:
    """Buy `count` times, or until the budget ends."""
    demand = PaymentDemand(required(offer(10_000)))
    bought = 0
    with Buyer(signer=SIGNER, policy=Policy(networks=[NETWORK], total=total), journal=journal) as buyer:
        for number in range(int(count)):
            request = describe_request("GET", f"https://shop.example/{'same' if rest else number}", b"")
            try:
                with Exchange(buyer, request) as exchange:
                    paid = exchange.blocking(exchange.pay(demand))
                    if rest:
                        sys.stdout.write(paid.payment_id + "\n")
                        sys.stdout.flush()
                        threading.Event().wait(60)
                    exchange.blocking(exchange.conclude(PaidAnswer(200, response())))
                    bought += 1
            except PolicyRefused:
                pass
    sys.stdout.write(f"{bought}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
