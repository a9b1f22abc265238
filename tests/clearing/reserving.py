"""What the tests of the guarantee say: guarantee, fund, let a payer default, cover, take out."""

from __future__ import annotations

from typing import Any

from money import CHAIN, came, issued, report
from town import DOLLAR, Crawler, House

from farthing.clearing.guarantee import CoverDefaults, FindReserve, FundReserve, GuaranteePayee, Reserve, TakeReserve
from farthing.clearing.store import Listing, ProvePayee, StatementRecord


def guarantee(house: House, payee: str = "news", *, on: bool = True) -> None:
    assert house.ask(GuaranteePayee(payee, on)) is True


def fund(house: House, amount: int, transaction: str = "0xfd") -> bool:
    """A deposit comes on chain, and the operator says that it is for the reserve."""
    report(house, came(transaction, amount))
    return bool(house.ask(FundReserve(CHAIN, transaction, 1, "USD", house.rules, house.now)))


def take(house: House, amount: int, request: str = "t1", payee: str = "ourselves") -> Any:
    return house.ask(TakeReserve(request, payee, amount, house.rules, house.now))


def default(house: House, record: StatementRecord) -> None:
    """The first second in which a statement can be covered."""
    house.now = max(record.due_at + house.rules.grace_seconds, record.dispute_until) + 1


def cover(house: House, read_until: int | None = None) -> Any:
    return house.ask(CoverDefaults("USD", house.rules, house.now if read_until is None else read_until, house.now))


def standing(house: House) -> tuple[int, int, int, int]:
    """What is in the reserve, owed to it, guaranteed, and in default without cover."""
    found: Reserve = house.ask(FindReserve("USD", house.rules, house.now))
    assert (found.amount, found.recourse) == (house.total("reserve"), house.total("recourse"))
    return found.amount, found.recourse, found.guaranteed, found.uncovered


def covers(house: House) -> list[tuple[str, int]]:
    return [(each["name"], each["amount"]) for each in house.ask(Listing("covers"))]


def defaulted(house: House, crawler: Crawler, *, funded: int = 10 * DOLLAR) -> StatementRecord:
    """Three dollars of a guaranteed payee, unpaid; nothing is covered yet."""
    house.open(crawler)
    house.ask(ProvePayee("news", "challenge", house.now))
    guarantee(house)
    fund(house, funded)
    record: StatementRecord = issued(house, crawler)
    default(house, record)
    return record


def nothing_below_zero(house: House) -> None:
    """Neither the reserve, nor what is owed to it, nor what payees are due before it is cleared."""
    kinds = ("reserve/", "recourse/", "accrued/", "held/")
    assert [name for name, amount in house.balances().items() if name.startswith(kinds) and amount < 0] == []
