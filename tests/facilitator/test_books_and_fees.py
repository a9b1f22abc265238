"""The pure parts: double entry, fees under their cap, and what evidence means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.facilitator.chain import Head
from farthing.facilitator.fees import FeeCaps, Fees
from farthing.facilitator.judge import Release, judge_other
from farthing.facilitator.states import PAYMENT, TRANSACTION
from farthing.facilitator.store import (
    AcquireLease,
    Confirmed,
    GivePlaceUp,
    Mined,
    OpenWallet,
    PaymentBody,
    PaymentRecord,
    PlanTransactions,
    RecordChain,
    RecordPayment,
    Refused,
    TakePlace,
    Tell,
)
from farthing.ledger.accounts import GAS, PAYEE, PAYER, WALLET, Account, LedgerError, read_account
from farthing.ledger.transfers import Transfer, balances, imbalance
from farthing.mechanisms.interface import Spent, SpentOtherwise, Unspent
from farthing.money import AMOUNT_MAX
from farthing.world.facilitator_store import FacilitatorStore
from farthing.world.performers import Performer

NETWORK = "eip155:8453"
WALLET_ADDRESS = "0xwallet"
owners = st.sampled_from(["0xa1", "0xB2", "0xc3"])
amounts = st.integers(1, AMOUNT_MAX)


@st.composite
def transfers(draw: st.DrawFn) -> Transfer:
    return Transfer(
        transfer_id=draw(st.uuids().map(str)),
        debit=Account(PAYER, NETWORK, "0xToken", draw(owners)),
        credit=Account(PAYEE, NETWORK, "0xToken", draw(owners)),
        amount=draw(amounts),
    )


@given(st.lists(transfers()))
def test_C1_debits_equal_credits_and_a_reversal_takes_all_back(booked: list[Transfer]) -> None:
    entries = [entry for transfer in booked for entry in transfer.entries()]
    assert imbalance(entries) == 0
    back = [entry for transfer in booked for entry in transfer.reversal(transfer.transfer_id + ":back").entries()]
    assert set(balances([*entries, *back]).values()) <= {0}


@given(st.sampled_from([PAYER, PAYEE, WALLET, GAS]), owners)
def test_an_accounts_name_is_read_back(kind: str, owner: str) -> None:
    account = Account(kind, NETWORK, "0xToken", owner)
    assert read_account(account.name).name == account.name


def test_what_does_not_balance_is_not_booked() -> None:
    payer, payee = Account(PAYER, NETWORK, "0xt", "0xa"), Account(PAYEE, NETWORK, "0xt", "0xb")
    mistakes: tuple[dict[str, Any], ...] = (
        {"amount": 0},
        {"amount": AMOUNT_MAX + 1},
        {"credit": Account(PAYEE, "eip155:1", "0xt", "0xb")},
        {"credit": Account(PAYEE, NETWORK, "0xother", "0xb")},
        {"credit": payer},
    )
    for changes in mistakes:
        with pytest.raises(LedgerError):
            Transfer(**{"transfer_id": "t", "debit": payer, "credit": payee, "amount": 1, **changes})
    with pytest.raises(LedgerError):
        read_account("payer/only")
    with pytest.raises(LedgerError):
        Account("stranger", NETWORK, "0xt", "0xa")


@given(st.integers(1, 10**12), st.integers(0, 10**10), st.lists(st.integers(0, 10**12), min_size=1, max_size=40))
def test_F6_fees_stay_under_the_cap_and_replacements_are_taken(cap: int, tip: int, base_fees: list[int]) -> None:
    caps = FeeCaps(cap, min(tip, cap))
    fees: Fees | None = None
    for base_fee in base_fees:
        following = caps.first(base_fee) if fees is None else caps.bump(fees, base_fee)
        if following is None:
            continue
        assert 0 <= following.max_priority_fee_per_gas <= following.max_fee_per_gas <= cap
        if fees is None:
            assert following.max_fee_per_gas >= base_fee
        else:
            # Nodes take a replacement from ten per cent on, of both fees.
            assert following.max_fee_per_gas * 10 >= fees.max_fee_per_gas * 11
            assert following.max_priority_fee_per_gas * 10 >= fees.max_priority_fee_per_gas * 11
        fees = following


def record(**changes: Any) -> PaymentRecord:
    fields: dict[str, Any] = {
        "payment_id": "pay_1",
        "state": "received",
        "scheme": "exact",
        "network": NETWORK,
        "asset": "0xToken",
        "payer": "0xPayer",
        "pay_to": "0xPayee",
        "amount": 5,
        "valid_before": 1_000,
        "fingerprint": "f",
        "requirements_print": "r",
        "created_at": 10,
        "recorded_block": 100,
        "gas_limit": 90_000,
        **changes,
    }
    return PaymentRecord(**fields)


@pytest.mark.parametrize(
    ("evidence", "head_time", "final_time", "verdict"),
    [
        (Spent("0xt", 101, "0xb", 3), 500, None, Confirmed("pay_1", "0xt", 101, "0xb", 3)),
        (Spent("0xt", 104, "0xb", 3), 500, None, None),
        (Spent("0xt", 100, "0xb", 3), 500, None, Refused),
        (SpentOtherwise("used", "0xt"), 500, None, Refused),
        (SpentOtherwise("used", "0xt", 103), 500, None, Refused),
        # Not deep enough: its block may be lost, and a transaction of ours settle what would be refused.
        (SpentOtherwise("used", "0xt", 104), 500, None, None),
        (Unspent(), 500, None, Release("pay_1")),
        (Unspent(), 999, None, None),
        (Unspent(), 1_100, 999, None),
        (Unspent(), 1_100, 1_000, Refused),
    ],
)
def test_F4_what_evidence_means(evidence: Any, head_time: int, final_time: int | None, verdict: Any) -> None:
    found = judge_other(
        record(),
        evidence,
        head=Head(105, "0xh", head_time, 1),
        final=None if final_time is None else Head(90, "0xf", final_time, 1),
        depth=3,
        window_left_min_seconds=4,
    )
    if verdict is Refused:
        assert isinstance(found, Refused)
        assert found.transaction in {"0xt", ""}
    else:
        assert found == verdict


def test_a_move_is_made_once_whoever_makes_it(tmp_path: Path) -> None:
    store = FacilitatorStore(tmp_path / "facilitator.sqlite3")
    perform = Performer(store.handlers()).blocking
    place = (NETWORK, WALLET_ADDRESS)
    try:
        perform(RecordPayment(record(), PaymentBody(b"{}", b"{}")))
        known = perform(RecordPayment(record(fingerprint="other"), PaymentBody(b"{}", b"{}")))
        assert isinstance(known, PaymentRecord)
        assert known.fingerprint == "f"
        lease = perform(AcquireLease(*place, "me", now_seconds=0, until_seconds=10))
        perform(OpenWallet(*place, lease.epoch, 41))
        (built,) = perform(PlanTransactions(*place, lease.epoch, 1, (("pay_1", "pay_2"), ("pay_1",)))) or ()
        assert (built.nonce, built.members) == (41, ("pay_1",))
        assert perform(PlanTransactions(*place, lease.epoch, 1, (("pay_1",),))) == ()
        mined = Mined(41, "0xt", 101, "0xb", gas_used=2, gas_price=3)
        confirmed = Confirmed("pay_1", "0xt", 101, "0xb", 0)
        look = RecordChain(network=NETWORK, wallet=WALLET_ADDRESS, now_seconds=2, confirmed=(confirmed,))
        assert perform(look).confirmed == {"pay_1"}
        assert perform(look).confirmed == frozenset()
        # A transaction that was never signed can't be mined.
        perform(RecordChain(network=NETWORK, wallet=WALLET_ADDRESS, now_seconds=2, finished=(mined,)))
        lost = RecordChain(network=NETWORK, wallet=WALLET_ADDRESS, now_seconds=3, lost=("pay_1",))
        assert perform(lost).lost == {"pay_1"}
        assert perform(lost).lost == frozenset()
        assert perform(look).confirmed == {"pay_1"}
        assert store.books.settled() == {"pay_1": 5}
        assert len(store.books.entries()) == 6
        refused = Refused("pay_1", "no", "")
        change_of_mind = RecordChain(network=NETWORK, wallet=WALLET_ADDRESS, now_seconds=4, refused=(refused,))
        assert perform(change_of_mind).refused == frozenset()
    finally:
        store.close()


def test_F1_a_place_is_free_where_it_was_given_up_or_its_holder_died_untold(tmp_path: Path) -> None:
    store = FacilitatorStore(tmp_path / "facilitator.sqlite3")
    perform = Performer(store.handlers()).blocking
    later = 10**6

    def take(payment_id: str, claimant: str, *, caller: str = "shop", now_seconds: int = later) -> bool:
        effect = TakePlace(payment_id, caller, "", claimant, now_seconds=now_seconds, claim_until=later + 60)
        return perform(effect) is not None

    def put(payment_id: str, **changes: Any) -> None:
        fields = {"caller": "shop", "claimant": "first", "claim_until": 60, **changes}
        perform(RecordPayment(record(payment_id=payment_id, **fields), PaymentBody(b"{}", b"{}")))

    def confirm(payment_id: str, *, live: frozenset[str]) -> None:
        lease = perform(AcquireLease(NETWORK, WALLET_ADDRESS, "me", now_seconds=0, until_seconds=10))
        perform(OpenWallet(NETWORK, WALLET_ADDRESS, lease.epoch, 0))
        assert perform(PlanTransactions(NETWORK, WALLET_ADDRESS, lease.epoch, 1, ((payment_id,),)))
        confirmed = (Confirmed(payment_id, "0xt", 101, "0xb", 0),)
        perform(RecordChain(network=NETWORK, wallet=WALLET_ADDRESS, now_seconds=2, live=live, confirmed=confirmed))

    try:
        put("pay_told")
        confirm("pay_told", live=frozenset({"first"}))
        assert not take("pay_told", "second")
        assert not perform(GivePlaceUp("pay_told", "first"))

        put("pay_died")
        confirm("pay_died", live=frozenset())
        assert not take("pay_died", "second", now_seconds=60)
        assert not take("pay_died", "second", caller="other")
        assert take("pay_died", "second")
        assert not take("pay_died", "third", now_seconds=later + 61)
        assert not perform(Tell("pay_died", "first"))

        put("pay_given_up")
        assert not perform(GivePlaceUp("pay_given_up", "another"))
        assert perform(GivePlaceUp("pay_given_up", "first"))
        assert take("pay_given_up", "second", now_seconds=0)
        assert not take("pay_given_up", "third", now_seconds=0)

        # Recorded under a key it is told to that key alone, for ever.
        put("pay_keyed", idempotency_key="k")
        assert not take("pay_keyed", "second")
    finally:
        store.close()


def test_the_tables_of_states_have_one_beginning_and_lead_somewhere() -> None:
    for machine in (PAYMENT, TRANSACTION):
        reached = {machine.start}
        for _ in machine.states:
            reached |= {move.target for move in machine.moves if reached & set(move.sources)}
        assert reached == {state.name for state in machine.states}
    assert PAYMENT.ends == {"final", "refused"}
    # A lost block takes a DONE transaction back to work, so that nothing ends for good there.
    assert TRANSACTION.ends == frozenset()
