"""A facilitator and its chain in memory: authorisations are spent once, money moves, and answers may be lost."""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable
from typing import Any

from farthing_selling import KEY, NETWORK, PAY_TO, CannedFacilitator, Shop, make_seller, pack_raw, read

from farthing.errors import FacilitatorUnavailable
from farthing.evm.signatures import PrivateKey
from farthing.evm.signing import TypedMessage
from farthing.mechanisms.exact_evm import ExactEvmSeller
from farthing.mechanisms.interface import SignedPayment
from farthing.protocol.codec import encode_json
from farthing.protocol.facilitator import Outcome, PaymentStatus, Refused, Settled, Unknown
from farthing.protocol.messages import PaymentPayload, PaymentRequirements, SettlementResponse
from farthing.seller.settling import HORIZON_SECONDS

AMOUNT = 10_000
TARGET = "/weather/paris"
REFUNDER = PrivateKey(bytes.fromhex("22" * 32))
OTHER = PrivateKey(bytes.fromhex("33" * 32))


class KeyInAVault:
    """Signs as a vault does, never twice alike (its `s` is turned round); counts what it was asked for."""

    def __init__(self, key: PrivateKey = REFUNDER) -> None:
        self.key, self.asked = key, 0
        self.error: Exception | None = None
        self.on_sign: Callable[[], None] = lambda: None

    @property
    def address(self) -> str:
        return self.key.address

    def sign_typed_data(self, message: TypedMessage) -> bytes:
        self.asked += 1
        self.on_sign()
        if self.error is not None:
            raise self.error
        signature = self.key.sign_digest(message.digest())
        # Padded as a contract wallet's signature may be: another text each time, which nobody here checks.
        return signature + bytes([self.asked])


class Bank(CannedFacilitator):  # type: ignore[misc] # typed as any here
    """Settles what it is brought; one record for each payment id, as Farthing's facilitator keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.funds: collections.Counter[str] = collections.Counter({KEY.address: 10**9, REFUNDER.address: 10**9})
        self.spent: dict[tuple[str, bytes], str] = {}
        self.transfers: list[SignedPayment] = []
        self.statuses: dict[str, PaymentStatus] = {}
        self.prints: dict[str, str] = {}
        self.brought: list[bytes] = []
        self.keys: list[str] = []
        self.asked: list[tuple[str, ...]] = []
        self.is_away = False
        self.loses_answers = False
        self.before: Callable[[], None] = lambda: None
        self._lock = threading.Lock()

    async def settle(
        self, payment: PaymentPayload, requirements: PaymentRequirements, *, idempotency_key: str
    ) -> Outcome:
        if self.is_away:
            return Unknown("unexpected_settle_error", "away")
        signed = ExactEvmSeller().read(payment)
        self.before()
        with self._lock:
            self.brought.append(encode_json(payment))
            self.keys.append(idempotency_key)
            outcome = self._settle(signed, requirements)
        return Unknown("unexpected_settle_error", "lost") if self.loses_answers else outcome

    def _settle(self, signed: SignedPayment, requirements: PaymentRequirements) -> Outcome:
        if self.prints.setdefault(signed.payment_id, signed.fingerprint) != signed.fingerprint:
            if signed.payment_id in self.statuses:
                return Refused("duplicate_settlement")
            self.prints[signed.payment_id] = signed.fingerprint
        right = (signed.payer, signed.detail.message.nonce)
        if right in self.spent:
            return Settled(SettlementResponse(success=True, transaction=self.spent[right], network=signed.network))
        if signed.valid_before <= time.time():
            return Refused("invalid_exact_evm_payload_authorization_valid_before")
        if self.funds[signed.payer] < signed.amount:
            return Refused("insufficient_funds", "", "", signed.payer)
        self.funds[signed.payer] -= signed.amount
        self.funds[signed.pay_to] += signed.amount
        self.transfers.append(signed)
        transaction = self.spent[right] = f"0x{len(self.transfers):064x}"
        self.statuses[signed.payment_id] = PaymentStatus(
            payment_id=signed.payment_id,
            state="confirmed",
            network=signed.network,
            asset=requirements.asset,
            payer=signed.payer,
            pay_to=signed.pay_to,
            amount=str(signed.amount),
            transaction=transaction,
        )
        return Settled(SettlementResponse(success=True, transaction=transaction, network=signed.network))

    async def find(self, payment_id: str) -> PaymentStatus | None:
        self.finds += 1
        if self.is_away:
            raise FacilitatorUnavailable("away")
        return self.statuses.get(payment_id)

    async def find_many(self, payment_ids: tuple[str, ...]) -> tuple[PaymentStatus, ...]:
        self.asked.append(payment_ids)
        if self.is_away:
            raise FacilitatorUnavailable("away")
        return tuple(self.statuses[each] for each in payment_ids if each in self.statuses)

    def say(self, payment_id: str, state: str, **changes: Any) -> None:
        """Have a payment be in this state."""
        status = self.statuses[payment_id]
        self.statuses[payment_id] = PaymentStatus(
            **{name: getattr(status, name) for name in status.__struct_fields__} | {"state": state} | changes
        )

    def finalise(self) -> None:
        """Have every block be final."""
        for payment_id, status in tuple(self.statuses.items()):
            if status.state == "confirmed":
                self.say(payment_id, "final")

    @property
    def refunds(self) -> list[SignedPayment]:
        """What was paid to the buyer."""
        return [each for each in self.transfers if each.pay_to == KEY.address]


def make_shop(folder: Any, bank: Bank, *, kind: str = "asgi", **options: Any) -> Shop:
    """A seller whose work fails, so that what was paid for it is owed back."""
    shop = Shop(kind, make_seller(folder, bank, **options), bank)
    shop.work.status = 500
    return shop


def owe(shop: Shop, *, final: bool = True, target: str = TARGET) -> str:
    """Have one payment in REFUND_DUE; gives its id."""
    before = {row.payment_id for row in shop.seller.store.payments()}
    paid = shop.pay("POST", target)
    assert shop.send("POST", target, paid).status == 500
    (made,) = (row.payment_id for row in shop.seller.store.payments() if row.payment_id not in before)
    assert {row.state for row in shop.seller.store.payments() if row.payment_id == made} == {"refund_due"}
    if final:
        shop.facilitator.say(made, "final")
    return str(made)


def pay_back(shop: Shop) -> None:
    """Have the caretaker pay what is due, and book it when it is final."""
    shop.seller.care()
    shop.facilitator.finalise()
    turn(shop)
    shop.seller.care()


def turn(shop: Shop) -> None:
    """Let the time pass until somebody may look again."""
    shop._write("UPDATE seller_refund SET turn_at = 0")


def let_the_window_end(shop: Shop) -> None:
    """Let the window of every refund that was signed, and the horizon behind it, be over."""
    over = int(time.time()) - HORIZON_SECONDS - 1
    shop._write(f"UPDATE seller_refund SET turn_at = 0, valid_before = {over} WHERE payment <> ''")  # noqa: S608 - an int


def signed_and_refused(shop: Shop, bank: Bank) -> str:
    """Have a refund be on record at the facilitator as refused, and its window over."""
    due = owe(shop)
    bank.funds[REFUNDER.address] = 0
    shop.seller.care()
    (record,) = shop.seller.store.refunds.under_way(limit=2).values()
    refund_id = read(pack_raw(record.payment)).payment_id
    bank.statuses[refund_id] = bank.statuses[due]
    bank.say(refund_id, "refused", payer=REFUNDER.address, pay_to=KEY.address, reason="invalid_transaction_state")
    bank.funds[REFUNDER.address] = 10**9
    let_the_window_end(shop)
    return due


def balance(shop: Shop) -> collections.Counter[str]:
    """What the books say that each account has gained."""
    sums: collections.Counter[str] = collections.Counter()
    for entry in shop.seller.store.ledger():
        sums[entry.payer] -= entry.amount
        sums[entry.pay_to] += entry.amount
    return sums


__all__ = ["AMOUNT", "KEY", "NETWORK", "OTHER", "PAY_TO", "REFUNDER", "TARGET", "Bank", "KeyInAVault"]
