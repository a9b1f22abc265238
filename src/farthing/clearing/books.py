"""What the clearing house books, and when: every movement of money has one function here.

A booking moves one amount from one account to another, so that debits equal credits in each. What a rail is told to do
is a *pending* booking; its report posts or voids it, by a row of its own. Balances are credits less debits: what payers
owe is negative on `receivable`, what payees will get is positive on `accrued`, `held` and `cleared`. What the reserve
paid for a payer is positive on `recourse` until the payer has paid. What no payer owes, since its key was compromised,
and payees get all the same is negative on `risk` and positive on `borne` until the reserve has paid it.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from farthing.clearing.rules import owner_of
from farthing.ledger.accounts import (
    ACCRUED,
    BORNE,
    CLEARED,
    HELD,
    PREPAID,
    RECEIVABLE,
    RECOURSE,
    RESERVE,
    RISK,
    ROUNDING,
    SUSPENSE,
    TREASURY,
    Account,
)
from farthing.ledger.transfers import Transfer

_HOUSE: Final = "house"
POSTED: Final = "posted"
PENDING: Final = "pending"
POST: Final = "post"
VOID: Final = "void"


class Booking(msgspec.Struct, frozen=True):
    """One row of the books. `about` names what it belongs to, `pending` the promise that a `post` or `void` ends."""

    transfer: Transfer
    about: str
    kind: Literal["posted", "pending", "post", "void"] = "posted"
    pending: str = ""


class Books(msgspec.Struct, frozen=True):
    """The accounts of one network in one currency."""

    network: str
    currency: str

    def receivable(self, payer: int) -> Account:
        """What a payer owes."""
        return Account(RECEIVABLE, self.network, self.currency, owner_of(payer))

    def prepaid(self, payer: int) -> Account:
        """What a payer has left with the house."""
        return Account(PREPAID, self.network, self.currency, owner_of(payer))

    def accrued(self, payee: int) -> Account:
        """What a payee will get once payers have paid."""
        return Account(ACCRUED, self.network, self.currency, owner_of(payee))

    def held(self, payee: int) -> Account:
        """What is disputed."""
        return Account(HELD, self.network, self.currency, owner_of(payee))

    def cleared(self, payee: int) -> Account:
        """What payers have paid for and the payee gets next."""
        return Account(CLEARED, self.network, self.currency, owner_of(payee))

    @property
    def treasury(self) -> Account:
        """Money on the rail."""
        return Account(TREASURY, self.network, self.currency, _HOUSE)

    @property
    def suspense(self) -> Account:
        """Money that came and is nobody's yet."""
        return Account(SUSPENSE, self.network, self.currency, _HOUSE)

    @property
    def reserve(self) -> Account:
        """What stands ready to pay guaranteed payees whose payers do not."""
        return Account(RESERVE, self.network, self.currency, _HOUSE)

    def recourse(self, payer: int) -> Account:
        """What the reserve paid for a payer, and gets back when that pays."""
        return Account(RECOURSE, self.network, self.currency, owner_of(payer))

    @property
    def risk(self) -> Account:
        """What the network lost to compromised keys, and the reserve has not paid."""
        return Account(RISK, self.network, self.currency, _HOUSE)

    def borne(self, payee: int) -> Account:
        """What the network owes a payee for promises under compromised keys."""
        return Account(BORNE, self.network, self.currency, owner_of(payee))

    @property
    def rounding(self) -> Account:
        """What rounding statements left over."""
        return Account(ROUNDING, self.network, self.currency, _HOUSE)

    def _move(self, name: str, debit: Account, credit: Account, amount: int, about: str) -> Booking:
        return Booking(Transfer(transfer_id=name, debit=debit, credit=credit, amount=amount), about)

    def accrue(self, upload: int, payer: int, payee: int, amount: int) -> Booking:
        """An upload's lines of one payer for one payee."""
        about = owner_of(upload)
        name = f"upload:{about}:{owner_of(payer)}:{owner_of(payee)}"
        return self._move(name, self.receivable(payer), self.accrued(payee), amount, about)

    def reject(self, upload: int, payer: int, payee: int, amount: int) -> Booking:
        """Of these lines, the ones whose signatures turned out wrong: the accrual is taken back."""
        about = owner_of(upload)
        name = f"upload:{about}:{owner_of(payer)}:{owner_of(payee)}"
        transfer = Transfer(
            transfer_id=f"{name}:back",
            debit=self.accrued(payee),
            credit=self.receivable(payer),
            amount=amount,
            reverses=name,
        )
        return Booking(transfer, about)

    def bear(self, upload: int, payer: int, payee: int, amount: int) -> Booking:
        """An upload's lines that were signed by a payer's compromised key: the network's, never the payer's."""
        about = owner_of(upload)
        name = f"borne:{about}:{owner_of(payer)}:{owner_of(payee)}"
        return self._move(name, self.risk, self.borne(payee), amount, about)

    def unbear(self, upload: int, payer: int, payee: int, amount: int) -> Booking:
        """Of these lines, the ones that were not even signed by that key: taken back."""
        booked = self.bear(upload, payer, payee, amount).transfer
        transfer = Transfer(
            transfer_id=f"{booked.transfer_id}:back",
            debit=booked.credit,
            credit=booked.debit,
            amount=amount,
            reverses=booked.transfer_id,
        )
        return Booking(transfer, owner_of(upload))

    def pay_borne(self, upload: int, payee: int, amount: int) -> tuple[Booking, Booking]:
        """The reserve pays what the network bears: the payee has it with its next payout."""
        about = owner_of(upload)
        name = f"borne:{about}:{owner_of(payee)}"
        return (
            self._move(f"clear:{name}", self.borne(payee), self.cleared(payee), amount, about),
            self._move(f"cover:{name}", self.reserve, self.risk, amount, about),
        )

    def round(self, statement: str, payer: int, rounding: int) -> Booking | None:
        """What a statement's sum was rounded by: more is the house's, less its loss."""
        if rounding == 0:
            return None
        debit, credit = self.receivable(payer), self.rounding
        if rounding < 0:
            debit, credit = credit, debit
        return self._move(f"rounding:{statement}", debit, credit, abs(rounding), statement)

    def credit_note(self, statement: str, payer: int, amount: int) -> Booking:
        """A statement that comes to less than nothing: the house owes, and adds it to the payer's own balance."""
        return self._move(f"credit:{statement}", self.receivable(payer), self.prepaid(payer), amount, statement)

    def hold(self, dispute: str, payee: int, amount: int, *, was_paid: bool) -> Booking:
        """A disputed line."""
        taken = self.cleared(payee) if was_paid else self.accrued(payee)
        return self._move(f"hold:{dispute}", taken, self.held(payee), amount, dispute)

    def grant(self, dispute: str, payer: int, payee: int, amount: int) -> Booking:
        """The payer is right: the reversing entry of the line."""
        return self._move(f"grant:{dispute}", self.held(payee), self.receivable(payer), amount, dispute)

    def release(self, dispute: str, payee: int, amount: int, *, was_paid: bool) -> Booking:
        """The charge stands."""
        given = self.cleared(payee) if was_paid else self.accrued(payee)
        return self._move(f"release:{dispute}", self.held(payee), given, amount, dispute)

    def instruct(self, statement: str, payer: int, amount: int, attempt: int) -> Booking:
        """A payment was handed to the rail: a promise until the rail reports."""
        moved = self._move(f"pay:{statement}:{attempt}", self.treasury, self.receivable(payer), amount, statement)
        return msgspec.structs.replace(moved, kind="pending")

    def receive(self, statement: str, payer: int, amount: int) -> Booking:
        """A statement's money came, and no promise of it is on record."""
        return self._move(f"paid:{statement}", self.treasury, self.receivable(payer), amount, statement)

    def spend_prepaid(self, statement: str, payer: int, amount: int) -> Booking:
        """A statement is paid out of the payer's own balance."""
        return self._move(f"paid:{statement}", self.prepaid(payer), self.receivable(payer), amount, statement)

    def clear(self, statement: str, payee: int, amount: int) -> Booking:
        """A statement is paid: a payee's share of it goes on its way."""
        return self._move(
            f"clear:{statement}:{owner_of(payee)}", self.accrued(payee), self.cleared(payee), amount, statement
        )

    def pay_out(self, payout: str, payee: int, amount: int) -> Booking:
        """A payout was decided: a promise until the rail reports."""
        moved = self._move(f"payout:{payout}", self.cleared(payee), self.treasury, amount, payout)
        return msgspec.structs.replace(moved, kind="pending")

    def suspend(self, movement: str, amount: int, *, incoming: bool) -> Booking:
        """Money moved that nobody here knows of."""
        debit, credit = (self.treasury, self.suspense) if incoming else (self.suspense, self.treasury)
        return self._move(f"suspense:{movement}", debit, credit, amount, movement)

    def assign(self, movement: str, payer: int, amount: int) -> Booking:
        """Money in suspense turned out to be a payer's, who has it as balance."""
        return self._move(f"assign:{movement}", self.suspense, self.prepaid(payer), amount, movement)

    def fund(self, movement: str, amount: int) -> Booking:
        """Money in suspense is the operator's, for the reserve: by the name of `assign`, so that it is given once."""
        return self._move(f"assign:{movement}", self.suspense, self.reserve, amount, movement)

    def take(self, request: str, payee: int, amount: int) -> Booking:
        """The operator takes money out of the reserve: the next payout of an account of its own."""
        return self._move(f"take:{request}", self.reserve, self.cleared(payee), amount, request)

    def cover(self, statement: str, payer: int, payee: int, amount: int, step: int) -> tuple[Booking, Booking]:
        """A payer is in default: its payee is paid for all that, and the reserve has what the payer owes instead."""
        name = f"{statement}:{owner_of(payee)}:{step}"
        return (
            self._move(f"clear:{name}", self.accrued(payee), self.cleared(payee), amount, statement),
            self._move(f"cover:{name}", self.reserve, self.recourse(payer), amount, statement),
        )

    def refill(self, statement: str, payer: int, payee: int, amount: int) -> Booking:
        """The payer paid what the reserve had paid for it."""
        name = f"refill:{statement}:{owner_of(payee)}"
        return self._move(name, self.recourse(payer), self.reserve, amount, statement)


def resolve(promise: Booking, *, settled: bool) -> Booking:
    """Post or void a pending booking: a row of its own that names it."""
    name = promise.transfer.transfer_id
    transfer = msgspec.structs.replace(promise.transfer, transfer_id=f"{name}:{'post' if settled else 'void'}")
    return Booking(transfer, promise.about, "post" if settled else "void", name)
