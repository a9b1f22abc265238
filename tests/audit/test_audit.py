"""Statements of paper before the auditor: one thing wrong in each (C5, B1, B2), and paid once (C6)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from farthing.buyer.audit import ADJUSTMENT_PREFIX, dispute_id
from farthing.errors import StoreError
from farthing.protocol.statements import StatementAnswer, StatementLine
from farthing.signatures.keys import SigningKey
from farthing.world.keys import LocalSigner

if TYPE_CHECKING:
    from tests.audit.paper import Desk

PRICE = 10_000
DAY = 86_400


def altered(line: StatementLine, **changes: str) -> StatementLine:
    return msgspec.structs.replace(line, **changes)


def test_C5_a_statement_in_order_is_paid_by_its_own_nonce_to_the_treasury(desk: Desk) -> None:
    name = desk.issue([desk.promise() for _ in range(5)])
    found = desk.audit(name)
    assert (found.fault, found.disputes, found.count, found.net) == (None, (), 5, 5 * PRICE)
    conclusion = desk.pay(name)
    assert (conclusion.outcome, conclusion.amount) == ("paid", 5 * PRICE)
    rail = desk.statements[name].rail
    assert desk.signed() == [(rail.reference, 5 * PRICE, rail.pay_to, desk.signer.address)]
    (entry,) = desk.journal.audited()
    assert entry.valid_before >= rail.valid_before


# What makes a statement wrong as a whole.
WRONG: dict[str, Callable[[Desk, list[StatementLine]], str]] = {
    "other_root": lambda desk, lines: desk.issue(lines, root="0" * 64),
    "other_count": lambda desk, lines: desk.issue(lines, count=4),
    "other_totals": lambda desk, lines: desk.issue(lines, gross="50001", net="50001"),
    "other_totals net": lambda desk, lines: desk.issue(lines, net="60000"),
    "other_totals rounding": lambda desk, lines: desk.issue(lines, net="60000", rounding="10000"),
    "other_terms": lambda desk, lines: desk.issue(lines, payer="https://other.example"),
    "other_terms currency": lambda desk, lines: desk.issue(lines, currency="EUR"),
    "other_terms decimals": lambda desk, lines: desk.issue(lines, decimals=2),
    "other_terms network": lambda desk, lines: desk.issue(lines, network="clearing:other"),
    "other_terms nonce": lambda desk, lines: desk.issue(lines, reference="0x" + "11" * 32),
    "other_terms line": lambda desk, lines: desk.issue([*lines[1:], altered(lines[0], currency="EUR")]),
    "unknown_token": lambda desk, lines: desk.issue(lines, asset="0x" + "22" * 20),
    "dates": lambda desk, lines: desk.issue(lines, valid_before=2**39),
    "line_unreadable": lambda desk, lines: desk.issue([*lines[1:], altered(lines[0], charged="-10000")]),
    "line_unreadable full width": lambda desk, lines: desk.issue(
        [*lines[1:], altered(lines[0], committed="\uff11\uff10")]
    ),
    "line_unreadable kind": lambda desk, lines: desk.issue([*lines[1:], altered(lines[0], id="what:1")]),
}


@pytest.mark.parametrize("case", WRONG)
def test_C5_a_statement_that_is_wrong_as_a_whole_is_refused_whole(desk: Desk, case: str) -> None:
    name = WRONG[case](desk, [desk.promise() for _ in range(5)])
    found = desk.audit(name)
    assert found.fault is not None
    assert found.fault.code == case.partition(" ")[0]
    assert desk.pay(name).outcome == "held"
    assert (desk.payments, desk.disputed) == ([], {})
    assert [each for each in desk.journal.audited() if each.state != "refused" or each.owed] == []


def _signed_by_another(desk: Desk, name: str) -> None:
    answer = desk.answers[name]
    *parts, _ = answer.jws.split(".")
    import base64  # noqa: PLC0415

    forged = SigningKey(b"\x0a" * 32).sign(".".join(parts).encode())
    jws = ".".join([*parts, base64.urlsafe_b64encode(forged).decode().rstrip("=")])
    desk.answers[name] = StatementAnswer(jws, answer.status)


def test_C5_a_wrong_signature_is_refused(desk: Desk) -> None:
    name = desk.issue([desk.promise()])
    _signed_by_another(desk, name)
    assert desk.pay(name).reason == "invalid_signature"
    desk.plan = desk.planned(keys=frozenset({SigningKey(b"\x0b" * 32).public_key.thumbprint}))
    other = desk.issue([desk.promise()], number=2)
    assert desk.pay(other).reason == "unknown_key"
    assert desk.payments == []


def test_C5_lines_that_are_not_those_of_the_root_are_refused(desk: Desk) -> None:
    lines = [desk.promise() for _ in range(5)]
    extra = desk.promise()
    name = desk.issue(lines)
    honest = desk.leaves[name]
    served = {
        "altered": [altered(lines[0], charged="1", committed="1").leaf(), *honest[1:]],
        "added": sorted([*honest, extra.leaf()]),
        "missing": honest[1:],
        "twice": sorted([*honest, honest[2]]),
        "in another order": [*reversed(honest)],
    }
    for what, leaves in served.items():
        desk.leaves[name] = leaves
        assert desk.audit(name).fault is not None, what
    desk.leaves[name] = honest
    assert desk.pay(name).outcome == "paid"


def test_B1_a_line_that_was_never_signed_is_disputed_and_the_rest_is_paid(desk: Desk) -> None:
    lines = [desk.promise() for _ in range(4)]
    forged = altered(lines[0], id="sha256:" + "ab" * 32)
    name = desk.issue([*lines, forged])
    found = desk.audit(name)
    assert [(each.line, each.reason) for each in found.disputes] == [(forged.id, "not_authorized")]
    conclusion = desk.pay(name)
    assert (conclusion.outcome, conclusion.amount) == ("paid", 4 * PRICE)
    assert desk.disputed[name] == {forged.id: "not_authorized"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"charged": "10001", "committed": "10001"}, "wrong_amount"),
        ({"charged": "10001"}, "wrong_amount"),
        ({"charged": "9999", "committed": "9999"}, "wrong_amount"),
        ({"payee": "other"}, "not_authorized"),
        ({"resource": "https://news.example/dear"}, "not_authorized"),
    ],
)
def test_B1_a_line_that_says_other_than_what_was_signed_is_disputed(
    desk: Desk, changes: dict[str, str], reason: str
) -> None:
    lines = [desk.promise() for _ in range(3)]
    wrong = altered(lines[1], **changes)
    name = desk.issue([lines[0], wrong, lines[2]])
    assert [(each.line, each.reason) for each in desk.audit(name).disputes] == [(wrong.id, reason)]
    assert (desk.pay(name).amount, desk.signed()[0][1]) == (2 * PRICE, 2 * PRICE)


def test_B1_a_line_without_a_receipt_is_disputed_as_not_delivered(desk: Desk) -> None:
    lines = [desk.promise(), desk.promise(receipt=False)]
    name = desk.issue(lines)
    (dispute,) = desk.audit(name).disputes
    assert (dispute.line, dispute.reason) == (lines[1].id, "not_delivered")
    assert "no receipt" in dispute.evidence
    assert desk.pay(name).amount == PRICE


def test_B1_a_promise_that_a_statement_asks_for_is_not_marked_unspent(desk: Desk) -> None:
    disputed, owed = desk.promise(receipt=False), desk.promise(receipt=False)
    first = desk.issue([disputed])
    desk.pay(first)
    second = desk.issue([owed], number=2)
    ids = {each.promise.promise_id: each.purchase.payment_id for each in desk.journal.promises()}
    desk.audit(second)
    desk.forget_disputes(second)
    with pytest.raises(StoreError, match=second):
        desk.journal.mark_unspent(ids[owed.id], evidence="no")
    assert desk.journal.mark_unspent(ids[disputed.id], evidence="granted").state == "closed"


def test_C2_a_line_twice_in_one_statement_or_in_two_is_paid_once(desk: Desk) -> None:
    lines = [desk.promise() for _ in range(3)]
    name = desk.issue([*lines, lines[1]])
    assert [(each.line, each.reason) for each in desk.audit(name).disputes] == [(lines[1].id, "duplicate")]
    assert desk.audit(name).disputes[0].amount == PRICE
    second = desk.issue([lines[0], desk.promise()], number=2)
    desk.pay(name)
    found = desk.audit(second)
    assert [(each.line, each.reason) for each in found.disputes] == [(lines[0].id, "duplicate")]
    assert desk.pay(second).amount == PRICE


def test_C5_statements_form_a_chain_and_none_changes(desk: Desk) -> None:
    first = desk.issue([desk.promise()])
    assert desk.pay(first).outcome == "paid"
    skipped = desk.issue([desk.promise()], number=2, previous="")
    assert desk.pay(skipped).reason == "other_previous"
    second = desk.issue([desk.promise()], number=2)
    assert desk.pay(second).outcome == "paid"
    # A second statement of one id, signed as well as the first.
    desk.issue([desk.promise(), desk.promise()], number=2)
    changed = desk.audit(second).fault
    assert changed is not None
    assert changed.code == desk.pay(second).reason == "statement_changed"
    assert len(desk.payments) == 2


def test_C5_a_statement_with_wrong_lines_holds_up_no_other_and_may_come_right(desk: Desk) -> None:
    lines = [desk.promise() for _ in range(2)]
    first = desk.issue(lines)
    honest = desk.leaves[first]
    desk.leaves[first] = honest[1:]
    assert desk.pay(first).reason == "other_count"
    second = desk.issue([desk.promise()], number=2)
    assert desk.pay(second).outcome == "paid"
    desk.leaves[first] = honest
    assert (desk.pay(first).outcome, desk.pay(first).amount) == ("paid", 2 * PRICE)


def test_B2_the_treasury_is_pinned_and_a_change_is_refused(desk: Desk) -> None:
    assert desk.pay(desk.issue([desk.promise()])).outcome == "paid"
    elsewhere = "0x" + "33" * 20
    name = desk.issue([desk.promise()], number=2, pay_to=elsewhere)
    assert desk.pay(name).reason == "house_changed"
    desk.plan = desk.planned(treasury=desk.statements["st-000001-0123456789abcdef"].rail.pay_to)
    assert desk.pay(name).reason == "other_terms"
    # Who runs the payer says where it is now.
    desk.plan = desk.planned(treasury=elsewhere)
    assert desk.pay(name).outcome == "paid"


def test_B2_limits_hold_for_a_statement_and_for_a_window(desk: Desk) -> None:
    desk.plan = desk.planned(per_statement=2 * PRICE, per_window=3 * PRICE)
    dear = desk.issue([desk.promise() for _ in range(3)])
    assert (desk.pay(dear).outcome, desk.pay(dear).reason) == ("over_limit", "per_statement")
    second = desk.issue([desk.promise() for _ in range(2)], number=2)
    assert desk.pay(second).outcome == "paid"
    third = desk.issue([desk.promise() for _ in range(2)], number=3)
    desk.now = desk.statements[second].issued + 10
    assert (desk.pay(third).outcome, desk.pay(third).reason) == ("over_limit", "per_window")
    # What is paid already is presented again, whatever the limits are now.
    assert desk.pay(second).outcome == "paid"
    desk.now += DAY
    assert desk.pay(third).outcome == "paid"


def test_B2_the_kill_switch_stops_what_is_signed_and_what_leaves(desk: Desk) -> None:
    name = desk.issue([desk.promise()])
    desk.journal.stop("enough")
    assert (desk.pay(name).outcome, desk.pay(name).detail) == ("stopped", "enough")
    (entry,) = desk.journal.audited()
    assert (entry.payment, desk.payments) == ("", [])
    desk.journal.resume()
    desk.away = True
    assert desk.pay(name).outcome == "unknown"
    desk.journal.stop()
    assert desk.pay(name).outcome == "stopped"
    assert len(desk.payments) == 1


def test_C6_the_house_may_not_ask_for_more_than_the_journal_owes(desk: Desk) -> None:
    lines = [desk.promise(), desk.promise(receipt=False)]
    name = desk.issue(lines)
    desk.audit(name)
    desk.run(_marked_sent(name))
    # The house has no dispute, and asks for all.
    assert (desk.pay(name).outcome, desk.pay(name).reason) == ("held", "over_owed")
    assert desk.payments == []


def _marked_sent(name: str) -> Any:
    from farthing.buyer.audit_records import MarkDisputesSent  # noqa: PLC0415

    return (yield from MarkDisputesSent("clearing:test", name))


def test_C6_whatever_the_answer_the_same_authorisation_is_presented_again(desk: Desk) -> None:
    name = desk.issue([desk.promise()])
    desk.away = True
    assert desk.pay(name).outcome == "unknown"
    desk.away, desk.refuses = False, "conflict"
    assert (desk.pay(name).outcome, desk.pay(name).reason) == ("refused", "conflict")
    desk.refuses = ""
    assert desk.pay(name).outcome == "paid"
    assert len({each.payload for each in map(_raw, desk.payments)}) == 1
    desk.say(name, state="settled", payable="0", transaction="0xaa")
    assert (desk.pay(name).outcome, desk.pay(name).transaction) == ("settled", "0xaa")
    assert len(desk.payments) == 4


class _Raw(msgspec.Struct, frozen=True):
    payload: bytes


def _raw(payment: Any) -> _Raw:
    return _Raw(bytes(payment.payload))


def test_C6_an_authorisation_that_has_ended_is_signed_anew_under_its_nonce(desk: Desk) -> None:
    name = desk.issue([desk.promise()])
    desk.away = True
    desk.pay(name)
    desk.now = desk.statements[name].rail.valid_before + 1
    desk.away = False
    assert desk.pay(name).outcome == "paid"
    first, second = desk.signed()
    assert first == second
    assert len({_raw(each).payload for each in desk.payments}) == 2


def test_C6_one_account_pays_a_statement_for_ever(desk: Desk) -> None:
    name = desk.issue([desk.promise()])
    desk.away = True
    desk.pay(name)
    desk.away = False
    # With another account the nonce is another right, and the chain would settle both.
    desk.signer = LocalSigner(b"\x04" * 32)
    desk.plan = desk.planned()
    assert desk.pay(name).outcome == "paid"
    assert len(set(desk.signed())) == 1
    desk.now = desk.statements[name].rail.valid_before + 1
    assert (desk.pay(name).outcome, desk.pay(name).reason) == ("held", "other_account")
    assert len(set(desk.signed())) == 1


def adjusted(line: StatementLine, statement: str, *, state: str, reason: str, charged: int) -> StatementLine:
    what = f"{state} {reason}: {line.id} of {statement}"
    name = ADJUSTMENT_PREFIX + dispute_id(statement, line.id)
    return altered(line, id=name, charged=str(charged), adjustment=what)


@pytest.mark.parametrize(
    ("receipt", "charged", "verdict"),
    [(False, PRICE, ""), (False, 2 * PRICE, "wrong_amount"), (False, 0, ""), (True, PRICE, "not_authorized")],
)
def test_C6_an_adjustment_is_held_to_the_dispute_on_record(
    desk: Desk,
    receipt: bool,  # noqa: FBT001 - a column of the table
    charged: int,
    verdict: str,
) -> None:
    line = desk.promise(receipt=receipt)
    first = desk.issue([line, desk.promise()])
    assert desk.pay(first).outcome == "paid"
    made = adjusted(line, first, state="rejected", reason="not_delivered", charged=charged)
    second = desk.issue([made, desk.promise()], number=2)
    assert [each.reason for each in desk.audit(second).disputes] == ([verdict] if verdict else [])
    # Once: on a third statement it is a duplicate.
    third = desk.issue([made], number=3)
    if charged and not verdict:
        assert [each.reason for each in desk.audit(third).disputes] == ["duplicate"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"id": "sha256:" + "cd" * 32}, "not_authorized"),
        ({"charged": "10001", "committed": "10001"}, "wrong_amount"),
        ({}, "duplicate"),
    ],
)
def test_C6_what_was_never_signed_is_paid_by_nobody_but_a_person_whatever_the_house_decides(
    desk: Desk, changes: dict[str, str], reason: str
) -> None:
    """A rejection is final at the house, or it would hold up its payee for ever. Its word signs nothing."""
    line = desk.promise()
    wrong = altered(line, **changes)
    first = desk.issue([line, wrong] if reason == "duplicate" else [wrong, desk.promise()])
    assert desk.pay(first).outcome == "paid"
    assert desk.disputed[first] == {wrong.id: reason}
    charged = int(wrong.charged)
    made = adjusted(wrong, first, state="rejected", reason=reason, charged=charged)
    second = desk.issue([made, desk.promise()], number=2)
    for _ in range(2):
        held = desk.pay(second)
        assert (held.outcome, held.reason, held.amount) == ("held", "decided_otherwise", 0)
    # A person accepts the decision: once, and no more than was disputed.
    assert desk.pay(second, accepts_decisions=True).amount == charged + PRICE
    assert second not in desk.disputed
    third = desk.issue([made, desk.promise()], number=3)
    assert [each.reason for each in desk.audit(third, accepts_decisions=True).disputes] == ["duplicate"]
    assert desk.pay(third, accepts_decisions=True).amount == PRICE


def test_C6_a_rejected_dispute_charges_what_was_disputed_and_no_more(desk: Desk) -> None:
    forged = altered(desk.promise(), id="sha256:" + "cd" * 32)
    first = desk.issue([forged, desk.promise()])
    desk.pay(first)
    made = adjusted(forged, first, state="rejected", reason="not_authorized", charged=PRICE + 1)
    second = desk.issue([made, desk.promise()], number=2)
    assert [each.reason for each in desk.audit(second).disputes] == ["wrong_amount"]
    assert desk.pay(second).amount == PRICE


def test_a_refund_lowers_what_is_paid(desk: Desk) -> None:
    line = desk.promise()
    first = desk.issue([line])
    desk.pay(first)
    made = adjusted(line, first, state="granted", reason="not_delivered", charged=-PRICE)
    second = desk.issue([made, desk.promise(), desk.promise()], number=2)
    assert desk.pay(second).amount == PRICE


def test_A1_an_audit_of_too_many_wrong_lines_is_refused_whole(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("farthing.buyer.audit_flow.AUDIT_DISPUTES_MAX", 2)
    line = desk.promise()
    forged = [altered(line, id="sha256:" + hashlib.sha256(bytes([n])).hexdigest()) for n in range(9)]
    assert desk.pay(desk.issue(forged)).reason == "too_many_disputes"
    assert desk.disputed == {}


def test_C6_the_records_are_the_same_in_both_engines(store_url: str) -> None:
    from paper import Desk  # noqa: PLC0415 - beside this file

    with Desk(store_url) as desk:
        lines = [desk.promise() for _ in range(3)] + [desk.promise(receipt=False)]
        first = desk.issue([*lines, altered(lines[0], id="sha256:" + "ef" * 32)])
        assert (desk.pay(first).outcome, desk.signed()[0][1]) == ("paid", 3 * PRICE)
        assert set(desk.disputed[first].values()) == {"not_authorized", "not_delivered"}
        made = adjusted(lines[3], first, state="rejected", reason="not_delivered", charged=PRICE)
        second = desk.issue([made, lines[0]], number=2)
        desk.plan = desk.planned(per_window=PRICE)
        assert desk.pay(second).amount == PRICE
        assert [each.reason for each in desk.audit(second).disputes] == ["duplicate"]
        third = desk.issue([desk.promise()], number=3)
        desk.now = desk.statements[second].issued + 1
        assert desk.pay(third).reason == "per_window"
        desk.say(second, state="settled", transaction="0xbb", payable="0")
        assert (desk.pay(second).outcome, desk.pay(second).transaction) == ("settled", "0xbb")
        states = [each.state for each in desk.journal.audited()]
        assert states == ["signed", "settled", "audited"]
