"""F6: rates and gas are limited by caller and by payer, junk locks nobody out, and code can't waste gas twice."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import httpx
import msgspec
import pytest
from eth_account import Account
from facilitator_http import served
from hypothesis import given
from hypothesis import strategies as st

from farthing.errors import RateLimited
from farthing.evm.addresses import parse_address
from farthing.facilitator.desk import Limits
from farthing.facilitator.joining import group
from farthing.facilitator.rates import Quota
from farthing.facilitator.store import PaymentRecord
from farthing.protocol.facilitator import Refused, Settled, Unknown
from farthing.services.facilitator import read_config
from farthing.services.facilitator.auth import Tokens
from farthing.services.facilitator.lane import Pace
from farthing.services.facilitator.limiter import FAILED_MAX, Limiter
from farthing.world.facilitator_client import RemoteFacilitator

AMOUNT = 12_345
KEYS = {"shop": "a-token-of-the-shop-0123456789", "stall": "a-token-of-the-stall-012345678"}
TOKENS = Tokens({name: hashlib.sha256(key.encode()).digest() for name, key in KEYS.items()})
PROBLEM = "application/problem+json"
VERDICTS = {"/verify": ("isValid", "invalidReason"), "/settle": ("success", "errorReason")}
QUICK = Pace(idle_seconds=0.05, work_seconds=0.05)
# Deploys one byte of code, INVALID, which burns all gas that it is given.
BURNER = bytes.fromhex("60fe600053" + "60016000f3")


def by(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {KEYS[name]}"}


def limited(answer: httpx.Response, path: str) -> str:
    """See that an answer says so in every way: status, seconds, problem details, and the members of a verdict."""
    assert (answer.status_code, answer.headers["content-type"]) == (429, PROBLEM)
    assert 1 <= int(answer.headers["retry-after"]) <= 3600 + 600
    said = answer.json()
    verdict, reason = VERDICTS[path]
    assert said[verdict] is False
    assert said[reason].startswith("unexpected_")
    assert said["type"].endswith("rate-limited")
    return str(said["detail"])


# The quota


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 50), st.integers(1, 7)), max_size=60),
    st.integers(1, 20),
    st.sampled_from([6, 60]),
)
def test_F6_no_period_holds_more_than_the_quota(asks: list[tuple[str, float, int]], most: int, period: int) -> None:
    quota = Quota(most, period)
    taken: list[tuple[str, float, int]] = []
    now = 0.0
    for name, later, amount in asks:
        now += later
        wait = quota.wait_seconds(name, now, amount)
        if wait == 0:
            quota.take(name, now, amount)
            taken.append((name, now, amount))
            inside = [each for who, at, each in taken if who == name and now - period <= at]
            assert sum(inside) <= most
        elif amount <= most:
            # Whoever waits as long as it is told, and is told the truth, gets it.
            for _ in range(7):
                if wait:
                    later_on = now + wait
                    wait = quota.wait_seconds(name, later_on, amount)
            assert wait == 0


def test_F6_names_are_bounded_and_the_busiest_are_kept() -> None:
    quota = Quota(1, 60, names_max=3)
    for name in "abc":
        quota.take(name, 0)
    quota.take("a", 1)
    quota.take("d", 1)
    assert len(quota) == 3
    assert [name for name in "abcd" if quota.wait_seconds(name, 2)] == ["a", "c", "d"]


def test_a_limiters_memory_is_bounded() -> None:
    assert FAILED_MAX <= 10_000
    limiter = Limiter(Limits(), monotonic=lambda: 0.0)
    for number in range(25_000):
        limiter.verified("shop", f"{number}")
    assert len(limiter._verifications) == 20_000


# Callers


def test_F6_a_key_that_floods_is_told_to_come_back_and_others_are_served(pyevm: Any) -> None:
    async def run() -> None:
        async with served(pyevm.service(caller_requests_per_minute=4), TOKENS) as client:
            payment = pyevm.payment()
            for path in ("/verify", "/settle") * 2:
                assert (await client.post(path, content=payment.body, headers=by("shop"))).status_code == 200
            for path in VERDICTS:
                answer = await client.post(path, content=payment.body, headers=by("shop"))
                assert "'shop'" in limited(answer, path)
            # Our own client takes neither for a verdict.
            remote = RemoteFacilitator(str(client.base_url), headers=by("shop"))
            assert isinstance(await remote.settle(*payment, idempotency_key="k"), Unknown)
            await remote.aclose()
            answer = await client.post("/verify", content=pyevm.payment().body, headers=by("stall"))
            assert answer.json()["isValid"] is True
            # Probes and what is public are nobody's requests.
            assert (await client.get("/healthz")).status_code == 200

    asyncio.run(run())


def test_F6_tokens_are_not_tried_out_for_long_and_who_has_one_is_served(
    pyevm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("farthing.services.facilitator.limiter.STRANGERS_REQUESTS_PER_MINUTE", 3)

    async def run() -> None:
        async with served(pyevm.service(), TOKENS) as client:
            payment = pyevm.payment()
            statuses = [
                (
                    await client.post("/settle", content=payment.body, headers={"Authorization": f"Bearer {at}"})
                ).status_code
                for at in range(5)
            ]
            assert statuses == [401, 401, 401, 429, 429]
            settled = await client.post("/settle", content=payment.body, headers=by("shop"))
            assert settled.json()["success"] is True

    asyncio.run(run())
    assert pyevm.balance(pyevm.payee) == AMOUNT


def test_F6_settle_and_verify_ask_for_a_token_where_one_is_configured(pyevm: Any) -> None:
    async def run() -> None:
        async with served(pyevm.service(), TOKENS) as client:
            payment = pyevm.payment()
            for path in VERDICTS:
                for headers in ({}, {"Authorization": "Bearer"}, {"Authorization": f"Bearer {KEYS['shop']}x"}):
                    assert (await client.post(path, content=payment.body, headers=headers)).status_code == 401

    asyncio.run(run())
    assert pyevm.balance(pyevm.payee) == 0


def test_F6_a_key_has_so_much_gas_an_hour_and_no_more(pyevm: Any) -> None:
    async def run() -> None:
        # Two payments of some 100,000 gas.
        async with served(pyevm.service(caller_gas_per_hour_max=250_000), TOKENS) as client:
            bodies = [pyevm.payment().body for _ in range(3)]
            for body in bodies[:2]:
                assert (await client.post("/settle", content=body, headers=by("shop"))).json()["success"] is True
            assert "gas" in limited(await client.post("/settle", content=bodies[2], headers=by("shop")), "/settle")
            # What is on record is answered still.
            again = await client.post("/settle", content=bodies[0], headers=by("shop"))
            assert (again.status_code, again.json()["errorReason"]) == (200, "duplicate_settlement")
            assert (await client.post("/settle", content=bodies[2], headers=by("stall"))).json()["success"] is True

    asyncio.run(run())
    assert pyevm.balance(pyevm.payee) == 3 * AMOUNT


# Payers


def forged(world: Any) -> Any:
    """A payment in the payer's name that it did not sign."""
    payment = world.payment()
    raw = msgspec.json.decode(payment.payload.payload)
    raw["signature"] = "0x" + "11" * 64 + "1b"
    payload = msgspec.structs.replace(payment.payload, payload=msgspec.Raw(msgspec.json.encode(raw)))
    return type(payment)(payload, payment.requirements)


def test_F6_junk_in_a_payers_name_does_not_count_against_it(pyevm: Any) -> None:
    async def run() -> None:
        async with pyevm.service(payer_requests_per_minute=2) as service:
            for _ in range(5):
                junk = forged(pyevm)
                assert not (await service.verify(*junk)).is_valid
                assert isinstance(await service.settle(*junk, idempotency_key="junk"), Refused)
            payments = [pyevm.payment() for _ in range(3)]
            for each in payments[:2]:
                assert (await service.verify(*each)).is_valid
                assert isinstance(await service.settle(*each, idempotency_key="k"), Settled)
            with pytest.raises(RateLimited, match="verified for you"):
                await service.verify(*payments[2])
            outcome = await service.settle(*payments[2], idempotency_key="k")
            assert isinstance(outcome, Unknown)
            assert "in a minute" in outcome.message
            assert await service.find(payments[2].payment_id) is None
            # The same key, the same answer; and other payers are served.
            assert isinstance(await service.settle(*payments[0], idempotency_key="k"), Settled)

    asyncio.run(run())
    assert pyevm.balance(pyevm.payee) == 2 * AMOUNT


def test_F6_a_caller_that_verifies_one_payment_for_ever_locks_its_payer_out_nowhere_else(pyevm: Any) -> None:
    async def run() -> None:
        async with served(pyevm.service(payer_requests_per_minute=2), TOKENS) as client:
            payment = pyevm.payment()
            for _ in range(2):
                assert (await client.post("/verify", content=payment.body, headers=by("stall"))).json()["isValid"]
            limited(await client.post("/verify", content=payment.body, headers=by("stall")), "/verify")
            assert (await client.post("/verify", content=payment.body, headers=by("shop"))).json()["isValid"]
            assert (await client.post("/settle", content=payment.body, headers=by("shop"))).json()["success"]

    asyncio.run(run())


def test_F6_a_payer_over_its_limit_costs_no_node_call(pyevm: Any, recording_node: Any) -> None:
    async def run() -> None:
        async with recording_node(pyevm.devnet) as node:
            config = pyevm.config_text.replace(pyevm.devnet.url, node.url)
            async with pyevm.service(config=config, payer_requests_per_minute=1) as service:
                assert (await service.verify(*pyevm.payment())).is_valid
                assert isinstance(await service.settle(*pyevm.payment(), idempotency_key="k"), Settled)
                before = sum("eth_getCode" in batch for batch in node.batches)
                late = pyevm.payment()
                with pytest.raises(RateLimited):
                    await service.verify(*late)
                assert isinstance(await service.settle(*late, idempotency_key="k"), Unknown)
                assert sum("eth_getCode" in batch for batch in node.batches) == before

    asyncio.run(run())


def test_F6_a_payer_has_so_much_gas_an_hour_and_others_have_theirs(pyevm: Any, new_party: Any) -> None:
    async def run() -> None:
        other = new_party()
        pyevm.devnet.faucet(other.address, usdc=1)
        async with pyevm.service(payer_gas_per_hour_max=250_000) as service:
            outcomes = [await service.settle(*pyevm.payment(), idempotency_key="k") for _ in range(3)]
            assert [type(each) for each in outcomes] == [Settled, Settled, Unknown]
            assert isinstance(await service.settle(*pyevm.payment(payer=other), idempotency_key="k"), Settled)

    asyncio.run(run())
    assert pyevm.balance(pyevm.payee) == 3 * AMOUNT


def test_F6_the_limits_are_read_from_the_configuration_and_none_is_zero(pyevm: Any) -> None:
    names = {
        "caller_requests_per_minute": 7,
        "payer_requests_per_minute": 8,
        "payer_gas_per_hour_max": 9_000_000,
        "caller_gas_per_hour_max": 10_000_000,
        "payer_failures_per_hour_max": 2,
    }
    lines = "\n".join(f"{name} = {value}" for name, value in names.items())
    limits = read_config(pyevm.config_text + f"[limits]\n{lines}\n").limits
    assert {name: getattr(limits, name) for name in names} == names
    for name in names:
        with pytest.raises(Exception, match=name):
            read_config(pyevm.config_text + f"[limits]\n{name} = 0\n")


# Payers that take on code (EIP-7702) between verification and block


def record(number: int, payer: str) -> PaymentRecord:
    return PaymentRecord(
        payment_id=f"pay_{number}",
        state="ready",
        scheme="exact",
        network="eip155:1",
        asset="0x",
        payer=payer,
        pay_to="0x",
        amount=1,
        valid_before=2**40,
        fingerprint="",
        requirements_print="",
        created_at=1,
        recorded_block=1,
        gas_limit=100_000,
    )


def test_F6_a_payer_whose_call_failed_goes_alone() -> None:
    records = [record(number, payer) for number, payer in enumerate(("0xa", "0xb", "0xa", "0xc"))]
    assert group(records, members_max=100) == (("pay_0", "pay_1", "pay_2", "pay_3"),)
    alone = frozenset({"pay_0", "pay_2"})
    assert group(records, members_max=100, alone=alone) == (("pay_0",), ("pay_1", "pay_3"), ("pay_2",))


def take_on_code(world: Any, party: Any, to: str) -> None:
    """Have an account delegate to the code at `to` (EIP-7702); somebody else pays for the transaction."""
    sender, secret = world.devnet.accounts[-1]
    nonce, its_nonce = (
        int(world.devnet.rpc("eth_getTransactionCount", each, "latest"), 16) for each in (sender, party.address)
    )
    authorization = Account.from_key(party.secret).sign_authorization(
        {"chainId": world.devnet.chain_id, "address": parse_address(to), "nonce": its_nonce}
    )
    fields: dict[str, Any] = {
        "chainId": world.devnet.chain_id, "nonce": nonce, "gas": 200_000, "value": 0, "to": sender,
        "data": b"", "maxFeePerGas": 10**12, "maxPriorityFeePerGas": 1, "authorizationList": [authorization],
    }  # fmt: skip
    raw = Account.sign_transaction(fields, secret).raw_transaction.to_0x_hex()
    assert world.devnet.wait_for_receipt(world.devnet.rpc("eth_sendRawTransaction", raw))["status"] == "0x1"


def deploy_burner(world: Any) -> str:
    sender, secret = world.devnet.accounts[-1]
    fields: dict[str, Any] = {
        "chainId": world.devnet.chain_id,
        "nonce": int(world.devnet.rpc("eth_getTransactionCount", sender, "latest"), 16),
        "gas": 200_000, "value": 0, "data": BURNER, "maxFeePerGas": 10**12, "maxPriorityFeePerGas": 1,
    }  # fmt: skip
    raw = Account.sign_transaction(fields, secret).raw_transaction.to_0x_hex()
    receipt = world.devnet.wait_for_receipt(world.devnet.rpc("eth_sendRawTransaction", raw))
    assert receipt["status"] == "0x1"
    return str(receipt["contractAddress"])


def test_F6_code_that_burns_a_joined_transactions_gas_does_it_once(
    world: Any, eventually: Any, held_wallet: Any, new_party: Any
) -> None:
    """The payer signs as an account, and takes on code that burns all gas before the transaction is in a block."""
    burner = deploy_burner(world)
    attacker = new_party()
    world.devnet.faucet(attacker.address, usdc=1)

    async def run() -> None:
        mine = [world.payment(), world.payment()]
        theirs = [world.payment(payer=attacker), world.payment(payer=attacker)]
        with held_wallet(world) as let_go:
            async with world.service(pace=QUICK) as service:
                every = [mine[0], theirs[0], mine[1], theirs[1]]
                calls = [asyncio.create_task(service.settle(*each, idempotency_key="k")) for each in every]
                await eventually(lambda: len(service.books.payments(state="received")) == 4)
                take_on_code(world, attacker, burner)
                let_go()
                outcomes = await asyncio.gather(*calls)
                assert [type(each) for each in outcomes] == [Settled, Refused, Settled, Refused], outcomes
                records = {each.payment_id: each for each in service.books.payments()}
                # All four shared the first transaction; what is settled went alone after it, and no more gas was burnt.
                assert [records[each.payment_id].attempts for each in mine] == [1, 1]
                assert len({records[each.payment_id].nonce for each in mine}) == 2
                count = int(world.devnet.rpc("eth_getTransactionCount", world.wallet.address, "latest"), 16)
                assert count == 3
                # Back to an account without code, it goes alone while others go together.
                take_on_code(world, attacker, "0x" + "00" * 20)
        with held_wallet(world) as let_go:
            # Another process knows it, too.
            async with world.service(pace=QUICK) as service:
                stranger = new_party()
                world.devnet.faucet(stranger.address, usdc=1)
                every = [world.payment(payer=stranger), world.payment(payer=attacker), world.payment(payer=stranger)]
                calls = [asyncio.create_task(service.settle(*each, idempotency_key="k")) for each in every]
                await eventually(lambda: len(service.books.payments(state="received")) == 3)
                let_go()
                outcomes = await asyncio.gather(*calls)
                assert all(isinstance(each, Settled) for each in outcomes), outcomes
                records = {each.payment_id: each for each in service.books.payments()}
                nonces = [records[each.payment_id].nonce for each in every]
                assert nonces[0] == nonces[2] != nonces[1]

    asyncio.run(run())
    assert world.balance(world.payee) == 5 * AMOUNT


def test_F6_a_payer_whose_calls_fail_alone_waits(pyevm: Any, eventually: Any, new_party: Any) -> None:
    """Each of its payments is good when it is verified, and its money is gone when its transaction is in a block."""
    broke = new_party()

    async def run() -> None:
        async with pyevm.service(pace=QUICK, payer_failures_per_hour_max=2) as service:
            (lane,) = service.lanes
            await eventually(lambda: lane.lease is not None)
            for number in (1, 2):
                pyevm.devnet.faucet(broke.address, usdc=1)
                everything = pyevm.requirements(amount=str(10**6))
                one, other = (pyevm.payment(payer=broke, requirements=everything) for _ in range(2))
                pyevm.devnet.set_automine(enabled=False)
                try:
                    first = asyncio.create_task(service.settle(*one, idempotency_key="k"))
                    await eventually(lambda: [each.state for each in lane.entries.values()] == ["sent"])
                    second = asyncio.create_task(service.settle(*other, idempotency_key="k"))
                    await eventually(lambda: [each.state for each in lane.entries.values()] == ["sent"] * 2)
                    pyevm.devnet.mine()
                finally:
                    pyevm.devnet.set_automine(enabled=True)
                assert isinstance(await first, Settled)
                assert isinstance(await second, Refused)
                assert service.limiter._failed == {(pyevm.devnet.network, broke.address): number}
            pyevm.devnet.faucet(broke.address, usdc=1)
            outcome = await service.settle(*pyevm.payment(payer=broke), idempotency_key="k")
            assert isinstance(outcome, Unknown)
            assert "failed on chain" in outcome.message
            assert isinstance(await service.settle(*pyevm.payment(), idempotency_key="k"), Settled)

    asyncio.run(run())
