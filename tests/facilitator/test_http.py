"""The facilitator over HTTP: endpoints, the official client, A3 (problem details), A4 (no secrets), F3 (outages)."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import logging
from typing import Any

import httpx
import msgspec
import pytest
import structlog
from facilitator_http import served
from x402.http import FacilitatorConfig, HTTPFacilitatorClient
from x402.schemas import PaymentPayload as OfficialPayload
from x402.schemas import PaymentRequirements as OfficialRequirements

from farthing.errors import ConfigError, FacilitatorUnavailable
from farthing.protocol.facilitator import PAYMENTS_MAX, Settled, Unknown
from farthing.protocol.messages import SettlementResponse
from farthing.services.facilitator.auth import Tokens, check_binding
from farthing.services.facilitator.service import FacilitatorService
from farthing.world.facilitator_client import RemoteFacilitator

TOKEN = "a-token-of-the-shop-0123456789"
TOKENS = Tokens({"shop": hashlib.sha256(TOKEN.encode()).digest()})
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}
PROBLEM = "application/problem+json"
VERDICTS = {"/verify": ("isValid", "invalidReason"), "/settle": ("success", "errorReason")}
ANYWHERE = "0.0.0.0"  # noqa: S104 - what is to be refused


def test_the_official_client_verifies_and_settles(world: Any) -> None:
    async def run() -> None:
        async with served(world.service()) as client:
            official = HTTPFacilitatorClient(FacilitatorConfig(url=str(client.base_url).rstrip("/")))
            supported = await asyncio.to_thread(official.get_supported)
            assert [(kind.scheme, kind.network) for kind in supported.kinds] == [("exact", world.devnet.network)]
            assert supported.signers == {"eip155:*": [world.wallet.address]}
            payment = world.payment()
            payload = OfficialPayload.model_validate_json(msgspec.json.encode(payment.payload))
            requirements = OfficialRequirements.model_validate_json(msgspec.json.encode(payment.requirements))
            verdict = await official.verify(payload, requirements)
            assert (verdict.is_valid, verdict.payer) == (True, world.payer.address)
            settled = await official.settle(payload, requirements)
            assert settled.success
            again = await official.settle(payload, requirements)
            assert (again.success, again.error_reason) == (False, "duplicate_settlement")
            assert again.transaction == settled.transaction
            refused = await official.verify(payload, requirements)
            assert refused.invalid_reason == "invalid_exact_evm_nonce_already_used"
            await official.aclose()

    asyncio.run(run())


def test_our_own_client_settles_and_finds(pyevm: Any) -> None:
    async def run() -> None:
        async with served(pyevm.service(), TOKENS) as client:
            remote = RemoteFacilitator(str(client.base_url), headers=AUTHORIZED)
            payment = pyevm.payment()
            assert (await remote.verify(*payment)).is_valid
            outcome = await remote.settle(*payment, idempotency_key="k")
            assert isinstance(outcome, Settled)
            assert await remote.settle(*payment, idempotency_key="k") == outcome
            status = await remote.find(payment.payment_id)
            assert status is not None
            assert status.transaction == outcome.response.transaction
            nobody = "pay_" + "0" * 64
            assert await remote.find(nobody) is None
            assert await remote.find_many(()) == ()
            (one,) = await remote.find_many((nobody, payment.payment_id, nobody))
            assert (one.payment_id, one.state, one.transaction) == (status.payment_id, status.state, status.transaction)
            await remote.aclose()

    asyncio.run(run())


def test_A1_so_many_payments_are_looked_up_at_once_and_no_more(pyevm: Any) -> None:
    async def run() -> None:
        async with served(pyevm.service(), TOKENS) as client:
            ids = [f"pay_{number:064x}" for number in range(PAYMENTS_MAX + 1)]
            for asked, headers, status in (
                ({"paymentIds": ids[:-1]}, AUTHORIZED, 200),
                ({"paymentIds": ids}, AUTHORIZED, 400),
                ({"paymentIds": ["p" * 129]}, AUTHORIZED, 400),
                ({"paymentIds": [7]}, AUTHORIZED, 400),
                ([], AUTHORIZED, 400),
                ({"paymentIds": []}, {}, 401),
            ):
                answer = await client.post("/payments", json=asked, headers=headers)
                assert answer.status_code == status, answer.text
                if status == 400:
                    assert answer.headers["content-type"] == PROBLEM
            remote = RemoteFacilitator(str(client.base_url), headers=AUTHORIZED)
            with pytest.raises(FacilitatorUnavailable, match="400"):
                await remote.find_many(tuple(ids))
            await remote.aclose()

    asyncio.run(run())


def test_A3_errors_are_problem_details_that_say_what_where_and_what_to_do(pyevm: Any) -> None:
    payment = pyevm.payment()
    good = msgspec.json.decode(payment.body)
    without_requirements = {key: value for key, value in good.items() if key != "paymentRequirements"}
    wrong_amount = msgspec.json.decode(payment.body)
    wrong_amount["paymentRequirements"]["amount"] = " 10000 "
    cases = [
        (b"not json", "$"),
        (b"[]", "$"),
        (b"{}", "$.paymentPayload"),
        (json.dumps(without_requirements).encode(), "$.paymentRequirements"),
        (json.dumps(wrong_amount).encode(), "$.paymentRequirements.amount"),
        (b"[" * 10_000, "$"),
    ]

    async def run() -> None:
        async with served(pyevm.service()) as client:
            for endpoint, verdict in VERDICTS.items():
                for body, path in cases:
                    answer = await client.post(endpoint, content=body)
                    assert answer.status_code == 400, answer.text
                    assert answer.headers["content-type"] == PROBLEM
                    problem = answer.json()
                    assert problem["status"] == 400
                    assert problem["instance"] == endpoint
                    assert problem.get("path", "$") == path
                    assert problem["detail"]
                    assert problem["advice"]
                    assert (problem[verdict[0]], problem[verdict[1]]) == (False, "invalid_payload")
                large = await client.post(endpoint, content=b" " * 70_000)
                assert (large.status_code, large.headers["content-type"]) == (413, PROBLEM)
            assert (await client.get("/nothing")).status_code == 404
            wrong = await client.get("/settle")
            assert (wrong.status_code, wrong.headers["content-type"]) == (405, PROBLEM)
            unknown = await client.get("/payments/pay_unknown")
            assert (unknown.status_code, unknown.headers["content-type"]) == (404, PROBLEM)

    asyncio.run(run())


def test_A3_a_bug_of_the_facilitators_own_is_a_problem_and_no_verdict(
    pyevm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError(TOKEN)

    async def run() -> None:
        service = pyevm.service()
        for name in ("verify_for", "settle_as", "find"):
            monkeypatch.setattr(service, name, broken)
        payment = pyevm.payment()
        async with served(service) as client:
            for endpoint, (verdict, reason) in VERDICTS.items():
                answer = await client.post(endpoint, content=payment.body)
                assert (answer.status_code, answer.headers["content-type"]) == (500, PROBLEM)
                assert answer.json()[verdict] is False
                assert answer.json()[reason].startswith("unexpected_")
                assert TOKEN not in answer.text
            assert (await client.get("/payments/pay_1")).headers["content-type"] == PROBLEM
            remote = RemoteFacilitator(str(client.base_url))
            assert isinstance(await remote.settle(*payment, idempotency_key="k"), Unknown)
            with pytest.raises(FacilitatorUnavailable):
                await remote.verify(*payment)
            await remote.aclose()

    asyncio.run(run())


def test_what_the_buyer_made_wrong_is_a_verdict_that_official_servers_read(pyevm: Any) -> None:
    payment = pyevm.payment()

    def changed(change: Any) -> bytes:
        body = msgspec.json.decode(payment.body)
        change(body)
        return json.dumps(body).encode()

    cases = {
        changed(lambda body: body["paymentPayload"]["accepted"].update(amount="1e4")): "invalid_payload",
        changed(lambda body: body["paymentPayload"].update(payload={"signature": 7})): "invalid_payload",
        changed(lambda body: body["paymentPayload"]["payload"]["authorization"].update(nonce="0x1")): "invalid_payload",
        changed(lambda body: body.update(x402Version=1)): "invalid_x402_version",
        changed(lambda body: body["paymentPayload"].update(x402Version=1)): "invalid_x402_version",
        json.dumps({"x402Version": 3, "paymentPayload": {"scheme": "exact"}}).encode(): "invalid_x402_version",
    }

    async def run() -> None:
        async with served(pyevm.service()) as client:
            for body, reason in cases.items():
                verdict = await client.post("/verify", content=body)
                assert verdict.status_code == 200, verdict.text
                assert (verdict.json()["isValid"], verdict.json()["invalidReason"]) == (False, reason)
                outcome = await client.post("/settle", content=body)
                assert (outcome.json()["success"], outcome.json()["errorReason"]) == (False, reason)

    asyncio.run(run())


def test_bearer_tokens_are_asked_for_where_they_are_configured(pyevm: Any) -> None:
    async def run() -> None:
        async with served(pyevm.service(), TOKENS) as client:
            payment = pyevm.payment()
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}):
                for method, path in (
                    ("POST", "/verify"),
                    ("POST", "/settle"),
                    ("GET", "/payments/x"),
                    ("GET", "/metrics"),
                ):
                    answer = await client.request(method, path, headers=headers, content=payment.body)
                    assert (answer.status_code, answer.headers["content-type"]) == (401, PROBLEM)
                    assert answer.headers["www-authenticate"] == "Bearer"
            assert (await client.post("/verify", content=payment.body, headers=AUTHORIZED)).json()["isValid"]
            assert (await client.get("/supported")).status_code == 200

    asyncio.run(run())
    with pytest.raises(ConfigError, match="no bearer token"):
        check_binding(ANYWHERE, Tokens({}))
    check_binding(ANYWHERE, TOKENS)
    check_binding("127.0.0.1", Tokens({}))


def test_A4_no_secret_is_in_a_log_a_metric_or_a_page(pyevm: Any) -> None:
    written = io.StringIO()
    log = structlog.wrap_logger(structlog.PrintLogger(written), processors=[structlog.processors.JSONRenderer()])
    standard = logging.StreamHandler(written)
    logging.getLogger().addHandler(standard)
    logging.getLogger().setLevel(logging.DEBUG)
    pages: list[str] = []
    secrets = [pyevm.wallet.secret.removeprefix("0x"), pyevm.payer.secret.removeprefix("0x"), TOKEN]

    async def run() -> None:
        service = pyevm.service()
        service.log = log
        async with served(service, TOKENS) as client:
            payment = pyevm.payment()
            body = msgspec.json.decode(payment.body)
            # r and s, which calldata and transactions hold too
            secrets.append(body["paymentPayload"]["payload"]["signature"][2:130])
            requests = [("POST", "/verify"), ("POST", "/settle"), ("POST", "/settle"), ("GET", "/healthz")]
            for method, path in [*requests, ("GET", "/metrics"), ("GET", "/openapi.json"), ("GET", "/supported")]:
                pages.append((await client.request(method, path, content=payment.body, headers=AUTHORIZED)).text)
            pages.append((await client.post("/settle", content=b"{", headers=AUTHORIZED)).text)
            pages.append(repr(service) + repr(service.__dict__))

    try:
        asyncio.run(run())
    finally:
        logging.getLogger().removeHandler(standard)
        logging.getLogger().setLevel(logging.WARNING)
    assert '"event": "settled"' in written.getvalue()
    for secret in secrets:
        assert secret not in written.getvalue()
        assert not [page for page in pages if secret in page]


def test_F3_a_broken_node_is_never_a_verdict(pyevm: Any, recording_node: Any, eventually: Any) -> None:
    async def run() -> None:
        async with recording_node(pyevm.devnet) as node:
            config = pyevm.config_text.replace(pyevm.devnet.url, node.url)
            async with served(pyevm.service(config=config)) as client:
                payment = pyevm.payment()
                assert (await client.get("/healthz")).status_code in {200, 503}
                node.broken = True
                verdict = await client.post("/verify", content=payment.body)
                assert (verdict.status_code, verdict.headers["content-type"]) == (503, PROBLEM)
                problem = verdict.json()
                assert (problem["isValid"], problem["invalidReason"]) == (False, "unexpected_verify_error")
                outcome = await client.post("/settle", content=payment.body)
                assert outcome.status_code == 503
                assert (outcome.json()["success"], outcome.json()["errorReason"]) == (False, "unexpected_settle_error")
                assert (await client.get(f"/payments/{payment.payment_id}")).status_code == 404
                await asyncio.wait_for(_until_unhealthy(client), 20)
                node.broken = False
                settled = await client.post("/settle", content=payment.body)
                assert settled.json()["success"], settled.text

    asyncio.run(run())


async def _until_unhealthy(client: httpx.AsyncClient) -> None:
    while (await client.get("/healthz")).status_code != 503:  # noqa: ASYNC110 - over HTTP there is no event
        await asyncio.sleep(0.05)


def test_F3_an_outage_after_the_broadcast_is_pending_with_the_transaction(
    pyevm: Any, recording_node: Any, eventually: Any
) -> None:
    async def run() -> None:
        async with recording_node(pyevm.devnet) as node:
            config = pyevm.config_text.replace(pyevm.devnet.url, node.url)
            answers: list[SettlementResponse] = []
            async with pyevm.service(config=config, settle_timeout_seconds=0.5) as service:
                payment = pyevm.payment()
                node.swallow = "eth_sendRawTransaction"
                await eventually(lambda: _signed(service, payment, answers))
                answer = answers[-1]
                node.swallow, node.broken = "", False
                await eventually(lambda: service.books.payments(state="confirmed"))
                settled = await service.settle_as("shop", *payment)
                assert settled.success, settled
                assert settled.transaction == answer.transaction
        assert pyevm.balance(pyevm.payee) == 12_345

    asyncio.run(run())


async def _signed(service: FacilitatorService, payment: Any, answers: list[SettlementResponse]) -> bool:
    answers.append(await service.settle_as("shop", *payment))
    assert answers[-1].error_reason == "settlement_pending"
    return bool(answers[-1].transaction)


@pytest.mark.parametrize("joined_max", [100, 1])
def test_round_trips_one_to_verify_two_to_settle_and_one_watch_for_all(
    pyevm: Any, recording_node: Any, eventually: Any, joined_max: int
) -> None:
    async def run() -> None:
        async with recording_node(pyevm.devnet) as node:
            config = pyevm.config_text.replace(pyevm.devnet.url, node.url)
            async with pyevm.service(config=config, joined_payments_max=joined_max) as service:
                (lane,) = service.lanes
                await eventually(lambda: lane.head is not None and not lane.recheck)
                node.batches.clear()
                assert (await service.verify(*pyevm.payment())).is_valid
                assert len(node.batches) == 1
                node.batches.clear()
                payments = [pyevm.payment() for _ in range(10)]
                settled = await asyncio.gather(*(service.settle(*each, idempotency_key="k") for each in payments))
                assert all(isinstance(each, Settled) for each in settled)
                watches = [batch for batch in node.batches if batch[0] == "eth_getBlockByNumber"]
                verifications = [batch for batch in node.batches if "eth_call" in batch]
                broadcasts = [batch for batch in node.batches if "eth_sendRawTransaction" in batch]
                # Ten payments of seven calls share a batch; the transactions go out together, or in two or three goes.
                assert len(verifications) == 1
                assert 1 <= len(broadcasts) <= 3
                sent = sum(batch.count("eth_sendRawTransaction") for batch in broadcasts)
                assert sent == 10 if joined_max == 1 else sent <= 3
                assert len(node.batches) == len(verifications) + len(broadcasts) + len(watches)
                # Every look is one batch for all that is pending, whatever their number.
                if joined_max == 1:
                    assert max(batch.count("eth_getTransactionReceipt") for batch in watches) > 1

    asyncio.run(run())


def test_the_openapi_document_names_every_endpoint_and_each_reference_resolves(pyevm: Any) -> None:
    async def run() -> None:
        async with served(pyevm.service()) as client:
            document = (await client.get("/openapi.json")).json()
            assert document["openapi"] == "3.1.0"
            references = {part.split('"')[0] for part in json.dumps(document).split('"$ref": "')[1:]}
            assert references <= {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
            for path, operations in document["paths"].items():
                for method, operation in operations.items():
                    answer = await client.request(method, path.replace("{id}", "pay_x"), content=pyevm.payment().body)
                    described = operation["responses"][str(answer.status_code)]["content"]
                    assert answer.headers["content-type"].partition(";")[0] in described
            health = (await client.get("/healthz")).json()
            assert health["ok"], health

    asyncio.run(run())
