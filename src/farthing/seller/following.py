"""Following: what was settled and served is in the books for good when its block is, and not before (SAFETY F3, C1).

Each payment is asked about when its window and the horizon are over, just before it would go into the archive: nothing
can be refused for good earlier, and nothing is written for one that is final. One whose block was lost is UNKNOWN again
and is served to nobody; it ends where it was, or as a LOSS with the ledger's contrary entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from farthing.errors import FacilitatorUnavailable, FarthingError
from farthing.flow import Effect, Flow, Now
from farthing.protocol.codec import encode_json
from farthing.protocol.facilitator import PAYMENTS_MAX, FindPayments, PaymentStatus
from farthing.protocol.messages import SettlementResponse
from farthing.seller.settling import FOUND_FINAL, FOUND_REFUSED, FOUND_SETTLED, HORIZON_SECONDS
from farthing.seller.states import State
from farthing.seller.store import Advance, IsOurs, LedgerEntry

# Payments of one round: as many as the archive takes, in a few questions.
FOLLOW_MAX: Final = 500
# How soon one that is not final is looked up again.
LOOK_AGAIN_SECONDS: Final = 60
# One of which nobody tells for a day, or that is not called final for so long, stays as it is.
UNTOLD_SECONDS: Final = 86_400
# The reason on a settled payment that waits for its buyer and is not asked about any more.
OVER_REASON: Final = "followed"
# What an entry's transaction is called that takes another back: for the time being, and for good.
LOST_PREFIX: Final = "lost:"
LOSS_PREFIX: Final = "loss:"

_IN_DOUBT: Final[Mapping[State, State]] = MappingProxyType(
    {State.SETTLED: State.UNKNOWN_SETTLED, State.DELIVERED: State.UNKNOWN_DELIVERED}
)
_BACK: Final[Mapping[State, State]] = MappingProxyType({doubt: good for good, doubt in _IN_DOUBT.items()})


class Followed(msgspec.Struct, frozen=True):
    """A settled payment that is not known to be final.

    `is_booked`: the ledger has an entry for its transaction, which was not taken back; `was_taken_back`: it was.
    """

    claim: int
    payment_id: str
    state: State
    epoch: int
    valid_before: int
    network: str
    asset: str
    payer: str
    pay_to: str
    amount: int
    transaction: str
    is_booked: bool
    was_taken_back: bool = False


class FindFollowed(Effect["tuple[Followed, ...]"], frozen=True):
    """Find payments that were settled, are not known to be final, and have `valid_before` under `closing_before`.

    By their claims' numbers, those over `after`, at most `limit`; none whose lease lasts.
    """

    now_seconds: int
    closing_before: int
    after: int
    limit: int


class Followings(msgspec.Struct, frozen=True):
    """What a round came to: the claims that may go into the archive, and how many payments were moved."""

    over: tuple[int, ...]
    moved: int
    # Ids of payments that ended as a loss in this round.
    losses: tuple[str, ...] = ()
    # Behind which claim the next round begins: what is looked at and not moved keeps nothing behind it waiting.
    next_after: int = 0


def follow(*, after: int = 0, limit: int = FOLLOW_MAX) -> Flow[Followings]:
    """Ask what became of payments that were settled a while ago, and move those that are not settled any more."""
    now_seconds = yield from Now()
    found = yield from FindFollowed(now_seconds, now_seconds - HORIZON_SECONDS, after, limit)
    over: list[int] = []
    losses: list[str] = []
    moved = 0
    next_after = found[-1].claim if len(found) == limit else 0
    is_whole = True
    for start in range(0, len(found), PAYMENTS_MAX):
        page = found[start : start + PAYMENTS_MAX]
        told, patience_seconds = yield from _ask(page)
        if is_whole and told and len(told) < len(page):
            # It was asked about the first of them: the next round begins behind those.
            is_whole, next_after = False, page[len(told) - 1].claim
        for each in page:
            status = _status_of(each, told)
            if _stays(each, status, now_seconds - HORIZON_SECONDS - patience_seconds):
                over.append(each.claim)
                step = _move(each, State.SETTLED, reason=OVER_REASON) if each.state is State.SETTLED else None
            elif told is None or each.payment_id not in told:
                continue
            else:
                is_old = each.valid_before < now_seconds - HORIZON_SECONDS - patience_seconds
                step = _next_move(each, status, now_seconds=now_seconds, is_old=is_old)
            if step is None:
                continue
            try:
                made = yield from step
            except FarthingError:
                # The others are not to wait for one row; it is found again in the next round.
                made = False
            moved += made
            if made and step.target is State.LOSS:
                losses.append(each.payment_id)
    return Followings(tuple(over), moved, tuple(losses), next_after)


def _ask(page: tuple[Followed, ...]) -> Flow[tuple[dict[str, PaymentStatus | None] | None, int]]:
    """Ask about a page; None where nobody told. Also how long one may stay untold until it is let go, in seconds."""
    try:
        told = yield from FindPayments(tuple(each.payment_id for each in page))
    except FacilitatorUnavailable:
        # One that is there and takes no keys has no `/payments` either: it will never tell.
        never_tells = (yield from IsOurs(page[0].payment_id, "")) is True
        return None, 0 if never_tells else UNTOLD_SECONDS
    return told, UNTOLD_SECONDS


def _status_of(each: Followed, told: dict[str, PaymentStatus | None] | None) -> PaymentStatus | None:
    """Give what is told of a payment, if it is about this one."""
    status = None if told is None else told.get(each.payment_id)
    if status is None:
        return None
    same = status.pays(network=each.network, asset=each.asset, pay_to=each.pay_to, amount=each.amount)
    return status if same else None


def _stays(each: Followed, status: PaymentStatus | None, untold_before: int) -> bool:
    """Whether a payment is final, or will not be heard of any more: it may go as it is."""
    if each.state not in _IN_DOUBT:
        return False
    if status is None:
        return each.valid_before < untold_before
    if status.transaction != each.transaction:
        return False
    return status.state in FOUND_FINAL or (status.state in FOUND_SETTLED and each.valid_before < untold_before)


def _next_move(each: Followed, status: PaymentStatus | None, *, now_seconds: int, is_old: bool) -> Advance | None:
    """Say what is to be put on record of a payment, one step at a time; None: nothing."""
    if status is None:
        return _look_again(each, now_seconds)
    if status.state in FOUND_REFUSED:
        return _lose(each, status, now_seconds)
    is_settled = status.state in FOUND_SETTLED and status.transaction != ""
    if each.state in _BACK:
        if status.transaction != each.transaction:
            # Two forks may take turns: the books follow when it is known which of them holds.
            is_settled = is_settled and (status.state in FOUND_FINAL or is_old)
        elif each.was_taken_back:
            # It was final that another had settled it, and now it is not: no entry stands for such a thing.
            is_settled = False
        return _back(each, status, now_seconds) if is_settled else _look_again(each, now_seconds)
    if not is_settled or status.transaction != each.transaction:
        return _move(each, _IN_DOUBT[each.state], take_over=True)
    return _look_again(each, now_seconds)


def _look_again(each: Followed, now_seconds: int) -> Advance | None:
    # The lease of a settled payment is its delivery's: who asks for that must not be kept waiting.
    if each.state is State.SETTLED:
        return None
    return _move(each, each.state, lease_until=now_seconds + LOOK_AGAIN_SECONDS)


def _lose(each: Followed, status: PaymentStatus, now_seconds: int) -> Advance:
    """Book a loss. Where nothing is booked of its transaction nothing is to be taken back."""
    entry = _contrary(each, LOSS_PREFIX, now_seconds) if each.is_booked else None
    return _move(each, State.LOSS, take_over=True, reason=status.reason or "refused", entry=entry)


def _back(each: Followed, status: PaymentStatus, now_seconds: int) -> Advance:
    """Move a payment back that is settled again; by another transaction, the books take the first one back before."""
    if status.transaction != each.transaction:
        entry = _contrary(each, LOST_PREFIX, now_seconds) if each.is_booked else None
        return _move(each, each.state, transaction=status.transaction, entry=entry)
    if each.is_booked:
        return _move(each, _BACK[each.state], take_over=True)
    response = SettlementResponse(success=True, transaction=status.transaction, network=each.network, payer=each.payer)
    entry = _entry(each, each.payer, each.pay_to, status.transaction, now_seconds)
    return _move(each, _BACK[each.state], take_over=True, entry=entry, receipt=encode_json(response).decode())


def _contrary(each: Followed, prefix: str, now_seconds: int) -> LedgerEntry:
    return _entry(each, each.pay_to, each.payer, prefix + each.transaction, now_seconds)


def _entry(each: Followed, payer: str, pay_to: str, transaction: str, now_seconds: int) -> LedgerEntry:
    return LedgerEntry(
        network=each.network,
        asset=each.asset,
        payer=payer,
        pay_to=pay_to,
        amount=each.amount,
        transaction=transaction,
        posted_at=now_seconds,
    )


def _move(
    each: Followed,
    target: State,
    *,
    take_over: bool = False,
    lease_until: int = 0,
    transaction: str = "",
    reason: str = "",
    receipt: str = "",
    entry: LedgerEntry | None = None,
) -> Advance:
    # What is kept for a repeat is kept until the archive takes it.
    return Advance(
        each.payment_id,
        each.epoch,
        each.state,
        target,
        lease_until=lease_until,
        take_over=take_over,
        transaction=transaction,
        reason=reason,
        receipt=receipt,
        entry=entry,
        claim=each.claim,
        keep=target is not State.LOSS,
    )
