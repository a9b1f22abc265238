"""The buyer's face of `exact` on EVM: which offers it can pay, and the payload."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from farthing.errors import SignerError
from farthing.evm.addresses import parse_address
from farthing.evm.signatures import SIGNATURE_SIZE_BYTES
from farthing.evm.signing import SignTypedData
from farthing.evm.typed_data import NONCE_SIZE_BYTES, TransferWithAuthorization
from farthing.flow import Now, RandomBytes
from farthing.mechanisms.exact_evm.payload import (
    NETWORKS,
    SCHEME,
    SIGNATURE_MAX_BYTES,
    ExactDetail,
    signed_payment,
    write_payload,
)
from farthing.mechanisms.exact_evm.terms import TermsReader
from farthing.mechanisms.interface import PreparedPayment, Refusal
from farthing.networks import KNOWN, Networks

if TYPE_CHECKING:
    from farthing.flow import Flow
    from farthing.protocol.messages import PaymentRequirements

# The window is open from the beginning of time: a start near the present gains nothing and fails on a chain whose
# latest block, or a facilitator whose clock, is a little behind.
VALID_AFTER_SECONDS: Final = 0


class ExactEvmBuyer:
    """Pays `exact` offers on EIP-155 networks by EIP-3009."""

    scheme: str = SCHEME
    network: str = NETWORKS

    def __init__(self, networks: Networks = KNOWN) -> None:
        """Know the tokens of `networks`."""
        self._terms = TermsReader(networks)

    def passes_over(self, requirements: PaymentRequirements) -> str | None:
        """Say why this offer can't be paid here (Permit2, ERC-7710, no EIP-712 domain …), or None where it can."""
        terms = self._terms.read(requirements)
        return terms.message if isinstance(terms, Refusal) else None

    def pay(self, requirements: PaymentRequirements, *, payer: str, nonce: bytes | None) -> Flow[PreparedPayment]:
        """Make and sign the payload, open until `maxTimeoutSeconds` from now.

        `payer` is the signer's address, `nonce` 32 bytes or None for fresh ones. Yields `Now`, `RandomBytes` (where
        `nonce` is None) and `SignTypedData`. Raises `SignerError` for an offer that `passes_over` names, and for a
        signer that gives less than an account's 65 bytes. A contract wallet's signer may give more (EIP-1271).
        """
        terms = self._terms.read(requirements)
        if isinstance(terms, Refusal):
            message = f"The offer can't be paid: {terms.message}"
            raise SignerError(message)
        # Yielded as they are: an answer's type by `yield from` costs a generator, and this is the hot path.
        now_seconds: int = yield Now()
        if nonce is None:
            fresh: bytes = yield RandomBytes(NONCE_SIZE_BYTES)
            nonce = fresh
        authorization = TransferWithAuthorization(
            parse_address(payer),
            terms.pay_to,
            terms.amount,
            VALID_AFTER_SECONDS,
            now_seconds + terms.max_timeout_seconds,
            nonce,
        )
        signature: bytes = yield SignTypedData(authorization.bind(terms.domain))
        if not SIGNATURE_SIZE_BYTES <= len(signature) <= SIGNATURE_MAX_BYTES:
            message = (
                f"The signer gave {len(signature)} bytes; an account's signature has {SIGNATURE_SIZE_BYTES}, and that "
                f"of a contract wallet up to {SIGNATURE_MAX_BYTES}."
            )
            raise SignerError(message)
        domain = terms.domain
        detail = ExactDetail(terms.chain_id, terms.token, authorization, signature, domain.name, domain.version)
        return PreparedPayment(write_payload(detail), signed_payment(requirements.network, detail))
