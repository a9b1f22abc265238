"""A wire: how one version of the protocol travels over HTTP, told in the messages that everybody here speaks.

Buyer, seller and facilitator know the messages of version 2 alone. A wire reads and writes them: that of version 2 is
the codec, another translates. Which wires there are stands in `farthing.protocol.versions`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import msgspec

from farthing.errors import LocalProtocolError
from farthing.protocol.codec import (
    HEADER_MAX_BYTES,
    Offer,
    ReceivedOffers,
    decode_payment,
    decode_payment_required,
    decode_settlement,
    decode_verify_request,
    encode_json,
    encode_payment,
    pack_json,
)
from farthing.protocol.extensions import echo
from farthing.protocol.http import PAYMENT_REQUIRED, PAYMENT_RESPONSE, PAYMENT_SIGNATURE
from farthing.protocol.messages import (
    X402_VERSION,
    PaymentPayload,
    PaymentRequired,
    PaymentRequirements,
    SettlementResponse,
    SupportedKind,
    VerifyRequest,
    VerifyResponse,
)


class Wire(Protocol):
    """One version on the wire. What can't be read raises `RemoteProtocolError` with the JSON path."""

    @property
    def version(self) -> int:
        """The version's number."""
        ...

    @property
    def names_offer(self) -> bool:
        """Whether a payment says which offer it accepted."""
        ...

    @property
    def payment_header(self) -> str:
        """The request header that carries a payment."""
        ...

    @property
    def response_header(self) -> str:
        """The answer's header that says what became of it."""
        ...

    @property
    def request_headers(self) -> tuple[str, ...]:
        """What a browser's script of this version sends, beside what every request has (CORS)."""
        ...

    @property
    def exposed_headers(self) -> tuple[str, ...]:
        """What a browser's script of this version must be allowed to see (CORS)."""
        ...

    def read_payments(self, header: str, offers: Sequence[PaymentRequirements]) -> tuple[PaymentPayload, ...]:
        """Read a payment. Where it does not say which offer it accepted: one for each of `offers` that it may mean."""
        ...

    def offer_body(self, message: PaymentRequired, reason: str) -> bytes | None:
        """Write the body of a 402 for those who read offers there; None where there is nothing for them."""
        ...

    def settlement_header(self, value: str) -> tuple[str, str]:
        """Turn a PAYMENT-RESPONSE value into this wire's header: its name, lower case, and its value."""
        ...

    def read_offers(self, header: str | None, body: bytes) -> ReceivedOffers | None:
        """Read a 402: the PAYMENT-REQUIRED header and the beginning of the body. None where it is not this wire's."""
        ...

    def pack_payment(self, received: ReceivedOffers, offer: Offer, payload: msgspec.Struct) -> str:
        """Write the payment header's value. Raises `LocalProtocolError` where it would be too long."""
        ...

    def wrote(self, value: str) -> bool:
        """Tell whether a payment header's value that was written here was written by this wire."""
        ...

    def read_settlement(self, value: str) -> SettlementResponse:
        """Read the response header's value."""
        ...

    def decode_verify_request(self, data: bytes) -> VerifyRequest:
        """Read the body of a `/verify` or `/settle` request."""
        ...

    def encode_verify_response(self, message: VerifyResponse) -> bytes:
        """Write the answer of `/verify`."""
        ...

    def encode_settlement(self, message: SettlementResponse) -> bytes:
        """Write the answer of `/settle`."""
        ...

    def kinds(self, kinds: Iterable[SupportedKind]) -> tuple[SupportedKind, ...]:
        """Say which of these kinds can be asked for over this wire, in its own words."""
        ...


class Version2:
    """The wire of version 2: nothing to translate."""

    version: int = X402_VERSION
    names_offer: bool = True
    payment_header: str = PAYMENT_SIGNATURE
    response_header: str = PAYMENT_RESPONSE
    request_headers: tuple[str, ...] = (PAYMENT_SIGNATURE,)
    exposed_headers: tuple[str, ...] = (PAYMENT_REQUIRED, PAYMENT_RESPONSE)

    def read_payments(self, header: str, offers: Sequence[PaymentRequirements]) -> tuple[PaymentPayload, ...]:
        """Read the payment, which says itself what it accepted."""
        del offers
        return (decode_payment(header),)

    def offer_body(self, message: PaymentRequired, reason: str) -> bytes | None:
        """Leave the body to others: here the header offers."""
        del message, reason
        return None

    def settlement_header(self, value: str) -> tuple[str, str]:
        """Give the header as it is."""
        return _RESPONSE, value

    def read_offers(self, header: str | None, body: bytes) -> ReceivedOffers | None:
        """Read the header. The body says nothing beside it (SAFETY B3)."""
        del body
        return None if header is None else decode_payment_required(header)

    def pack_payment(self, received: ReceivedOffers, offer: Offer, payload: msgspec.Struct) -> str:
        """Write the payment, with offer, resource and extensions echoed as they came."""
        data = encode_payment(
            accepted=offer.raw,
            payload=payload,
            resource=received.resource_raw,
            extensions=echo(received.extensions),
        )
        return bounded(pack_json(data))

    def wrote(self, value: str) -> bool:
        """Take what no other wire has written."""
        del value
        return True

    def read_settlement(self, value: str) -> SettlementResponse:
        """Read PAYMENT-RESPONSE."""
        return decode_settlement(value)

    def decode_verify_request(self, data: bytes) -> VerifyRequest:
        """Read the request."""
        return decode_verify_request(data)

    def encode_verify_response(self, message: VerifyResponse) -> bytes:
        """Write the verdict."""
        return encode_json(message)

    def encode_settlement(self, message: SettlementResponse) -> bytes:
        """Write the settlement."""
        return encode_json(message)

    def kinds(self, kinds: Iterable[SupportedKind]) -> tuple[SupportedKind, ...]:
        """Give them all."""
        return tuple(kinds)


_RESPONSE = PAYMENT_RESPONSE.lower()


def bounded(header: str) -> str:
    """Hold a payment header that we write to the size that sellers read. Raises `LocalProtocolError`."""
    if len(header) > HEADER_MAX_BYTES:
        message = f"the payment's header would have {len(header)} bytes; the limit is {HEADER_MAX_BYTES}"
        raise LocalProtocolError(message)
    return header
