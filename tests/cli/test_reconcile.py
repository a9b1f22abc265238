"""`farthing payments reconcile`, `approve`, `stop` and `resume`: by the journal and the chain that they are about."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from marketplace import Market, User, leave_open

from farthing.seller.conclude import ANSWER_CUT
from farthing.seller.refunds import RefundRecord
from farthing.seller.states import State
from farthing.seller.store import SellerPayment
from farthing.world.seller_refunds import SellerRefunds
from farthing.world.seller_store import SellerStore


def test_B1_the_command_finds_out_by_the_chain_and_says_what_it_could_not(market: Market, user: User) -> None:
    rpc = market.local.devnet.url
    gone = leave_open(market, user, seconds_ago=3600)
    market.local.devnet.mine(3)
    done = user.call("payments", "reconcile", "--rpc", rpc, "--json")
    assert (done.code, done.json["payment_id"], done.json["verdict"]) == (0, gone, "not_settled")
    assert done.json["evidence"][0]["who"] == "chain"
    shown = user.call("payments", "show", gone, "--json").json
    assert (shown["state"], json.loads(shown["evidence"])["who"]) == ("closed", "chain")
    still = leave_open(market, user, seconds_ago=0)
    market.local.devnet.mine(3)
    done = user.call("payments", "reconcile", "--rpc", rpc)
    assert done.code == 5
    assert f"{still}  could not find out" in done.stdout.decode()
    assert "1 could not find out." in done.stdout.decode()


def test_whom_to_ask_must_be_said(user: User) -> None:
    for arguments in ((), ("--refund-due",), ("--store", "x")):
        assert user.call("payments", "reconcile", *arguments).code == 2
    assert user.call("payments", "reconcile", "--rpc", "http://127.0.0.1:1").stdout == b"No payments.\n"
    assert user.call("payments", "reconcile", "--present").stdout == b"No payments.\n"
    assert user.call("payments", "reconcile", "--refund-due", "--store", "nowhere").code == 2


def test_what_a_seller_owes_is_listed(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    store = user.folder / "seller.sqlite"
    SellerStore(store).close()
    listing = ("payments", "reconcile", "--refund-due", "--store", str(store))
    done = user.call(*listing)
    assert (done.code, done.stdout) == (0, b"Nothing is owed.\n")
    owed = SellerPayment(
        payment_id="pay_1", state=State.REFUND_DUE, network="eip155:8453", amount=10_000, resource="https://a.example/",
        asset="0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", payer="0x" + "11" * 20, pay_to="0x" + "22" * 20,
        transaction="0x33", reason="handler", claimed_at=1,
    )  # fmt: skip
    wanted: list[State | None] = []

    def payments(_store: SellerStore, state: State | None = None, *, limit: int = 0) -> tuple[SellerPayment, ...]:
        wanted.append(state)
        return (owed,)

    monkeypatch.setattr(SellerStore, "payments", payments)
    done = user.call(*listing)
    assert done.code == 1
    assert b"0.01 USDC to 0x1111" in done.stdout
    assert user.call(*listing, "--json").json["price"] == "0.01"
    assert set(wanted) == {State.REFUND_DUE}
    assert user.call(*listing, "--json").json["refund"] is None
    assert b"cut" not in user.call(*listing).stdout
    owed = msgspec.structs.replace(owed, reason=ANSWER_CUT)
    assert b"its answer was cut" in user.call(*listing).stdout
    signer = "0x" + "44" * 20
    records: dict[str, RefundRecord] = {}
    monkeypatch.setattr(SellerRefunds, "under_way", lambda *_, **__: records)
    for payment, words in ((b"", "waits until the payment is final"), (b"{}", "is under way")):
        record = RefundRecord(signer, payment, 1, 0, 1, "fund it")
        records["pay_1"] = record
        assert f"its refund by {signer} {words}. fund it" in user.call(*listing).stdout.decode()
        said = user.call(*listing, "--json").json["refund"]
        assert said == {"signer": signer, "signed": bool(payment), "note": "fund it"}


def test_B2_the_kill_switch_is_a_command_and_holds_in_other_processes(market: Market, user: User) -> None:
    assert user.call("payments", "stop", "lunch").code == 0
    done = user.run("get", user.url("/report"), "--yes", "--json")
    assert (done.code, done.json["error"]["code"]) == (3, "stopped")
    assert "lunch" in done.json["error"]["message"]
    assert user.call("payments", "resume").stdout == b"Payments may go on.\n"
    assert user.call("get", user.url("/report"), "--yes").code == 0
    Path(f"{user.home / 'journal.sqlite'}.stop").touch()
    assert user.call("get", user.url("/report"), "--yes").code == 3
    assert b"Still stopped" in user.call("payments", "resume").stdout


def test_B2_a_payee_that_changed_needs_an_approval(market: Market, user: User) -> None:
    assert user.call("get", user.url("/report"), "--yes").code == 0
    before, market_payee = user.spent, market.payee
    journal = user.home / "journal.sqlite"
    import sqlite3  # noqa: PLC0415 - another account was pinned before

    with sqlite3.connect(journal) as opened:
        opened.execute("UPDATE payees SET pay_to = ?", ("0x" + "77" * 20,))
    opened.close()
    done = user.call("get", user.url("/report"), "--yes", "--json")
    error = done.json["error"]
    assert (done.code, error["code"], user.spent) == (3, "payee_changed", before)
    approval = error["advice"].split("farthing payments approve ")[1][:64]
    assert user.call("payments", "approve", "nonsense").code == 2
    assert user.call("payments", "approve", approval).code == 0
    done = user.call("get", user.url("/report"), "--yes", "--json")
    assert (done.code, done.json["pay_to"]) == (0, market_payee)
