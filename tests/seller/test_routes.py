from __future__ import annotations

import pytest
from farthing_selling import call, make_seller
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from farthing.errors import ConfigError
from farthing.seller.request import normal_url, offered_url
from farthing.seller.routes import Barred, Free, Preflight, Priced, readings
from farthing.servers.asgi import PaymentMiddleware
from farthing.servers.seller import Seller


def priced(seller: Seller, method: str, path: str, root_path: str = "", **options: str) -> object:
    match = seller.routes.match(method, path, root_path, override=options.get("override"))
    return match.route.pattern if isinstance(match, Priced) else match


def test_the_most_specific_pattern_has_the_price(seller: Seller) -> None:
    for route in ("GET /a/{x}", "GET /a/dear", "GET /a/{x}/b", "GET /{rest:path}", "* /a/any"):
        seller.price(route, "$1")
    assert priced(seller, "GET", "/a/dear") == "/a/dear"
    assert priced(seller, "GET", "/a/other") == "/a/{x}"
    assert priced(seller, "GET", "/a/x/b") == "/a/{x}/b"
    assert priced(seller, "GET", "/else/where") == "/{rest:path}"
    assert priced(seller, "PATCH", "/a/any") == "/a/any"
    assert isinstance(priced(seller, "POST", "/a/dear"), Free)


def test_S5_a_path_that_can_be_read_as_two_prices_is_refused(seller: Seller) -> None:
    seller.price("GET /a/{x}", "$1")
    seller.price("GET /a/cheap", "$0.01")
    # A router that minds the case runs {x} here, one that does not runs /a/cheap.
    assert isinstance(priced(seller, "GET", "/a/CHEAP"), Barred)
    assert isinstance(priced(seller, "GET", "/a/%63heap"), Barred)
    assert priced(seller, "GET", "/a/cheap") == "/a/cheap"


def test_S5_patterns_that_tie_are_refused(seller: Seller) -> None:
    seller.price("GET /{x}/b", "$1")
    seller.price("GET /b/{x}", "$2")
    assert isinstance(priced(seller, "GET", "/b/b"), Barred)
    assert priced(seller, "GET", "/b/c") == "/b/{x}"


def test_routes_that_differ_in_case_alone_have_their_own_prices(seller: Seller) -> None:
    seller.price("GET /a", "$1")
    with pytest.raises(ConfigError, match="takes the same paths"):
        seller.price("GET /a/", "$2")
    seller.price("GET /A", "$2")
    assert priced(seller, "GET", "/a") == "/a"
    assert priced(seller, "GET", "/A") == "/A"


def test_a_mount_prefix_under_a_wider_pattern_leaves_the_price_to_the_owners_reading(seller: Seller) -> None:
    seller.price("GET /{rest:path}", "$0.01")
    seller.price("GET /weather", "$1")
    assert priced(seller, "GET", "/api/weather", "/api") == "/weather"
    assert priced(seller, "GET", "/api/else", "/api") == "/{rest:path}"


def test_S5_a_wider_price_never_stands_for_a_dearer_one_under_a_mount(seller: Seller) -> None:
    seller.price("GET /{rest:path}", "$0.01")
    seller.price("GET /api/weather", "$1")
    assert isinstance(priced(seller, "GET", "/api/weather", "/api"), Barred)


def test_methods(seller: Seller) -> None:
    seller.price("GET,POST /x", "$1")
    head = seller.routes.match("HEAD", "/x")
    assert isinstance(head, Priced)
    assert not head.servable
    assert isinstance(seller.routes.match("OPTIONS", "/x"), Preflight)
    assert isinstance(seller.routes.match("BREW", "/x"), Barred)
    assert isinstance(priced(seller, "PUT", "/x", override="x-http-method-override"), Barred)
    assert isinstance(priced(seller, "PUT", "/x"), Free)
    seller.price("HEAD /x", "$0.01")
    head = seller.routes.match("HEAD", "/x")
    assert isinstance(head, Priced)
    assert head.servable


def test_S5_an_application_that_obeys_method_overrides_runs_nothing_unpaid(seller: Seller) -> None:
    ran: list[str] = []

    async def handler(request: object) -> PlainTextResponse:
        ran.append("ran")
        return PlainTextResponse("secret")

    app = Starlette(routes=[Route("/x", handler)])

    async def overriding(scope: dict[str, object], receive: object, send: object) -> None:
        headers = dict(scope["headers"])  # type: ignore[call-overload]
        query = scope["query_string"]
        for name in (b"x-http-method-override", b"x-http-method", b"x-method-override"):
            if name in headers:
                scope = {**scope, "method": headers[name].decode()}
        if query == b"_method=GET":
            scope = {**scope, "method": "GET"}
        await app(scope, receive, send)  # type: ignore[arg-type]

    seller.price("GET /x", "$1")
    door = PaymentMiddleware(overriding, seller=seller)
    for name in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"):
        assert call(overriding, "POST", "/x", [(name, "GET")]).body == b"secret"
        ran.clear()
        assert call(door, "POST", "/x", [(name, "GET")]).status == 400
    assert call(door, "POST", "/x?_method=GET").status == 400
    assert ran == []


@pytest.mark.parametrize("target", ["/files/x/../paid.txt", "/files/./paid.txt", "/files//paid.txt"])
def test_S5_static_files_resolve_dots_and_so_does_the_door(tmp_path: object, seller: Seller, target: str) -> None:
    folder = seller.store.spool_folder.parent / "static"
    (folder / "x").mkdir(parents=True)
    (folder / "paid.txt").write_text("secret")
    app = Starlette(routes=[Mount("/files", app=StaticFiles(directory=folder))])
    assert call(app, "GET", target).body == b"secret"  # the attack is real
    seller.price("GET /files/paid.txt", "$1")
    got = call(PaymentMiddleware(app, seller=seller), "GET", target)
    assert got.status == 402


@given(st.text(alphabet="/ab.%2f\\\n ", max_size=12))
def test_S5_reading_a_path_again_gives_nothing_new_that_is_plainer(text: str) -> None:
    found = readings("/" + text)
    assert found[0] == "/" + text
    for each in found[1:]:
        if not any(part in each for part in ("%", "..", "/.")):
            assert readings(each)[0] == each


@given(
    st.text(alphabet=st.characters(blacklist_categories=["Cs"]), max_size=30), st.text(alphabet="a=&%2F", max_size=9)
)
def test_an_offered_url_is_its_own_normal_form(path: str, query: str) -> None:
    url = offered_url("https://api.example.com", "/" + path, query)
    assert url.isascii()
    assert normal_url(url) == normal_url(normal_url(url))


def test_the_store_is_shared_by_sellers_of_one_file(tmp_path: object, seller: Seller, facilitator: object) -> None:
    other = make_seller(seller.store.spool_folder.parent, facilitator)
    assert other.store.payments() == seller.store.payments() == ()
    other.close()
