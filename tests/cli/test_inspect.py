"""`farthing inspect`: any header of the protocol, told which it is and what it says."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from marketplace import User

from farthing.cli.reading import Unreadable, find_headers, read_header
from farthing.evm.signing import SignTypedData
from farthing.flow import Now, RandomBytes, drive
from farthing.mechanisms.exact_evm import ExactEvmBuyer
from farthing.networks import KNOWN
from farthing.protocol.codec import encode_payment, pack_header, pack_json
from farthing.protocol.messages import PaymentRequired, PaymentRequirements, ResourceInfo, SettlementResponse
from farthing.protocol.versions import wire_of_version
from farthing.world.keys import LocalSigner

if TYPE_CHECKING:
    from tests.cli.marketplace import Market

SIGNER = LocalSigner(b"\x01" * 32)
OFFER = PaymentRequirements(
    scheme="exact", network="eip155:84532", amount="10000", asset="0x036CbD53842c5426634e7929541eC2318f3dCF7e",
    pay_to="0x209693Bc6afc0C5328bA36FaF03C514EF312287C", max_timeout_seconds=60, extra={"name": "USDC", "version": "2"},
)  # fmt: skip
RESOURCE = ResourceInfo("https://api.example.com/report", description="\x1b[31mred")
REQUIRED = pack_header(PaymentRequired(RESOURCE, (OFFER,)))
RESPONSE = pack_header(SettlementResponse(success=True, transaction="0x" + "ab" * 32, network="eip155:84532"))


def payment(change: Callable[[dict[str, Any]], object] = lambda _: None) -> str:
    """A real payment, changed afterwards."""

    def perform(effect: Any) -> Any:
        if isinstance(effect, Now):
            return 1_795_420_000
        if isinstance(effect, RandomBytes):
            return b"\x07" * effect.size_bytes
        assert isinstance(effect, SignTypedData)
        return SIGNER.sign_typed_data(effect.message)

    paid = drive(ExactEvmBuyer().pay(OFFER, payer=SIGNER.address, nonce=None), perform)
    raw = msgspec.Raw(msgspec.json.encode(OFFER))
    message = json.loads(encode_payment(accepted=raw, payload=paid.payload, resource=None, extensions=None))
    change(message)
    return pack_json(json.dumps(message).encode())


@pytest.fixture
def user(tmp_path: Path) -> User:
    """A user without a wallet."""
    user = object.__new__(User)
    user.folder, user.home = tmp_path, tmp_path / "home"
    user.environment = {"FARTHING_HOME": str(user.home)}
    return user


def test_an_offer_is_told_in_units_of_its_token(user: User) -> None:
    done = user.call("inspect", REQUIRED)
    assert done.code == 0
    said = done.stdout.decode()
    assert said.startswith("PAYMENT-REQUIRED, version 2\n")
    assert "0.01 USDC on Base Sepolia (eip155:84532)" in said
    assert "\x1b" not in said
    assert json.loads(said[said.index("{") :])["accepts"][0]["amount"] == "10000"


def test_the_payer_is_recovered_from_the_signature(user: User) -> None:
    facts = user.call("inspect", payment(), "--json").json["facts"]
    assert facts["signer"] == f"{SIGNER.address}, the payer"
    assert facts["signed"] == f"0.01 USDC from {SIGNER.address} to {OFFER.pay_to}"
    assert facts["window"] == "the beginning to 2026-11-23T07:47:40Z"

    def dearer(message: dict[str, Any]) -> None:
        message["payload"]["authorization"]["value"] = "20000"

    facts = user.call("inspect", payment(dearer), "--json").json["facts"]
    assert "NOT the payer" in facts["signer"]
    assert "not what is accepted" in facts["note"]


def test_a_settlement_is_told(user: User) -> None:
    said = user.call("inspect", f"PAYMENT-RESPONSE: {RESPONSE}", "--json").json
    assert (said["kind"], said["version"], said["facts"]["success"]) == ("PAYMENT-RESPONSE", 2, "yes")
    assert said["facts"]["transaction"] == "0x" + "ab" * 32


def test_a_dump_on_standard_input_is_searched_for_all_of_them(user: User) -> None:
    dump = (
        f"> GET /report HTTP/1.1\n> payment-signature: {payment()}\n"
        f"< HTTP/1.1 200 OK\r\n< Payment-Response: {RESPONSE}\r\n\r\n"
    )
    lines = user.call("inspect", "-", "--json", stdin=dump.encode()).stdout.splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["PAYMENT-SIGNATURE", "PAYMENT-RESPONSE"]
    bare = user.call("inspect", "-", "--json", stdin=REQUIRED.encode() + b"\n")
    assert bare.json["kind"] == "PAYMENT-REQUIRED"


def wrong(value: object) -> Callable[[dict[str, Any]], object]:
    return lambda message: message["accepted"].update(amount=value)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("not base64!", "$"),
        (base64.b64encode(b"not json").decode(), "$"),
        (base64.b64encode(b"[1]").decode(), "$"),
        (base64.b64encode(b'{"a": 1}').decode(), "$"),
        (payment(wrong("010")), "$.accepted.amount"),
        (payment(wrong(10)), "$.accepted.amount"),
        (payment(lambda message: message["payload"]["authorization"].pop("nonce")), "$.payload.authorization.nonce"),
        ("A" * 20_000, "$"),
    ],
)
def test_what_is_wrong_is_named_with_its_path(user: User, text: str, path: str) -> None:
    done = user.call("inspect", text, "--json")
    assert done.code == 2
    assert done.json["path"] == path
    assert path in done.stderr or path == "$"


def test_version_1_is_read_too(user: User) -> None:
    wire = wire_of_version(1)
    assert wire is not None
    body = wire.offer_body(PaymentRequired(RESOURCE, (OFFER,)), "")
    assert body is not None
    said = user.call("inspect", body.decode(), "--json").json
    assert (said["kind"], said["version"]) == ("402 body", 1)
    assert "0.01 USDC on Base Sepolia (eip155:84532)" in said["facts"]["offer 0"]

    def older(message: dict[str, Any]) -> None:
        payload = message["payload"]
        message.clear()
        message.update(x402Version=1, scheme="exact", network="base-sepolia", payload=payload)

    said = user.call("inspect", f"X-PAYMENT: {payment(older)}", "--json").json
    assert (said["kind"], said["version"]) == ("X-PAYMENT", 1)
    assert said["facts"]["signer"] == f"{SIGNER.address}, the payer"
    assert said["facts"]["signed"] == f"0.01 USDC from {SIGNER.address} to {OFFER.pay_to}"
    name, value = wire.settlement_header(RESPONSE)
    said = user.call("inspect", f"{name}: {value}", "--json").json
    assert (said["kind"], said["version"], said["facts"]["success"]) == ("X-PAYMENT-RESPONSE", 1, "yes")


def test_a_url_is_asked_and_not_paid(user: User, market: Market) -> None:
    user.environment["FARTHING_TOKENS"] = market.token
    before = len(market.served)
    done = user.call("inspect", market.url + "/report", "--json")
    assert "0.01 USDC on Farthing devnet" in done.json["facts"]["offer 0"]
    assert user.call("inspect", market.url + "/free").code == 2
    assert user.call("inspect", "http://127.0.0.1:1/").code == 2
    assert (len(market.served), market.earned) == (before + 1, 0)


@given(st.text() | st.binary().map(lambda data: base64.b64encode(data).decode()))
def test_no_text_breaks_it(text: str) -> None:
    for each in find_headers(text):
        try:
            read_header(each, KNOWN)
        except Unreadable:
            continue


MEMBERS = st.sampled_from(["x402Version", "accepts", "payload", "success", "accepted", "network", "amount"])


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(MEMBERS, inner),
    )
)
def test_no_json_breaks_it(message: Any) -> None:
    with contextlib.suppress(Unreadable):
        read_header(pack_json(json.dumps(message).encode()), KNOWN)
