"""Keccak-256: known answers, and both implementations alike."""

from __future__ import annotations

import sys
from unittest import mock

from eth_utils.crypto import keccak
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.evm.keccak import _choose, keccak256


def test_known_answers() -> None:
    assert keccak256(b"").hex() == "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
    assert keccak256(b"abc").hex() == "4e03657aea45a94fc7d47ba826c8d667c0d1e6e33a64a036ec44f58fa12d6c45"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_the_fallback_hashes_the_same(data: bytes) -> None:
    with mock.patch.dict(sys.modules, {"_pysha3": None}):
        fallback = _choose()
    assert fallback(data).digest() == keccak256(data) == keccak(data)
