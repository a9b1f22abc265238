"""Settlement on a real chain: F1 (success is told once), F4 (somebody else submits), F7 and F8 (refusals)."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import Any

import msgspec
import pytest

from farthing.evm.addresses import parse_address
from farthing.evm.calls import cancel_authorization_vrs, transfer_with_authorization_vrs
from farthing.evm.signatures import PrivateKey
from farthing.evm.transactions import Transaction
from farthing.evm.typed_data import CancelAuthorization, Domain
from farthing.facilitator.store import FindRecord, PaymentRecord
from farthing.mechanisms.exact_evm import ExactEvmFacilitator
from farthing.protocol.facilitator import DUPLICATE_SETTLEMENT, SETTLEMENT_PENDING, Refused, Settled, Unknown
from farthing.protocol.messages import SettlementResponse
from farthing.services.devnet import Devnet
from farthing.services.facilitator import FacilitatorService

AMOUNT = 12_345


def send(devnet: Devnet, account: tuple[str, str], to: str, data: bytes, *, tip_gwei: int = 1) -> str:
    """Send a transaction of somebody else's, as it stands, without waiting for its block."""
    address, secret = account
    key = PrivateKey.from_hex(secret)
    transaction = Transaction(
        chain_id=devnet.chain_id,
        nonce=int(devnet.rpc("eth_getTransactionCount", address, "pending"), 16),
        max_priority_fee_per_gas=tip_gwei * 10**9,
        max_fee_per_gas=100 * 10**9,
        gas_limit=200_000,
        to=parse_address(to),
        data=data,
    )
    return str(devnet.rpc("eth_sendRawTransaction", "0x" + transaction.sign(key).raw.hex()))


def calldata(payment: Any) -> bytes:
    detail = ExactEvmFacilitator().read(payment.payload).detail
    return transfer_with_authorization_vrs(detail.message, detail.signature)


def records(service: FacilitatorService) -> tuple[PaymentRecord, ...]:
    return service.books.payments()


def test_a_payment_is_settled_and_in_the_books(world: Any) -> None:
    async def run() -> None:
        async with world.service() as service:
            payment = world.payment()
            verdict = await service.verify(*payment)
            assert verdict.is_valid, verdict
            assert verdict.payer == world.payer.address
            assert records(service) == ()  # F1: a verification commits nothing
            outcome = await service.settle(*payment, idempotency_key="key")
            assert isinstance(outcome, Settled), outcome
            assert outcome.response.amount == str(AMOUNT)
            status = await service.find(payment.payment_id)
            assert status is not None
            assert status == await service.find(outcome.response.transaction)
            assert (status.state, status.transaction) == ("confirmed", outcome.response.transaction)
            assert status.gas_used is not None
            receipt = world.devnet.rpc("eth_getTransactionReceipt", outcome.response.transaction)
            assert int(receipt["blockNumber"], 16) == status.block_number
            assert world.balance(world.payee) == AMOUNT
            assert service.books.settled() == {payment.payment_id: AMOUNT}
            key = (world.devnet.network, world.devnet.usdc.lower())
            assert service.books.totals("payer") == {(*key, world.payer.address.lower()): AMOUNT}
            assert service.books.totals("payee") == {(*key, world.payee.address.lower()): AMOUNT}
            (gas,) = service.books.totals("gas").values()
            assert gas == int(receipt["gasUsed"], 16) * int(receipt["effectiveGasPrice"], 16)
            assert gas == 10 * 10**18 - world.devnet.eth_balance(world.wallet.address)
            assert sum(service.books.balances().values()) == 0

    asyncio.run(run())


def test_F1_of_ten_copies_in_parallel_one_is_told_success(world: Any) -> None:
    async def run() -> None:
        async with world.service() as service:
            payment = world.payment()
            calls = (service.settle(*payment, idempotency_key="") for _ in range(10))
            outcomes = await asyncio.gather(*calls)
            (settled,) = (each for each in outcomes if isinstance(each, Settled))
            refused = [each for each in outcomes if isinstance(each, Refused)]
            assert len(refused) == 9
            assert {each.reason for each in refused} == {DUPLICATE_SETTLEMENT}
            assert {each.transaction for each in refused} == {settled.response.transaction}
            # A day later, on another replica of the same store.
            async with world.service() as replica:
                later = await replica.settle(*payment, idempotency_key="")
                assert isinstance(later, Refused)
                assert (later.reason, later.transaction) == (DUPLICATE_SETTLEMENT, settled.response.transaction)
        assert world.balance(world.payee) == AMOUNT

    asyncio.run(run())


def test_F1_success_is_repeated_under_the_same_key_of_the_same_caller_alone(pyevm: Any) -> None:
    async def run() -> None:
        async with pyevm.service() as service:
            payment = pyevm.payment()
            parallel = (service.settle_as("shop", *payment, idempotency_key="k") for _ in range(3))
            answers = await asyncio.gather(*parallel)
            answers.append(await service.settle_as("shop", *payment, idempotency_key="k"))
            assert all(each.success for each in answers)
            for caller, key in (("shop", "other"), ("shop", ""), ("other", "k"), ("other", "")):
                answer = await service.settle_as(caller, *payment, idempotency_key=key)
                assert not answer.success
                assert answer.error_reason == DUPLICATE_SETTLEMENT
                assert answer.transaction == answers[0].transaction
        assert pyevm.balance(pyevm.payee) == AMOUNT

    asyncio.run(run())


def test_F1_a_pending_caller_gave_up_its_place_and_its_next_call_takes_it(pyevm: Any, eventually: Any) -> None:
    async def run() -> None:
        # Two replicas of one store: one soon gives up waiting, the other doesn't.
        async with pyevm.service(settle_timeout_seconds=0.2) as hasty, pyevm.service() as service:
            payment = pyevm.payment()
            pyevm.devnet.set_automine(enabled=False)
            try:
                first = await eventually(lambda: _pending(hasty, payment))
                stranger = await service.settle_as("stranger", *payment)
                assert stranger.error_reason == DUPLICATE_SETTLEMENT
                second = asyncio.create_task(service.settle_as("shop", *payment))
                await eventually(lambda: len(service.waiting))
                third = await service.settle_as("shop", *payment)
                assert (third.error_reason, third.transaction) == (DUPLICATE_SETTLEMENT, first.transaction)
                pyevm.devnet.mine()
            finally:
                pyevm.devnet.set_automine(enabled=True)
            answer = await second
            assert answer.success
            assert answer.transaction == first.transaction
            last = await service.settle_as("shop", *payment)
            assert last.error_reason == DUPLICATE_SETTLEMENT

    asyncio.run(run())


async def _pending(service: FacilitatorService, payment: Any) -> SettlementResponse | None:
    """Settle until the transaction is known: a busy machine may not have signed it at the first time-out."""
    answer = await service.settle_as("shop", *payment)
    assert (answer.success, answer.error_reason) == (False, SETTLEMENT_PENDING)
    return answer if answer.transaction else None


def test_F1_success_after_everybody_gave_up_is_told_to_the_next_call_once(pyevm: Any, eventually: Any) -> None:
    async def run() -> None:
        async with pyevm.service(settle_timeout_seconds=0.3) as service:
            payment = pyevm.payment()
            pyevm.devnet.set_automine(enabled=False)
            try:
                pending = await service.settle(*payment, idempotency_key="")
                assert isinstance(pending, Unknown)
                pyevm.devnet.mine()
            finally:
                pyevm.devnet.set_automine(enabled=True)
            await eventually(lambda: [each for each in records(service) if each.state == "confirmed"])
            outcomes = await asyncio.gather(*(service.settle(*payment, idempotency_key="") for _ in range(5)))
            assert [type(each) for each in outcomes].count(Settled) == 1
            assert [type(each) for each in outcomes].count(Refused) == 4

    asyncio.run(run())


def test_F1_another_payment_under_a_known_identity_never_gets_the_firsts_result(pyevm: Any) -> None:
    async def run() -> None:
        async with pyevm.service() as service:
            nonce = bytes(31) + b"\x07"
            first = pyevm.payment(nonce=nonce)
            settled = await service.settle(*first, idempotency_key="k")
            assert isinstance(settled, Settled)
            other_window = pyevm.payment(nonce=nonce, window_seconds=200)
            other_offer = msgspec.structs.replace(first.requirements, max_timeout_seconds=301)
            for payload, requirements in (
                (other_window.payload, other_window.requirements),
                (first.payload, other_offer),
            ):
                outcome = await service.settle(payload, requirements, idempotency_key="k")
                assert isinstance(outcome, Refused), outcome
                assert (outcome.reason, outcome.transaction) == (DUPLICATE_SETTLEMENT, "")

    asyncio.run(run())


def test_F4_somebody_else_submits_while_it_is_on_its_way(world: Any, eventually: Any) -> None:
    async def run() -> None:
        async with world.service() as service:
            payment = world.payment()
            world.devnet.set_automine(enabled=False)
            try:
                settling = asyncio.create_task(service.settle(*payment, idempotency_key="k"))
                await eventually(lambda: [each for each in records(service) if each.transaction])
                theirs = send(world.devnet, world.devnet.accounts[0], world.devnet.usdc, calldata(payment), tip_gwei=90)
                world.devnet.mine()
            finally:
                world.devnet.set_automine(enabled=True)
            outcome = await settling
            assert isinstance(outcome, Settled), outcome
            assert outcome.response.transaction == theirs
            assert world.balance(world.payee) == AMOUNT
            assert service.books.settled() == {payment.payment_id: AMOUNT}

    asyncio.run(run())


def test_F4_somebody_else_submits_while_it_waits_and_its_window_ends(world: Any, eventually: Any) -> None:
    low = 'max_fee_per_gas_gwei = "0.000000001"\npriority_fee_per_gas_gwei = "0"'
    waiting = world.config_text.replace('max_fee_per_gas_gwei = "100"', low)

    async def run() -> None:
        payment, other = world.payment(), world.payment()
        async with world.service(config=waiting, settle_timeout_seconds=0.3) as service:
            for each in (payment, other):
                assert isinstance(await service.settle(*each, idempotency_key=each.payment_id), Unknown)
        theirs = send(world.devnet, world.devnet.accounts[1], world.devnet.usdc, calldata(payment))
        world.devnet.wait_for_receipt(theirs)
        # As if a day were too little for a window: both are too late to be sent.
        async with world.service(window_left_min_seconds=86_400) as service:
            await eventually(lambda: {each.state for each in records(service)} <= {"confirmed", "final", "refused"})
            found = {each.payment_id: each for each in records(service)}
            assert found[payment.payment_id].state in {"confirmed", "final"}
            assert found[payment.payment_id].transaction == theirs
            assert found[other.payment_id].state == "refused"
            assert service.books.settled() == {payment.payment_id: AMOUNT}
        assert world.balance(world.payee) == AMOUNT

    asyncio.run(run())


def test_F4_spent_before_it_was_brought_here_is_refused_naming_the_transaction(world: Any) -> None:
    async def run() -> None:
        async with world.service() as service:
            payment = world.payment()
            theirs = send(world.devnet, world.devnet.accounts[1], world.devnet.usdc, calldata(payment))
            world.devnet.wait_for_receipt(theirs)
            outcome = await service.settle(*payment, idempotency_key="k")
            assert isinstance(outcome, Refused)
            assert outcome.transaction == theirs
            assert records(service) == ()
            assert world.balance(world.payee) == AMOUNT

    asyncio.run(run())


def test_F4_cancelled_while_it_is_on_its_way_is_refused_naming_the_transaction(world: Any, eventually: Any) -> None:
    async def run() -> None:
        async with world.service() as service:
            payment = world.payment()
            detail = ExactEvmFacilitator().read(payment.payload).detail
            cancel = CancelAuthorization(detail.message.from_, detail.message.nonce)
            domain = Domain("USDC", "2", world.devnet.chain_id, detail.token)
            data = cancel_authorization_vrs(cancel, world.payer.key.sign_digest(cancel.digest(domain)))
            world.devnet.set_automine(enabled=False)
            try:
                settling = asyncio.create_task(service.settle(*payment, idempotency_key="k"))
                await eventually(lambda: [each for each in records(service) if each.transaction])
                theirs = send(world.devnet, world.devnet.accounts[2], world.devnet.usdc, data, tip_gwei=90)
                world.devnet.mine()
            finally:
                world.devnet.set_automine(enabled=True)
            outcome = await settling
            assert isinstance(outcome, Refused), outcome
            assert outcome.transaction == theirs
            assert world.balance(world.payee) == 0
            assert service.books.settled() == {}
            repeated = await service.settle(*payment, idempotency_key="")
            assert repeated == outcome

    asyncio.run(run())


CODES: dict[str, dict[str, Any]] = {
    "invalid_exact_evm_payload_authorization_value_mismatch": {"amount": "12346"},
    "invalid_exact_evm_payload_recipient_mismatch": {"pay_to": "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"},
    "unsupported_scheme": {"scheme": "upto"},
    "invalid_network": {"network": "eip155:8453"},
    "invalid_payment_requirements": {"asset": "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"},
    "invalid_exact_evm_token_name_mismatch": {"extra": {"name": "USD Coin", "version": "2"}},
    "invalid_exact_evm_token_version_mismatch": {"extra": {"name": "USDC", "version": "1"}},
}


def test_F7_what_is_not_as_required_is_refused_with_the_protocols_code(pyevm: Any) -> None:
    async def run() -> None:
        async with pyevm.service() as service:
            payment = pyevm.payment()
            for code, change in CODES.items():
                requirements = msgspec.structs.replace(payment.requirements, **change)
                verdict = await service.verify(payment.payload, requirements)
                assert (verdict.is_valid, verdict.invalid_reason) == (False, code)
                outcome = await service.settle(payment.payload, requirements, idempotency_key="k")
                assert isinstance(outcome, Refused)
                assert outcome.reason == code
            elsewhere = pyevm.payment(requirements=pyevm.requirements(asset=pyevm.devnet.multicall3))
            verdict = await service.verify(*elsewhere)
            assert verdict.invalid_reason == "invalid_payment_requirements"
            assert "does not settle the asset" in (verdict.invalid_message or "")
            poor = pyevm.payment(requirements=pyevm.requirements(amount=str(101 * 10**6)))
            assert (await service.verify(*poor)).invalid_reason == "insufficient_funds"
            forged = pyevm.payment(from_=parse_address(pyevm.payee.address))
            assert (await service.verify(*forged)).invalid_reason == "invalid_exact_evm_payload_signature"
            mangled = msgspec.structs.replace(payment.payload, payload=msgspec.Raw(b'{"signature": 1}'))
            assert (await service.verify(mangled, payment.requirements)).invalid_reason == "invalid_payload"
            assert records(service) == ()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("window", "code", "words"),
    [
        ({"window_seconds": 2}, "valid_before", "a settlement needs"),
        ({"window_seconds": -600}, "valid_before", "clock skew"),
        ({"window_seconds": 300 + 600}, "valid_before", "clock skew"),
        ({"window_seconds": 86_400}, "valid_before", "allows"),
        ({"window_seconds": 900, "valid_after": 2**40}, "valid_after", "opens in"),
    ],
)
def test_F8_windows_that_cannot_be_settled_are_refused_with_a_reason(
    pyevm: Any, window: Any, code: str, words: str
) -> None:
    async def run() -> None:
        async with pyevm.service() as service:
            verdict = await service.verify(*pyevm.payment(**window))
            assert not verdict.is_valid
            assert verdict.invalid_reason == f"invalid_exact_evm_payload_authorization_{code}"
            assert words in (verdict.invalid_message or "")

    asyncio.run(run())


def test_C1_the_database_refuses_to_edit_the_ledger(pyevm: Any) -> None:
    async def run() -> None:
        async with pyevm.service() as service:
            assert isinstance(await service.settle(*pyevm.payment(), idempotency_key="k"), Settled)

    asyncio.run(run())
    at = sqlite3.connect(pyevm.folder / "facilitator.sqlite3")
    try:
        for statement in (
            "UPDATE ledger_entries SET amount = '1'",
            "DELETE FROM ledger_entries",
            "UPDATE ledger_transfers SET booked_at = 0",
            "DELETE FROM ledger_transfers",
        ):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                at.execute(statement)
    finally:
        at.close()


def test_F1_a_copy_that_is_verified_after_the_payment_was_settled_is_a_repeat(pyevm: Any) -> None:
    async def run() -> None:
        async with pyevm.service() as service:
            payment = pyevm.payment()
            first = await service.settle(*payment, idempotency_key="one")
            assert isinstance(first, Settled), first
            perform = service._perform
            looked: list[str] = []

            async def late(effect: Any) -> Any:
                # It was looked for before the payment was on record, and verified after it was settled.
                if isinstance(effect, FindRecord):
                    looked.append(effect.payment_id)
                    if len(looked) == 1:
                        return None
                return await perform(effect)

            service._perform = late
            second = await service.settle(*payment, idempotency_key="two")
            assert isinstance(second, Refused), second
            assert (second.reason, second.transaction) == (DUPLICATE_SETTLEMENT, first.response.transaction)
            assert len(looked) >= 2

    asyncio.run(run())
    assert pyevm.balance(pyevm.payee) == AMOUNT
