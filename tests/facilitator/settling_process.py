"""A process that settles what it reads from stdin: what the crash tests kill, at the place the environment names."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from farthing.protocol.codec import decode_verify_request
from farthing.services.facilitator import FacilitatorService, load_config
from farthing.services.facilitator.lane import Pace


async def main() -> None:
    order = json.loads(sys.stdin.read())
    # A lease of a second, so that the test need not wait long for a dead process's to be over.
    service = FacilitatorService.from_config(load_config(Path(order["config"])), pace=Pace(lease_seconds=1))
    async with service:
        requests = [decode_verify_request(each.encode()) for each in order["payments"]]
        outcomes = await asyncio.gather(
            *(
                service.settle(each.payment_payload, each.payment_requirements, idempotency_key=order["key"])
                for each in requests
            )
        )
        sys.stdout.write(json.dumps([type(each).__name__ for each in outcomes]))


asyncio.run(main())
