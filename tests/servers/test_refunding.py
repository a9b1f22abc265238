"""S2, S6: a refund is paid by its route's signer, to the payer, once, whatever is cut, lost, late or asked twice."""

from __future__ import annotations

import asyncio
import collections
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import farthing_selling as selling
import pytest
from refund_bank import (
    AMOUNT,
    KEY,
    NETWORK,
    OTHER,
    PAY_TO,
    REFUNDER,
    TARGET,
    Bank,
    KeyInAVault,
    balance,
    let_the_window_end,
    make_shop,
    owe,
    pay_back,
    signed_and_refused,
    turn,
)

from farthing.errors import ConfigError, FacilitatorUnavailable, SignerError
from farthing.flow import drive
from farthing.mechanisms.interface import Traced
from farthing.protocol.codec import encode_json
from farthing.protocol.facilitator import Settled, Unknown
from farthing.seller.looking import LookOnChain
from farthing.seller.refunding import NOTE_MAX_CHARS, refund_nonce, refund_round
from farthing.seller.refunds import FindRefundsDue, PostponeRefund, TakeRefundTurn
from farthing.seller.states import State
from farthing.servers.caretaking import Caretaker
from farthing.world.keys import LocalSigner

UPFRONT: dict[str, Any] = {"payment_flow": "upfront"}


class Crash(BaseException):
    """The process ends."""


@pytest.fixture
def bank() -> Bank:
    made = Bank()
    made.extensions = ("idempotency-key",)
    return made


@pytest.fixture
def vault() -> KeyInAVault:
    return KeyInAVault()


@pytest.fixture
def shop(tmp_path: Path, bank: Bank, vault: KeyInAVault, store_url: str) -> Iterator[Any]:
    made = make_shop(tmp_path, bank, refund_signer=vault, store=store_url, spool_folder=tmp_path)
    made.seller.price("POST /weather/{city}", "$0.01", **UPFRONT)
    yield made
    made.seller.close()


@pytest.fixture
def on_file(tmp_path: Path, bank: Bank, vault: KeyInAVault) -> Iterator[Any]:
    made = make_shop(tmp_path, bank, refund_signer=vault)
    made.seller.price("POST /weather/{city}", "$0.01", **UPFRONT)
    yield made
    made.seller.close()


def shown(shop: Any, traced: Traced | None) -> None:
    """Have the seller's nodes show this."""

    async def look(_: LookOnChain) -> Traced | None:
        return traced

    caretaker = shop.seller._caretaker
    caretaker._performer = caretaker._performer.with_({LookOnChain: look})


def test_S2_a_refund_is_paid_once_to_the_payer_and_booked(shop: Any, bank: Bank) -> None:
    due = owe(shop)
    (settlement,) = bank.transfers
    for _ in range(3):
        pay_back(shop)
        turn(shop)
    (refund,) = bank.refunds
    assert (refund.payer, refund.pay_to, refund.amount) == (REFUNDER.address, KEY.address, AMOUNT)
    assert (refund.asset, refund.network) == (settlement.asset, settlement.network)
    assert refund.detail.message.nonce == refund_nonce(due, 0)
    assert shop.states == ["refunded"]
    assert balance(shop) == {KEY.address: 0, PAY_TO: AMOUNT, REFUNDER.address: -AMOUNT}
    assert sum(balance(shop).values()) == 0


def test_S2_who_asks_again_is_told_of_the_refund(shop: Any, bank: Bank) -> None:
    paid = shop.pay("POST", TARGET)
    shop.send("POST", TARGET, paid)
    (row,) = shop.seller.store.payments()
    got = shop.send("POST", TARGET, paid)
    assert (got.status, got.json["transaction"]) == (409, f"0x{1:064x}")
    assert got.json["type"].endswith(":refund-due")
    bank.say(row.payment_id, "final")
    pay_back(shop)
    got = shop.send("POST", TARGET, paid)
    assert (got.status, got.json["transaction"]) == (409, f"0x{2:064x}")
    assert got.json["type"].endswith(":payment-refunded")
    assert (shop.work.ran, len(bank.refunds)) == (1, 1)


def test_S2_nothing_is_paid_back_before_the_payment_itself_is_final(on_file: Any, bank: Bank) -> None:
    due = owe(on_file, final=False)
    for state in ("confirmed", "in_batch"):
        bank.say(due, state)
        on_file.seller.care()
        turn(on_file)
    bank.say(due, "refused", amount="9999")
    on_file.seller.care()
    turn(on_file)
    assert (bank.refunds, on_file.states) == ([], ["refund_due"])
    bank.say(due, "final", amount=str(AMOUNT))
    pay_back(on_file)
    assert on_file.states == ["refunded"]


def test_C1_what_was_refused_in_the_end_is_not_owed_any_more(shop: Any, bank: Bank) -> None:
    """Neither served nor paid: its block was lost before anything was paid back."""
    paid = shop.pay("POST", TARGET)
    shop.send("POST", TARGET, paid)
    (row,) = shop.seller.store.payments()
    bank.say(row.payment_id, "refused", reason="invalid_transaction_state")
    pay_back(shop)
    assert (bank.refunds, shop.states) == ([], ["closed"])
    _, taken_back = shop.seller.store.ledger()
    assert taken_back.transaction == f"loss:0x{1:064x}"
    assert set(balance(shop).values()) == {0}


def test_S2_a_refund_is_booked_when_it_is_final(shop: Any, bank: Bank) -> None:
    """A block that is lost under a refund takes nothing back that is in the books."""
    owe(shop)
    shop.seller.care()
    (refund,) = bank.refunds
    for state in ("confirmed", "in_batch", "confirmed"):
        bank.say(refund.payment_id, state)
        turn(shop)
        shop.seller.care()
        assert (len(shop.seller.store.ledger()), shop.states, len(bank.brought)) == (1, ["refund_due"], 2)
    bank.finalise()
    turn(shop)
    shop.seller.care()
    assert (len(shop.seller.store.ledger()), shop.states) == (2, ["refunded"])


def test_S2_where_nobody_tells_what_is_final_a_success_is_booked(on_file: Any, bank: Bank) -> None:
    bank.extensions = ()
    owe(on_file)
    on_file.seller.care()
    assert (len(bank.refunds), on_file.states) == (1, ["refunded"])


def test_S2_without_a_word_of_what_is_final_time_decides(on_file: Any, bank: Bank) -> None:
    due = owe(on_file)
    del bank.statuses[due]
    on_file.seller.care()
    assert bank.refunds == []
    on_file._write("DROP TRIGGER seller_ledger_no_update")
    on_file._write("UPDATE seller_ledger SET posted_at = posted_at - 1000")
    turn(on_file)
    pay_back(on_file)
    assert (len(bank.refunds), on_file.states) == (1, ["refunded"])


def test_S6_a_refund_whose_answer_was_lost_is_looked_up_and_not_paid_again(shop: Any, bank: Bank) -> None:
    owe(shop)
    bank.loses_answers = True
    shop.seller.care()
    assert (len(bank.refunds), shop.states) == (1, ["refund_due"])
    turn(shop)
    pay_back(shop)
    assert (len(bank.refunds), shop.states, len(bank.brought)) == (1, ["refunded"], 2)


def test_S6_every_try_sends_the_bytes_that_are_on_record(shop: Any, bank: Bank, vault: KeyInAVault) -> None:
    owe(shop)
    bank.funds[REFUNDER.address] = 0
    for _ in range(3):
        shop.seller.care()
        turn(shop)
    _, *refunds = bank.brought
    assert (len(refunds), len(set(refunds)), vault.asked, len(set(bank.keys[1:]))) == (3, 1, 1, 1)


def test_S2_a_signer_without_funds_is_named_and_tried_again_at_a_pace(
    shop: Any, bank: Bank, caplog: pytest.LogCaptureFixture
) -> None:
    due = owe(shop)
    bank.funds[REFUNDER.address] = AMOUNT - 1
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            shop.seller.care()
    assert (bank.refunds, shop.states, len(bank.brought)) == ([], ["refund_due"], 2)
    (said,) = (record.getMessage() for record in caplog.records if due in record.getMessage())
    assert REFUNDER.address in said
    assert "fund it" in said
    record = shop.seller.store.refunds.under_way(limit=10)[due]
    assert "fund it" in record.note
    bank.funds[REFUNDER.address] = AMOUNT
    turn(shop)
    pay_back(shop)
    assert shop.states == ["refunded"]


def test_S2_of_two_replicas_at_once_one_pays_and_one_books(
    shop: Any, tmp_path: Path, bank: Bank, store_url: str
) -> None:
    for _ in range(4):
        owe(shop)
    second = make_shop(tmp_path, bank, refund_signer=KeyInAVault(OTHER), store=store_url, spool_folder=tmp_path)
    second.seller.price("POST /weather/{city}", "$0.01", **UPFRONT)
    bank.funds[OTHER.address] = 10**9
    start = threading.Barrier(2)

    def care(seller: Any) -> None:
        start.wait()
        for _ in range(4):
            seller.care()
            bank.finalise()
            turn(shop)

    threads = [threading.Thread(target=care, args=(each.seller,)) for each in (shop, second)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    second.seller.close()
    assert collections.Counter(shop.states) == {"refunded": 4}
    assert (len(bank.refunds), len({each.detail.message.nonce for each in bank.refunds})) == (4, 4)
    assert sum(balance(shop).values()) == 0
    assert balance(shop)[KEY.address] == 0


def test_S2_what_another_replica_put_on_record_meanwhile_is_not_paid_beside_it(
    shop: Any, tmp_path: Path, bank: Bank, vault: KeyInAVault, store_url: str
) -> None:
    """A replica whose signer takes longer than its turn."""
    owe(shop)
    second = make_shop(tmp_path, bank, refund_signer=KeyInAVault(OTHER), store=store_url, spool_folder=tmp_path)
    second.seller.price("POST /weather/{city}", "$0.01", **UPFRONT)
    bank.funds[OTHER.address] = 10**9
    bank.loses_answers = True

    def meanwhile() -> None:
        turn(second)
        second.seller.care()

    vault.on_sign = meanwhile
    shop.seller.care()
    assert [each.payer for each in bank.refunds] == [OTHER.address]
    turn(shop)
    pay_back(shop)
    assert ([each.payer for each in bank.refunds], shop.states) == ([OTHER.address], ["refunded"])
    second.seller.close()


def test_S2_a_turn_is_taken_once_and_given_back_by_its_owner(shop: Any) -> None:
    owe(shop)
    store = shop.seller.store.refunds

    def found() -> Any:
        (due,) = store.find_due(FindRefundsDue(2**40, 0, 9))
        return due

    due = found()
    assert [store.take_turn(TakeRefundTurn(due.claim, None, "0xa", at)).result() for at in (7, 8)] == [True, False]
    seen = found().record
    assert [store.take_turn(TakeRefundTurn(due.claim, seen, "0xa", at)).result() for at in (9, 10)] == [True, False]
    assert [store.postpone(PostponeRefund(due.claim, at, 11, "")).result() for at in (7, 9, 9)] == [False, True, False]
    assert store.find_due(FindRefundsDue(10, 0, 9)) == ()
    assert store.find_due(FindRefundsDue(11, due.claim, 9)) == ()


def crash_at(shop: Any, number: int) -> bool:
    """End the caretaker's process after its effect with this number; False where it came to its end before."""
    caretaker: Caretaker = shop.seller._caretaker
    count = 0

    def perform(effect: Any) -> Any:
        nonlocal count
        answer = caretaker._performer.blocking(effect)
        count += 1
        if count == number:
            raise Crash
        return answer

    try:
        for _ in range(2):
            drive(refund_round(caretaker._refunding.desk), perform)
            shop.facilitator.finalise()
            turn(shop)
    except Crash:
        return True
    return False


def test_S6_cut_after_any_step_a_refund_is_paid_once_and_booked_once(shop: Any, bank: Bank) -> None:
    for number in range(1, 40):
        owe(shop)
        crashed = crash_at(shop, number)
        turn(shop)
        pay_back(shop)
        assert set(shop.states) == {"refunded"}, number
        assert len(bank.refunds) == number
        if not crashed:
            break
    else:
        pytest.fail("the round has no end")
    assert number > 8
    assert balance(shop) == {KEY.address: 0, PAY_TO: number * AMOUNT, REFUNDER.address: -number * AMOUNT}


def test_S2_a_refund_that_came_nowhere_in_its_window_is_signed_again_with_the_same_nonce(
    shop: Any, bank: Bank, vault: KeyInAVault
) -> None:
    due = owe(shop)
    bank.funds[REFUNDER.address] = 0
    for _ in range(2):
        shop.seller.care()
        turn(shop)
    assert vault.asked == 1
    let_the_window_end(shop)
    bank.funds[REFUNDER.address] = 10**9
    pay_back(shop)
    (refund,) = bank.refunds
    assert (refund.detail.message.nonce, vault.asked, shop.states) == (refund_nonce(due, 0), 2, ["refunded"])


def test_S2_a_refusal_alone_is_no_evidence_for_another_nonce(shop: Any, bank: Bank, vault: KeyInAVault) -> None:
    due = signed_and_refused(shop, bank)
    for traced in (None, Traced(verdict="open", says="unspent")):
        shown(shop, traced)
        shop.seller.care()
        turn(shop)
    assert (bank.refunds, vault.asked, shop.states) == ([], 1, ["refund_due"])
    assert "give the seller nodes" in shop.seller.store.refunds.under_way(limit=1)[due].note


def test_S2_unspent_in_a_finalised_block_past_its_window_another_nonce_is_signed_for(shop: Any, bank: Bank) -> None:
    due = signed_and_refused(shop, bank)
    shown(shop, Traced(verdict="not_settled", says="unused"))
    shop.seller.care()
    shown(shop, None)
    bank.finalise()
    turn(shop)
    shop.seller.care()
    (refund,) = bank.refunds
    assert (refund.detail.message.nonce, shop.states) == (refund_nonce(due, 1), ["refunded"])


def test_S2_what_the_chain_shows_paid_is_booked(shop: Any, bank: Bank, vault: KeyInAVault) -> None:
    signed_and_refused(shop, bank)
    shown(shop, Traced(verdict="settled", says="spent", transaction="0xfe"))
    shop.seller.care()
    (row,) = shop.seller.store.payments()
    assert (bank.refunds, vault.asked, str(row.state), row.transaction) == ([], 1, "refunded", "0xfe")


def test_S2_what_its_signer_cancelled_is_not_signed_again(shop: Any, bank: Bank, vault: KeyInAVault) -> None:
    due = signed_and_refused(shop, bank)
    shown(shop, Traced(verdict="not_settled", says="cancelled", transaction="0xca"))
    shop.seller.care()
    assert (bank.refunds, vault.asked, shop.states) == ([], 1, ["refund_due"])
    assert "by hand" in shop.seller.store.refunds.under_way(limit=1)[due].note


def test_S2_another_signer_takes_over_nothing_that_may_be_paid_still(tmp_path: Path, on_file: Any, bank: Bank) -> None:
    """The nonce is the account's: another account could pay a second time."""
    owe(on_file)
    bank.funds[REFUNDER.address] = 0
    on_file.seller.care()
    second = make_shop(tmp_path, bank, refund_signer=(other := KeyInAVault(OTHER)))
    second.seller.price("POST /weather/{city}", "$0.01", **UPFRONT)
    bank.funds[OTHER.address] = 10**9
    for let_pass in (turn, let_the_window_end):
        let_pass(second)
        second.seller.care()
    assert (bank.refunds, other.asked) == ([], 0)
    second.seller.close()


def test_S2_a_refund_to_anybody_else_or_of_more_is_not_sent(tmp_path: Path, on_file: Any, bank: Bank) -> None:
    owe(on_file)
    bank.funds[REFUNDER.address] = 0
    on_file.seller.care()
    tried = len(bank.brought)
    bank.funds[REFUNDER.address] = 10**9
    for set_wrong, set_right in (
        (f"payer = '{OTHER.address}'", f"payer = '{KEY.address}'"),
        ("amount = '9999'", f"amount = '{AMOUNT}'"),
    ):
        on_file._write("UPDATE seller_claim SET " + set_wrong)  # noqa: S608 - as above
        turn(on_file)
        on_file.seller.care()
        on_file._write("UPDATE seller_claim SET " + set_right)  # noqa: S608 - as above
    assert (len(bank.brought), bank.refunds) == (tried, [])
    (record,) = on_file.seller.store.refunds.under_way(limit=1).values()
    assert "it is not sent" in record.note


def test_a_signer_that_fails_keeps_no_other_refund_waiting(on_file: Any, bank: Bank, vault: KeyInAVault) -> None:
    due = [owe(on_file) for _ in range(2)]
    vault.error = SignerError("the vault is shut")
    on_file.seller.care()
    assert {on_file.seller.store.refunds.under_way(limit=9)[each].note for each in due} == {"the vault is shut"}
    vault.error = RuntimeError("secret words")
    turn(on_file)
    on_file.seller.care()
    notes = {record.note for record in on_file.seller.store.refunds.under_way(limit=9).values()}
    assert notes == {f"The refund_signer {REFUNDER.address} failed: RuntimeError."}
    vault.error = None
    turn(on_file)
    on_file.seller.care()
    assert len(bank.refunds) == 2


class VaultAcrossHttp(KeyInAVault):  # type: ignore[misc] # typed as any here
    """Has a coroutine to await, as `RemoteSigner` has."""

    async def signing(self, message: Any) -> bytes:
        await asyncio.sleep(0)
        return bytes(super().sign_typed_data(message))

    def sign_typed_data(self, message: Any) -> bytes:
        raise AssertionError(message)


def test_a_signer_across_http_is_awaited(tmp_path: Path, bank: Bank) -> None:
    shop = make_shop(tmp_path, bank, refund_signer=(remote := VaultAcrossHttp()))
    shop.seller.price("POST /weather/{city}", "$0.01", **UPFRONT)
    due = owe(shop)
    remote.error = RuntimeError("secret words")
    shop.seller.care()
    assert shop.seller.store.refunds.under_way(limit=1)[due].note.endswith("failed: RuntimeError.")
    remote.error = None
    turn(shop)
    pay_back(shop)
    assert (len(bank.refunds), shop.states) == (1, ["refunded"])
    shop.seller.close()


def test_A1_what_has_no_signer_keeps_nothing_else_waiting(tmp_path: Path, bank: Bank, vault: KeyInAVault) -> None:
    shop = make_shop(tmp_path, bank)
    shop.seller.price("POST /weather/{city}", "$0.01", **UPFRONT)
    shop.seller.price("POST /paid-back/{city}", "$0.01", **UPFRONT, refund_signer=vault)
    for _ in range(5):
        owe(shop)
    owe(shop, target="/paid-back/x")
    caretaker = shop.seller._caretaker
    after = 0
    for _ in range(4):
        made = drive(refund_round(caretaker._refunding.desk, after=after, limit=2), caretaker._performer.blocking)
        after = made.next_after
    assert (len(bank.refunds), bank.refunds[0].payer) == (1, REFUNDER.address)
    shop.seller.close()


@pytest.mark.parametrize(
    ("target", "root_path", "payer"),
    [
        ("/own/x", "", OTHER.address),
        ("/own/x", "/mounted/here", OTHER.address),
        ("/plain/caf%C3%A9?q=1", "", REFUNDER.address),
        ("/plain/x", "", REFUNDER.address),
        ("/twice/x", "", None),
    ],
)
def test_the_signer_is_that_of_the_route_or_the_sellers(
    tmp_path: Path, bank: Bank, target: str, root_path: str, payer: str | None
) -> None:
    shop = make_shop(tmp_path, bank, refund_signer=LocalSigner(bytes.fromhex("22" * 32)))
    bank.funds[OTHER.address] = 10**9
    own = LocalSigner(bytes.fromhex("33" * 32))
    shop.seller.price("POST /own/{id}", "$0.01", **UPFRONT, refund_signer=own)
    shop.seller.price("POST /plain/{id}", "$0.01", **UPFRONT)
    # The record does not say which method was paid for: where the signers differ, nobody pays.
    shop.seller.price("POST /twice/{id}", "$0.01", **UPFRONT, refund_signer=own)
    shop.seller.price("PUT /twice/{id}", "$0.01", **UPFRONT)
    headers = shop.pay("POST", target)
    assert shop.send("POST", target, headers, root_path=root_path).status in {402, 500}
    if root_path:
        offer = shop.send("POST", target, root_path=root_path)
        paid = [("PAYMENT-SIGNATURE", selling.sign(offer.header("payment-required")))]
        assert shop.send("POST", target, paid, root_path=root_path).status == 500
    for row in shop.seller.store.payments(State.REFUND_DUE):
        bank.say(row.payment_id, "final")
    shop.seller.care()
    assert {each.payer for each in bank.refunds} == ({payer} if payer else set())
    shop.seller.close()


def test_A1_one_that_is_always_in_trouble_keeps_no_other_refund_waiting(on_file: Any, bank: Bank) -> None:
    """The facilitator fails over this one each time it is brought."""
    first, second = owe(on_file), owe(on_file)
    settle = bank.settle

    async def failing(payment: Any, requirements: Any, *, idempotency_key: str) -> Any:
        if selling.read(selling.pack_raw(encode_json(payment))).detail.message.nonce == refund_nonce(first, 0):
            return Unknown("unexpected_settle_error", "half\na page\x1b" + "x" * 1000)
        return await settle(payment, requirements, idempotency_key=idempotency_key)

    bank.settle = failing
    for _ in range(3):
        on_file.seller.care()
        turn(on_file)
    assert [each.detail.message.nonce for each in bank.refunds] == [refund_nonce(second, 0)]
    note = on_file.seller.store.refunds.under_way(limit=9)[first].note
    assert note.isprintable()
    assert len(note) == NOTE_MAX_CHARS


def test_S2_while_the_facilitator_is_away_nobody_takes_a_payment_for_final(on_file: Any, bank: Bank) -> None:
    """It says what is final, and is away for one question: its silence is no word, however old the payment is."""
    due = owe(on_file, final=False)
    bank.say(due, "in_batch")
    on_file._write("DROP TRIGGER seller_ledger_no_update")
    on_file._write("UPDATE seller_ledger SET posted_at = posted_at - 1000")
    find = bank.find

    async def away(payment_id: str) -> Any:
        raise FacilitatorUnavailable("away")

    bank.find = away
    on_file.seller.care()
    assert (bank.refunds, on_file.states) == ([], ["refund_due"])
    assert on_file.seller.store.refunds.under_way(limit=1)[due].payment == b""
    bank.find = find
    bank.say(due, "refused")
    turn(on_file)
    on_file.seller.care()
    assert (bank.refunds, on_file.states) == ([], ["closed"])


@pytest.mark.parametrize("change", [{"amount": "9999"}, {"network": "eip155:1"}, {"payment_id": "pay_other"}])
def test_S2_a_word_about_another_payment_begins_no_refund(on_file: Any, bank: Bank, change: dict[str, str]) -> None:
    due = owe(on_file)
    bank.statuses[due] = selling.replaced(bank.statuses[due], **change)
    on_file.seller.care()
    assert (bank.refunds, on_file.states) == ([], ["refund_due"])


def test_S2_before_a_facilitator_has_said_whether_it_takes_keys_nothing_is_sent(
    tmp_path: Path, bank: Bank, vault: KeyInAVault
) -> None:
    """Of one that does a success is not the last word, and is not booked."""
    shop = make_shop(tmp_path, bank, refund_signer=vault)
    shop.seller.price("POST /weather/{city}", "$0.01", **UPFRONT)
    supported = bank.supported

    async def away() -> Any:
        raise FacilitatorUnavailable("away")

    bank.supported = away
    owe(shop)
    shop.seller.care()
    assert (bank.refunds, shop.states, len(shop.seller.store.ledger())) == ([], ["refund_due"], 1)
    bank.supported = supported
    turn(shop)
    shop.seller.care()
    assert (len(bank.refunds), shop.states, len(shop.seller.store.ledger())) == (1, ["refund_due"], 1)
    shop.seller.close()


def test_what_is_no_signer_is_refused_where_it_is_written(tmp_path: Path, bank: Bank) -> None:
    with pytest.raises(ConfigError, match="refund_signer"):
        make_shop(tmp_path, bank, refund_signer="0x" + "11" * 32)
    shop = make_shop(tmp_path, bank)
    not_one: Any = object()
    with pytest.raises(ConfigError, match=r"test_refunding\.py:\d+: .*refund_signer"):
        shop.seller.price("GET /x", "$0.01", refund_signer=not_one)
    shop.seller.close()


def test_S2_a_refund_is_booked_once_whoever_books_it(shop: Any, bank: Bank) -> None:
    """By hand and by the caretaker at once."""
    due = owe(shop)
    hand: list[bool] = []
    bank.before = lambda: hand.append(shop.seller.store.refunded(due, "0xhand", posted_at=1))
    pay_back(shop)
    assert (hand, shop.states, len(shop.seller.store.ledger())) == ([True], ["refunded"], 2)


@pytest.mark.parametrize(("transaction", "network"), [("0x1", "eip155:1"), (f"0x{1:064x}", NETWORK)])
def test_S2_a_facilitators_success_for_something_else_books_nothing(
    on_file: Any, bank: Bank, transaction: str, network: str
) -> None:
    """For another network, or that of the payment itself."""
    bank.extensions = ()
    owe(on_file)
    settle = bank.settle

    async def lying(payment: Any, requirements: Any, *, idempotency_key: str) -> Any:
        outcome = await settle(payment, requirements, idempotency_key=idempotency_key)
        assert isinstance(outcome, Settled)
        return Settled(type(outcome.response)(success=True, transaction=transaction, network=network))

    bank.settle = lying
    on_file.seller.care()
    assert on_file.states == ["refund_due"]
    (record,) = on_file.seller.store.refunds.under_way(limit=1).values()
    assert "not about this refund" in record.note
