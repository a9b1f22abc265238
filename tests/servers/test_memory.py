"""What a seller keeps in memory: nothing of what is over (A1)."""

from __future__ import annotations

import asyncio
import functools
import gc
import sys
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from bench.canned import CannedFacilitator
from farthing_selling import Got, acall, make_seller, sign, wcall

from farthing.servers.asgi import PaymentMiddleware
from farthing.servers.wsgi import PaidWSGI

# Answers by address that are remembered here. A cache of them that is full begins anew: it holds as many after any
# multiple of these.
REMEMBERED = 32
WARM_UP = 4 * REMEMBERED
COUNT = 10 * REMEMBERED
# Of Python's allocator: an entry of one payment that stays takes five or more.
BLOCKS_MAX = 2 * COUNT

Send = Callable[[str, list[tuple[str, str]]], Awaitable[Got]]


class Waiting(CannedFacilitator):
    """Across a network: copies of a payment share its verification."""

    answers_at_once = False


async def answer(_scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"sunny"})


def answer_wsgi(_environ: Any, start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("content-type", "text/plain")])
    return [b"sunny"]


async def shop(send: Send, first: int, count: int) -> None:
    """Ask at an address of its own, pay, pay with the same again, and send junk: so many times."""
    for number in range(first, first + count):
        offer = await send(f"/weather/{number}", [])
        assert offer.status == 402
        payment = [("PAYMENT-SIGNATURE", sign(offer.header("payment-required")))]
        assert (await send(f"/weather/{number}", payment)).status == 200
        assert (await send(f"/weather/{number}", payment)).status in (402, 409)
        assert (await send(f"/weather/{number}", [("PAYMENT-SIGNATURE", f"{number}")])).status == 400


def blocks() -> int:
    """What Python holds beside our bounded caches."""
    for each in gc.get_objects():
        if isinstance(each, functools._lru_cache_wrapper) and (each.__module__ or "").startswith("farthing."):
            each.cache_clear()
    gc.collect()
    return sys.getallocatedblocks()


@pytest.mark.alone
@pytest.mark.parametrize("facilitator", [CannedFacilitator, Waiting], ids=["at-once", "waiting"])
@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_A1_what_was_served_leaves_nothing_in_memory(
    tmp_path: Path, kind: str, facilitator: type[CannedFacilitator], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("farthing.servers.unpaid._REMEMBERED_MAX", REMEMBERED)
    monkeypatch.setattr("farthing.seller.routes._REMEMBERED_MAX", REMEMBERED)
    seller = make_seller(tmp_path, facilitator())
    seller.price("GET /weather/{city}", "$0.01")
    asgi, wsgi = PaymentMiddleware(answer, seller=seller), PaidWSGI(answer_wsgi, seller=seller)

    async def send(target: str, headers: list[tuple[str, str]]) -> Got:
        if kind == "asgi":
            return await acall(asgi, "GET", target, headers)
        return await asyncio.to_thread(wcall, wsgi, "GET", target, headers)

    async def main() -> int:
        await shop(send, 0, WARM_UP)
        before = blocks()
        await shop(send, WARM_UP, COUNT)
        return blocks() - before

    grown = asyncio.run(main())
    seller.close()
    assert grown < BLOCKS_MAX
