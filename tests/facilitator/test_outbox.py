"""The outbox: stuck transactions replaced, foreign ones noticed, lost blocks booked back, depth and finality."""

from __future__ import annotations

import asyncio
import sqlite3
from itertools import pairwise
from typing import Any

import msgspec

from farthing.evm.addresses import parse_address
from farthing.evm.transactions import Transaction
from farthing.facilitator.store import (
    AcquireLease,
    OpenWallet,
    PlanTransactions,
    SignedVersion,
    StoreSigned,
    Version,
)
from farthing.protocol.facilitator import Refused, Settled, Unknown
from farthing.services.facilitator import FacilitatorService, read_config
from farthing.services.facilitator.lane import Pace
from farthing.world.facilitator_store import FacilitatorStore
from farthing.world.loop import run_blocking
from farthing.world.performers import Performer

AMOUNT = 12_345
GWEI = 10**9


def state_of(service: FacilitatorService) -> str:
    (record,) = service.books.payments()
    return record.state


def test_F2_signed_bytes_are_in_the_store_before_they_are_broadcast(pyevm: Any, recording_node: Any) -> None:
    stored: list[bool] = []

    def look(calls: list[dict[str, Any]]) -> None:
        for call in calls:
            if call["method"] == "eth_sendRawTransaction":
                at = sqlite3.connect(pyevm.folder / "facilitator.sqlite3")
                rows = at.execute("SELECT 1 FROM transaction_versions WHERE raw = ?", call["params"]).fetchall()
                stored.append(bool(rows))
                at.close()

    async def run() -> None:
        async with recording_node(pyevm.devnet) as node:
            node.before = look
            config = pyevm.config_text.replace(pyevm.devnet.url, node.url)
            async with pyevm.service(config=config) as service:
                settled = await asyncio.gather(
                    *(service.settle(*pyevm.payment(), idempotency_key="k") for _ in range(3))
                )
                assert all(isinstance(each, Settled) for each in settled)

    asyncio.run(run())
    assert stored
    assert all(stored)


def test_a_stuck_transaction_is_replaced_with_the_same_nonce_under_the_cap(pyevm: Any, eventually: Any) -> None:
    async def run() -> None:
        # Stuck at once: each step of the submitter raises the fee, until the cap leaves no room.
        async with pyevm.service(pace=Pace(stuck_seconds=0, work_seconds=0.01)) as service:
            (lane,) = service.lanes
            pyevm.devnet.set_automine(enabled=False)
            try:
                settling = asyncio.create_task(service.settle(*pyevm.payment(), idempotency_key="k"))
                await eventually(lambda: lane.entries and len(next(iter(lane.entries.values())).versions) >= 4)
                (entry,) = lane.entries.values()
                pyevm.devnet.mine()
            finally:
                pyevm.devnet.set_automine(enabled=True)
            outcome = await settling
            assert isinstance(outcome, Settled)
            fees = [version.max_fee_per_gas for version in entry.versions]
            assert all(later >= earlier * 110 // 100 for earlier, later in pairwise(fees))
            assert max(fees) <= 100 * GWEI
        assert pyevm.balance(pyevm.payee) == AMOUNT
        assert int(pyevm.devnet.rpc("eth_getTransactionCount", pyevm.wallet.address, "latest"), 16) == 1

    asyncio.run(run())


def test_the_fee_never_goes_over_the_cap_and_payments_wait_for_a_lower_base_fee(pyevm: Any, eventually: Any) -> None:
    config = pyevm.config_text.replace(
        'max_fee_per_gas_gwei = "100"', 'max_fee_per_gas_gwei = "0.000000001"\npriority_fee_per_gas_gwei = "0"'
    )

    async def run() -> None:
        payment = pyevm.payment()
        async with pyevm.service(config=config, settle_timeout_seconds=0.3) as service:
            outcome = await service.settle(*payment, idempotency_key="k")
            assert isinstance(outcome, Unknown)
            assert (outcome.reason, outcome.transaction) == ("settlement_pending", "")
            assert state_of(service) == "received"
        async with pyevm.service() as service:
            assert isinstance(await service.settle(*payment, idempotency_key="k"), Settled)

    asyncio.run(run())


def test_a_foreign_transaction_on_the_wallets_nonce_stops_the_wallet(
    pyevm: Any, eventually: Any, new_party: Any
) -> None:
    async def run() -> None:
        async with pyevm.service(settle_timeout_seconds=1) as service:
            (lane,) = service.lanes
            await eventually(lambda: lane.lease)
            pyevm.devnet.set_automine(enabled=False)
            try:
                settling = asyncio.create_task(service.settle(*pyevm.payment(), idempotency_key="k"))
                await eventually(lambda: lane.entries and next(iter(lane.entries.values())).state == "sent")
                foreign = Transaction(
                    chain_id=pyevm.devnet.chain_id,
                    nonce=0,
                    max_priority_fee_per_gas=50 * GWEI,
                    max_fee_per_gas=200 * GWEI,
                    gas_limit=21_000,
                    to=parse_address(pyevm.payee.address),
                )
                pyevm.devnet.rpc("eth_sendRawTransaction", "0x" + foreign.sign(pyevm.wallet.key).raw.hex())
                pyevm.devnet.mine()
                await eventually(lambda: lane.head and lane.head.number == pyevm.devnet.block_number())
                pyevm.devnet.mine(4)
            finally:
                pyevm.devnet.set_automine(enabled=True)
            await eventually(lambda: lane.stopped)
            health = await service.health()
            assert not health["ok"]
            assert "not ours" in health["networks"][pyevm.devnet.network]["wallets"][0]["stopped"]
            assert isinstance(await settling, Unknown)
            # Nothing more is signed: a second payment waits on record.
            waiting = await service.settle(*pyevm.payment(), idempotency_key="k2")
            assert isinstance(waiting, Unknown)
            assert waiting.transaction == ""
        assert pyevm.balance(pyevm.payee) == 0
        # With a new wallet on the same store both payments go on.
        pyevm.wallet = new_party()
        pyevm.devnet.faucet(pyevm.wallet.address, eth=10)
        async with pyevm.service() as service:
            await eventually(lambda: len(service.books.payments(state="confirmed")) == 2)

    asyncio.run(run())
    assert pyevm.balance(pyevm.payee) == 2 * AMOUNT


def test_a_wallet_without_gas_is_seen_in_the_health_and_goes_on_when_funded(
    pyevm: Any, eventually: Any, new_party: Any
) -> None:
    async def run() -> None:
        pyevm.wallet = new_party()
        pace = Pace(rebroadcast_seconds=0, work_seconds=0.05)
        async with pyevm.service(pace=pace) as service:
            settling = asyncio.create_task(service.settle(*pyevm.payment(), idempotency_key="k"))
            (lane,) = service.lanes
            await eventually(lambda: lane.unfunded)
            assert not (await service.health())["ok"]
            pyevm.devnet.faucet(pyevm.wallet.address, eth=1)
            assert isinstance(await settling, Settled)
            assert (await service.health())["ok"]

    asyncio.run(run())


def test_it_may_be_called_from_another_loop_than_its_own(pyevm: Any) -> None:
    service = pyevm.service()
    run_blocking(service.start())
    try:
        assert isinstance(asyncio.run(service.settle(*pyevm.payment(), idempotency_key="k")), Settled)
        assert len(asyncio.run(service.supported()).kinds) == 1
    finally:
        run_blocking(service.aclose())


def test_F3_a_lost_block_puts_the_payment_back_to_work_and_is_booked_back(world: Any, eventually: Any) -> None:
    async def run() -> None:
        async with world.service(pace=Pace(idle_seconds=0.05, work_seconds=0.05)) as service:
            payment = world.payment()
            with world.devnet.rewound():
                outcome = await service.settle(*payment, idempotency_key="k")
                assert isinstance(outcome, Settled)
                (lane,) = service.lanes
                first = await service.find(payment.payment_id)
                assert first is not None
                await eventually(lambda: lane.head and lane.head.number >= (first.block_number or 0))
                world.devnet.reorganise(1)
                # The same bytes are sent again, and mined in another block.
                await eventually(lambda: len(service.books.entries(payment.payment_id)) == 6)
                await eventually(lambda: state_of(service) == "confirmed")
                again = await service.find(payment.payment_id)
                assert again is not None
                assert again.transaction == first.transaction
                assert again.block_number != first.block_number
                assert world.balance(world.payee) == AMOUNT
                assert service.books.settled() == {payment.payment_id: AMOUNT}
                assert sum(service.books.balances().values()) == 0
                assert [row.reverses != "" for row in service.books.entries(payment.payment_id)].count(True) == 2

    asyncio.run(run())


def test_a_payment_is_confirmed_at_the_networks_depth_and_final_later(pyevm: Any, eventually: Any) -> None:
    config = pyevm.config_text.replace("rpc_urls", "confirmations = 3\nrpc_urls")

    async def run() -> None:
        async with pyevm.service(config=config, pace=Pace(idle_seconds=0.05, finality_seconds=0)) as service:
            payment = pyevm.payment()
            settling = asyncio.create_task(service.settle(*payment, idempotency_key="k"))
            (lane,) = service.lanes
            await eventually(lambda: lane.entries and next(iter(lane.entries.values())).state == "mined")
            assert state_of(service) == "in_batch"
            pyevm.devnet.mine(2)
            assert isinstance(await settling, Settled)
            pyevm.devnet.mine(200)
            await eventually(lambda: state_of(service) == "final")
            repeated = await service.settle(*payment, idempotency_key="k")
            assert isinstance(repeated, Settled)

    asyncio.run(run())


def test_a_payer_that_spends_its_money_elsewhere_is_refused_with_the_evidence(pyevm: Any, eventually: Any) -> None:
    async def run() -> None:
        async with pyevm.service() as service:
            everything = pyevm.requirements(amount=str(100 * 10**6))
            one, other = pyevm.payment(requirements=everything), pyevm.payment(requirements=everything)
            pyevm.devnet.set_automine(enabled=False)
            try:
                calls = [asyncio.create_task(service.settle(*each, idempotency_key="k")) for each in (one, other)]
                (lane,) = service.lanes
                await eventually(
                    lambda: sum(len(each.members) for each in lane.entries.values() if each.state == "sent") == 2
                )
                pyevm.devnet.mine()
            finally:
                pyevm.devnet.set_automine(enabled=True)
            outcomes = await asyncio.gather(*calls)
            assert sorted(type(each).__name__ for each in outcomes) == ["Refused", "Settled"]
            (refused,) = (each for each in outcomes if isinstance(each, Refused))
            assert refused.reason == "insufficient_funds"
        assert pyevm.balance(pyevm.payee) == 100 * 10**6

    asyncio.run(run())


def test_F5_a_process_without_the_lease_signs_nothing(pyevm: Any) -> None:
    async def run() -> None:
        async with pyevm.service() as first, pyevm.service() as second:
            payments = [pyevm.payment() for _ in range(6)]
            services = (first, second)
            outcomes = await asyncio.gather(
                *(services[at % 2].settle(*each, idempotency_key="k") for at, each in enumerate(payments))
            )
            assert all(isinstance(each, Settled) for each in outcomes)
            leases = [service.lanes[0].lease for service in services]
            assert [lease is not None for lease in leases].count(True) == 1
        assert pyevm.balance(pyevm.payee) == 6 * AMOUNT

    asyncio.run(run())


def test_F5_a_lease_that_changed_hands_stores_no_signature(pyevm: Any) -> None:
    store = FacilitatorStore(pyevm.folder / "leases.sqlite3")
    try:
        perform = Performer(store.handlers()).blocking
        place = ("eip155:1", "0xWallet")
        mine = perform(AcquireLease(*place, "me", now_seconds=100, until_seconds=110))
        assert (mine.held, mine.epoch) == (True, 1)
        assert perform(OpenWallet(*place, mine.epoch, 7))
        assert not perform(AcquireLease(*place, "you", now_seconds=110, until_seconds=120)).held
        yours = perform(AcquireLease(*place, "you", now_seconds=111, until_seconds=121))
        assert (yours.held, yours.epoch, yours.next_nonce) == (True, 2, 7)
        assert perform(PlanTransactions(*place, mine.epoch, 111, ())) is None
        version = SignedVersion(7, Version(1, "0x", "0x01", 1, 1, 111))
        assert perform(StoreSigned(*place, mine.epoch, (version,))) == frozenset()
        assert not perform(AcquireLease(*place, "me", now_seconds=112, until_seconds=130)).held
    finally:
        store.close()


def test_limits_are_read_from_the_configuration(pyevm: Any) -> None:
    config = read_config(pyevm.config_text + "\n[limits]\nsettle_timeout_seconds = 7.5\n")
    assert config.limits.settle_timeout_seconds == 7.5
    assert msgspec.structs.asdict(config.limits)["attempts_max"] == 3
