"""Nonces of EIP-3009 authorisations that stand for something: a statement that is paid, a payout that is made.

Of all that is ever signed under one such nonce the chain can settle only one. Both sides compute it.
"""

from __future__ import annotations

from farthing.evm.hexadecimal import write_data
from farthing.evm.keccak import keccak256


def statement_reference(network: str, statement: str) -> str:
    """The nonce that pays a statement of the clearing network `network` (`clearing:…`): 0x and 64 digits."""
    return write_data(_nonce(b"farthing clearing statement", network, statement))


def payout_reference(network: str, payout: str) -> str:
    """The nonce of a payout of the clearing network `network`."""
    return write_data(_nonce(b"farthing clearing payout", network, payout))


def _nonce(domain: bytes, network: str, name: str) -> bytes:
    # Neither a network's name nor an id holds a NUL, so that no two pairs run together.
    return keccak256(b"\x00".join((domain, network.encode(), name.encode())))
