"""The fixed profile: what the fast reading accepts, the general one reads alike; what it must refuse, both refuse."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.signatures import (
    HttpRequest,
    HttpResponse,
    SignatureInvalid,
    SignatureParams,
    gather_fields,
    read_profile,
    read_signatures,
    sign,
    signature_base,
    signature_lines,
    verify,
    window_fault,
)
from farthing.signatures import profile as profile_module
from farthing.signatures.keys import decode_base64url
from farthing.signatures.profile import LABEL, _nonce_size_bytes, receipt_base, receipt_components, receipt_params

if TYPE_CHECKING:
    from tests.signatures.promises import KEY, NOW, PAYMENT, changed, promise
else:
    from promises import KEY, NOW, PAYMENT, changed, promise

TOKENS = st.text("abcXYZ019-_.~%/=&", max_size=30)


@given(
    method=st.sampled_from(["GET", "POST", "PURGE"]),
    path=TOKENS.map(lambda text: "/" + text),
    query=st.just("") | TOKENS.map(lambda text: "?" + text),
    signed=st.tuples(st.binary(max_size=4), st.binary(min_size=16, max_size=96), st.integers(1, 60)),
)
def test_the_fast_reading_and_the_general_one_agree(
    method: str, path: str, query: str, signed: tuple[bytes, bytes, int]
) -> None:
    body, nonce, window = signed
    request = promise(method=method, path=path, query=query, body=body, nonce=nonce, window_seconds=window)
    fast = profile_module._read_fixed(request)
    assert fast is not None
    assert fast == profile_module._read_any(request) == read_profile(request)
    assert KEY.public_key.verifies(fast.signature, fast.base)
    (received,) = read_signatures(request.fields)
    assert fast.base == signature_base(request, received.covered, received.text)
    assert fast.covers_digest == bool(body)


def reordered(request: HttpRequest, *covered: str, agent: str = 'sig="https://crawler.example"') -> HttpRequest:
    params = SignatureParams(
        created=NOW,
        expires=NOW + 60,
        keyid=KEY.public_key.thumbprint,
        alg="ed25519",
        nonce=base64.b64encode(bytes(64)).decode(),
        tag="web-bot-auth",
    )
    request = changed(request, signature_agent=agent)
    return changed(
        request, **{name.lower().replace("-", "_"): value for name, value in sign(request, covered, params, KEY)}
    )


OTHER_ORDER = ("payment-signature", '"signature-agent";key="sig"', "@query", "@path", "@authority", "@method")


def test_another_order_is_read_too() -> None:
    request = reordered(promise(), *OTHER_ORDER)
    assert profile_module._read_fixed(request) is None
    found = read_profile(request)
    assert KEY.public_key.verifies(found.signature, found.base)
    assert found.agent == "https://crawler.example"


def test_the_older_form_of_signature_agent_is_read_in_both_orders() -> None:
    covered = ("@method", "@authority", "@path", "@query", "signature-agent", "payment-signature")
    for order in (covered, covered[::-1]):
        found = read_profile(reordered(promise(), *order, agent='"https://crawler.example"'))
        assert found.agent == "https://crawler.example"
        assert KEY.public_key.verifies(found.signature, found.base)


@pytest.mark.parametrize("left_out", OTHER_ORDER)
def test_S4_a_signature_that_leaves_out_a_component_is_refused(left_out: str) -> None:
    covered = [each for each in OTHER_ORDER if each != left_out]
    with pytest.raises(SignatureInvalid, match="must cover"):
        read_profile(reordered(promise(), *covered))


def test_S4_a_signature_that_covers_more_or_otherwise_is_refused() -> None:
    for extra in ("@scheme", '"signature-agent";key="sig";sf', "accept"):
        request = changed(promise(), accept="text/html")
        with pytest.raises(SignatureInvalid):
            read_profile(reordered(request, *OTHER_ORDER, extra))


@pytest.mark.parametrize(
    "request_changed",
    [
        HttpRequest("POST", "publisher.example", "/articles/1", "?page=2", promise().fields),
        HttpRequest("GET", "other.example", "/articles/1", "?page=2", promise().fields),
        HttpRequest("GET", "publisher.example", "/articles/2", "?page=2", promise().fields),
        HttpRequest("GET", "publisher.example", "/articles/1", "?page=3", promise().fields),
        HttpRequest("GET", "publisher.example", "/articles/1", "", promise().fields),
        changed(promise(), payment_signature=PAYMENT[:-8] + "fX1AAAA="),
        changed(promise(), signature_agent='sig="https://other.example"'),
        changed(promise(body=b"a"), content_digest="sha-256=:AAAA:"),
    ],
    ids=["method", "authority", "path", "query", "no query", "payment", "agent", "digest"],
)
def test_C3_each_covered_component_changed_alone_breaks_the_signature(request_changed: HttpRequest) -> None:
    found = read_profile(request_changed)
    assert not KEY.public_key.verifies(found.signature, found.base)


@pytest.mark.parametrize("name", ["created", "expires", "keyid", "nonce"])
def test_S4_each_parameter_changed_alone_breaks_the_signature(name: str) -> None:
    request = promise()
    (line,) = request.fields["signature-input"]
    digits = {
        "created": (str(NOW), str(NOW + 1)),
        "expires": (f"expires={NOW + 60}", f"expires={NOW + 59}"),
        "keyid": (KEY.public_key.thumbprint, KEY.public_key.thumbprint[:-1] + "A"),
        "nonce": ('nonce="AAEC', 'nonce="BAEC'),
    }
    before, after = digits[name]
    assert line.count(before) == 1
    found = read_profile(changed(request, signature_input=line.replace(before, after)))
    assert not KEY.public_key.verifies(found.signature, found.base)


@pytest.mark.parametrize(
    ("request_refused", "why"),
    [
        (promise(window_seconds=61), "open for 61 s"),
        (promise(window_seconds=0), "open for 0 s"),
        (promise(nonce=bytes(15)), "nonce"),
        (changed(promise(), signature_input='sig=("@method");created=1'), "tag"),
        (changed(promise(), signature=None), "no Signature"),
        (changed(promise(), signature_agent=None), "Signature-Agent"),
        (changed(promise(), payment_signature=None), "payment-signature"),
        (changed(promise(body=b"x"), content_digest=None), "content-digest"),
        (changed(promise(), payment_signature="a\nb"), "one line"),
        (changed(promise(), payment_signature="ä"), "ASCII"),
        (changed(promise(), signature_agent='sig="https://crawler.example";type=jwks_uri'), "jwks_uri"),
        (changed(promise(), signature_agent='other="https://crawler.example"'), "sig"),
        (HttpRequest("GET", "publisher.example", '/x\n"@query": ?', "", promise().fields), "one line"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_S4_what_is_no_commitment_is_refused(request_refused: HttpRequest, why: str) -> None:
    with pytest.raises(SignatureInvalid, match=why):
        read_profile(request_refused)


def test_two_signatures_of_one_tag_are_refused_and_a_proxys_is_passed_over() -> None:
    request = promise()
    (input_line,), (signature_line,) = request.fields["signature-input"], request.fields["signature"]
    proxy = sign(request, ["@method"], SignatureParams(created=NOW, tag="proxy"), KEY, label="proxy")
    both = changed(
        request, signature_input=f"{input_line}, {proxy[0][1]}", signature=f"{signature_line}, {proxy[1][1]}"
    )
    assert read_profile(both) == read_profile(request)
    twice = changed(
        request,
        signature_input=f"{input_line}, {input_line.replace('sig=', 'b=', 1)}",
        signature=f"{signature_line}, {signature_line.replace('sig=', 'b=', 1)}",
    )
    with pytest.raises(SignatureInvalid, match="2 signatures"):
        read_profile(twice)


def test_the_window_is_judged_with_what_clocks_may_differ_by() -> None:
    found = read_profile(promise(window_seconds=10))
    assert [window_fault(found, NOW + offset) is None for offset in (-31, -30, 0, 40, 41)] == [
        False,
        True,
        True,
        True,
        False,
    ]


@pytest.mark.parametrize("digest", [None, "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"])
def test_a_receipt_is_what_the_general_reading_verifies(digest: str | None) -> None:
    request = promise()
    signed = read_profile(request)
    text = receipt_params(label=LABEL, created=NOW, key_id=KEY.public_key.thumbprint, with_digest=digest is not None)
    base = receipt_base(text, status=200, payment_response="e30=", request=request, signed=signed, digest=digest)
    lines = [("PAYMENT-RESPONSE", "e30="), *signature_lines("receipt", text, KEY.sign(base))]
    if digest is not None:
        lines.append(("Content-Digest", digest))
    answer = HttpResponse(200, gather_fields(lines), request)
    (received,) = read_signatures(answer.fields)
    assert {each.identity for each in receipt_components(LABEL)} <= {each.identity for each in received.covered}
    assert received.params.tag == "x402-response"
    assert signature_base(answer, received.covered, received.text) == base
    assert verify(answer, received, KEY.public_key)
    for other in (
        HttpResponse(402, answer.fields, request),
        HttpResponse(200, answer.fields, promise(nonce=bytes(64))),
        HttpResponse(200, answer.fields, promise(path="/x")),
    ):
        assert not verify(other, received, KEY.public_key)


def sizes_alike(nonce: str) -> bool:
    """Whether a nonce's size is that of what it encodes."""
    decoded = decode_base64url(nonce.rstrip("=").replace("+", "-").replace("/", "_"))
    return _nonce_size_bytes(nonce) == (0 if decoded is None else len(decoded))


@given(st.binary(max_size=96), st.sampled_from([base64.b64encode, base64.urlsafe_b64encode]), st.booleans())
def test_a_nonce_has_the_size_of_what_it_encodes(
    nonce: bytes,
    encode: Callable[[bytes], bytes],
    padded: bool,  # noqa: FBT001 - drawn
) -> None:
    text = encode(nonce).decode()
    written = text if padded else text.rstrip("=")
    assert _nonce_size_bytes(written) == len(nonce)
    assert sizes_alike(written)


@given(st.text(alphabet="ABQgwz09+/-_=. \né", max_size=12))
def test_what_is_no_base64_has_no_size(nonce: str) -> None:
    assert sizes_alike(nonce)
