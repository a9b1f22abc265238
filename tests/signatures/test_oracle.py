"""http-message-signatures as the oracle: what it signs we verify, what we sign it verifies, on random requests."""

from __future__ import annotations

import datetime as dt
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ed25519
from http_message_signatures import HTTPMessageSigner, HTTPMessageVerifier, InvalidSignature, MappingKeyResolver
from http_message_signatures.algorithms import ED25519
from hypothesis import given
from hypothesis import strategies as st

from farthing.signatures import (
    HttpRequest,
    HttpResponse,
    SignatureInvalid,
    SignatureParams,
    SigningKey,
    gather_fields,
    normal_authority,
    read_signatures,
    sign,
    verify,
)

SEED = bytes(range(32))
OURS = SigningKey(SEED)
THEIRS = ed25519.Ed25519PrivateKey.from_private_bytes(SEED)
KEY_ID = OURS.public_key.thumbprint
RESOLVER = MappingKeyResolver(public_keys={KEY_ID: THEIRS.public_key()}, private_keys={KEY_ID: THEIRS})
AGES: Any = {"max_age": None}


class Lines(dict[str, str]):
    """Headers as the oracle wants them: a mapping, one line a name."""


class Message:
    """A request or an answer as the oracle wants it."""

    def __init__(self, method: str, url: str, headers: dict[str, str]) -> None:
        self.method, self.url, self.headers = method, url, Lines(headers)


class Answer:
    """An answer, with its request."""

    def __init__(self, status: int, headers: dict[str, str], request: Message) -> None:
        self.status_code, self.headers, self.request = status, Lines(headers), request


PRINTABLE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=40)
PATHS = st.from_regex(r"(/[A-Za-z0-9._~!$&'()*+,;=:@-]{0,10}){1,4}", fullmatch=True)
QUERIES = st.just("") | st.from_regex(r"\?([a-z]{1,5}=[A-Za-z0-9._%-]{0,8}&?){0,4}", fullmatch=True).filter(
    lambda query: "%" not in query
)
KEYS = st.from_regex(r"[a-z][a-z0-9]{0,6}", fullmatch=True)
# Members of a dictionary, as servers write them: with parameters and spaces of all kinds.
VALUES = st.sampled_from(["1", "1.50", '"a b"', "tok/en", ":AAEC:", "?1", "?0", "(a  1 :AA==:)", '"q\\"q"', "a;x;y=2"])
DICTIONARIES = st.dictionaries(KEYS, VALUES, min_size=1, max_size=4)
AUTHORITIES = st.sampled_from(["example.com", "EXAMPLE.com", "example.com:443", "example.com:8443", "a-b.example"])
DERIVED = ["@method", "@authority", "@path", "@query", "@target-uri", "@scheme", "@request-target"]


@st.composite
def requests(draw: st.DrawFn) -> tuple[Message, HttpRequest, list[str]]:
    method = draw(st.sampled_from(["GET", "POST", "DELETE"]))
    authority, path, query = draw(AUTHORITIES), draw(PATHS), draw(QUERIES)
    members = draw(DICTIONARIES)
    headers = {
        "X-Text": draw(PRINTABLE),
        "X-Members": ",\t ".join(f"{name}={value}" for name, value in members.items()),
    }
    covered = draw(st.lists(st.sampled_from(DERIVED), unique=True, max_size=7))
    covered += draw(st.sampled_from([[], ["x-text"], ["x-text", "x-members"]]))
    covered += [f'"x-members";key="{name}"' for name in draw(st.lists(st.sampled_from(sorted(members)), unique=True))]
    theirs = Message(method, f"https://{authority}{path}{query}", headers)
    normal = normal_authority(authority, "https")
    if normal != authority:
        # The oracle leaves a target URI's authority as it was written; a door of ours knows the normal form alone.
        covered = [each for each in covered if each != "@target-uri"]
    ours = HttpRequest(method, normal, path, query, gather_fields(headers.items()))
    return theirs, ours, covered


def with_lines(message: HttpRequest, headers: dict[str, str]) -> HttpRequest:
    return HttpRequest(message.method, message.authority, message.path, message.query, gather_fields(headers.items()))


@given(requests(), st.integers(min_value=1, max_value=4_000_000_000), PRINTABLE)
def test_what_the_oracle_signs_we_verify(
    case: tuple[Message, HttpRequest, list[str]], created: int, nonce: str
) -> None:
    theirs, ours, covered = case
    HTTPMessageSigner(signature_algorithm=ED25519, key_resolver=RESOLVER).sign(
        theirs,
        key_id=KEY_ID,
        created=dt.datetime.fromtimestamp(created, tz=dt.UTC),
        nonce=nonce,
        label="sig",
        covered_component_ids=covered,
    )
    signed = with_lines(ours, theirs.headers)
    (received,) = read_signatures(signed.fields)
    assert received.params.created == created
    assert received.params.nonce == nonce
    assert received.covers(*covered)
    assert verify(signed, received, OURS.public_key)
    assert not verify(signed, received, SigningKey(b"\1" * 32).public_key)


@given(requests(), PRINTABLE)
def test_what_we_sign_the_oracle_verifies(case: tuple[Message, HttpRequest, list[str]], nonce: str) -> None:
    theirs, ours, covered = case
    params = SignatureParams(created=1_700_000_000, keyid=KEY_ID, alg="ed25519", nonce=nonce, tag="t")
    theirs.headers.update(sign(ours, covered, params, OURS))
    verifier = HTTPMessageVerifier(signature_algorithm=ED25519, key_resolver=RESOLVER)
    (found,) = verifier.verify(theirs, max_age=None, expect_tag="t", require_components=tuple(covered))
    assert found.nonce == nonce


@given(requests(), st.integers(100, 599), PRINTABLE)
def test_answers_verify_both_ways(case: tuple[Message, HttpRequest, list[str]], status: int, text: str) -> None:
    theirs, ours, _ = case
    params = SignatureParams(created=1_700_000_000, keyid=KEY_ID, tag="t")
    theirs.headers.update(sign(ours, ["@path"], params, OURS))
    request = with_lines(ours, theirs.headers)
    covered = ["@status", "x-text", '"@authority";req', '"signature";req;key="sig"', '"signature-input";req;key="sig"']
    mine = HttpResponse(status, gather_fields([("X-Text", text)]), request)
    answer = Answer(status, {"X-Text": text, **dict(sign(mine, covered, params, OURS))}, theirs)
    HTTPMessageVerifier(signature_algorithm=ED25519, key_resolver=RESOLVER).verify(
        answer, max_age=None, expect_tag="t", require_components=tuple(covered)
    )
    answer = Answer(status, {"X-Text": text}, theirs)
    HTTPMessageSigner(signature_algorithm=ED25519, key_resolver=RESOLVER).sign(
        answer, key_id=KEY_ID, tag="t", label="sig", covered_component_ids=covered
    )
    signed = HttpResponse(status, gather_fields(answer.headers.items()), request)
    (received,) = read_signatures(signed.fields)
    assert verify(signed, received, OURS.public_key)


@given(requests(), st.data())
def test_what_one_refuses_so_does_the_other(case: tuple[Message, HttpRequest, list[str]], data: st.DataObject) -> None:
    """A signed request with one byte of its signature fields changed: both say the same."""
    theirs, ours, covered = case
    params = SignatureParams(created=1_700_000_000, keyid=KEY_ID, tag="t")
    headers = dict(theirs.headers) | dict(sign(ours, covered, params, OURS))
    name = data.draw(st.sampled_from(["Signature", "Signature-Input"]))
    value = headers[name]
    index = data.draw(st.integers(0, len(value) - 1))
    headers[name] = value[:index] + data.draw(st.sampled_from('aA1=:;"() ')) + value[index + 1 :]
    changed = with_lines(ours, headers)
    try:
        (received,) = read_signatures(changed.fields)
        we_say = received.params.tag == "t" and received.params.keyid == KEY_ID
        we_say = we_say and verify(changed, received, OURS.public_key)
    except (SignatureInvalid, ValueError):
        we_say = False
    message = Message(theirs.method, theirs.url, headers)
    try:
        verifier = HTTPMessageVerifier(signature_algorithm=ED25519, key_resolver=RESOLVER)
        they_say = bool(verifier.verify(message, max_age=None, expect_tag="t"))
    except InvalidSignature:
        they_say = False
    assert we_say == they_say
