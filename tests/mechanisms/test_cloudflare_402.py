"""The buyer's face of `cloudflare:402`, held against its published wire; the seller's side stands here alone."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from farthing.buyer.choice import choose
from farthing.buyer.journal import Promise
from farthing.buyer.policy import Policy
from farthing.buyer.promises import prove
from farthing.errors import SignerError
from farthing.flow import drive
from farthing.mechanisms.batch_credit.cloudflare import CloudflareBuyer, read_answer
from farthing.mechanisms.interface import RequestToBind
from farthing.mechanisms.registry import Registry
from farthing.networks import KNOWN
from farthing.protocol.clearing import Signed
from farthing.protocol.codec import decode_payment_required, encode_payment, pack_json
from farthing.signatures import HttpRequest, gather_fields, read_signatures, verify

if TYPE_CHECKING:
    from tests.mechanisms.credit_desk import AGENT, AGENT_KEY, NOW, perform
else:
    from credit_desk import AGENT, AGENT_KEY, NOW, perform

# The offer as Cloudflare publishes it: no maxTimeoutSeconds, an extension without a schema.
WIRE: dict[str, Any] = {
    "x402Version": 2,
    "resource": {"url": "https://publisher.example/a"},
    "accepts": [
        {
            "scheme": "batch-settlement",
            "network": "cloudflare:402",
            "amount": "1",
            "asset": "USD",
            "payTo": "merchant",
            "extra": {"version": "1.0.0"},
        }
    ],
    "extensions": {
        "http-message-signatures": {
            "info": {
                "registrationUrl": "https://register.example",
                "signatureSchemes": ["ed25519"],
                "tags": ["web-bot-auth"],
            }
        }
    },
}
BUYER = CloudflareBuyer(AGENT)


def packed(wire: dict[str, Any]) -> str:
    return base64.b64encode(json.dumps(wire).encode()).decode()


RECEIVED = decode_payment_required(packed(WIRE))
OFFER = RECEIVED.offers[0].requirements


def test_the_published_offer_is_chosen_and_worth_a_cent() -> None:
    for limit, worth in (("$0.01", 10**16), ("$0.009", None)):
        policy = Policy(networks=["cloudflare:402"], per_request=limit)
        choice = choose(RECEIVED, policy=policy, mechanisms=Registry([BUYER]), networks=KNOWN)
        assert [each.value for each in choice.candidates] == ([worth] if worth else [])


def test_what_is_signed_is_what_they_publish() -> None:
    prepared = drive(BUYER.pay(OFFER, payer="", nonce=bytes(32)), perform)
    header = pack_json(
        encode_payment(
            accepted=RECEIVED.offers[0].raw,
            payload=prepared.payload,
            resource=RECEIVED.resource_raw,
            extensions=RECEIVED.extensions,
        )
    )
    request = RequestToBind("GET", "https://publisher.example/a?b=1")
    bound = drive(BUYER.bind(prepared, OFFER, request, payment_header=header), perform)
    lines = dict(bound.headers)
    assert lines["Signature-Agent"] == '"https://crawler.example"'
    assert lines["Signature-Input"].startswith(
        f'sig=("@authority" "signature-agent" "payment-signature");created={NOW};expires={NOW + 60};keyid="'
    )
    assert lines["Signature-Input"].endswith(';tag="web-bot-auth"')
    fields = gather_fields([*bound.headers, ("PAYMENT-SIGNATURE", header)])
    seen = HttpRequest("GET", "publisher.example", "/a", "?b=1", fields)
    (received,) = read_signatures(fields)
    assert verify(seen, received, AGENT_KEY.public_key)
    # Its known hole: the path is not under the signature.
    assert verify(msgspec.structs.replace(seen, path="/other"), received, AGENT_KEY.public_key)
    assert json.loads(msgspec.json.encode(prepared.payload)) == {"amount": "1", "asset": "USD"}
    assert (bound.signed.amount, bound.signed.asset) == (1, "USD")


def test_both_forms_of_the_answer_are_read() -> None:
    april = {"amount": "1", "asset": "USD", "network": "cloudflare:402", "timestamp": 1_776_000_000}
    newer = {
        "success": True,
        "transaction": "",
        "network": "cloudflare:402",
        "payer": AGENT.origin,
        "amount": "1",
        "asset": "USD",
        "extra": {"timestamp": 1_776_000_000},
    }
    for said in (april, newer):
        answer = read_answer(packed(said))
        assert answer is not None
        assert (answer.success, answer.network, answer.amount, answer.asset) == (True, "cloudflare:402", "1", "USD")
    refused = read_answer(packed({"success": False, "transaction": "", "network": "cloudflare:402"}))
    assert refused is not None
    assert not refused.success
    for junk in ("", "e30=", "!!", packed({"amount": 1})):
        assert read_answer(junk) is None


@pytest.mark.parametrize("change", [{"asset": "EUR"}, {"amount": "0"}, {"amount": str(10**13)}])
def test_what_they_do_not_offer_is_passed_over(change: dict[str, Any]) -> None:
    offer = msgspec.structs.replace(OFFER, **change)
    assert BUYER.passes_over(offer)
    with pytest.raises(SignerError):
        drive(BUYER.pay(offer, payer="", nonce=None), perform)


@pytest.mark.parametrize(
    ("said", "lacks"),
    [
        ({"success": True, "transaction": "", "network": "cloudflare:402"}, ""),
        ({"amount": "1", "asset": "USD", "network": "cloudflare:402"}, ""),
        ({"success": True, "transaction": "", "network": "clearing:demo"}, "no_settlement_proof"),
        ({"success": False, "transaction": "", "network": "cloudflare:402"}, "no_settlement_proof"),
        (None, "no_settlement_proof"),
    ],
)
def test_B1_their_word_is_all_that_proves_a_promise_taken(said: dict[str, Any] | None, lacks: str) -> None:
    promise = Promise("sha256:" + "0" * 64, (), Signed("x", "A" * 86 + "==", AGENT.key_id))
    lines = () if said is None else (("Payment-Response", packed(said)),)
    flow = prove(promise, "cloudflare:402", "https://publisher.example/a", status=200, response=None, lines=lines)
    assert drive(flow, perform).lacks == lacks
