"""An account: whose money, of which asset, on which network."""

from __future__ import annotations

from typing import Final

import msgspec

from farthing.errors import FarthingError

# What pays for gas and what gas is spent on are counted in the chain's own currency, which has no contract.
NATIVE: Final = "native"

PAYER: Final = "payer"
PAYEE: Final = "payee"
WALLET: Final = "wallet"
GAS: Final = "gas"
# A clearing house's: what payers owe, what payees will get (once paid for, and while disputed), and what lies between.
RECEIVABLE: Final = "receivable"
ACCRUED: Final = "accrued"
HELD: Final = "held"
CLEARED: Final = "cleared"
PREPAID: Final = "prepaid"
TREASURY: Final = "treasury"
SUSPENSE: Final = "suspense"
ROUNDING: Final = "rounding"
# What stands ready for payers' defaults, and what payers owe to it.
RESERVE: Final = "reserve"
RECOURSE: Final = "recourse"
# What the network bears of promises under compromised keys: its loss, and what it owes payees for it.
RISK: Final = "risk"
BORNE: Final = "borne"
KINDS: Final = frozenset(
    {PAYER, PAYEE, WALLET, GAS, RECEIVABLE, ACCRUED, HELD, CLEARED, PREPAID, TREASURY, SUSPENSE, ROUNDING}
    | {RESERVE, RECOURSE, RISK, BORNE}
)

_SEPARATOR: Final = "/"


class LedgerError(FarthingError, ValueError):
    """Accounts or transfers that can't be booked: a bug of the caller's, never a state of the world."""


class Account(msgspec.Struct, frozen=True):
    """An account of the ledger.

    `kind` is one of `KINDS`; `network` a CAIP-2 name; `asset` a token contract's address (or `native`, or a currency);
    `owner` the address, or a clearing house's number, whose account it is. Addresses compare by their lower case.
    """

    kind: str
    network: str
    asset: str
    owner: str

    def __post_init__(self) -> None:
        """Refuse what could be read back as something else."""
        if self.kind not in KINDS:
            message = f"{self.kind!r} is no kind of account; one of {', '.join(sorted(KINDS))} is."
            raise LedgerError(message)
        for part in (self.network, self.asset, self.owner):
            if not part or _SEPARATOR in part:
                message = f"{part!r} can't be part of an account's name."
                raise LedgerError(message)

    @property
    def name(self) -> str:
        """The account as the books write it: `kind/network/asset/owner`, addresses in lower case."""
        return _SEPARATOR.join((self.kind, self.network, self.asset.lower(), self.owner.lower()))


def read_account(name: str) -> Account:
    """Read an account's name back. Raises `LedgerError`."""
    parts = name.split(_SEPARATOR)
    if len(parts) != len(Account.__struct_fields__):
        message = f"{name!r} is no account's name; it is written kind/network/asset/owner."
        raise LedgerError(message)
    return Account(*parts)
