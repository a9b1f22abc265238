from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.protocol.messages import PaymentRequired, PaymentRequirements, ResourceInfo
from farthing.seller.headers import paid_headers, private_cache_control
from farthing.seller.page import price_in_words, render_page
from farthing.seller.routes import compile_pattern

NAMES = st.sampled_from(["Set-Cookie", "Location", "Cache-Control", "Vary", "X-A", "ETag", "Age"])
VALUES = st.text(alphabet='abc=, ;*"', max_size=20)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=8))
def test_S8_every_header_survives_in_its_order_but_those_of_caching(headers: list[tuple[str, str]]) -> None:
    sent = paid_headers(headers, settlement="abc", shared_cache=False)
    kept = [each for each in headers if each[0].lower() != "cache-control"]
    assert list(sent[: len(kept)]) == kept
    caching = [value for name, value in sent if name == "cache-control"]
    assert len(caching) == 1
    assert ("payment-response", "abc") in sent


@given(st.lists(st.sampled_from(["public", "PUBLIC", "s-maxage=5", "max-age=1", "private", "no-store"]), max_size=5))
def test_S8_what_comes_out_is_private_and_stays_so(directives: list[str]) -> None:
    value = private_cache_control([", ".join(directives)])
    said = {each.strip().split("=")[0].lower() for each in value.split(",")}
    assert not said & {"public", "s-maxage"}
    assert said & {"private", "no-store"}
    assert private_cache_control([value]) == value


@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=30))
def test_the_page_escapes_whatever_it_shows(description: str, url: str, asset: str) -> None:
    hostile = "<img src=x onerror=alert(1)>\"'"
    offer = PaymentRequirements("exact" + hostile, "x:" + hostile, "5", asset + hostile, hostile, 60)
    resource = ResourceInfo(url + hostile, description + hostile)
    page = render_page(PaymentRequired(resource, (offer,), error=hostile)).decode()
    assert "<img" not in page
    assert page.count("<script") == 0
    assert price_in_words(offer) == "5 atomic units"


@pytest.mark.parametrize("pattern", ["/a b", "/x.y", "/x+(y)", "/[z]"])
def test_a_literal_in_a_pattern_is_literal(pattern: str) -> None:

    expression, _ = compile_pattern(pattern)
    assert re.fullmatch(expression, pattern)
    assert not re.fullmatch(expression, pattern.replace(".", "_").replace("+", "") + "x")
