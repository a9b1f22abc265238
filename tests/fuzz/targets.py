"""What is fuzzed: each reader of foreign bytes, with some bytes to begin with. Only `ProtocolError` may come out."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Callable
from typing import Any, NamedTuple

from farthing.errors import ProtocolError
from farthing.mechanisms.batch_credit.payload import read_payload, read_terms
from farthing.mechanisms.exact_evm import ExactEvmFacilitator, ExactEvmSeller
from farthing.protocol import codec
from farthing.protocol.extensions import covers, echo
from farthing.protocol.payment_identifier import identifier_of
from farthing.protocol.versions import VERSIONS, read_demand
from farthing.signatures.agent import read_agents
from farthing.signatures.directory import read_directory
from farthing.signatures.fields import parse_dictionary, parse_item, parse_list
from farthing.signatures.messages import HttpRequest
from farthing.signatures.profile import read_profile


class Target(NamedTuple):
    """A reader, and the messages that its fuzzing begins with."""

    read: Callable[[bytes], object]
    seeds: tuple[bytes, ...]


OFFER: dict[str, Any] = {
    "scheme": "exact",
    "network": "eip155:84532",
    "amount": "10000",
    "asset": "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
    "payTo": "0x209693Bc6afc0C5328bA36FaF03C514EF312287C",
    "maxTimeoutSeconds": 60,
    "extra": {"name": "USDC", "version": "2"},
}
AUTHORIZATION: dict[str, Any] = {
    "from": "0x857b06519E91e3A54538791bDbb0E22373e36b66",
    "to": "0x209693Bc6afc0C5328bA36FaF03C514EF312287C",
    "value": "10000",
    "validAfter": "1740672089",
    "validBefore": "1740672154",
    "nonce": "0x" + "f3" * 32,
}
EXACT: dict[str, Any] = {"signature": "0x" + "2d" * 65, "authorization": AUTHORIZATION}
PERMIT2: dict[str, Any] = {
    "signature": "0x" + "2d" * 65,
    "permit2Authorization": {
        "from": AUTHORIZATION["from"],
        "permitted": {"token": OFFER["asset"], "amount": "10000"},
        "spender": "0x402085c248EeA27D92E8b30b2C58ed07f9E20001",
        "nonce": "1",
        "deadline": "1740672154",
        "witness": {"to": OFFER["payTo"], "validAfter": "0"},
    },
}
CREDIT_OFFER: dict[str, Any] = {
    "scheme": "batch-settlement",
    "network": "clearing:example",
    "amount": "10000",
    "asset": "USD",
    "payTo": "merchant",
    "maxTimeoutSeconds": 60,
    "extra": {"version": "1.0.0", "decimals": 6, "clearingHouse": "https://clearing.example"},
}
_SIGNED = (
    b'sig1=("@method" "@authority" "@path" "@query" "signature-agent";key="sig1" "payment-signature");created=1;'
    b'expires=60;keyid="poqkLGiymh_W0uP6PZFw-dvez3QJT5SolqXBCW38r0U";nonce="AAAAAAAAAAAAAAAAAAAAAA==";'
    b'tag="web-bot-auth"\nsig1=:' + b"A" * 86 + b'==:\nsig1="https://crawler.example"\ne30='
)
RESOURCE = {"url": "https://api.example.com/weather", "description": "", "mimeType": "application/json"}
PAYMENT: dict[str, Any] = {"x402Version": 2, "resource": RESOURCE, "accepted": OFFER, "payload": EXACT}
REQUIRED: dict[str, Any] = {"x402Version": 2, "resource": RESOURCE, "accepts": [OFFER], "error": "payment required"}
SETTLED = {"success": True, "transaction": "0x" + "ab" * 32, "network": "eip155:84532", "payer": AUTHORIZATION["from"]}
OFFER_V1 = {
    "scheme": "exact",
    "network": "base-sepolia",
    "maxAmountRequired": "10000",
    "resource": "https://api.example.com/weather",
    "description": "",
    "mimeType": "",
    "payTo": OFFER["payTo"],
    "maxTimeoutSeconds": 60,
    "asset": OFFER["asset"],
    "extra": {"name": "USDC", "version": "2"},
}
PAYMENT_V1: dict[str, Any] = {"x402Version": 1, "scheme": "exact", "network": "base-sepolia", "payload": EXACT}
_EXTENSIONS = {"payment-identifier": {"info": {"required": True, "id": "pay_7d5d747be160e280504c099d984bcfe0"}}}
_FIELDS = (
    b'sig=("@authority" "signature-agent");created=1;expires=2;keyid="x";tag="web-bot-auth"',
    b'sig1="https://crawler.example";type=directory, sig2=:AQID:;a=?1;b=1.5;c=tok/en',
    b'"https://crawler.example"',
)
_SELLER, _FACILITATOR = ExactEvmSeller(), ExactEvmFacilitator()


def json_bytes(*values: object) -> tuple[bytes, ...]:
    """Messages as JSON."""
    return tuple(json.dumps(value).encode() for value in values)


def read_headers(data: bytes) -> None:
    """Every header of version 2, as a server hands them over."""
    text = data.decode("latin-1")
    for read in (codec.decode_payment, codec.decode_payment_required, codec.decode_settlement):
        _in_order(lambda read=read: read(text))  # type: ignore[misc]


def read_packed(data: bytes) -> None:
    """The same, with the base64 made here: what is fuzzed is the JSON."""
    header = base64.b64encode(data).decode()
    for read in (codec.decode_payment, codec.decode_payment_required, codec.decode_settlement):
        _in_order(lambda read=read: read(header))  # type: ignore[misc]
    _in_order(lambda: codec.decode_verify_request(data))
    _in_order(lambda: codec.decode_verify_response(data))
    _in_order(lambda: codec.decode_supported(data))


def read_version_1(data: bytes) -> None:
    """The wire of version 1: bodies and headers."""
    header = base64.b64encode(data).decode()
    for wire in VERSIONS:
        _in_order(lambda wire=wire: wire.read_payments(header, (_ACCEPTED,)))  # type: ignore[misc]
        _in_order(lambda wire=wire: wire.read_settlement(header))  # type: ignore[misc]
        _in_order(lambda wire=wire: wire.decode_verify_request(data))  # type: ignore[misc]
    _in_order(lambda: read_demand(None, data))
    _in_order(lambda: read_demand(header, data))


def read_exact(data: bytes) -> None:
    """The scheme's payload, as seller and facilitator read it, in an offer that may be strange too."""
    payment = codec.decode_payment_json(b'{"x402Version":2,"accepted":%b,"payload":%b}' % (_OFFER_JSON, data))
    for face in (_SELLER, _FACILITATOR):
        signed = face.read(payment)
        assert signed.payment_id.startswith("pay_")
    _in_order(lambda: _SELLER.check(_SELLER.read(payment), payment.accepted, now_seconds=1_740_672_100))


def read_payment(data: bytes) -> None:
    """A whole payment, to its identity and the seller's verdict."""
    payment = codec.decode_payment_json(data)
    identifier_of(payment.extensions)
    signed = _SELLER.read(payment)
    _SELLER.check(signed, payment.accepted, now_seconds=1_740_672_100)


def read_extensions(data: bytes) -> None:
    """Extensions: what a client echoes, and what a server compares."""
    message = codec.decode_payment_json(
        b'{"x402Version":2,"accepted":%b,"payload":0,"extensions":%b}' % (_OFFER_JSON, data)
    )
    extensions = message.extensions or {}
    _in_order(lambda: echo(extensions))
    covers(_EXTENSIONS, extensions)
    identifier_of(extensions)


def read_signatures(data: bytes) -> None:
    """Structured fields, agents and directories of HTTP message signatures."""
    text = data.decode("latin-1")
    for parse in (parse_dictionary, parse_list, parse_item):
        _in_order(lambda parse=parse: parse(text, what="Signature"))  # type: ignore[misc]
    _in_order(lambda: read_agents(text))
    _in_order(lambda: read_directory(data))


def read_credit(data: bytes) -> None:
    """Payments on credit: payload and terms, and the request's signature, all of which are a stranger's."""
    payment = codec.decode_payment_json(b'{"x402Version":2,"accepted":%b,"payload":%b}' % (_CREDIT_JSON, data))
    _in_order(lambda: read_payload(payment))
    _in_order(lambda: read_terms(codec.decode_requirements_json(data)))


def read_credit_signature(data: bytes) -> None:
    """The fast profile of a commitment's signature, each line of the data being a field."""
    lines = data.decode("latin-1").split("\n")
    names = ("signature-input", "signature", "signature-agent", "payment-signature", "content-digest")
    fields = {name: (value,) for name, value in zip(names, lines, strict=False)}
    read_profile(HttpRequest("GET", "shop.example", "/a", "", fields))


def _in_order(read: Callable[[], object]) -> None:
    with contextlib.suppress(ProtocolError):
        read()


def guarded(read: Callable[[bytes], object]) -> Callable[[bytes], None]:
    """The reader, with our own structured errors taken for good order; whatever else escapes is a bug."""

    def call(data: bytes) -> None:
        try:
            read(data)
        except ProtocolError:
            return

    return call


_CREDIT_JSON = json.dumps(CREDIT_OFFER).encode()
_OFFER_JSON = json.dumps(OFFER).encode()
_ACCEPTED = codec.decode_requirements_json(_OFFER_JSON)

TARGETS: dict[str, Target] = {
    "headers": Target(
        guarded(read_headers), tuple(base64.b64encode(each) for each in json_bytes(PAYMENT, REQUIRED, SETTLED))
    ),
    "messages": Target(guarded(read_packed), json_bytes(PAYMENT, REQUIRED, SETTLED)),
    "version_1": Target(
        guarded(read_version_1),
        json_bytes({"x402Version": 1, "accepts": [OFFER_V1]}, PAYMENT_V1, {**SETTLED, "network": "base-sepolia"}),
    ),
    "exact_evm": Target(guarded(read_exact), json_bytes(EXACT, PERMIT2)),
    "payment": Target(guarded(read_payment), json_bytes(PAYMENT, {**PAYMENT, "extensions": _EXTENSIONS})),
    "batch_credit": Target(guarded(read_credit), json_bytes({"amount": "10000", "asset": "USD"}, CREDIT_OFFER)),
    "commitments": Target(guarded(read_credit_signature), (_SIGNED,)),
    "extensions": Target(guarded(read_extensions), json_bytes(_EXTENSIONS, {"bazaar": {"info": {}, "schema": {}}})),
    "signatures": Target(
        guarded(read_signatures), (*_FIELDS, *json_bytes({"keys": [{"kty": "OKP", "crv": "Ed25519"}]}))
    ),
}
