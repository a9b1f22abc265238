"""The wire of version 1: a JSON body in the 402, `X-PAYMENT` on the request, `X-PAYMENT-RESPONSE` on the answer.

Source: `specs/transports-v1/http.md`. A payment of version 1 names scheme and network, and not the offer; so it is read
once for each offer that it may mean, and the mechanism's own check says which one it fits (SAFETY S4).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import is_
from typing import Final

import msgspec

from farthing.errors import RemoteProtocolError
from farthing.protocol.codec import (
    BODY_MAX_BYTES,
    Offer,
    PassedOver,
    ReceivedOffers,
    decode_settlement,
    decode_with,
    encode_json,
    pack_header,
    unpack_header,
)
from farthing.protocol.messages import (
    PaymentPayload,
    PaymentRequired,
    PaymentRequirements,
    ResourceInfo,
    SettlementResponse,
    SupportedKind,
    VerifyRequest,
    VerifyResponse,
)
from farthing.protocol.v1.messages import (
    X402_VERSION,
    EnvelopeV1,
    OfferV1,
    PaymentV1,
    ResourceV1,
    SettlementV1,
    TermsV1,
    VerdictV1,
    VerifyRequestV1,
)
from farthing.protocol.v1.names import EVERYBODYS, NAMES, name_of, network_of
from farthing.protocol.wire import bounded

PAYMENT_HEADER: Final = "X-PAYMENT"
RESPONSE_HEADER: Final = "X-PAYMENT-RESPONSE"
# The only scheme of version 1. Its clients refuse a whole 402 for one offer of another.
SCHEME: Final = "exact"

# What a 402 says to who has not paid at all, in the words of each version.
_UNPAID: Final = {"PAYMENT-SIGNATURE header is required": f"{PAYMENT_HEADER} header is required"}
# Codes that have another name in section 9 of version 1; the others are the same, or have none there.
_REASONS: Final = {
    "invalid_exact_evm_payload_authorization_value_mismatch": "invalid_exact_evm_payload_authorization_value",
    "network_mismatch": "invalid_network",
    "invalid_exact_evm_nonce_already_used": "invalid_transaction_state",
    "invalid_exact_evm_transaction_simulation_failed": "invalid_transaction_state",
}
# How every payment begins that this wire writes: 18 bytes, so that their base64 does not depend on what follows.
_BEGINNING: Final = "eyJ4NDAyVmVyc2lvbiI6MSwi"

# How the body of a 402 begins.
_OFFERS: Final = b'{"x402Version":1,"error":'

_offer_decoder = msgspec.json.Decoder(OfferV1)
_envelope_decoder = msgspec.json.Decoder(EnvelopeV1)
_version_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_payment_decoder = msgspec.json.Decoder(PaymentV1)
_settlement_decoder = msgspec.json.Decoder(SettlementV1)
_request_decoder = msgspec.json.Decoder(VerifyRequestV1)


class Version1:
    """The wire of version 1."""

    version: int = X402_VERSION
    names_offer: bool = False
    payment_header: str = PAYMENT_HEADER
    response_header: str = RESPONSE_HEADER
    # npm's `x402-fetch` sends the second one along, though it is an answer's.
    request_headers: tuple[str, ...] = (PAYMENT_HEADER, "Access-Control-Expose-Headers")
    exposed_headers: tuple[str, ...] = (RESPONSE_HEADER,)

    def __init__(self) -> None:
        """Begin with no offers. A route makes the same ones again and again, so that the last ones are kept written."""
        self._offers: tuple[tuple[PaymentRequirements, ...], tuple[bytes, ...]] = ((), ())

    # Seller

    def read_payments(self, header: str, offers: Sequence[PaymentRequirements]) -> tuple[PaymentPayload, ...]:
        """Read the payment once for each offer of its scheme and network; for none, where no offer has them."""
        data = unpack_header(header, what=PAYMENT_HEADER)
        payment = decode_with(_payment_decoder, data, what=PAYMENT_HEADER)
        network = network_of(payment.network)
        return tuple(
            PaymentPayload(accepted=offer, payload=payment.payload)
            for offer in offers
            if offer.scheme == payment.scheme and offer.network == network
        )

    def offer_body(self, message: PaymentRequired, reason: str) -> bytes | None:
        """Write the offers on networks that have a name, those that every client knows before the others."""
        kept, offers = self._offers
        if kept is not message.accepts and not _same(kept, message.accepts):
            offers = _beginnings(message.accepts)
            self._offers = (message.accepts, offers)
        if not offers:
            return None
        resource = message.resource
        # Each offer has the resource's members at its end.
        end = b"," + encode_json(ResourceV1(resource.url, resource.description, resource.mime_type))[1:]
        error = message.error or ""
        said = encode_json(_REASONS.get(reason, reason) or _UNPAID.get(error, error))
        return b"".join((_OFFERS, said, b',"accepts":[', b",".join([each + end for each in offers]), b"]}"))

    def settlement_header(self, value: str) -> tuple[str, str]:
        """Translate a PAYMENT-RESPONSE."""
        return RESPONSE_HEADER.lower(), pack_header(_settlement_of(decode_settlement(value)))

    # Buyer

    def read_offers(self, header: str | None, body: bytes) -> ReceivedOffers | None:
        """Read the body of a 402, where there is no header that offers (SAFETY B3)."""
        if header is not None or not _says_version_1(body):
            return None
        envelope = decode_with(_envelope_decoder, body, what="the 402's body")
        offers: list[Offer] = []
        passed_over: list[PassedOver] = []
        resource: ResourceInfo | None = None
        for index, raw in enumerate(envelope.accepts):
            at = f"$.accepts[{index}]"
            try:
                said = decode_with(_offer_decoder, raw, what="offer", at=at)
                offers.append(Offer(index, requirements_of(said, at), raw.copy()))
            except RemoteProtocolError as error:
                passed_over.append(PassedOver(index, str(error)))
                continue
            resource = resource or ResourceInfo(said.resource, said.description or "", said.mime_type or "")
        return ReceivedOffers(
            offers=tuple(offers),
            passed_over=tuple(passed_over),
            resource=resource,
            resource_raw=None,
            extensions={},
            error=envelope.error or "",
        )

    def pack_payment(self, received: ReceivedOffers, offer: Offer, payload: msgspec.Struct) -> str:
        """Write the payment, with the network's name as the seller wrote it."""
        del received
        said = decode_with(_offer_decoder, offer.raw, what="offer", at=f"$.accepts[{offer.index}]")
        return bounded(pack_header(_Written(X402_VERSION, said.scheme, said.network, payload)))

    def wrote(self, value: str) -> bool:
        """Know our own payments by how they begin."""
        return value.startswith(_BEGINNING)

    def read_settlement(self, value: str) -> SettlementResponse:
        """Read X-PAYMENT-RESPONSE."""
        data = unpack_header(value, what=RESPONSE_HEADER)
        said = decode_with(_settlement_decoder, data, what=RESPONSE_HEADER)
        return SettlementResponse(
            success=said.success,
            transaction=said.transaction,
            network=network_of(said.network),
            error_reason=said.error_reason,
            payer=said.payer or None,
        )

    # Facilitator

    def decode_verify_request(self, data: bytes) -> VerifyRequest:
        """Read the request. What the payment accepted is what the requirements say, but for what it says itself."""
        if len(data) > BODY_MAX_BYTES:
            message = f"request body: {len(data)} bytes; the limit is {BODY_MAX_BYTES}"
            raise RemoteProtocolError(message)
        said = decode_with(_request_decoder, data, what="request body")
        payment = said.payment_payload
        requirements = requirements_of(said.payment_requirements, "$.paymentRequirements")
        accepted = msgspec.structs.replace(requirements, scheme=payment.scheme, network=network_of(payment.network))
        return VerifyRequest(PaymentPayload(accepted=accepted, payload=payment.payload), requirements)

    def encode_verify_response(self, message: VerifyResponse) -> bytes:
        """Write the verdict."""
        return encode_json(VerdictV1(message.is_valid, _reason_of(message.invalid_reason), message.payer))

    def encode_settlement(self, message: SettlementResponse) -> bytes:
        """Write the settlement."""
        return encode_json(_settlement_of(message))

    def kinds(self, kinds: Iterable[SupportedKind]) -> tuple[SupportedKind, ...]:
        """Name those on networks that have a name."""
        return tuple(
            SupportedKind(scheme=kind.scheme, network=NAMES[kind.network], x402_version=X402_VERSION)
            for kind in kinds
            if kind.scheme == SCHEME and kind.network in NAMES
        )


class _Written(msgspec.Struct, frozen=True, rename="camel"):
    """A payment as we write it; the version comes first, by which it is known again."""

    x402_version: int
    scheme: str
    network: str
    payload: msgspec.Struct


def _same(one: tuple[PaymentRequirements, ...], other: tuple[PaymentRequirements, ...]) -> bool:
    return len(one) == len(other) and all(map(is_, one, other))


def _beginnings(accepts: tuple[PaymentRequirements, ...]) -> tuple[bytes, ...]:
    """Write the offers on networks that have a name, without the resource and the brace at their end."""
    named = [
        (offer, name) for offer in accepts if offer.scheme == SCHEME and (name := NAMES.get(offer.network)) is not None
    ]
    known = [each for each in named if each[1] in EVERYBODYS]
    return tuple(encode_json(_terms_of(offer, name))[:-1] for offer, name in known or named)


def _terms_of(offer: PaymentRequirements, name: str) -> TermsV1:
    return TermsV1(
        scheme=offer.scheme,
        network=name,
        max_amount_required=offer.amount,
        pay_to=offer.pay_to,
        asset=offer.asset,
        max_timeout_seconds=offer.max_timeout_seconds,
        extra=offer.extra,
    )


def requirements_of(offer: OfferV1, at: str) -> PaymentRequirements:
    """Translate an offer of theirs. Raises `RemoteProtocolError`; `at` is where it stands."""
    try:
        return PaymentRequirements(
            scheme=offer.scheme,
            network=network_of(offer.network),
            amount=offer.max_amount_required,
            asset=offer.asset,
            pay_to=offer.pay_to,
            max_timeout_seconds=offer.max_timeout_seconds,
            extra=offer.extra,
        )
    except ValueError:
        message = "maxAmountRequired is over 2^256 - 1"
        raise RemoteProtocolError(message, path=f"{at}.maxAmountRequired") from None


def _settlement_of(message: SettlementResponse) -> SettlementV1:
    return SettlementV1(
        success=message.success,
        transaction=message.transaction,
        network=name_of(message.network),
        payer=message.payer or "",
        error_reason=_reason_of(message.error_reason),
    )


def _reason_of(reason: str | None) -> str | None:
    return None if reason is None else _REASONS.get(reason, reason)


def _says_version_1(body: bytes) -> bool:
    try:
        members = _version_decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return bytes(members.get("x402Version", msgspec.Raw(b""))) == b"1"
