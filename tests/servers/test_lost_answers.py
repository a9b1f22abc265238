"""S2, S6: a write that happened and whose answer was lost, as where PostgreSQL dies during the commit."""

from __future__ import annotations

from typing import Any

import farthing_selling as selling
import pytest

from farthing.errors import StoreError
from farthing.seller.store import Advance, MakeClaim
from farthing.world.pending import Pending

TARGET = "/weather/paris"
# A purchase is claimed, and moved twice after that where it settles after the work, once where before.
WRITES = [("authorization", 1), ("authorization", 2), ("authorization", 3), ("upfront", 1), ("upfront", 2)]
# Each time that the payment comes again it is one step further, and no purchase has more steps than this.
TIMES_MAX = 5


def lose_answer(shop: Any, at: int) -> list[Any]:
    """Have the seller's write of this number, from 1, be done, and told as one of which nobody knows; gives all."""
    handlers, writes = shop.seller.performer._handlers, []

    def cut(write: Any) -> Any:
        def perform(effect: Any) -> Any:
            writes.append(effect)
            answer = write(effect)
            if len(writes) != at:
                return answer
            told = Pending[Any]()
            answer.add_done_callback(lambda _: told.fail(StoreError("whether this was written is unknown")))
            return told

        return perform

    for kind in (MakeClaim, Advance):
        handlers[kind] = cut(handlers[kind])
    return writes


@pytest.mark.parametrize(("flow", "at"), WRITES)
def test_S1_S2_S6_a_write_whose_answer_was_lost_charges_once_and_serves_once(shop: Any, flow: str, at: int) -> None:
    shop.seller.price("GET /weather/{city}", "$0.01", payment_flow=flow)
    shop.facilitator.extensions = ("idempotency-key",)
    paid = shop.pay("GET", TARGET)
    writes = lose_answer(shop, at)
    got = shop.send("GET", TARGET, paid)
    assert (got.status, len(writes)) == (503, at)
    assert int(got.header("retry-after")) > 0
    assert b"sunny" not in got.body
    for _ in range(TIMES_MAX):
        if got.status == 200:
            break
        assert got.header("payment-required") == ""
        shop.expire_leases()
        if shop.facilitator.settled:
            shop.facilitator.found = selling.found(shop.facilitator.settled[0][1], "confirmed")
        got = shop.send("GET", TARGET, paid)
    assert (got.status, got.body, shop.work.ran) == (200, b"sunny", 1)
    assert len(shop.facilitator.settled) == len(shop.seller.store.ledger()) == 1
    assert shop.send("GET", TARGET, paid).status == 409
