"""The seller's face of `exact` on EVM: requirements completed at start-up, payments checked without asking anybody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from farthing.errors import ConfigError
from farthing.evm.addresses import AddressInvalid, checksum_address, parse_address
from farthing.mechanisms.exact_evm.payload import NETWORKS, SCHEME, ExactDetail, read_payment
from farthing.mechanisms.exact_evm.terms import (
    TermsReader,
    judge_signature,
    judge_terms,
    judge_window,
    read_terms,
    settlement_margin_seconds,
)
from farthing.mechanisms.interface import Refusal, SignedPayment
from farthing.networks import KNOWN, Networks, eip155_chain_id

if TYPE_CHECKING:
    from farthing.protocol.messages import PaymentPayload, PaymentRequirements


class ExactEvmSeller:
    """Sells for `exact` payments on EIP-155 networks by EIP-3009."""

    scheme: str = SCHEME
    network: str = NETWORKS

    def __init__(self, networks: Networks = KNOWN) -> None:
        """Know the tokens of `networks`."""
        self._networks = networks
        self._terms = TermsReader(networks)

    def complete(self, requirements: PaymentRequirements) -> PaymentRequirements:
        """Add the token's EIP-712 name and version to `extra`, and write the addresses with their checksums.

        Raises `ConfigError` for a network, asset or payee that can't be used, and where `extra` contradicts the table.
        """
        where = f"the offer on {requirements.network}"
        if eip155_chain_id(requirements.network) is None:
            message = f"{requirements.network!r} is no eip155 network; write it like 'eip155:8453'."
            raise ConfigError(message)
        try:
            asset, pay_to = parse_address(requirements.asset), parse_address(requirements.pay_to)
        except AddressInvalid as error:
            message = f"In {where}: {error}"
            raise ConfigError(message) from None
        extra: dict[str, Any] = dict(requirements.extra or {})
        known = self._networks.token(requirements.network, requirements.asset)
        if known is not None:
            extra = {"name": known.eip712_name, "version": known.eip712_version} | extra
        completed = msgspec.structs.replace(
            requirements, asset=checksum_address(asset), pay_to=checksum_address(pay_to), extra=extra
        )
        terms = read_terms(completed, self._networks)
        if isinstance(terms, Refusal):
            message = (
                f"In {where}: {terms.message} A token outside the table of farthing.networks needs extra name and "
                "version, or a table that knows it."
            )
            raise ConfigError(message)
        return completed

    def read(self, payment: PaymentPayload) -> SignedPayment:
        """Parse the payload: identity and fingerprint. Raises `RemoteProtocolError` with the JSON path."""
        return read_payment(payment)

    def check(self, signed: SignedPayment, requirements: PaymentRequirements, *, now_seconds: int) -> Refusal | None:
        """Judge, locally: network, asset, payee, amount, window. None: nothing speaks against it.

        The signature is left to the facilitator, whatever its size: where `from` is a contract, only the chain can
        tell, and nobody else knows whether it is one (`docs/decisions/008-signatures-at-the-seller.md`).
        """
        detail = _detail(signed)
        terms = self._terms.read(requirements)
        if isinstance(terms, Refusal):
            return terms
        margin_seconds = settlement_margin_seconds(requirements.network, self._networks)
        return judge_terms(signed, detail, terms, requirements.network) or judge_window(
            detail.message, terms, now_seconds=now_seconds, margin_seconds=margin_seconds
        )

    def check_signature(self, signed: SignedPayment, requirements: PaymentRequirements) -> Refusal | None:
        """Judge whether `from`'s own key signed this under the EIP-712 domain of the requirements' token."""
        terms = self._terms.read(requirements)
        return terms if isinstance(terms, Refusal) else judge_signature(_detail(signed), terms.domain)


def _detail(signed: SignedPayment) -> ExactDetail:
    if isinstance(signed.detail, ExactDetail):
        return signed.detail
    message = "The payment was read by another mechanism."
    raise TypeError(message)
