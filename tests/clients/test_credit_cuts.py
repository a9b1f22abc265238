"""A purchase on credit, cut at every effect: what was recorded is presented again, and nothing twice (B1)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from farthing.buyer import PaidAnswer, PaidRequest, PaymentDemand, Policy, describe_request
from farthing.clients import Buyer
from farthing.clients.buyer import Exchange
from farthing.errors import PaymentUnknown
from farthing.flow import Effect, Flow, drive
from farthing.world.agent_keys import AgentSigner
from farthing.world.directories import Directories

if TYPE_CHECKING:
    from tests.clients.publisher import AGENT_KEY, AGENT_ORIGIN, NETWORK, Publisher, publishing
else:
    from publisher import AGENT_KEY, AGENT_ORIGIN, NETWORK, Publisher, publishing


class Cut(BaseException):
    """The process is told to stop."""


@pytest.fixture(scope="module")
def publisher() -> Iterator[Publisher]:
    with publishing() as found:
        yield found


def buyer_of(publisher: Publisher, path: Path) -> Buyer:
    return Buyer(
        agent=AgentSigner(AGENT_ORIGIN, AGENT_KEY),
        policy=Policy(networks=[NETWORK], per_request="$0.01", private_hosts=["127.0.0.1"]),
        journal=path / "journal",
        directories=Directories(allowed=[publisher.origin]),
    )


def pay(publisher: Publisher, buyer: Buyer, cut_at: int, *, after: bool) -> tuple[PaidRequest | None, int]:
    """From the 402 to the paid request, cut before or after an effect; how many effects there were."""
    url = publisher.origin + "/a"
    seen = 0

    def perform(effect: Effect[Any]) -> Any:
        nonlocal seen
        seen += 1
        if seen == cut_at and not after:
            raise Cut
        answer = exchange._perform(effect)
        if seen == cut_at:
            raise Cut
        return answer

    with Exchange(buyer, describe_request("GET", url, b"")) as exchange:
        flow: Flow[PaidRequest] = exchange.pay(PaymentDemand(publisher.required(url)))
        try:
            paid = drive(flow, perform)
        except Cut:
            return None, seen
        # What happens to the answer is another matter: here it is lost.
        drive(_lost(exchange), exchange._perform)
        return paid, seen


def _lost(exchange: Exchange) -> Flow[None]:
    with contextlib.suppress(PaymentUnknown):
        yield from exchange.conclude(PaidAnswer(503))


@pytest.mark.parametrize("after", [False, True])
def test_B1_a_promise_that_was_recorded_is_the_only_one_wherever_it_is_cut(
    publisher: Publisher,
    tmp_path: Path,
    after: bool,  # noqa: FBT001
) -> None:
    with buyer_of(publisher, tmp_path / "whole") as buyer:
        _, effects = pay(publisher, buyer, 0, after=after)
    assert effects > 5
    for cut_at in range(1, effects + 1):
        with buyer_of(publisher, tmp_path / str(cut_at)) as buyer:
            pay(publisher, buyer, cut_at, after=after)
            recorded = [each.promise for each in buyer.journal.promises()]
            paid, _ = pay(publisher, buyer, 0, after=after)
            assert paid is not None
            assert paid.promise is not None
            (now,) = buyer.journal.promises()
            assert now.promise == paid.promise
            assert recorded in ([], [paid.promise])
            # One place in the budget; a reservation that was cut before it was signed is swept a minute later.
            assert buyer.journal.used() <= (2 if recorded else 4) * 10**15
