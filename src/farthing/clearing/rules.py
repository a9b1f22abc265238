"""The clearing house's rules: its name and dates, and who may spend how much."""

from __future__ import annotations

import hashlib
from typing import Annotated, Final

import msgspec

from farthing.protocol.clearing import DECIMALS

# Names of accounts in the books are numbers of 63 bits, made from what they stand for: the same on every machine.
_KEY_SIZE_BYTES: Final = 8
# Of a payer's credit: beyond it leases say so, for the operator and the edge to tell the payer.
WARN_PERCENT: Final = 80
_PERCENT: Final = 100
DAY_SECONDS: Final = 86_400


class Rules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an operator can set. Times in seconds.

    `late_limit_seconds`: a commitment older than this is refused (PROTOCOL: 7 days). `lease_seconds_max` bounds a
    lease's time, `lease_amount_max` (atomic units) its size, so that one edge can't take all of a payer's credit.
    `window_seconds`: windows begin at multiples of it (UTC). `statement_decimals`: what a net sum is rounded to.
    """

    network: Annotated[str, msgspec.Meta(pattern=r"\Aclearing:[a-z0-9-]{1,32}\Z")] = "clearing:house"
    window_seconds: Annotated[int, msgspec.Meta(ge=60, le=31 * DAY_SECONDS)] = DAY_SECONDS
    late_limit_seconds: Annotated[int, msgspec.Meta(ge=60, le=90 * DAY_SECONDS)] = 7 * DAY_SECONDS
    due_seconds: Annotated[int, msgspec.Meta(ge=60, le=90 * DAY_SECONDS)] = 7 * DAY_SECONDS
    dispute_seconds: Annotated[int, msgspec.Meta(ge=60, le=90 * DAY_SECONDS)] = 30 * DAY_SECONDS
    # After the due date: a payer that has not paid by then is suspended, and its authorisation ends.
    grace_seconds: Annotated[int, msgspec.Meta(ge=60, le=90 * DAY_SECONDS)] = 3 * DAY_SECONDS
    lease_seconds_max: Annotated[int, msgspec.Meta(ge=1, le=DAY_SECONDS)] = 900
    lease_amount_max: Annotated[int, msgspec.Meta(ge=1, le=10**15)] = 10 * 10**DECIMALS
    offline_limit_seconds: Annotated[int, msgspec.Meta(ge=0, le=DAY_SECONDS)] = 900
    statement_decimals: Annotated[int, msgspec.Meta(ge=0, le=DECIMALS)] = DECIMALS
    payout_min: Annotated[int, msgspec.Meta(ge=1, le=10**15)] = 10_000


def payer_key(directory: str) -> int:
    """Give the number of a payer's account."""
    return _key(b"payer", directory)


def payee_key(name: str) -> int:
    """Give the number of a payee's account."""
    return _key(b"payee", name)


def upload_key(edge: str, epoch: int, sequence: int) -> int:
    """Give the number of an upload."""
    return _key(b"upload", f"{edge}/{epoch}/{sequence}")


def _key(kind: bytes, name: str) -> int:
    digest = hashlib.sha256(kind + b"\x00" + name.encode()).digest()
    return int.from_bytes(digest[:_KEY_SIZE_BYTES], "big") >> 1


def owner_of(key: int) -> str:
    """Write an account's number as the books have it."""
    return f"{key:016x}"


def statement_id(window: int, payer: int) -> str:
    """Name the one statement of a payer for a window: 26 characters, so that a bank's files take it, too."""
    return f"st-{window:06d}-{owner_of(payer)}"


def window_bounds(at_seconds: int, window_seconds: int) -> tuple[int, int]:
    """Give begin and end of the window around a time: multiples of its length since 1970, UTC."""
    begin = at_seconds - at_seconds % window_seconds
    return begin, begin + window_seconds


def room(*, credit_limit: int, prepaid: int, owed: int, leased: int) -> int:
    """Say how much more may be leased: limit and balance, less what is owed and what open leases may still spend."""
    return credit_limit + prepaid - owed - leased


def warns(*, credit_limit: int, prepaid: int, owed: int, leased: int) -> bool:
    """Say whether 80 % of the credit is in use."""
    return (owed + leased) * _PERCENT >= (credit_limit + prepaid) * WARN_PERCENT


def round_net(exact: int, statement_decimals: int) -> int:
    """Round a statement's exact sum to what its rail can pay, half to even: the one rounding of a statement."""
    unit = int("1" + "0" * (DECIMALS - statement_decimals))
    quotient, rest = divmod(exact, unit)
    if rest * 2 > unit or (rest * 2 == unit and quotient % 2):
        quotient += 1
    return quotient * unit
