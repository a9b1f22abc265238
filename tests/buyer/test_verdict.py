"""How the answer to a paid request is read, row by row."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shop import NETWORK, SIGNER, offer, required, response

from farthing.buyer import NoAnswer, PaidAnswer, PaidRequest, Receipt, conclude
from farthing.buyer.journal import RecordOutcome
from farthing.errors import PaymentRefused, PaymentUnknown
from farthing.flow import Effect, Now, drive

PAID = PaidRequest("id", "pay_1", "header", NETWORK, SIGNER.address, 60, offer(), None)
HASH = "0x" + "ab" * 32


def judge(answer: PaidAnswer | NoAnswer) -> tuple[RecordOutcome, Receipt | Exception]:
    recorded: list[RecordOutcome] = []

    def perform(effect: Effect[Any]) -> Any:
        if isinstance(effect, Now):
            return 0
        assert isinstance(effect, RecordOutcome)
        recorded.append(effect)
        return effect.outcome

    try:
        result: Receipt | Exception = drive(conclude(PAID, answer), perform)
    except (PaymentRefused, PaymentUnknown) as error:
        result = error
    return recorded[0], result


failure = {"success": False, "transaction": ""}
PROOFS = [
    {},
    {"payer": SIGNER.address},
    {"payer": SIGNER.address.lower()},
    {"payer": ""},
    {"amount": "10000"},
]
NO_PROOFS = [
    {"network": "eip155:8453"},
    {"network": ""},
    {"transaction": ""},
    {"payer": "0x" + "11" * 20},
    {"success": False},
    {"success": False, "error_reason": "settlement_pending"},
]


@pytest.mark.parametrize("proof", PROOFS)
@pytest.mark.parametrize(("status", "delivered"), [(200, True), (206, True), (303, True), (404, False), (500, False)])
def test_settled_is_success_on_our_network_with_a_transaction_and_our_payer(
    proof: dict[str, Any],
    status: int,
    delivered: bool,  # noqa: FBT001 - a table
) -> None:
    recorded, result = judge(PaidAnswer(status, response(**proof)))
    assert (recorded.outcome, recorded.transaction, recorded.delivered) == ("settled", HASH, delivered)
    assert isinstance(result, Receipt)
    assert result.transaction == HASH


@pytest.mark.parametrize("proof", NO_PROOFS)
def test_a_2xx_without_proof_is_handed_over_and_unknown(proof: dict[str, Any]) -> None:
    recorded, result = judge(PaidAnswer(200, response(**proof)))
    assert (recorded.outcome, recorded.delivered) == ("unknown", True)
    assert isinstance(result, Receipt)
    assert result.state == "unknown"


@pytest.mark.parametrize("header", [None, "", "garbage", "e30="])
def test_a_2xx_with_no_readable_response_is_unknown_too(header: str | None) -> None:
    recorded, result = judge(PaidAnswer(200, header))
    assert (recorded.outcome, recorded.reason) == ("unknown", "no_settlement_proof")
    assert isinstance(result, Receipt)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (PaidAnswer(402, response(**failure, error_reason="insufficient_funds")), "insufficient_funds"),
        (PaidAnswer(402, response(**failure, error_reason="No funds, friend!")), "settlement_failed"),
        (PaidAnswer(402, None, required(offer(), error="invalid_exact_evm_payload_signature")),
         "invalid_exact_evm_payload_signature"),
    ],
)  # fmt: skip
def test_B4_a_clear_refusal_is_refused(answer: PaidAnswer, reason: str) -> None:
    recorded, result = judge(answer)
    assert (recorded.outcome, recorded.reason) == ("refused", reason)
    assert isinstance(result, PaymentRefused)
    assert (result.reason, result.offer, result.payment_id) == (reason, offer(), "pay_1")
    assert "window" in result.advice


@pytest.mark.parametrize(
    "answer",
    [
        PaidAnswer(402),
        PaidAnswer(402, None, "garbage"),
        PaidAnswer(402, None, required(offer(), error="PAYMENT-SIGNATURE header is required")),
        PaidAnswer(402, None, required(offer(), error="payment_required")),
        PaidAnswer(402, None, required(offer(), error="unexpected_verify_error")),
        PaidAnswer(402, None, required(offer())),
        PaidAnswer(402, response(**failure)),
        PaidAnswer(402, response(success=False, error_reason="settlement_pending")),
        PaidAnswer(402, response(**failure, error_reason="settlement_pending")),
        PaidAnswer(402, response(**failure, error_reason="duplicate_settlement")),
        PaidAnswer(402, response(success=False, error_reason="transaction_failed")),
        PaidAnswer(402, response(network="eip155:1")),
        PaidAnswer(408),
        PaidAnswer(409),
        PaidAnswer(425),
        PaidAnswer(429),
        PaidAnswer(500),
        PaidAnswer(503, response(success=False, error_reason="insufficient_funds")),
        PaidAnswer(599),
        NoAnswer("ReadTimeout"),
        NoAnswer("ConnectError"),
    ],
)
def test_B1_what_is_not_clear_is_unknown(answer: PaidAnswer | NoAnswer) -> None:
    recorded, result = judge(answer)
    assert (recorded.outcome, recorded.delivered) == ("unknown", False)
    assert isinstance(result, PaymentUnknown)
    assert result.payment_id == "pay_1"
    assert "mark_settled" in result.advice


@given(st.integers(100, 599), st.none() | st.text(max_size=50), st.none() | st.text(max_size=50))
def test_B4_no_answer_makes_a_402_a_success_nor_words_a_settlement(
    status: int, payment_response: str | None, payment_required: str | None
) -> None:
    recorded, result = judge(PaidAnswer(status, payment_response, payment_required))
    assert recorded.outcome != "settled"
    assert status != 402 or isinstance(result, (PaymentRefused, PaymentUnknown))
