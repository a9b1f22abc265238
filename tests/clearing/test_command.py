"""`farthing clearing`: checks its configuration, serves until it is told to end, and shows what it has."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import OPERATOR, Town, until, website

from farthing.cli.clearing_desk import _dispute_line
from farthing.cli.clearing_house import seconds_of, show
from farthing.errors import ConfigError

FARTHING = [sys.executable, "-m", "farthing", "clearing"]


class Command:
    """The command, with a configuration for a devnet."""

    def __init__(self, town: Town) -> None:
        self.town = town
        self.config = town.folder / "clearing.toml"
        self.config.write_text(town.config(), "utf-8")
        self.environment = {**os.environ, **town.environment, "FARTHING_CLEARING_TOKEN": OPERATOR}

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*FARTHING, *words], env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, *words: str, status: int = 0) -> str:
        process = self.start(*words)
        out, err = process.communicate(timeout=60)
        assert process.returncode == status, err
        return out + err


@pytest.fixture
def command(devnet_pyevm: Any, tmp_path: Path) -> Command:
    return Command(Town(devnet_pyevm, tmp_path))


@pytest.fixture
def url(command: Command) -> Iterator[str]:
    process = command.start("--config", str(command.config), "--port", "0", "--json")
    try:
        assert process.stdout
        said = json.loads(process.stdout.readline())
        assert said["network"] == "clearing:test"
        yield said["url"]
    finally:
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 0, err


def test_it_checks_its_configuration(command: Command) -> None:
    assert "in order; treasury 0x" in command.run("--config", str(command.config), "--check")
    command.config.write_text(command.config.read_text().replace("one_to_one = true", "one_to_one = false"))
    assert "one_to_one" in command.run("--config", str(command.config), "--check", status=2)
    assert "--config" in command.run(status=2)


def test_A4_it_serves_shows_and_ends(command: Command, url: str) -> None:
    shown = command.run("window", "--url", url, "--json", "--close")
    closed, first, second = map(json.loads, shown.splitlines())
    assert (closed, first["state"], second["state"]) == ({"closed": "1"}, "issued", "open")
    said = {
        "accounts": "No payers yet",
        "statements": "No such statement.",
        "payouts": "No payouts yet.",
        "disputes": "No dispute waits",
        "suspense": "Nothing is in suspense.",
        "books": "0  in all",
    }
    for what, words in said.items():
        assert words in command.run(what, "--url", url)
        assert (command.run(what, "--url", url, "--json") == "") is (what != "accounts")
    reserve = command.run("reserve", "--url", url)
    assert "reserve  0 USD" in reserve
    assert reserve in command.run("accounts", "--url", url)
    assert "404" in command.run("proof", "st-1", "sha256:00", "--url", url, status=1)
    assert "401" in command.run("accounts", "--url", url, "--token-env", "TREASURY_KEY", status=1)
    assert "NOBODY" in command.run("accounts", "--url", url, "--token-env", "NOBODY", status=2)


def test_an_operator_opens_and_changes_accounts(command: Command, url: str) -> None:
    def run(*words: str, status: int = 0) -> str:
        return command.run(*words, "--url", url, status=status)

    crawler, address = "https://crawler.example", "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"
    assert "limit     100 USD" in run("payer", crawler, "--limit", "$100")
    assert "suspended" in run("payer", crawler, "--suspend", "unpaid")
    assert "suspended (unpaid)  owes 0 of 100 USD" in run("accounts")
    standing = json.loads(run("payer", crawler, "--resume", "--json"))
    assert (standing["state"], standing["creditLimit"]) == ("active", "100000000")
    opened = run("payee", "news", "--domain", "news.example", "--address", address)
    assert "farthing-clearing=" in opened
    assert "_farthing-clearing.news.example" in opened
    assert "accrued     0 USD" in run("payee", "news")
    token = run("token", "crawler", "--role", "payer", "--for", crawler).strip()
    again = subprocess.run(
        [*FARTHING, "statements", "--url", url],
        env={**command.environment, "FARTHING_CLEARING_TOKEN": token},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (again.returncode, again.stdout) == (0, "No such statement.\n")
    assert token not in run("accounts")
    assert "crawler is revoked" in run("token", "crawler", "--revoke")
    assert "anna  revoke token  crawler" in run("audit")
    # What a beginner does.
    assert "not in USD" in run("payer", crawler, "--limit", "€5", status=2)
    assert "not a price" in run("payer", crawler, "--limit", "1e3", status=2)
    assert "--domain and --address" in run("payee", "news", "--domain", "news.example", status=2)
    assert "404" in run("payer", "https://nobody.example", "--resume", status=1)
    assert "one of --limit" in run("payer", crawler, "--resume", "--compromised", "k" * 43, status=2).lower()
    assert "--since" in run("payer", crawler, "--since", "1", status=2)
    assert "is no time" in run("payer", crawler, "--compromised", "k" * 43, "--since", "yesterday", status=2)
    assert "has a subject" in run("token", "edge", "--role", "edge", status=1)
    assert "--grant or --reject" in run("disputes", "d-1", status=2)
    assert "404" in run("disputes", "d-1", "--grant", status=1)
    assert "TRANSACTION:LOG" in run("suspense", "0xbb", "--to", crawler, status=2)
    assert "409" in run("suspense", "0xbb:1", "--to", crawler, status=1)


def test_an_address_where_no_clearing_house_is_is_told(command: Command) -> None:
    with website({"/lists/payers?after=": "<h1>Hello</h1>"}) as authority:
        said = command.run("accounts", "--url", f"http://{authority}", status=1)
    assert f"200: no JSON. Is there a clearing house at http://{authority}?" in said


def test_a_time_is_read_or_refused() -> None:
    assert seconds_of("1767614400") == seconds_of("2026-01-05T12:00:00Z") == seconds_of("2026-01-05T12:00")
    for odd in ("1767614400000", "yesterday", "٣"):
        with pytest.raises(ConfigError, match="is no time"):
            seconds_of(odd)


def test_what_a_payer_wrote_looks_like_no_entry_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    entry = dict.fromkeys(("dispute", "state", "reason", "payee", "resource", "statement", "line", "note"), "x")
    entry |= {"amount": "1", "currency": "USD", "evidence": "none\n\x1b[1Ax  granted\r\u2028x"}
    show([entry], _dispute_line, as_json=False)
    shown = capsys.readouterr().out
    assert shown.splitlines()[2:] == ["  evidence: none ?[1Ax  granted??x", "  note: x"]


def test_C5_it_declares_a_key_compromised(command: Command, url: str) -> None:
    crawler, key = "https://crawler.example", "k" * 43
    command.run("payer", crawler, "--limit", "$100", "--url", url)
    said = command.run("payer", crawler, "--compromised", key, "--since", "2026-01-05T12:00:00Z", "--url", url)
    assert f"{key} is compromised" in said
    assert "since     2026-01-05T12:00:00Z" in said
    assert "by anna" in said
    again = command.run("payer", crawler, "--compromised", key, "--url", url, "--json")
    declared = json.loads(again)
    assert (declared["since"], declared["billedUntil"]) == (1_767_614_400, declared["declared"] + 900)
    assert f"key       {key} is compromised" in command.run("payer", crawler, "--url", url)
    audit = command.run("audit", "--url", url)
    assert audit.count("declare compromised") == 1


def test_C6_it_guarantees_funds_and_takes_out(command: Command, url: str) -> None:
    payee = {"payee": "ourselves", "domain": "us.example", "address": "0x" + "22" * 20}
    headers = {"Authorization": f"Bearer {OPERATOR}"}
    assert httpx.post(f"{url}/payees", json=payee, headers=headers).status_code == 200
    answer = json.loads(command.run("guarantee", "ourselves", "--url", url, "--json"))
    assert (answer["payee"], answer["guaranteed"]) == ("ourselves", True)
    assert json.loads(command.run("guarantee", "ourselves", "--off", "--url", url, "--json"))["guaranteed"] is False
    assert "404" in command.run("guarantee", "nobody", "--url", url, status=1)
    unseen = "0x" + "ab" * 32
    assert "has seen no such deposit" in command.run("reserve", "--fund", unseen, "--url", url, status=2)
    assert "409" in command.run("reserve", "--fund", f"{unseen}:1", "--url", url, status=1)
    assert "behind the colon" in command.run("reserve", "--fund", f"{unseen}:one", "--url", url, status=2)
    take = ["--take", "5", "--to", "ourselves"]
    assert "go together" in command.run("reserve", *take, "--url", url, status=2)
    assert "less than that in the reserve" in command.run("reserve", *take, "--request", "r1", "--url", url, status=1)


def test_C6_a_deposit_is_found_by_its_transaction_and_funds_the_reserve_once(
    command: Command, request: pytest.FixtureRequest
) -> None:
    devnet = command.town.devnet
    devnet.faucet(command.town.address("treasury"), usdc=1)
    devnet.mine(3)
    # The house reads the chain when it starts.
    url = request.getfixturevalue("url")
    headers = {"Authorization": f"Bearer {OPERATOR}"}

    async def movements() -> Any:
        async with httpx.AsyncClient(headers=headers) as http:
            return (await http.get(f"{url}/lists/movements")).json()["entries"]

    (movement,) = asyncio.run(until(movements, what="the deposit"))
    transaction = movement["transaction_hash"]
    shown = command.run("reserve", "--fund", transaction, "--url", url, "--json")
    assert json.loads(shown)["reserve"] == "1000000"
    place = f"{transaction}:{movement['log_index']}"
    assert "409" in command.run("reserve", "--fund", place, "--url", url, status=1)
    assert json.loads(command.run("accounts", "--url", url, "--json"))["reserve"] == "1000000"
