"""`farthing explain`: each cause of a refusal is told from the others, offline as far as that goes and by the chain."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from marketplace import Market, User, leave_open

from farthing.evm.abi import pack_address, selector
from farthing.evm.addresses import parse_address
from farthing.evm.signatures import PrivateKey
from farthing.evm.transactions import Transaction
from farthing.evm.typed_data import Domain, TransferWithAuthorization
from farthing.mechanisms.exact_evm.payload import ExactDetail, write_payload
from farthing.protocol.codec import encode_json, encode_payment, pack_header, pack_json
from farthing.protocol.messages import PaymentRequired, PaymentRequirements, ResourceInfo

Pay = Callable[..., str]


@pytest.fixture
def pay(market: Market, user: User) -> Pay:
    """Make a payment's header; what is signed differs from what is said as told."""
    devnet = market.local.devnet
    key = PrivateKey.from_hex(user.wallet.key)

    def make(*, domain: dict[str, Any] | None = None, clock: int = 0, **signed: Any) -> str:
        accepted = PaymentRequirements(
            scheme="exact", network=devnet.network, amount="10000", pay_to=market.payee, max_timeout_seconds=60,
            **market.local.asset,
        )  # fmt: skip
        now = int(time.time()) + clock
        message = TransferWithAuthorization(
            parse_address(user.wallet.address), parse_address(market.payee), 10_000, 0, now + 60, bytes(31) + b"\x07"
        )
        right = Domain("USDC", "2", devnet.chain_id, parse_address(devnet.usdc))
        bound = msgspec.structs.replace(message, **signed).bind(msgspec.structs.replace(right, **domain or {}))
        signature = key.sign_typed_data(bound)
        detail = ExactDetail(devnet.chain_id, right.verifying_contract, message, signature)
        payload = write_payload(detail)
        raw = msgspec.Raw(encode_json(accepted))
        return pack_json(encode_payment(accepted=raw, payload=payload, resource=None, extensions=None))

    return make


def wrong(user: User, *arguments: str) -> dict[str, str]:
    """Explain, and give what is wrong by cause: its field."""
    done = user.call("explain", *arguments, "--json")
    assert done.code in {0, 4, 6}, done
    return {each["cause"]: each["field"] for each in done.json["points"] if each["verdict"] == "wrong"}


@pytest.mark.parametrize(
    ("signed", "field"),
    [
        ({"domain": {"name": "USD Coin"}}, "signature: domain.name"),
        ({"domain": {"version": "1"}}, "signature: domain.version"),
        ({"domain": {"chain_id": 8453}}, "signature: domain.chainId"),
        ({"domain": {"verifying_contract": b"\0" * 20}}, "signature: domain.verifyingContract"),
        ({"value": 10**16}, "signature: value"),
        ({"nonce": b"\x01" * 32}, "signature"),
    ],
)
def test_a_bad_signature_is_explained_offline(user: User, pay: Pay, signed: dict[str, Any], field: str) -> None:
    assert wrong(user, pay(**signed)) == {"signature": field}
    done = user.call("explain", pay(**signed))
    assert done.code == 4
    assert b"signed    " in done.stdout
    assert b"expected  " in done.stdout


def test_a_good_payment_has_nothing_against_it(market: Market, user: User, pay: Pay) -> None:
    done = user.call("explain", f"PAYMENT-SIGNATURE: {pay()}")
    assert done.code == 0
    assert b"--rpc" in done.stdout
    done = user.call("explain", pay(), "--rpc", market.local.devnet.url)
    assert (done.code, b"--rpc" in done.stdout) == (0, False)


@pytest.mark.parametrize(("clock", "cause"), [(-600, "skew"), (600, "skew"), (-86_400, "window"), (86_400, "window")])
def test_a_wrong_clock_is_told_from_a_window_that_is_over(user: User, pay: Pay, clock: int, cause: str) -> None:
    assert wrong(user, pay(clock=clock)) == {cause: "window"}


def test_a_payment_is_held_to_another_offer(market: Market, user: User, pay: Pay) -> None:
    terms = PaymentRequirements(
        scheme="exact", network=market.local.devnet.network, amount="20000", pay_to="0x" + "52" * 20,
        max_timeout_seconds=60, **market.local.asset,
    )  # fmt: skip
    header = pack_header(PaymentRequired(ResourceInfo("https://a.example/"), (terms,)))
    done = user.call("explain", pay(), "--offer", header, "--json")
    fields = {each["field"]: each for each in done.json["points"] if each["verdict"] == "wrong"}
    assert set(fields) == {"payTo", "amount"}
    assert (fields["amount"]["signed"], fields["amount"]["expected"]) == ("10000", "20000")


def test_a_block_list_and_a_pause_are_told_apart_by_a_node(market: Market, user: User, pay: Pay) -> None:
    devnet = market.local.devnet
    rpc = ("--rpc", devnet.url)
    with devnet.rewound():
        by_owner(market, "blacklist(address)", pack_address(parse_address(user.wallet.address)))
        assert wrong(user, pay(), *rpc) == {"block-list": "payer blocked"}
    with devnet.rewound():
        by_owner(market, "pause()", b"")
        assert wrong(user, pay(), *rpc) == {"pause": "paused"}


def test_lack_of_funds_is_told(market: Market, tmp_path: Path) -> None:
    poor = market.user(tmp_path, usdc="0.001")
    payment_id = leave_open(market, poor, seconds_ago=0)
    assert wrong(poor, payment_id, "--rpc", market.local.devnet.url) == {"funds": "funds"}


def test_a_used_nonce_is_told_with_its_transaction(market: Market, user: User) -> None:
    devnet = market.local.devnet
    done = user.call("get", user.url("/report"), "--yes", "--json")
    paid = done.json
    devnet.mine(3)
    explained = user.call("explain", paid["payment_id"], "--rpc", devnet.url, "--json")
    (point,) = [each for each in explained.json["points"] if each["verdict"] == "wrong"]
    assert (point["cause"], explained.json["state"]) == ("nonce", "settled")
    assert paid["transaction"] in point["says"]


def test_an_outage_is_no_verdict(user: User, pay: Pay) -> None:
    done = user.call("explain", pay(), "--rpc", "http://127.0.0.1:1", "--json")
    assert (done.code, wrong(user, pay(), "--rpc", "http://127.0.0.1:1")) == (6, {})
    assert done.json["points"][-1]["cause"] == "outage"


def test_a_file_and_standard_input_are_read(user: User, pay: Pay) -> None:
    (user.folder / "dump.txt").write_text(f"> GET / HTTP/1.1\n> PAYMENT-SIGNATURE: {pay(value=1)}\n>\n")
    assert wrong(user, "dump.txt") == {"signature": "signature: value"}
    assert user.call("explain", "-", stdin=pay().encode()).code == 0
    for junk in ("nonsense", "eyJ9", "pay_00000000"):
        assert user.call("explain", junk).code == 2


def by_owner(market: Market, signature: str, data: bytes) -> None:
    """Have the token's owner do something."""
    devnet = market.local.devnet
    address, private_key = devnet.owner
    nonce = int(devnet.rpc("eth_getTransactionCount", address, "latest"), 16)
    transaction = Transaction(
        chain_id=devnet.chain_id, nonce=nonce, max_priority_fee_per_gas=10**9, max_fee_per_gas=10**11,
        gas_limit=200_000, to=parse_address(devnet.usdc), value=0, data=selector(signature) + data,
    )  # fmt: skip
    sent = devnet.rpc("eth_sendRawTransaction", "0x" + transaction.sign(PrivateKey.from_hex(private_key)).raw.hex())
    assert devnet.wait_for_receipt(str(sent))["status"] == "0x1"
