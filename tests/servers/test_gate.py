"""S5: no way around the gate, tried against applications of four frameworks behind the doors."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_to_bytes

import farthing_selling as selling
import pytest
from farthing_selling import Got, buy, call, unpack, wcall
from fastapi import FastAPI, Request
from flask import Flask, request
from litestar import Litestar, asgi, get
from litestar.params import FromPath
from litestar.types import Receive, Scope, Send
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from farthing.servers.asgi import PaymentMiddleware
from farthing.servers.wsgi import PaidWSGI

# Ways to write /premium and /item/gold that some router may read as just that.
SPELLINGS = [
    "/premium",
    "//premium",
    "///premium//",
    "/premium/",
    "/premium//",
    "/%70remium",
    "/%2570remium",
    "/./premium",
    "/x/../premium",
    "/x/%2e%2e/premium",
    "/premium/.",
    "/premium/x/..",
    "/%2fpremium",
    "/premium%2f",
    "/PREMIUM",
    "/Premium",
    "/premium%0a",
    "/premium%0d%0a",
    "/premium%00",
    "/premium%20",
    "/%20premium",
    "/premium%09",
    "/\\premium",
    "/%5cpremium",
    "/premium?",
    "/premium?x=/free",
    "/premium;jsessionid=1",
    "http://elsewhere.example/premium",
    "/free/../premium",
    "/item/gold",
    "/item//gold",
    "/item/gold/",
    "/item/%67old",
    "/item/gold%0a",
    "/ITEM/gold",
    "/item/./gold",
    "/x/../item/gold",
    "/files/a/b.txt",
    "/files//a",
    "/files/",
    "/files",
    "/files/../files/a",
]
METHODS = ["GET", "HEAD", "OPTIONS", "get", "Get", "TRACE", "FOO", "PROPFIND"]
HEADERS: list[list[tuple[str, str]]] = [
    [],
    [("X-HTTP-Method-Override", "GET")],
    [("Origin", "https://evil.example"), ("Access-Control-Request-Method", "GET")],
    [("Origin", "https://evil.example"), ("Access-Control-Request-Method", "OPTIONS")],
    [("X-Original-URL", "/free"), ("X-Rewrite-URL", "/free"), ("X-Forwarded-Prefix", "/premium")],
    [("Host", "other.example"), ("X-Forwarded-Host", "other.example")],
    [("Upgrade", "websocket"), ("Connection", "Upgrade")],
    [("farthing.payment", "1"), ("farthing-payment", "1")],
]
ROUTES = ["GET /premium", "GET /item/{name}", "GET,OPTIONS /any", "GET /files/{rest:path}"]


class Bell:
    """Rings when a priced handler runs."""

    def __init__(self) -> None:
        self.rung: list[str] = []


def starlette_app(bell: Bell) -> Any:
    def premium(request: Request) -> PlainTextResponse:
        bell.rung.append(request.method)
        return PlainTextResponse("secret")

    class Anything:
        """An endpoint that Starlette calls for any method."""

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            bell.rung.append(scope["method"])
            await PlainTextResponse("secret")(scope, receive, send)

    return Starlette(
        routes=[
            Route("/free", lambda _: PlainTextResponse("free")),
            Route("/premium", Anything()),
            Route("/item/{name}", premium),
            Route("/any", premium, methods=["GET", "OPTIONS"]),
            Route("/files/{rest:path}", premium),
            Mount("/mounted", routes=[Route("/premium", premium)]),
        ]
    )


def fastapi_app(bell: Bell) -> Any:
    app = FastAPI()

    @app.get("/free")
    def free() -> str:
        return "free"

    @app.get("/premium")
    @app.options("/premium")
    @app.head("/premium")
    def premium(request: Request) -> str:
        bell.rung.append(request.method)
        return "secret"

    @app.get("/item/{name}")
    def item(name: str) -> str:
        bell.rung.append(name)
        return "secret"

    @app.api_route("/any", methods=["GET", "OPTIONS"])
    def every() -> str:
        bell.rung.append("any")
        return "secret"

    @app.get("/files/{rest:path}")
    def files(rest: str) -> str:
        bell.rung.append(rest)
        return "secret"

    return app


def litestar_app(bell: Bell) -> Any:
    @get("/free", sync_to_thread=False)
    def free() -> str:
        return "free"

    @get("/premium", sync_to_thread=False)
    def premium() -> str:
        bell.rung.append("premium")
        return "secret"

    @get("/item/{name:str}", sync_to_thread=False)
    def item(name: FromPath[str]) -> str:
        bell.rung.append(name)
        return "secret"

    @get("/files/{rest:path}", sync_to_thread=False)
    def files(rest: FromPath[str]) -> str:
        bell.rung.append(str(rest))
        return "secret"

    @asgi("/any", copy_scope=True)
    async def every(scope: Scope, receive: Receive, send: Send) -> None:
        bell.rung.append("any")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"secret", "more_body": False})

    return Litestar([free, premium, item, files, every])


def flask_app(bell: Bell) -> Any:
    app = Flask("gate")

    @app.route("/free")
    def free() -> str:
        return "free"

    @app.route("/premium", methods=["GET", "OPTIONS", "HEAD"])
    def premium() -> str:
        bell.rung.append(request.method)
        return "secret"

    @app.route("/item/<name>")
    def item(name: str) -> str:
        bell.rung.append(name)
        return "secret"

    @app.route("/any", methods=["GET", "OPTIONS"])
    def every() -> str:
        bell.rung.append("any")
        return "secret"

    @app.route("/files/", defaults={"rest": ""})
    @app.route("/files/<path:rest>")
    def files(rest: str) -> str:
        bell.rung.append(rest)
        return "secret"

    return app


Behind = Callable[[Any], tuple[Callable[..., Got], Bell]]
APPS = {"starlette": starlette_app, "fastapi": fastapi_app, "litestar": litestar_app, "flask": flask_app}


@pytest.fixture(params=list(APPS))
def gate(request: pytest.FixtureRequest, seller: Any) -> tuple[Callable[..., Got], Bell, Any, str]:
    bell = Bell()
    for route in ROUTES:
        seller.price(route, "$1")
    app = APPS[request.param](bell)
    if request.param == "flask":
        door: Any = PaidWSGI(app, seller)
        caller: Any = wcall
    else:
        door = PaymentMiddleware(app, seller=seller)
        caller = call
    return (lambda *args, **options: caller(door, *args, **options)), bell, caller, request.param


def test_S5_no_spelling_method_or_header_runs_a_priced_handler_unpaid(gate: Any) -> None:
    send, bell, _, name = gate
    for target, headers in itertools.product(SPELLINGS, HEADERS):
        got = send("GET", target, headers)
        assert bell.rung == [], (name, target, headers)
        assert b"secret" not in got.body
    for target, method, headers in itertools.product(["/premium", "/any", "//premium"], METHODS, HEADERS):
        got = send(method, target, headers)
        assert bell.rung == [], (name, method, target, headers)
        assert b"secret" not in got.body


def test_S5_a_mount_prefix_does_not_bypass(gate: Any) -> None:
    send, bell, _, name = gate
    roots = ["/api", "/premium", "/a", "/", "/api/"]
    targets = [*SPELLINGS, "/api/premium", "/api/api/premium", "/zzz/api/premium", "/a/premium", "/x/premium"]
    for root_path, target in itertools.product(roots, targets):
        send("GET", target, root_path=root_path)
        assert bell.rung == [], (name, root_path, target)
        if name != "flask":
            # Some servers don't put the prefix before the path, as the specification would have it.
            path = unquote_to_bytes(target.partition("?")[0]).decode("utf-8", "replace")
            send("GET", target, root_path=root_path, path=path)
            assert bell.rung == [], (name, root_path, target)


def test_S5_a_free_path_stays_free(gate: Any) -> None:
    send, bell, _, _ = gate
    assert send("GET", "/free").status == 200
    assert bell.rung == []


def test_S5_head_gets_the_402_of_get_and_claims_nothing_paid_or_not(gate: Any, seller: Any, facilitator: Any) -> None:
    send, bell, _, _ = gate
    offer = send("GET", "/premium")
    head = send("HEAD", "/premium")
    assert head.status == 402
    assert head.body == b""
    assert unpack(head.header("payment-required")) == unpack(offer.header("payment-required"))
    paid = [("PAYMENT-SIGNATURE", selling.sign(offer.header("payment-required")))]
    assert send("HEAD", "/premium", paid).status == 402
    assert bell.rung == []
    assert seller.store.payments() == ()
    assert facilitator.verified == 0
    assert send("GET", "/premium", paid).status == 200
    assert len(bell.rung) == 1


def test_S5_the_paid_request_runs(gate: Any) -> None:
    send, bell, _, _ = gate
    got = buy(None, "GET", "/item/gold", caller=lambda _, *args, **options: send(*args, **options))
    assert got.status == 200
    assert b"secret" in got.body
    assert len(bell.rung) == 1


def test_S5_unprintable_ends_of_a_path_are_what_starlette_passes_over(seller: Any) -> None:
    """The attack is real: without the door's reading this path runs the handler."""
    bell = Bell()
    app = starlette_app(bell)
    assert call(app, "GET", "/premium%0a").status == 200
    assert bell.rung == ["GET"]
    seller.price("GET /premium", "$1")
    assert call(PaymentMiddleware(app, seller=seller), "GET", "/premium%0a").status == 402
    assert bell.rung == ["GET"]


def test_S5_a_handler_that_is_priced_for_some_of_its_methods_is_named_at_start_up(
    seller: Any, caplog: pytest.LogCaptureFixture
) -> None:
    seller.price("GET /premium", "$1")
    seller.price("GET /item/{name}", "$1")
    seller.price("GET /form", "$1")
    call(PaymentMiddleware(starlette_app(Bell()), seller=seller), "GET", "/free")
    app = Flask("half")
    app.add_url_rule("/form", "form", lambda: "secret", methods=["GET", "POST"])
    wcall(PaidWSGI(app, seller), "GET", "/free")
    said = [record.getMessage() for record in caplog.records]
    assert [each.split()[0] for each in said] == ["/premium", "/form"]
    assert "runs free for POST:" in said[1]
