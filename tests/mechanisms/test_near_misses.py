"""Near misses by property: sign with a mutation, present it as if nothing were wrong: the tool names the mutation."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from exact_evm_desk import KEY, PAYMENT
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.evm.addresses import parse_address
from farthing.evm.keccak import keccak256
from farthing.evm.typed_data import Domain, ReceiveWithAuthorization, TransferWithAuthorization
from farthing.mechanisms.exact_evm.near_misses import find_near_miss
from farthing.mechanisms.exact_evm.payload import ExactDetail, read_payment
from farthing.networks import KNOWN

SIGNED: ExactDetail = read_payment(PAYMENT).detail
DOMAIN = Domain("USDC", "2", 84532, SIGNED.token)
TOKENS = [token for network in KNOWN for token in KNOWN.tokens(network.caip2)]
OTHER = b"\x77" * 20
MESSAGES = st.builds(
    TransferWithAuthorization,
    st.just(parse_address(KEY.address)),
    st.binary(min_size=20, max_size=20),
    st.integers(1, 10**12),
    st.integers(0, 10**6),
    st.integers(1_600_000_000, 2_000_000_000),
    st.binary(min_size=32, max_size=32),
)


def sign(message: TransferWithAuthorization, domain: Domain = DOMAIN) -> bytes:
    signature: bytes = KEY.sign_typed_data(message.bind(domain))
    return signature


def named(came: TransferWithAuthorization, signature: bytes, **offer: Any) -> str:
    detail = msgspec.structs.replace(SIGNED, message=came, signature=signature)
    found = find_near_miss(detail, DOMAIN, **offer)
    return found.what if found else ""


@settings(max_examples=20)
@given(MESSAGES, st.sampled_from(TOKENS))
def test_a_domain_s_member_that_was_another_is_named(message: TransferWithAuthorization, token: Any) -> None:
    for member, value, what in (
        ("name", token.eip712_name, "domain.name"),
        ("version", token.eip712_version, "domain.version"),
        ("chain_id", int(token.network.partition(":")[2]), "domain.chainId"),
        ("verifying_contract", parse_address(token.address), "domain.verifyingContract"),
    ):
        wrong = msgspec.structs.replace(DOMAIN, **{member: value})
        if wrong != DOMAIN:
            assert named(message, sign(message, wrong)) == what


@settings(max_examples=20)
@given(MESSAGES, st.sampled_from(TOKENS))
def test_another_token_s_whole_domain_is_named(message: TransferWithAuthorization, token: Any) -> None:
    chain_id = int(token.network.partition(":")[2])
    domain = Domain(token.eip712_name, token.eip712_version, chain_id, parse_address(token.address))
    differing = sum(getattr(domain, each) != getattr(DOMAIN, each) for each in domain.__struct_fields__)
    if differing > 1:
        assert named(message, sign(message, domain)) == "domain"


@settings(max_examples=20)
@given(MESSAGES, st.integers(1, 18))
def test_an_amount_in_other_decimals_and_the_offer_s_are_named(message: TransferWithAuthorization, power: int) -> None:
    for value in (message.value * 10**power, message.value + 1):
        assert named(message, sign(msgspec.structs.replace(message, value=value))) == "value"
    finer = msgspec.structs.replace(message, value=message.value * 10**power)
    assert named(finer, sign(message)) == "value"
    odd = msgspec.structs.replace(message, value=message.value * 7 + 3)
    assert named(message, sign(odd), amount=odd.value) == "value"
    assert named(message, sign(msgspec.structs.replace(message, to=OTHER)), pay_to=OTHER) == "to"


@settings(max_examples=20)
@given(MESSAGES)
def test_swapped_fields_are_named(message: TransferWithAuthorization) -> None:
    swapped = msgspec.structs.replace(message, valid_after=message.valid_before, valid_before=message.valid_after)
    if message.valid_after != message.valid_before:
        assert named(message, sign(swapped)) == "swapped validAfter and validBefore"
    if message.to != message.from_:
        turned = msgspec.structs.replace(message, from_=message.to, to=message.from_)
        assert named(message, sign(turned)) == "swapped from and to"


@settings(max_examples=20)
@given(MESSAGES)
def test_times_in_milliseconds_are_named(message: TransferWithAuthorization) -> None:
    late = msgspec.structs.replace(message, valid_before=message.valid_before * 1000)
    assert named(message, sign(late)) == "validBefore"


def separator(**members: tuple[str, bytes]) -> bytes:
    kinds = ",".join(f"{kind} {name}" for name, (kind, _) in members.items())
    return keccak256(keccak256(f"EIP712Domain({kinds})".encode()) + b"".join(value for _, value in members.values()))


MEMBERS = {
    "name": ("string", keccak256(b"USDC")),
    "version": ("string", keccak256(b"2")),
    "chainId": ("uint256", (84532).to_bytes(32, "big")),
    "verifyingContract": ("address", bytes(12) + SIGNED.token),
}


@settings(max_examples=20)
@given(MESSAGES, st.sampled_from(list(MEMBERS)))
def test_a_domain_s_member_that_is_missing_is_named(message: TransferWithAuthorization, missing: str) -> None:
    made = separator(**{name: member for name, member in MEMBERS.items() if name != missing})
    signature = raw_sign(keccak256(b"\x19\x01" + made + message.struct_hash()))
    assert named(message, signature) == f"domain.{missing}"


def raw_sign(digest: bytes) -> bytes:
    class Bound:
        def digest(self) -> bytes:
            return digest

        def to_json(self) -> dict[str, Any]:
            return {}

    signature: bytes = KEY.sign_typed_data(Bound())
    return signature


@settings(max_examples=20)
@given(MESSAGES)
def test_other_ways_to_sign_are_named(message: TransferWithAuthorization) -> None:
    digest, right = message.digest(DOMAIN), sign(message)
    received = ReceiveWithAuthorization(*(getattr(message, name) for name in message.__struct_fields__))
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    high = (order - int.from_bytes(right[32:64], "big")).to_bytes(32, "big")
    other_v = bytes((27 + 28 - right[64],))
    expected = {
        "primaryType": raw_sign(received.digest(DOMAIN)),
        "personal_sign": raw_sign(keccak256(b"\x19Ethereum Signed Message:\n32" + digest)),
        "no domain": raw_sign(message.struct_hash()),
        "signature.s": right[:32] + high + other_v,
        "signature.v": right[:64] + other_v,
    }
    for what, signature in expected.items():
        assert named(message, signature) == what
    assert named(message, right[64:] + right[:64]) == "signature"
    assert named(message, right[32:64] + right[:32] + right[64:]) in {"signature", "signature.s", "signature.v"}


@settings(max_examples=20)
@given(MESSAGES, st.binary(min_size=65, max_size=65))
def test_what_fits_nothing_is_not_guessed(message: TransferWithAuthorization, junk: bytes) -> None:
    assert named(message, junk) == ""


@pytest.mark.parametrize("size", [0, 64, 66, 200])
def test_a_contract_s_signature_is_its_code_s_business(size: int) -> None:
    assert named(SIGNED.message, b"\1" * size) == ""
