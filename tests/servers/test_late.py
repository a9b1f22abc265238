"""S3, S6: what becomes of payments of which nobody heard in time: found out by who asks, and by the caretaker."""

from __future__ import annotations

import time
from typing import Any

import farthing_selling as selling
import pytest
from farthing_selling import TRANSACTION, found, unpack

from farthing.errors import FacilitatorUnavailable
from farthing.flow import drive
from farthing.protocol.facilitator import Refused
from farthing.seller.caring import care
from farthing.seller.following import UNTOLD_SECONDS
from farthing.seller.settling import HORIZON_SECONDS

TARGET = "/weather/paris"
FLOWS = pytest.mark.parametrize("flow", ["authorization", "upfront"])


def priced(shop: Any, flow: str = "authorization", **options: Any) -> Any:
    shop.seller.price("GET /weather/{city}", "$0.01", payment_flow=flow, **options)
    return shop


@FLOWS
def test_S3_a_refused_payment_that_settled_after_all_is_served_once(shop: Any, flow: str) -> None:
    priced(shop, flow)
    shop.facilitator.outcomes = [Refused("insufficient_funds")]
    paid = shop.pay("GET", TARGET)
    assert shop.send("GET", TARGET, paid).status == 402
    assert shop.states == ["refused"]
    shop.facilitator.found = found(shop.facilitator.settled[0][1], "confirmed")
    got = shop.send("GET", TARGET, paid)
    assert (got.status, got.body) == (200, b"sunny")
    assert unpack(got.header("payment-response"))["transaction"] == TRANSACTION
    assert shop.send("GET", TARGET, paid).status == 409
    assert (shop.work.ran, len(shop.facilitator.settled), len(shop.seller.store.ledger())) == (1, 1, 1)


def test_S6_a_refused_payment_that_settled_after_all_and_has_no_response_is_owed(shop: Any) -> None:
    priced(shop, store_response=False)
    shop.facilitator.outcomes = [Refused("insufficient_funds")]
    paid = shop.pay("GET", TARGET)
    assert shop.send("GET", TARGET, paid).status == 402
    shop.facilitator.found = found(shop.facilitator.settled[0][1], "final")
    got = shop.send("GET", TARGET, paid)
    assert (got.status, got.json["transaction"], shop.states) == (409, TRANSACTION, ["refund_due"])
    assert len(shop.seller.store.ledger()) == 1


@pytest.mark.parametrize("reason", ["duplicate_settlement", "invalid_exact_evm_nonce_already_used"])
def test_S1_what_another_was_told_of_is_not_served_here(shop: Any, reason: str) -> None:
    priced(shop)
    shop.facilitator.extensions = ("idempotency-key",)
    shop.facilitator.outcomes = [Refused(reason, "", TRANSACTION)]
    paid = shop.pay("GET", TARGET)
    assert shop.send("GET", TARGET, paid).status == 402
    shop.facilitator.found = found(shop.facilitator.settled[0][1], "confirmed")
    assert shop.send("GET", TARGET, paid).status == 402
    assert (shop.states, shop.facilitator.finds) == (["refused"], 0)


def test_A1_a_refused_payment_is_looked_up_in_turns(shop: Any) -> None:
    priced(shop)
    shop.facilitator.outcomes = [Refused("insufficient_funds")]
    paid = shop.pay("GET", TARGET)
    for _ in range(10):
        assert shop.send("GET", TARGET, paid).status == 402
    assert shop.facilitator.finds <= 2


def test_S3_a_lookup_that_fails_is_no_verdict(shop: Any) -> None:
    priced(shop)
    shop.facilitator.outcomes = [Refused("insufficient_funds")]
    paid = shop.pay("GET", TARGET)
    shop.send("GET", TARGET, paid)
    shop.facilitator.found = FacilitatorUnavailable("away")
    got = shop.send("GET", TARGET, paid)
    assert (got.status, got.header("payment-required"), shop.states) == (402, "", ["refused"])


# The caretaker


class Crash(BaseException):
    """The process ends."""


def crash(shop: Any) -> list[tuple[str, str]]:
    """Have the process end while its facilitator settles."""

    def end() -> None:
        raise Crash

    paid: list[tuple[str, str]] = shop.pay("GET", TARGET)
    shop.facilitator.on_settle = end
    with pytest.raises(Crash):
        shop.send("GET", TARGET, paid)
    shop.facilitator.on_settle = lambda: None
    shop.expire_leases()
    return paid


def found_of(shop: Any, state: str) -> Any:
    return found(shop.facilitator.settled[0][1], state)


@FLOWS
def test_S6_what_a_crashed_process_settled_is_found_without_anybody_asking(shop: Any, flow: str) -> None:
    priced(shop, flow)
    paid = crash(shop)
    shop.seller.care()
    assert shop.states == ["unknown"]
    shop.facilitator.found = found_of(shop, "confirmed")
    shop.seller.care()
    assert shop.states == ["settled" if flow == "authorization" else "owed"]
    assert len(shop.seller.store.ledger()) == 1
    got = shop.send("GET", TARGET, paid)
    assert (got.status, got.body, shop.work.ran) == (200, b"sunny", 1)
    assert unpack(got.header("payment-response"))["transaction"] == TRANSACTION


def test_S6_what_a_crashed_process_settled_without_a_response_is_owed(shop: Any) -> None:
    priced(shop, store_response=False)
    crash(shop)
    shop.facilitator.found = found_of(shop, "confirmed")
    shop.seller.care()
    shop.seller.care()
    assert shop.states == ["refund_due"]


def test_S3_what_could_not_be_found_out_stays_unknown(shop: Any) -> None:
    priced(shop)
    crash(shop)
    for answer in (FacilitatorUnavailable("away"), None, found_of(shop, "in_batch")):
        shop.facilitator.found = answer
        shop.seller.care()
        shop.expire_leases()
    assert shop.states == ["unknown"]
    assert shop.seller.store.ledger() == ()


def test_A1_an_unknown_payment_is_looked_up_in_turns(shop: Any) -> None:
    priced(shop)
    crash(shop)
    for _ in range(5):
        shop.seller.care()
    assert shop.facilitator.finds == 1


def test_S3_a_refused_payment_is_looked_up_before_it_is_closed(shop: Any) -> None:
    priced(shop)
    shop.facilitator.outcomes = [Refused("insufficient_funds")]
    paid = [shop.pay("GET", TARGET) for _ in range(2)]
    assert [shop.send("GET", TARGET, each).status for each in paid] == [402, 402]
    end_window(shop, 1)
    shop.facilitator.found = FacilitatorUnavailable("away")
    shop.seller.care()
    assert shop.states == ["refused"] * 2
    shop.facilitator.found = found_of(shop, "final")
    shop.expire_leases()
    shop.seller.care()
    assert shop.states == ["settled"] * 2


def end_window(shop: Any, seconds: int) -> None:
    """Let window and horizon be over for so long."""
    over = int(time.time()) - HORIZON_SECONDS - seconds
    shop._write(f"UPDATE seller_claim SET valid_before = {over}")  # noqa: S608 - an int


def test_A1_refused_payments_of_which_nobody_tells_keep_no_other_waiting(shop: Any) -> None:
    """A facilitator without `/payments` tells of none, and anybody can have a payment refused for nothing."""
    priced(shop)
    shop.facilitator.outcomes = [Refused("insufficient_funds")]
    for _ in range(3):
        shop.buy("GET", TARGET)
    shop.facilitator.outcomes = []
    crash(shop)
    end_window(shop, 1)
    shop.expire_leases()
    shop.facilitator.found = FacilitatorUnavailable("has no /payments")
    for _ in range(2):
        drive(care(limit=3), shop.seller.performer.blocking)
    assert sorted(shop.states) == ["refused"] * 3 + ["unknown"]
    end_window(shop, UNTOLD_SECONDS + 10)
    shop.expire_leases()
    shop.seller.care()
    assert shop.states.count("closed") == 3


def test_S3_a_facilitator_that_breaks_when_it_is_asked_is_away(shop: Any) -> None:
    priced(shop)
    shop.facilitator.outcomes = [Refused("insufficient_funds")]
    shop.buy("GET", TARGET)
    shop.facilitator.outcomes = []
    paid = crash(shop)
    end_window(shop, 1)
    shop.facilitator.found = ValueError("a bug of its own")
    for _ in range(2):
        shop.expire_leases()
        shop.seller.care()
    assert sorted(shop.states) == ["refused", "unknown"]
    shop.expire_leases()
    assert shop.send("GET", TARGET, paid).status == 402


def test_a_refused_payment_whose_window_is_over_is_closed(shop: Any) -> None:
    priced(shop)
    shop.facilitator.outcomes = [Refused("insufficient_funds")]
    shop.buy("GET", TARGET)
    shop.expire_window()
    shop.seller.care()
    assert shop.states == ["closed"]


def rows_of(shop: Any) -> tuple[int, int]:
    """How many payments are under way, and how many in the archive."""
    fetch = shop.seller.store._database.fetch
    return fetch("SELECT count(*) FROM seller_claim")[0][0], fetch("SELECT count(*) FROM seller_archive")[0][0]


def test_A1_payments_that_are_over_are_archived_and_listed_still(shop: Any) -> None:
    priced(shop)
    paid = shop.pay("GET", TARGET)
    assert shop.send("GET", TARGET, paid).status == 200
    assert shop.states == ["delivered"]
    shop.seller.care()
    assert rows_of(shop) == (1, 0)
    shop.expire_window()
    assert shop.seller.care() == 1
    assert rows_of(shop) == (0, 1)
    (row,) = shop.seller.store.payments()
    assert (str(row.state), row.transaction, row.amount) == ("delivered", TRANSACTION, 10_000)
    assert len(shop.seller.store.ledger()) == 1


@pytest.mark.parametrize("state", ["settled", "unknown", "refund_due"])
def test_S6_what_is_owed_or_not_known_is_never_archived(shop: Any, state: str) -> None:
    priced(shop, store_response=state != "refund_due")
    crash(shop)
    shop.facilitator.found = found_of(shop, "in_batch" if state == "unknown" else "final")
    for _ in range(2):
        shop.seller.care()
    shop.expire_window()
    shop.expire_leases()
    shop.seller.care()
    assert shop.states == [state]
    assert rows_of(shop) == (1, 0)


def test_A1_files_that_a_crash_left_behind_are_swept(shop: Any) -> None:
    priced(shop)
    shop.work.chunks = [b"x" * 100_000]
    crash(shop)
    folder = shop.seller.store.spool_folder
    (folder / "pay_of_nobody-1").write_bytes(b"left behind")
    assert shop.seller.store.sweep_spool(older_than=0) == 0
    assert shop.seller.store.sweep_spool(older_than=2**40) == 1
    assert [path.name for path in folder.iterdir()] == [f"{shop.seller.store.payments()[0].payment_id}-1"]


def test_S1_a_claim_whose_process_crashed_is_free_for_its_own_payment(shop: Any) -> None:
    priced(shop)
    paid = shop.pay("GET", TARGET)
    signed = selling.read(paid[0][1])
    shop.seller.store.make_claim(selling.claim_of(signed, shop.seller, "GET", TARGET)).result()
    shop.seller.care()
    assert shop.states == ["claimed"]
    shop.expire_leases()
    shop.seller.care()
    assert shop.states == ["void"]
    assert shop.send("GET", TARGET, paid).status == 200
