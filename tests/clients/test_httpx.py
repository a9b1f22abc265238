"""What the httpx door does beyond the others: streams, cancellation, many requests at once, both libraries."""

from __future__ import annotations

import asyncio
import gzip
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import httpx2
import pytest
from doors import NO_TLS
from shop import NETWORK, SIGNER, Handler, Shop, answering, response

from farthing.buyer import Policy
from farthing.buyer.events import Concluded, Event, Offered, Paying, Signing
from farthing.clients import Buyer
from farthing.clients.httpx import PayingTransport, receipt_of
from farthing.errors import BodyNotReplayable, ConfigError, NoAcceptableOffer, PolicyRefused
from farthing.mechanisms.interface import SignedPayment

LIBRARIES = pytest.mark.parametrize("library", [httpx2, httpx], ids=["httpx2", "httpx"])


class Gate:
    """Holds a behaviour back until the test opens it, and tells the test that it got there."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()

    def __call__(self, handler: Handler, signed: SignedPayment) -> None:
        self.reached.set()
        assert self.open.wait(20)
        handler.shop.transfer(signed)
        handler.answer(200, b"late", PAYMENT_RESPONSE=response())


@LIBRARIES
def test_the_library_s_own_transports_are_used_where_none_is_given(library: Any, shop: Shop, buyer: Buyer) -> None:
    transport = PayingTransport(buyer)
    with library.Client(transport=transport) as client:
        assert client.get(shop.url + "/thing").text == "the goods"

    async def once() -> str:
        async with library.AsyncClient(transport=PayingTransport(buyer)) as client:
            return str((await client.get(shop.url + "/thing")).text)

    assert asyncio.run(once()) == "the goods"


def test_one_transport_serves_both_libraries(shop: Shop, buyer: Buyer) -> None:
    transport = PayingTransport(buyer)
    for library in (httpx2, httpx):
        client: Any = library.Client(transport=transport)
        assert client.get(shop.url + "/thing").status_code == 200
    transport.close()


@LIBRARIES
@pytest.mark.parametrize("manner", ["sync", "async"])
def test_S8_a_paid_stream_streams(library: Any, manner: str, shop: Shop, buyer: Buyer) -> None:
    gate = threading.Event()

    def stream(handler: Handler, _signed: SignedPayment) -> None:
        handler.send_response(200)
        handler.send_header("PAYMENT-RESPONSE", response())
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"5\r\nfirst\r\n")
        assert gate.wait(20)
        handler.wfile.write(b"4\r\nlast\r\n0\r\n\r\n")

    shop.behaviours["/thing"] = stream
    if manner == "sync":
        with library.Client(transport=PayingTransport(buyer)) as client, client.stream("GET", shop.url + "/thing") as a:
            parts = a.iter_bytes()
            assert next(parts) == b"first"
            assert buyer.journal.purchases()[0].state == "settled"
            gate.set()
            assert b"".join(parts) == b"last"
        return

    async def read() -> None:
        transport = PayingTransport(buyer)
        async with library.AsyncClient(transport=transport) as client, client.stream("GET", shop.url + "/thing") as a:
            parts = a.aiter_bytes()
            assert await anext(parts) == b"first"
            gate.set()
            assert b"".join([part async for part in parts]) == b"last"

    asyncio.run(read())


@LIBRARIES
def test_B1_a_cancelled_request_is_carried_to_its_verdict(library: Any, shop: Shop, buyer: Buyer) -> None:
    gate = Gate()
    shop.behaviours["/thing"] = gate

    async def run() -> None:
        async with library.AsyncClient(transport=PayingTransport(buyer)) as client:
            task = asyncio.ensure_future(client.get(shop.url + "/thing"))
            await asyncio.to_thread(gate.reached.wait, 20)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert [each.state for each in buyer.journal.purchases()] == ["sent"]
            gate.open.set()

    asyncio.run(run())
    assert [each.state for each in buyer.journal.purchases()] == ["settled"]
    # Nobody got the answer, so the same request asks for it with the same payment.
    with library.Client(transport=PayingTransport(buyer)) as client:
        assert client.get(shop.url + "/thing").text == "late"
    assert len(set(shop.paid())) == len(shop.transfers) == 1


def test_B1_a_purchase_cut_for_good_is_unknown(shop: Shop, buyer: Buyer) -> None:
    class Interrupted(BaseException):
        pass

    class Inner(httpx2.HTTPTransport):
        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            answer = super().handle_request(request)
            if "PAYMENT-SIGNATURE" in request.headers:
                raise Interrupted
            return answer

    transport = PayingTransport(buyer, inner=Inner(verify=NO_TLS))
    with httpx2.Client(transport=transport) as client, pytest.raises(Interrupted):
        client.get(shop.url + "/thing")
    with httpx2.Client(transport=PayingTransport(buyer)) as client:
        assert client.get(shop.url + "/thing").status_code == 200
    assert len(shop.paid()) == 2
    assert len(set(shop.paid())) == 1
    assert len(shop.transfers) == 1


@LIBRARIES
def test_a_redirect_that_is_not_a_payment_s_is_followed(library: Any, shop: Shop, buyer: Buyer) -> None:
    shop.plain["/old"] = (301, {"Location": "/thing"}, b"")
    with library.Client(transport=PayingTransport(buyer), follow_redirects=True) as client:
        answer = client.get(shop.url + "/old")
    assert answer.status_code == 200
    assert [each.status_code for each in answer.history] == [301]
    assert receipt_of(answer)


def test_a_hundred_purchases_at_once_stay_within_the_budget(shop: Shop, buyer: Buyer) -> None:
    policy = Policy(networks=[NETWORK], total="$0.50")
    small = Buyer(signer=SIGNER, policy=policy, journal=buyer.journal)
    transport = PayingTransport(small)
    with httpx2.Client(transport=transport, timeout=20) as client:

        def fetch(_number: int) -> int:
            try:
                return client.get(shop.url + "/thing").status_code
            except PolicyRefused:
                return 0

        with ThreadPoolExecutor(16) as pool:
            statuses = list(pool.map(fetch, range(100)))
    assert statuses.count(200) == 50
    assert statuses.count(0) == 50
    assert sum(shop.transfers.values()) == 500_000


def test_many_asynchronous_purchases_at_once(shop: Shop, buyer: Buyer) -> None:
    async def run() -> list[int]:
        async with httpx2.AsyncClient(transport=PayingTransport(buyer), timeout=20) as client:
            answers = await asyncio.gather(*(client.get(shop.url + "/thing") for _ in range(40)))
            return [answer.status_code for answer in answers]

    assert asyncio.run(run()) == [200] * 40
    assert len(shop.transfers) == 40
    assert {each.state for each in buyer.journal.purchases()} == {"settled"}


def test_B5_a_file_upload_is_refused_before_paying_until_it_is_read(shop: Shop, buyer: Buyer) -> None:
    with httpx2.Client(transport=PayingTransport(buyer)) as client:
        request = client.build_request("POST", shop.url + "/thing", files={"a": b"content"})
        with pytest.raises(BodyNotReplayable):
            client.send(request)
        request = client.build_request("POST", shop.url + "/thing", files={"a": b"content"})
        request.read()
        assert client.send(request).status_code == 200
    assert len(shop.paid()) == 1


def test_a_gzipped_offer_in_the_body_is_told_from_no_offer(shop: Shop, buyer: Buyer) -> None:
    body = gzip.compress(b'{"x402Version":1,"accepts":[]}')
    shop.plain["/thing"] = (402, {"Content-Encoding": "gzip"}, body)
    with httpx2.Client(transport=PayingTransport(buyer)) as client, pytest.raises(NoAcceptableOffer) as caught:
        client.get(shop.url + "/thing")
    assert caught.value.reason == "no_offers"


def test_another_library_s_request_is_a_plain_error(buyer: Buyer) -> None:
    with pytest.raises(ConfigError, match="httpx2 and httpx"):
        PayingTransport(buyer).handle_request(object())


def test_watchers_see_the_steps_and_can_t_break_them(shop: Shop, buyer: Buyer) -> None:
    seen: list[Event] = []

    def watch(event: Event) -> None:
        seen.append(event)
        raise ValueError

    watched = Buyer(signer=SIGNER, policy=buyer.policy, journal=buyer.journal, watch=watch)
    shop.behaviours["/no"] = answering(500)
    with httpx2.Client(transport=PayingTransport(watched)) as client:
        client.get(shop.url + "/thing")
    assert [type(each) for each in seen] == [Offered, Signing, Paying, Concluded]
    assert isinstance(seen[1], Signing)
    assert seen[1].typed["primaryType"] == "TransferWithAuthorization"
