"""What the requests door does beyond the others."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from shop import Shop, make_buyer, response

from farthing.clients import Buyer
from farthing.clients.requests import PayingAdapter, paying_session, receipt_of
from farthing.errors import BodyNotReplayable


def test_a_session_of_one_s_own_is_made_to_pay(shop: Shop, buyer: Buyer) -> None:
    mine = requests.Session()
    mine.headers["User-Agent"] = "mine"
    session = paying_session(buyer, session=mine)
    assert session is mine
    answer = session.post(shop.url + "/thing", data={"a": "1"}, timeout=20)
    assert answer.text == "the goods"
    assert [each.body for each in shop.seen] == [b"a=1", b"a=1"]
    assert receipt_of(answer)


def test_a_free_answer_has_no_receipt(shop: Shop, buyer: Buyer) -> None:
    shop.plain["/free"] = (200, {}, b"")
    assert receipt_of(paying_session(buyer).get(shop.url + "/free", timeout=20)) is None


def test_B5_a_file_is_refused_before_paying(shop: Shop, buyer: Buyer) -> None:
    session = paying_session(buyer)
    with pytest.raises(BodyNotReplayable):
        session.post(shop.url + "/thing", data=io.BytesIO(b"once"), timeout=20)
    assert session.post(shop.url + "/thing", files={"a": b"multipart is bytes"}, timeout=20).status_code == 200


def test_one_connection_serves_402_and_paid_request(shop: Shop, buyer: Buyer) -> None:
    with paying_session(buyer) as session:
        for number in range(3):
            session.get(f"{shop.url}/thing?{number}", timeout=20)
    assert len({each.connection for each in shop.seen}) == 1


def test_S8_a_stream_streams(shop: Shop, buyer: Buyer) -> None:
    def stream(handler, _signed):  # type: ignore[no-untyped-def]
        handler.send_response(200)
        handler.send_header("PAYMENT-RESPONSE", response())
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"5\r\nfirst\r\n")
        assert shop.stopped.wait(20)
        handler.wfile.write(b"4\r\nlast\r\n0\r\n\r\n")

    shop.behaviours["/thing"] = stream
    with paying_session(buyer).get(shop.url + "/thing", stream=True, timeout=20) as answer:
        parts = answer.iter_content(chunk_size=None)
        assert next(parts) == b"first"
        shop.stopped.set()
        assert b"".join(parts) == b"last"


def test_threads_share_a_session(shop: Shop, tmp_path: Path) -> None:
    with make_buyer(tmp_path) as buyer:
        session = requests.Session()
        session.mount("http://", PayingAdapter(buyer))
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _n: session.get(shop.url + "/thing", timeout=20).status_code, range(24)))
    assert answers == [200] * 24
    assert len(shop.transfers) == 24
