"""B1 with a wire that is cut: each way, before, in and after each message; whatever comes of it, one payment.

The messages are four: the request, its 402, the paid request, its answer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import requests
from cutter import Cutter, Way, open_cutter
from doors import Fetch
from shop import SELLER, Shop

from farthing.clients import Buyer
from farthing.errors import RemoteProtocolError
from farthing.protocol.codec import decode_payment

# Where in the bytes of one purchase that way: 0 is before the first, 1 the end of the first message, 2 of the second.
PLACES = [0, 0.5, 1, 1.5, 1.99, 2]


@pytest.fixture
def cutter(shop: Shop) -> Iterator[Cutter]:
    with open_cutter(shop.url) as opened:
        yield opened


def measure(fetch: Fetch, shop: Shop, buyer: Buyer, cutter: Cutter) -> dict[Way, tuple[int, int]]:
    """How many bytes the two messages have, each way, where nothing is cut."""
    sizes: dict[Way, int] = {}
    demand = shop.RequestHandlerClass.demand

    def watched(handler: object, path: str) -> None:
        sizes["up"] = cutter.carried["up"]
        demand(handler, path)

    shop.RequestHandlerClass.demand = watched
    try:
        fetch(buyer, "GET", cutter.url + "/measured")
    finally:
        shop.RequestHandlerClass.demand = demand
    # A 402 with its headers has some 700 bytes here, and a paid answer fewer; the middle is between them anyhow.
    return {way: (sizes.get(way, total // 2), total) for way, total in cutter.carried.items()}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("way", ["up", "down"])
def test_B1_a_cut_wire_costs_one_payment_at_most(  # noqa: PLR0917 - fixtures and places
    fetch: Fetch, shop: Shop, buyer: Buyer, cutter: Cutter, way: Way, place: float
) -> None:
    sizes = measure(fetch, shop, buyer, cutter)[way]
    shop.seen.clear()
    shop.transfers.clear()
    first, whole = sizes
    at = int(first * place) if place <= 1 else first + int((whole - first) * (place - 1))
    cutter.cut = (way, cutter.carried[way] + at)
    answer = None
    with contextlib.suppress(Exception):  # whichever error the library or the buyer has for it
        answer = fetch(buyer, "GET", cutter.url + "/thing")
    cutter.cut = None
    if answer is None:
        answer = fetch(buyer, "GET", cutter.url + "/thing")
    # Python's http.client, and so requests, takes a head that was cut for a whole one whose body is empty; it says 200,
    # and that nobody has proven the settlement.
    mistaken = isinstance(answer, requests.Response) and answer.text == ""
    assert answer.status_code == 200
    assert answer.text == ("" if mistaken else "the goods")
    assert len(nonces(shop)) == 1
    assert len(shop.transfers) == 1
    kept = [each for each in buyer.journal.purchases() if each.url.endswith("/thing") and each.payment_id]
    assert [each.delivered for each in kept] == [True]
    assert kept[0].state in ({"settled", "unknown"} if mistaken else {"settled"})


def nonces(shop: Shop) -> set[bytes]:
    """The nonces of the payments that came whole."""
    found: set[bytes] = set()
    for header in shop.paid():
        with contextlib.suppress(RemoteProtocolError):
            found.add(SELLER.read(decode_payment(header)).detail.message.nonce)
    return found
