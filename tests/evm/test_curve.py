"""The curve called through the binding does what coincurve's own classes do, in threads too."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import coincurve
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.evm import curve

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
secrets = st.integers(1, ORDER - 1).map(lambda number: number.to_bytes(32, "big"))
words = st.binary(min_size=32, max_size=32)


@settings(max_examples=200, deadline=None)
@given(secrets, words)
def test_signing_and_recovering_are_coincurves(secret: bytes, digest: bytes) -> None:
    key = coincurve.PrivateKey(secret)
    signature = curve.sign(secret, digest)
    assert signature == key.sign_recoverable(digest, hasher=None)
    assert curve.recover(digest, signature[:64], signature[64]) == key.public_key.format(compressed=False)[1:]


@settings(max_examples=200, deadline=None)
@given(words, words, words, st.integers(0, 1))
def test_what_coincurve_cannot_recover_is_none(digest: bytes, r: bytes, s: bytes, recovery_id: int) -> None:
    try:
        key = coincurve.PublicKey.from_signature_and_message(r + s + bytes([recovery_id]), digest, hasher=None)
    except Exception:  # noqa: BLE001 - coincurve raises this one in places
        assert curve.recover(digest, r + s, recovery_id) is None
        return
    assert curve.recover(digest, r + s, recovery_id) == key.format(compressed=False)[1:]


def test_threads_do_not_mix_their_signatures() -> None:
    def work(number: int) -> bool:
        secret, digest = bytes([number]) * 32, bytes([number + 1]) * 32
        expected = coincurve.PrivateKey(secret).public_key.format(compressed=False)[1:]
        for _ in range(200):
            signature = curve.sign(secret, digest)
            if curve.recover(digest, signature[:64], signature[64]) != expected:
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(1, 9)))
