"""The seller's face of payments on credit: requirements completed at start-up.

A commitment can't be read from the payment header alone: it is the signature over the request that counts. So the edge
judges it by `verify_commitment`, which has the request; the flows that know a payment by its payload alone are told so.
"""

from __future__ import annotations

from typing import NoReturn

import msgspec

from farthing.errors import ConfigError, RemoteProtocolError
from farthing.mechanisms.batch_credit.payload import NETWORKS, SCHEME, read_terms, write_extra
from farthing.mechanisms.interface import Refusal, SignedPayment
from farthing.protocol.messages import PaymentPayload, PaymentRequirements

# What a buyer may take between reading an offer and sending its promise: the window of one signature.
TIMEOUT_SECONDS = 60


class BatchCreditSeller:
    """Completes offers of `batch-settlement` on clearing networks."""

    scheme: str = SCHEME
    network: str = NETWORKS

    def __init__(self, *, clearing_house: str = "") -> None:
        """Name the clearing house's URL in every offer, for people who read it."""
        self._clearing_house = clearing_house

    def complete(self, requirements: PaymentRequirements) -> PaymentRequirements:
        """Add version, decimals and clearing house to `extra`, and hold the window to a signature's.

        Raises `ConfigError` for an asset or an amount that no account is kept in.
        """
        extra = write_extra(clearing_house=self._clearing_house) | (requirements.extra or {})
        timeout = min(requirements.max_timeout_seconds, TIMEOUT_SECONDS)
        completed = msgspec.structs.replace(requirements, extra=extra, max_timeout_seconds=timeout)
        terms = read_terms(completed)
        if isinstance(terms, Refusal):
            message = f"In the offer on {requirements.network}: {terms.message}."
            raise ConfigError(message)
        return completed

    def read(self, payment: PaymentPayload) -> SignedPayment:
        """Refuse: a payment on credit is read with its request, by an edge."""
        _needs_edge(payment.accepted.network)

    def check(self, signed: SignedPayment, requirements: PaymentRequirements, *, now_seconds: int) -> Refusal | None:
        """Refuse, likewise."""
        del requirements, now_seconds
        _needs_edge(signed.network)

    def check_signature(self, signed: SignedPayment, requirements: PaymentRequirements) -> Refusal | None:
        """Refuse, likewise."""
        del requirements
        _needs_edge(signed.network)


def _needs_edge(network: str) -> NoReturn:
    message = f"a payment on {network} is a signature over its request, which only an edge reads"
    raise RemoteProtocolError(message, path="$.accepted.network")
