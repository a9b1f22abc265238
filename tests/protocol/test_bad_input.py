"""S10 at the codec: whatever comes is a message or a `RemoteProtocolError` with a JSON path, never another error."""

from __future__ import annotations

import base64
import copy
import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.errors import RemoteProtocolError
from farthing.protocol import codec

PAYMENT: dict[str, Any] = {
    "x402Version": 2,
    "resource": {"url": "https://shop.example/a", "description": "A", "mimeType": "text/plain"},
    "accepted": {
        "scheme": "exact",
        "network": "eip155:84532",
        "amount": "10000",
        "asset": "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
        "payTo": "0x209693Bc6afc0C5328bA36FaF03C514EF312287C",
        "maxTimeoutSeconds": 60,
        "extra": {"name": "USDC", "version": "2"},
    },
    "payload": {"signature": "0x00"},
    "extensions": {},
}
SETTLEMENT: dict[str, Any] = {"success": True, "transaction": "0x12", "network": "eip155:84532", "payer": "0x34"}
OFFER: dict[str, Any] = {"x402Version": 2, "resource": PAYMENT["resource"], "accepts": [PAYMENT["accepted"]]}
REQUEST: dict[str, Any] = {
    "x402Version": 2,
    "paymentPayload": PAYMENT,
    "paymentRequirements": PAYMENT["accepted"],
}
VERDICT: dict[str, Any] = {"isValid": True, "payer": "0x34"}
SUPPORTED: dict[str, Any] = {
    "kinds": [{"x402Version": 2, "scheme": "exact", "network": "eip155:84532"}],
    "extensions": [],
    "signers": {"eip155:*": ["0x34"]},
}


def header(text: str | bytes) -> str:
    return base64.b64encode(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")).decode()


def changed(message: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of `message` with another value at `path` (`a.b.0.c`); `...` takes the member away."""
    copied = copy.deepcopy(message)
    *outer, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    inner: Any = copied
    for part in outer:
        inner = inner[part]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return copied


HEADERS = (codec.decode_payment, codec.decode_settlement, codec.decode_payment_required)


def refused(read: Callable[[], object]) -> RemoteProtocolError:
    with pytest.raises(RemoteProtocolError) as caught:
        read()
    assert caught.value.path.startswith("$")
    assert caught.value.message
    return caught.value


AMOUNTS = [
    " 10000 ", "10000 ", " 10000", "10000\n", "\t10000", "10000\x00", "\x0010000", "",
    "010000", "00", "1e4", "1E4", "10000.0", "10_000", "10,000", "-1", "-0", "+1", "0x10", "NaN", "Infinity",
    "\uff11\uff10\uff10\uff10\uff10", "\u0661\u0660\u0660\u0660\u0660", "\U0001d7cf\U0001d7ce", "\xb2",
    str(2**256), str(10**78), "9" * 1000,
    10000, -1, 1e4, 10000.5, True, None, [], ["10000"], {}, {"value": "10000"},
]  # fmt: skip


@pytest.mark.parametrize("amount", AMOUNTS, ids=repr)
def test_S10_an_amount_is_plain_digits_or_refused_by_name(amount: Any) -> None:
    text = json.dumps(changed(PAYMENT, "accepted.amount", amount))
    assert refused(lambda: codec.decode_payment(header(text))).path == "$.accepted.amount"
    offer = codec.decode_payment_required(header(json.dumps(changed(OFFER, "accepts.0.amount", amount))))
    assert offer.offers == ()
    assert "$.accepts[0].amount" in offer.passed_over[0].why


@pytest.mark.parametrize("amount", ["0", "1", "10000", str(2**256 - 1)])
def test_S10_an_amount_of_plain_digits_is_read(amount: str) -> None:
    payment = codec.decode_payment(header(json.dumps(changed(PAYMENT, "accepted.amount", amount))))
    assert payment.accepted.atomic == int(amount)


FIELDS: list[tuple[str, list[Any]]] = [
    ("x402Version", [1, 3, -2, "2", 2.5, None, [], 2**80]),
    ("resource", ["https://shop.example/a", 1, [], True]),
    ("resource.url", [..., None, 1, [], {}, "x" * 9000]),
    ("resource.description", [1, [], {}, "x" * 5000]),
    ("resource.mimeType", [1, [], {}]),
    ("accepted", [..., None, 1, "offer", [], True]),
    ("accepted.scheme", [..., None, 1, [], {}, "", "x" * 200]),
    ("accepted.network", [..., None, 84532, [], {}, ""]),
    ("accepted.amount", [...]),
    ("accepted.asset", [..., None, 1, [], {}, ""]),
    ("accepted.payTo", [..., None, 1, [], {}, ""]),
    ("accepted.maxTimeoutSeconds", [..., None, "60", -1, 60.5, [], {}, 2**63, 2**80, 40_000_000]),
    ("accepted.extra", [1, "extra", [], True]),
    ("payload", [...]),
    ("extensions", [1, "none", [], True]),
]


@pytest.mark.parametrize(("path", "value"), [(path, value) for path, values in FIELDS for value in values], ids=repr)
def test_S10_a_field_of_another_type_is_refused_by_its_path(path: str, value: Any) -> None:
    text = json.dumps(changed(PAYMENT, path, value))
    error = refused(lambda: codec.decode_payment(header(text)))
    assert error.path == f"$.{path}"
    request = json.dumps(changed(REQUEST, f"paymentPayload.{path}", value)).encode()
    assert refused(lambda: codec.decode_verify_request(request)).path == f"$.paymentPayload.{path}"


@pytest.mark.parametrize("value", [..., None, 1, []], ids=repr)
def test_S10_a_402s_resource_is_refused_by_its_path(value: Any) -> None:
    text = json.dumps(changed(OFFER, "resource.url", value))
    assert refused(lambda: codec.decode_payment_required(header(text))).path == "$.resource.url"


SHAPES = [
    "", " ", "null", "true", "1", '"text"', "[]", "{}", "[{}]", "{", "}", '{"a"', '{"a":}', "{'a': 1}", "{} {}",
    "NaN", "Infinity", '{"x402Version": NaN}', '{"payload": NaN}', "\ufeff{}", "{}\x00", "\x00",
    '{"x402Version": 02}', '{"a": "\ud800"}', '{"a": "\x01"}', "<html>502</html>", "x402Version=2",
    "[" * 3000, "[" * 3000 + "]" * 3000, '{"a":' * 2000 + "1" + "}" * 2000, '{"payload":' * 1000, '"' * 100,
]  # fmt: skip
READERS: list[tuple[str, Callable[[bytes], object]]] = [
    ("PAYMENT-SIGNATURE", lambda data: codec.decode_payment(header(data))),
    ("PAYMENT-RESPONSE", lambda data: codec.decode_settlement(header(data))),
    ("PAYMENT-REQUIRED", lambda data: codec.decode_payment_required(header(data))),
    ("payment", codec.decode_payment_json),
    ("settlement", codec.decode_settlement_json),
    ("verify request", codec.decode_verify_request),
    ("verify response", codec.decode_verify_response),
    ("supported", codec.decode_supported),
]


@pytest.mark.parametrize("read", [read for _, read in READERS], ids=[name for name, _ in READERS])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: repr(shape[:20]))
def test_S10_what_is_no_message_is_refused(shape: str, read: Callable[[bytes], object]) -> None:
    refused(lambda: read(shape.encode("utf-8", "surrogatepass")))


@pytest.mark.parametrize(
    "data", [b"\xff\xfe{\x00}\x00", b'{"x402Version":2,"a":"\xc3"}', b"\x80" * 50, bytes(range(256))]
)
@pytest.mark.parametrize("read", [read for _, read in READERS], ids=[name for name, _ in READERS])
def test_S10_what_is_not_utf8_is_refused(data: bytes, read: Callable[[bytes], object]) -> None:
    refused(lambda: read(data))


@pytest.mark.parametrize("where", ["extra", "extensions", "payload", "unknown"])
@pytest.mark.parametrize("bracket", ["[]", "{}"])
def test_S10_deep_nesting_is_refused_wherever_it_is(where: str, bracket: str) -> None:
    """On every Python: its own recursion limit is a thousand here and ten thousand there."""
    opening = "[" if bracket == "[]" else '{"a":'
    path = "accepted.extra" if where == "extra" else where
    for depth in (codec.NESTING_MAX + 1, 150, 1500, 12_000):
        deep = '{"b":' + opening * depth + "1" + bracket[1] * depth + "}"
        text = json.dumps(changed(PAYMENT, path, "DEEP")).replace('"DEEP"', deep)
        assert "nested too deep" in str(refused(partial(codec.decode_payment_json, text.encode())))


def test_S10_looking_for_nesting_takes_no_quadratic_time() -> None:
    for text in ('"' + '\\"' * 30_000, '"' * 60_000, '"' + "\\" * 60_001, '"\\"' * 20_000, "{" * 60_000 + "}" * 60_000):
        data = b"[" * codec.NESTING_MAX + text.encode()
        started = time.process_time()
        refused(partial(codec.decode_payment_json, data))
        assert time.process_time() - started < 1


@pytest.mark.parametrize("text", ["[" * 200, '"{' * 200, "\\" * 200 + "[" * 200, "]" * 200 + "{" * 200])
def test_brackets_in_a_text_and_many_side_by_side_are_no_nesting(text: str) -> None:
    extensions = {"odd": {"info": text, "many": [[] for _ in range(200)], text: {"a": {}}}}
    payment = codec.decode_payment_json(json.dumps(changed(PAYMENT, "extensions", extensions)).encode())
    assert payment.extensions == extensions


# Of a good header: what lenient decoders of base64 skip, guess or forgive.
SPOILS: list[Callable[[str], str]] = [
    lambda good: good + "\n",
    lambda good: "\n" + good,
    lambda good: " " + good,
    lambda good: good + " ",
    lambda good: good[:8] + " " + good[8:],
    lambda good: good[:8] + "\r\n" + good[8:],
    lambda good: good + "\x00",
    lambda good: good[:8] + "\x00" + good[8:],
    lambda good: good[:8] + "-" + good[8:],
    lambda good: good[:8] + "=" + good[8:],
    lambda good: good + "=",
    lambda good: good + good,
    lambda good: good + "," + good,
    lambda good: good.rstrip("=") if good.endswith("=") else good[:-1],
    lambda good: '"' + good + '"',
    lambda good: "Bearer " + good,
    lambda good: good.translate({ord(c): ord(c) + 0xFEE0 for c in good}),
    lambda good: good + "\u00e9",
    lambda good: good + "\ud800",
    lambda good: base64.b32encode(base64.b64decode(good)).decode(),
    lambda good: base64.b64decode(good).decode(),
]


@pytest.mark.parametrize("pad", ["", "x", "xx"], ids=["pads 0", "pads 1", "pads 2"])
@pytest.mark.parametrize("spoil", SPOILS)
def test_S10_a_header_that_is_not_plain_base64_is_refused(spoil: Callable[[str], str], pad: str) -> None:
    for read, message in zip(HEADERS, (PAYMENT, SETTLEMENT, OFFER), strict=True):
        good = header(json.dumps({**message, "pad": pad}))
        read(good)
        refused(partial(read, spoil(good)))


@pytest.mark.parametrize("value", ["", "====", "e30", "e30=", "=e30", "e", "e3", "%7B%7D", "{}"])
def test_S10_a_header_that_says_nothing_is_refused(value: str) -> None:
    for read in HEADERS:
        refused(partial(read, value))


@pytest.mark.parametrize("size", [codec.HEADER_MAX_BYTES + 1, 1_000_000])
def test_S10_a_header_over_the_limit_is_refused_before_it_is_decoded(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codec, "binascii", None)  # whoever decodes fails in another way
    for read in HEADERS:
        error = refused(partial(read, "A" * size))
        assert str(codec.HEADER_MAX_BYTES) in str(error)


def test_S10_a_header_of_just_the_limit_is_read() -> None:
    room = codec.HEADER_MAX_BYTES // 4 * 3 - len(json.dumps(PAYMENT)) - len(', "pad": ""')
    value = header(json.dumps({**PAYMENT, "pad": "x" * room}))
    assert codec.HEADER_MAX_BYTES - 4 <= len(value) <= codec.HEADER_MAX_BYTES
    assert codec.decode_payment(value).accepted.amount == "10000"


def test_S10_a_body_over_the_limit_is_refused_before_it_is_decoded() -> None:
    body = json.dumps({**REQUEST, "pad": "x" * codec.BODY_MAX_BYTES}).encode()
    assert str(codec.BODY_MAX_BYTES) in str(refused(lambda: codec.decode_verify_request(body)))


def test_S10_more_offers_than_the_limit_are_refused() -> None:
    body = json.dumps({**OFFER, "accepts": [1] * 65})
    assert refused(lambda: codec.decode_payment_required(header(body))).path == "$.accepts"


def test_lenient_an_offer_without_maxTimeoutSeconds_is_read_with_a_short_window() -> None:
    odd = dict(PAYMENT["accepted"])
    del odd["maxTimeoutSeconds"]
    received = codec.decode_payment_required(header(json.dumps({**OFFER, "accepts": [odd]})))
    (offer,) = received.offers
    assert offer.requirements.max_timeout_seconds == codec.TIMEOUT_DEFAULT_SECONDS == 60
    # What is echoed is what was offered, not what was made of it (decision 003).
    assert json.loads(bytes(offer.raw)) == odd
    # At the seller's own door nothing is made up.
    assert refused(lambda: codec.decode_requirements_json(json.dumps(odd).encode())).path == "$.maxTimeoutSeconds"


@pytest.mark.parametrize("more", [{}, {"maxAmountRequired": "10000"}, {"maxTimeoutSeconds": ...}])
def test_lenient_an_offer_without_amount_is_named_and_passed_over(more: dict[str, Any]) -> None:
    odd = {name: value for name, value in {**PAYMENT["accepted"], **more}.items() if value is not ...}
    del odd["amount"]
    received = codec.decode_payment_required(header(json.dumps({**OFFER, "accepts": [odd, PAYMENT["accepted"]]})))
    assert [offer.index for offer in received.offers] == [1]
    assert "no `amount`" in received.passed_over[0].why
    assert "$.accepts[0].amount" in received.passed_over[0].why


def test_lenient_nothing_else_is_forgiven_beside_a_missing_window() -> None:
    odd = {**PAYMENT["accepted"], "amount": 10000}
    del odd["maxTimeoutSeconds"]
    received = codec.decode_payment_required(header(json.dumps({**OFFER, "accepts": [odd, "x", [], {}]})))
    assert received.offers == ()
    assert "$.accepts[0].amount" in received.passed_over[0].why


@pytest.mark.parametrize("field", ["amount", "asset", "scheme", "payTo"])
def test_one_unreadable_offer_spoils_none_beside_it(field: str) -> None:
    odd = dict(PAYMENT["accepted"])
    del odd[field]
    received = codec.decode_payment_required(header(json.dumps({**OFFER, "accepts": [odd, PAYMENT["accepted"], 7]})))
    assert [offer.index for offer in received.offers] == [1]
    assert [entry.index for entry in received.passed_over] == [0, 2]
    assert field in received.passed_over[0].why


def test_lenient_extensions_without_a_schema_and_unknown_members_are_read() -> None:
    body = {
        **OFFER,
        "extensions": {"http-message-signatures": {"info": {"tags": ["web-bot-auth"]}}, "odd": 7},
        "resource": {**PAYMENT["resource"], "serviceName": "Shop", "tags": ["a"], "iconUrl": None},
        "unknown": [1, {"a": None}],
    }
    received = codec.decode_payment_required(header(json.dumps(body)))
    assert received.extensions == body["extensions"]
    assert received.resource is not None
    assert received.resource.url == "https://shop.example/a"


def test_unknown_members_are_ignored_everywhere() -> None:
    odd = {"unknown": {"a": [1, None]}, "x-402": True}
    accepted = {**PAYMENT["accepted"], **odd}
    payment = {**PAYMENT, **odd, "accepted": accepted, "resource": {**PAYMENT["resource"], **odd}}
    assert codec.decode_payment_json(json.dumps(payment).encode()) == codec.decode_payment_json(
        json.dumps(PAYMENT).encode()
    )
    request = json.dumps({**REQUEST, **odd, "paymentPayload": payment, "paymentRequirements": accepted}).encode()
    assert codec.decode_verify_request(request) == codec.decode_verify_request(json.dumps(REQUEST).encode())
    for known, read in [
        (SETTLEMENT, codec.decode_settlement_json),
        (VERDICT, codec.decode_verify_response),
        (SUPPORTED, codec.decode_supported),
    ]:
        assert read(json.dumps({**known, **odd}).encode()) == read(json.dumps(known).encode())


SEEDS = [json.dumps(message).encode() for message in (PAYMENT, SETTLEMENT, OFFER, REQUEST, VERDICT, SUPPORTED)]
TOKENS = [b"{", b"}", b"[", b"]", b'"', b",", b":", b"null", b"1e999", b"-0", b"\\ud800", b"\\u0000", b"\xff", b"\x00",
          b"9" * 100, b'"amount"', b'"x402Version"', b"[" * 600, b"NaN", b"\xf0\x9f\x92\xb8"]  # fmt: skip


@st.composite
def mangled(draw: st.DrawFn) -> bytes:
    """A good message with a few cuts, copies and foreign pieces."""
    data = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(1, 4))):
        start, end = sorted((draw(st.integers(0, len(data))), draw(st.integers(0, len(data)))))
        end = min(end, start + draw(st.integers(0, 12)))
        piece = draw(st.sampled_from(TOKENS) | st.binary(max_size=4) | st.just(data[start : start + 40]))
        data = data[:start] + piece + data[end:]
    return data


def survives(data: bytes) -> None:
    for _, read in READERS:
        try:
            read(data)
        except RemoteProtocolError as error:
            assert error.path.startswith("$")  # noqa: PT017 - both ends are allowed; the error must be of this kind


@settings(max_examples=250, deadline=None)
@given(mangled() | st.binary(max_size=200))
def test_S10_fuzz_no_other_error_comes_out(data: bytes) -> None:
    survives(data)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda data: base64.b64encode(data).decode()[:-1]))
def test_S10_fuzz_headers(value: str) -> None:
    for read in HEADERS:
        try:
            read(value)
        except RemoteProtocolError as error:
            assert error.path.startswith("$")  # noqa: PT017 - as above
