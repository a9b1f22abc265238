"""Joined settlement: one transaction for what waits together, each payment with its own verdict (F1, F4, F5, F6)."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from farthing.evm.abi import pack_address
from farthing.evm.addresses import parse_address
from farthing.evm.calls import (
    MULTICALL3,
    Call3,
    aggregate3,
    cancel_authorization_vrs,
    transfer,
    transfer_with_authorization_vrs,
)
from farthing.evm.transactions import Transaction
from farthing.evm.typed_data import CancelAuthorization, Domain
from farthing.facilitator.joining import JOINED_GAS_MAX, group, settling_call
from farthing.facilitator.store import PaymentRecord
from farthing.mechanisms.exact_evm import ExactEvmFacilitator
from farthing.protocol.facilitator import Refused, Settled
from farthing.services.devnet.contracts import load_contract
from farthing.services.facilitator import FacilitatorService

AMOUNT = 12_345
GWEI = 10**9
ROOT = Path(__file__).parents[2]

members = st.tuples(st.integers(50_000, 2_000_000), st.booleans(), st.integers(0, 1))


def record(number: int, gas_limit: int, alone: bool, attempts: int) -> PaymentRecord:  # noqa: FBT001 - one row
    return PaymentRecord(
        payment_id=f"pay_{number}",
        state="ready",
        scheme="exact",
        network="eip155:1",
        asset="0x",
        payer="0x",
        pay_to="0x",
        amount=1,
        valid_before=2**40,
        fingerprint="",
        requirements_print="",
        created_at=1,
        recorded_block=1,
        gas_limit=gas_limit,
        alone=alone,
        attempts=attempts,
    )


@given(st.lists(members, max_size=60), st.integers(1, 100))
def test_everybody_goes_once_and_whoever_must_goes_alone(rows: list[Any], members_max: int) -> None:
    records = {f"pay_{number}": record(number, *row) for number, row in enumerate(rows)}
    groups = group(records.values(), members_max=members_max)
    assert sorted(each for some in groups for each in some) == sorted(records)
    for some in groups:
        assert 1 <= len(some) <= members_max
        assert len(some) == 1 or not any(records[each].alone or records[each].attempts for each in some)
        assert len(some) == 1 or sum(records[each].gas_limit for each in some) <= JOINED_GAS_MAX
        numbers = [int(each.removeprefix("pay_")) for each in some]
        assert numbers == sorted(numbers)


def test_F6_a_joined_call_may_fail_alone_and_nothing_is_granted_to_multicall() -> None:
    token = "0x74a0a6f9847Fce4d19bcc126ec285DcF51Af9C82"
    assert settling_call(((token, b"one"),)) == (token, b"one")
    to, data = settling_call(((token, b"one"), (token, b"two")))
    assert parse_address(to) == MULTICALL3
    calls = tuple(Call3(parse_address(token), each, allow_failure=True) for each in (b"one", b"two"))
    assert data == aggregate3(calls)


def transactions(world: Any) -> list[tuple[int, int]]:
    """The outbox's transactions: (nonce, members)."""
    at = sqlite3.connect(world.folder / "facilitator.sqlite3")
    try:
        query = "SELECT nonce, count(*) FROM transaction_members GROUP BY wallet, nonce ORDER BY wallet, nonce"
        return at.execute(query).fetchall()
    finally:
        at.close()


def send(world: Any, key: Any, to: str | None, data: bytes, *, tip_wei: int = GWEI, gas_limit: int = 200_000) -> str:
    """Send somebody else's transaction."""
    transaction = Transaction(
        chain_id=world.devnet.chain_id,
        nonce=int(world.devnet.rpc("eth_getTransactionCount", key.address, "latest"), 16),
        max_priority_fee_per_gas=tip_wei,
        max_fee_per_gas=100 * GWEI,
        gas_limit=gas_limit,
        to=b"" if to is None else parse_address(to),
        data=data,
    )
    return str(world.devnet.rpc("eth_sendRawTransaction", "0x" + transaction.sign(key).raw.hex()))


def begin(service: FacilitatorService, payments: list[Any]) -> list[asyncio.Task[Any]]:
    return [asyncio.create_task(service.settle(*each, idempotency_key="k")) for each in payments]


def test_payments_that_wait_together_share_one_transaction(world: Any, eventually: Any, held_wallet: Any) -> None:
    async def run() -> None:
        payments = [world.payment() for _ in range(5)]
        with held_wallet(world) as let_go:
            async with world.service() as service:
                calls = begin(service, payments)
                await eventually(lambda: len(service.books.payments(state="received")) == 5)
                let_go()
                outcomes = await asyncio.gather(*calls)
                assert all(isinstance(each, Settled) for each in outcomes), outcomes
                assert len({each.response.transaction for each in outcomes}) == 1
                assert transactions(world) == [(0, 5)]
                assert service.books.settled() == {each.payment_id: AMOUNT for each in payments}
                # The gas is in the books once, as the chain took it.
                (gas,) = service.books.totals("gas").values()
                assert gas == 10 * 10**18 - world.devnet.eth_balance(world.wallet.address)
                assert sum(service.books.balances().values()) == 0
                # The transaction is the name of none of them.
                assert await service.find(outcomes[0].response.transaction) is None
                status = await service.find(payments[0].payment_id)
                assert status is not None
                assert status.transaction == outcomes[0].response.transaction
                log_indexes = {each.log_index for each in service.books.payments()}
                assert len(log_indexes) == 5
        assert world.balance(world.payee) == 5 * AMOUNT

    asyncio.run(run())


def test_F4_one_bad_authorisation_spoils_nobodys(world: Any, eventually: Any, held_wallet: Any, new_party: Any) -> None:
    """Five together: two good, one cancelled, one submitted by somebody else, one whose payer spent its money."""

    async def run() -> None:
        rich, poor, stranger = new_party(), new_party(), new_party()
        for party in (rich, poor, stranger):
            world.devnet.faucet(party.address, usdc=1, eth=1)
        cancelled, taken, spent = world.payment(), world.payment(payer=rich), world.payment(payer=poor)
        good = [world.payment(), world.payment()]
        everything = [good[0], cancelled, taken, spent, good[1]]
        with held_wallet(world) as let_go:
            async with world.service() as service:
                calls = begin(service, everything)
                await eventually(lambda: len(service.books.payments(state="received")) == 5)
                world.devnet.mine()
                detail = ExactEvmFacilitator().read(cancelled.payload).detail
                cancel = CancelAuthorization(detail.message.from_, detail.message.nonce)
                domain = Domain("USDC", "2", world.devnet.chain_id, detail.token)
                signature = world.payer.key.sign_digest(cancel.digest(domain))
                call = cancel_authorization_vrs(cancel, signature)
                cancelling = send(world, stranger.key, world.devnet.usdc, call)
                world.devnet.wait_for_receipt(cancelling)
                theirs = ExactEvmFacilitator().read(taken.payload).detail
                call = transfer_with_authorization_vrs(theirs.message, theirs.signature)
                taking = send(world, stranger.key, world.devnet.usdc, call)
                away = transfer(parse_address(stranger.address), 10**6)
                for sent in (taking, send(world, poor.key, world.devnet.usdc, away)):
                    world.devnet.wait_for_receipt(sent)
                let_go()
                first, no, other, broke, last = await asyncio.gather(*calls)
            assert transactions(world)[0] == (0, 5)
        assert isinstance(first, Settled)
        assert isinstance(last, Settled)
        assert first.response.transaction == last.response.transaction
        assert isinstance(other, Settled)
        assert other.response.transaction == taking
        assert isinstance(no, Refused)
        assert no.transaction == cancelling
        assert isinstance(broke, Refused)
        assert broke.reason == "insufficient_funds"
        assert world.balance(world.payee) == 3 * AMOUNT

    asyncio.run(run())


def test_a_payment_whose_call_failed_is_tried_again_alone(
    pyevm: Any, eventually: Any, held_wallet: Any, new_party: Any
) -> None:
    """A payer is without its money for a moment: in the block of the joined transaction, before it and not after it."""

    async def run() -> None:
        payer, sink = new_party(), new_party()
        for party in (payer, sink):
            pyevm.devnet.faucet(party.address, usdc=1, eth=1)
        late = pyevm.payment(payer=payer)
        with held_wallet(pyevm) as let_go:
            async with pyevm.service() as service:
                calls = begin(service, [pyevm.payment(), late, pyevm.payment()])
                await eventually(lambda: len(service.books.payments(state="received")) == 3)
                pyevm.devnet.set_automine(enabled=False)
                try:
                    let_go()
                    (lane,) = service.lanes
                    await eventually(lambda: [each.state for each in lane.entries.values()] == ["sent"])
                    # Ordered by their tips: away before ours, and back after it.
                    away, back = (transfer(parse_address(each.address), 10**6) for each in (sink, payer))
                    send(pyevm, payer.key, pyevm.devnet.usdc, away, tip_wei=50 * GWEI)
                    send(pyevm, sink.key, pyevm.devnet.usdc, back, tip_wei=1)
                    pyevm.devnet.mine()
                finally:
                    pyevm.devnet.set_automine(enabled=True)
                outcomes = await asyncio.gather(*calls)
                assert all(isinstance(each, Settled) for each in outcomes), outcomes
                (again,) = (each for each in service.books.payments() if each.payment_id == late.payment_id)
                assert (again.attempts, again.nonce) == (1, 1)
        assert transactions(pyevm) == [(0, 3), (1, 1)]
        assert pyevm.balance(pyevm.payee) == 3 * AMOUNT

    asyncio.run(run())


def test_F6_a_payer_with_code_goes_alone_beside_the_others(
    pyevm: Any, eventually: Any, held_wallet: Any, new_party: Any
) -> None:
    owner = new_party()
    pyevm.devnet.faucet(owner.address, eth=1)
    init_code = bytes.fromhex(load_contract("Wallet").init_code[2:]) + pack_address(parse_address(owner.address))
    deployed = pyevm.devnet.wait_for_receipt(send(pyevm, owner.key, None, init_code, gas_limit=2_000_000))
    contract = deployed["contractAddress"]
    pyevm.devnet.faucet(contract, usdc=1)

    async def run() -> None:
        theirs = pyevm.payment(payer=owner, from_=parse_address(contract))
        with held_wallet(pyevm) as let_go:
            async with pyevm.service() as service:
                calls = begin(service, [pyevm.payment(), theirs, pyevm.payment()])
                await eventually(lambda: len(service.books.payments(state="received")) == 3)
                let_go()
                outcomes = await asyncio.gather(*calls)
                assert all(isinstance(each, Settled) for each in outcomes), outcomes
                records = {each.payment_id: each for each in service.books.payments()}
                assert [each.alone for each in records.values()].count(True) == 1
                assert records[theirs.payment_id].alone
                shared = [each.nonce for each in records.values()].count(records[theirs.payment_id].nonce)
                assert shared == 1
        assert sorted(count for _, count in transactions(pyevm)) == [1, 2]
        assert pyevm.balance(pyevm.payee) == 3 * AMOUNT

    asyncio.run(run())


def test_the_gas_of_a_hundred_joined_payments_is_at_most_62_percent_of_single_ones(anvil_program: str) -> None:
    assert anvil_program
    program = "from bench.joined_gas import run; (figure,) = run(); print(figure.to_text()); assert figure.met"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    sys.stdout.write(done.stdout)


def test_batches_are_bounded_and_one_turns_joining_off(pyevm: Any, eventually: Any, held_wallet: Any) -> None:
    async def run(joined_max: int, sizes: list[int]) -> None:
        with held_wallet(pyevm) as let_go:
            async with pyevm.service(joined_payments_max=joined_max) as service:
                calls = begin(service, [pyevm.payment() for _ in range(5)])
                await eventually(lambda: len(service.books.payments(state="received")) == 5)
                let_go()
                assert all(isinstance(each, Settled) for each in await asyncio.gather(*calls))
        assert [count for _, count in transactions(pyevm)][-len(sizes) :] == sizes

    asyncio.run(run(2, [2, 2, 1]))
    asyncio.run(run(1, [1] * 5))


def test_a_network_without_multicall_settles_singly(
    pyevm: Any, eventually: Any, held_wallet: Any, recording_node: Any
) -> None:
    asked: list[str] = []

    def lie(call: dict[str, Any], result: Any) -> Any:
        if call["method"] != "eth_getCode" or parse_address(call["params"][0]) != MULTICALL3:
            return result
        asked.append(call["method"])
        return "0x"

    async def run() -> None:
        async with recording_node(pyevm.devnet) as node:
            node.lie = lie
            config = pyevm.config_text.replace(pyevm.devnet.url, node.url)
            with held_wallet(pyevm) as let_go:
                async with pyevm.service(config=config) as service:
                    calls = begin(service, [pyevm.payment() for _ in range(3)])
                    await eventually(lambda: len(service.books.payments(state="received")) == 3)
                    let_go()
                    assert all(isinstance(each, Settled) for each in await asyncio.gather(*calls))
        assert asked == ["eth_getCode"]  # once, when the lease was taken
        assert transactions(pyevm) == [(0, 1), (1, 1), (2, 1)]

    asyncio.run(run())
