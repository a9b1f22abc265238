"""Signatures: against eth-account, and each way in which bytes are no signature."""

from __future__ import annotations

import copy
import pickle

import pytest
from eth_account import Account
from eth_keys.main import KeyAPI
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.evm.addresses import checksum_address, parse_address
from farthing.evm.signatures import (
    KeyInvalid,
    PrivateKey,
    SignatureInvalid,
    public_key_address,
    recover_address,
    split_signature,
)

keys = KeyAPI()
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
secrets = st.integers(1, ORDER - 1).map(lambda number: number.to_bytes(32, "big"))
digests = st.binary(min_size=32, max_size=32)
KEY = PrivateKey(b"\x01" * 32)
DIGEST = b"\x02" * 32
SIGNATURE = KEY.sign_digest(DIGEST)


@settings(max_examples=300, deadline=None)
@given(secrets, digests)
def test_signature_is_eth_accounts_and_recovers(secret: bytes, digest: bytes) -> None:
    key = PrivateKey(secret)
    signature = key.sign_digest(digest)
    assert key.address == Account.from_key(secret).address
    assert signature == bytes(Account.unsafe_sign_hash(digest, secret).signature)
    assert checksum_address(recover_address(digest, signature)) == key.address
    v, r, s = split_signature(signature)
    assert r + s + bytes([v]) == signature
    assert v in {27, 28}
    assert recover_address(digest, signature[:64] + bytes([v - 27])) == parse_address(key.address)


@settings(max_examples=200, deadline=None)
@given(secrets, digests)
def test_the_high_s_twin_of_a_signature_is_refused(secret: bytes, digest: bytes) -> None:
    v, r, s = split_signature(PrivateKey(secret).sign_digest(digest))
    twin = r + (ORDER - int.from_bytes(s, "big")).to_bytes(32, "big") + bytes([55 - v])
    # The twin is a signature of the same key in mathematics, which is why it must be refused.
    plain = twin[:64] + bytes([twin[64] - 27])
    assert keys.Signature(plain).recover_public_key_from_msg_hash(digest) == keys.PrivateKey(secret).public_key
    with pytest.raises(SignatureInvalid, match="upper half"):
        recover_address(digest, twin)


@settings(max_examples=300, deadline=None)
@given(digests, st.binary(min_size=60, max_size=70))
def test_junk_is_refused_or_is_somebody_elses(digest: bytes, junk: bytes) -> None:
    try:
        recover_address(digest, junk)
    except SignatureInvalid:
        return
    assert len(junk) == 65


def words(r: int, s: int, v: int) -> bytes:
    return r.to_bytes(32, "big") + s.to_bytes(32, "big") + bytes([v])


@pytest.mark.parametrize(
    "signature",
    [
        b"",
        SIGNATURE[:64],
        SIGNATURE + b"\x00",
        SIGNATURE[:64] + b"\x02",
        SIGNATURE[:64] + b"\x1a",
        SIGNATURE[:64] + b"\x1d",
        SIGNATURE[:64] + b"\xff",
        words(0, 1, 27),
        words(1, 0, 27),
        words(ORDER, 1, 27),
        words(1, ORDER, 27),
        words(1, ORDER // 2 + 1, 27),
        words(2**256 - 1, 1, 27),
        # r = 5 is the x coordinate of no point.
        words(5, 1, 27),
    ],
)
def test_what_is_no_signature_is_refused(signature: bytes) -> None:
    with pytest.raises(SignatureInvalid):
        recover_address(DIGEST, signature)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_digests_of_another_size_are_refused(size: int) -> None:
    with pytest.raises(SignatureInvalid):
        recover_address(bytes(size), SIGNATURE)
    with pytest.raises(SignatureInvalid):
        KEY.sign_digest(bytes(size))


@pytest.mark.parametrize(
    "secret", [b"", bytes(32), b"\x01" * 31, b"\x01" * 33, ORDER.to_bytes(32, "big"), b"\xff" * 32]
)
def test_what_is_no_key_is_refused_without_being_shown(secret: bytes) -> None:
    with pytest.raises(KeyInvalid) as caught:
        PrivateKey(secret)
    assert secret.hex() not in str(caught.value) or not secret


def test_A4_a_key_shows_itself_nowhere() -> None:
    secret = b"\x5a" * 32
    key = PrivateKey.from_hex("0x" + secret.hex())
    for shown in (repr(key), str(key), f"{key!r}"):
        assert "5a5a" not in shown
        assert key.address in shown
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            leak(key)
    with pytest.raises(KeyInvalid) as caught:
        PrivateKey.from_hex("zz" + secret.hex()[2:])
    assert "5a5a" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_public_keys_in_both_forms_have_the_keys_address() -> None:
    public = keys.PrivateKey(b"\x01" * 32).public_key
    assert checksum_address(public_key_address(b"\x04" + public.to_bytes())) == KEY.address
    assert checksum_address(public_key_address(public.to_compressed_bytes())) == KEY.address
    with pytest.raises(KeyInvalid):
        public_key_address(b"\x04" + bytes(64))
