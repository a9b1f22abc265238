"""The buyer's two flows under both drivers, and cut at every effect: what is in the journal then?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from shop import NETWORK, SELLER, SIGNER, offer, required, response

from farthing.buyer import PaidAnswer, PaidRequest, PaymentDemand, Policy, Receipt, RequestFacts, describe_request
from farthing.buyer.journal import RecordPayment, Release, Reserve
from farthing.clients import Buyer
from farthing.clients.buyer import Exchange
from farthing.errors import LocalProtocolError, PaymentRefused, PaymentUnknown, PolicyRefused, SignerError, StoreError
from farthing.evm.signing import SignTypedData, TypedMessage
from farthing.flow import Effect, Flow, Now
from farthing.mechanisms.exact_evm import ExactEvmBuyer
from farthing.mechanisms.interface import PreparedPayment
from farthing.protocol.codec import decode_payment
from farthing.protocol.messages import PaymentRequirements
from farthing.world.performers import Performer

START = 1_700_000_000
WINDOW = 60
REQUEST = describe_request("GET", "https://shop.example/thing", b"")
DEMAND = PaymentDemand(required(offer(10_000, max_timeout_seconds=WINDOW)))
PROOF = PaidAnswer(200, response())
PRICE = 10**16


class Cut(BaseException):
    """The process is told to stop, or a task is cancelled."""


class World:
    """A performer with a clock to set, that counts effects and cuts before or after one of them."""

    def __init__(self, real: Performer) -> None:
        self.now = START
        self.real = real.with_({Now: lambda _effect: self.now})
        self.seen: list[Effect[Any]] = []
        self.cut_at: int | None = None
        self.after = False

    def blocking(self, effect: Effect[Any]) -> Any:
        number = len(self.seen)
        self.seen.append(effect)
        if number == self.cut_at and not self.after:
            raise Cut
        answer = self.real.blocking(effect)
        if number == self.cut_at:
            raise Cut
        return answer

    async def awaiting(self, effect: Effect[Any]) -> Any:
        number = len(self.seen)
        self.seen.append(effect)
        if number == self.cut_at and not self.after:
            raise Cut
        answer = await self.real.awaiting(effect)
        if number == self.cut_at:
            raise Cut
        return answer


Manner = Callable[[Exchange, "Flow[Any]"], Any]
MANNERS: dict[str, Manner] = {
    "sync": lambda exchange, flow: exchange.blocking(flow),
    "async": lambda exchange, flow: asyncio.run(exchange.awaiting(flow)),
}


@pytest.fixture(params=list(MANNERS))
def manner(request: pytest.FixtureRequest) -> Manner:
    return MANNERS[request.param]


@pytest.fixture
def buyer(tmp_path: Path) -> Iterator[Buyer]:
    policy = Policy(networks=[NETWORK], total="$0.01")
    with Buyer(signer=SIGNER, policy=policy, journal=tmp_path / "j.sqlite") as made:
        made.performer = World(made.performer)  # type: ignore[assignment]
        yield made


@pytest.fixture
def world(buyer: Buyer) -> World:
    found = buyer.performer
    assert isinstance(found, World)
    return found


def buy(buyer: Buyer, manner: Manner, sent: list[str], answer: PaidAnswer = PROOF) -> Receipt:
    with Exchange(buyer, REQUEST) as exchange:
        paid: PaidRequest = manner(exchange, exchange.pay(DEMAND))
        sent.append(paid.header)
        receipt: Receipt = manner(exchange, exchange.conclude(answer))
        return receipt


def effects_of_a_purchase() -> int:
    # Now, FindOpen, RandomBytes, Reserve, Now, SignTypedData, Now, RecordPayment; Now, RecordOutcome.
    return 10


def test_one_purchase_under_both_drivers(buyer: Buyer, world: World, manner: Manner) -> None:
    sent: list[str] = []
    receipt = buy(buyer, manner, sent)
    assert receipt.state == "settled"
    (entry,) = buyer.journal.purchases()
    assert (entry.state, entry.delivered, entry.valid_before) == ("settled", True, START + WINDOW)
    assert decode_payment(sent[0]).accepted == offer(10_000, max_timeout_seconds=WINDOW)
    assert buyer.journal.used() == PRICE
    assert len(world.seen) == effects_of_a_purchase()
    kinds = [type(each) for each in world.seen]
    # The order that safety asks for: budget, then signature, then record; the request leaves only after that.
    assert kinds.index(Reserve) < kinds.index(SignTypedData) < kinds.index(RecordPayment) == 7


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("number", range(effects_of_a_purchase()))
def test_B1_cut_at_every_effect_a_purchase_is_never_paid_twice(
    buyer: Buyer, world: World, manner: Manner, number: int, *, after: bool
) -> None:
    world.cut_at, world.after = number, after
    sent: list[str] = []
    with pytest.raises(Cut):
        buy(buyer, manner, sent)
    cut_in = type(world.seen[-1])
    assert len(world.seen) == number + 1, "an unwinding flow yields nothing"
    recorded = [type(each) for each in world.seen[:-1]].count(RecordPayment) == 1 or (cut_in is RecordPayment and after)
    assert bool(sent) <= recorded, "nothing leaves that is not on record"

    # The caller tries again, a minute later: the budget has room for one, and one nonce is all that may ever leave.
    world.cut_at = None
    world.now += 61
    receipt = buy(buyer, manner, sent)
    states = sorted(each.state for each in buyer.journal.purchases() if each.state != "released")
    assert states == ["settled"]
    assert receipt.state == "settled"
    assert len(nonces(sent)) == 1
    assert buyer.journal.used() == PRICE


def nonces(sent: list[str]) -> set[bytes]:
    """The nonces of these payments: what the chain settles once each."""
    return {SELLER.read(decode_payment(header)).detail.message.nonce for header in sent}


def test_a_signer_that_fails_gives_the_place_back(tmp_path: Path) -> None:
    class Broken:
        address = SIGNER.address

        def sign_typed_data(self, message: TypedMessage) -> bytes:
            raise SignerError("no")

    policy = Policy(networks=[NETWORK], total="$0.01")
    with Buyer(signer=Broken(), policy=policy, journal=tmp_path / "j.sqlite") as buyer:
        with Exchange(buyer, REQUEST) as exchange, pytest.raises(SignerError):
            exchange.blocking(exchange.pay(DEMAND))
        (entry,) = buyer.journal.purchases()
        assert (entry.state, entry.reason, buyer.journal.used()) == ("released", "SignerError", 0)


def test_B2_a_payment_whose_reservation_is_gone_is_not_sent(buyer: Buyer, world: World, manner: Manner) -> None:
    def sign_slowly(effect: SignTypedData) -> bytes:
        # Somebody takes this process for dead, and gives its place away.
        (entry,) = buyer.journal.purchases()
        assert world.real.blocking(Release(entry.purchase_id, "cut", world.now))
        signature: bytes = SIGNER.sign_typed_data(effect.message)
        return signature

    world.real = world.real.with_({SignTypedData: sign_slowly})
    sent: list[str] = []
    with pytest.raises(PolicyRefused) as caught:
        buy(buyer, manner, sent)
    assert (caught.value.reason, sent, buyer.journal.used()) == ("reservation_lost", [], 0)


def test_B2_the_unknown_and_the_refused_keep_their_places_until_there_is_evidence(
    buyer: Buyer, world: World, manner: Manner
) -> None:
    other = describe_request("GET", "https://shop.example/other", b"")
    sent: list[str] = []
    refusal = PaidAnswer(402, response(success=False, transaction="", error_reason="insufficient_funds"))
    with pytest.raises(PaymentRefused) as refused:
        buy(buyer, manner, sent, refusal)

    def try_another(request: RequestFacts) -> PaidRequest:
        with Exchange(buyer, request) as exchange:
            paid: PaidRequest = manner(exchange, exchange.pay(DEMAND))
            with pytest.raises(PaymentUnknown):
                manner(exchange, exchange.conclude(PaidAnswer(500)))
            return paid

    # A seller that refuses and settles all the same must not get the budget twice, however late it is.
    for world.now in (START + WINDOW + 599, START + WINDOW + 600, START + 315_360_000):
        with pytest.raises(PolicyRefused) as caught:
            try_another(other)
        assert caught.value.reason == "over_total"
    buyer.journal.mark_unspent(refused.value.payment_id, evidence="unused at finalised block 0x10")
    try_another(other)
    # That one is unknown: ten years later it still is, its place is taken, and the request presents the same payment.
    world.now += 315_360_000
    with pytest.raises(PolicyRefused):
        buy(buyer, manner, sent)
    assert try_another(other).again
    assert buyer.journal.used() == PRICE


def test_B1_a_refusal_after_unknown_is_no_evidence(buyer: Buyer, manner: Manner) -> None:
    refusal = PaidAnswer(
        402, response(success=False, transaction="", error_reason="invalid_exact_evm_nonce_already_used")
    )
    sent: list[str] = []
    for answer in (PaidAnswer(500), refusal, refusal):
        with pytest.raises(PaymentUnknown):
            buy(buyer, manner, sent, answer)
    assert [each.state for each in buyer.journal.purchases()] == ["unknown"]
    assert len(set(sent)) == 1


def test_B1_an_open_payment_is_presented_whatever_is_offered_now(buyer: Buyer, manner: Manner) -> None:
    sent: list[str] = []
    with pytest.raises(PaymentUnknown):
        buy(buyer, manner, sent, PaidAnswer(500))
    for demand in (required(), required(offer(10**12)), required(offer(scheme="other"))):
        with Exchange(buyer, REQUEST) as exchange:
            paid: PaidRequest = manner(exchange, exchange.pay(PaymentDemand(demand)))
            assert (paid.again, paid.header) == (True, sent[0])


def test_B1_a_refused_payment_that_leaves_again_is_as_open_as_the_first_time(buyer: Buyer, manner: Manner) -> None:
    sent: list[str] = []
    refusal = PaidAnswer(402, response(success=False, transaction="", error_reason="insufficient_funds"))
    for _ in range(2):
        with pytest.raises(PaymentRefused):
            buy(buyer, manner, sent, refusal)
    with Exchange(buyer, REQUEST) as exchange:
        manner(exchange, exchange.pay(DEMAND))
        # Killed here, it must not count as refused: that would give its place back when the window is over.
        assert [each.state for each in buyer.journal.purchases()] == ["sent"]
    with pytest.raises(PaymentUnknown):
        buy(buyer, manner, sent, refusal)
    assert len(set(sent)) == 1


def test_B1_a_person_s_evidence_ends_the_unknown(buyer: Buyer, world: World, manner: Manner) -> None:
    sent: list[str] = []
    with pytest.raises(PaymentUnknown) as caught:
        buy(buyer, manner, sent, PaidAnswer(500))
    # The window of a payment made in 2023 is long over by the journal's own clock.
    marked = buyer.journal.mark_unspent(caught.value.payment_id, evidence="unused at finalised block 0x10")
    assert (marked.state, buyer.journal.used()) == ("closed", 0)
    buy(buyer, manner, sent)
    assert len(set(sent)) == 2
    # A mistake is put right, and counts again.
    assert buyer.journal.mark_settled(caught.value.payment_id, transaction="0x1").state == "settled"
    assert buyer.journal.used() == 2 * PRICE
    with pytest.raises(StoreError, match="is settled"):
        buyer.journal.mark_unspent(caught.value.payment_id, evidence="")
    with pytest.raises(StoreError, match="has no payment"):
        buyer.journal.mark_unspent("pay_0", evidence="")


def test_a_payment_that_is_not_the_offer_is_never_sent(tmp_path: Path) -> None:
    class Greedy(ExactEvmBuyer):
        def pay(self, requirements: PaymentRequirements, *, payer: str, nonce: bytes | None) -> Flow[PreparedPayment]:
            dear = msgspec.structs.replace(requirements, amount="999999")
            return super().pay(dear, payer=payer, nonce=nonce)

    policy = Policy(networks=[NETWORK])
    with Buyer(signer=SIGNER, policy=policy, journal=tmp_path / "j", mechanisms=[Greedy()]) as buyer:
        with Exchange(buyer, REQUEST) as exchange, pytest.raises(LocalProtocolError):
            exchange.blocking(exchange.pay(DEMAND))
        assert [each.state for each in buyer.journal.purchases()] == ["released"]
