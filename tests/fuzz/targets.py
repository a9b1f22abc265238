"""What is fuzzed: each reader of foreign bytes, with some bytes to begin with. Only `ProtocolError` may come out."""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from farthing.buyer.audit import LineReader
from farthing.clearing.checking import commitments_of, wrong_lines
from farthing.clearing.intake import bind, read_upload
from farthing.clearing.statements import as_csv
from farthing.errors import ProtocolError
from farthing.mechanisms.batch_credit.cloudflare import read_answer
from farthing.mechanisms.batch_credit.evidence import judge_line
from farthing.mechanisms.batch_credit.payload import read_payload, read_terms
from farthing.mechanisms.batch_credit.receipts import read_receipt
from farthing.mechanisms.batch_credit.verify import verify_commitment
from farthing.mechanisms.exact_evm import ExactEvmFacilitator, ExactEvmSeller
from farthing.protocol import codec
from farthing.protocol.clearing import Commitment, KeyRecord, PublicJwk, Sent, UploadHeader
from farthing.protocol.extensions import covers, echo
from farthing.protocol.payment_identifier import identifier_of
from farthing.protocol.signed_statements import open_statement
from farthing.protocol.statements import STATEMENT_TYPE, RailTerms, Statement, StatementLine, StatementWindow
from farthing.protocol.versions import VERSIONS, read_demand
from farthing.signatures.agent import read_agents
from farthing.signatures.directory import read_directory
from farthing.signatures.fields import parse_dictionary, parse_item, parse_list
from farthing.signatures.keys import SigningKey, encode_base64url
from farthing.signatures.messages import HttpRequest, HttpResponse
from farthing.signatures.profile import agent_member, read_profile, request_base, request_params


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
_RECEIPT = (
    b'sig1=("@status" "payment-response" "@authority";req "@path";req "signature";req;key="sig1" '
    b'"signature-input";req;key="sig1");created=1740672100;'
    b'keyid="poqkLGiymh_W0uP6PZFw-dvez3QJT5SolqXBCW38r0U";tag="x402-response"\nsig1=:' + b"A" * 86 + b"==:\ne30="
)
CRAWLER, KEY, NETWORK = "https://crawler.example", SigningKey(b"\x07" * 32), "clearing:example"
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
    """A commitment as an edge reads it, to the verdict: each line of the data is a field."""
    lines = data.decode("latin-1").split("\n")
    names = ("signature-input", "signature", "signature-agent", "payment-signature", "content-digest")
    fields = {name: (value,) for name, value in zip(names, lines, strict=False)}
    request = HttpRequest("GET", "shop.example", "/a", "", fields)
    _in_order(lambda: read_profile(request))
    # With a digest there is a body too.
    body = data if "content-digest" in fields else None
    verify_commitment(request, offer=_CREDIT_OFFER, keys=lambda _agent, _key: KEY.public_key, now_seconds=30, body=body)


def read_receipts(data: bytes) -> None:
    """The seller's signature over its answer, each line of the data being a field; and the answer itself."""
    lines = data.decode("latin-1").split("\n")
    request = HttpRequest(
        "GET", "shop.example", "/a", "", {"signature": ("sig1=:AAAA:",), "signature-input": ("sig1=()",)}
    )
    names = ("signature-input", "signature", "payment-response", "content-digest")
    fields = {name: (value,) for name, value in zip(names, lines, strict=False)}
    _in_order(lambda: read_receipt(HttpResponse(200, fields, request), label="sig1", now_seconds=1_740_672_100))
    read_answer(lines[-1])


def commitment(base: str) -> Commitment:
    """A line whose id is that of its base, whatever that says."""
    signature = base64.b64encode(KEY.sign(base.encode())).decode()
    thumbprint = KEY.public_key.thumbprint
    return Commitment(
        id="sha256:" + hashlib.sha256(base.encode()).hexdigest(),
        payer=CRAWLER,
        payee="merchant",
        key=thumbprint,
        method="GET",
        resource="https://shop.example/a?b=1",
        amount="10000",
        currency="USD",
        decimals=6,
        created=100,
        expires=160,
        committed=120,
        base=base,
        signature=signature,
    )


def base_of(payment: bytes) -> str:
    """The base of a request with a promise, as an agent signs it."""
    params = request_params(
        created=100, expires=160, key_id=KEY.public_key.thumbprint, nonce="A" * 86 + "==", key="sig", with_digest=False
    )
    request = HttpRequest("GET", "shop.example", "/a", "?b=1", {})
    paid = base64.b64encode(payment).decode()
    agent = agent_member(CRAWLER)
    return request_base(request, params, agent_value=agent, key="sig", payment=paid, digest=None).decode()


def read_lines(data: bytes) -> None:
    """What a line of an upload was signed over, as the clearing house and the payer's auditor read it."""
    for base in (data.decode("latin-1"), base_of(data)):
        line = commitment(base)
        bind(line, 1, NETWORK)
        judge_line(line, KEY.public_key, network=NETWORK)


def read_uploads(data: bytes) -> None:
    """An upload as it comes; and its lines, with the header and the packing made here."""
    _in_order(lambda: read_upload(data, NETWORK))
    upload = read_upload(gzip.compress(msgspec.json.encode(UploadHeader("edge-1", 1, 1)) + b"\n" + data, 1), NETWORK)
    records = {(each.directory, each.thumbprint): each for each in upload.keys}
    lines = commitments_of(upload.raw)
    wrong_lines(lines, records)
    for line in lines:
        judge_line(line, KEY.public_key, network=NETWORK)


def read_statements(data: bytes) -> None:
    """A statement's JWS, whole and in its parts; and a line of it."""
    _in_order(lambda: open_statement(data.decode("latin-1")))
    for header, payload in ((_JWS_HEADER, data), (data, STATEMENT.canonical())):
        jws = b".".join(base64.urlsafe_b64encode(each).rstrip(b"=") for each in (header, payload, bytes(64)))
        _in_order(lambda jws=jws: open_statement(jws.decode()))  # type: ignore[misc]
    LineReader(STATEMENT).add(data)
    b"".join(as_csv([data], header=True))


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
_CREDIT_OFFER = codec.decode_requirements_json(_CREDIT_JSON)
_ACCEPTED = codec.decode_requirements_json(_OFFER_JSON)

_JWS_HEADER = json.dumps({"alg": "EdDSA", "kid": KEY.public_key.thumbprint, "typ": STATEMENT_TYPE}).encode()
_HASH = "00" * 32
STATEMENT = Statement(
    id="st-1",
    network=NETWORK,
    payer=CRAWLER,
    currency="USD",
    decimals=6,
    window=StatementWindow("1", 0, 86_400),
    count=1,
    gross="10000",
    adjustments="0",
    rounding="0",
    net="10000",
    root=_HASH,
    previous="",
    issued=86_400,
    due=90_000,
    dispute_until=90_000,
    rail=RailTerms("usdc", "eip155:84532", OFFER["asset"], OFFER["payTo"], "0x" + _HASH, 90_000),
)
_CREDIT_PAYMENT = json.dumps(
    {"x402Version": 2, "accepted": CREDIT_OFFER, "payload": {"amount": "10000", "asset": "USD"}}
).encode()
_BASE = base_of(_CREDIT_PAYMENT)
_UPLOAD = tuple(
    msgspec.json.encode(each)
    for each in (
        commitment(_BASE),
        KeyRecord(
            KEY.public_key.thumbprint,
            PublicJwk("OKP", "Ed25519", encode_base64url(KEY.public_key.raw)),
            CRAWLER,
            100,
            '{"keys":[]}',
        ),
        Sent(CRAWLER, commitment(_BASE).id),
    )
)
_LINE = StatementLine(commitment(_BASE).id, "merchant", "https://shop.example/a", "10000", "10000", "USD", "120")

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
    "commitments": Target(
        guarded(read_credit_signature), (_SIGNED, _SIGNED.replace(b"e30=", base64.b64encode(_CREDIT_PAYMENT)))
    ),
    "receipts": Target(guarded(read_receipts), (_RECEIPT,)),
    "lines": Target(guarded(read_lines), (_BASE.encode(), _CREDIT_PAYMENT)),
    "uploads": Target(guarded(read_uploads), (b"\n".join(_UPLOAD), *_UPLOAD, gzip.compress(_UPLOAD[0], 1, mtime=0))),
    "statements": Target(guarded(read_statements), (STATEMENT.canonical(), _JWS_HEADER, _LINE.leaf())),
    "extensions": Target(guarded(read_extensions), json_bytes(_EXTENSIONS, {"bazaar": {"info": {}, "schema": {}}})),
    "signatures": Target(
        guarded(read_signatures), (*_FIELDS, *json_bytes({"keys": [{"kty": "OKP", "crv": "Ed25519"}]}))
    ),
}
