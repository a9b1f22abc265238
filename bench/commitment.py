"""`commitment`: paid pages a second on one core through the ASGI door of an edge.

Each request is a promise of its own: its signature is checked, its place taken in a credit lease, the work done, the
commitment logged durably, and the answer signed. The clearing house is canned and answers in the process; its uploads
are made. The limit is the bare route, sent the very same requests.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.apps import BASE_URL, PAID_PATH
from bench.credit_apps import AGENT_KEY, AGENT_ORIGIN, NETWORK, PAYEE
from bench.figure import Figure
from bench.http_rounds import Contender, fsync_microseconds, measure, to_note
from bench.serving import Server
from farthing.flow import Effect, Now, drive
from farthing.mechanisms.batch_credit import Agent, BatchCreditBuyer, BatchCreditSeller
from farthing.mechanisms.interface import RequestToBind
from farthing.protocol.codec import (
    decode_payment_required,
    encode_payment,
    pack_json,
    pack_payment_required,
)
from farthing.protocol.messages import PaymentRequired, PaymentRequirements, ResourceInfo
from farthing.signatures import SignData

TARGET_PER_SECOND = 2_500.0
_URL = BASE_URL + PAID_PATH


def _perform(effect: Effect[Any]) -> Any:
    if isinstance(effect, Now):
        return int(time.time())
    assert isinstance(effect, SignData)
    return AGENT_KEY.sign(effect.data)


class Promises:
    """Requests with a promise each, signed when they are asked for, and never the same twice."""

    def __init__(self) -> None:
        """Buy one page again and again."""
        self._face = BatchCreditBuyer(Agent(AGENT_ORIGIN, AGENT_KEY.public_key.thumbprint))
        offer = BatchCreditSeller(clearing_house="http://127.0.0.1:9").complete(
            PaymentRequirements("batch-settlement", NETWORK, "1000", "USD", PAYEE, 60)
        )
        received = decode_payment_required(pack_payment_required(PaymentRequired(ResourceInfo(_URL), (offer,))))
        self._received, self._offer = received, received.offers[0]

    def __call__(self, count: int) -> list[bytes]:
        """Sign `count` requests."""
        return [self._one() for _ in range(count)]

    def _one(self) -> bytes:
        offer = self._offer
        prepared = drive(self._face.pay(offer.requirements, payer="", nonce=os.urandom(64)), _perform)
        payment = pack_json(
            encode_payment(
                accepted=offer.raw, payload=prepared.payload, resource=self._received.resource_raw, extensions=None
            )
        )
        bind = self._face.bind(prepared, offer.requirements, RequestToBind("GET", _URL, ""), payment_header=payment)
        bound = drive(bind, _perform)
        lines = [("PAYMENT-SIGNATURE", payment), *bound.headers]
        head = f"GET {PAID_PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/json\r\nUser-Agent: bench\r\n"
        return (head + "".join(f"{name}: {value}\r\n" for name, value in lines) + "\r\n").encode("ascii")


def run() -> list[Figure]:
    """Measure."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="farthing-bench-")))

        def serve(module: str, name: str) -> Contender:
            return Contender(stack.enter_context(Server(module, name, folder / name)), Promises(), 200)

        found = measure({"bare": serve("bench.apps", "bare"), "edge": serve("bench.credit_apps", "on_credit")})
        bytes_each = _bytes_each(folder / "on_credit" / "edge.sqlite3")
    return [
        Figure(
            name="commitment",
            ours=found["edge"].per_second,
            unit="pages/s",
            better="higher",
            limit=found["bare"].per_second,
            target=TARGET_PER_SECOND,
            target_is="ours",
            notes=(to_note(found, "bare"), f"fsync p50 {fsync_microseconds():.0f} µs", bytes_each),
        )
    ]


def _bytes_each(path: Path) -> str:
    """Say what a commitment takes in the log and in an upload."""
    import sqlite3  # noqa: PLC0415 - only here

    with contextlib.closing(sqlite3.connect(path)) as connection:
        lines, line_bytes = connection.execute("SELECT COUNT(*), AVG(LENGTH(line)) FROM edge_commitment").fetchone()
        sizes = connection.execute("SELECT line FROM edge_commitment ORDER BY seq DESC LIMIT 3000").fetchall()
    import gzip  # noqa: PLC0415 - likewise

    from farthing.world.edge_uploads import upload_line  # noqa: PLC0415 - likewise

    packed = gzip.compress(b"\n".join(upload_line(bytes(each[0]), sent=True) for each in sizes), 4)
    return (
        f"{lines} commitments logged: {line_bytes:.0f} bytes each in the log, {len(packed) / len(sizes):.0f} uploaded"
    )
