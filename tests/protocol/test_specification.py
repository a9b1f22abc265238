"""The specification's own examples: read as it means them, and written back as it shows them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from farthing.protocol import codec, messages
from farthing.protocol.facilitator import Refused, Settled, read_settlement

# Examples of coinbase/x402 `specs/`, each with its section; not ours to edit.
VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent / "vectors" / "specification.json").read_text("utf-8")
)
TYPES: dict[str, type[msgspec.Struct]] = {
    "PaymentRequired": messages.PaymentRequired,
    "PaymentPayload": messages.PaymentPayload,
    "VerifyRequest": messages.VerifyRequest,
    "VerifyResponse": messages.VerifyResponse,
    "SettlementResponse": messages.SettlementResponse,
    "SupportedResponse": messages.SupportedResponse,
}
BODIES = [vector for vector in VECTORS if "json" in vector]
HEADERS = [vector for vector in VECTORS if "header" in vector]


def named(vectors: list[dict[str, Any]]) -> list[str]:
    return [f"{vector['kind']} in {vector['source']}" for vector in vectors]


def test_the_vectors_are_all_there() -> None:
    assert (len(BODIES), len(HEADERS)) == (13, 4)


@pytest.mark.parametrize("vector", BODIES, ids=named(BODIES))
def test_an_example_is_read_and_written_back(vector: dict[str, Any]) -> None:
    message = msgspec.json.decode(json.dumps(vector["json"]), type=TYPES[vector["kind"]])
    assert json.loads(codec.encode_json(message)) == vector["json"]


@pytest.mark.parametrize("vector", HEADERS, ids=named(HEADERS))
def test_a_header_says_what_the_specification_says_it_does(vector: dict[str, Any]) -> None:
    said = [other["json"] for other in BODIES if other["source"] == vector["source"]]
    assert json.loads(codec.unpack_header(vector["header"], what=vector["kind"])) in said


def test_the_headers_are_read() -> None:
    of_kind = {vector["kind"]: vector["header"] for vector in HEADERS}
    received = codec.decode_payment_required(of_kind["PaymentRequired"])
    assert received.error == "PAYMENT-SIGNATURE header is required"
    assert [offer.requirements.atomic for offer in received.offers] == [10_000]
    payment = codec.decode_payment(of_kind["PaymentPayload"])
    assert payment.accepted == received.offers[0].requirements
    assert payment.resource == received.resource
    settlements = [
        codec.decode_settlement(entry["header"]) for entry in HEADERS if entry["kind"] == "SettlementResponse"
    ]
    assert [settlement.error_reason for settlement in settlements] == [None, "insufficient_funds"]


def test_the_settlements_of_section_7_2_are_outcomes() -> None:
    examples = [entry["json"] for entry in BODIES if entry["source"].endswith("section 7.2")]
    settled, refused = (read_settlement(200, json.dumps(example).encode()) for example in examples)
    assert isinstance(settled, Settled)
    assert settled.response.transaction.startswith("0x1234")
    assert refused == Refused("insufficient_funds", "", "", "0x857b06519E91e3A54538791bDbb0E22373e36b66")
