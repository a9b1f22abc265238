"""S2: who reads an answer and cuts it before its end has been served: that is not paid back unasked."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import farthing_selling as selling
import pytest
from refund_bank import TARGET, Bank, KeyInAVault, make_shop, pay_back, turn

from farthing.seller.conclude import ANSWER_CUT


class Read(list[bytes]):
    """What the work answers, in pieces; its reader does something when it has all of them."""

    def __init__(self, chunks: list[bytes], then: Callable[[], None]) -> None:
        super().__init__(chunks)
        self.then = then

    def __iter__(self) -> Iterator[bytes]:
        yield from super().__iter__()
        self.then()


class Cut:
    """A server's side of a WSGI answer whose client goes away after so many pieces."""

    def __init__(self, pieces: Any, count: int) -> None:
        self.pieces, self.count = pieces, count

    def __iter__(self) -> Iterator[bytes]:
        yield from itertools.islice(self.pieces, self.count)

    def close(self) -> None:
        self.pieces.close()


@pytest.fixture(params=["asgi", "wsgi"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    bank = Bank()
    bank.extensions = ("idempotency-key",)
    made = make_shop(tmp_path, bank, kind=request.param, refund_signer=KeyInAVault())
    made.work.status = 200
    made.seller.price("GET /weather/{city}", "$0.01", payment_flow="upfront")
    made.seller.price("POST /weather/{city}", "$0.01", payment_flow="upfront")
    yield made
    made.seller.close()


def cut(shop: Any, method: str, paid: Any) -> Any:
    """Send a request, read all that is answered, and go away before the end of it."""
    if shop.kind == "wsgi":
        return selling.wcall(lambda *asked: Cut(shop.door(*asked), 2), method, TARGET, paid)

    async def run() -> Any:
        gone = asyncio.Event()
        shop.work.chunks = Read([b"sun", b"ny"], gone.set)
        return await selling.acall(shop.door, method, TARGET, paid, gone=gone)

    got = asyncio.run(run())
    shop.work.chunks = [b"sun", b"ny"]
    return got


def finalise_and_care(shop: Any) -> None:
    shop.facilitator.finalise()
    for _ in range(2):
        pay_back(shop)
        turn(shop)


def test_S2_an_answer_that_its_client_cut_is_not_paid_back_unasked(shop: Any) -> None:
    assert cut(shop, "POST", shop.pay("POST", TARGET)).body == b"sunny"
    finalise_and_care(shop)
    (row,) = shop.seller.store.payments()
    assert (shop.facilitator.refunds, str(row.state), row.reason) == ([], "refund_due", ANSWER_CUT)
    assert shop.seller.store.refunded(row.payment_id, "0xhand", posted_at=1)


def test_S2_an_answer_that_was_cut_is_remembered_over_the_runs_after_it(shop: Any) -> None:
    paid = shop.pay("GET", TARGET)
    assert cut(shop, "GET", paid).body == b"sunny"
    shop.work.status = 500
    assert [shop.send("GET", TARGET, paid).status for _ in range(2)] == [500, 500]
    finalise_and_care(shop)
    (row,) = shop.seller.store.payments()
    assert (shop.facilitator.refunds, str(row.state), row.reason) == ([], "refund_due", ANSWER_CUT)


def test_S2_work_that_fails_in_the_midst_of_its_answer_is_for_a_person_to_judge(shop: Any) -> None:
    shop.work.error, shop.work.error_after = RuntimeError("in the midst"), 1
    with pytest.raises(RuntimeError):
        shop.send("POST", TARGET, shop.pay("POST", TARGET))
    finalise_and_care(shop)
    assert (shop.facilitator.refunds, shop.states) == ([], ["refund_due"])


def test_S2_an_answer_that_turns_into_an_error_after_a_part_has_left_is_for_a_person_to_judge(shop: Any) -> None:
    async def turning(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"sun", "more_body": True})
        await send({"type": "http.response.start", "status": 500, "headers": []})

    def writing(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"sun"
        try:
            int("gone")
        except ValueError:
            # PEP 3333: raises what is handed over, since the head has left.
            start_response("500 Internal Server Error", [], sys.exc_info())

    shop.door.app = turning if shop.kind == "asgi" else writing
    with contextlib.suppress(Exception):
        shop.send("POST", TARGET, shop.pay("POST", TARGET))
    finalise_and_care(shop)
    (row,) = shop.seller.store.payments()
    assert (shop.facilitator.refunds, str(row.state), row.reason) == ([], "refund_due", ANSWER_CUT)


def test_S2_an_answer_that_turns_into_an_error_before_it_has_begun_is_paid_back(shop: Any) -> None:
    shop.work.status = 500
    assert shop.send("POST", TARGET, shop.pay("POST", TARGET)).status == 500
    finalise_and_care(shop)
    assert (len(shop.facilitator.refunds), shop.states) == (1, ["refunded"])


@pytest.mark.parametrize("shop", ["asgi"], indirect=True)
def test_S2_an_answer_whose_client_had_gone_before_any_of_it_left_is_paid_back(shop: Any) -> None:
    paid = shop.pay("POST", TARGET)

    async def run() -> None:
        gone = asyncio.Event()

        async def late(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            gone.set()
            await send({"type": "http.response.body", "body": b"sunny"})

        shop.door.app = late
        await selling.acall(shop.door, "POST", TARGET, paid, gone=gone)

    asyncio.run(run())
    finalise_and_care(shop)
    assert (len(shop.facilitator.refunds), shop.states) == (1, ["refunded"])


def test_S2_work_that_fails_before_its_answer_is_paid_back(shop: Any) -> None:
    shop.work.error = RuntimeError("before")
    with pytest.raises(RuntimeError):
        shop.send("POST", TARGET, shop.pay("POST", TARGET))
    finalise_and_care(shop)
    assert (len(shop.facilitator.refunds), shop.states) == (1, ["refunded"])
