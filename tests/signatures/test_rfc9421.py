"""The examples of RFC 9421: every published signature fits the base that we write, whatever its algorithm."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from farthing.signatures import (
    HttpRequest,
    HttpResponse,
    SignatureInvalid,
    SignatureParams,
    component,
    component_value,
    gather_fields,
    read_signatures,
    sign,
    signature_base,
    verify,
)

if TYPE_CHECKING:
    from tests.signatures.vectors_read import AGENT, message_of, vectors
else:
    from vectors_read import AGENT, message_of, vectors

RFC = vectors("rfc9421")


def fits(algorithm: str, key: dict[str, str], signature: bytes, base: bytes) -> None:
    if algorithm == "hmac-sha256":
        assert hmac.digest(base64.b64decode(key["secret"]), base, hashlib.sha256) == signature
        return
    public = load_pem_public_key(key["pem"].encode())
    if isinstance(public, rsa.RSAPublicKey):
        public.verify(signature, base, padding.PSS(padding.MGF1(hashes.SHA512()), 64), hashes.SHA512())
    elif isinstance(public, ec.EllipticCurvePublicKey):
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        public.verify(encode_dss_signature(r, s), base, ec.ECDSA(hashes.SHA256()))
    else:
        assert AGENT.public_key.verifies(signature, base)


@pytest.mark.parametrize("case", RFC["cases"], ids=lambda case: case["section"])
def test_published_signatures_fit_our_base(case: dict[str, Any]) -> None:
    lines = [["Signature-Input", case["signature_input"]], ["Signature", case["signature"]]]
    message = message_of(RFC["messages"][case["message"]], lines)
    (received,) = read_signatures(message.fields)
    base = signature_base(message, received.covered, received.text)
    fits(case["algorithm"], RFC["keys"][case["key"]], received.signature, base)
    if case["algorithm"] == "ed25519":
        assert verify(message, received, AGENT.public_key)
        again = sign(
            message, [each.identifier for each in received.covered], received.params, AGENT, label=case["name"]
        )
        assert again == (("Signature-Input", case["signature_input"]), ("Signature", case["signature"]))


REQUEST = HttpRequest(
    "GET",
    "www.example.com",
    "/path",
    "?param=value&foo=bar&baz=batman&qux=&bar=with%20plus%20whitespace&fa%C3%A7ade%22%3A%20=something&twice=1&twice=2",
    gather_fields(
        [
            ("X-OWS-Header", "  Leading and trailing whitespace.   "),
            ("X-Obs-Fold-Header", "Obsolete\r\n    line folding."),
            ("Cache-Control", "max-age=60"),
            ("Cache-Control", "   must-revalidate"),
            ("X-Empty-Header", ""),
            ("Example-Dict", " a=1,    b=2;x=1;y=2,   c=(a   b   c)"),
            ("Content-Digest", "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:,   sha-512=:AAA=:"),
            ("Example-Header", "value, with, lots"),
            ("Example-Header", "of, commas"),
            ("Set-Cookie", "a=1"),
            ("Set-Cookie", "b=2"),
        ]
    ),
)


@pytest.mark.parametrize(
    ("wanted", "value"),
    [
        ("@method", "GET"),
        ("@authority", "www.example.com"),
        ("@scheme", "https"),
        ("@path", "/path"),
        ("@target-uri", "https://www.example.com/path" + REQUEST.query),
        ("@request-target", "/path" + REQUEST.query),
        ("@query", REQUEST.query),
        ('"@query-param";name="baz"', "batman"),
        ('"@query-param";name="qux"', ""),
        ('"@query-param";name="bar"', "with%20plus%20whitespace"),
        ('"@query-param";name="fa%C3%A7ade%22%3A%20"', "something"),
        ("x-ows-header", "Leading and trailing whitespace."),
        ("x-obs-fold-header", "Obsolete line folding."),
        ("cache-control", "max-age=60, must-revalidate"),
        ("x-empty-header", ""),
        ("example-dict", "a=1,    b=2;x=1;y=2,   c=(a   b   c)"),
        ('"example-dict";key="a"', "1"),
        ('"example-dict";key="b"', "2;x=1;y=2"),
        ('"example-dict";key="c"', "(a b c)"),
        ('"content-digest";sf', "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:, sha-512=:AAA=:"),
        ('"example-header";bs', ":dmFsdWUsIHdpdGgsIGxvdHM=:, :b2YsIGNvbW1hcw==:"),
        ('"set-cookie";bs', ":YT0x:, :Yj0y:"),
    ],
)
def test_components_have_the_values_of_section_2(wanted: str, value: str) -> None:
    assert component_value(REQUEST, component(wanted)) == value


@pytest.mark.parametrize(
    "wanted",
    [
        "@status",
        "@nothing",
        "no-such-field",
        "set-cookie",
        '"@method";req',
        '"@method";sf',
        '"@query-param";name="twice"',
        '"@query-param";name="none"',
        "@query-param",
        '"example-dict";key="none"',
        '"example-dict";key=a',
        '"example-header";key="a";bs',
        '"cache-control";tr',
        '"x-unknown-type";sf',
        '"example-dict";sf=1',
    ],
)
def test_components_that_are_not_there_are_refused(wanted: str) -> None:
    with pytest.raises(SignatureInvalid):
        component_value(REQUEST, component(wanted))


def test_a_value_can_not_bring_a_line_of_its_own() -> None:
    forged = HttpRequest("GET", "a.example", '/x\n"@query": ?free', "", {})
    with pytest.raises(SignatureInvalid, match="one line"):
        component_value(forged, component("@path"))


def test_an_answer_covers_its_request() -> None:
    request = HttpRequest("POST", "example.com", "/foo", "", gather_fields([("Signature", "sig1=:AAA=:")]))
    answer = HttpResponse(503, gather_fields([("Content-Type", "application/json")]), request)
    for wanted, value in (
        ("@status", "503"),
        ('"@method";req', "POST"),
        ('"@authority";req', "example.com"),
        ('"signature";req;key="sig1"', ":AAA=:"),
    ):
        assert component_value(answer, component(wanted)) == value
    for wanted in ('"signature";req=1;key="sig1"', "@method", "signature"):
        with pytest.raises(SignatureInvalid):
            component_value(answer, component(wanted))


def test_a_component_covered_twice_is_refused_whatever_the_order_of_its_parameters() -> None:
    twice = [component('"a";key="b";sf'), component('"a";sf;key="b"')]
    with pytest.raises(SignatureInvalid, match="twice"):
        signature_base(REQUEST, twice, "()")


@pytest.mark.parametrize(
    ("input_text", "signature"),
    [
        ('sig=("@method");created=1, sig=("@path")', "sig=:AAA=:"),
        ('sig=("@method")', "other=:AAA=:"),
        ('sig=("@method")', "sig=AAA"),
        ("sig=1", "sig=:AAA=:"),
        ('sig=("@Method")', "sig=:AAA=:"),
        ("sig=(method)", "sig=:AAA=:"),
        ('sig=("@method");created="1"', "sig=:AAA=:"),
        ('sig=("@method");created=1.0', "sig=:AAA=:"),
        ('sig=("@method");created=?1', "sig=:AAA=:"),
        ('sig=("@method");keyid=token', "sig=:AAA=:"),
        ('sig=("@method"', "sig=:AAA=:"),
        ("x" * 9_000, "sig=:AAA=:"),
        ("sig=(" + " ".join(f'"h{index}"' for index in range(40)) + ")", "sig=:AAA=:"),
        (", ".join(f's{index}=("@method")' for index in range(9)), ", ".join(f"s{index}=:AAA=:" for index in range(9))),
    ],
)
def test_signatures_that_can_be_read_in_two_ways_or_not_at_all_are_refused(input_text: str, signature: str) -> None:
    with pytest.raises(SignatureInvalid):
        read_signatures(gather_fields([("Signature-Input", input_text), ("Signature", signature)]))


def test_another_algorithm_does_not_verify() -> None:
    params = SignatureParams(created=1, keyid=AGENT.public_key.thumbprint, alg="hmac-sha256")
    signed = HttpRequest("GET", "a.example", "/", "", gather_fields(sign(REQUEST, ["@method"], params, AGENT)))
    assert not verify(signed, read_signatures(signed.fields)[0], AGENT.public_key)
