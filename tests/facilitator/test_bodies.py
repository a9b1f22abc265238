"""What bounds the bodies that a facilitator reads or holds: size, time, and a room that callers share (A1)."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import pytest
from raw_request import RawRequest

from farthing.facilitator.desk import Limits
from farthing.protocol.codec import BODY_MAX_BYTES
from farthing.services.bodies import PLACE_MIN_BYTES, RoomLimits
from farthing.services.facilitator import app as app_module
from farthing.services.facilitator.app import BODIES, make_app
from farthing.services.facilitator.auth import Tokens

SHOP, STALL = "a-token-of-the-shop-0123456789", "a-token-of-the-stall-012345678"
TOKENS = Tokens({name: hashlib.sha256(key.encode()).digest() for name, key in (("shop", SHOP), ("stall", STALL))})
VERDICTS = {"/verify": ("isValid", "invalidReason"), "/settle": ("success", "errorReason")}


def not_judged(asked: RawRequest, path: str, kind: str) -> bool:
    """See that an answer says in every way that this was no verdict."""
    verdict, reason = VERDICTS[path]
    problem = asked.problem
    assert problem["type"] == f"urn:farthing:facilitator:{kind}"
    return problem[verdict] is False and str(problem[reason]).startswith("unexpected_")


@pytest.mark.parametrize("path", list(VERDICTS))
def test_A1_a_payment_without_room_is_refused_before_a_byte_of_it_is_read(
    pyevm: Any, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    three = RoomLimits(bytes_max=3 * BODY_MAX_BYTES, caller_bytes_max=2 * BODY_MAX_BYTES, read_seconds=10)
    monkeypatch.setattr(app_module, "BODIES", three)

    async def run() -> None:
        async with pyevm.service() as service:
            app = make_app(service, TOKENS)
            body = pyevm.payment().body

            def ask(token: str) -> RawRequest:
                return RawRequest(app, path, token=token, content=body, length=BODY_MAX_BYTES)

            held = [await ask(token).until_read() for token in (SHOP, SHOP)]
            over = await ask(SHOP).refused()
            assert (over.status, over.was_read) == (429, False)
            assert not_judged(over, path, "rate-limited")
            assert int(over.headers["retry-after"]) > 0
            held.append(await ask(STALL).until_read())
            full = await ask(STALL).refused()
            assert (full.status, full.was_read) == (503, False)
            assert not_judged(full, path, "unavailable")
            assert int(full.headers["retry-after"]) > 0
            for each in held:
                assert (await each.answered(gone=True)).status == 400
            assert (await ask(SHOP).answered()).status == 200

    asyncio.run(run())


def test_A1_nothing_is_read_of_whoever_has_no_token(pyevm: Any) -> None:
    async def run() -> None:
        app = make_app(pyevm.service(), TOKENS)
        for path in VERDICTS:
            for token in ("", "nobodys-token"):
                asked = await RawRequest(app, path, token=token, length=BODY_MAX_BYTES).refused()
                assert (asked.status, asked.was_read) == (401, False)
            large = await RawRequest(app, path, token=SHOP, length=BODY_MAX_BYTES + 1).refused()
            assert (large.status, large.was_read) == (413, False)

    asyncio.run(run())


def test_A1_a_request_that_drips_is_given_up_and_is_no_verdict(pyevm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    one = RoomLimits(bytes_max=BODY_MAX_BYTES, caller_bytes_max=BODY_MAX_BYTES, read_seconds=0)
    monkeypatch.setattr(app_module, "BODIES", one)

    async def run() -> None:
        app = make_app(pyevm.service())
        for path in (*VERDICTS, *VERDICTS):
            slow = await RawRequest(app, path, length=BODY_MAX_BYTES).refused()
            assert (slow.status, slow.was_read, slow.headers["connection"]) == (408, True, "close")
            assert not_judged(slow, path, "body-too-slow")

    asyncio.run(run())


def test_A1_as_many_payments_as_may_be_open_find_room(pyevm: Any) -> None:
    usual = max(2 * len(pyevm.payment().body), PLACE_MIN_BYTES)
    assert Limits().open_payments_max * usual <= BODIES.caller_bytes_max < BODIES.bytes_max
