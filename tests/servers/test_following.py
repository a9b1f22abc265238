"""F3, S2: a payment that was served is followed until its block is final, and booked as a loss where it never is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import farthing_selling as selling
import pytest
from refund_bank import AMOUNT, KEY, PAY_TO, Bank, balance

from farthing.flow import drive
from farthing.protocol.facilitator import FindPayments
from farthing.seller import following
from farthing.seller.caring import care
from farthing.seller.following import UNTOLD_SECONDS
from farthing.seller.settling import HORIZON_SECONDS
from farthing.servers import verifying

TARGET = "/weather/paris"
OTHER_TRANSACTION = "0x" + "ee" * 32


class Crash(BaseException):
    """The process ends."""


@pytest.fixture
def bank() -> Bank:
    made = Bank()
    made.extensions = ("idempotency-key",)
    return made


@pytest.fixture(params=["authorization", "upfront"])
def flow(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make(tmp_path: Path, bank: Bank, store_url: str) -> Iterator[Callable[..., Any]]:
    made: list[Any] = []

    def make_one(flow: str = "authorization", **options: Any) -> Any:
        seller = selling.make_seller(tmp_path, bank, store=store_url, spool_folder=tmp_path)
        seller.price("GET /weather/{city}", "$0.01", payment_flow=flow, **options)
        shop = selling.Shop("asgi", seller, bank)
        made.append(seller)
        return shop

    yield make_one
    for each in made:
        each.close()


def deliver(shop: Any) -> Any:
    """Have a payment served, and its window and horizon be over."""
    paid = shop.pay("GET", TARGET)
    assert shop.send("GET", TARGET, paid).status == 200
    assert "delivered" in shop.states
    pass_time(shop)
    return paid


def pass_time(shop: Any, seconds: int = 1) -> None:
    """Let windows and horizons be over for so long, and all turns too."""
    over = int(time.time()) - HORIZON_SECONDS - seconds
    shop._write(f"UPDATE seller_claim SET valid_before = {over}")  # noqa: S608 - an int
    shop.expire_leases()


def once_more(shop: Any, rounds: int = 1) -> None:
    for _ in range(rounds):
        shop.expire_leases()
        shop.seller.care()


def archived(shop: Any) -> int:
    return int(shop.seller.store._database.fetch("SELECT count(*) FROM seller_archive")[0][0])


def id_of(shop: Any) -> str:
    (row,) = shop.seller.store.payments()
    return str(row.payment_id)


def served(shop: Any) -> dict[str, int]:
    """What the books say that the payee has, without accounts that are even."""
    return {account: gained for account, gained in balance(shop).items() if gained}


def test_F3_what_is_final_is_asked_about_once_and_archived(make: Any, bank: Bank, flow: str) -> None:
    shop = make(flow)
    deliver(shop)
    bank.say(id_of(shop), "final")
    epoch = shop.seller.store._database.fetch("SELECT epoch, mover FROM seller_state")
    found = drive(following.follow(), shop.seller.performer.blocking)
    assert (len(found.over), found.moved) == (1, 0)
    assert shop.seller.store._database.fetch("SELECT epoch, mover FROM seller_state") == epoch
    once_more(shop, 2)
    assert (archived(shop), len(bank.asked), bank.finds) == (1, 2, 0)
    assert shop.states == ["delivered"]


def test_F3_nothing_is_archived_before_it_is_final(make: Any, bank: Bank, flow: str) -> None:
    shop = make(flow)
    deliver(shop)
    for _ in range(3):
        shop.seller.care()
    assert (archived(shop), len(bank.asked)) == (0, 1)
    once_more(shop)
    assert (archived(shop), len(bank.asked), shop.states) == (0, 2, ["delivered"])
    bank.say(id_of(shop), "final")
    once_more(shop)
    assert archived(shop) == 1


def test_F3_what_was_delivered_and_lost_is_served_to_nobody_and_comes_back_delivered(
    make: Any, bank: Bank, flow: str
) -> None:
    shop = make(flow)
    paid = deliver(shop)
    bank.say(id_of(shop), "in_batch")
    once_more(shop, 2)
    assert shop.states == ["unknown_delivered"]
    got = shop.send("GET", TARGET, paid)
    assert (got.status, got.json["type"], got.header("payment-required")) == (
        409,
        "urn:farthing:problem:payment-used",
        "",
    )
    bank.say(id_of(shop), "confirmed")
    once_more(shop)
    assert shop.states == ["delivered"]
    assert shop.send("GET", TARGET, paid).status == 409
    assert (shop.work.ran, len(bank.transfers), len(shop.seller.store.ledger())) == (1, 1, 1)
    bank.say(id_of(shop), "final")
    once_more(shop)
    assert archived(shop) == 1


def test_S2_what_is_refused_in_the_end_is_a_loss_in_the_books(make: Any, bank: Bank, flow: str) -> None:
    shop = make(flow)
    deliver(shop)
    payment_id = id_of(shop)
    assert served(shop) == {PAY_TO: AMOUNT, KEY.address: -AMOUNT}
    bank.say(payment_id, "in_batch")
    once_more(shop)
    bank.say(payment_id, "refused", reason="invalid_transaction_state")
    shop.expire_leases()
    cared = drive(care(), shop.seller.performer.blocking)
    assert cared.losses == (payment_id,)
    assert served(shop) == {}
    _, taken_back = shop.seller.store.ledger()
    assert (taken_back.payer, taken_back.pay_to, taken_back.amount) == (PAY_TO, KEY.address, AMOUNT)
    assert taken_back.transaction == f"loss:0x{1:064x}"
    (row,) = shop.seller.store.payments()
    assert (str(row.state), row.reason) == ("loss", "invalid_transaction_state")
    once_more(shop, 2)
    assert (archived(shop), shop.states, len(shop.seller.store.ledger())) == (0, ["loss"], 2)


def test_S2_who_asks_for_a_lost_payment_is_told_of_it(make: Any, bank: Bank) -> None:
    shop = make()
    paid = deliver(shop)
    payment_id = id_of(shop)
    bank.say(payment_id, "refused")
    once_more(shop)
    got = shop.send("GET", TARGET, paid)
    assert (got.status, got.json["type"]) == (409, "urn:farthing:problem:payment-lost")
    assert (got.json["paymentId"], got.json["transaction"]) == (payment_id, f"0x{1:064x}")
    assert (got.header("payment-required"), shop.work.ran) == ("", 1)


def test_S2_a_refusal_without_a_lost_block_before_is_a_loss_too(make: Any, bank: Bank, flow: str) -> None:
    shop = make(flow)
    deliver(shop)
    bank.say(id_of(shop), "refused")
    once_more(shop)
    assert (shop.states, served(shop)) == (["loss"], {})


def test_C1_settled_again_by_another_transaction_the_books_name_that(make: Any, bank: Bank, flow: str) -> None:
    shop = make(flow)
    deliver(shop)
    bank.say(id_of(shop), "confirmed", transaction=OTHER_TRANSACTION)
    once_more(shop, 4)
    assert (shop.states, len(shop.seller.store.ledger())) == (["unknown_delivered"], 1)
    bank.say(id_of(shop), "final")
    once_more(shop, 3)
    (row,) = shop.seller.store.payments()
    assert (str(row.state), row.transaction) == ("delivered", OTHER_TRANSACTION)
    names = [entry.transaction for entry in shop.seller.store.ledger()]
    assert sorted(names) == sorted([f"0x{1:064x}", f"lost:0x{1:064x}", OTHER_TRANSACTION])
    assert served(shop) == {PAY_TO: AMOUNT, KEY.address: -AMOUNT}


def test_C1_two_forks_that_take_turns_leave_the_books_with_the_one_that_holds(make: Any, bank: Bank, flow: str) -> None:
    shop = make(flow)
    deliver(shop)
    first = f"0x{1:064x}"
    for transaction in (OTHER_TRANSACTION, first, OTHER_TRANSACTION, first):
        bank.say(id_of(shop), "confirmed", transaction=transaction)
        once_more(shop, 3)
    assert (shop.states, served(shop)) == (["delivered"], {PAY_TO: AMOUNT, KEY.address: -AMOUNT})
    bank.say(id_of(shop), "refused")
    once_more(shop)
    assert (shop.states, served(shop)) == (["loss"], {})


def test_C1_a_facilitator_that_calls_one_and_then_the_other_final_takes_nothing_out_of_the_books(
    make: Any, bank: Bank
) -> None:
    """It lies: the books stay in doubt, and take back no more than they have."""
    shop = make()
    deliver(shop)
    first = f"0x{1:064x}"
    for transaction, state in ((OTHER_TRANSACTION, "delivered"), (first, "unknown_delivered")):
        bank.say(id_of(shop), "final", transaction=transaction)
        once_more(shop, 3)
        assert (shop.states, archived(shop)) == ([state], 0)
    bank.say(id_of(shop), "refused")
    once_more(shop)
    assert (shop.states, served(shop)) == (["loss"], {})


def test_F3_one_that_never_says_final_is_taken_at_its_word_after_a_day(make: Any, bank: Bank) -> None:
    shop = make()
    deliver(shop)
    bank.say(id_of(shop), "settled", transaction=OTHER_TRANSACTION)
    once_more(shop, 3)
    assert shop.states == ["unknown_delivered"]
    pass_time(shop, UNTOLD_SECONDS + 10)
    once_more(shop, 3)
    (row,) = shop.seller.store.payments()
    assert (str(row.state), row.transaction) == ("delivered", OTHER_TRANSACTION)
    assert served(shop) == {PAY_TO: AMOUNT, KEY.address: -AMOUNT}


def waiting(shop: Any) -> Any:
    """Have a payment be SETTLED, with nobody there to take its answer."""
    paid = shop.pay("GET", TARGET)
    assert shop.send("GET", TARGET, paid).status == 200
    shop.seller.store.flush()
    shop._write("UPDATE seller_state SET state = 'settled'")
    keep = (
        "INSERT INTO seller_response (claim, status, headers, body, spool) SELECT claim, 200, '[]', ?, '' "
        "FROM seller_claim"
    )
    shop.seller.store._database.submit(lambda connection: connection.execute(keep, (b"kept",))).result()
    pass_time(shop)
    return paid


def test_S3_what_waits_for_its_buyer_is_not_delivered_while_its_block_is_lost(make: Any, bank: Bank) -> None:
    shop = make()
    paid = waiting(shop)
    bank.say(id_of(shop), "ready")
    once_more(shop)
    assert shop.states == ["unknown_settled"]
    got = shop.send("GET", TARGET, paid)
    assert (got.status, got.header("payment-required")) == (402, "")
    assert selling.unpack(got.header("payment-response"))["errorReason"] == "settlement_pending"
    bank.say(id_of(shop), "confirmed")
    once_more(shop)
    assert shop.states == ["settled"]
    got = shop.send("GET", TARGET, paid)
    assert (got.status, got.body) == (200, b"kept")
    assert selling.unpack(got.header("payment-response"))["transaction"] == f"0x{1:064x}"
    assert shop.send("GET", TARGET, paid).status == 409


def test_S2_what_waits_for_its_buyer_and_is_refused_in_the_end_is_not_delivered(make: Any, bank: Bank) -> None:
    shop = make()
    paid = waiting(shop)
    bank.say(id_of(shop), "refused")
    once_more(shop)
    assert (shop.states, served(shop)) == (["loss"], {})
    got = shop.send("GET", TARGET, paid)
    assert (got.status, got.json["type"], shop.work.ran) == (409, "urn:farthing:problem:payment-lost", 1)


def test_F3_what_waits_for_its_buyer_and_is_final_waits_on_and_is_asked_about_once(make: Any, bank: Bank) -> None:
    shop = make()
    paid = waiting(shop)
    bank.say(id_of(shop), "final")
    once_more(shop, 3)
    assert (shop.states, len(bank.asked), archived(shop)) == (["settled"], 1, 0)
    assert shop.send("GET", TARGET, paid).body == b"kept"


def test_S7_with_its_id_a_lost_payments_answer_is_not_given_again(make: Any, bank: Bank) -> None:
    shop = make()
    offer = shop.send("GET", TARGET)
    payment = selling.unpack(selling.sign(offer.header("payment-required")))
    required = selling.unpack(offer.header("payment-required"))
    payment["extensions"] = {"payment-identifier": {**required["extensions"]["payment-identifier"]}}
    payment["extensions"]["payment-identifier"]["info"]["id"] = "pay_" + "7" * 32
    paid = [("PAYMENT-SIGNATURE", selling.pack(payment))]
    assert shop.send("GET", TARGET, paid).status == 200
    assert shop.send("GET", TARGET, paid).status == 200
    pass_time(shop)
    bank.say(id_of(shop), "in_batch")
    once_more(shop)
    assert (shop.send("GET", TARGET, paid).status, shop.states) == (409, ["unknown_delivered"])
    bank.say(id_of(shop), "confirmed")
    once_more(shop)
    assert (shop.send("GET", TARGET, paid).body, shop.work.ran) == (b"sunny", 1)


@pytest.mark.parametrize("change", [{"amount": "9999"}, {"pay_to": KEY.address}, {"network": "eip155:1"}])
def test_F3_a_word_about_another_payment_moves_nothing(make: Any, bank: Bank, change: dict[str, str]) -> None:
    shop = make()
    deliver(shop)
    bank.say(id_of(shop), "refused", **change)
    once_more(shop)
    assert (shop.states, archived(shop)) == (["delivered"], 0)


def test_F3_while_the_facilitator_is_away_nothing_is_judged_and_nothing_written(make: Any, bank: Bank) -> None:
    shop = make()
    deliver(shop)
    bank.is_away = True
    stood = shop.seller.store._database.fetch("SELECT state, epoch, mover FROM seller_state")
    for _ in range(3):
        shop.seller.care()
    assert shop.seller.store._database.fetch("SELECT state, epoch, mover FROM seller_state") == stood
    assert archived(shop) == 0
    pass_time(shop, UNTOLD_SECONDS + 10)
    shop.seller.care()
    assert archived(shop) == 1


def test_F3_a_facilitator_that_never_tells_leaves_payments_as_they_are(make: Any, bank: Bank) -> None:
    shop = make()
    bank.extensions = ()
    deliver(shop)
    bank.is_away = True
    shop.seller.care()
    assert (archived(shop), shop.states) == (1, ["delivered"])


def test_F3_what_it_does_not_know_is_asked_about_for_a_day(make: Any, bank: Bank) -> None:
    shop = make()
    deliver(shop)
    del bank.statuses[id_of(shop)]
    once_more(shop, 2)
    assert (archived(shop), len(bank.asked)) == (0, 2)
    pass_time(shop, UNTOLD_SECONDS + 10)
    shop.seller.care()
    assert archived(shop) == 1


def test_A1_many_are_asked_about_at_once(make: Any, bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = make()
    monkeypatch.setattr(following, "PAYMENTS_MAX", 2)
    for _ in range(5):
        deliver(shop)
    for payment_id in tuple(bank.statuses):
        bank.say(payment_id, "final")
    shop.seller.care()
    assert ([len(each) for each in bank.asked], archived(shop)) == ([2, 2, 1], 5)


def test_A1_what_waits_for_its_buyer_and_is_not_final_keeps_no_other_waiting(
    make: Any, bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such payments are looked at and not moved; whoever pays and takes no answer makes as many as it likes."""
    shop = make()
    for _ in range(4):
        shop.buy("GET", TARGET)
    shop.seller.store.flush()
    shop._write("UPDATE seller_state SET state = 'settled'")
    deliver(shop)
    bank.say([*bank.statuses][-1], "final")
    monkeypatch.setattr(following.follow, "__kwdefaults__", {"after": 0, "limit": 2})
    once_more(shop, 4)
    assert archived(shop) == 1


class OneByOne(selling.CannedFacilitator):  # type: ignore[misc] # typed as any here
    """Takes one question at a time."""

    async def find(self, payment_id: str) -> Any:
        self.finds += 1
        return selling.found(self.settled[0][1], "final")


def test_A1_one_that_takes_one_question_at_a_time_is_asked_about_all_in_turn(
    make: Any, bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = make()
    monkeypatch.setattr(verifying, "SINGLES_MAX", 2)
    monkeypatch.setattr(Bank, "find_many", None)
    monkeypatch.setattr(verifying, "FindsMany", type("Nobody", (), {}))
    for _ in range(4):
        shop.buy("GET", TARGET)
    shop.seller.store.flush()
    shop._write("UPDATE seller_state SET state = 'settled'")
    deliver(shop)
    bank.say([*bank.statuses][-1], "final")
    once_more(shop, 4)
    assert (archived(shop), bank.finds) == (1, 7)


def test_A1_one_that_takes_one_question_at_a_time_is_asked_a_few(tmp_path: Path) -> None:
    seller = selling.make_seller(tmp_path, facilitator := OneByOne())
    asked = tuple(f"pay_{number}" for number in range(300))
    facilitator.settled = [("", seller.price("GET /x", "$1").ways[0].fixed)]
    told = seller.performer.blocking(FindPayments(asked))
    assert (facilitator.finds, tuple(told)) == (50, asked[:50])
    seller.close()


@pytest.mark.parametrize("ends", ["refused", "final"])
def test_C1_cut_after_any_step_the_books_agree_with_what_became_of_it(make: Any, bank: Bank, ends: str) -> None:
    """The transaction is another one each time, so that as much as can be is written."""
    shop = make()
    for number in range(1, 60):
        before = {row.payment_id for row in shop.seller.store.payments()}
        paid = shop.pay("GET", TARGET)
        assert shop.send("GET", TARGET, paid).status == 200
        pass_time(shop)
        (payment_id,) = {row.payment_id for row in shop.seller.store.payments()} - before
        bank.say(payment_id, ends, transaction="0x" + f"{number:064x}"[::-1])
        crashed = crash_at(shop, number)
        once_more(shop, 4)
        once_more(shop)
        assert set(shop.states) == {"delivered" if ends == "final" else "loss"}, number
        assert archived(shop) == (number if ends == "final" else 0)
        assert balance(shop)[PAY_TO] == (number * AMOUNT if ends == "final" else 0), number
        assert sum(balance(shop).values()) == 0
        if not crashed:
            break
    else:
        pytest.fail("the round has no end")
    assert number > 5


def crash_at(shop: Any, number: int) -> bool:
    count = 0

    def perform(effect: Any) -> Any:
        nonlocal count
        answer = shop.seller.performer.blocking(effect)
        count += 1
        if count == number:
            raise Crash
        return answer

    try:
        for _ in range(4):
            shop.expire_leases()
            drive(care(), perform)
    except Crash:
        return True
    return False


def test_C1_two_replicas_at_once_book_a_loss_once(make: Any, bank: Bank) -> None:
    first, second = make(), make()
    for _ in range(6):
        deliver(first)
    for payment_id in tuple(bank.statuses):
        bank.say(payment_id, "refused")
    start = threading.Barrier(2)

    def run(shop: Any) -> None:
        start.wait()
        shop.seller.care()

    threads = [threading.Thread(target=run, args=(each,)) for each in (first, second)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert first.states == ["loss"] * 6
    assert (len(first.seller.store.ledger()), served(first)) == (12, {})
