"""The clearing house over HTTP, with a real facilitator and a real chain under it."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from serving import PROOF, Client, Parties, Served, Town, serving, until, website

from farthing.errors import ConfigError
from farthing.ledger.merkle import leaf_hash, root_of
from farthing.services.clearing import ClearingService, read_config
from farthing.services.clearing.api import DOORS
from farthing.services.clearing.callers import Operators
from farthing.world.clearing_proof import is_public, shows


@pytest.fixture
def town(devnet_pyevm: Any, tmp_path: Path) -> Town:
    return Town(devnet_pyevm, tmp_path)


def test_C6_from_pages_to_payouts_with_money_that_only_the_chain_settles(town: Town) -> None:
    async def run() -> None:
        texts: dict[str, str] = {}
        with website(texts) as authority:
            async with town.facilitator() as facilitator, serving(town, facilitator, private=authority) as served:
                parties = await Parties(town, served, authority).open(texts)
                lines = await parties.read_pages(30)
                assert (await served.operator.post("/window/close"))["closed"] == "1"
                statement, status = await parties.statement()
                found = (await parties.payer.get(f"/statements/{status.statement}/lines")).content.splitlines()
                assert root_of(map(leaf_hash, found)).hex() == statement.root
                # One line is disputed, the rest paid.
                wrong = {"lines": [{"id": lines[3].id, "reason": "not_authorized"}]}
                await parties.payer.post(f"/statements/{status.statement}/disputes", wrong)
                (open_,) = (await served.operator.get("/lists/disputes"))["entries"]
                assert (open_["state"], open_["payee"], open_["line"]) == ("open", "news", lines[3].id)
                _, status = await parties.statement()
                assert status.payable == str(29 * 10_000)
                door = f"/statements/{status.statement}/payment"
                refusals: dict[str, dict[str, Any]] = {
                    "value_mismatch": {"value": 1},
                    "wrong_nonce": {"nonce": b"\x05" * 32},
                    "recipient_mismatch": {"to": b"\x06" * 20},
                    "window_too_short": {"valid_before": int(time.time()) + 3_000},
                }
                for name, bad in refusals.items():
                    refused = await parties.payer.post(door, town.pay(status, statement.rail, **bad), status=422)
                    assert name in refused["reason"], refused
                await parties.payer.post(door, town.pay(status, statement.rail))
                await settle(town, served, parties)
                assert town.devnet.usdc_balance(town.address("payee")) == 290_000
                assert town.devnet.usdc_balance(town.address("treasury")) == 0
                balances = await served.operator.get("/balances")
                assert sum(balances.values()) == 0
                assert await served.operator.get("/balances?pending=1") == {}
                assert (await served.operator.get("/payees/news"))["paid"] == "290000"

    asyncio.run(run())


async def settle(town: Town, served: Served, parties: Parties) -> None:
    """Let rounds go by, and blocks, until payer and payee are even."""

    async def even() -> bool:
        await served.service.settle_all()
        town.devnet.mine(3)
        (payout, *_) = (await served.operator.get("/lists/payouts"))["entries"] or [{"state": ""}]
        return bool(payout["state"] == "settled") and (await parties.statement())[1].state == "settled"

    await until(even, what="payment and payout")


def test_A3_each_door_asks_for_its_role_and_errors_are_problem_details(town: Town) -> None:
    async def run() -> None:
        async with serving(town, town.facilitator()) as served:
            payer = await served.client("payer-1", "payer", "https://crawler.example")
            edge = await served.client("edge-9", "edge", "news")
            for door in DOORS:
                path = door.path.replace("{", "").replace("}", "")
                answer = await served.http.request(door.method, path, headers={"Authorization": "Bearer nonsense"})
                assert answer.status_code == (401 if door.roles else 200), door.path
                for client, role in ((payer, "payer"), (edge, "edge")):
                    if door.roles and role not in door.roles:
                        refused = await client.ask(door.method, path, b"{}", status=403)
                        assert refused["type"] == "urn:farthing:clearing:forbidden"
                if door.takes is not None:
                    for client, role in ((payer, "payer"), (edge, "edge"), (served.operator, "operator")):
                        if role in door.roles:
                            bad = await client.ask(door.method, path, b'{"x":', status=400)
                            assert bad["detail"]
                            assert bad["advice"]
            missing = await served.http.get("/nothing")
            assert (missing.status_code, missing.json()["status"]) == (404, 404)
            wrong = await served.http.delete("/healthz")
            assert (wrong.status_code, wrong.headers["content-type"]) == (405, "application/problem+json")
            assert (await edge.post("/uploads", b"no gzip", status=400))["path"] == "$"
            await edge.post("/edges/edge-1/start", status=403)
            assert (await served.http.get("/healthz")).json()["ok"] is True

    asyncio.run(run())


def test_a_payer_sees_its_own_statements_alone(town: Town) -> None:
    async def run() -> None:
        texts: dict[str, str] = {}
        with website(texts) as authority:
            async with serving(town, town.facilitator(), private=authority) as served:
                parties = await Parties(town, served, authority).open(texts)
                lines = await parties.read_pages(2)
                await served.operator.post("/window/close")
                statement, status = await parties.statement()
                other = await served.client("other", "payer", "https://other.example")
                assert await other.get("/statements") == []
                for path in ("", "/lines", "/page", f"/proofs/{lines[0].id}", "/disputes"):
                    await other.get(f"/statements/{status.statement}{path}", status=404)
                page = await parties.payer.get(f"/statements/{status.statement}/page")
                assert lines[0].resource in page.text
                assert "default-src 'none'" in page.headers["content-security-policy"]
                csv = await parties.payer.get(f"/statements/{status.statement}/lines?format=csv")
                assert len(csv.text.splitlines()) == 3
                proof = await parties.payer.get(f"/statements/{status.statement}/proofs/{lines[0].id}")
                assert proof["commitment"]["signature"] == lines[0].signature
                keys = (await served.http.get("/.well-known/farthing-clearing-keys")).json()["keys"]
                assert keys[0]["kid"] == served.service.desk.key_id
                standing = await parties.payer.get("/standing")
                assert (standing["owed"], standing["exposure"]) == ("20000", "20000")
                assert statement.count == 2

    asyncio.run(run())


def test_A4_a_token_is_shown_once_and_stands_nowhere(town: Town, tmp_path: Path) -> None:
    async def run() -> str:
        async with serving(town, town.facilitator()) as served:
            made = await served.operator.post("/tokens", {"name": "e", "role": "edge", "subject": "news"})
            client = Client(served.http, made["token"])
            await client.post("/edges/e/start")
            # "e.2" is the label of this edge's second process, and nobody else's name.
            await served.operator.post("/tokens", {"name": "e.2", "role": "edge", "subject": "x"}, status=400)
            await served.operator.post("/tokens", {"name": "e", "role": "edge", "subject": "x"}, status=409)
            await served.operator.post("/tokens/e/revoke")
            await client.post("/edges/e/start", status=401)
            shown = json.dumps(
                [await served.operator.get(f"/lists/{what}") for what in ("tokens", "audit", "payers", "payees")]
            )
            assert made["token"] not in shown
            assert "make token" in shown
            return str(made["token"])

    token = asyncio.run(run())
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("clearing.sqlite3*"))
    for secret in (token, *(each.hex() for each in town.secrets.values())):
        assert secret.encode() not in stored


def test_the_document_describes_every_door(town: Town) -> None:
    async def run() -> Any:
        async with serving(town, town.facilitator()) as served:
            return (await served.http.get("/openapi.json")).json()

    document = asyncio.run(run())
    assert {(door.path, door.method.lower()) for door in DOORS} == {
        (path, method) for path, methods in document["paths"].items() for method in methods
    }
    schemas = document["components"]["schemas"]
    assert {"Commitment", "KeyRecord", "UploadHeader", "Statement", "StatementLine", "Proof", "Problem"} <= set(schemas)
    references = {each.split('"')[0] for each in json.dumps(document).split('"#/components/schemas/')[1:]}
    assert references <= set(schemas)


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("one_to_one = true", "one_to_one = false", "one_to_one"),
        ("eip155:", "solana:", "usdc.network"),
        ('key_env = "STATEMENTS_KEY"', "", "statement_key"),
        ('network = "clearing:test"', 'network = "test"', "rules.network"),
        ("payout_min = 1", "payout_min = 1\nspeed = 2", "speed"),
    ],
)
def test_a_mistake_in_the_configuration_is_named(town: Town, before: str, after: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        ClearingService.from_config(read_config(town.config().replace(before, after)), environment=town.environment)


def test_an_operator_needs_a_token_of_some_length(town: Town) -> None:
    server = read_config(town.config()).server
    with pytest.raises(ConfigError, match="OPERATOR_TOKEN"):
        Operators(server, {"OPERATOR_TOKEN": "short"})
    assert Operators(server, town.environment).find(b"\x00" * 32) is None


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "fd00::1", "::ffff:10.0.0.1", "224.0.0.1", "no address"],
)  # fmt: skip
def test_A2_a_proof_is_not_looked_for_at_private_addresses(address: str) -> None:
    assert is_public(address) is False
    texts = {PROOF: "c"}

    async def look() -> tuple[bool, bool]:
        with website(texts) as authority:
            return await shows(authority, "c"), await shows(authority, "c", private_domains=(authority,))

    assert asyncio.run(look()) == (False, True)
    assert is_public("93.184.216.34")
