"""Processes that settle payments and are killed, forked from one that has imported everything: a start costs little.

Reads one order a line from stdin (JSON) and forks a process for it; says on stdout what payments became, and with which
status each process ended.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
from typing import Any

import msgspec

import farthing.world.postgres  # noqa: F401 - before the forks, each of which would bring it
from farthing.facilitator.desk import Limits
from farthing.protocol.codec import decode_verify_request
from farthing.services.facilitator import FacilitatorService, read_config
from farthing.services.facilitator.lane import Pace

# A process that is not killed and lingers ends by itself, so that nothing outlives a test.
LINGER_SECONDS = 40


def say(**said: Any) -> None:
    os.write(1, json.dumps(said).encode() + b"\n")


async def settle(order: dict[str, Any]) -> None:
    config = msgspec.structs.replace(read_config(order["config"]), limits=Limits(**order["limits"]))
    async with FacilitatorService.from_config(config, pace=Pace(**order["pace"])) as service:
        for wave in order["waves"]:
            requests = [decode_verify_request(each.encode()) for each in wave]
            outcomes = await asyncio.gather(
                *(
                    service.settle(each.payment_payload, each.payment_requirements, idempotency_key=order["key"])
                    for each in requests
                )
            )
            say(name=order["name"], outcomes=[type(each).__name__ for each in outcomes])
        if order["lingers"]:
            await asyncio.sleep(LINGER_SECONDS)


def child(order: dict[str, Any]) -> None:
    os.environ.update(order["environment"])
    # What a process that is about to be killed logs is nobody's business.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    status = 1
    try:
        asyncio.run(settle(order))
        status = 0
    finally:
        os._exit(status)


def main() -> None:
    names: dict[int, str] = {}
    buffer, open_ = b"", True
    while open_ or names:
        readable, _, _ = select.select([0] if open_ else [], [], [], 0.01)
        if readable:
            read = os.read(0, 1 << 20)
            open_ = bool(read)
            *lines, buffer = (buffer + read).split(b"\n")
            for line in lines:
                order = json.loads(line)
                pid = os.fork()
                if pid == 0:
                    child(order)
                names[pid] = order["name"]
                say(name=order["name"], pid=pid)
        while names:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            say(name=names.pop(pid), status=os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
