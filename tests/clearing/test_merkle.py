"""Merkle trees by RFC 6962, against the definition written out, and the vectors of its reference implementation."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.ledger.merkle import (
    EMPTY_ROOT,
    MerkleTree,
    inclusion_path,
    leaf_hash,
    path_through_runs,
    root_from_path,
    root_of,
)

# The leaves and roots that Certificate Transparency's own implementation is tested by.
LEAVES = [
    bytes.fromhex(each)
    for each in (
        "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
    )
]  # fmt: skip
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def by_definition(leaves: list[bytes]) -> bytes:
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + by_definition(leaves[:k]) + by_definition(leaves[k:])).digest()


@pytest.mark.parametrize("count", range(1, 9))
def test_the_vectors_of_certificate_transparency(count: int) -> None:
    assert root_of(map(leaf_hash, LEAVES[:count])).hex() == ROOTS[count - 1]
    assert EMPTY_ROOT == MerkleTree().root() == by_definition([])


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=70), st.data())
def test_every_leaf_has_a_proof_and_no_other_leaf_has_it(leaves: list[bytes], data: st.DataObject) -> None:
    hashes = [leaf_hash(each) for each in leaves]
    root = root_of(hashes)
    assert root == by_definition(leaves)
    index = data.draw(st.integers(0, len(leaves) - 1))
    path = inclusion_path(index, hashes)
    assert root_from_path(leaves[index], index=index, size=len(leaves), path=path) == root
    assert root_from_path(leaves[index] + b"!", index=index, size=len(leaves), path=path) != root
    assert root_from_path(leaves[index], index=len(leaves), size=len(leaves), path=path) is None
    if path:
        assert root_from_path(leaves[index], index=index, size=len(leaves), path=path[:-1]) != root
        other = (bytes(32), *path[1:])
        assert root_from_path(leaves[index], index=index, size=len(leaves), path=other) != root
    assert root_from_path(leaves[index], index=index, size=len(leaves), path=(*path, bytes(32))) is None


@given(st.integers(1, 70), st.sampled_from([1, 2, 8, 16]), st.data())
def test_runs_of_leaves_prove_what_single_leaves_prove(count: int, run_leaves: int, data: st.DataObject) -> None:
    hashes = [leaf_hash(bytes([each])) for each in range(count)]
    pieces = [hashes[at : at + run_leaves] for at in range(0, count, run_leaves)]
    runs = [root_of(each) for each in pieces]
    index = data.draw(st.integers(0, count - 1))
    path = path_through_runs(index, run=pieces[index // run_leaves], runs=runs, run_leaves=run_leaves)
    assert path == inclusion_path(index, hashes)
    tree = MerkleTree()
    for each in runs[: count // run_leaves]:
        tree.append(each, height=run_leaves.bit_length() - 1)
    for each in hashes[tree.size :]:
        tree.append(each)
    assert tree.root() == root_of(hashes)
