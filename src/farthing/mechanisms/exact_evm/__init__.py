"""The scheme `exact` on `eip155` networks, by EIP-3009: what was signed is what is paid, once.

Source: `specs/schemes/exact/scheme_exact_evm.md`, asset transfer method `eip3009`. Offers by Permit2 and ERC-7710 are
named and passed over. Its faces:

    ExactEvmBuyer()         chooses offers and makes payloads
    ExactEvmSeller()        completes requirements and checks payments without asking anybody
    ExactEvmFacilitator()   verifies against the chain, builds the settling call, judges evidence
    ExactEvmTracer()        finds out what became of a payment, by a node alone
"""

from __future__ import annotations

from farthing.mechanisms.exact_evm.buyer import ExactEvmBuyer
from farthing.mechanisms.exact_evm.facilitator import ExactEvmFacilitator
from farthing.mechanisms.exact_evm.payload import NETWORKS, SCHEME, ExactAuthorization, ExactPayload
from farthing.mechanisms.exact_evm.seller import ExactEvmSeller
from farthing.mechanisms.exact_evm.tracing import ExactEvmTracer

__all__ = [
    "NETWORKS",
    "SCHEME",
    "ExactAuthorization",
    "ExactEvmBuyer",
    "ExactEvmFacilitator",
    "ExactEvmSeller",
    "ExactEvmTracer",
    "ExactPayload",
]
