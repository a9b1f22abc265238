"""ERC-6492's wrapper, with eth-abi as the oracle."""

from __future__ import annotations

import pytest
from eth_abi.abi import encode
from eth_utils.address import to_checksum_address
from hypothesis import given
from hypothesis import strategies as st
from x402.mechanisms.evm.constants import ERC6492_MAGIC_VALUE

from farthing.evm.counterfactual import MAGIC_SUFFIX, WrappedSignature, unwrap_signature, wrap_signature
from farthing.evm.signatures import SignatureInvalid

wrapped_signatures = st.builds(
    WrappedSignature, st.binary(min_size=20, max_size=20), st.binary(max_size=300), st.binary(max_size=300)
)


@given(wrapped_signatures)
def test_a_wrapper_is_what_eth_abi_writes_and_reads_back(wrapped: WrappedSignature) -> None:
    members = (to_checksum_address(wrapped.factory), wrapped.factory_calldata, wrapped.signature)
    written = encode(["address", "bytes", "bytes"], members) + ERC6492_MAGIC_VALUE
    assert wrap_signature(wrapped) == written
    assert unwrap_signature(written) == wrapped


@given(st.binary(max_size=400).filter(lambda data: not data.endswith(MAGIC_SUFFIX)))
def test_other_signatures_are_not_wrapped(signature: bytes) -> None:
    assert unwrap_signature(signature) is None


@given(st.binary(max_size=200))
def test_a_broken_wrapper_is_an_error_and_nothing_else(junk: bytes) -> None:
    try:
        found = unwrap_signature(junk + MAGIC_SUFFIX)
    except SignatureInvalid:
        return
    assert found is not None


@pytest.mark.parametrize("size", [0, 31, 32, 64, 95, 96])
def test_a_wrapper_cut_short_is_an_error(size: int) -> None:
    whole = wrap_signature(WrappedSignature(b"\x11" * 20, b"\x01" * 40, b"\x02" * 65))
    with pytest.raises(SignatureInvalid, match="ERC-6492"):
        unwrap_signature(whole[:size] + MAGIC_SUFFIX)


def test_a_wrapper_without_a_call_deploys_nothing() -> None:
    assert WrappedSignature(b"\x11" * 20, b"\x01", b"").deploys
    assert not WrappedSignature(b"\x11" * 20, b"", b"").deploys
    assert not WrappedSignature(bytes(20), b"\x01", b"").deploys
