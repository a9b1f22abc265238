"""F2 over PostgreSQL: a server that is killed, full, read-only or locked loses and doubles no payment."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any

import pytest
import server_trouble

from farthing.protocol.facilitator import Settled, Unknown
from farthing.services.facilitator.lane import Pace
from farthing.world import postgres_connection

if TYPE_CHECKING:
    from tests.facilitator.facilitator_world import World
    from tests.postgres_server import PostgresServer

AMOUNT = 12_345
QUICK = Pace(idle_seconds=0.05, work_seconds=0.05)
COUNT = 8
AWAY_SECONDS = 0.5


@pytest.fixture
def town(pyevm: World, postgres_url: str) -> World:
    pyevm.store = postgres_url
    return pyevm


def over_and_equal(service: Any, town: World, count: int) -> None:
    """No payment moves any more, and chain and ledger say the same."""
    assert {record.state for record in service.books.payments()} <= {"confirmed", "final"}
    settled = service.books.settled()
    assert list(settled.values()) == [AMOUNT] * count
    assert sum(service.books.balances().values()) == 0
    assert town.balance(town.payee) == count * AMOUNT
    assert service.lanes[0].stopped == ""


# A payment is being verified, its transaction is on its way to the node, or is looked for in a block.
@pytest.mark.parametrize("method", ["eth_estimateGas", "eth_sendRawTransaction", "eth_getTransactionReceipt"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGQUIT])
def test_F2_a_server_that_is_killed_under_payments_loses_and_doubles_none(  # noqa: PLR0917 - fixtures and places
    town: World, postgres_server: PostgresServer, recording_node: Any, eventually: Any, how: signal.Signals, method: str
) -> None:
    payments = [town.payment() for _ in range(COUNT)]

    async def run() -> None:
        loop = asyncio.get_running_loop()
        back = asyncio.Event()

        def come_back() -> None:
            postgres_server.start()
            back.set()

        def kill(calls: list[dict[str, Any]]) -> None:
            if not killed and any(call["method"] == method for call in calls):
                killed.append(method)
                postgres_server.stop(how)
                loop.call_later(AWAY_SECONDS, come_back)

        killed: list[str] = []
        async with recording_node(town.devnet) as node:
            config = town.config_text.replace(town.devnet.url, node.url)
            async with town.service(config=config, pace=QUICK) as service:
                node.before = kill
                outcomes = await asyncio.gather(*(service.settle(*each, idempotency_key="k") for each in payments))
                assert all(isinstance(each, Settled | Unknown) for each in outcomes), outcomes
                await asyncio.wait_for(back.wait(), 20)
                # What was put on record is settled with nobody asking; what was not is settled when it is asked for.
                moving = ("received", "ready", "in_batch")
                await eventually(lambda: not any(service.books.payments(state=state) for state in moving))
                outcomes = [await service.settle(*each, idempotency_key="k") for each in payments]
                assert all(isinstance(each, Settled) for each in outcomes), outcomes
                over_and_equal(service, town, COUNT)

    asyncio.run(run())


@pytest.mark.parametrize("trouble", server_trouble.ALL)
def test_F2_a_server_that_is_full_or_read_only_or_locked_loses_nothing_and_settles_nothing_twice(
    town: World, monkeypatch: pytest.MonkeyPatch, trouble: server_trouble.Trouble
) -> None:
    monkeypatch.setattr(postgres_connection, "STATEMENT_TIMEOUT_SECONDS", 1)
    payments = [town.payment() for _ in range(3)]

    async def run() -> None:
        async with town.service(pace=QUICK, settle_timeout_seconds=3) as service:
            assert isinstance(await service.settle(*town.payment(), idempotency_key="k"), Settled)
            with trouble(town.store, "payments"):
                outcomes = await asyncio.gather(*(service.settle(*each, idempotency_key="k") for each in payments))
            assert all(isinstance(each, Unknown) for each in outcomes), outcomes
            outcomes = await asyncio.gather(*(service.settle(*each, idempotency_key="k") for each in payments))
            assert all(isinstance(each, Settled) for each in outcomes), outcomes
            over_and_equal(service, town, 1 + len(payments))

    asyncio.run(run())
