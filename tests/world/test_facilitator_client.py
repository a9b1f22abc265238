"""S2 and F3: whatever a facilitator does, only a clear settlement settles and only a verdict judges."""

from __future__ import annotations

import asyncio
import json
import warnings
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
import pytest

from farthing.errors import ConfigError, FacilitatorUnavailable
from farthing.protocol.codec import decode_verify_request
from farthing.protocol.facilitator import FindPayment, Outcome, Refused, Settle, Settled, Unknown, Verify
from farthing.protocol.messages import PaymentPayload, PaymentRequirements, VerifyResponse
from farthing.world.facilitator_client import ANSWER_MAX_BYTES, RemoteFacilitator, facilitator_handlers
from farthing.world.performers import Performer

REQUIREMENTS = PaymentRequirements("exact", "eip155:402402", "10000", "0x" + "aa" * 20, "0x" + "bb" * 20, 60)
PAYMENT = PaymentPayload(REQUIREMENTS, msgspec.Raw(b'{"signature":"0x00"}'))
SUCCESS = {"success": True, "transaction": "0x" + "12" * 32, "network": "eip155:402402", "payer": "0x" + "cc" * 20}
REFUSAL = {"success": False, "transaction": "", "network": "eip155:402402", "errorReason": "insufficient_funds"}
PENDING = {**SUCCESS, "success": False, "errorReason": "settlement_pending"}


def packed(value: object) -> bytes:
    return json.dumps(value).encode()


def settle(server: Any, *answers: bytes, timeout_seconds: float = 5.0, **options: Any) -> Outcome:
    async def scene() -> Outcome:
        async with server(*answers) as raw:
            facilitator = RemoteFacilitator(raw.url, settle_timeout_seconds=timeout_seconds, **options)
            outcome = await facilitator.settle(PAYMENT, REQUIREMENTS, idempotency_key="key-1")
            assert len(raw.requests) == 1, "a settlement is asked for once: the seller decides on a repeat"
            return outcome

    return asyncio.run(scene())


def verify(server: Any, *answers: bytes, timeout_seconds: float = 5.0) -> VerifyResponse:
    async def scene() -> VerifyResponse:
        async with server(*answers) as raw:
            facilitator = RemoteFacilitator(raw.url, verify_timeout_seconds=timeout_seconds)
            return await facilitator.verify(PAYMENT, REQUIREMENTS)

    return asyncio.run(scene())


def test_S2_success_is_settled(raw_server: Any) -> None:
    outcome = settle(raw_server, raw_server.answer(200, packed(SUCCESS)))
    assert isinstance(outcome, Settled)
    assert outcome.response.transaction == SUCCESS["transaction"]


@pytest.mark.parametrize("status", [200, 400, 402, 422])
def test_S2_a_clear_refusal_is_refused(raw_server: Any, status: int) -> None:
    outcome = settle(raw_server, raw_server.answer(status, packed(REFUSAL)))
    assert isinstance(outcome, Refused)
    assert outcome.reason == "insufficient_funds"


def chunked(body: bytes, end: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n%s" % (len(body), body, end)


TROUBLE: dict[str, Callable[[Any], bytes]] = {
    "time-out": lambda s: s.HANG,
    "cut before a byte": lambda _: b"",
    "cut in the head": lambda _: b"HTTP/1.1 200 OK\r\nContent-",
    "cut in the body": lambda s: s.answer(200, packed(SUCCESS)[:-5], length=len(packed(SUCCESS))),
    "cut after a whole JSON": lambda s: s.answer(200, packed(SUCCESS), length=len(packed(SUCCESS)) + 1),
    "cut in the chunks": lambda _: chunked(packed(SUCCESS), b""),
    "not HTTP": lambda _: b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "502 page": lambda s: s.answer(502, b"<html>Bad Gateway</html>"),
    "503 with success": lambda s: s.answer(503, packed(SUCCESS)),
    "500 with a refusal": lambda s: s.answer(500, packed(REFUSAL)),
    "402 with success": lambda s: s.answer(402, packed(SUCCESS)),
    "202 with success": lambda s: s.answer(202, packed(SUCCESS)),
    "401": lambda s: s.answer(401, packed({"title": "Unauthorized"})),
    "429 with a refusal": lambda s: s.answer(429, packed(REFUSAL)),
    "truncated JSON": lambda s: s.answer(200, packed(SUCCESS)[:-5]),
    "not JSON": lambda s: s.answer(200, b"OK"),
    "prose": lambda s: s.answer(200, b"The payment was settled.", "Content-Type: text/plain"),
    "empty": lambda s: s.answer(200, b""),
    "a JSON string": lambda s: s.answer(200, b'"success"'),
    "success as text": lambda s: s.answer(200, packed({**SUCCESS, "success": "true"})),
    "success as a number": lambda s: s.answer(200, packed({**SUCCESS, "success": 1})),
    "no transaction": lambda s: s.answer(200, packed({**SUCCESS, "transaction": ""})),
    "pending": lambda s: s.answer(200, packed(PENDING)),
    "a refusal without a reason": lambda s: s.answer(200, packed({**REFUSAL, "errorReason": ""})),
    "oversize": lambda s: s.answer(200, packed({**SUCCESS, "x": "x" * ANSWER_MAX_BYTES})),
    "oversize header": lambda s: s.answer(200, packed(SUCCESS), "X-Large: " + "x" * 40_000),
    "redirect": lambda s: s.answer(307, b"", "Location: /elsewhere"),
    "see other, with success": lambda s: s.answer(303, packed(SUCCESS), "Location: /elsewhere"),
    "compressed": lambda s: s.answer(200, packed(SUCCESS), "Content-Encoding: gzip"),
    "deep": lambda s: s.answer(200, b"[" * 100_000),
}


@pytest.mark.parametrize("trouble", TROUBLE.values(), ids=TROUBLE.keys())
def test_S2_trouble_on_settle_is_unknown(raw_server: Any, trouble: Callable[[Any], bytes]) -> None:
    answer = trouble(raw_server)
    outcome = settle(raw_server, answer, timeout_seconds=0.2 if answer == raw_server.HANG else 5.0)
    assert isinstance(outcome, Unknown)
    assert outcome.reason != ""


def test_S3_pending_names_the_transaction(raw_server: Any) -> None:
    outcome = settle(raw_server, raw_server.answer(200, packed(PENDING)))
    assert outcome == Unknown("settlement_pending", "", SUCCESS["transaction"])  # type: ignore[arg-type]


def test_S2_nobody_there_is_unknown() -> None:
    async def scene() -> Outcome:
        server = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        return await RemoteFacilitator(f"http://127.0.0.1:{port}").settle(PAYMENT, REQUIREMENTS, idempotency_key="k")

    outcome = asyncio.run(scene())
    assert isinstance(outcome, Unknown)
    assert "No connection" in outcome.message


async def _broken_async() -> Mapping[str, str]:
    raise OSError("the token was t0ken")


def _broken() -> Mapping[str, str]:
    raise ValueError("the token was t0ken")


@pytest.mark.parametrize("headers", [_broken, _broken_async, {"Authorization": "Bearer a\r\nX: b"}, lambda: 5])
def test_S2_headers_that_fail_are_unknown_and_show_no_token(headers: Any) -> None:
    facilitator = RemoteFacilitator("http://127.0.0.1:9", headers=headers)
    outcome = asyncio.run(facilitator.settle(PAYMENT, REQUIREMENTS, idempotency_key="k"))
    assert isinstance(outcome, Unknown)
    assert "t0ken" not in outcome.message
    with pytest.raises(FacilitatorUnavailable) as caught:
        asyncio.run(facilitator.verify(PAYMENT, REQUIREMENTS))
    assert "t0ken" not in str(caught.value)


# Verification

INVALID = {"isValid": False, "invalidReason": "insufficient_funds", "payer": "0x" + "cc" * 20}
UNEXPECTED = {"isValid": False, "invalidReason": "unexpected_verify_error", "title": "Node unavailable"}

NO_VERDICT: dict[str, Callable[[Any], bytes]] = {
    **{
        name: trouble
        for name, trouble in TROUBLE.items()
        if name.startswith(("time-out", "cut", "not", "502", "401", "empty", "prose", "redirect", "deep", "429"))
    },
    "503 problem": lambda s: s.answer(503, packed(UNEXPECTED), "Content-Type: application/problem+json"),
    "200 unexpected": lambda s: s.answer(200, packed(UNEXPECTED)),
    "503 invalid": lambda s: s.answer(503, packed(INVALID)),
    "503 valid": lambda s: s.answer(503, packed({"isValid": True})),
    "400 valid": lambda s: s.answer(400, packed({"isValid": True})),
    "400 without a reason": lambda s: s.answer(400, packed({"isValid": False})),
    "404 invalid": lambda s: s.answer(404, packed(INVALID)),
    "valid as text": lambda s: s.answer(200, packed({"isValid": "true"})),
}


@pytest.mark.parametrize("trouble", NO_VERDICT.values(), ids=NO_VERDICT.keys())
def test_F3_trouble_on_verify_is_no_verdict(raw_server: Any, trouble: Callable[[Any], bytes]) -> None:
    answer = trouble(raw_server)
    with pytest.raises(FacilitatorUnavailable):
        verify(raw_server, answer, timeout_seconds=0.2 if answer == raw_server.HANG else 5.0)


@pytest.mark.parametrize(
    ("status", "body"), [(200, {"isValid": True, "payer": "0x"}), (200, INVALID), (400, INVALID), (402, INVALID)]
)
def test_a_verdict_is_a_verdict(raw_server: Any, status: int, body: dict[str, Any]) -> None:
    response = verify(raw_server, raw_server.answer(status, packed(body)))
    assert response.is_valid == body["isValid"]
    assert response.invalid_reason == body.get("invalidReason")


# What is sent


async def _token() -> Mapping[str, str]:
    await asyncio.sleep(0)
    return {"Authorization": "Bearer t"}


@pytest.mark.parametrize("headers", [{"Authorization": "Bearer t"}, lambda: {"Authorization": "Bearer t"}, _token])
def test_what_is_sent(raw_server: Any, headers: Mapping[str, str] | Callable[[], Awaitable[Mapping[str, str]]]) -> None:
    async def scene() -> None:
        async with raw_server(raw_server.answer(200, packed(SUCCESS))) as raw:
            facilitator = RemoteFacilitator(raw.url + "/base/", headers=headers)
            await facilitator.settle(PAYMENT, REQUIREMENTS, idempotency_key="key-1")
            (head,) = raw.requests
            assert head.startswith(b"POST /base/settle HTTP/1.1\r\n")
            lines = {line.lower() for line in head.split(b"\r\n")}
            assert {b"authorization: bearer t", b"idempotency-key: key-1", b"content-type: application/json"} <= lines
            sent = decode_verify_request(raw.bodies[0])
            assert sent.payment_requirements == REQUIREMENTS
            assert bytes(sent.payment_payload.payload) == b'{"signature":"0x00"}'
            assert b"x402Version" in raw.bodies[0]

    asyncio.run(scene())


def test_supported_and_find(raw_server: Any) -> None:
    supported = {"kinds": [{"x402Version": 2, "scheme": "exact", "network": "eip155:402402"}], "signers": {}}
    status = {
        "paymentId": "pay_1", "state": "confirmed", "network": "eip155:402402", "asset": "0x", "payer": "0x",
        "payTo": "0x", "amount": "10000", "transaction": "0x12",
    }  # fmt: skip

    async def scene() -> None:
        async with raw_server(
            raw_server.answer(200, packed(supported)),
            raw_server.answer(200, packed(status)),
            raw_server.answer(404, b"{}", "Content-Type: application/problem+json; charset=utf-8"),
            raw_server.answer(404, b"Not Found", "Content-Type: text/plain"),
            raw_server.answer(500, b"{}", "Content-Type: application/problem+json"),
            b"",
        ) as raw:
            facilitator = RemoteFacilitator(raw.url)
            assert [kind.scheme for kind in (await facilitator.supported()).kinds] == ["exact"]
            found = await facilitator.find("pay_1")
            assert found is not None
            assert found.transaction == "0x12"
            assert await facilitator.find("../verify?x") is None
            assert raw.requests[-1].startswith(b"GET /payments/..%2Fverify%3Fx HTTP/1.1")
            for _ in range(3):  # "could not find out" is not "did not happen"
                with pytest.raises(FacilitatorUnavailable):
                    await facilitator.find("pay_1")

    asyncio.run(scene())


def test_the_handlers_work_under_both_drivers(raw_server: Any) -> None:
    async def scene() -> None:
        async with raw_server(raw_server.answer(200, packed(SUCCESS))) as raw:
            performer = Performer(facilitator_handlers(RemoteFacilitator(raw.url)))
            effect = Settle(PAYMENT, REQUIREMENTS, "k")
            first: Outcome = await performer.awaiting(effect)
            second: Outcome = await asyncio.to_thread(lambda: performer.blocking(effect))
            assert (type(first), type(second)) == (Settled, Settled)
            with pytest.raises(FacilitatorUnavailable):
                await performer.awaiting(Verify(PAYMENT, REQUIREMENTS))
            with pytest.raises(FacilitatorUnavailable):
                await asyncio.to_thread(lambda: performer.blocking(FindPayment("x")))

    asyncio.run(scene())


# The URL


@pytest.mark.parametrize("url", ["ftp://x", "x.example", "http://", "https://u:p@x.example", "https://x.example:a"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        RemoteFacilitator(url)


def test_A4_plain_http_elsewhere_warns_and_no_message_shows_more_than_the_host() -> None:
    with pytest.warns(UserWarning, match="in the clear"):
        facilitator = RemoteFacilitator("http://facilitator.example/secret-path")
    assert "secret" not in repr(facilitator)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for url in ("http://127.0.0.1:1/x", "http://localhost/x", "http://[::1]:1/x", "https://facilitator.example/x"):
            RemoteFacilitator(url)
