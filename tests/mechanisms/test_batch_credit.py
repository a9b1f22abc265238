"""Commitments: what the buyer signs the edge reads alike, and whatever differs is refused before anything is served."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from farthing.errors import ConfigError, RemoteProtocolError, SignerError
from farthing.flow import drive
from farthing.mechanisms.batch_credit import (
    BatchCreditSeller,
    SignedCommitment,
    UnknownKey,
    commitment_id,
    judge_line,
    settlement_of,
    sign_receipt,
    verify_commitment,
)
from farthing.mechanisms.batch_credit.evidence import key_of_record, request_of_base
from farthing.mechanisms.batch_credit.receipts import read_receipt
from farthing.mechanisms.batch_credit.verify import fingerprint_of
from farthing.mechanisms.interface import BindsRequest, Refusal
from farthing.protocol.clearing import PublicJwk
from farthing.protocol.codec import decode_payment, pack_header
from farthing.protocol.messages import PaymentRequirements
from farthing.signatures import HttpRequest, HttpResponse, SignatureInvalid, gather_fields
from farthing.signatures.keys import encode_base64url

if TYPE_CHECKING:
    from tests.mechanisms.credit_desk import (
        AGENT,
        AGENT_KEY,
        BUYER,
        NETWORK,
        NOW,
        OFFER,
        SELLER_KEY,
        URL,
        commit,
        keys,
        payment_header,
        perform,
        taken,
    )
else:
    from credit_desk import (
        AGENT,
        AGENT_KEY,
        BUYER,
        NETWORK,
        NOW,
        OFFER,
        SELLER_KEY,
        URL,
        commit,
        keys,
        payment_header,
        perform,
        taken,
    )


def judge(request: HttpRequest, **more: Any) -> SignedCommitment | UnknownKey | Refusal:
    said: dict[str, Any] = {"offer": OFFER, "keys": keys, "now_seconds": NOW}
    return verify_commitment(request, **(said | more))


def reason(verdict: object) -> str:
    assert isinstance(verdict, Refusal), verdict
    return verdict.reason


@pytest.mark.parametrize("body", [b"", b'{"q": 1}'])
@pytest.mark.parametrize("url", [URL, "https://publisher.example/", "http://127.0.0.1:8402/a%20b?x=1&y"])
def test_what_the_buyer_signs_the_edge_reads_alike(url: str, body: bytes) -> None:
    request, bound = commit(method="POST", url=url, body=body)
    found = judge(request, body=body)
    assert isinstance(found, SignedCommitment)
    assert found.signed == bound.signed
    assert found.commitment_id == bound.promise_id == commitment_id(found.profile.base)
    assert found.commitment_id.startswith("sha256:")
    assert found.signed.fingerprint == fingerprint_of(found.profile.base, found.profile.signature)
    assert found.evidence() == bound.evidence
    assert found.resource == url
    assert (found.signed.payer, found.signed.amount) == (AGENT.origin, 2000)
    assert found.signed.payment_id.startswith("pay_")
    assert isinstance(BUYER, BindsRequest)


def test_one_purchase_has_one_nonce_and_64_bytes_are_sent() -> None:
    first, second, other = commit(), commit(), commit(nonce=b"\1" * 32)
    assert first[1].headers == second[1].headers
    assert first[1].promise_id != other[1].promise_id
    found = judge(first[0])
    assert isinstance(found, SignedCommitment)
    assert len(found.profile.nonce) == 88
    assert found.nonce == (AGENT.origin, found.profile.nonce)


CHANGES: dict[str, Callable[[HttpRequest], HttpRequest]] = {
    "method": lambda request: msgspec.structs.replace(request, method="DELETE"),
    "authority": lambda request: msgspec.structs.replace(request, authority="other.example"),
    "path": lambda request: msgspec.structs.replace(request, path="/articles/2"),
    "encoded path": lambda request: msgspec.structs.replace(request, path="/articles/%31"),
    "query": lambda request: msgspec.structs.replace(request, query="?page=3"),
    "no query": lambda request: msgspec.structs.replace(request, query=""),
}


@pytest.mark.parametrize("name", CHANGES)
def test_C3_a_captured_header_set_opens_no_other_method_path_or_query(name: str) -> None:
    request, _ = commit()
    changed = CHANGES[name](request)
    # The resource is told as it was offered, so that it is the signature alone that refuses.
    assert reason(judge(changed, resource=URL)) == "invalid_signature"


def test_C3_a_captured_header_set_takes_no_other_body() -> None:
    request, _ = commit(method="POST", body=b"one")
    assert reason(judge(request, body=b"two")) == "invalid_signature"
    assert reason(judge(request, body=b"")) == "invalid_signature"
    bare, _ = commit(method="POST")
    assert reason(judge(bare, body=b"brought along")) == "invalid_signature"


def test_S4_a_payment_for_another_resource_is_refused() -> None:
    request, _ = commit(header=payment_header(url="https://publisher.example/cheap"))
    assert reason(judge(request)) == "price_not_acceptable"


@pytest.mark.parametrize(
    "change",
    [
        {"amount": "1999"},
        {"asset": "EUR"},
        {"pay_to": "publisher-2"},
        {"network": "clearing:other"},
        {"max_timeout_seconds": 59},
        {"extra": {"version": "1.0.0", "decimals": 6}},
    ],
)
def test_S4_a_commitment_for_another_offer_is_refused(change: dict[str, Any]) -> None:
    request, _ = commit(offer=msgspec.structs.replace(OFFER, **change))
    assert reason(judge(request)) == "price_not_acceptable"


@pytest.mark.parametrize("change", [{"amount": "1"}, {"asset": "EUR"}])
def test_S4_a_payload_that_promises_otherwise_than_it_accepts_is_refused(change: dict[str, Any]) -> None:
    request, _ = commit(header=payment_header(**change))
    assert reason(judge(request)) == "price_not_acceptable"


@pytest.mark.parametrize(
    "change",
    [
        {"decimals": 2},
        {"decimals": None},
        {"decimals": "6"},
        {"version": "2.0.0"},
        {"version": 1},
    ],
)
def test_units_that_are_missing_or_unexpected_are_refused_on_both_sides(change: dict[str, Any]) -> None:
    extra = {name: value for name, value in ((OFFER.extra or {}) | change).items() if value is not None}
    offer = msgspec.structs.replace(OFFER, extra=extra)
    assert BUYER.passes_over(offer)
    with pytest.raises(SignerError):
        drive(BUYER.pay(offer, payer="", nonce=None), perform)
    header = payment_header()
    payment = json.loads(base64.b64decode(header))
    payment["accepted"]["extra"] = extra
    header = base64.b64encode(json.dumps(payment).encode()).decode()
    request, _ = commit(header=header)
    assert reason(judge(request, offer=offer)) == "price_not_acceptable"


@pytest.mark.parametrize("header", ["", "!!!!", "e30=", "A" * 20_000])
def test_S10_a_payment_header_that_is_none_is_told_apart(header: str) -> None:
    request, _ = commit(header=header)
    assert reason(judge(request)) == "invalid_payment_signature"


@pytest.mark.parametrize(("offset", "fits"), [(-31, False), (-30, True), (0, True), (90, True), (91, False)])
def test_S4_a_commitment_outside_its_window_is_refused(offset: int, fits: bool) -> None:  # noqa: FBT001
    request, _ = commit()
    found = judge(request, now_seconds=NOW + offset)
    assert isinstance(found, SignedCommitment) is fits


def test_a_key_that_is_not_known_is_asked_for_and_another_is_not_taken() -> None:
    request, _ = commit()
    assert judge(request, keys=lambda _agent, _key: None) == UnknownKey(AGENT.origin, AGENT.key_id)
    assert reason(judge(request, keys=lambda _agent, _key: SELLER_KEY.public_key)) == "invalid_signature"


def test_S4_a_request_without_a_signature_is_refused() -> None:
    request, _ = commit()
    bare = msgspec.structs.replace(request, fields={"payment-signature": request.fields["payment-signature"]})
    assert reason(judge(bare)) == "invalid_signature"


def answer_to(request: HttpRequest, found: SignedCommitment) -> HttpResponse:
    said = pack_header(settlement_of(found, now_seconds=NOW))
    lines, _ = sign_receipt(
        found, request, status=200, payment_response=said, signer=SELLER_KEY, now_seconds=NOW, digest=None
    )
    fields = gather_fields([("PAYMENT-RESPONSE", said), *lines])
    return HttpResponse(200, fields, request)


def test_the_receipt_is_read_and_names_the_commitment() -> None:
    request, found = taken()
    answer = answer_to(request, found)
    receipt = read_receipt(answer, label="sig", now_seconds=NOW + 5)
    assert receipt.verified_by(SELLER_KEY.public_key)
    assert not receipt.verified_by(AGENT_KEY.public_key)
    settlement = settlement_of(found, now_seconds=NOW)
    assert settlement.transaction == ""
    assert settlement.extra == {"timestamp": NOW, "commitmentId": found.commitment_id}
    assert b"@status" in receipt.base


def test_a_receipt_for_another_answer_or_request_does_not_verify() -> None:
    request, found = taken()
    other_request, _ = taken(nonce=b"\2" * 32)
    answer = answer_to(request, found)
    for changed in (
        HttpResponse(500, answer.fields, request),
        HttpResponse(200, {**answer.fields, "payment-response": ("e30=",)}, request),
        HttpResponse(200, answer.fields, other_request),
    ):
        assert not read_receipt(changed, label="sig", now_seconds=NOW).verified_by(SELLER_KEY.public_key)
    for now_seconds in (NOW - 31, NOW + 601):
        with pytest.raises(SignatureInvalid):
            read_receipt(answer, label="sig", now_seconds=now_seconds)
    uncovered = HttpResponse(200, {**answer.fields, "content-digest": ("sha-256=:AAAA:",)}, request)
    with pytest.raises(SignatureInvalid, match="Content-Digest"):
        read_receipt(uncovered, label="sig", now_seconds=NOW)
    with pytest.raises(SignatureInvalid):
        read_receipt(HttpResponse(200, {}, request), label="sig", now_seconds=NOW)


@pytest.mark.parametrize("body", [b"", b"x"])
def test_C5_a_line_is_judged_by_its_own_evidence(body: bytes) -> None:
    request, _ = commit(method="PUT", body=body)
    found = judge(request, body=body)
    assert isinstance(found, SignedCommitment)
    line = found.line(committed=NOW + 1)
    assert judge_line(line, AGENT_KEY.public_key, network=NETWORK) is None
    assert judge_line(line, AGENT_KEY.public_key, network="clearing:other")
    assert judge_line(line, SELLER_KEY.public_key, network=NETWORK)
    jwk = PublicJwk("OKP", "Ed25519", encode_base64url(AGENT_KEY.public_key.raw))
    assert key_of_record(jwk) == AGENT_KEY.public_key


LINE = taken()[1].line(committed=NOW)


@pytest.mark.parametrize(
    "change",
    [
        {"id": "sha256:" + "0" * 64},
        {"payer": "https://other.example"},
        {"payee": "publisher-2"},
        {"key": SELLER_KEY.public_key.thumbprint},
        {"method": "POST"},
        {"resource": "https://publisher.example/articles/2"},
        {"amount": "2001"},
        {"currency": "EUR"},
        {"decimals": 2},
        {"created": NOW + 1},
        {"expires": NOW + 61},
        {"base": LINE.base.replace("/articles/1", "/articles/2")},
        {"base": LINE.base + "\n"},
        {"base": "x"},
        {"base": LINE.base.replace("GET", "GÉT")},
        {"signature": "A" * 86 + "=="},
        {"signature": "!" * 88},
    ],
    ids=lambda change: next(iter(change)),
)
def test_C5_each_member_of_a_line_changed_alone_is_refused(change: dict[str, Any]) -> None:
    line = msgspec.structs.replace(LINE, **change)
    assert reason(judge_line(line, AGENT_KEY.public_key, network=NETWORK)) == "invalid_signature"


def test_C5_a_changed_base_with_its_own_id_is_refused_by_the_signature() -> None:
    base = LINE.base.replace("/articles/1", "/articles/2")
    line = msgspec.structs.replace(
        LINE, base=base, id=commitment_id(base.encode()), resource="https://publisher.example/articles/2?page=2"
    )
    assert judge_line(line, AGENT_KEY.public_key, network=NETWORK, verify=False) is None
    assert judge_line(line, AGENT_KEY.public_key, network=NETWORK)


def test_a_base_gives_its_request_back() -> None:
    request, found = taken()
    back = request_of_base(found.profile.base.decode(), found.profile.signature)
    assert (back.method, back.authority, back.path, back.query) == (
        request.method,
        request.authority,
        request.path,
        request.query,
    )


def test_the_seller_completes_offers_and_refuses_what_no_account_is_kept_in() -> None:
    assert OFFER.extra == {"version": "1.0.0", "decimals": 6, "clearingHouse": "https://clearing.example"}
    assert OFFER.max_timeout_seconds == 60
    seller = BatchCreditSeller()
    offer = PaymentRequirements("batch-settlement", NETWORK, "1", "USD", "p", 60)
    assert seller.complete(offer).extra == {"version": "1.0.0", "decimals": 6}
    for change in ({"asset": "GBP"}, {"amount": "0"}, {"amount": str(10**13)}, {"network": "eip155:1"}):
        with pytest.raises(ConfigError):
            seller.complete(msgspec.structs.replace(offer, **change))
    with pytest.raises(ConfigError):
        seller.complete(msgspec.structs.replace(offer, extra={"decimals": 2}))


def test_flows_that_know_a_payment_by_its_header_alone_are_told_that_it_needs_an_edge() -> None:
    payment = decode_payment(payment_header())
    seller = BatchCreditSeller()
    _, found = taken()
    for ask in (
        lambda: seller.read(payment),
        lambda: seller.check(found.signed, OFFER, now_seconds=NOW),
        lambda: seller.check_signature(found.signed, OFFER),
    ):
        with pytest.raises(RemoteProtocolError, match="edge"):
            ask()
