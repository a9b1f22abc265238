"""`farthing payments`: what the journal knows, for people and programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from marketplace import Market, User

from farthing.buyer.journal import RecordOutcome, RecordPayment, Release, Reserve, Reserved
from farthing.networks import KNOWN
from farthing.world.journal import Journal
from farthing.world.performers import Performer

NETWORK = "eip155:8453"
USDC = KNOWN.tokens(NETWORK)[0].address
NOW = 1_795_420_000
# Windows that are over, whenever the tests run.
PAST = 1_000_000_000


@pytest.fixture(scope="module")
def market() -> Market:
    """Nothing is bought here."""
    market = object.__new__(Market)
    market.url = "http://127.0.0.1:1"
    return market


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> User:
    """A user without a wallet, and with a journal of his own making."""
    monkeypatch.setattr(Market, "token", "eip155:402402/0x" + "11" * 20 + ":USDC:2")
    user = object.__new__(User)
    user.folder, user.home = tmp_path, tmp_path / "home"
    user.environment = {"FARTHING_HOME": str(user.home)}
    return user


def bought(user: User, number: int, state: Any, *, asset: str = USDC, host: str = "api.example.com") -> str:
    """Put a payment into the journal as the buyer does, and give its id."""
    journal = Journal(user.home / "journal.sqlite")
    perform = Performer(journal.handlers()).blocking
    payment_id = "pay_" + f"{number:02x}" * 32
    reserved = perform(
        Reserve(
            purchase_id=f"{number:032x}", request_print=f"{number}", method="GET",
            url=f"https://{host}/{number}?a=\x1b[31m", host=host, payer="0x" + "22" * 20, scheme="exact",
            network=NETWORK, asset=asset, pay_to="0x" + "33" * 20, amount=10_000 * number, currency="USD",
            value=10**16 * number, limits=(), now_seconds=NOW + number,
        )
    )  # fmt: skip
    assert reserved == Reserved()
    if state == "released":
        assert perform(Release(f"{number:032x}", "declined", NOW))
        journal.close()
        return ""
    recorded = RecordPayment(
        purchase_id=f"{number:032x}", payment_id=payment_id, fingerprint="f", header="h", valid_before=PAST,
        now_seconds=NOW,
    )  # fmt: skip
    assert perform(recorded)
    perform(
        RecordOutcome(
            purchase_id=f"{number:032x}", outcome=state, delivered=state == "settled",
            transaction="0x" + f"{number:02x}" * 32 if state == "settled" else "", reason="", now_seconds=NOW,
        )
    )  # fmt: skip
    journal.close()
    return payment_id


def test_without_a_journal_there_are_no_payments_and_none_is_made(user: User) -> None:
    done = user.call("payments")
    assert (done.code, done.stdout) == (0, b"No payments.\n")
    assert not user.home.exists()
    assert user.call("payments", "--journal", "nowhere").code == 2


def test_the_list_shows_the_newest_last_and_the_totals_of_all(user: User) -> None:
    for number, state in ((1, "settled"), (2, "settled"), (3, "unknown"), (4, "refused")):
        bought(user, number, state)
    lines = user.call("payments", "-n", "2").stdout.decode().splitlines()
    assert "0.03 USDC" in lines[0]
    assert "unknown" in lines[0]
    assert "\x1b" not in lines[0]
    assert "0.04 USDC" in lines[1]
    assert "4 in all (2 older ones are not shown" in lines[3]
    totals = {line.split()[0]: line.split()[1:3] for line in lines[4:]}
    assert totals == {"settled": ["0.03", "USDC"], "unknown": ["0.03", "USDC"], "refused": ["0.04", "USDC"]}


def test_what_was_never_signed_is_listed_only_when_asked_for(user: User) -> None:
    bought(user, 1, "released")
    assert user.call("payments").stdout == b"No payments.\n"
    (line,) = user.call("payments", "--state", "released").stdout.decode().splitlines()[:-2]
    assert "released" in line


def test_filters_and_json_lines(user: User) -> None:
    bought(user, 1, "settled")
    bought(user, 2, "unknown", host="other.example")
    bought(user, 3, "settled", asset="0x" + "44" * 20)
    rows = [json.loads(line) for line in user.call("payments", "--json").stdout.splitlines()]
    assert [(row["price"], row["state"]) for row in rows] == [
        ("0.01", "settled"),
        ("0.02", "unknown"),
        ("30000", "settled"),
    ]
    unknown = user.call("payments", "--json", "--state", "unknown").stdout.splitlines()
    assert [json.loads(line)["url"].partition("?")[0] for line in unknown] == ["https://other.example/2"]
    assert len(user.call("payments", "--json", "--host", "OTHER.example").stdout.splitlines()) == 1
    assert user.call("payments", "--state", "lost").code == 2


def test_show_finds_a_payment_by_any_of_its_names(user: User) -> None:
    payment_id = bought(user, 0xAB, "settled")
    bought(user, 0xAC, "unknown")
    for name in (payment_id, payment_id[:14], payment_id[4:16], "0x" + "ab" * 32, f"{0xAB:032x}"):
        assert user.call("payments", "show", name, "--json").json["payment_id"] == payment_id
    assert user.call("payments", "show", "pay_a").code == 2
    assert user.call("payments", "show", "pay_deadbeef").code == 2
    shown = user.call("payments", "show", payment_id).stdout.decode()
    for told in (payment_id, "settled", "1.71", "Base", "0x" + "ab" * 32, "The seller named the transaction"):
        assert told in shown


def test_an_unknown_payment_is_told_what_became_of_it(user: User) -> None:
    settled, unspent = bought(user, 1, "unknown"), bought(user, 2, "unknown")
    assert "farthing payments mark" in user.call("payments", "show", settled).stdout.decode()
    assert user.call("payments", "mark", settled).code == 2
    assert user.call("payments", "mark", settled, "--settled", "0x" + "99" * 32).stdout.endswith(b"is settled.\n")
    assert user.call("payments", "mark", unspent, "--unspent", "nonce unused").stdout.endswith(b"is closed.\n")
    assert user.call("payments", "show", settled, "--json").json["transaction"] == "0x" + "99" * 32
