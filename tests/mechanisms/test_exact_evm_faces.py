"""The buyer's and the seller's faces, and the payload that travels between them."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from eth_account import Account
from exact_evm_desk import GOOD, KEY, NONCE, NOW, OFFER, PAYMENT, Node, payload_of, prepare, resign, verify
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.errors import ConfigError, RemoteProtocolError, SignerError
from farthing.evm.signatures import PrivateKey
from farthing.evm.signing import SignTypedData
from farthing.flow import Effect, drive
from farthing.mechanisms.exact_evm import ExactEvmBuyer, ExactEvmFacilitator, ExactEvmSeller
from farthing.mechanisms.exact_evm.payload import ExactDetail, read_payment, signed_payment, write_payload
from farthing.mechanisms.registry import Registry
from farthing.networks import KNOWN, Token
from farthing.protocol.codec import encode_json
from farthing.protocol.messages import PaymentPayload, PaymentRequirements

SELLER = ExactEvmSeller()
BUYER = ExactEvmBuyer()


def offer(**changes: Any) -> PaymentRequirements:
    changed: PaymentRequirements = msgspec.structs.replace(OFFER, **changes)
    return changed


def check(payment: PaymentPayload, requirements: PaymentRequirements = OFFER, now_seconds: int = NOW) -> str | None:
    refusal = SELLER.check(SELLER.read(payment), requirements, now_seconds=now_seconds)
    return None if refusal is None else refusal.reason


def test_what_the_buyer_makes_the_seller_reads_alike() -> None:
    assert SELLER.read(PAYMENT) == GOOD.signed
    assert ExactEvmFacilitator().read(PAYMENT) == GOOD.signed
    assert check(PAYMENT) is None
    signed = GOOD.signed
    assert signed.payer == KEY.address
    assert (signed.amount, signed.valid_after, signed.valid_before) == (10_000, 0, NOW + 60)
    assert (signed.pay_to, signed.asset, signed.network) == (OFFER.pay_to, OFFER.asset, OFFER.network)
    assert signed.identity.kind == "eip3009"
    assert signed.identity.parts == (OFFER.network, OFFER.asset.lower(), KEY.address.lower(), "0x" + NONCE.hex())


def test_the_signature_is_eth_accounts() -> None:
    payload = json.loads(encode_json(GOOD.payload))
    fields = ("from", "to", "value", "validAfter", "validBefore", "nonce")
    kinds = ("address", "address", "uint256", "uint256", "uint256", "bytes32")
    full = {
        "types": {
            "EIP712Domain": [
                {"name": name, "type": kind}
                for name, kind in (
                    ("name", "string"),
                    ("version", "string"),
                    ("chainId", "uint256"),
                    ("verifyingContract", "address"),
                )
            ],
            "TransferWithAuthorization": [{"name": n, "type": t} for n, t in zip(fields, kinds, strict=True)],
        },
        "primaryType": "TransferWithAuthorization",
        "domain": {"name": "USDC", "version": "2", "chainId": 84532, "verifyingContract": OFFER.asset},
        "message": payload["authorization"],
    }
    assert (
        payload["signature"] == "0x" + bytes(Account.sign_typed_data(b"\x21" * 32, full_message=full).signature).hex()
    )
    assert set(payload["authorization"]) == set(fields)


def test_B1_the_nonce_is_the_callers_where_one_is_given() -> None:
    again = drive(BUYER.pay(OFFER, payer=KEY.address, nonce=b"\x44" * 32), Node().perform)
    assert again.signed.identity.parts[3] == "0x" + "44" * 32
    assert prepare().signed.payment_id == GOOD.signed.payment_id != again.signed.payment_id


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"scheme": "upto"}, "upto"),
        ({"network": "solana:5eykt4UsFv8P8NJdT"}, "eip155"),
        ({"network": "cloudflare:402"}, "eip155"),
        ({"asset": "USD"}, "asset"),
        ({"pay_to": "merchant"}, "payTo"),
        ({"pay_to": OFFER.pay_to[:-1] + "c"}, "checksum"),
        ({"extra": None}, "name or version"),
        ({"extra": {"name": "USDC", "version": "2", "assetTransferMethod": "permit2"}}, "permit2"),
        ({"extra": {"name": "USDC", "version": "2", "assetTransferMethod": "erc7710"}}, "erc7710"),
        ({"extra": {"name": "Evil", "version": "2"}}, "Evil"),
        ({"extra": {"name": 1, "version": "2"}}, "extra"),
        ({"network": "eip155:4326", "asset": "0xFAfDdbb3FC7688494971a79cc65DCa3EF82079E7"}, "permit2"),
    ],
)
def test_B3_offers_that_cannot_be_paid_are_named_and_never_signed(changes: dict[str, Any], said: str) -> None:
    why = BUYER.passes_over(offer(**changes))
    assert why is not None
    assert said in why
    with pytest.raises(SignerError):
        drive(BUYER.pay(offer(**changes), payer=KEY.address, nonce=None), Node().perform)


def test_a_good_offer_is_not_passed_over() -> None:
    assert BUYER.passes_over(OFFER) is None
    unknown = offer(network="eip155:31337", asset="0x" + "77" * 20, extra={"name": "Any", "version": "9", "more": [1]})
    assert BUYER.passes_over(unknown) is None


def test_a_signer_that_gives_something_else_is_an_error() -> None:
    def perform(effect: Effect[Any]) -> Any:
        return b"\x00" * 64 if isinstance(effect, SignTypedData) else Node().perform(effect)

    with pytest.raises(SignerError, match="64 bytes"):
        drive(BUYER.pay(OFFER, payer=KEY.address, nonce=None), perform)


def test_requirements_are_completed_from_the_table() -> None:
    bare = offer(asset=OFFER.asset.lower(), pay_to=OFFER.pay_to.lower(), extra=None)
    assert SELLER.complete(bare) == OFFER
    more = SELLER.complete(offer(extra={"paymentFlow": "upfront"}))
    assert more.extra == {"name": "USDC", "version": "2", "paymentFlow": "upfront"}
    devnet = Token(
        network="eip155:402402",
        address="0x" + "99" * 20,
        symbol="USDC",
        decimals=6,
        eip712_name="USDC",
        eip712_version="2",
    )
    there = offer(network="eip155:402402", asset=devnet.address, extra=None)
    assert ExactEvmSeller(KNOWN.with_token(devnet)).complete(there).extra == {"name": "USDC", "version": "2"}
    with pytest.raises(ConfigError, match="name or version"):
        SELLER.complete(there)


@pytest.mark.parametrize(
    "changes",
    [
        {"network": "base"},
        {"network": "eip155:x"},
        {"asset": "USDC"},
        {"pay_to": "0x1"},
        {"pay_to": OFFER.pay_to[:-1] + "c"},
        {"pay_to": "0x" + "00" * 20},
        {"asset": "0x" + "77" * 20, "extra": None},
        {"extra": {"name": "USD Coin", "version": "2"}},
        {"network": "eip155:38833", "asset": "0xA5b8BF902b2844dA17d4506cc827F7F1681735E7", "extra": None},
        {"scheme": "upto"},
    ],
)
def test_offers_that_cannot_be_used_are_found_at_start_up(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        SELLER.complete(offer(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"network": "eip155:8453", "extra": {"name": "USD Coin", "version": "2"}},
        {"asset": "0x" + "77" * 20},
        {"amount": "10001"},
        {"amount": "0"},
        {"pay_to": "0x" + "12" * 20},
        {"extra": {"name": "USDC", "version": "1"}},
        {"scheme": "upto"},
    ],
)
def test_S4_an_offer_with_one_field_changed_is_not_met(changes: dict[str, Any]) -> None:
    assert check(PAYMENT, offer(**changes)) is not None


@pytest.mark.parametrize(
    "change",
    [
        {"from_": b"\x12" * 20},
        {"to": b"\x12" * 20},
        {"value": 9_999},
        {"valid_after": 1},
        {"valid_before": NOW + 59},
        {"nonce": b"\x34" * 32},
    ],
)
def test_S4_each_signed_field_changed_alone_is_refused(change: dict[str, Any]) -> None:
    """By the seller, where the offer says otherwise, else by the facilitator; before any settlement."""
    detail = GOOD.signed.detail
    assert isinstance(detail, ExactDetail)
    message = msgspec.structs.replace(detail.message, **change)
    changed = payload_of(write_payload(msgspec.structs.replace(detail, message=message)))
    verdict = verify(changed).response
    assert not verdict.is_valid
    assert check(changed) == (verdict.invalid_reason if {"to", "value"} & change.keys() else None)
    assert SELLER.check_signature(SELLER.read(changed), OFFER) is not None


def test_the_seller_leaves_signatures_to_the_facilitator() -> None:
    """A payer with code can't be judged locally, and nobody but a node knows whether the payer has any."""
    longer = msgspec.structs.replace(GOOD.signed.detail, signature=b"\x01" * 200)
    assert check(payload_of(write_payload(longer))) is None
    strangers = resign(GOOD.signed, key=PrivateKey(b"\x23" * 32))
    assert check(payload_of(write_payload(strangers.detail))) is None


def test_S4_a_signature_tells_two_tokens_of_one_price_apart() -> None:
    """What a payment of version 1 is matched by, since it does not say what it accepts."""
    assert SELLER.check_signature(GOOD.signed, OFFER) is None
    other = offer(asset="0x" + "77" * 20)
    assert SELLER.check_signature(SELLER.read(payload_of(GOOD.payload, other)), other) is not None
    assert SELLER.check_signature(GOOD.signed, offer(extra=None)) is not None


def test_windows_are_judged_by_the_sellers_clock() -> None:
    assert check(PAYMENT, now_seconds=NOW + 54) is None
    assert check(PAYMENT, now_seconds=NOW + 55) == "invalid_exact_evm_payload_authorization_valid_before"
    assert check(PAYMENT, now_seconds=NOW - 301) == "invalid_exact_evm_payload_authorization_valid_before"


def test_one_signature_has_one_fingerprint_and_others_have_others() -> None:
    detail = GOOD.signed.detail
    assert isinstance(detail, ExactDetail)
    signature = detail.signature
    low_v = msgspec.structs.replace(detail, signature=signature[:64] + bytes([signature[64] - 27]))
    assert signed_payment(OFFER.network, low_v).fingerprint == GOOD.signed.fingerprint
    prints = {GOOD.signed.fingerprint}
    changes: list[dict[str, Any]] = [
        {"from_": b"\x12" * 20}, {"to": b"\x12" * 20}, {"value": 1}, {"valid_after": 1}, {"valid_before": 1},
        {"nonce": b"\x12" * 32},
    ]  # fmt: skip
    for change in changes:
        message = msgspec.structs.replace(detail.message, **change)
        prints.add(signed_payment(OFFER.network, msgspec.structs.replace(detail, message=message)).fingerprint)
    prints.add(signed_payment(OFFER.network, msgspec.structs.replace(detail, token=b"\x12" * 20)).fingerprint)
    prints.add(signed_payment("eip155:1", detail).fingerprint)
    prints.add(signed_payment(OFFER.network, msgspec.structs.replace(detail, signature=b"\x01" * 65)).fingerprint)
    assert len(prints) == len(changes) + 4


def test_letter_case_changes_neither_identity_nor_fingerprint() -> None:
    text = json.loads(encode_json(GOOD.payload))
    said = text["authorization"]
    shouted = {"signature": "0x" + text["signature"][2:].upper(), "authorization": dict(said)}
    for name in ("from", "to", "nonce"):
        shouted["authorization"][name] = "0x" + said[name][2:].upper()
    accepted = offer(asset="0x" + OFFER.asset[2:].upper())
    assert read_payment(payload_of(shouted, accepted)) == GOOD.signed


BAD: list[tuple[str, Any, str]] = [
    ("signature", None, "$.payload.signature"),
    ("signature", 1, "$.payload.signature"),
    ("signature", "zz", "$.payload.signature"),
    ("signature", "0x0", "$.payload.signature"),
    ("signature", "0x" + "0" * 9_000, "$.payload.signature"),
    ("authorization", None, "$.payload.authorization"),
    ("authorization", [], "$.payload.authorization"),
    ("from", "0x12", "$.payload.authorization.from"),
    ("from", None, "$.payload.authorization.from"),
    ("to", "me", "$.payload.authorization.to"),
    ("to", OFFER.pay_to[:-1] + "c", "$.payload.authorization.to"),
    ("value", 10_000, "$.payload.authorization.value"),
    ("value", " 10000 ", "$.payload.authorization.value"),
    ("value", "010000", "$.payload.authorization.value"),
    ("value", "1e4", "$.payload.authorization.value"),
    ("value", "-1", "$.payload.authorization.value"),
    ("value", "+1", "$.payload.authorization.value"),
    ("value", "", "$.payload.authorization.value"),
    ("value", "1\n", "$.payload.authorization.value"),
    ("value", "\uff11\uff10", "$.payload.authorization.value"),
    ("value", str(2**256), "$.payload.authorization.value"),
    ("value", "9" * 78, "$.payload.authorization.value"),
    ("validAfter", None, "$.payload.authorization.validAfter"),
    ("validAfter", 1.5, "$.payload.authorization.validAfter"),
    ("validBefore", str(2**256), "$.payload.authorization.validBefore"),
    ("nonce", "0x" + "1" * 63, "$.payload.authorization.nonce"),
    ("nonce", "0x" + "1" * 62 + "  ", "$.payload.authorization.nonce"),
    ("nonce", "1" * 66, "$.payload.authorization.nonce"),
    ("nonce", "", "$.payload.authorization.nonce"),
]


@pytest.mark.parametrize(("name", "value", "path"), BAD)
def test_S10_bad_input_names_its_field(name: str, value: Any, path: str) -> None:
    text = json.loads(encode_json(GOOD.payload))
    (text if name in text else text["authorization"])[name] = value
    with pytest.raises(RemoteProtocolError) as caught:
        SELLER.read(payload_of(text))
    assert caught.value.path == path


def test_S10_the_offer_that_it_accepts_is_read_strictly_too() -> None:
    for changes, path in (
        ({"asset": "USDC"}, "$.accepted.asset"),
        ({"asset": OFFER.asset[:-1] + "E"}, "$.accepted.asset"),
        ({"network": "base"}, "$.accepted.network"),
    ):
        with pytest.raises(RemoteProtocolError) as caught:
            SELLER.read(payload_of(GOOD.payload, offer(**changes)))
        assert caught.value.path == path


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=70),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(json_values)
def test_S10_any_json_in_the_payload_is_an_error_of_the_protocol(value: Any) -> None:
    with pytest.raises(RemoteProtocolError):
        SELLER.read(payload_of(value))


def test_the_registry_finds_the_faces_by_pattern() -> None:
    registry = Registry([BUYER])
    assert registry.find("exact", "eip155:8453") is BUYER
    assert registry.find("exact", "solana:x") is None
    assert registry.find("upto", "eip155:8453") is None
    with pytest.raises(ConfigError):
        Registry([BUYER, ExactEvmBuyer()])


def test_a_payment_of_another_mechanism_is_a_bug() -> None:
    alien = msgspec.structs.replace(GOOD.signed, detail=None)
    with pytest.raises(TypeError):
        SELLER.check(alien, OFFER, now_seconds=NOW)
    with pytest.raises(TypeError):
        ExactEvmFacilitator().settlement_call(alien)
