"""Keccak-256, the hash of Ethereum, by the quickest implementation that is installed."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol, cast


class _Hash(Protocol):
    def digest(self) -> bytes: ...


def _choose() -> Callable[[bytes], _Hash]:
    # safe-pysha3's extension module, called directly: 0.8 µs a word. Its front module `sha3` is passed by because it
    # patches hashlib. eth-hash's default way to the same digest takes 7.6 µs. Neither module has types.
    try:
        pysha3: Any = import_module("_pysha3")
    except ImportError:
        pycryptodome: Any = import_module("Crypto.Hash.keccak")
        return cast("Callable[[bytes], _Hash]", lambda data: pycryptodome.new(digest_bits=256, data=data))  # pyright: ignore[reportUnknownLambdaType]
    return cast("Callable[[bytes], _Hash]", pysha3.keccak_256)


_keccak_256 = _choose()


def keccak256(data: bytes) -> bytes:
    """Hash `data` to 32 bytes: Keccak-256 with the original padding, which is not SHA3-256."""
    return _keccak_256(data).digest()
