"""Every flow of the seller, cut at every effect, before and after it: no money is lost, none is taken twice."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from farthing_selling import TRANSACTION, PaymentMiddleware, Shop, acall, found, sign, unpack

from farthing.flow import Effect
from farthing.protocol.facilitator import Settle
from farthing.seller.store import Advance, MakeClaim, MarkDelivered
from farthing.world.performers import Performer

TARGET = "/weather/paris"
# More than any of the flows yields; a cut that is never reached ends the search.
EFFECTS_MAX = 40


class Cut(BaseException):
    """The process ends here."""


class CuttingPerformer:
    """Performs until the effect at which it cuts; `after` cuts when the effect is done, its answer lost."""

    def __init__(self, inner: Performer, at: int, *, after: bool) -> None:
        self.inner, self.at, self.after, self.count = inner, at, after, 0
        self.cut: Effect[Any] | None = None

    def _due(self, effect: Effect[Any]) -> bool:
        self.count += 1
        if self.count != self.at:
            return False
        self.cut = effect
        return True

    def blocking(self, effect: Effect[Any]) -> Any:
        due = self._due(effect)
        if due and not self.after:
            raise Cut
        answer: Any = self.inner.blocking(effect)
        if due:
            raise Cut
        return answer

    def begin(self, effect: Effect[Any]) -> Any:
        return self.awaiting(effect)

    async def awaiting(self, effect: Effect[Any]) -> Any:
        due = self._due(effect)
        if due and not self.after:
            raise Cut
        answer: Any = await self.inner.awaiting(effect)
        if due:
            raise Cut
        return answer


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("flow", "stores"), [("authorization", True), ("authorization", False), ("upfront", True)], ids=str
)
def test_a_cut_at_any_effect_loses_no_money(shop: Shop, flow: Any, *, stores: bool, after: bool) -> None:
    shop.seller.price("GET /weather/{city}", "$0.01", payment_flow=flow, store_response=stores)
    shop.facilitator.extensions = ("idempotency-key",)
    inner = shop.seller.performer
    cuts: list[str] = []
    for at in range(1, EFFECTS_MAX):
        settled_before, booked_before = len(shop.facilitator.settled), len(shop.seller.store.ledger())
        shop.facilitator.found = None
        paid = shop.pay("GET", TARGET)
        cutting = CuttingPerformer(inner, at, after=after)
        shop.seller.performer = cutting
        served = 0
        try:
            served += shop.send("GET", TARGET, paid).status == 200
        except Cut:
            cuts.append(type(cutting.cut).__name__)
            # The delivery is noted when all bytes are out.
            served += isinstance(cutting.cut, MarkDelivered)
        finally:
            shop.seller.performer = inner
        if cutting.cut is None:
            break
        shop.seller.store.flush()
        shop.expire_leases()
        if len(shop.facilitator.settled) > settled_before:
            shop.facilitator.found = found(shop.facilitator.settled[-1][1], "confirmed")
        last = None
        for _ in range(4):
            last = shop.send("GET", TARGET, paid)
            served += last.status == 200
            if last.status != 402:
                break
        assert last is not None
        settled = shop.facilitator.settled[settled_before:]
        booked = len(shop.seller.store.ledger()) - booked_before
        assert booked <= 1
        # Asked twice only under one key, which a facilitator that takes keys answers once.
        assert len({key for key, _ in settled}) <= 1
        if last.status == 200:
            assert booked == 1
            assert unpack(last.header("payment-response"))["transaction"] == TRANSACTION
        else:
            # Nothing was kept to deliver: a refund where it was charged, and a plain word where it was not.
            assert last.status in ({409} if booked else {402, 409}), (at, type(cutting.cut).__name__, last.body)
            assert booked == 0 or last.json["transaction"] == TRANSACTION
            assert not stores or served
    else:
        pytest.fail("the flows did not end")
    assert {"LookUp", "Verify", "MakeClaim", "Settle", "Advance"} <= set(cuts)


@pytest.mark.parametrize(
    ("flow", "stores", "waits"), [("authorization", True, 3), ("authorization", False, 2), ("upfront", True, 2)]
)
def test_a_payment_waits_for_few_commits(shop: Shop, flow: Any, *, stores: bool, waits: int) -> None:
    shop.seller.price("GET /weather/{city}", "$0.01", payment_flow=flow, store_response=stores)
    seen: list[Effect[Any]] = []
    handlers = shop.seller.performer._handlers

    def noting(handler: Any) -> Any:
        def note(effect: Any) -> Any:
            seen.append(effect)
            return handler(effect)

        return note

    shop.seller.performer = Performer({kind: noting(handler) for kind, handler in handlers.items()})
    assert shop.buy("GET", TARGET).status == 200
    kinds = [type(effect) for effect in seen]
    assert sum(kind in (MakeClaim, Advance) for kind in kinds) == waits
    assert kinds.count(Settle) == 1
    assert kinds[-1] is MarkDelivered


def test_a_cancelled_request_leaves_no_claim_behind(seller: Any, facilitator: Any) -> None:
    """S9: cancelled while its payment is claimed, before the work began."""

    async def run() -> list[str]:
        seller.price("GET /x", "$0.01")
        ran: list[str] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            ran.append("ran")

        door = PaymentMiddleware(app, seller=seller)
        offer = await acall(door, "GET", "/x")
        paid = [("PAYMENT-SIGNATURE", sign(offer.header("payment-required")))]
        for rounds in range(1, 12):
            task = asyncio.ensure_future(acall(door, "GET", "/x", paid))
            for _ in range(rounds):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task})
            while True:
                rows = [str(row.state) for row in seller.store.payments()]
                if rows in ([], ["void"]):
                    break
                await asyncio.sleep(0)
        return ran

    asyncio.run(run())
    assert facilitator.settled == []
