"""Web Bot Auth: its published signatures, both forms of Signature-Agent, key directories and thumbprints."""

from __future__ import annotations

import json
import pickle
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from farthing.signatures import (
    AgentReference,
    HttpRequest,
    HttpResponse,
    PublicKey,
    SignatureInvalid,
    SignatureParams,
    SigningKey,
    agent_for,
    agent_origin,
    bound_keys,
    content_digest,
    digest_fault,
    gather_fields,
    read_agents,
    read_directory,
    read_signatures,
    sign,
    sign_directory,
    verify,
    write_agent,
    write_directory,
)
from farthing.signatures.keys import decode_base64url

if TYPE_CHECKING:
    from tests.signatures.vectors_read import AGENT, key_of_d, vectors
else:
    from vectors_read import AGENT, key_of_d, vectors

BOTS = vectors("web_bot_auth")
SIGNED = BOTS["architecture_v1"] + BOTS["architecture_v2"]
NOW = 1_800_000_000


@pytest.mark.parametrize("case", SIGNED, ids=[f"{index}-{case['label']}" for index, case in enumerate(SIGNED)])
def test_published_signatures_verify_and_are_made_again(case: dict[str, Any]) -> None:
    key = key_of_d(case["key"]["d"])
    url = urlsplit(case["target_url"])
    lines = [("Signature-Input", case["signature_input"]), ("Signature", case["signature"])]
    if "signature_agent" in case:
        lines.append(("Signature-Agent", case["signature_agent"]))
    request = HttpRequest("GET", url.netloc, url.path, "", gather_fields(lines))
    (received,) = read_signatures(request.fields)
    assert received.params.keyid == key.public_key.thumbprint
    assert verify(request, received, key.public_key)
    assert not verify(msg_with_authority(request, "example.org"), received, key.public_key)
    if "signature_agent" in case:
        agent = agent_for(case["signature_agent"], label=case["label"], key=case.get("signature_agent_key"))
        assert agent.url == "https://signature-agent.test"


def msg_with_authority(request: HttpRequest, authority: str) -> HttpRequest:
    return HttpRequest(request.method, authority, request.path, request.query, request.fields)


@pytest.mark.parametrize("case", BOTS["signature_agent_v1"], ids=lambda case: case["name"])
def test_published_agents_are_read(case: dict[str, Any]) -> None:
    expected = tuple(AgentReference(each["uri"], each["type"], each["label"]) for each in case["entries"])
    assert read_agents(case["header"]) == expected


@pytest.mark.parametrize(
    ("value", "agents"),
    [
        ('"https://Crawler.Example"', (AgentReference("https://crawler.example"),)),
        ('"https://crawler.example:443/"', (AgentReference("https://crawler.example"),)),
        ("mycrawler.com", (AgentReference("https://mycrawler.com"),)),
        ("https://mycrawler.com", (AgentReference("https://mycrawler.com"),)),
        ('a="https://a.example";type=directory', (AgentReference("https://a.example", label="a"),)),
        ('a="https://a.example";type="jwks_uri"', (AgentReference("https://a.example", "jwks_uri", "a"),)),
        ('a="https://a.example";type=other, b="https://b.example"', (AgentReference("https://b.example", label="b"),)),
        ('a=1;type=other, b="https://b.example"', (AgentReference("https://b.example", label="b"),)),
    ],
)
def test_both_forms_of_signature_agent_and_a_bare_token_are_read(
    value: str, agents: tuple[AgentReference, ...]
) -> None:
    assert read_agents(value) == agents


@pytest.mark.parametrize(
    "value",
    [
        '"crawler.example"',
        '"ftp://crawler.example"',
        '"https://user@crawler.example"',
        '"https://crawler.example/path"',
        '"https://crawler.example?x"',
        '"https://crawler.example:99999"',
        '"https://"',
        "1",
        ":AAA=:",
        "a=token",
        'a="https://a.example", a="https://b.example"',
        '"https://' + "x" * 600 + '.example"',
        ", ".join(f'a{index}="https://a.example"' for index in range(9)),
        "",
    ],
)
def test_what_names_no_agent_is_refused(value: str) -> None:
    with pytest.raises(SignatureInvalid):
        agent_for(value, label="a", key=None)


def test_an_agent_belongs_to_its_signature() -> None:
    value = 'a="https://a.example", b="https://b.example"'
    assert agent_for(value, label="x", key="b").url == "https://b.example"
    for label, key in (("a", None), ("x", "c")):
        with pytest.raises(SignatureInvalid):
            agent_for(value, label=label, key=key)
    with pytest.raises(SignatureInvalid):
        agent_for('a="https://a.example"', label="b", key=None)
    assert write_agent(agent_origin("http://127.0.0.1:8080"), label="sig") == 'sig="http://127.0.0.1:8080"'


def test_the_thumbprint_is_rfc_7638s() -> None:
    # RFC 8037, appendix A.3.
    raw = decode_base64url("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")
    assert raw is not None
    assert PublicKey(raw).thumbprint == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_a_directory_is_read_as_it_is_written() -> None:
    other = SigningKey(b"\1" * 32)
    keys = read_directory(write_directory([AGENT.public_key, other.public_key]))
    assert [each.key for each in keys] == [AGENT.public_key, other.public_key]
    assert [each.usable(NOW) for each in keys] == [True, True]


def test_a_directorys_other_keys_are_passed_over_and_its_bounds_are_kept() -> None:
    jwk = json.loads(write_directory([AGENT.public_key]))["keys"][0]
    document = {
        "keys": [
            {"kty": "RSA", "n": "AQAB", "e": "AQAB"},
            {"kty": "OKP", "crv": "X25519", "x": jwk["x"]},
            {"kty": 1},
            jwk | {"use": "enc"},
            jwk | {"x": jwk["x"][:-1]},
            jwk | {"nbf": NOW, "exp": NOW + 10, "more": {"a": 1}},
            jwk | {"nbf": NOW * 1000, "exp": (NOW + 10) * 1000},
        ]
    }
    keys = read_directory(json.dumps(document).encode())
    assert len(keys) == 2
    for key in keys:
        assert [key.usable(NOW + offset) for offset in (-1, 0, 10, 11)] == [False, True, True, False]


@pytest.mark.parametrize(
    "data", [b"", b"[]", b'{"keys": 1}', b"\xff", b'{"keys": [' + b"{}," * 99 + b"{}]}", b" " * 65_537]
)
def test_what_is_no_directory_is_refused(data: bytes) -> None:
    with pytest.raises(SignatureInvalid):
        read_directory(data)


def test_a_directory_answers_for_its_own_authority_only() -> None:
    other = SigningKey(b"\1" * 32)
    lines, body = sign_directory("crawler.example", [AGENT, other], now_seconds=NOW)
    keys = read_directory(body)
    assert len(bound_keys(keys, lines, authority="crawler.example", now_seconds=NOW)) == 2
    with pytest.raises(SignatureInvalid):
        bound_keys(keys, lines, authority="thief.example", now_seconds=NOW)
    with pytest.raises(SignatureInvalid):
        bound_keys(keys, lines, authority="crawler.example", now_seconds=NOW + 4_000)
    with pytest.raises(SignatureInvalid):
        bound_keys(keys, lines, authority="crawler.example", now_seconds=NOW - 100)
    # A key that has not signed is no key of this directory's.
    mine, _ = sign_directory("crawler.example", [AGENT], now_seconds=NOW)
    assert [each.key for each in bound_keys(keys, mine, authority="crawler.example", now_seconds=NOW)] == [
        AGENT.public_key
    ]


def test_a_directorys_signature_under_another_tag_or_coverage_counts_for_nothing() -> None:
    response = HttpResponse(200, {}, HttpRequest("GET", "crawler.example", "/"))
    keys = read_directory(write_directory([AGENT.public_key]))
    right = SignatureParams(
        created=NOW,
        expires=NOW + 60,
        keyid=AGENT.public_key.thumbprint,
        tag="http-message-signatures-directory",
    )
    for covered, params in (
        (['"@authority";req'], SignatureParams(created=NOW, expires=NOW + 60, keyid=right.keyid, tag="web-bot-auth")),
        (["@status"], right),
        (['"@authority";req'], SignatureParams(keyid=right.keyid, tag=right.tag)),
    ):
        with pytest.raises(SignatureInvalid):
            bound_keys(keys, sign(response, covered, params, AGENT), authority="crawler.example", now_seconds=NOW)


def test_content_digest_holds_the_body() -> None:
    # RFC 9530, appendix D, and RFC 9421's example.
    body = b'{"hello": "world"}'
    assert content_digest(body) == "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:"
    assert digest_fault(content_digest(body), body) is None
    assert digest_fault(content_digest(body, algorithm="sha-512") + ", md5=:AAA=:", body) is None
    assert digest_fault(content_digest(body) + ", " + content_digest(b"", algorithm="sha-512"), body)
    assert digest_fault(content_digest(body), body + b" ")
    assert digest_fault("md5=:AAA=:", body)
    assert digest_fault('sha-256="text"', body)
    with pytest.raises(SignatureInvalid):
        digest_fault("sha-256=", b"")


def test_secrets_are_in_no_repr_and_no_pickle() -> None:
    assert "n4Ni" not in repr(AGENT)
    assert AGENT.public_key.thumbprint in repr(AGENT)
    with pytest.raises(TypeError):
        pickle.dumps(AGENT)
