"""Evidence: what the token's events prove of a payment, and what they don't (STATES.md)."""

from __future__ import annotations

from typing import Any

import pytest
from exact_evm_desk import GOOD, word
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.errors import NodeUnavailable
from farthing.evm.logs import AUTHORIZATION_CANCELED_TOPIC, AUTHORIZATION_USED_TOPIC, TRANSFER_TOPIC, read_log
from farthing.evm.node import NodeFailure
from farthing.mechanisms.exact_evm import ExactEvmFacilitator, evidence
from farthing.mechanisms.interface import Evidence, Spent, SpentOtherwise, Unspent

FACE = ExactEvmFacilitator()
SIGNED = GOOD.signed
DETAIL = SIGNED.detail
PAYER, PAYEE, AMOUNT, NONCE = DETAIL.message.from_, DETAIL.message.to, DETAIL.message.value, DETAIL.message.nonce
STRANGER, OTHER_NONCE, OTHER_TOKEN = b"\x66" * 20, b"\x67" * 32, b"\x68" * 20
HASH = "0x" + "aa" * 32
USED_REASON = "invalid_exact_evm_nonce_already_used"


def log(
    topics: list[bytes], data: str = "0x", *, at: int, token: bytes = DETAIL.token, tx: str = HASH
) -> dict[str, Any]:
    return {
        "address": "0x" + token.hex(),
        "topics": ["0x" + topic.rjust(32, b"\x00").hex() for topic in topics],
        "data": data,
        "transactionHash": tx,
        "blockNumber": "0x20",
        "blockHash": "0x" + "bb" * 32,
        "logIndex": hex(at),
    }


def used(at: int, nonce: bytes = NONCE, payer: bytes = PAYER, **where: Any) -> dict[str, Any]:
    return log([AUTHORIZATION_USED_TOPIC, payer, nonce], at=at, **where)


def cancelled(at: int, nonce: bytes = NONCE, **where: Any) -> dict[str, Any]:
    return log([AUTHORIZATION_CANCELED_TOPIC, PAYER, nonce], at=at, **where)


def paid(at: int, to: bytes = PAYEE, value: int = AMOUNT, payer: bytes = PAYER, **where: Any) -> dict[str, Any]:
    return log([TRANSFER_TOPIC, payer, to], word(value), at=at, **where)


def receipt(*logs: dict[str, Any], status: str = "0x1") -> dict[str, Any]:
    return {"status": status, "logs": list(logs), "transactionHash": HASH}


SPENT = Spent(HASH, 32, "0x" + "bb" * 32, 1)
OTHERWISE = SpentOtherwise(USED_REASON, HASH, 32)

CASES: list[tuple[str, list[dict[str, Any]], Evidence]] = [
    ("the usual", [used(1), paid(2)], SPENT),
    ("in any order of the list", [paid(2), used(1)], SPENT),
    ("among others' events", [used(0, payer=STRANGER), used(1), paid(2), paid(3, payer=STRANGER)], SPENT),
    ("nothing", [], Unspent()),
    ("a transfer alone", [paid(2)], Unspent()),
    ("another nonce's", [used(1, OTHER_NONCE), paid(2)], Unspent()),
    ("another payer's", [used(1, payer=STRANGER), paid(2, payer=STRANGER)], Unspent()),
    ("another token's", [used(1, token=OTHER_TOKEN), paid(2, token=OTHER_TOKEN)], Unspent()),
    ("another token's transfer", [used(1), paid(2, token=OTHER_TOKEN)], OTHERWISE),
    ("cancelled", [cancelled(1)], OTHERWISE),
    ("cancelled and paid plainly", [cancelled(1), paid(2)], OTHERWISE),
    ("another's cancellation", [cancelled(0, OTHER_NONCE), used(1), paid(2)], SPENT),
    ("another payee", [used(1), paid(2, STRANGER)], OTHERWISE),
    ("another value", [used(1), paid(2, value=AMOUNT - 1)], OTHERWISE),
    ("no transfer", [used(1)], OTHERWISE),
    ("the transfer before it", [paid(0), used(1)], OTHERWISE),
    ("spent for another, then paid plainly", [used(1), paid(2, STRANGER), paid(3)], OTHERWISE),
    # Two authorisations of one payer in one transaction: the first can't borrow the second's transfer.
    ("a borrowed transfer", [used(1), paid(2, STRANGER), used(3, OTHER_NONCE), paid(4)], OTHERWISE),
    ("a borrowed transfer, next door", [used(1), used(3, OTHER_NONCE), paid(4)], OTHERWISE),
    ("joined with another", [used(0, OTHER_NONCE), paid(0, STRANGER) | {"logIndex": "0x7"}, used(1), paid(2)], SPENT),
]


@pytest.mark.parametrize(("logs", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_F4_a_receipt_is_judged_by_its_events(logs: list[dict[str, Any]], expected: Evidence) -> None:
    assert FACE.judge_receipt(SIGNED, receipt(*logs)) == expected


@pytest.mark.parametrize(("logs", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_F4_a_search_finds_the_same(logs: list[dict[str, Any]], expected: Evidence) -> None:
    def matches(each: dict[str, Any], kinds: list[bytes]) -> bool:
        about = each["topics"][1] == "0x" + PAYER.rjust(32, b"\x00").hex()
        ours = each["address"] == "0x" + DETAIL.token.hex()
        return about and ours and each["topics"][0] in ["0x" + kind.hex() for kind in kinds]

    authorizations = [each for each in logs if matches(each, [AUTHORIZATION_USED_TOPIC, AUTHORIZATION_CANCELED_TOPIC])]
    transfers = [each for each in logs if matches(each, [TRANSFER_TOPIC])]
    state = word(0 if isinstance(expected, Unspent) else 1)
    assert FACE.judge_evidence(SIGNED, (state, authorizations, transfers, word(0))) == expected


def test_a_joined_receipt_is_read_once_for_all_of_its_payments(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Any] = []

    def reading(raw: Any) -> Any:
        read.append(raw)
        return read_log(raw)

    monkeypatch.setattr(evidence, "read_log", reading)
    joined = receipt(used(0, payer=STRANGER), paid(1, payer=STRANGER), used(2), paid(3))
    face = ExactEvmFacilitator()
    for _ in range(3):
        assert isinstance(face.judge_receipt(SIGNED, joined), Spent)
    assert len(read) == 4
    # Another receipt that is equal to it is another receipt.
    assert face.judge_receipt(SIGNED, receipt(used(0, payer=STRANGER))) == Unspent()


def test_a_failed_transaction_has_spent_nothing() -> None:
    assert FACE.judge_receipt(SIGNED, receipt(used(1), paid(2), status="0x0")) == Unspent()


def test_a_transfer_of_another_transaction_proves_nothing() -> None:
    elsewhere = paid(2, tx="0x" + "cc" * 32)
    assert FACE.judge_evidence(SIGNED, (word(1), [used(1)], [elsewhere], word(0))) == OTHERWISE


def test_a_removed_log_proves_nothing() -> None:
    gone = used(1) | {"removed": True}
    assert FACE.judge_evidence(SIGNED, (word(0), [gone], [paid(2)], word(0))) == Unspent()


def test_F4_a_nonce_that_was_used_before_it_was_recorded_is_refused() -> None:
    assert FACE.judge_evidence(SIGNED, (word(1), [], [], word(1))) == SpentOtherwise(USED_REASON)


@pytest.mark.parametrize(
    "answers",
    [
        # State and logs disagree: perhaps the node's index of logs is behind, so that nothing is known yet.
        (word(1), [], [], word(0)),
        (word(1), [], []),
        (word(1), [], [], NodeFailure(-32000, "missing trie node")),
        (NodeFailure(-32000, "no"), [], [], word(0)),
        (word(0), NodeFailure(-32005, "range too large"), [], word(0)),
        (word(0), [], None, word(0)),
        ("0x", [], [], word(0)),
        (word(2), [], [], word(0)),
        (word(0), [{}], [], word(0)),
        (word(0), [[]], [], word(0)),
        (),
        (word(0),),
        (word(0), [], [], word(0), word(0)),
    ],
)
def test_F3_answers_that_prove_nothing_are_an_outage(answers: tuple[Any, ...]) -> None:
    with pytest.raises(NodeUnavailable):
        FACE.judge_evidence(SIGNED, answers)


@pytest.mark.parametrize("raw", [None, [], "0x", {}, {"status": "0x1"}, {"status": 1, "logs": []}, {"logs": []}])
def test_F3_what_is_no_receipt_is_an_outage(raw: Any) -> None:
    with pytest.raises(NodeUnavailable):
        FACE.judge_receipt(SIGNED, raw)


def test_the_search_is_one_batch_about_this_payer_and_token() -> None:
    calls = FACE.evidence_calls(SIGNED, from_block=30)
    assert [call.method for call in calls] == ["eth_call", "eth_getLogs", "eth_getLogs", "eth_call"]
    for call in calls[1:3]:
        (where,) = call.params
        assert where["address"] == "0x" + DETAIL.token.hex()
        assert (where["fromBlock"], where["toBlock"]) == ("0x1e", "latest")
        assert where["topics"][1] == "0x" + PAYER.rjust(32, b"\x00").hex()
    assert (calls[0].params[1], calls[3].params[1]) == ("latest", "0x1d")
    assert len(FACE.evidence_calls(SIGNED, from_block=0)) == 3
    assert FACE.judge_evidence(SIGNED, (word(0), [], [])) == Unspent()


EVENTS = st.sampled_from(
    [
        used,
        lambda at: used(at, OTHER_NONCE),
        lambda at: used(at, payer=STRANGER),
        lambda at: cancelled(at, OTHER_NONCE),
        paid,
        lambda at: paid(at, STRANGER),
        lambda at: paid(at, value=1),
        lambda at: paid(at, payer=STRANGER),
        lambda at: paid(at, token=OTHER_TOKEN),
    ]
)


@settings(max_examples=500, deadline=None)
@given(st.lists(EVENTS, max_size=6))
def test_F4_spent_always_means_a_transfer_of_its_own(makers: list[Any]) -> None:
    logs = [make(at) for at, make in enumerate(makers)]
    found = FACE.judge_receipt(SIGNED, receipt(*logs))
    ours = [each for each in logs if each == used(int(each["logIndex"], 16))]
    if not ours:
        assert found == Unspent()
        return
    first = int(ours[0]["logIndex"], 16)
    later = [
        each
        for each in logs[first + 1 :]
        if each["topics"][1] == ours[0]["topics"][1] and each["address"] == ours[0]["address"]
    ]
    own = bool(later) and later[0] == paid(int(later[0]["logIndex"], 16))
    assert isinstance(found, Spent) == own
    assert isinstance(found, SpentOtherwise) != own
