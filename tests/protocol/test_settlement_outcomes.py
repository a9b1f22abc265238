"""S2 at the codec: what a facilitator answered to `/settle` is a settlement, a refusal, or unknown; never a guess."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.protocol.facilitator import Refused, Settled, Unknown, read_settlement

TRANSACTION = "0x" + "12" * 32
SUCCESS: dict[str, Any] = {"success": True, "transaction": TRANSACTION, "network": "eip155:84532", "payer": "0x34"}
REFUSAL: dict[str, Any] = {
    "success": False,
    "errorReason": "insufficient_funds",
    "errorMessage": "0.01 USDC is missing",
    "transaction": "",
    "network": "eip155:84532",
    "payer": "0x34",
}
JUDGED = [200, 400, 402, 409, 412, 422]
NOT_JUDGED = [201, 202, 204, 301, 302, 307, 401, 403, 404, 405, 407, 408, 421, 425, 429, 500, 501, 502, 503, 504, 520]


def body(message: dict[str, Any], **changes: Any) -> bytes:
    return json.dumps({name: value for name, value in {**message, **changes}.items() if value is not ...}).encode()


def test_only_this_is_settled() -> None:
    outcome = read_settlement(200, body(SUCCESS))
    assert isinstance(outcome, Settled)
    assert outcome.response.transaction == TRANSACTION


@pytest.mark.parametrize("status", [*JUDGED[1:], *NOT_JUDGED])
def test_S2_success_under_another_status_is_unknown_and_keeps_the_transaction(status: int) -> None:
    outcome = read_settlement(status, body(SUCCESS))
    assert isinstance(outcome, Unknown)
    assert outcome.transaction == TRANSACTION


@pytest.mark.parametrize("status", JUDGED)
def test_S2_a_refusal_that_judged_is_a_refusal(status: int) -> None:
    outcome = read_settlement(status, body(REFUSAL))
    assert outcome == Refused("insufficient_funds", "0.01 USDC is missing", "", "0x34")


@pytest.mark.parametrize("status", NOT_JUDGED)
def test_S2_a_refusal_from_somebody_who_could_not_judge_is_unknown(status: int) -> None:
    assert isinstance(read_settlement(status, body(REFUSAL)), Unknown)


@pytest.mark.parametrize("status", [*JUDGED, *NOT_JUDGED])
@pytest.mark.parametrize(
    "raw",
    [
        b"", b" ", b"null", b"true", b"[]", b"{}", b'"success"', b"OK", b"success: true",
        b"<html>502 Bad Gateway</html>",
        b"Payment settled, thank you!", b"\xff\xfe", b"{" * 2000, body(SUCCESS)[:-1], body(SUCCESS)[:40],
        body(SUCCESS) + body(SUCCESS), body(SUCCESS, success="true"), body(SUCCESS, success=1),
        body(SUCCESS, success=None),
        body(SUCCESS, success=...), body(SUCCESS, transaction=...), body(SUCCESS, transaction=None),
        body(SUCCESS, transaction=""), body(SUCCESS, transaction=7), body(SUCCESS, network=...), body(SUCCESS, payer=7),
        body(REFUSAL, errorReason=...), body(REFUSAL, errorReason=""), body(REFUSAL, errorReason=None),
        body(REFUSAL, errorReason="unexpected_settle_error"), body(REFUSAL, errorReason={"code": 1}),
    ],
)  # fmt: skip
def test_S2_whatever_is_not_clearly_either_is_unknown(status: int, raw: bytes) -> None:
    outcome = read_settlement(status, raw)
    assert isinstance(outcome, Unknown)
    assert outcome.reason


@pytest.mark.parametrize("status", [*JUDGED, *NOT_JUDGED])
@pytest.mark.parametrize("transaction", ["", TRANSACTION])
def test_S2_pending_is_unknown_and_names_the_transaction(status: int, transaction: str) -> None:
    outcome = read_settlement(status, body(REFUSAL, errorReason="settlement_pending", transaction=transaction))
    assert isinstance(outcome, Unknown)
    assert (outcome.reason, outcome.transaction) == ("settlement_pending", transaction)


def test_a_duplicate_is_a_refusal_that_names_the_transaction() -> None:
    outcome = read_settlement(200, body(REFUSAL, errorReason="duplicate_settlement", transaction=TRANSACTION))
    assert outcome == Refused("duplicate_settlement", "0.01 USDC is missing", TRANSACTION, "0x34")


@settings(max_examples=200, deadline=None)
@given(
    st.integers(100, 599),
    st.binary(max_size=80) | st.recursive(
        st.none() | st.booleans() | st.text(max_size=5),
        lambda inner: st.dictionaries(
            st.sampled_from(["success", "transaction", "network", "errorReason"]) | st.text(max_size=3), inner
        ),
    ).map(lambda value: json.dumps(value).encode()),
)  # fmt: skip
def test_S2_nothing_is_settled_without_a_200_and_a_transaction(status: int, raw: bytes) -> None:
    outcome = read_settlement(status, raw)
    if isinstance(outcome, Settled):
        assert status == 200
        said = json.loads(raw)
        assert said["success"] is True
        assert said["transaction"]
