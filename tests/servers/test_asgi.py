from __future__ import annotations

import asyncio
import json
import timeit
from typing import Annotated, Any

import farthing_selling as selling
import pytest
from farthing_selling import acall, buy, call, sign, unpack
from fastapi import APIRouter, Depends, FastAPI
from litestar import Litestar, get
from litestar.params import FromPath
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from farthing.errors import ConfigError
from farthing.seller.states import State
from farthing.servers.asgi import PaymentMiddleware
from farthing.servers.fastapi import Payment, current_payment, payment
from farthing.servers.marks import Unpaid
from farthing.servers.seller import Seller


class Handler:
    """A bare application: answers what it is told to, and counts."""

    def __init__(self) -> None:
        self.ran = 0
        self.status = 200
        self.headers: list[tuple[bytes, bytes]] = [(b"content-type", b"text/plain")]
        self.chunks: list[bytes] = [b"sunny"]
        self.payments: list[Any] = []
        self.error: Exception | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.ran += 1
        self.payments.append(scope.get("farthing.payment"))
        if self.error is not None:
            raise self.error
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        for chunk in self.chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


@pytest.fixture
def handler() -> Handler:
    return Handler()


@pytest.fixture
def door(seller: Seller, handler: Handler) -> PaymentMiddleware:
    seller.price("GET /weather/{city}", "$0.01", description="The weather", mime_type="text/plain")
    return PaymentMiddleware(handler, seller=seller)


def test_an_unpriced_path_passes(door: Any, handler: Handler) -> None:
    got = call(door, "GET", "/free")
    assert (got.status, got.body, handler.ran) == (200, b"sunny", 1)


def test_an_unpaid_request_gets_the_offer(door: Any, handler: Handler) -> None:
    got = call(door, "GET", "/weather/paris?units=c")
    assert got.status == 402
    assert handler.ran == 0
    offer = unpack(got.header("payment-required"))
    assert [each["resource"] for each in json.loads(got.body)["accepts"]] == [offer["resource"]["url"]]
    assert offer["x402Version"] == 2
    assert offer["resource"]["url"] == "https://api.example.com/weather/paris?units=c"
    (accepts,) = offer["accepts"]
    assert accepts["amount"] == "10000"
    assert accepts["extra"] == {"name": "USDC", "version": "2"}
    assert got.header("cache-control") == "no-store"


def test_a_paid_request_is_served_and_settled_once(
    door: Any, handler: Handler, facilitator: Any, seller: Seller
) -> None:
    got = buy(door, "GET", "/weather/paris")
    assert (got.status, got.body) == (200, b"sunny")
    assert unpack(got.header("payment-response"))["transaction"] == selling.TRANSACTION
    assert len(facilitator.settled) == 1
    assert handler.ran == 1
    (payment,) = handler.payments
    assert payment.amount == 10_000
    assert payment.payer == selling.address()
    (row,) = seller.store.payments()
    assert row.payment_id == payment.payment_id
    (entry,) = seller.store.ledger()
    assert (entry.amount, entry.transaction) == (10_000, selling.TRANSACTION)


def test_a_used_payment_is_refused_naming_it(door: Any, handler: Handler, facilitator: Any, seller: Seller) -> None:
    offer = call(door, "GET", "/weather/paris")
    paid = [("PAYMENT-SIGNATURE", sign(offer.header("payment-required")))]
    assert call(door, "GET", "/weather/paris", paid).status == 200
    again = call(door, "GET", "/weather/paris", paid)
    assert again.status == 409
    assert again.json["paymentId"].startswith("pay_")
    assert again.json["transaction"] == selling.TRANSACTION
    assert handler.ran == 1
    assert len(facilitator.settled) == 1
    seller.store.flush()
    assert [row.state for row in seller.store.payments()] == [State.DELIVERED]


def test_copies_at_once_share_a_verification_and_run_once(door: Any, handler: Handler, facilitator: Any) -> None:
    async def storm() -> list[Any]:
        offer = await acall(door, "GET", "/weather/paris")
        paid = [("PAYMENT-SIGNATURE", sign(offer.header("payment-required")))]
        return await asyncio.gather(*(acall(door, "GET", "/weather/paris", paid) for _ in range(50)))

    got = asyncio.run(storm())
    assert sorted(each.status for each in got) == [200] + [409] * 49
    assert handler.ran == 1
    assert facilitator.verified == 1
    assert len(facilitator.settled) == 1
    assert all(each.json["paymentId"].startswith("pay_") for each in got if each.status == 409)


def _first_body(got: Any) -> list[bytes]:
    return [message["body"] for message in got.messages if message["type"] == "http.response.body"]


def test_S8_upfront_streams_as_the_handler_gives_it(seller: Seller, facilitator: Any) -> None:
    seller.price("GET /stream", "$0.01", payment_flow="upfront")
    seen: list[bytes] = []
    arrived = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        # The client has the first piece before the handler makes the second.
        assert seen == [b"one"]
        arrived.set()
        await send({"type": "http.response.body", "body": b"two", "more_body": False})

    async def run() -> None:
        door = PaymentMiddleware(app, seller=seller)
        offer = await acall(door, "GET", "/stream")
        assert unpack(offer.header("payment-required"))["accepts"][0]["extra"]["paymentFlow"] == "upfront"
        headers = [("PAYMENT-SIGNATURE", sign(offer.header("payment-required")))]

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            if message.get("body"):
                seen.append(message["body"])

        await door(selling.scope_of("GET", "/stream", headers), receive, send)
        assert arrived.is_set()

    asyncio.run(run())
    assert seen == [b"one", b"two"]
    seller.store.flush()
    assert [row.state for row in seller.store.payments()] == [State.DELIVERED]


def test_S8_an_extension_that_would_leak_the_body_is_not_offered(door: Any, handler: Handler) -> None:
    seen: list[Any] = []
    inner = handler.__call__

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["extensions"])
        await inner(scope, receive, send)

    door.app = app
    extensions: dict[str, Any] = {
        "http.response.pathsend": {},
        "http.response.trailers": {},
        "http.response.push": {},
        "tls": {},
    }
    got = buy(door, "GET", "/weather/paris", extensions=extensions)
    assert got.status == 200
    assert seen == [{"tls": {}}]


def test_a_message_before_the_start_or_of_another_kind_does_not_leak(seller: Seller) -> None:
    seller.price("GET /x", "$0.01")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.early_hint", "links": [b"</secret>"]})
        await send({"type": "http.response.pathsend", "path": "/etc/hostname"})
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    got = buy(PaymentMiddleware(app, seller=seller), "GET", "/x")
    assert got.messages[0]["type"] == "http.response.start"
    assert got.body == b"ok"


def test_S9_a_client_that_goes_away_during_settlement_is_charged_once_and_gets_it_on_a_resend(
    door: Any, handler: Handler, facilitator: Any
) -> None:
    async def run() -> Any:
        facilitator.hold = asyncio.Event()
        offer = await acall(door, "GET", "/weather/paris")
        paid = [("PAYMENT-SIGNATURE", sign(offer.header("payment-required")))]
        first = asyncio.create_task(acall(door, "GET", "/weather/paris", paid))
        while not facilitator.settled:  # noqa: ASYNC110 - the facilitator knows no loop
            await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        facilitator.hold.set()
        while True:
            again = await acall(door, "GET", "/weather/paris", paid)
            if again.status != 409:
                return again
            await asyncio.sleep(0)

    got = asyncio.run(run())
    assert (got.status, got.body) == (200, b"sunny")
    assert len(facilitator.settled) == 1
    assert handler.ran == 1


def test_S9_a_client_that_is_known_to_have_gone_gets_it_on_a_resend(
    door: Any, handler: Handler, facilitator: Any
) -> None:
    async def run() -> Any:
        gone = asyncio.Event()
        facilitator.on_settle = gone.set
        offer = await acall(door, "GET", "/weather/paris")
        paid = [("PAYMENT-SIGNATURE", sign(offer.header("payment-required")))]
        first = await acall(door, "GET", "/weather/paris", paid, gone=gone)
        assert first.messages == []
        return await acall(door, "GET", "/weather/paris", paid)

    got = asyncio.run(run())
    assert (got.status, got.body) == (200, b"sunny")
    assert (len(facilitator.settled), handler.ran) == (1, 1)


def test_S9_a_client_that_goes_away_during_the_work_is_not_charged(seller: Seller, facilitator: Any) -> None:
    seller.price("GET /slow", "$0.01")

    async def run() -> None:
        started = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            started.set()
            await asyncio.Event().wait()

        door = PaymentMiddleware(app, seller=seller)
        offer = await acall(door, "GET", "/slow")
        paid = [("PAYMENT-SIGNATURE", sign(offer.header("payment-required")))]
        first = asyncio.create_task(acall(door, "GET", "/slow", paid))
        await started.wait()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        while [row.state for row in seller.store.payments()] != [State.VOID]:  # noqa: ASYNC110 - a file has no events
            await asyncio.sleep(0)

    asyncio.run(run())
    assert facilitator.settled == []


def test_background_tasks_run_after_the_response_was_sent(seller: Seller) -> None:
    order: list[str] = []

    async def later() -> None:
        order.append("background")

    async def endpoint(request: Any) -> Any:
        return PlainTextResponse("ok", background=BackgroundTask(later))

    app = Starlette(routes=[Route("/x", endpoint)])
    seller.price("GET /x", "$0.01")
    app.add_middleware(PaymentMiddleware, seller=seller)

    async def watched(scope: Any, receive: Any, send: Any) -> None:
        async def note(message: Any) -> None:
            order.append(message["type"])
            await send(message)

        await app(scope, receive, note)

    got = buy(watched, "GET", "/x")
    assert got.status == 200
    assert order[-1] == "background"
    assert order.count("background") == 1


def test_lifespan_passes_and_a_websocket_on_a_priced_path_is_refused(door: Any) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    door.app = app
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(door({"type": "lifespan"}, receive, send))
    asyncio.run(door({**selling.scope_of("GET", "/weather/paris"), "type": "websocket"}, receive, send))
    assert seen == ["lifespan"]
    assert [(message["type"], message["code"]) for message in sent] == [("websocket.close", 1008)]
    asyncio.run(door({**selling.scope_of("GET", "/chat"), "type": "websocket"}, receive, send))
    assert seen == ["lifespan", "websocket"]


def cors(app: Any, **options: Any) -> Any:
    return CORSMiddleware(app, allow_origins=["https://shop.example"], allow_methods=["GET"], **options)


PREFLIGHT = [
    ("Origin", "https://shop.example"),
    ("Access-Control-Request-Method", "GET"),
    ("Access-Control-Request-Headers", "payment-signature"),
]


def test_S5_a_cors_preflight_passes_with_the_payment_headers_and_runs_nothing(seller: Seller, handler: Handler) -> None:
    seller.price("GET /any", "$0.01")
    door = PaymentMiddleware(cors(handler), seller=seller)
    got = call(door, "OPTIONS", "/any", PREFLIGHT)
    assert got.status == 204
    assert got.header("access-control-allow-origin") == "https://shop.example"
    assert "PAYMENT-SIGNATURE" in got.header("access-control-allow-headers")
    assert "PAYMENT-RESPONSE" in got.header("access-control-expose-headers")
    evil = [("Origin", "https://evil.example"), *PREFLIGHT[1:]]
    got = call(door, "OPTIONS", "/any", evil)
    assert (got.status, got.header("access-control-allow-origin")) == (400, "")
    assert handler.ran == 0
    got = call(PaymentMiddleware(handler, seller=seller), "OPTIONS", "/any")
    assert (got.status, got.header("allow")) == (204, "GET, OPTIONS")
    assert handler.ran == 0


def test_marked_handlers_are_found_and_get_their_payment(seller: Seller) -> None:
    app = FastAPI()
    router = APIRouter(prefix="/v1")

    @router.get("/weather/{city}")
    @seller.paid("$0.01", description="The weather")
    async def weather(city: str, paid_with: Annotated[Payment, Depends(payment)]) -> dict[str, str]:
        """Gives the weather."""
        assert current_payment() == paid_with
        return {"city": city, "payer": paid_with.payer}

    @app.get("/sync")
    @seller.paid("$0.02")
    def sync() -> str:
        found = current_payment()
        assert found is not None
        return str(found.price)

    app.include_router(router)
    app.add_middleware(PaymentMiddleware, seller=seller)
    assert buy(app, "GET", "/v1/weather/paris").json == {"city": "paris", "payer": selling.address()}
    assert buy(app, "GET", "/sync").json == "0.02"


def test_S5_a_marked_handler_never_runs_without_its_payment(seller: Seller) -> None:
    app = Starlette()
    ran: list[str] = []

    @seller.paid("$1")
    async def dear(request: Any) -> Any:
        ran.append("dear")
        return PlainTextResponse("secret")

    @seller.paid("$0.01")
    async def cheap(request: Any) -> Any:
        return await dear(request)

    app.router.routes.append(Route("/cheap", cheap))
    app.add_middleware(PaymentMiddleware, seller=seller)
    # Added when the door had learnt its routes: not priced, and still shut.
    assert call(app, "GET", "/cheap").status == 402
    app.router.routes.append(Route("/late", dear))
    with pytest.raises(Unpaid, match=r"test_asgi\.py:\d+"):
        call(app, "GET", "/late")
    with pytest.raises(Unpaid):
        buy(app, "GET", "/cheap")
    assert ran == []


def test_a_litestar_application_sells(seller: Seller) -> None:
    @get("/weather/{city:str}")
    @seller.paid("$0.01")
    async def weather(city: FromPath[str]) -> str:
        return city

    door = PaymentMiddleware(Litestar([weather]), seller=seller)
    assert call(door, "GET", "//weather/paris").status == 402
    assert buy(door, "GET", "/weather/paris").body == b"paris"


@pytest.mark.parametrize(
    ("route", "price", "match"),
    [
        ("GET /x", "$0.0000001", r"test_asgi\.py:\d+: route 'GET /x': 0.0000001 can't be paid exactly"),
        ("GET /x", "€1", "no token for EUR"),
        ("GET /x", "free", "is not a price"),
        ("GET /x", "$0", "more than zero"),
        ("GET /x", 0.01, "float"),
        ("GET x", "$1", "is not a route"),
        ("LOOK /x", "$1", "is not a route"),
        ("GET /{a}/{a}", "$1", "not a path"),
        ("GET /{", "$1", "parameter is written"),
        ("GET /x", None, "price is missing"),
    ],
)
def test_what_cant_be_sold_is_refused_with_its_file_and_line(
    seller: Seller, route: str, price: Any, match: str
) -> None:
    with pytest.raises(ConfigError, match=match) as caught:
        seller.price(route, price)
    assert "test_asgi.py:" in str(caught.value)


def test_two_prices_for_one_request_are_refused(seller: Seller) -> None:
    seller.price("GET /item/{id:int}", "$1")
    with pytest.raises(ConfigError, match="takes the same paths"):
        seller.price("GET,POST /item/{slug}", "$2")
    seller.price("POST /item/{slug}", "$2")


def test_A1_an_unpriced_route_costs_next_to_nothing(seller: Seller) -> None:
    for index in range(20):
        seller.price(f"GET /priced/{index}/{{name}}", "$0.01")
    is_free = seller.routes.is_free
    count = 20_000
    best = min(timeit.repeat(lambda: is_free("/static/app/main.js", ""), number=count, repeat=5)) / count
    assert best < 4e-6  # two microseconds on a machine that does nothing else
