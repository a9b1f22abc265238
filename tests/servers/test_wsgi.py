"""What only WSGI has: generators that are closed, `exc_info`, `write()`, file wrappers."""

from __future__ import annotations

import io
from typing import Any

import farthing_selling as selling
import pytest
from farthing_selling import TRANSACTION, buy, sign, unpack, wcall
from flask import Flask, Response, request

from farthing.errors import ConfigError
from farthing.servers.marks import Unpaid, current_payment
from farthing.servers.seller import Seller
from farthing.servers.wsgi import PaidWSGI


@pytest.mark.parametrize("flow", ["authorization", "upfront"])
def test_a_generator_is_closed_and_sees_its_payment(seller: Seller, flow: Any) -> None:
    closed: list[bool] = []
    seen: list[Any] = []

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        try:
            seen.append(current_payment())
            yield b"one"
            yield b"two"
        finally:
            closed.append(True)

    seller.price("GET /x", "$0.01", payment_flow=flow)
    got = buy(PaidWSGI(app, seller), "GET", "/x", caller=wcall)
    assert (got.status, got.body, closed) == (200, b"onetwo", [True])
    assert seen[0].payer == selling.address()
    assert current_payment() is None


def test_write_and_a_second_start_response_with_exc_info_work(seller: Seller) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("x", "1")])
        try:
            raise ValueError  # noqa: TRY301 - as an error handler sees it
        except ValueError as error:
            write = start_response("201 Created", [("x", "2")], (type(error), error, None))
        write(b"written ")
        return [b"and returned"]

    seller.price("GET /x", "$0.01")
    got = buy(PaidWSGI(app, seller), "GET", "/x", caller=wcall)
    assert (got.status, got.body, got.header("x")) == (201, b"written and returned", "2")


def test_S8_a_file_wrapper_does_not_lead_around_the_settlement(seller: Seller, facilitator: Any) -> None:
    class Sendfile:
        """As uWSGI's: nothing to iterate over, the server sends the file itself."""

        def __init__(self, file: Any, size: int = 0) -> None:
            self.file = file

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](io.BytesIO(b"a file"))

    seller.price("GET /x", "$0.01")
    door = PaidWSGI(app, seller)

    def with_wrapper(_: Any, *args: Any, **options: Any) -> Any:
        return wcall(lambda environ, start: door({**environ, "wsgi.file_wrapper": Sendfile}, start), *args, **options)

    assert buy(None, "GET", "/x", caller=with_wrapper).body == b"a file"
    assert len(facilitator.settled) == 1


def test_S8_upfront_passes_pieces_as_they_come_and_a_cut_answer_stays_owed(seller: Seller) -> None:
    made: list[int] = []

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        for index in range(3):
            made.append(index)
            yield b"x"

    seller.price("GET /x", "$0.01", payment_flow="upfront")
    door = PaidWSGI(app, seller)
    paid = sign(wcall(door, "GET", "/x").header("payment-required"))
    heads: list[Any] = []
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/x", "HTTP_PAYMENT_SIGNATURE": paid, "wsgi.input": io.BytesIO()}

    def start_response(*args: Any) -> Any:
        heads.append(args)
        return None

    iterable: Any = door(environ, start_response)
    assert next(iter(iterable)) == b"x"
    assert made == [0]
    assert dict(heads[0][1])["payment-response"]
    iterable.close()
    assert [row.state for row in seller.store.payments()] == ["owed"]
    assert wcall(door, "GET", "/x", [("PAYMENT-SIGNATURE", paid)]).body == b"xxx"


def test_S9_a_client_that_goes_away_before_the_last_byte_gets_it_on_a_resend(seller: Seller, facilitator: Any) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return [b"whole"]

    seller.price("GET /x", "$0.01")
    door = PaidWSGI(app, seller)
    paid = sign(wcall(door, "GET", "/x").header("payment-required"))
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/x", "HTTP_PAYMENT_SIGNATURE": paid, "wsgi.input": io.BytesIO()}
    iterable: Any = door(environ, lambda *_: bytes)
    iterable.close()
    assert wcall(door, "GET", "/x", [("PAYMENT-SIGNATURE", paid)]).body == b"whole"
    assert len(facilitator.settled) == 1


def test_flask_sells_marked_handlers_and_reads_the_body(seller: Seller) -> None:
    app = Flask("shop")

    @app.route("/weather/<city>")
    @seller.paid("$0.01")
    def weather(city: str) -> str:
        payment = current_payment()
        assert payment is not None
        return f"{city} {payment.price}"

    @app.post("/echo")
    @seller.paid("$0.02")
    def echo() -> Response:
        answer = Response(request.get_data(), status=201)
        answer.set_cookie("a", "1")
        answer.set_cookie("b", "2")
        return answer

    app.wsgi_app = PaidWSGI(app.wsgi_app, seller)  # type: ignore[method-assign]
    assert buy(app, "GET", "/weather/rome", caller=wcall).body == b"rome 0.01"
    got = buy(app, "POST", "/echo", caller=wcall, body=b"hello")
    assert (got.status, got.body) == (201, b"hello")
    assert len([name for name, _ in got.headers if name.lower() == "set-cookie"]) == 2
    assert unpack(got.header("payment-response"))["transaction"] == TRANSACTION


def test_S5_a_marked_flask_handler_is_shut_without_the_door(seller: Seller) -> None:
    app = Flask("shut")
    app.testing = True

    @app.route("/dear")
    @seller.paid("$1")
    def dear() -> str:
        return "secret"

    with pytest.raises(Unpaid):
        app.test_client().get("/dear")


def test_the_base_url_is_checked(tmp_path: Any, facilitator: Any) -> None:
    for base_url in ("api.example.com", "ftp://x", "https://a@b", "https://x?y"):
        with pytest.raises(ConfigError, match="base_url"):
            selling.make_seller(tmp_path, facilitator, base_url=base_url)
