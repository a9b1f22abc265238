"""A transfer: one amount from one account to another, as the two entries of double entry; and sums over entries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Final, Literal

import msgspec

from farthing.ledger.accounts import Account, LedgerError
from farthing.money import AMOUNT_MAX

DEBIT: Final = "debit"
CREDIT: Final = "credit"


class Entry(msgspec.Struct, frozen=True):
    """One side of a transfer: `amount` atomic units, never negative, on `account` (its name)."""

    transfer_id: str
    account: str
    side: Literal["debit", "credit"]
    amount: int


class Transfer(msgspec.Struct, frozen=True, kw_only=True):
    """`amount` atomic units out of `debit` and into `credit`, which are accounts of one asset.

    `transfer_id` is unique for ever, so that booking twice is refused by the books; `reverses` names the transfer that
    this one takes back, and is empty elsewhere.
    """

    transfer_id: str
    debit: Account
    credit: Account
    amount: int
    reverses: str = ""

    def __post_init__(self) -> None:
        """Refuse what would not balance, or would move nothing."""
        if (self.debit.network, self.debit.asset.lower()) != (self.credit.network, self.credit.asset.lower()):
            message = f"{self.transfer_id}: both accounts of a transfer are of one asset on one network."
            raise LedgerError(message)
        if not 0 < self.amount <= AMOUNT_MAX:
            message = f"{self.transfer_id}: a transfer moves between 1 and 2^256 - 1 atomic units, not {self.amount}."
            raise LedgerError(message)
        if self.debit.name == self.credit.name:
            # A payer may pay itself; its two accounts differ by kind. One account twice is a mistake.
            message = f"{self.transfer_id}: debit and credit are one account."
            raise LedgerError(message)

    def entries(self) -> tuple[Entry, Entry]:
        """Give the debit and the credit."""
        return (
            Entry(self.transfer_id, self.debit.name, DEBIT, self.amount),
            Entry(self.transfer_id, self.credit.name, CREDIT, self.amount),
        )

    def reversal(self, transfer_id: str) -> Transfer:
        """Give the transfer that takes this one back: a row of its own, since nothing in the books is edited."""
        return Transfer(
            transfer_id=transfer_id,
            debit=self.credit,
            credit=self.debit,
            amount=self.amount,
            reverses=self.transfer_id,
        )


def balances(entries: Iterable[Entry]) -> dict[str, int]:
    """Sum entries by account: credits less debits, in atomic units."""
    sums: defaultdict[str, int] = defaultdict(int)
    for entry in entries:
        sums[entry.account] += entry.amount if entry.side == CREDIT else -entry.amount
    return dict(sums)


def imbalance(entries: Iterable[Entry]) -> int:
    """Credits less debits over all entries: zero, or the books are broken (SAFETY C1)."""
    return sum(balances(entries).values())
