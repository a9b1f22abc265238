"""F1: `payment-identifier` at the facilitator: one id is one payment, and tells nobody of success again."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from facilitator_http import served

from farthing.facilitator.store import FindIdentified, IdentifierTaken, PaymentBody, PaymentRecord, RecordPayment
from farthing.protocol.facilitator import Refused, Settled
from farthing.protocol.payment_identifier import NAME, declaration
from farthing.services.facilitator.auth import Tokens
from farthing.world.facilitator_client import RemoteFacilitator
from farthing.world.facilitator_store import FacilitatorStore
from farthing.world.performers import Performer

ID = "order_0123456789abcdef"
CONFLICT = "payment_identifier_conflict"
SECRETS = {"shop": "a-token-of-the-shop-0123456789", "other": "a-token-of-another-0123456789"}
TOKENS = Tokens({name: hashlib.sha256(secret.encode()).digest() for name, secret in SECRETS.items()})


def identified(payment: Any, identifier: Any = ID) -> Any:
    """The same payment with an id."""
    extension = declaration(required=False)
    extension["info"]["id"] = identifier
    return payment._replace(payload=msgspec.structs.replace(payment.payload, extensions={NAME: extension}))


def remote(client: Any, name: str = "shop") -> RemoteFacilitator:
    return RemoteFacilitator(str(client.base_url), headers={"Authorization": f"Bearer {SECRETS[name]}"})


def test_F1_a_second_payment_under_one_id_is_a_409_and_costs_its_payer_nothing(pyevm: Any) -> None:
    first, second, unidentified = (pyevm.payment() for _ in range(3))
    first, second = identified(first), identified(second)

    async def run() -> None:
        async with served(pyevm.service(), TOKENS) as client:
            shop, other = remote(client), remote(client, "other")
            assert (await shop.supported()).extensions == ("idempotency-key", NAME)
            # Nothing is bound by a verification.
            assert (await shop.verify(*first)).is_valid
            assert (await shop.verify(*second)).is_valid
            assert isinstance(await shop.settle(*first, idempotency_key="one"), Settled)
            verdict = await shop.verify(*second)
            assert (verdict.is_valid, verdict.invalid_reason) == (False, CONFLICT)
            refused = await shop.settle(*second, idempotency_key="two")
            assert isinstance(refused, Refused)
            assert refused.reason == CONFLICT
            assert await shop.find(second.payment_id) is None
            for endpoint in ("/verify", "/settle"):
                headers = {"Authorization": f"Bearer {SECRETS['shop']}"}
                answer = await client.post(endpoint, content=second.body, headers=headers)
                assert (answer.status_code, answer.json()["type"]) == (409, "urn:farthing:facilitator:payment-conflict")
            assert pyevm.balance(pyevm.payee) == 12_345
            # Another seller's id is another id, and a payment without one is as it was.
            assert isinstance(await other.settle(*second, idempotency_key="two"), Settled)
            assert isinstance(await shop.settle(*unidentified, idempotency_key="three"), Settled)
            for each in (shop, other):
                await each.aclose()

    asyncio.run(run())


def test_F1_an_id_alone_tells_nobody_of_success_again(pyevm: Any) -> None:
    payment = identified(pyevm.payment())

    async def run() -> None:
        async with pyevm.service() as service:
            assert isinstance(await service.settle(*payment, idempotency_key=""), Settled)
            again = await service.settle(*payment, idempotency_key="")
            assert isinstance(again, Refused)
            assert again.reason == "duplicate_settlement"
            assert again.transaction

    asyncio.run(run())


def test_F1_two_payments_under_one_id_at_once_are_one_settlement(pyevm: Any) -> None:
    payments = [identified(pyevm.payment()) for _ in range(6)]

    async def run() -> list[Any]:
        async with pyevm.service() as service:
            return list(await asyncio.gather(*(service.settle(*each, idempotency_key="k") for each in payments)))

    outcomes = asyncio.run(run())
    assert sum(isinstance(each, Settled) for each in outcomes) == 1
    assert [each.reason for each in outcomes if isinstance(each, Refused)] == [CONFLICT] * 5
    assert pyevm.balance(pyevm.payee) == 12_345


@pytest.mark.parametrize("identifier", ["short", 7, "x" * 129, "with a space 0123456"])
def test_an_id_that_is_none_is_refused_with_its_path(pyevm: Any, identifier: Any) -> None:
    payment = identified(pyevm.payment(), identifier)

    async def run() -> None:
        async with pyevm.service() as service:
            verdict = await service.verify(*payment)
            assert (verdict.is_valid, verdict.invalid_reason) == (False, "invalid_payload")
            refused = await service.settle(*payment, idempotency_key="k")
            assert isinstance(refused, Refused)
            assert refused.reason == "invalid_payload"
            assert f"$.extensions.{NAME}.info.id" in refused.message

    asyncio.run(run())


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_F1_an_id_is_free_again_where_its_payment_was_refused(
    engine: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    place = request.getfixturevalue("postgres_url") if engine == "postgres" else tmp_path / "facilitator.sqlite3"
    stores = [FacilitatorStore(place) for _ in range(2)]
    one, other = (Performer(each.handlers()).blocking for each in stores)

    def record(payment_id: str) -> RecordPayment:
        fields = dict.fromkeys(("state", "scheme", "network", "asset", "payer", "pay_to", "fingerprint"), "x")
        numbers = dict.fromkeys(("amount", "valid_before", "created_at", "recorded_block", "gas_limit"), 1)
        made = PaymentRecord(payment_id=payment_id, requirements_print="x", **fields, **numbers)  # type: ignore[arg-type]
        return RecordPayment(made, PaymentBody(b"{}", b"{}"), "scope")

    try:
        assert isinstance(one(record("pay_1")), PaymentRecord)
        assert isinstance(other(record("pay_2")), IdentifierTaken)
        assert isinstance(other(record("pay_1")), PaymentRecord)
        assert other(FindIdentified("scope")) == "pay_1"
        stores[0].database.submit(
            lambda at: at.execute("UPDATE payments SET state = 'refused' WHERE payment_id = 'pay_1'")
        ).result()
        assert one(FindIdentified("scope")) is None
        assert isinstance(other(record("pay_2")), PaymentRecord)
        assert isinstance(one(record("pay_3")), IdentifierTaken)
    finally:
        for store in stores:
            store.close()
