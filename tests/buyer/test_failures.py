"""B1 over failure sequences: whatever fails, in whatever order, one purchase has one nonce until its resource came."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shop import NETWORK, PAYEE, SELLER, SIGNER, offer, required, response

from farthing.buyer import NoAnswer, PaidAnswer, PaymentDemand, Policy, describe_request
from farthing.buyer.journal import FindOpen, PresentAgain, RecordOutcome, RecordPayment, RenewPayment, Reserve
from farthing.clients import Buyer
from farthing.clients.buyer import Exchange
from farthing.errors import FarthingError, StoreError
from farthing.flow import Effect, Now
from farthing.protocol.codec import decode_payment

START = 1_700_000_000
WINDOW = 60
PRICE = 10**16
REQUEST = describe_request("GET", "https://shop.example/thing", b"")
DEAR = 20_000


def refusal(reason: str) -> PaidAnswer:
    return PaidAnswer(402, response(success=False, transaction="", error_reason=reason))


# What comes back for a paid request; whether the money moved nobody knows, so that each may stand for either.
ANSWERS: dict[str, PaidAnswer | NoAnswer] = {
    "time-out": NoAnswer("ReadTimeout"),
    "cut": NoAnswer("RemoteProtocolError"),
    "500": PaidAnswer(500),
    "502": PaidAnswer(502),
    "503 that settled": PaidAnswer(503, response()),
    "second 402": PaidAnswer(402, payment_required=required(offer())),
    "402 that refuses": PaidAnswer(402, payment_required=required(offer(), error="insufficient_funds")),
    "402 with its reason": refusal("invalid_exact_evm_payload_signature"),
    "402 that says used": refusal("invalid_exact_evm_nonce_already_used"),
    "402 that says over": refusal("invalid_exact_evm_payload_authorization_valid_before"),
    "402 that is pending": refusal("settlement_pending"),
    "402 that settled": PaidAnswer(402, response()),
    "404": PaidAnswer(404),
    "409": PaidAnswer(409),
    "429": PaidAnswer(429),
    "redirect": PaidAnswer(302),
    "settled for another": PaidAnswer(500, response(payer=PAYEE)),
    "settled elsewhere": PaidAnswer(500, response(network="eip155:1")),
}
GOODS: dict[str, PaidAnswer] = {
    "goods": PaidAnswer(200, response()),
    "goods without proof": PaidAnswer(200),
    "goods that failed": PaidAnswer(200, response(success=False, transaction="")),
}
OFFERS = {
    "the same": required(offer()),
    "dearer": required(offer(DEAR)),
    "cheaper": required(offer(1)),
    "to another": required(offer(pay_to="0x" + "52" * 20)),
    "another first": required(offer(1, network="eip155:8453", asset="0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913",
                                    extra={"name": "USD Coin", "version": "2"}), offer()),
    "none": required(),
}  # fmt: skip
STORE_EFFECTS: list[type[Effect[Any]]] = [
    FindOpen, Reserve, RecordPayment, RecordOutcome, PresentAgain, RenewPayment
]  # fmt: skip
TRIES = st.tuples(
    st.sampled_from([*ANSWERS, *GOODS]),
    st.sampled_from([*["the same"] * 5, *OFFERS]),
    st.sampled_from([0, 0, 1, WINDOW - 1, WINDOW, 3600, 86_400, -600]),
    st.sampled_from([None, None, None, *((kind, after) for kind in STORE_EFFECTS for after in (False, True))]),
)


class Town:
    """A buyer whose clock, journal and seller fail as told; what left is kept."""

    def __init__(self, folder: str) -> None:
        policy = Policy(networks=[NETWORK, "eip155:8453"], per_request="$1", total="$100", pin_payees=False)
        self.buyer = Buyer(signer=SIGNER, policy=policy, journal=Path(folder) / "journal")
        self.now = START
        self.fails: tuple[type[Effect[Any]], bool] | None = None
        self.sent: list[str] = []
        real = self.buyer.performer.with_({Now: lambda _effect: self.now})
        town = self

        class Failing:
            def blocking(self, effect: Effect[Any]) -> Any:
                kind, after = town.fails or (None, False)
                if type(effect) is not kind:
                    return real.blocking(effect)
                town.fails = None
                if after:
                    real.blocking(effect)
                raise StoreError("the disk is full")

        self.buyer.performer = Failing()  # type: ignore[assignment]

    def attempt(self, answer: PaidAnswer | NoAnswer, demand: str) -> None:
        with Exchange(self.buyer, REQUEST) as exchange:
            paid = exchange.blocking(exchange.pay(PaymentDemand(demand)))
            self.sent.append(paid.header)
            exchange.blocking(exchange.conclude(answer))

    def nonces(self) -> list[bytes]:
        """The nonces that left, each once, in their order."""
        found = [SELLER.read(decode_payment(header)).detail.message.nonce for header in self.sent]
        return list(dict.fromkeys(found))


@settings(max_examples=80)
@given(st.lists(TRIES, min_size=1, max_size=8))
def test_B1_a_new_nonce_leaves_only_after_the_resource_came(tries: list[tuple[str, str, int, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        town = Town(folder)
        with town.buyer:
            for said, offered, seconds, fails in tries:
                town.now += seconds
                town.fails = fails
                delivered = len([each for each in town.buyer.journal.purchases() if each.delivered])
                with contextlib.suppress(FarthingError):
                    town.attempt((ANSWERS | GOODS)[said], OFFERS[offered])
                assert len(town.nonces()) <= delivered + 1, "a second nonce left while the first purchase was open"
            entries = town.buyer.journal.purchases()
            signed = [each for each in entries if each.payment_id]
            assert len([each for each in signed if not each.delivered]) <= 1
            # Each keeps its place, whatever was said; so does what was reserved by a try that the journal cut.
            held = [each.amount for each in entries if each.state not in {"released", "closed"}]
            assert town.buyer.journal.used() == sum(held) * 10**12


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("kind", STORE_EFFECTS[:4], ids=lambda kind: kind.__name__)
def test_B1_a_journal_that_fails_lets_nothing_leave_unrecorded(tmp_path: Path, kind: Any, *, after: bool) -> None:
    town = Town(str(tmp_path))
    with town.buyer:
        town.fails = (kind, after)
        with pytest.raises(StoreError):
            town.attempt(GOODS["goods"], OFFERS["the same"])
        assert bool(town.sent) == (kind is RecordOutcome)
        town.now += 3600
        town.attempt(GOODS["goods"], OFFERS["the same"])
        assert len(town.nonces()) == 1
        assert [each.state for each in town.buyer.journal.purchases() if each.state != "released"] == ["settled"]
        assert town.buyer.journal.used() == PRICE


@pytest.mark.parametrize("seconds", [-600, 600])
def test_B1_a_clock_ten_minutes_off_costs_nothing_when_it_is_put_right(tmp_path: Path, seconds: int) -> None:
    town = Town(str(tmp_path))
    with town.buyer:
        town.now += seconds
        with pytest.raises(FarthingError):
            town.attempt(ANSWERS["402 that says over"], OFFERS["the same"])
        town.now = START + 1
        town.attempt(GOODS["goods"], OFFERS["the same"])
        assert len(town.nonces()) == 1
        # A window that was over by the right clock was signed anew, one that was too long is what the buyer has.
        assert len(set(town.sent)) == (2 if seconds < 0 else 1)
        assert town.buyer.journal.used() == PRICE
