"""Merkle trees as RFC 6962, section 2.1, has them: roots built leaf by leaf in memory of logarithmic size, and proofs.

A leaf is hashed with 0x00 before it and a node with 0x01, so that no node can be passed off as a leaf. A tree of `n`
leaves splits at the largest power of two below `n`: aligned runs of 2^k leaves are subtrees of their own, and a tree
over a million leaves can be proved from the hashes of its runs and the leaves of one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final

HASH_SIZE_BYTES: Final = 32
# The root of no leaves at all: the hash of the empty text (RFC 6962, 2.1).
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()


def leaf_hash(leaf: bytes) -> bytes:
    """Hash one leaf."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash two neighbours."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class MerkleTree:
    """A tree that grows at its right end. Keeps one hash for each bit of its size, and no leaf."""

    __slots__ = ("_heights", "_roots", "size")

    def __init__(self) -> None:
        """Begin with no leaf."""
        self.size = 0
        # Complete subtrees from left to right, and their heights, which fall strictly.
        self._roots: list[bytes] = []
        self._heights: list[int] = []

    def append(self, hashed: bytes, *, height: int = 0) -> None:
        """Add a leaf's hash, or the root of a complete run of 2^height leaves where the size is a multiple of that."""
        if self.size % (1 << height):
            message = f"A run of 2^{height} leaves begins at a multiple of that, not behind {self.size}."
            raise ValueError(message)
        self.size += 1 << height
        roots, heights = self._roots, self._heights
        while heights and heights[-1] == height:
            hashed = node_hash(roots.pop(), hashed)
            heights.pop()
            height += 1
        roots.append(hashed)
        heights.append(height)

    def root(self) -> bytes:
        """The root over all leaves so far."""
        if not self._roots:
            return EMPTY_ROOT
        *lefts, hashed = self._roots
        for left in reversed(lefts):
            hashed = node_hash(left, hashed)
        return hashed


def root_of(hashes: Iterable[bytes]) -> bytes:
    """Give the root over hashes of leaves."""
    tree = MerkleTree()
    for hashed in hashes:
        tree.append(hashed)
    return tree.root()


def split(size: int) -> int:
    """Give the largest power of two below `size`, where a tree of two or more leaves splits."""
    return 1 << ((size - 1).bit_length() - 1)


def inclusion_path(index: int, hashes: Sequence[bytes]) -> tuple[bytes, ...]:
    """Give the audit path of leaf `index`, from the leaf up (RFC 6962, 2.1.1). Raises `IndexError`."""
    if not 0 <= index < len(hashes):
        message = f"Leaf {index} is none of {len(hashes)}."
        raise IndexError(message)
    if len(hashes) == 1:
        return ()
    at = split(len(hashes))
    if index < at:
        return (*inclusion_path(index, hashes[:at]), root_of(hashes[at:]))
    return (*inclusion_path(index - at, hashes[at:]), root_of(hashes[:at]))


def path_through_runs(index: int, *, run: Sequence[bytes], runs: Sequence[bytes], run_leaves: int) -> tuple[bytes, ...]:
    """Give the audit path of leaf `index` in a tree that is kept as the roots of runs of `run_leaves` (a power of two).

    `run` are the leaves' hashes of the one run that holds the leaf. The last run may be shorter: then it is the right
    end of the tree, and RFC 6962's split puts it beside whole runs, so that its root stands for it all the same.
    """
    chosen, inside = divmod(index, run_leaves)
    return (*inclusion_path(inside, run), *inclusion_path(chosen, runs))


def root_from_path(leaf: bytes, *, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """Recompute the root from a leaf's own bytes and its path; None where the path can't belong to such a tree.

    The caller compares it with a root that it trusts. Source: RFC 9162, section 2.1.3.2, which states the check that
    RFC 6962 leaves to the reader.
    """
    if not 0 <= index < size:
        return None
    hashed, first, last = leaf_hash(leaf), index, size - 1
    for sibling in path:
        if last == 0 or len(sibling) != HASH_SIZE_BYTES:
            return None
        if first & 1 or first == last:
            hashed = node_hash(sibling, hashed)
            while first and not first & 1:
                first >>= 1
                last >>= 1
        else:
            hashed = node_hash(hashed, sibling)
        first >>= 1
        last >>= 1
    return hashed if last == 0 else None
