"""The public strategies draw what they say, and our own readers refuse in good order what is nearly valid."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farthing.errors import RemoteProtocolError
from farthing.mechanisms.exact_evm import ExactEvmFacilitator, ExactEvmSeller
from farthing.protocol import codec
from farthing.protocol.versions import VERSIONS, read_demand
from farthing.testing import strategies
from farthing.testing.nearly_valid import nearly_valid, nearly_valid_headers

some = settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
V1 = next(wire for wire in VERSIONS if wire.version == 1)


@some
@given(strategies.payment_payloads(known=True))
def test_a_known_payment_is_read_by_its_mechanism(payment: Any) -> None:
    for face in (ExactEvmSeller(), ExactEvmFacilitator()):
        signed = face.read(payment)
        assert signed.network == payment.accepted.network
        assert signed.payment_id.startswith("pay_")


@some
@given(strategies.verify_requests_v1(), strategies.payment_required_v1(), strategies.settlements_v1())
def test_version_1_is_read_by_its_wire(request: Any, demand: dict[str, Any], settlement: Any) -> None:
    assert V1.decode_verify_request(codec.encode_json(request)).payment_requirements.network.startswith(
        ("eip155:", "solana")
    )
    read = read_demand(None, json.dumps(demand).encode())
    assert read is not None
    assert len(read[1].offers) == len(demand["accepts"])
    assert V1.read_settlement(codec.pack_header(settlement)).success == settlement.success


@pytest.mark.parametrize(
    "drawn",
    [
        strategies.resource_infos(),
        strategies.payment_requirements(known=True),
        strategies.verify_requests(known=True),
        strategies.supported_kinds(),
        strategies.offers_v1(),
        strategies.payments_v1(),
        strategies.verify_requests_v1(),
        strategies.settlements_v1(),
        strategies.exact_payloads(),
    ],
    ids=lambda drawn: repr(drawn)[:30],
)
def test_what_is_drawn_comes_back_from_its_json(drawn: st.SearchStrategy[Any]) -> None:
    @settings(max_examples=20)
    @given(drawn)
    def comes_back(message: Any) -> None:
        assert msgspec.json.decode(codec.encode_json(message), type=type(message)) == message

    comes_back()


def refused_or_read(read: Any, data: Any) -> bool:
    try:
        read(data)
    except RemoteProtocolError:
        return False
    return True


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(nearly_valid(strategies.payment_payloads(known=True)))
def test_S10_a_payment_that_is_nearly_valid_is_read_or_refused(data: bytes) -> None:
    refused_or_read(lambda body: ExactEvmSeller().read(codec.decode_payment_json(body)), data)


@some
@given(nearly_valid_headers(strategies.payment_required()), nearly_valid_headers(strategies.settlement_responses()))
def test_a_header_that_is_nearly_valid_is_read_or_refused(offer: str, settlement: str) -> None:
    refused_or_read(codec.decode_payment_required, offer)
    refused_or_read(codec.decode_settlement, settlement)


@some
@given(nearly_valid(strategies.verify_requests_v1()), nearly_valid(strategies.verify_requests(known=True)))
def test_S10_a_facilitators_request_that_is_nearly_valid_is_read_or_refused(first: bytes, second: bytes) -> None:
    refused_or_read(V1.decode_verify_request, first)
    refused_or_read(codec.decode_verify_request, second)


def test_nearly_valid_is_mostly_refused_and_sometimes_not() -> None:
    told: list[bool] = []

    @settings(max_examples=100, database=None, derandomize=True)
    @given(nearly_valid(strategies.payment_payloads(known=True)))
    def draw(data: bytes) -> None:
        told.append(refused_or_read(lambda body: ExactEvmSeller().read(codec.decode_payment_json(body)), data))

    draw()
    assert 0 < sum(told) < len(told) / 2
